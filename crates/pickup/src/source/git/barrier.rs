//! Whether a clone is at rest: no git is at work in it, and its `HEAD` is what its files come from.
//!
//! A pull writes files under `index.lock`, gives the lock the name `index`, and moves `HEAD` a moment later. Who asks in that
//! moment sees neither a lock nor a new `HEAD`; so an index that was just written counts as work until `HEAD` has moved after
//! it, or long enough has passed.
#![expect(clippy::disallowed_methods, reason = "this is the door to the directories that git keeps in a clone")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use git2::{ErrorCode, Repository, RepositoryOpenFlags, RepositoryState, Status};

use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::path::UnitPath;
use crate::source::Writer;

#[cfg(all(test, unix))]
mod tests;
mod unusual;

pub(super) use unusual::cannot_open;

/// A lock that nobody has open was left by a git that crashed, once it is this old. Younger ones may be those of a git that
/// closed its lock and is about to rename it; an editor open for a commit message is such a case, and harms nobody: what it
/// commits is in the working tree already.
const LOCK_STALE: Duration = Duration::from_secs(60);
/// How long `HEAD` may lag behind the index. Git moves it within a millisecond or two; a busy machine takes longer.
const HEAD_LAG: Duration = Duration::from_millis(500);
/// A lock that is older is held by an editor or by somebody who thinks: nobody waits for that.
const LOCK_LONG: Duration = Duration::from_secs(5);
const AGAIN_LOCKED: Duration = Duration::from_millis(20);
const AGAIN_IN_PROGRESS: Duration = Duration::from_secs(1);

/// A working tree with its repository.
pub(crate) struct Clone {
    repository: Repository,
    git_dir: PathBuf,
    work_dir: PathBuf,
    prefix: Option<UnitPath>,
    /// What `rest` said last when it said `At`.
    rested: Option<Head>,
    /// The index at that time.
    rested_index: Option<Stamp>,
    /// The index as last seen, and when it was first seen so.
    index: Option<(Stamp, SystemTime)>,
}

/// Whether a clone is at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It is, at this commit; `None` before the first one. No branch if `HEAD` is detached.
    At { commit: Option<String>, branch: Option<String> },
    /// It is not.
    Busy {
        /// To be read after "git is busy: ".
        reason: String,
        /// When to look again.
        again_in: Duration,
    },
}

/// Where `HEAD` is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Head {
    commit: Option<String>,
    /// The full name of the branch.
    reference: Option<String>,
}

/// Tells one state of a file from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    size: u64,
    inode: u64,
}

impl Stamp {
    /// `None` if no such file is there.
    fn of(path: &Path) -> Result<Option<Self>> {
        let found = match path.symlink_metadata() {
            Ok(found) => found,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("look at", path, e)),
        };
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&found);
        #[cfg(not(unix))]
        let inode = 0;
        Ok(Some(Self { modified: found.modified().doing("look at", path)?, size: found.len(), inode }))
    }
}

/// One look at what git changes when it is at work.
#[derive(PartialEq)]
struct Look {
    head: Head,
    index: Option<Stamp>,
}

impl Clone {
    /// Finds the clone that `directory`, a real path, lies in: upwards, on the same file system. `None` if there is none, or
    /// if it is the repository's own directory that `directory` lies in.
    ///
    /// # Errors
    /// It belongs to somebody else, or has a format that cannot be read; the message names the way out.
    pub(crate) fn find(directory: &Path) -> Result<Option<Self>> {
        let none: [&Path; 0] = [];
        let repository = match Repository::open_ext(directory, RepositoryOpenFlags::empty(), none) {
            Ok(repository) => repository,
            Err(e) if e.code() == ErrorCode::NotFound => return Ok(None),
            Err(e) => return Err(cannot_open(directory, e)),
        };
        let real = |path: &Path| path.canonicalize().doing("look at", path);
        let (git_dir, common_dir) = (real(repository.path())?, real(repository.commondir())?);
        // A bare one.
        let Some(work_dir) = repository.workdir() else { return Ok(None) };
        let work_dir = real(work_dir)?;
        if directory.starts_with(&git_dir) || directory.starts_with(&common_dir) {
            return Ok(None);
        }
        // A repository may name another directory as its working tree.
        let Some(prefix) = directory.strip_prefix(&work_dir).ok().and_then(UnitPath::new) else { return Ok(None) };
        unusual::check_index(&repository)?;
        let prefix = Some(prefix).filter(|prefix| !prefix.is_root());
        Ok(Some(Self { repository, git_dir, work_dir, prefix, rested: None, rested_index: None, index: None }))
    }

    /// The repository's own directory; that of the working tree if there are several.
    pub(crate) fn git_dir(&self) -> &Path {
        &self.git_dir
    }

    /// The uppermost directory of the working tree.
    pub(crate) fn work_dir(&self) -> &Path {
        &self.work_dir
    }

    /// The pickup directory below the working tree; `None` if it is all of it.
    pub(crate) fn prefix(&self) -> Option<UnitPath> {
        self.prefix.clone()
    }

    /// Whether `HEAD` has the pickup directory; one that is beside what is in git is an ordinary directory.
    pub(crate) fn is_tracked(&self) -> bool {
        let Some(prefix) = &self.prefix else { return true };
        let tree = self.repository.head().and_then(|head| head.peel_to_tree());
        tree.and_then(|tree| tree.get_path(prefix.as_path())).is_ok()
    }

    /// The directories whose events tell of git at work, each to be watched by itself: locks, `HEAD` and the index; the log
    /// of `HEAD`; and where there is no log, the branch that is checked out.
    pub(crate) fn watched(&self) -> Vec<PathBuf> {
        let common = self.repository.commondir();
        let common = common.canonicalize().unwrap_or_else(|_| common.to_owned());
        let branch = self.head().ok().and_then(|head| head.reference);
        let branch = branch.and_then(|name| UnitPath::new(name)?.parent()).map(|parent| common.join(parent.as_path()));
        let mut watched = vec![self.git_dir.clone(), self.git_dir.join("logs"), common.join("refs/heads")];
        watched.extend(branch);
        watched.sort_unstable();
        watched.dedup();
        watched.retain(|directory| directory.is_dir());
        watched
    }

    /// Whether it is at rest. `writer` says whether somebody has a file open for writing.
    ///
    /// # Errors
    /// The repository cannot be read.
    pub(crate) fn rest(&mut self, now: SystemTime, writer: &mut dyn FnMut(&Path) -> Writer) -> Result<Rest> {
        let before = self.look()?;
        if let Some(busy) = self.locked(&before.head, now, writer)?.or_else(|| self.in_progress()) {
            return Ok(busy);
        }
        if let Some(busy) = self.head_may_lag(&before, now)? {
            return Ok(busy);
        }
        // Git may have come, and even gone, between the looks.
        if self.look()? != before || self.locked(&before.head, now, writer)?.is_some() {
            return Ok(busy("git is at work", AGAIN_LOCKED));
        }
        let head = before.head;
        self.rested = Some(head.clone());
        self.rested_index = before.index;
        let branch = head.reference.map(|name| name.strip_prefix("refs/heads/").unwrap_or(&name).to_owned());
        Ok(Rest::At { commit: head.commit, branch })
    }

    /// Whether the file at `path`, below the pickup directory, is what `HEAD` and the index say, line ends and the like
    /// considered.
    pub(crate) fn is_clean(&self, path: &UnitPath) -> bool {
        let path = self.below_work_dir(path);
        // An error is a path that git does not know, or a directory.
        self.repository.status_file(&path).is_ok_and(|status| status == Status::CURRENT)
    }

    fn below_work_dir(&self, path: &UnitPath) -> PathBuf {
        self.prefix.as_ref().map_or_else(PathBuf::new, |prefix| prefix.as_path().to_owned()).join(path.as_path())
    }

    fn look(&self) -> Result<Look> {
        Ok(Look { head: self.head()?, index: Stamp::of(&self.git_dir.join("index"))? })
    }

    fn head(&self) -> Result<Head> {
        let failed = |e| Error::new(ErrorKind::Git, "read HEAD of").at(&self.git_dir).caused_by(e).transient();
        let head = self.repository.find_reference("HEAD").map_err(failed)?;
        let reference = head.symbolic_target_bytes().map(|name| String::from_utf8_lossy(name).into_owned());
        let commit = match head.resolve() {
            Ok(resolved) => resolved.target().map(|commit| commit.to_string()),
            // A branch without a commit.
            Err(e) if e.code() == ErrorCode::NotFound => None,
            Err(e) => return Err(failed(e)),
        };
        Ok(Head { commit, reference })
    }

    /// Whether a lock of git's is there that counts.
    fn locked(&self, head: &Head, now: SystemTime, writer: &mut dyn FnMut(&Path) -> Writer) -> Result<Option<Rest>> {
        let mut locks = vec![self.git_dir.join("index.lock"), self.git_dir.join("HEAD.lock")];
        if let Some(branch) = head.reference.as_ref().and_then(UnitPath::new) {
            let mut lock = self.repository.commondir().join(branch.as_path()).into_os_string();
            lock.push(".lock");
            locks.push(lock.into());
        }
        for lock in locks {
            let Some(stamp) = Stamp::of(&lock)? else { continue };
            let age = now.duration_since(stamp.modified).unwrap_or_default();
            let is_old = age > LOCK_STALE;
            if is_old && writer(&lock) == Writer::Nobody {
                continue;
            }
            let hint = if is_old { "; if no git runs there, remove that file" } else { "" };
            let again_in = if age > LOCK_LONG { AGAIN_IN_PROGRESS } else { AGAIN_LOCKED };
            return Ok(Some(busy(format!("git is at work, {} is there{hint}", lock.display()), again_in)));
        }
        Ok(None)
    }

    /// Whether something was begun that somebody has to finish.
    fn in_progress(&self) -> Option<Rest> {
        let what = match self.repository.state() {
            RepositoryState::Merge => {
                "a merge is in progress: `git commit` concludes it, `git merge --abort` takes it back"
            }
            RepositoryState::Revert | RepositoryState::RevertSequence => {
                "a revert is in progress: `git revert --continue` concludes it, `git revert --abort` takes it back"
            }
            RepositoryState::CherryPick | RepositoryState::CherryPickSequence => {
                "a cherry-pick is in progress: `git cherry-pick --continue` concludes it, `git cherry-pick --abort` takes it \
                 back"
            }
            RepositoryState::Rebase | RepositoryState::RebaseInteractive | RepositoryState::RebaseMerge => {
                "a rebase is in progress: `git rebase --continue` concludes it, `git rebase --abort` takes it back"
            }
            RepositoryState::ApplyMailbox | RepositoryState::ApplyMailboxOrRebase => {
                "patches are being applied: `git am --continue` concludes it, `git am --abort` takes it back"
            }
            // Between two of several commits, neither of the states above shows.
            RepositoryState::Clean | RepositoryState::Bisect if self.git_dir.join("sequencer").is_dir() => {
                "several commits are being picked or reverted: `git status` says how to conclude it"
            }
            // Whoever looks for a bad commit checks out one after the other, and means it.
            RepositoryState::Clean | RepositoryState::Bisect => return None,
        };
        Some(busy(what, AGAIN_IN_PROGRESS))
    }

    /// Whether the index was written so recently that `HEAD` may be about to follow.
    fn head_may_lag(&mut self, look: &Look, now: SystemTime) -> Result<Option<Rest>> {
        let Some(index) = look.index else { return Ok(None) };
        if self.rested.as_ref() == Some(&look.head) && self.rested_index == Some(index) {
            // Nothing has moved since it was at rest.
            return Ok(None);
        }
        let first_seen = match self.index {
            Some((known, first_seen)) if known == index => first_seen,
            _ => {
                unusual::check_index(&self.repository)?;
                self.index = Some((index, now));
                now
            }
        };
        // A clock that was set back must not make this wait for ever.
        let age = now.duration_since(index.modified).or_else(|_| now.duration_since(first_seen)).unwrap_or_default();
        if age >= HEAD_LAG || self.head_followed(look, &index) {
            return Ok(None);
        }
        Ok(Some(busy("git has just written its index, and may be about to move HEAD", HEAD_LAG - age)))
    }

    /// Whether `HEAD` has moved since the index was written.
    fn head_followed(&self, look: &Look, index: &Stamp) -> bool {
        let has_moved = self.rested.as_ref().is_some_and(|rested| *rested != look.head);
        match fs::symlink_metadata(self.git_dir.join("logs/HEAD")).and_then(|log| log.modified()) {
            Ok(moved) if moved > index.modified => true,
            // Within one tick of the kernel's clock either may be the later one. If it was the index, then git moved `HEAD`
            // twice within that tick.
            Ok(moved) => has_moved && moved == index.modified,
            // Where git keeps no log, a move since the last rest is all there is to know.
            Err(_) => has_moved,
        }
    }
}

impl std::fmt::Debug for Clone {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clone").field("work_dir", &self.work_dir).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn busy(reason: impl Into<String>, again_in: Duration) -> Rest {
    Rest::Busy { reason: reason.into(), again_in }
}
