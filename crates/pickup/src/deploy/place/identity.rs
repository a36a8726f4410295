//! Which file it is that lies at some name, and in which state.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;

use rustix::fs::FileType;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// What tells one state of one file from every other, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    /// When the file was created, where the file system knows: the number of a removed inode is soon used again.
    born_ns: i64,
    size: u64,
    modified_ns: i64,
}

impl Identity {
    /// Whether both are the same file, changed or not.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode, self.born_ns) == (other.device, other.inode, other.born_ns)
    }
}

/// What lies at some name.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) identity: Identity,
    pub(crate) mode: u32,
    file_type: FileType,
}

impl Found {
    pub(crate) fn is_file(&self) -> bool {
        self.file_type == FileType::RegularFile
    }

    pub(crate) fn is_directory(&self) -> bool {
        self.file_type == FileType::Directory
    }

    /// What it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        match self.file_type {
            FileType::RegularFile => "a file",
            FileType::Directory => "a directory",
            FileType::Symlink => "a symlink",
            _ => "a special file",
        }
    }
}

/// What an open file is.
pub(crate) fn identify(file: &File) -> std::io::Result<Found> {
    Ok(stat::open(file)?)
}

/// What lies at `name`, symlinks not followed.
pub(super) fn look(directory: &OwnedFd, name: &OsStr) -> Result<Found, Errno> {
    stat::entry(directory, name)
}

#[cfg(target_os = "linux")]
mod stat {
    use rustix::fs::{AtFlags, Statx, StatxFlags, StatxTimestamp, statx};

    use super::*;

    const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

    pub(super) fn open(file: &File) -> Result<Found, Errno> {
        statx(file, "", AtFlags::EMPTY_PATH, WANTED).map(|stat| found(&stat))
    }

    pub(super) fn entry(directory: &OwnedFd, name: &OsStr) -> Result<Found, Errno> {
        statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, WANTED).map(|stat| found(&stat))
    }

    fn found(stat: &Statx) -> Found {
        let identity = Identity {
            device: (u64::from(stat.stx_dev_major) << 32) | u64::from(stat.stx_dev_minor),
            inode: stat.stx_ino,
            // Zero where the file system does not keep it.
            born_ns: nanoseconds(&stat.stx_btime),
            size: stat.stx_size,
            modified_ns: nanoseconds(&stat.stx_mtime),
        };
        let mode = u32::from(stat.stx_mode);
        Found { identity, mode: mode & 0o7777, file_type: FileType::from_raw_mode(mode) }
    }

    fn nanoseconds(time: &StatxTimestamp) -> i64 {
        time.tv_sec.saturating_mul(1_000_000_000).saturating_add(i64::from(time.tv_nsec))
    }
}

#[cfg(not(target_os = "linux"))]
mod stat {
    use rustix::fs::{AtFlags, Stat, fstat, statat};

    use super::*;

    pub(super) fn open(file: &File) -> Result<Found, Errno> {
        fstat(file).map(|stat| found(&stat))
    }

    pub(super) fn entry(directory: &OwnedFd, name: &OsStr) -> Result<Found, Errno> {
        statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).map(|stat| found(&stat))
    }

    fn found(stat: &Stat) -> Found {
        let seconds = wide::<_, i64>(stat.st_mtime);
        let identity = Identity {
            device: wide(stat.st_dev),
            inode: wide(stat.st_ino),
            born_ns: 0,
            size: wide(stat.st_size),
            modified_ns: seconds.saturating_mul(1_000_000_000).saturating_add(wide(stat.st_mtime_nsec)),
        };
        let mode = wide::<_, u32>(stat.st_mode);
        Found { identity, mode: mode & 0o7777, file_type: FileType::from_raw_mode(stat.st_mode) }
    }

    /// The types of these fields differ from one platform to the next.
    fn wide<T: TryInto<U>, U: Default>(value: T) -> U {
        value.try_into().unwrap_or_default()
    }
}
