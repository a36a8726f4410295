//! Exchanging two files, and moving one where nothing lies, each in one step.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use rustix::fs::AtFlags;
use rustix::io::Errno;

use crate::deploy::place::Parent;
use crate::error::{IoContext, Result};

impl Parent {
    /// Exchanges the files at `new` and `target`; nobody finds `target` missing in between. Where the file system
    /// cannot, the old file is kept as `backup` by a hard link meanwhile.
    pub(crate) fn exchange(&self, new: &OsStr, target: &OsStr, backup: &OsStr) -> Result<()> {
        match exchange(&self.directory, new, target) {
            Err(error) if is_unsupported(error) => self.exchange_by_links(new, target, backup),
            result => result.doing("move into place", self.path.join(target)),
        }
    }

    pub(super) fn exchange_by_links(&self, new: &OsStr, target: &OsStr, backup: &OsStr) -> Result<()> {
        // Left by a crash between the link and the renames: it is a second name of what lies at `target`.
        self.unlink(backup)?;
        self.link(target, self, backup).doing("keep the old version of", self.path.join(target))?;
        self.rename(new, target)?;
        self.rename(backup, new)
    }

    /// Moves `from` to `to` unless something lies there: then `false`.
    pub(crate) fn rename_new(&self, from: &OsStr, to: &OsStr) -> Result<bool> {
        self.rename_new_to(from, self, to)
    }

    /// Moves `from` to `to` in another directory unless something lies there: then `false`.
    pub(crate) fn rename_new_to(&self, from: &OsStr, to_directory: &Self, to: &OsStr) -> Result<bool> {
        let moved = match rename_new(&self.directory, from, &to_directory.directory, to) {
            Err(error) if is_unsupported(error) => self.rename_new_by_link(from, to_directory, to),
            result => result,
        };
        match moved {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(error) => Err(error).doing("move into place", to_directory.path.join(to)),
        }
    }

    pub(super) fn rename_new_by_link(&self, from: &OsStr, to_directory: &Self, to: &OsStr) -> Result<(), Errno> {
        rustix::fs::linkat(&self.directory, from, &to_directory.directory, to, AtFlags::empty())?;
        rustix::fs::unlinkat(&self.directory, from, AtFlags::empty())
    }
}

fn is_unsupported(error: Errno) -> bool {
    matches!(error, Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)
}

#[cfg(target_os = "linux")]
fn exchange(directory: &OwnedFd, one: &OsStr, other: &OsStr) -> Result<(), Errno> {
    rustix::fs::renameat_with(directory, one, directory, other, rustix::fs::RenameFlags::EXCHANGE)
}

#[cfg(target_os = "linux")]
fn rename_new(directory: &OwnedFd, from: &OsStr, to_directory: &OwnedFd, to: &OsStr) -> Result<(), Errno> {
    rustix::fs::renameat_with(directory, from, to_directory, to, rustix::fs::RenameFlags::NOREPLACE)
}

#[cfg(not(target_os = "linux"))]
fn exchange(_directory: &OwnedFd, _one: &OsStr, _other: &OsStr) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

#[cfg(not(target_os = "linux"))]
fn rename_new(_directory: &OwnedFd, _from: &OsStr, _to_directory: &OwnedFd, _to: &OsStr) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}
