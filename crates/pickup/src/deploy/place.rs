//! Files into place: verified copies, below directories that no symlink leads out of.
#![expect(clippy::disallowed_methods, reason = "this is the door to target directories")]

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Cursor, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::capture::{CapturedFile, Digest};
use crate::deploy::lane::Stop;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::path::UnitPath;

mod identity;
mod room;
mod swap;
mod tree;

pub(crate) use identity::{Found, Identity, identify};

/// How much is read at once.
const CHUNK: usize = 128 << 10;

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Writes the captured bytes into the empty file `to`, which is open for reading and writing at `target`: by reflink
/// where the file system can, else by copying. Either way the bytes are hashed, because a damaged store must not be
/// deployed.
pub(crate) fn copy_captured(file: &CapturedFile, to: &File, target: &Path, stop: &Stop) -> Result<()> {
    let (mut from, is_cloned): (Box<dyn Read>, bool) = match file.recent() {
        Some(content) => (Box::new(Cursor::new(content)), false),
        None => {
            let stored = file.named();
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let from: File = rustix::fs::open(&stored, flags, Mode::empty()).doing("read", stored)?.into();
            if reflink(&from, to) { (Box::new(to), true) } else { (Box::new(from), false) }
        }
    };
    let (mut hasher, mut length) = (blake3::Hasher::new(), 0);
    // One byte more than the file, so that a small one needs a single read to be seen to end.
    let mut buffer = vec![0; usize::try_from(file.size).unwrap_or(CHUNK).saturating_add(1).min(CHUNK)];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read", file.named(), error)),
        };
        hasher.update(&buffer[..count]);
        length += count as u64;
        if !is_cloned {
            (&*to).write_all(&buffer[..count]).doing("write", target)?;
        }
        stop.check()?;
    }
    if length != file.size || Digest(*hasher.finalize().as_bytes()) != file.digest {
        let error = Error::new(ErrorKind::Io, "deploy: the content store is damaged at").at(file.named());
        return Err(error);
    }
    Ok(())
}

#[cfg(target_os = "linux")]
fn reflink(from: &File, to: &File) -> bool {
    rustix::fs::ioctl_ficlone(to, from).is_ok()
}

#[cfg(not(target_os = "linux"))]
fn reflink(_from: &File, _to: &File) -> bool {
    false
}

/// The digest of a file's content.
pub(crate) fn digest(mut file: &File) -> std::io::Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    std::io::copy(&mut file, &mut hasher)?;
    Ok(Digest(*hasher.finalize().as_bytes()))
}

/// Puts everything on the file system of `directory` on disk: cheaper than one file after the other when there are many.
#[cfg(target_os = "linux")]
pub(crate) fn sync_all(directory: impl AsFd) -> std::io::Result<()> {
    Ok(rustix::fs::syncfs(directory)?)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn sync_all(directory: impl AsFd) -> std::io::Result<()> {
    let _ = directory;
    rustix::fs::sync();
    Ok(())
}

/// The directories that a deployer created, so that it removes these and no others once they are empty.
#[derive(Debug, Default)]
pub(crate) struct Made(Mutex<HashSet<OsString>>);

impl Made {
    /// Remembers what an earlier run created.
    pub(crate) fn recall(&self, root: &Path, directories: &[UnitPath]) {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for directory in directories {
            let directory = root.join(directory.as_path()).into_os_string();
            // Each file recalls the directories above it, so most are there.
            if !made.contains(&directory) {
                made.insert(directory);
            }
        }
    }

    /// Those of the directories above `path` that were created, the topmost first.
    pub(crate) fn above(&self, root: &Path, path: &UnitPath) -> Vec<UnitPath> {
        let made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut above: Vec<_> = std::iter::successors(path.parent(), UnitPath::parent)
            .filter(|parent| !parent.is_root() && made.contains(root.join(parent.as_path()).as_os_str()))
            .collect();
        above.reverse();
        above
    }
}

/// A directory that holds all that is deployed; itself it may be reached through symlinks, below it none is followed.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    directory: OwnedFd,
}

impl Root {
    /// Opens the directory, or `None` if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        match rustix::fs::open(path, DIRECTORY, Mode::empty()) {
            Ok(directory) => Ok(Some(Self { path: path.to_path_buf(), directory })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io("open the directory", path, error.into())),
        }
    }

    /// Opens the directory, which is made if it is missing.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).doing("create the directory", path)?;
        let directory = rustix::fs::open(path, DIRECTORY, Mode::empty()).doing("open the directory", path)?;
        Ok(Self { path: path.to_path_buf(), directory })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn as_directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// Opens the directory that holds `path`, or `None` if it is not there.
    pub(crate) fn parent(&self, path: &UnitPath) -> Result<Option<Parent>> {
        if let Some(parent) = self.parent_at_once(path) {
            return Ok(Some(parent));
        }
        self.walk(path, |_, _, _| Err(Errno::NOENT))
    }

    /// Opens the directory that holds `path`; what is missing on the way is made and remembered.
    pub(crate) fn make_parent(&self, path: &UnitPath, made: &Made) -> Result<Parent> {
        if let Some(parent) = self.parent_at_once(path) {
            return Ok(parent);
        }
        let parent = self.walk(path, |directory, name, full| {
            // Under the lock, so that whoever finds the directory there also finds it remembered.
            let mut made = made.0.lock().unwrap_or_else(PoisonError::into_inner);
            match rustix::fs::mkdirat(directory, name, Mode::from_raw_mode(0o777)) {
                Ok(()) => {
                    made.insert(full.as_os_str().to_owned());
                    Ok(())
                }
                Err(Errno::EXIST) => Ok(()),
                Err(error) => Err(error),
            }
        })?;
        parent.ok_or_else(|| Error::io("create the directory of", self.path.join(path.as_path()), Errno::NOENT.into()))
    }

    /// Opens the directory that holds `path` in one call, where the kernel promises that no symlink is followed and
    /// nothing led out; `None` where it does not, or where the directory cannot be had: the slow way finds out why.
    #[cfg(target_os = "linux")]
    fn parent_at_once(&self, path: &UnitPath) -> Option<Parent> {
        use rustix::fs::{ResolveFlags, openat2};

        let below = path.as_path().parent().filter(|below| !below.as_os_str().is_empty())?;
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        let directory = openat2(&self.directory, below, DIRECTORY, Mode::empty(), resolve).ok()?;
        Some(Parent { directory, path: self.path.join(below) })
    }

    #[cfg(not(target_os = "linux"))]
    fn parent_at_once(&self, _path: &UnitPath) -> Option<Parent> {
        None
    }

    /// Goes down to the directory of `path`, one component at a time; `missing` may make what is not there.
    fn walk(
        &self,
        path: &UnitPath,
        missing: impl Fn(&OwnedFd, &OsStr, &Path) -> Result<(), Errno>,
    ) -> Result<Option<Parent>> {
        let mut full = self.path.clone();
        let mut directory = self.directory.try_clone().doing("open the directory", &full)?;
        for name in path.parent().unwrap_or_default().as_path() {
            full.push(name);
            let flags = DIRECTORY | OFlags::NOFOLLOW;
            let next = match rustix::fs::openat(&directory, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => missing(&directory, name, &full)
                    .and_then(|()| rustix::fs::openat(&directory, name, flags, Mode::empty())),
                other => other,
            };
            directory = match next {
                Ok(next) => next,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(impassable(&directory, name, &full, error)),
            };
        }
        full.push(path.file_name().unwrap_or_default());
        Ok(Some(Parent { directory, path: full.parent().unwrap_or(&self.path).to_path_buf() }))
    }

    /// Writes one captured file to `path` with `mode`, in a directory that is ours alone.
    pub(crate) fn write(&self, path: &UnitPath, file: &CapturedFile, mode: u32, stop: &Stop) -> Result<File> {
        let parent = self.make_parent(path, &Made::default())?;
        let (name, target) = (path.file_name().unwrap_or_default(), self.path.join(path.as_path()));
        let written = parent.create(name)?;
        copy_captured(file, &written, &target, stop)?;
        set_mode(&written, mode).doing("set the mode of", &target)?;
        Ok(written)
    }

    /// Removes those of the directories, sorted, that are empty, and forgets them; the rest stay.
    pub(crate) fn remove_empty<'a>(
        &self,
        directories: impl IntoIterator<Item = &'a UnitPath, IntoIter: DoubleEndedIterator>,
        made: &Made,
    ) -> Result<()> {
        for directory in directories.into_iter().rev().filter(|directory| !directory.is_root()) {
            let Some(parent) = self.parent_if_any(directory)? else { continue };
            let mut made = made.0.lock().unwrap_or_else(PoisonError::into_inner);
            let full = self.path.join(directory.as_path());
            match rustix::fs::unlinkat(&parent.directory, directory.file_name().unwrap_or_default(), AtFlags::REMOVEDIR)
            {
                Ok(()) | Err(Errno::NOENT) => {
                    made.remove(full.as_os_str());
                }
                // Somebody else uses it: it stays.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::BUSY) => {}
                Err(error) => return Err(Error::io("remove the directory", full, error.into())),
            }
        }
        Ok(())
    }
}

/// Why a component of the target's path cannot be gone through.
fn impassable(directory: &OwnedFd, name: &OsStr, full: &Path, error: Errno) -> Error {
    match identity::look(directory, name) {
        Ok(found) if !found.is_directory() => {
            Error::deploy(format!("go through {}, which is {}", full.display(), found.kind()))
        }
        Ok(_) | Err(_) => Error::io("open the directory", full, error.into()),
    }
}

/// The mode of a file, set whatever the umask says.
pub(crate) fn set_mode(file: &File, mode: u32) -> std::io::Result<()> {
    Ok(rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777))?)
}

/// An open directory: names in it are entries of it and nothing else.
#[derive(Debug)]
pub(crate) struct Parent {
    directory: OwnedFd,
    path: PathBuf,
}

impl Parent {
    /// What lies at `name`, symlinks not followed.
    pub(crate) fn look(&self, name: &OsStr) -> Result<Option<Found>> {
        match identity::look(&self.directory, name) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io("look at", self.path.join(name), error.into())),
        }
    }

    /// Makes an empty file that nobody else can read yet, open for reading and writing.
    pub(crate) fn create(&self, name: &OsStr) -> Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::from_raw_mode(0o600));
        file.map(File::from).doing("create", self.path.join(name))
    }

    /// Opens a file for reading; never waits, not even for a pipe's writer.
    pub(crate) fn read(&self, name: &OsStr) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.directory, name, flags, Mode::empty());
        file.map(File::from).doing("read", self.path.join(name))
    }

    /// Removes a file; one that is not there is fine.
    pub(crate) fn unlink(&self, name: &OsStr) -> Result<()> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(Error::io("remove", self.path.join(name), error.into())),
        }
    }

    /// Puts the directory's entries on disk.
    pub(crate) fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.directory).doing("put on disk", &self.path)
    }

    /// Takes the place of whatever file lies at `to`.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        rustix::fs::renameat(&self.directory, from, &self.directory, to).doing("move into place", self.path.join(to))
    }

    /// Moves a file to another directory, where it takes the place of whatever file lies at `to`.
    pub(crate) fn rename_to(&self, from: &OsStr, to_directory: &Self, to: &OsStr) -> Result<()> {
        let moved = rustix::fs::renameat(&self.directory, from, &to_directory.directory, to);
        moved.doing("move into place", to_directory.path.join(to))
    }

    /// A second name for the same file, here or in another directory.
    pub(crate) fn link(&self, from: &OsStr, to_directory: &Self, to: &OsStr) -> std::io::Result<()> {
        Ok(rustix::fs::linkat(&self.directory, from, &to_directory.directory, to, AtFlags::empty())?)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests;
