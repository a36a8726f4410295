//! Stage 1 of 8: disk in, observations out.
//!
//! A hint only says where to look. What is told about a path is what `lstat`, the read lease and the file's own structure
//! said when we looked, so hints may be doubled, late or wrong.

use serde::{Deserialize, Serialize};

pub(crate) use crate::lease::Writer;
use crate::path::UnitPath;

pub mod git;
pub(crate) mod ignore;
pub(crate) mod mount;
pub(crate) mod opened;
pub(crate) mod probe;
pub(crate) mod scan;
pub(crate) mod structure;
pub(crate) mod watch;

/// Where a path was seen: which of the entry's `pickup_from` directories, and where below it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    /// Index into `pickup_from`.
    pub root: usize,
    pub path: UnitPath,
}

/// The identity of a file on disk, cheap to get: equal fingerprints mean that nothing has to be read again.
///
/// Packed, because one is kept for each file that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(C, packed(4))]
pub(crate) struct Fingerprint {
    pub dev: u64,
    pub ino: u64,
    pub size: u64,
    /// Nanoseconds since the epoch.
    pub mtime: i64,
    /// Nanoseconds since the epoch. The only field that tar and rsync cannot set back.
    pub ctime: i64,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
}

impl Fingerprint {
    /// Of a file that was taken from a commit and has not been looked at on disk; size and mode are to be filled in.
    pub(crate) const COMMITTED: Self = Self { dev: 0, ino: 0, size: 0, mtime: 0, ctime: 0, mode: 0 };

    pub(crate) fn is_committed(&self) -> bool {
        (self.dev, self.ino, self.ctime) == (0, 0, 0)
    }
}

/// What made us look at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hint {
    /// A listing: nothing is known about who wrote it, or when.
    Scan,
    /// A name appeared by creation or link.
    Created,
    /// Content was written or cut off.
    Written,
    /// Mode or times were set.
    Attributes,
    /// A writer closed it.
    Closed,
    /// It was renamed into place.
    MovedIn,
}

/// Whether the file's own format says that it is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// It is whole, or its format cannot tell.
    Whole,
    /// It is cut off; says how that shows.
    Partial(String),
}

/// What a look at a path found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// A regular file, itself or behind a symlink that may be followed.
    File { fingerprint: Fingerprint, hint: Hint, writer: Writer, shape: Shape },
    /// Nothing: `ENOENT`, and only that.
    Gone,
    /// It is there and cannot be judged (`EIO`, `ESTALE`, `EACCES` …); what was known of it stays.
    Unreadable(String),
    /// It is there and is never deployed: a FIFO, a socket, a device, a symlink that leads nowhere or out.
    Refused(String),
}
