//! Where the copies lie that are loaded: each generation at a path and inode of its own.
//!
//! The loader knows libraries by path and by inode: at a path it has seen before, or through a hard link, it gives back
//! the old code. A file that is loaded must never change in place either: the process would die of SIGBUS.
#![expect(clippy::disallowed_methods, reason = "this is a door: it lays out copies")]

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::capture::Digest;
use crate::deploy::Unit;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// Held as long as the process lives: whose lock is free has ended.
const LOCK: &str = "lock";

/// Tells the deployers of one process apart.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The directory of one deployer in one process; removed when it is dropped.
#[derive(Debug)]
pub(super) struct Copies {
    base: PathBuf,
    directory: PathBuf,
    _lock: File,
}

impl Copies {
    /// Makes a directory below `base`, and removes what ended processes left there.
    pub(super) fn below(base: &Path) -> Result<Self> {
        private(base)?;
        sweep(base);
        for _attempt in 0..10 {
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let directory = base.join(format!("{}-{count}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => {}
                // Left by a process that had our number.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::io("make the directory", directory, error)),
            }
            let path = directory.join(LOCK);
            let lock = File::create_new(&path).doing("create", &path)?;
            // Somebody who sweeps may have been faster.
            if lock.try_lock().is_ok() {
                return Ok(Self { base: base.to_path_buf(), directory, _lock: lock });
            }
        }
        Err(Error::new(ErrorKind::Busy, "find a free directory below").at(base).transient())
    }

    /// The path below the base for a generation of `unit` with these bytes. It is the same for the same generation, unless it `is_used`.
    pub(super) fn path(&self, unit: &Unit, digest: Digest, is_used: impl Fn(&Path) -> bool) -> PathBuf {
        let identity = [unit.pickup.as_bytes(), b"\0", unit.path.as_path().as_os_str().as_encoded_bytes()].concat();
        let of_unit = Digest::of(&identity).short();
        let own = self.directory.file_name().unwrap_or_default();
        let name = unit.path.file_name().unwrap_or("module.so".as_ref());
        let mut paths = (1_u32..).map(|attempt| {
            let attempt = if attempt == 1 { String::new() } else { format!("-{attempt}") };
            let generation = format!("{of_unit}-{}-{}{attempt}", unit.generation, digest.short());
            Path::new(own).join(generation).join(name)
        });
        // The iterator does not end.
        paths.find(|path| !is_used(path)).unwrap_or_default()
    }

    /// Writes `bytes` to `path`, which is one of [`path`](Self::path).
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let full = &self.base.join(path);
        // What an interrupted attempt left.
        self.remove(path)?;
        let directory = full.parent().unwrap_or(&self.directory);
        private(directory)?;
        let mut file = File::options().write(true).create_new(true).mode(0o500).open(full).doing("create", full)?;
        file.write_all(bytes).doing("write", full)
    }

    /// Removes the copy at `path`, if it is one of ours and there.
    pub(super) fn remove(&self, path: &Path) -> Result<()> {
        let full = self.base.join(path);
        let Some(directory) = full.parent().filter(|parent| parent.parent() == Some(&self.directory)) else {
            return Ok(());
        };
        remove(directory)
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // What is mapped stays mapped without its name.
        if let Err(error) = remove(&self.directory) {
            tracing::debug!(%error, "copies of modules are left to the next start");
        }
    }
}

fn private(directory: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory).doing("make the directory", directory)
}

fn remove(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", directory, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes the directories of processes that have ended.
fn sweep(base: &Path) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let directory = entry.path();
        let lock = File::options().write(true).open(directory.join(LOCK));
        if let Ok(lock) = lock
            && lock.try_lock().is_ok()
            && let Err(error) = remove(&directory)
        {
            tracing::debug!(%error, "copies of modules are left to the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::testing::Sandbox;

    #[test]
    fn what_an_ended_process_left_is_removed_and_what_runs_is_not() {
        let sandbox = Sandbox::new();
        let base = sandbox.path("modules");
        let unit = sandbox.file("a.so", b"x", 1);
        let copies = Copies::below(&base).unwrap();
        let path = copies.path(&unit, unit.digest().unwrap(), |_| false);
        copies.write(&path, b"x").unwrap();
        std::fs::create_dir(base.join("1-0")).unwrap();
        std::fs::write(base.join("1-0/lock"), "").unwrap();
        let other = Copies::below(&base).unwrap();
        assert!(base.join(&path).exists() && other.directory.exists() && !base.join("1-0").exists());
        other.remove(&path).unwrap();
        assert!(base.join(&path).exists(), "it is not its own");
        drop((copies, other));
        assert!(sandbox.listing("modules").is_empty());
    }

    #[test]
    fn a_path_that_was_loaded_is_never_used_again() {
        let sandbox = Sandbox::new();
        let copies = Copies::below(&sandbox.path("modules")).unwrap();
        let unit = sandbox.file("a.so", b"x", 1);
        let path =
            |used: &[PathBuf]| copies.path(&unit, unit.digest().unwrap(), |path| used.iter().any(|used| used == path));
        let first = path(&[]);
        assert_eq!(first, path(&[]));
        assert_ne!(first, path(std::slice::from_ref(&first)));
    }
}
