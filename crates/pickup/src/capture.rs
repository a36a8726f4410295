//! Stage 3 of 8: settled paths in, captured files out.
//!
//! What is captured is what is judged and what is deployed: the bytes are in the content store, named by their digest,
//! before anything looks at them again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub(crate) mod store;

/// The BLAKE3 digest of some content: its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
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

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        blake3::Hash::from_hex(text).map(|hash| Self(*hash.as_bytes()))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A file in the content store: what a deployer reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedFile {
    /// The identity of the content.
    pub digest: Digest,
    /// The length in bytes.
    pub size: u64,
    /// The permission bits of the original, `0o7777` at most.
    pub mode: u32,
    /// Where the bytes are, read-only: `<state_dir>/store/ab/abcdef…`.
    pub stored: PathBuf,
}

impl CapturedFile {
    /// Content of this digest as the store in the directory `store` keeps it.
    pub(crate) fn in_store(store: &Path, digest: Digest, size: u64, mode: u32) -> Self {
        Self { digest, size, mode, stored: stored_path(store, &digest) }
    }
}

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
