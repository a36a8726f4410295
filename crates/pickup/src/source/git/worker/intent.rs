//! Clones are somebody's own, and must not stay locked because a worker of ours was killed in one.
//!
//! A worker notes in `<git directory>/pickup-intent` that it is at work. Who finds such a note knows that its writer died,
//! since the file is locked while it lives; then lock files that are no older than the note, and that nobody has open, are
//! the dead worker's. All other lock files stay.
#![expect(clippy::disallowed_methods, reason = "this is the door to lock files in clones")]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use git2::Repository;
use serde::{Deserialize, Serialize};
use walkdir::WalkDir;

use super::lock::Lock;
use super::{Failure, FailureKind};
use crate::lease::Lease;
use crate::source::Writer;

const FILE: &str = "pickup-intent";

/// A note is always this long, filled up with spaces: it is overwritten at once, and never cut short.
const NOTE_LENGTH: usize = 512;

/// A checkout that was begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Move {
    pub from: String,
    pub to: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    /// Whether a worker is at work, or died over it.
    is_working: bool,
    /// A checkout that is not finished.
    moving: Option<Move>,
}

/// That we are at work in a clone. One that is dropped without [`finish`](Self::finish) stays noted, as if we had died.
#[derive(Debug)]
#[must_use = "unless it is finished, the next worker takes it that this one died"]
pub(super) struct Intent {
    lock: Lock,
    path: PathBuf,
    moving: Option<Move>,
}

impl Intent {
    /// Notes that we are at work in `repository`, after removing the lock files of one of us that died there.
    pub(super) fn declare(repository: &Repository) -> Result<Self, Failure> {
        let path = intent_of(repository.path());
        let lock = Lock::on(&path)?;
        let note = read(&lock.file).map_err(|e| Failure::io("read", &path, &e))?;
        if note.is_working {
            let since = lock.file.metadata().and_then(|metadata| metadata.modified());
            unlock(repository, since.map_err(|e| Failure::io("look at", &path, &e))?)?;
        }
        let intent = Self { lock, path, moving: note.moving };
        intent.write(true)?;
        Ok(intent)
    }

    /// The checkout that was begun and not finished.
    pub(super) fn moving(&self) -> Option<&Move> {
        self.moving.as_ref()
    }

    /// Notes that a checkout begins, or that it is finished.
    pub(super) fn set_moving(&mut self, moving: Option<Move>) -> Result<(), Failure> {
        self.moving = moving;
        self.write(true)
    }

    /// Notes that we are done; a checkout that is not finished stays noted.
    pub(super) fn finish(self) -> Result<(), Failure> {
        self.write(false)
    }

    fn write(&self, is_working: bool) -> Result<(), Failure> {
        let note = Note { is_working, moving: self.moving.clone() };
        let write = || -> io::Result<()> {
            let mut text = serde_json::to_vec(&note)?;
            text.resize(NOTE_LENGTH, b' ');
            let mut file = &self.lock.file;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&text)?;
            file.sync_data()
        };
        write().map_err(|e| Failure::io("write", &self.path, &e))
    }
}

/// What the file says; an empty one, or one of another version, says nothing.
fn read(mut file: &File) -> io::Result<Note> {
    let mut text = Vec::with_capacity(NOTE_LENGTH);
    Read::by_ref(&mut file).take(NOTE_LENGTH as u64).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text).unwrap_or_default())
}

/// Where the note lies in a clone with this git directory.
pub(crate) fn intent_of(git_dir: &Path) -> PathBuf {
    git_dir.join(FILE)
}

/// The checkout that was begun in a clone with this git directory and not finished, as far as can be read.
pub(crate) fn torn(git_dir: &Path) -> Option<Move> {
    let file = File::open(intent_of(git_dir)).ok()?;
    read(&file).ok()?.moving
}

/// Removes the lock files in `repository` that are not older than `since` and that nobody has open.
fn unlock(repository: &Repository, since: SystemTime) -> Result<(), Failure> {
    let (own, common) = (repository.path(), repository.commondir());
    let mut locks: Vec<PathBuf> = ["index.lock", "HEAD.lock"].iter().map(|name| own.join(name)).collect();
    locks.extend(["packed-refs.lock", "shallow.lock", "config.lock"].iter().map(|name| common.join(name)));
    let refs = WalkDir::new(common.join("refs")).follow_links(false).into_iter().flatten();
    locks.extend(refs.map(|entry| entry.into_path()).filter(|path| path.extension().is_some_and(|e| e == "lock")));
    let is_recent = |path: &PathBuf| {
        path.symlink_metadata().is_ok_and(|m| m.is_file() && m.modified().is_ok_and(|modified| modified >= since))
    };
    locks.retain(is_recent);
    if locks.is_empty() {
        return Ok(());
    }
    let lease = Lease::on_this_thread().map_err(|e| Failure::io("look for writers in", own, &e))?;
    for path in locks {
        let busy = |why: &str| {
            let message = format!("work in {}: {why}; if none is running, remove {}", own.display(), path.display());
            Err(Failure::new(FailureKind::Busy, message))
        };
        match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Failure::io("open", &path, &e)),
            Ok(file) if lease.writer_of(&file) != Writer::Nobody => return busy("a git command may be running there"),
            // A commit that waits for its message has the lock, and does not have it open.
            Ok(_) if repository.workdir().is_some_and(is_git_at_work) => return busy("a git command is running there"),
            Ok(_) => super::mirror::remove(&path)?,
        }
    }
    Ok(())
}

/// Whether a git command runs somewhere below `directory`, as far as can be seen.
fn is_git_at_work(directory: &Path) -> bool {
    let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
    let Ok(processes) = Path::new("/proc").read_dir() else { return false };
    processes.flatten().any(|process| {
        let is_git = std::fs::read_to_string(process.path().join("comm")).is_ok_and(|name| name.starts_with("git"));
        is_git && process.path().join("cwd").read_link().is_ok_and(|cwd| cwd.starts_with(&directory))
    })
}
