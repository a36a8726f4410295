//! Stage 3 of 8: settled paths in, captured files out.
//!
//! What is captured is what is judged and what is deployed: the bytes are in the content store, named by their digest,
//! before anything looks at them again.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::store::shelf::Shelf;
use crate::error::{Error, IoContext, Result};

pub(crate) mod store;

/// The BLAKE3 digest of some content: its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// That of these bytes.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The first 12 hexadecimal digits, for names that people read.
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }

    /// All 64 hexadecimal digits. By hand, because every path in the content store is made of them.
    fn hex(&self) -> [u8; 64] {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        hex
    }
}

/// What is found by a digest.
pub(crate) type ByDigest<T> = HashMap<Digest, T, BuildHasherDefault<Uniform>>;

/// Digests are as evenly spread as any hash of them could be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Uniform(u64);

impl Hasher for Uniform {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length, which is the same for all.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.hex()).unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = blake3::HexError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes()))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(str::from_utf8(&self.hex()).unwrap_or_default())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A file as it was captured: what a deployer reads.
///
/// Two are equal if their content and mode are.
#[derive(Clone, Debug)]
pub struct CapturedFile {
    /// The identity of the content.
    pub digest: Digest,
    /// The length in bytes.
    pub size: u64,
    /// The permission bits of the original, `0o7777` at most.
    pub mode: u32,
    stored: Stored,
}

/// Where the bytes of captured files are.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    /// In a content store that is, or was, open.
    Open(Arc<Shelf>),
    /// In the content store in that directory.
    In(Arc<Path>),
    /// In that file.
    At(Arc<Path>),
}

impl Stored {
    /// For files of which nobody needs the bytes.
    pub(crate) fn nowhere() -> Self {
        Self::In(Path::new("").into())
    }
}

impl CapturedFile {
    /// A file of that mode whose `size` bytes lie at `path`, read-only for all: for whoever tests a deployer.
    pub fn at(path: impl Into<Arc<Path>>, digest: Digest, size: u64, mode: u32) -> Self {
        Self { digest, size, mode, stored: Stored::At(path.into()) }
    }

    /// Content of this digest that is stored there.
    pub(crate) fn stored(digest: Digest, size: u64, mode: u32, stored: &Stored) -> Self {
        Self { digest, size, mode, stored: stored.clone() }
    }

    /// Where the bytes are, in a file of their own that nobody may write to: `<state_dir>/store/ab/abcdef…`. Small content gets
    /// that file now, if it has none yet; [`read`](Self::read) is quicker.
    ///
    /// # Errors
    /// The content store cannot be written.
    pub fn path(&self) -> Result<PathBuf> {
        match &self.stored {
            Stored::Open(shelf) => shelf.settled_path(&self.digest),
            Stored::In(_) | Stored::At(_) => Ok(self.named()),
        }
    }

    /// All of the bytes.
    ///
    /// # Errors
    /// They are gone, or cannot be read.
    pub fn read(&self) -> Result<Vec<u8>> {
        if let Some(content) = self.recent() {
            return Ok(content);
        }
        let path = self.named();
        #[expect(clippy::disallowed_methods, reason = "what was captured is ours")]
        std::fs::read(&path).doing("read", path)
    }

    /// All of the bytes, as text.
    ///
    /// # Errors
    /// As for [`read`](Self::read), and where they are not UTF-8.
    pub fn read_to_string(&self) -> Result<String> {
        String::from_utf8(self.read()?).map_err(|error| Error::deploy("read as text").at(self.named()).caused_by(error))
    }

    /// The bytes, if they have no file of their own yet.
    pub(crate) fn recent(&self) -> Option<Vec<u8>> {
        match &self.stored {
            Stored::Open(shelf) => shelf.recent(&self.digest),
            Stored::In(_) | Stored::At(_) => None,
        }
    }

    /// What their file is or will be.
    pub(crate) fn named(&self) -> PathBuf {
        match &self.stored {
            Stored::Open(shelf) => shelf.path(&self.digest),
            Stored::In(store) => stored_path(store, &self.digest),
            Stored::At(path) => path.to_path_buf(),
        }
    }

    /// Whether it is stored just there.
    pub(crate) fn is_stored_in(&self, other: &Stored) -> bool {
        match (&self.stored, other) {
            (Stored::Open(one), Stored::Open(other)) => Arc::ptr_eq(one, other),
            (Stored::In(one), Stored::In(other)) => one == other,
            (Stored::Open(_) | Stored::In(_) | Stored::At(_), _) => false,
        }
    }
}

impl PartialEq for CapturedFile {
    fn eq(&self, other: &Self) -> bool {
        (self.digest, self.size, self.mode) == (other.digest, other.size, other.mode)
    }
}

impl Eq for CapturedFile {}

/// Where the content store in the directory `store` keeps these bytes, if it has them.
pub(crate) fn stored_path(store: &Path, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    let name = str::from_utf8(&hex).unwrap_or_default();
    let mut path = PathBuf::with_capacity(store.as_os_str().len() + hex.len() + 4);
    path.push(store);
    path.push(&name[..2]);
    path.push(name);
    path
}
