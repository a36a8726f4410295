//! What an open store shares with the files that were captured into it: where the bytes are.
//!
//! A file of its own is most of what the capture of a small one costs. So small contents go into one file together first,
//! and get their own when there is nothing else to do, or somebody asks where they are.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::Builder;

use super::hook::{Hook, StoreWrite};
use super::recent::{Recent, Unread};
use super::{bytes, make_directory};
use crate::capture::{ByDigest, Digest, stored_path};
use crate::error::{Error, ErrorKind, IoContext, Result};

const READ_LAST: &str = "read what was captured last in";

/// Where an open store has its bytes.
pub(crate) struct Shelf {
    pub(super) dir: PathBuf,
    /// Another store, which is only read: what it has need not be here.
    pub(super) below: OnceLock<PathBuf>,
    pub(super) hook: OnceLock<Hook>,
    is_masked: bool,
    /// Whether it is known how much is stored; held while that is counted. It is taken before the state.
    is_counted: Mutex<bool>,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    /// Bytes stored, and bytes that captures under way may store.
    pub used: u64,
    /// What was captured and nobody refers to yet, by the number of captures.
    pub pinned: ByDigest<usize>,
    /// While a collection is under way, what was unpinned since it began: what it keeps may have been listed before that.
    pub unpinned: Option<HashSet<Digest>>,
    /// What has no file of its own yet.
    pub recent: Recent,
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shelf").field(&self.dir).finish()
    }
}

impl State {
    /// Whether a collection may remove it, as far as captures go.
    pub(super) fn is_loose(&self, digest: &Digest) -> bool {
        let was_unpinned = self.unpinned.as_ref().is_some_and(|unpinned| unpinned.contains(digest));
        !self.pinned.contains_key(digest) && !was_unpinned
    }
}

impl Shelf {
    /// That of the store in `dir`; `is_masked` if the process makes files with less of a mode than it asks for. If much was
    /// captured last, it is read on a thread of its own, and whoever needs the state waits for that.
    pub(super) fn open(dir: &Path, is_masked: bool) -> Result<Arc<Self>> {
        let unread = Unread::open(dir).doing(READ_LAST, dir)?;
        let state = State { used: 0, pinned: ByDigest::default(), unpinned: None, recent: Recent::out_of_reach(dir) };
        let (below, hook) = (OnceLock::new(), OnceLock::new());
        let (is_counted, state) = (Mutex::default(), Mutex::new(state));
        let shelf = Arc::new(Self { dir: dir.to_owned(), below, hook, is_masked, is_counted, state });
        if unread.is_long() {
            shelf.read_beside(unread)?;
        } else {
            shelf.state().recent = unread.read().doing(READ_LAST, dir)?;
        }
        Ok(shelf)
    }

    /// Reads what was captured last on a thread of its own, which has the state until then.
    fn read_beside(self: &Arc<Self>, unread: Unread) -> Result<()> {
        let shelf = self.clone();
        let (has, is_had) = mpsc::sync_channel(0);
        let read = move || {
            let mut state = shelf.state();
            let _ = has.send(());
            match unread.read() {
                Ok(recent) => state.recent = recent,
                // As after damage.
                Err(error) => {
                    tracing::error!(%error, "cannot {READ_LAST} {}: what is still needed is captured again", shelf.dir.display());
                }
            }
        };
        Builder::new().name("store".into()).spawn(read).doing(READ_LAST, &self.dir)?;
        // It ended without having the state if this fails: then what it was to read is out of reach.
        let _ = is_had.recv();
        Ok(())
    }

    /// Every change of the state is one assignment, so what a panicking thread left is still consistent.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_counted(&self) -> MutexGuard<'_, bool> {
        self.is_counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn may(&self, step: StoreWrite) -> io::Result<()> {
        self.hook.get().map_or(Ok(()), |hook| hook.call(step))
    }

    /// Where content of that digest is or will be.
    pub(crate) fn path(&self, digest: &Digest) -> PathBuf {
        let below = self.below.get().map(|below| stored_path(below, digest));
        below.filter(|path| path.is_file()).unwrap_or_else(|| stored_path(&self.dir, digest))
    }

    /// Where it is, with a file of its own.
    pub(crate) fn settled_path(&self, digest: &Digest) -> Result<PathBuf> {
        self.put_away(digest)?;
        Ok(self.path(digest))
    }

    /// The content, if it is whole and has no file of its own yet.
    pub(crate) fn recent(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.state().recent.read(digest).ok().flatten()
    }

    /// Gives a content its own file, if it has none yet.
    pub(super) fn put_away(&self, digest: &Digest) -> Result<()> {
        if self.state().recent.length(digest).is_none() {
            return Ok(());
        }
        let _not_while_it_is_counted = self.is_counted();
        let mut state = self.state();
        let Some(length) = state.recent.length(digest) else { return Ok(()) };
        let path = stored_path(&self.dir, digest);
        let Some(content) = state.recent.read(digest).doing("read", state.recent.path())? else {
            state.recent.forget(digest);
            state.used = state.used.saturating_sub(length);
            // Another engine of this process may have put it away since.
            let is_there = path.symlink_metadata().is_ok_and(|found| found.len() == length);
            return if is_there { Ok(()) } else { Err(damaged(path)) };
        };
        if !self.write(&path, &content)? {
            // It was there already, or what a power failure left of it.
            let found = path.symlink_metadata().doing("look at", &path)?.len();
            let is_whole = found == length && fs::read(&path).is_ok_and(|bytes| bytes == content);
            if !is_whole {
                fs::remove_file(&path).doing("remove", &path)?;
            }
            state.used = state.used.saturating_sub(found);
            if !is_whole {
                self.write(&path, &content)?;
            }
        }
        state.recent.forget(digest);
        Ok(())
    }

    /// Does so for at most `most` contents, whatever becomes of one of them; whether there are more.
    pub(super) fn put_away_some(&self, most: usize) -> Result<bool> {
        let some: Vec<Digest> = self.state().recent.digests().take(most).copied().collect();
        let tried: Vec<Result<()>> = some.iter().map(|digest| self.put_away(digest)).collect();
        tried.into_iter().collect::<Result<()>>()?;
        Ok(self.has_recent())
    }

    /// Lets go of what has a file of its own as well, because it was captured again. The number of bytes freed.
    pub(super) fn put_away_doubles(&self) -> u64 {
        let lengths = self.state().recent.lengths();
        let doubles = lengths.iter().filter(|(digest, _)| stored_path(&self.dir, digest).is_file());
        // Those that cannot be are tried again like all others.
        doubles.filter(|(digest, _)| self.put_away(digest).is_ok()).map(|(_, length)| length).sum()
    }

    /// Whether anything has no file of its own yet.
    pub(super) fn has_recent(&self) -> bool {
        self.state().recent.digests().next().is_some()
    }

    /// Adds `content` to what was captured a moment ago.
    pub(super) fn add(&self, recent: &mut Recent, digest: &Digest, content: &[u8]) -> Result<()> {
        let steps = [StoreWrite::Create, StoreWrite::Write, StoreWrite::Rename];
        let added = steps.into_iter().try_for_each(|step| self.may(step)).and_then(|()| recent.add(digest, content));
        added.doing("write", recent.path())
    }

    /// Writes what was added, and waited for more.
    pub(super) fn write_out(&self, recent: &mut Recent) -> Result<()> {
        if !recent.has_unwritten() {
            return Ok(());
        }
        let written = match self.may(StoreWrite::Write) {
            Ok(()) => recent.write_out(),
            Err(error) => recent.write_half().and(Err(error)),
        };
        written.doing("write", recent.path())
    }

    /// Writes `content` into a file of its own. `false` if the name is taken, or this system makes none that we could fill. The
    /// caller holds the lock of the state, so that nobody of this process sees half of it.
    pub(super) fn write(&self, path: &Path, content: &[u8]) -> Result<bool> {
        let Some(file) = self.create(path)? else { return Ok(false) };
        let written = self.fill(&file, content).and_then(|()| self.finish(&file));
        if written.is_err() {
            // Half a file that stays is replaced by the next capture, or collected.
            let _ = fs::remove_file(path);
        }
        written.doing("write", path)?;
        Ok(true)
    }

    fn create(&self, path: &Path) -> Result<Option<File>> {
        let create = || self.may(StoreWrite::Create).and_then(|()| bytes::create_read_only(path));
        let mut created = create();
        if created.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            path.parent().map_or(Ok(()), make_directory)?;
            created = create();
        }
        match created {
            Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::Unsupported) => Ok(None),
            created => created.map(Some).doing("write", path),
        }
    }

    pub(super) fn fill(&self, mut file: &File, content: &[u8]) -> io::Result<()> {
        if let Err(error) = self.may(StoreWrite::Write) {
            file.write_all(&content[..content.len() / 2])?;
            return Err(error);
        }
        file.write_all(content)
    }

    fn finish(&self, file: &File) -> io::Result<()> {
        if self.is_masked {
            bytes::make_read_only(file)?;
        }
        self.may(StoreWrite::Rename)
    }
}

/// The error that tells of content that was at `path`, and is thrown away.
pub(super) fn damaged(path: PathBuf) -> Error {
    Error::new(ErrorKind::Io, "use stored content, the content store is damaged:").at(path).transient()
}
