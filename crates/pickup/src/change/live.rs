//! What is live, by unit, kept small: it holds one entry for each file that is watched.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::{Content, TreeFile};
use crate::capture::{CapturedFile, Digest, Stored};
use crate::path::UnitPath;

/// What was acknowledged, by unit. Where its bytes are stored follows from their digest and is not kept for each.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// Where content is stored.
    stored: Stored,
    units: BTreeMap<UnitPath, Kept>,
}

/// One unit of it.
#[derive(Clone, Debug)]
pub(crate) enum Kept {
    /// In the content store, where its digest says.
    File {
        digest: Digest,
        size: u64,
        mode: u32,
    },
    /// Anywhere else: a rehearsal has a store of its own.
    Elsewhere(Box<CapturedFile>),
    Tree(Arc<[TreeFile]>),
}

impl Kept {
    /// Its identity.
    pub(crate) fn digest(&self) -> Digest {
        match self {
            Self::File { digest, .. } => *digest,
            Self::Elsewhere(file) => file.digest,
            Self::Tree(files) => Content::Tree(files.clone()).digest(),
        }
    }

    /// The same with its bytes, which are `stored` there.
    pub(crate) fn content(&self, stored: &Stored) -> Content {
        match self {
            Self::File { digest, size, mode } => Content::File(CapturedFile::stored(*digest, *size, *mode, stored)),
            Self::Elsewhere(file) => Content::File(CapturedFile::clone(file)),
            Self::Tree(files) => Content::Tree(files.clone()),
        }
    }

    /// The digests of its files, with the size of each.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (Digest, u64)> {
        let (file, tree) = match self {
            Self::File { digest, size, .. } => (Some((*digest, *size)), None),
            Self::Elsewhere(file) => (Some((file.digest, file.size)), None),
            Self::Tree(files) => (None, Some(files.iter().map(|entry| (entry.file.digest, entry.file.size)))),
        };
        file.into_iter().chain(tree.into_iter().flatten())
    }
}

impl Live {
    /// Nothing is live; content will be `stored` there.
    pub(crate) fn new(stored: Stored) -> Self {
        Self { stored, units: BTreeMap::new() }
    }

    /// These units are live. In order, or nearly, they cost the least.
    pub(crate) fn of(stored: Stored, units: impl IntoIterator<Item = (UnitPath, Kept)>) -> Self {
        Self { stored, units: units.into_iter().collect() }
    }

    pub(crate) fn get(&self, unit: &UnitPath) -> Option<Content> {
        self.units.get(unit).map(|kept| kept.content(&self.stored))
    }

    /// The identity of what is live of the unit.
    pub(crate) fn digest(&self, unit: &UnitPath) -> Option<Digest> {
        self.units.get(unit).map(Kept::digest)
    }

    /// Whether just this file is live as the unit.
    pub(crate) fn is_file(&self, unit: &UnitPath, wanted: &Digest, mode_wanted: u32) -> bool {
        match self.units.get(unit) {
            Some(Kept::File { digest, mode, .. }) => digest == wanted && *mode == mode_wanted,
            Some(Kept::Elsewhere(file)) => file.digest == *wanted && file.mode == mode_wanted,
            Some(Kept::Tree(_)) | None => false,
        }
    }

    pub(crate) fn contains_key(&self, unit: &UnitPath) -> bool {
        self.units.contains_key(unit)
    }

    pub(crate) fn insert(&mut self, unit: UnitPath, content: Content) {
        let kept = match content {
            Content::File(file) if file.is_stored_in(&self.stored) => {
                Kept::File { digest: file.digest, size: file.size, mode: file.mode }
            }
            Content::File(file) => Kept::Elsewhere(file.into()),
            Content::Tree(files) => Kept::Tree(files),
        };
        self.units.insert(unit, kept);
    }

    /// Whether it was live.
    pub(crate) fn remove(&mut self, unit: &UnitPath) -> bool {
        self.units.remove(unit).is_some()
    }

    pub(crate) fn len(&self) -> usize {
        self.units.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The units, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &UnitPath> {
        self.units.keys()
    }

    /// The units from `unit` on, in order.
    pub(crate) fn keys_from(&self, unit: &UnitPath) -> impl Iterator<Item = &UnitPath> {
        self.units.range((Bound::Included(unit), Bound::Unbounded)).map(|(unit, _)| unit)
    }

    /// All of it.
    pub(crate) fn contents(&self) -> BTreeMap<UnitPath, Content> {
        self.units.iter().map(|(unit, kept)| (unit.clone(), kept.content(&self.stored))).collect()
    }

    /// The digests of all files that are live, with the size of each; those of two units come twice.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = (Digest, u64)> {
        self.units.values().flat_map(Kept::sizes)
    }

    /// Gives back what growing one by one took: nodes that are filled in order are left half empty. `shared` are paths
    /// that others hold already, in order.
    pub(crate) fn pack<'a>(&mut self, shared: impl Iterator<Item = &'a UnitPath>) {
        let mut shared = shared.peekable();
        let units = std::mem::take(&mut self.units).into_iter();
        let share = |(unit, kept): (UnitPath, Kept)| {
            while shared.next_if(|path| **path < unit).is_some() {}
            (shared.next_if(|path| **path == unit).cloned().unwrap_or(unit), kept)
        };
        self.units = units.map(share).collect();
    }
}

#[cfg(test)]
impl FromIterator<(UnitPath, Content)> for Live {
    fn from_iter<T: IntoIterator<Item = (UnitPath, Content)>>(units: T) -> Self {
        let mut live = Self::new(Stored::nowhere());
        units.into_iter().for_each(|(unit, content)| live.insert(unit, content));
        live
    }
}
