//! Whether a file would say what it said when it was read, told without opening it.

use std::path::PathBuf;
use std::time::SystemTime;

use crate::source::Fingerprint;

/// A file that is younger may have been written once more within a tick of its file system's clock, the coarsest of which
/// ticks every two seconds.
#[cfg(target_os = "linux")]
const OLD: std::time::Duration = std::time::Duration::from_secs(3);

/// Files, each as it was before it was read; `None` if nothing was there.
#[derive(Default)]
pub(super) struct Stamps {
    files: Vec<(PathBuf, Option<Fingerprint>)>,
    /// Whether one of them may change without its stamp.
    is_doubted: bool,
}

impl Stamps {
    /// Adds a file that is about to be read, and says whether it is there.
    pub(super) fn add(&mut self, file: PathBuf, now: SystemTime) -> bool {
        let stamp = stamp(&file);
        self.is_doubted |= !stamp.as_ref().is_ok_and(|stamp| stamp.is_none_or(|stamp| is_old(&stamp, now)));
        let stamp = stamp.unwrap_or_default();
        self.files.push((file, stamp));
        stamp.is_some()
    }

    /// Whether each of them is what it was.
    pub(super) fn hold(&self) -> bool {
        !self.is_doubted && self.files.iter().all(|(file, known)| stamp(file).as_ref() == Ok(known))
    }
}

/// Of a regular file, itself or behind a symlink; `Err` if there is no telling.
#[cfg(target_os = "linux")]
fn stamp(file: &std::path::Path) -> Result<Option<Fingerprint>, ()> {
    use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, StatxTimestamp, statx};
    use rustix::io::Errno;

    // A file system of the network is asked, as it would be by whoever opens the file.
    let found = match statx(CWD, file, AtFlags::STATX_FORCE_SYNC, StatxFlags::BASIC_STATS) {
        Ok(found) => found,
        Err(Errno::NOENT) => return Ok(None),
        Err(_) => return Err(()),
    };
    let mode = u32::from(found.stx_mode);
    if FileType::from_raw_mode(mode) != FileType::RegularFile {
        return Err(());
    }
    let nanos = |time: StatxTimestamp| time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec.into());
    Ok(Some(Fingerprint {
        dev: (u64::from(found.stx_dev_major) << 32) | u64::from(found.stx_dev_minor),
        ino: found.stx_ino,
        size: found.stx_size,
        mtime: nanos(found.stx_mtime),
        ctime: nanos(found.stx_ctime),
        mode: mode & 0o7777,
    }))
}

#[cfg(target_os = "linux")]
fn is_old(stamp: &Fingerprint, now: SystemTime) -> bool {
    let until = now.checked_sub(OLD).and_then(|until| until.duration_since(std::time::UNIX_EPOCH).ok());
    until.is_some_and(|until| u128::try_from(stamp.ctime).is_ok_and(|changed| changed < until.as_nanos()))
}

/// Elsewhere each look reads.
#[cfg(not(target_os = "linux"))]
fn stamp(_file: &std::path::Path) -> Result<Option<Fingerprint>, ()> {
    Err(())
}

#[cfg(not(target_os = "linux"))]
fn is_old(_stamp: &Fingerprint, _now: SystemTime) -> bool {
    false
}
