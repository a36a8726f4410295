//! The name of an artifact: its path below the pickup directory, in the bytes the file system gave.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A relative path below a pickup directory: no root, no `..`, no `.`; empty for the whole directory.
///
/// Names that are not UTF-8 are kept byte for byte. Serialised as a string, or as `{"bytes": "<hex>"}` where
/// a name is not UTF-8. Clones share one allocation: a path is known in many places at once.
#[derive(Clone, Debug)]
pub struct UnitPath(Arc<Path>);

static ROOT: LazyLock<Arc<Path>> = LazyLock::new(|| Path::new("").into());

impl Default for UnitPath {
    fn default() -> Self {
        Self(ROOT.clone())
    }
}

impl UnitPath {
    /// The whole pickup directory.
    pub fn root() -> Self {
        Self::default()
    }

    /// Takes a relative path, or `None` if it is absolute or leaves its directory.
    pub fn new(path: impl AsRef<Path>) -> Option<Self> {
        let path = path.as_ref();
        if is_clean(path) {
            return Some(Self(path.into()));
        }
        let mut clean = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => clean.push(name),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
            }
        }
        Some(Self(clean.into()))
    }

    /// The path of the entry `name` below this one.
    #[must_use]
    pub fn join(&self, name: impl AsRef<OsStr>) -> Self {
        Self(self.0.join(name.as_ref()).into())
    }

    /// How this path compares with that of the entry `name` of `directory`; `None` if it lies below another entry that
    /// comes before.
    pub(crate) fn compare_entry(&self, directory: &Self, name: &OsStr) -> Option<Ordering> {
        if !self.starts_with(directory) {
            return Some(self.cmp(directory));
        }
        let below = &self.bytes()[directory.bytes().len()..];
        let below = below.strip_prefix(&[SEPARATOR]).unwrap_or(below);
        let end = below.iter().position(|byte| *byte == SEPARATOR);
        let (first, is_below) = (&below[..end.unwrap_or(below.len())], end.is_some());
        match (first.cmp(name.as_encoded_bytes()), is_below) {
            (Ordering::Less, true) => None,
            (Ordering::Equal, true) => Some(Ordering::Greater),
            (order, _) => Some(order),
        }
    }

    /// The path as the standard library's type.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// Whether this is the whole pickup directory.
    pub fn is_root(&self) -> bool {
        self.0.as_os_str().is_empty()
    }

    /// The last component, or `None` for the root.
    pub fn file_name(&self) -> Option<&OsStr> {
        self.0.file_name()
    }

    /// The first component as a path of its own: the unit that holds this path when units are directories.
    #[must_use]
    pub fn first(&self) -> Self {
        self.0.iter().next().map_or_else(Self::default, |first| Self(Path::new(first).into()))
    }

    /// The containing directory, or `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.parent().map(|parent| Self(parent.into()))
    }

    /// Whether this path is `other` or lies below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        let (path, top) = (self.bytes(), other.bytes());
        path.strip_prefix(top).is_some_and(|rest| top.is_empty() || rest.is_empty() || rest[0] == SEPARATOR)
    }

    /// Whether one of the two lies below the other, or both are the same.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        self.starts_with(other) || other.starts_with(self)
    }

    /// This path as seen from `base`, or `None` if it does not lie below it.
    pub fn below(&self, base: &Self) -> Option<Self> {
        self.0.strip_prefix(&base.0).ok().map(|rest| Self(rest.into()))
    }
}

// The path is normalised when it is made, so that bytes tell everything: the standard library's comparison takes paths
// apart anew each time, which is a third of a start with 100,000 files.

impl UnitPath {
    fn bytes(&self) -> &[u8] {
        self.0.as_os_str().as_encoded_bytes()
    }
}

impl PartialEq for UnitPath {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for UnitPath {}

impl AsRef<Path> for UnitPath {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

impl PartialOrd for UnitPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By component, so that everything below a path is one range that begins with it.
impl Ord for UnitPath {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, other) = (self.bytes(), other.bytes());
        match difference(one, other) {
            // A separator ends a component, and the shorter component comes first.
            Some(at) => (one[at] != SEPARATOR, one[at]).cmp(&(other[at] != SEPARATOR, other[at])),
            None => one.len().cmp(&other.len()),
        }
    }
}

/// Whether nothing about the path has to be put right: mostly it was one of ours before.
fn is_clean(path: &Path) -> bool {
    let is_name = |name: &[u8]| !matches!(name, b"" | b"." | b"..");
    cfg!(unix) && path.as_os_str().as_encoded_bytes().split(|byte| *byte == SEPARATOR).all(is_name)
}

/// Where the two differ first, within the length of the shorter. Eight bytes at a time: paths that are compared mostly
/// share a long beginning.
#[inline]
fn difference(one: &[u8], other: &[u8]) -> Option<usize> {
    const WORD: usize = size_of::<u64>();
    let length = one.len().min(other.len());
    let (one, other) = (&one[..length], &other[..length]);
    let Some(last) = length.checked_sub(WORD) else {
        return one.iter().zip(other).position(|(one, other)| one != other);
    };
    let mut at = 0;
    loop {
        // The last word may begin within the one before.
        at = at.min(last);
        let (left, right) = (one[at..].first_chunk()?, other[at..].first_chunk()?);
        // The lowest byte is the first.
        let differing = u64::from_le_bytes(*left) ^ u64::from_le_bytes(*right);
        if differing != 0 {
            return Some(at + differing.trailing_zeros() as usize / 8);
        }
        if at == last {
            return None;
        }
        at += WORD;
    }
}

impl Hash for UnitPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

/// The byte between two components.
const SEPARATOR: u8 = std::path::MAIN_SEPARATOR as u8;

impl fmt::Display for UnitPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { self.0.display().fmt(f) }
    }
}

impl Serialize for UnitPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => Encoded::Bytes { bytes: hex(self.0.as_os_str().as_encoded_bytes()) }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for UnitPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let path = match Encoded::deserialize(deserializer)? {
            Encoded::Text(text) => PathBuf::from(text),
            Encoded::Bytes { bytes } => {
                PathBuf::from(unhex(&bytes).ok_or_else(|| serde::de::Error::custom("a path in hexadecimal"))?)
            }
        };
        Self::new(path).ok_or_else(|| serde::de::Error::custom("a relative path without `..`"))
    }
}

/// A path for programs: text where it is UTF-8, else its bytes.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Encoded {
    Text(String),
    Bytes { bytes: String },
}

/// Serialises absolute paths the same way, for receipts: `#[serde(with = "path::exact")]`.
pub(crate) mod exact {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => serializer.serialize_str(text),
            None => Encoded::Bytes { bytes: hex(path.as_os_str().as_encoded_bytes()) }.serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        match Encoded::deserialize(deserializer)? {
            Encoded::Text(text) => Ok(PathBuf::from(text)),
            Encoded::Bytes { bytes } => {
                unhex(&bytes).map(PathBuf::from).ok_or_else(|| serde::de::Error::custom("a path in hexadecimal"))
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(unix)]
fn unhex(text: &str) -> Option<std::ffi::OsString> {
    use std::os::unix::ffi::OsStringExt;
    if !text.len().is_multiple_of(2) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    let bytes: Option<Vec<u8>> = pairs.map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect();
    bytes.map(std::ffi::OsString::from_vec)
}

#[cfg(not(unix))]
fn unhex(_text: &str) -> Option<std::ffi::OsString> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leaves_its_directory_is_no_unit() {
        for bad in ["/etc/passwd", "../x", "a/../../b"] {
            assert_eq!(UnitPath::new(bad), None, "{bad}");
        }
        assert_eq!(UnitPath::new("./a//b/").unwrap().as_path(), Path::new("a/b"));
    }

    #[test]
    fn paths_that_begin_alike_differ_where_they_do() {
        let one = UnitPath::new("directory-1/file-10").unwrap();
        for other in
            ["directory-1/file-2", "directory-1/file-100", "directory-1/file-1", "directory-1/file-10/a", "directory-1"]
        {
            let other = UnitPath::new(other).unwrap();
            assert_eq!(one.cmp(&other), one.as_path().cmp(other.as_path()), "{other}");
            assert_eq!(other.cmp(&one), other.as_path().cmp(one.as_path()), "{other}");
        }
    }

    proptest::proptest! {
        /// The bytes say what the standard library says.
        #[test]
        fn the_order_is_that_of_components(one in "[a-c/!]{0,20}", other in "[a-c/!]{0,20}") {
            let paths = (UnitPath::new(one.trim_matches('/')), UnitPath::new(other.trim_matches('/')));
            let (Some(one), Some(other)) = paths else { return Ok(()) };
            proptest::prop_assert_eq!(one.cmp(&other), one.as_path().cmp(other.as_path()));
            proptest::prop_assert_eq!(one == other, one.as_path() == other.as_path());
            proptest::prop_assert_eq!(one.starts_with(&other), one.as_path().starts_with(other.as_path()));
        }
    }

    #[test]
    fn an_entry_is_compared_without_making_its_path() {
        let path = |text: &str| UnitPath::new(text).unwrap();
        let compare =
            |one: &str, directory: &str, name: &str| path(one).compare_entry(&path(directory), OsStr::new(name));
        for (one, directory, name, expected) in [
            ("d/b", "d", "b", Some(Ordering::Equal)),
            ("d/a", "d", "b", Some(Ordering::Less)),
            ("d/a/x", "d", "b", None),
            ("d/b/x", "d", "b", Some(Ordering::Greater)),
            ("d-b", "d", "b", Some(Ordering::Greater)),
            ("c/z", "d", "b", Some(Ordering::Less)),
            ("b", "", "b", Some(Ordering::Equal)),
            ("a/x", "", "b", None),
            ("d", "d", "b", Some(Ordering::Less)),
        ] {
            assert_eq!(compare(one, directory, name), expected, "{one} against {directory}/{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_name_that_is_not_utf_8_survives_serialisation() {
        use std::os::unix::ffi::OsStrExt;
        let path = UnitPath::new(OsStr::from_bytes(b"a\xff/b")).unwrap();
        let text = serde_json::to_string(&path).unwrap();
        assert_eq!(text, r#"{"bytes":"61ff2f62"}"#);
        assert_eq!(serde_json::from_str::<UnitPath>(&text).unwrap(), path);
    }
}
