//! Stage 4 of 8: captured files in, change sets out.
//!
//! Pure: what is captured is compared with what was acknowledged, and the difference is a change set.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::capture::{CapturedFile, Digest};
use crate::path::UnitPath;

/// What happened to a unit, seen from what was deployed last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// Its content or mode is another.
    Modified,
    /// Its content is the same, and somebody asked for it again.
    Touched,
    /// It is gone.
    Removed,
}

impl ChangeKind {
    /// The word users see: `added`, `modified`, `touched`, `removed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Modified => "modified",
            Self::Touched => "touched",
            Self::Removed => "removed",
        }
    }
}

/// One file inside a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeFile {
    /// Where it lies, below the tree's own top.
    pub path: UnitPath,
    /// Its bytes and mode.
    pub file: CapturedFile,
}

/// What a unit consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// One file.
    File(CapturedFile),
    /// A directory of files, sorted by path.
    Tree(Arc<[TreeFile]>),
}

impl Content {
    /// The identity of the content; for a tree, that of its names, modes and contents.
    pub fn digest(&self) -> Digest {
        match self {
            Self::File(file) => file.digest,
            Self::Tree(files) => {
                let mut hasher = blake3::Hasher::new();
                for entry in files.iter() {
                    let name = entry.path.as_path().as_os_str().as_encoded_bytes();
                    hasher.update(&(name.len() as u64).to_le_bytes());
                    hasher.update(name);
                    hasher.update(&entry.file.mode.to_le_bytes());
                    hasher.update(&entry.file.digest.0);
                }
                Digest(*hasher.finalize().as_bytes())
            }
        }
    }

    /// The length of all files together, in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Self::File(file) => file.size,
            Self::Tree(files) => files.iter().map(|entry| entry.file.size).sum(),
        }
    }
}

/// One changed unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The unit's path below the pickup directory; empty for a whole tree.
    pub path: UnitPath,
    /// What happened to it.
    pub kind: ChangeKind,
    /// What it consists of now; `None` exactly when it was removed.
    pub content: Option<Content>,
    /// The digest that was live before, if any was.
    pub previous: Option<Digest>,
}
