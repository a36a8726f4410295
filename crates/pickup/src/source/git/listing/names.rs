//! Names in a commit that no file system should be given.

use std::collections::HashSet;
use std::ffi::OsString;

/// Bytes of a name: what file systems take.
const NAME_MAX: usize = 255;

/// The names of one directory.
pub(super) struct Names {
    /// Whether names may differ by nothing but case.
    with_collisions: bool,
    seen: HashSet<Vec<u8>>,
}

impl Names {
    pub(super) fn new(with_collisions: bool) -> Self {
        Self { with_collisions, seen: HashSet::new() }
    }

    /// Takes one more name of the directory.
    ///
    /// # Errors
    /// Why the commit cannot be deployed, to be read after the path.
    pub(super) fn add(&mut self, name: &[u8]) -> Result<OsString, String> {
        if let Some(why) = refusal(name) {
            return Err(why.into());
        }
        let key = if self.with_collisions { name.to_vec() } else { folded(name) };
        if !self.seen.insert(key) {
            return Err(if self.with_collisions {
                "is there twice".into()
            } else {
                "is there twice, perhaps with upper and lower case exchanged; a file system that takes these for one name \
                 would mix them up: rename one, or set `git_allow = [\"case_collisions\"]`"
                    .into()
            });
        }
        native(name).ok_or_else(|| "is a name that this system cannot have".into())
    }
}

fn refusal(name: &[u8]) -> Option<&'static str> {
    match name {
        b"" | b"." | b".." => Some("is no name; the commit was not made by git, and can do harm"),
        _ if name.len() > NAME_MAX => Some("has a name of more than 255 bytes, which no file system takes: rename it"),
        _ if name.contains(&b'/') => Some("has a slash in its name; the commit was not made by git, and can do harm"),
        // Windows takes a backslash for a separator.
        _ if name.split(|byte| *byte == b'\\').any(is_dot_git) => {
            Some("can be taken for `.git` by some file system, and could plant a repository's configuration: rename it")
        }
        _ => None,
    }
}

/// Whether some file system takes `name` for `.git`: those that ignore case, Windows with its short names, its trailing dots
/// and spaces and its streams after a colon, and HFS+ with its characters that do not count.
fn is_dot_git(name: &[u8]) -> bool {
    // Cheap, for nearly all names: `.git` cannot come of more than this.
    if !name.iter().any(|byte| matches!(byte, b'g' | b'G')) {
        return false;
    }
    let text: String = String::from_utf8_lossy(name).chars().filter(|c| !is_ignored_by_hfs(*c)).collect();
    let text = text.split(':').next().unwrap_or_default().trim_end_matches(['.', ' ']);
    text.eq_ignore_ascii_case(".git") || text.eq_ignore_ascii_case("git~1")
}

/// The code points that HFS+ leaves out when it compares names: Apple's technical note 1150.
fn is_ignored_by_hfs(c: char) -> bool {
    matches!(c, '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}')
}

fn folded(name: &[u8]) -> Vec<u8> {
    if name.is_ascii() { name.to_ascii_lowercase() } else { String::from_utf8_lossy(name).to_lowercase().into_bytes() }
}

#[cfg(unix)]
pub(super) fn native(name: &[u8]) -> Option<OsString> {
    use std::os::unix::ffi::OsStringExt;
    Some(OsString::from_vec(name.to_vec()))
}

#[cfg(not(unix))]
pub(super) fn native(name: &[u8]) -> Option<OsString> {
    // Windows has further names that mean something else.
    std::str::from_utf8(name).ok().filter(|name| !name.contains(['\\', ':'])).map(OsString::from)
}
