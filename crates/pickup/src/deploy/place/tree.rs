//! A directory of directories, held open: what takes its name meanwhile is neither written to nor removed from.

use std::ffi::{OsStr, OsString};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::{DIRECTORY, Parent, Root};
use crate::error::{Error, IoContext, Result};

impl Parent {
    /// Opens the directory at `path`, or `None` if it is not there. A symlink is refused: what it leads to may be somebody
    /// else's.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        match rustix::fs::open(path, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(directory) => Ok(Some(Self { directory, path: path.to_path_buf() })),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::LOOP | Errno::NOTDIR) => {
                Err(Error::deploy("put anything below what is a symlink, or no directory:").at(path))
            }
            Err(error) => Err(Error::io("open the directory", path, error.into())),
        }
    }

    /// The names in it.
    pub(crate) fn names(&self) -> Result<Vec<OsString>> {
        names(&self.directory).doing("list", &self.path)
    }

    /// The directory `name`, or `None` if there is none.
    pub(crate) fn root(&self, name: &OsStr) -> Result<Option<Root>> {
        let path = self.path.join(name);
        match openat(&self.directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(directory) => Ok(Some(Root { path, directory })),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(Error::io("open the directory", path, error.into())),
        }
    }

    /// Makes the directory `name`, which nobody may have made before.
    pub(crate) fn make_root(&self, name: &OsStr) -> Result<Root> {
        let path = self.path.join(name);
        rustix::fs::mkdirat(&self.directory, name, Mode::from_raw_mode(0o777)).doing("create the directory", &path)?;
        let gone = || Error::io("open the directory", &path, Errno::NOENT.into());
        self.root(name)?.ok_or_else(gone)
    }

    /// Makes a symlink.
    pub(crate) fn symlink(&self, target: &Path, name: &OsStr) -> Result<()> {
        rustix::fs::symlinkat(target, &self.directory, name).doing("create the link", self.path.join(name))
    }

    /// Removes a file, or a directory and all below it; symlinks are not followed. What is not there is fine.
    pub(crate) fn remove_all(&self, name: &OsStr) -> Result<()> {
        remove_all(&self.directory, name).doing("remove", self.path.join(name))
    }
}

fn names(directory: impl AsFd) -> Result<Vec<OsString>, Errno> {
    let name = |entry: rustix::fs::DirEntry| OsString::from_vec(entry.file_name().to_bytes().to_vec());
    let all = Dir::read_from(directory)?.map(|entry| entry.map(name));
    Ok(all.collect::<Result<Vec<_>, Errno>>()?.into_iter().filter(|name| name != "." && name != "..").collect())
}

fn remove_all(directory: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    let is_gone = |removed: Result<(), Errno>| if removed == Err(Errno::NOENT) { Ok(()) } else { removed };
    match unlinkat(&directory, name, AtFlags::empty()) {
        // A directory, by Linux and by POSIX.
        Err(Errno::ISDIR | Errno::PERM) => {}
        removed => return is_gone(removed),
    }
    match openat(&directory, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()) {
        Ok(below) => names(&below)?.iter().try_for_each(|name| remove_all(&below, name))?,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    }
    is_gone(unlinkat(&directory, name, AtFlags::REMOVEDIR))
}
