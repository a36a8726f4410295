//! The content store: files by the digest of their bytes, `<state_dir>/store/ab/abcdef…`, and for a moment
//! `<state_dir>/store/recent`.
//!
//! Nothing here is synced to disk: what a power failure tears is noticed by its digest when it is read, thrown away, and
//! captured again from the pickup directory.
#![expect(clippy::disallowed_methods, reason = "this is the door to the content store")]

use std::fs::{self, DirBuilder, File};
use std::io;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{CapturedFile, Digest, Stored, stored_path};
use crate::error::{Error, ErrorKind, IoContext, Result};

mod bytes;
mod collect;
mod given;
pub(crate) mod hook;
mod intake;
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

/// How many contents get files of their own in one go, while others may wait.
pub(crate) const PUT_AWAY_AT_ONCE: usize = 64;

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
            shelf: Shelf::open(dir, mark.is_masked())?,
            max,
            next_temp: AtomicU64::new(0),
            collecting: Mutex::default(),
            mark,
        })
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

    /// Gives back the memory that many captures at once took.
    pub(crate) fn rest(&self) {
        self.state().pinned.shrink_to_fit();
    }

    /// How many contents were ever put where they have no file of their own: by this and by other pickups.
    pub(crate) fn added(&self) -> u64 {
        self.state().recent.added()
    }

    /// Whether anything has no file of its own yet.
    #[cfg(test)]
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

    fn temp(&self) -> Result<Temp> {
        let number = self.next_temp.fetch_add(1, Ordering::Relaxed);
        let path = self.temp_dir().join(number.to_string());
        self.may(StoreWrite::Create).and_then(|()| Temp::create(path.clone())).doing("write", path)
    }

    fn temp_dir(&self) -> PathBuf {
        self.shelf.dir.join(TEMPS)
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
