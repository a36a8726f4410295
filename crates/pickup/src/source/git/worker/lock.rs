//! One worker at a time in a repository: an advisory lock that vanishes with its process.
#![expect(clippy::disallowed_methods, reason = "this is the door to lock files")]

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Failure, FailureKind};

/// How long a lock is waited for: the worker of a daemon that was killed may still be dying.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 5_000 });

/// How often it is tried.
const INTERVAL: Duration = Duration::from_millis(20);

/// A lock that is held, and the file it is on.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub(super) struct Lock {
    pub file: File,
}

impl Lock {
    /// Takes the lock of the mirror at `repository`, which need not exist.
    pub(super) fn beside(repository: &Path) -> Result<Self, Failure> {
        let path = beside(repository, "lock");
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(|e| Failure::io("create the directory", parent, &e))?;
        }
        Self::on(&path)
    }

    /// Takes the lock on the file at `path`, which is made if missing and never removed.
    pub(super) fn on(path: &Path) -> Result<Self, Failure> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        }
        let file = options.open(path).map_err(|e| Failure::io("open the lock file", path, &e))?;
        Self::wait(file, path)
    }

    /// Takes the lock on a directory, which leaves no file behind.
    pub(super) fn on_directory(path: &Path) -> Result<Self, Failure> {
        let file = File::open(path).map_err(|e| Failure::io("open", path, &e))?;
        Self::wait(file, path)
    }

    fn wait(file: File, path: &Path) -> Result<Self, Failure> {
        let until = Instant::now() + PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file }),
                Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(INTERVAL),
                Err(TryLockError::WouldBlock) => {
                    let message = format!("work in the repository: another git worker holds {}", path.display());
                    return Err(Failure::new(FailureKind::Busy, message));
                }
                Err(TryLockError::Error(e)) => return Err(Failure::io("lock", path, &e)),
            }
        }
    }
}

/// `path` with `.extension` after its whole name.
pub(super) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(extension);
    path.with_file_name(name)
}
