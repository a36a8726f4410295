//! What is stored: counting it, and removing what nobody refers to, or what cannot be used.
#![expect(clippy::disallowed_methods, reason = "this is the door to the content store")]

use std::collections::HashSet;
use std::fs::{self, DirEntry, File};
use std::io;
use std::sync::PoisonError;

use super::bytes::hash;
use super::hook::StoreWrite;
use super::{Store, small};
use crate::capture::{Digest, stored_path};
use crate::error::{Error, IoContext, Result};

impl Store {
    /// The digests of all that is stored, sorted; counts it too, if nobody did before. A file is looked at only where
    /// `size_of_known` cannot tell how long it is, or after a crash, which may have left half of a file: that is thrown away.
    ///
    /// # Errors
    /// The store cannot be listed.
    pub(crate) fn stored(&self, size_of_known: impl Fn(&Digest) -> Option<u64>) -> Result<Vec<Digest>> {
        let mut is_counted = self.shelf.is_counted();
        let (mut digests, mut used) = (Vec::new(), 0);
        self.for_each(|digest, entry| {
            let mut size = size_of_known(&digest);
            if size.is_none() || !self.mark.is_clean() {
                let Some(found) = size_of(entry)? else { return Ok(()) };
                if size.is_some_and(|known| known != found) && self.throw_away(&digest, *is_counted)? {
                    return Ok(());
                }
                size = Some(found);
            }
            digests.push(digest);
            used += size.unwrap_or(0);
            Ok(())
        })?;
        for (digest, length) in self.state().recent.lengths() {
            digests.push(digest);
            used += length;
        }
        digests.sort_unstable();
        digests.dedup();
        if !*is_counted {
            self.state().used = used;
            *is_counted = true;
        }
        drop(is_counted);
        Ok(digests)
    }

    /// Makes sure that it is known how much is stored. Until it is, nothing is stored or removed, so the count is exact.
    pub(super) fn count(&self) -> Result<()> {
        let is_counted = *self.shelf.is_counted();
        if is_counted { Ok(()) } else { self.stored(|_| None).map(drop) }
    }

    /// Removes what `list` does not name, and gives the number of bytes freed. Spared are pinned content and content that
    /// was unpinned after `list` was called, because the list may be older than the reference to it.
    ///
    /// # Errors
    /// `list` fails, or the store cannot be listed or written.
    pub(crate) fn collect(&self, list: impl FnOnce() -> Result<HashSet<Digest>>) -> Result<u64> {
        let _one_at_a_time = self.collecting.lock().unwrap_or_else(PoisonError::into_inner);
        self.state().unpinned = Some(HashSet::new());
        let freed = list().and_then(|keep| self.collect_all_but(&keep));
        self.state().unpinned = None;
        freed
    }

    fn collect_all_but(&self, keep: &HashSet<Digest>) -> Result<u64> {
        self.count()?;
        let mut freed = self.shelf.put_away_doubles() + self.forget_all_but(keep)?;
        self.for_each(|digest, entry| {
            if keep.contains(&digest) {
                return Ok(());
            }
            let Some(size) = size_of(entry)? else { return Ok(()) };
            let path = entry.path();
            // Under the lock, so that no capture can find the content and pin it in between.
            let mut state = self.state();
            if state.is_loose(&digest) && path.exists() {
                self.may(StoreWrite::Remove).and_then(|()| fs::remove_file(&path)).doing("remove", path)?;
                state.used = state.used.saturating_sub(size);
                freed += size;
            }
            Ok(())
        })?;
        Ok(freed)
    }

    /// The same for what has no file of its own.
    fn forget_all_but(&self, keep: &HashSet<Digest>) -> Result<u64> {
        let mut state = self.state();
        let mut freed = 0;
        for (digest, length) in state.recent.lengths() {
            if !keep.contains(&digest) && state.is_loose(&digest) {
                self.may(StoreWrite::Remove).doing("remove", state.recent.path())?;
                state.recent.forget(&digest);
                state.used = state.used.saturating_sub(length);
                freed += length;
            }
        }
        Ok(freed)
    }

    /// Removes what cannot be used, and takes it off the count if it `is_counted`. `false` if it is whole after all: somebody
    /// was in the middle of writing it when it was read.
    pub(super) fn throw_away(&self, digest: &Digest, is_counted: bool) -> Result<bool> {
        let path = stored_path(&self.shelf.dir, digest);
        // Nothing is written under its own name while we have the lock.
        let mut state = self.state();
        let found = match path.symlink_metadata() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
            found => found.doing("look at", &path)?,
        };
        if found.len() <= small::BRIEF_MAX as u64
            && File::open(&path).and_then(|file| hash(&file)).ok() == Some(*digest)
        {
            return Ok(false);
        }
        fs::remove_file(&path).doing("remove", path)?;
        if is_counted {
            state.used = state.used.saturating_sub(found.len());
        }
        Ok(true)
    }

    /// Calls `each` with the digest and the entry of everything stored.
    fn for_each(&self, mut each: impl FnMut(Digest, &DirEntry) -> Result<()>) -> Result<()> {
        for group in fs::read_dir(&self.shelf.dir).doing("list", &self.shelf.dir)? {
            let group = group.doing("list", &self.shelf.dir)?;
            if group.file_name().len() != 2 || !group.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            for entry in fs::read_dir(group.path()).doing("list", group.path())? {
                let entry = entry.doing("list", group.path())?;
                let Some(digest) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
                each(digest, &entry)?;
            }
        }
        Ok(())
    }
}

/// `None` if it is gone: damaged content was thrown away meanwhile.
fn size_of(entry: &DirEntry) -> Result<Option<u64>> {
    match entry.metadata() {
        Ok(found) => Ok(Some(found.len())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("look at", entry.path(), e)),
    }
}
