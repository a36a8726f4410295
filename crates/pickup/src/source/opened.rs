//! A directory that is held open: what is asked of it is answered by that directory, whatever takes its name meanwhile.
#![cfg_attr(
    not(target_os = "linux"),
    expect(clippy::disallowed_methods, reason = "this is the door to directories that may be exchanged")
)]

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;

use super::{Fingerprint, probe};
use crate::config::Symlinks;

/// A directory, by its inode and not by its name.
#[derive(Debug)]
pub(crate) struct Opened {
    #[cfg(target_os = "linux")]
    directory: File,
    #[cfg(not(target_os = "linux"))]
    directory: std::path::PathBuf,
}

#[cfg(target_os = "linux")]
impl Opened {
    /// Opens the directory at `path`, symlinks followed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        use rustix::fs::{CWD, OFlags};

        open_at(CWD, path, OFlags::DIRECTORY).map(|directory| Self { directory })
    }

    /// Opens the directory at `path`; fails where a symlink is on the way, or the kernel cannot tell.
    pub(crate) fn open_real(path: &Path) -> io::Result<Self> {
        use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
        Ok(Self { directory: File::from(directory) })
    }

    /// Opens what is called `name` in the directory for reading, if it is no symlink; never waits, whatever it is.
    pub(crate) fn read(&self, name: &OsStr) -> io::Result<File> {
        use rustix::fs::{Mode, openat};

        let opened = openat(&self.directory, name, probe::READ_FLAGS, Mode::empty())?;
        Ok(File::from(opened))
    }

    /// The identity of the directory itself: its `ctime` moves with each rename of it, and with each name in it.
    pub(crate) fn fingerprint(&self) -> io::Result<Fingerprint> {
        self.directory.metadata().map(|metadata| Fingerprint::of(&metadata))
    }

    /// The regular file at `path` below the directory; `None` if there is none.
    pub(crate) fn file(&self, path: &Path, symlinks: Symlinks) -> io::Result<Option<Fingerprint>> {
        use rustix::fs::OFlags;

        let flags = if symlinks == Symlinks::Skip { OFlags::NOFOLLOW } else { OFlags::empty() };
        regular(open_at(&self.directory, path, flags).and_then(|file| file.metadata()))
    }
}

/// Opens it for asking what it is, and nothing else: no lease is broken, no FIFO waited for, no permission to read needed.
#[cfg(target_os = "linux")]
fn open_at(at: impl std::os::fd::AsFd, path: &Path, flags: rustix::fs::OFlags) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags, openat};

    let opened = openat(at, path, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    Ok(File::from(opened))
}

/// By name, as far as the standard library goes.
#[cfg(not(target_os = "linux"))]
impl Opened {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if path.metadata()?.is_dir() {
            Ok(Self { directory: path.to_path_buf() })
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    }

    pub(crate) fn open_real(path: &Path) -> io::Result<Self> {
        Self::open(path)
    }

    pub(crate) fn read(&self, name: &OsStr) -> io::Result<File> {
        probe::open_no_follow(&self.directory.join(name))
    }

    pub(crate) fn fingerprint(&self) -> io::Result<Fingerprint> {
        self.directory.metadata().map(|metadata| Fingerprint::of(&metadata))
    }

    pub(crate) fn file(&self, path: &Path, symlinks: Symlinks) -> io::Result<Option<Fingerprint>> {
        let path = self.directory.join(path);
        regular(if symlinks == Symlinks::Skip { path.symlink_metadata() } else { path.metadata() })
    }
}

fn regular(found: io::Result<std::fs::Metadata>) -> io::Result<Option<Fingerprint>> {
    match found {
        Ok(metadata) => Ok(metadata.is_file().then(|| Fingerprint::of(&metadata))),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}
