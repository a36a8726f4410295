//! Stage 4 of 8: captured files in, change sets out.
//!
//! Pure: what is captured is compared with what was acknowledged, and the difference is a change set.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use self::live::Live;
use crate::capture::{CapturedFile, Digest};
use crate::path::UnitPath;

pub(crate) mod gather;
pub(crate) mod live;
#[cfg(test)]
mod tests;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeFile {
    /// Where it lies, below the tree's own top.
    pub path: UnitPath,
    /// Its bytes and mode.
    pub file: CapturedFile,
}

/// What a unit consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// Whether nothing about the other differs: neither content nor names nor modes.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(one), Self::File(other)) => one.digest == other.digest && one.mode == other.mode,
            (Self::Tree(one), Self::Tree(other)) => {
                let same = |(one, other): (&TreeFile, &TreeFile)| {
                    one.path == other.path && one.file.digest == other.file.digest && one.file.mode == other.file.mode
                };
                one.len() == other.len() && one.iter().zip(other.iter()).all(same)
            }
            (Self::File(_), Self::Tree(_)) | (Self::Tree(_), Self::File(_)) => false,
        }
    }

    /// Every file in it.
    pub fn files(&self) -> impl Iterator<Item = &CapturedFile> {
        let (one, many) = match self {
            Self::File(file) => (Some(file), [].as_slice()),
            Self::Tree(files) => (None, &files[..]),
        };
        one.into_iter().chain(many.iter().map(|entry| &entry.file))
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
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// Compares what is wanted with what was acknowledged, for the units in `dirty` only.
///
/// `touched` names units whose file was touched since: they are deployed again although nothing in them differs.
pub(crate) fn compare(
    dirty: &BTreeSet<UnitPath>,
    touched: &BTreeSet<UnitPath>,
    wanted: impl Fn(&UnitPath) -> Option<Content>,
    live: &Live,
) -> Vec<Change> {
    let change = |path: &UnitPath| {
        let (wanted, live) = (wanted(path), live.get(path));
        let kind = match (&live, &wanted) {
            (None, None) => None, // It came and went, and nobody downstream ever saw it.
            (None, Some(_)) => Some(ChangeKind::Added),
            (Some(_), None) => Some(ChangeKind::Removed),
            (Some(live), Some(wanted)) if !live.is_same(wanted) => Some(ChangeKind::Modified),
            (Some(_), Some(_)) if touched.contains(path) => Some(ChangeKind::Touched),
            (Some(_), Some(_)) => None, // Edited back, or saved without a change of ours to see.
        };
        kind.map(|kind| Change {
            path: path.clone(),
            kind,
            content: wanted,
            previous: live.as_ref().map(Content::digest),
        })
    };
    dirty.iter().filter_map(change).collect()
}

/// How many removals in one change set are never an accident.
const REMOVALS_TRUSTED: usize = 20;

/// Why removals are not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// The directory is empty where it held several units, or was found empty without anybody being seen to empty it.
    Emptied,
    /// More than half of the units, and more than 20, are gone at once.
    Many,
}

/// Whether `gone` removals out of `live` units are believed. `seen` says that each was reported as it happened, and not
/// found by a listing; `is_empty`, that nothing else is there.
pub(crate) fn doubt(gone: usize, live: usize, seen: bool, is_empty: bool) -> Option<Doubt> {
    match () {
        () if gone == 0 => None,
        // Deleting the only file, while we watch, is somebody deleting a file.
        () if is_empty && gone == live && (gone > 1 || !seen) => Some(Doubt::Emptied),
        () if gone > REMOVALS_TRUSTED && gone * 2 > live => Some(Doubt::Many),
        () => None,
    }
}
