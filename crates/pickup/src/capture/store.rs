//! The content store: files by the digest of their bytes, `<state_dir>/store/ab/abcdef…`, and for a moment
//! `<state_dir>/store/recent`.
//!
//! Nothing here is synced to disk: what a power failure tears is noticed by its digest when it is read, thrown away, and
//! captured again from the pickup directory.
#![expect(clippy::disallowed_methods, reason = "this is the door to the content store")]

use std::collections::HashSet;
use std::fs::{self, DirBuilder, DirEntry, File};
use std::io::{self, Read as _};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{CapturedFile, Digest, Stored, stored_path};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::source::Fingerprint;
use crate::source::probe::Read;

mod bytes;
mod given;
pub(crate) mod hook;
mod mark;
mod recent;
pub(crate) mod shelf;
mod small;
#[cfg(test)]
mod tests;

use bytes::{Temp, hash};
use hook::{Hook, StoreWrite};
use mark::Mark;
use shelf::{Shelf, State, damaged};

/// Files up to this size are captured through memory, so that known content costs no write.
const IN_MEMORY_MAX: u64 = 256 * 1024;
/// Kernels before 6.13 stamp times by the tick, 10 ms at most: a change that soon after ours may carry the same time.
const RACY_NANOS: i64 = 20_000_000;

/// How many contents get files of their own in one go, while others may wait.
const PUT_AWAY_AT_ONCE: usize = 64;

/// Where temporaries are made, in the store's directory.
const TEMPS: &str = "tmp";

/// What became of a capture.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Captured {
    /// The bytes are in the store, and pinned there.
    File(CapturedFile),
    /// It is not, or no longer, what was looked at: look again.
    Moved,
    /// No file has that name any more.
    Gone,
}

/// The store. It may be used from several threads.
#[derive(Debug)]
pub(crate) struct Store {
    shelf: Arc<Shelf>,
    max: u64,
    next_temp: AtomicU64,
    collecting: Mutex<()>,
    mark: Mark,
}

impl Store {
    /// Opens the store in `dir`, which is made if missing, and throws away what a crash left half done. It holds `max`
    /// bytes; how many it has is counted when somebody needs to know, because a look at each file takes its time.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(crate) fn open(dir: &Path, max: u64) -> Result<Self> {
        make_directory(dir)?;
        make_private(dir)?;
        let temps = dir.join(TEMPS);
        if !temps.is_dir() {
            // A new store: no capture has to wait for the directory of its digest.
            for group in 0..=u8::MAX {
                make_directory(&dir.join(format!("{group:02x}")))?;
            }
        }
        make_directory(&temps)?;
        for entry in fs::read_dir(&temps).doing("list", &temps)? {
            let path = entry.doing("list", &temps)?.path();
            fs::remove_file(&path).doing("remove", path)?;
        }
        let mark = Mark::leave(dir)?;
        Ok(Self {
            shelf: Arc::new(Shelf::open(dir, mark.is_masked())?),
            max,
            next_temp: AtomicU64::new(0),
            collecting: Mutex::default(),
            mark,
        })
    }

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
    fn count(&self) -> Result<()> {
        let is_counted = *self.shelf.is_counted();
        if is_counted { Ok(()) } else { self.stored(|_| None).map(drop) }
    }

    /// The same store, on top of the one in `below`, which is only read.
    pub(crate) fn on_top_of(self, below: &Path) -> Result<Self> {
        // What has no file of its own there may get one at any time, and is not to be missed in between.
        self.state().recent.copy_from(below).doing("read what was captured last in", below)?;
        // There is none yet.
        let _ = self.shelf.below.set(below.to_owned());
        Ok(self)
    }

    /// How many bytes it may hold.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The same store, with `hook` asked before each step that writes.
    #[must_use]
    pub(crate) fn with_hook(self, hook: Option<Hook>) -> Self {
        // There is none yet.
        let _ = hook.map(|hook| self.shelf.hook.set(hook));
        self
    }

    fn may(&self, step: StoreWrite) -> io::Result<()> {
        self.shelf.may(step)
    }

    /// Takes the bytes of the file at `absolute` into the store, if the file is still the one `expected`. A symlink in the
    /// last place is followed only if `follow` is set. The content stays pinned until [`Store::unpin`].
    ///
    /// # Errors
    /// The file cannot be read, the store cannot be written, or the store's limit is reached. No trace stays behind.
    pub(crate) fn capture(&self, absolute: &Path, expected: &Fingerprint, follow: bool) -> Result<Captured> {
        let source = match bytes::open_source(absolute, follow) {
            Ok(source) => source,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Captured::Gone);
            }
            Err(e) if bytes::is_symlink_met(&e) => return Ok(Captured::Moved),
            Err(e) => return Err(Error::io("read", absolute, e)),
        };
        let is_expected = || still(&source, expected, absolute);
        if !is_expected()? {
            return Ok(Captured::Moved);
        }
        self.check_size(absolute, expected.size)?;
        let is_racy = is_racy(expected);
        let digest = if expected.size <= IN_MEMORY_MAX {
            self.capture_small(&source, absolute, expected.size, &is_expected)?
        } else {
            self.capture_large(&source, absolute, expected.size, &is_expected)?
        };
        let Some(digest) = digest else { return Ok(Captured::Moved) };
        if is_racy && !is_expected()? {
            self.unpin(&digest);
            return Ok(Captured::Moved);
        }
        Ok(Captured::File(self.file(digest, expected.size, expected.mode)))
    }

    /// The same for a file that was read while it was looked at, and was `expected` before and after that.
    ///
    /// # Errors
    /// As for [`Store::capture`].
    pub(crate) fn capture_read(&self, absolute: &Path, expected: &Fingerprint, read: &Read) -> Result<Captured> {
        self.check_size(absolute, expected.size)?;
        let digest = self.keep_small(&read.content, absolute)?;
        if let Some(file) = &read.file
            && is_racy(expected)
            && !still(file, expected, absolute)?
        {
            self.unpin(&digest);
            return Ok(Captured::Moved);
        }
        Ok(Captured::File(self.file(digest, expected.size, expected.mode)))
    }

    /// Reads stored content once and compares it with its digest.
    ///
    /// # Errors
    /// It is missing, cannot be read, or is damaged; damaged content is thrown away, so that it can be captured anew.
    pub(crate) fn verify(&self, digest: &Digest) -> Result<()> {
        if self.shelf.recent(digest).is_some() {
            return Ok(());
        }
        // What is damaged before it has a file of its own gets none.
        self.shelf.put_away(digest)?;
        let path = self.path(digest);
        let stored = File::open(&path).doing("read", &path)?;
        let found = hash(&stored).doing("read", &path)?;
        if found == *digest {
            return Ok(());
        }
        self.count()?;
        if self.throw_away(digest, true)? {
            return Err(damaged(stored_path(&self.shelf.dir, digest)));
        }
        Ok(())
    }

    /// Writes what was captured a moment ago, and waited for more: whoever relies on it after a crash does so first.
    ///
    /// # Errors
    /// The store cannot be written. What was captured stays in memory.
    pub(crate) fn write_out(&self) -> Result<()> {
        self.shelf.write_out(&mut self.state().recent)
    }

    /// Lets the next store have what is common to all captured files: called by whoever kept others away, before they come.
    pub(crate) fn let_go(&self) {
        // What nobody relied on is captured again.
        let _ = self.write_out();
        self.state().recent.let_go();
    }

    /// Gives files of their own to some of what was captured a moment ago. Whether there is more of that.
    ///
    /// # Errors
    /// The store cannot be written. What was captured stays where it is.
    pub(crate) fn put_away_some(&self) -> Result<bool> {
        self.shelf.put_away_some(PUT_AWAY_AT_ONCE)
    }

    /// How many contents were ever put where they have no file of their own: by this and by other pickups.
    pub(crate) fn added(&self) -> u64 {
        self.state().recent.added()
    }

    /// Whether anything has no file of its own yet.
    pub(crate) fn has_recent(&self) -> bool {
        self.shelf.has_recent()
    }

    /// Whether content of that digest is stored.
    pub(crate) fn contains(&self, digest: &Digest) -> bool {
        self.state().recent.length(digest).is_some() || self.path(digest).is_file()
    }

    /// Where content of that digest is stored or will be, if it is.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        self.shelf.path(digest)
    }

    /// What makes captured files of digests.
    pub(crate) fn place(&self) -> Stored {
        Stored::Open(self.shelf.clone())
    }

    /// Content of that digest as a captured file with this size and mode.
    pub(crate) fn file(&self, digest: Digest, size: u64, mode: u32) -> CapturedFile {
        CapturedFile { digest, size, mode, stored: self.place() }
    }

    /// Takes back one capture's pin: somebody refers to the content now, or nobody ever will.
    pub(crate) fn unpin(&self, digest: &Digest) {
        let mut state = self.state();
        if let Some(count) = state.pinned.get_mut(digest) {
            *count -= 1;
            if *count == 0 {
                state.pinned.remove(digest);
                if let Some(unpinned) = &mut state.unpinned {
                    unpinned.insert(*digest);
                }
            }
        }
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

    /// `None` if the file changed while it was read.
    fn capture_small(
        &self,
        source: &File,
        absolute: &Path,
        size: u64,
        is_expected: &dyn Fn() -> Result<bool>,
    ) -> Result<Option<Digest>> {
        let mut content = Vec::with_capacity(size as usize);
        source.take(size + 1).read_to_end(&mut content).doing("read", absolute)?;
        if content.len() as u64 != size || !is_expected()? {
            return Ok(None);
        }
        self.keep_small(&content, absolute).map(Some)
    }

    /// `None` if the file changed while it was read.
    fn capture_large(
        &self,
        source: &File,
        absolute: &Path,
        size: u64,
        is_expected: &dyn Fn() -> Result<bool>,
    ) -> Result<Option<Digest>> {
        let reserved = match self.reserve(size, absolute) {
            Ok(reserved) => reserved,
            Err(full) => {
                // Content that is stored already needs no room.
                let digest = hash(source).doing("read", absolute)?;
                let is_known = is_expected()? && self.pin_if_stored(&digest, size);
                return if is_known { Ok(Some(digest)) } else { Err(full) };
            }
        };
        let temp = self.temp()?;
        self.may(StoreWrite::Write).doing("write", &temp.path)?;
        let (digest, copied) = if bytes::clone(source, &temp.file) {
            let length = temp.file.metadata().doing("look at", &temp.path)?.len();
            (hash(&temp.file).doing("read", &temp.path)?, length)
        } else {
            bytes::copy(source, &temp.file, size + 1).doing("copy", absolute)?
        };
        if copied != size || !is_expected()? {
            return Ok(None);
        }
        if self.pin_if_stored(&digest, size) {
            return Ok(Some(digest));
        }
        self.keep(temp, digest, reserved).map(Some)
    }

    /// Gives the temporary its name and pins it.
    fn keep(&self, mut temp: Temp, digest: Digest, reserved: Reserved<'_>) -> Result<Digest> {
        let path = stored_path(&self.shelf.dir, &digest);
        self.may(StoreWrite::Rename).doing("write", &path)?;
        bytes::make_read_only(&temp.file).doing("write", &temp.path)?;
        let mut state = self.state();
        // Mostly the name is free, and its directory is there.
        let replaced = match temp.rename_to_new(&path) {
            Ok(()) => 0,
            Err(_) => {
                path.parent().map_or(Ok(()), make_directory)?;
                // Content of the wrong size is what a power failure left; another thread may also have been faster.
                let replaced = path.symlink_metadata().map_or(0, |old| old.len());
                temp.rename(&path).doing("write", &path)?;
                replaced
            }
        };
        state.used = state.used.saturating_sub(replaced);
        *state.pinned.entry(digest).or_default() += 1;
        drop(state);
        reserved.use_up();
        Ok(digest)
    }

    fn pin_if_stored(&self, digest: &Digest, size: u64) -> bool {
        // Pinned and looked up under one lock, so that no collection can remove it in between.
        let mut state = self.state();
        let is_stored = state.recent.length(digest) == Some(size)
            || self.path(digest).symlink_metadata().is_ok_and(|found| found.is_file() && found.len() == size);
        if is_stored {
            *state.pinned.entry(*digest).or_default() += 1;
        }
        is_stored
    }

    fn reserve(&self, size: u64, absolute: &Path) -> Result<Reserved<'_>> {
        self.count()?;
        let mut state = self.state();
        match state.used.checked_add(size).filter(|used| *used <= self.max) {
            Some(used) => {
                state.used = used;
                Ok(Reserved { store: self, size })
            }
            None => {
                let full =
                    format!("capture: the content store holds {} of `store_max` {} bytes;", state.used, self.max);
                Err(Error::new(ErrorKind::Io, format!("{full} no room for {size} bytes of")).at(absolute).transient())
            }
        }
    }

    /// Removes what cannot be used, and takes it off the count if it `is_counted`. `false` if it is whole after all: somebody
    /// was in the middle of writing it when it was read.
    fn throw_away(&self, digest: &Digest, is_counted: bool) -> Result<bool> {
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

    fn temp(&self) -> Result<Temp> {
        let number = self.next_temp.fetch_add(1, Ordering::Relaxed);
        let path = self.temp_dir().join(number.to_string());
        self.may(StoreWrite::Create).and_then(|()| Temp::create(path.clone())).doing("write", path)
    }

    fn temp_dir(&self) -> PathBuf {
        self.shelf.dir.join(TEMPS)
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.shelf.state()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.state().recent.let_go();
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

/// Room that a capture under way takes; given back unless used up.
#[must_use]
struct Reserved<'a> {
    store: &'a Store,
    size: u64,
}

impl Reserved<'_> {
    fn use_up(self) {
        mem::forget(self);
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        let mut state = self.store.state();
        state.used = state.used.saturating_sub(self.size);
    }
}

/// Whether the open file at `absolute` is the one `expected`, unchanged.
fn still(file: &File, expected: &Fingerprint, absolute: &Path) -> Result<bool> {
    file.metadata().map(|now| Fingerprint::of(&now) == *expected).doing("look at", absolute)
}

/// Whether the file changed so recently that another change could leave its times as they are.
fn is_racy(fingerprint: &Fingerprint) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    // A time in the future is as good as now: the clock was set, or another host wrote it.
    i64::try_from(now).is_ok_and(|now| now.saturating_sub(fingerprint.mtime) < RACY_NANOS)
}

/// Makes a directory that nobody else may look into.
fn make_directory(path: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path).doing("make directory", path)
}

/// Closes a directory that was there before, with whatever mode.
fn make_private(path: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).doing("set the mode of", path)?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
