//! Taking files in: read, hashed, and stored under their digest.
#![expect(clippy::disallowed_methods, reason = "this is the door to the content store")]

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::bytes::{self, Temp, hash};
use super::hook::StoreWrite;
use super::{Captured, Reserved, Store, make_directory};
use crate::capture::{Digest, stored_path};
use crate::error::{Error, IoContext, Result};
use crate::source::Fingerprint;
use crate::source::probe::Read;

/// Files up to this size are captured through memory, so that known content costs no write.
pub(super) const IN_MEMORY_MAX: u64 = 256 * 1024;
/// Kernels before 6.13 stamp times by the tick, 10 ms at most: a change that soon after ours may carry the same time.
const RACY_NANOS: i64 = 20_000_000;

impl Store {
    /// Takes the bytes of the file at `absolute` into the store, if the file is still the one `expected`. A symlink in the
    /// last place is followed only if `follow` is set. The content stays pinned until [`Store::unpin`].
    ///
    /// # Errors
    /// The file cannot be read, the store cannot be written, or the store's limit is reached. No trace stays behind.
    pub(crate) fn capture(&self, absolute: &Path, expected: &Fingerprint, follow: bool) -> Result<Captured> {
        let source = match bytes::open_source(absolute, follow) {
            Ok(source) => source,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Captured::Gone);
            }
            Err(e) if bytes::is_symlink_met(&e) => return Ok(Captured::Moved),
            Err(e) => return Err(Error::io("read", absolute, e)),
        };
        let is_expected = || still(&source, expected, absolute);
        if !is_expected()? {
            return Ok(Captured::Moved);
        }
        self.check_size(absolute, expected.size)?;
        let is_racy = is_racy(expected);
        let digest = if expected.size <= IN_MEMORY_MAX {
            self.capture_small(&source, absolute, expected.size, &is_expected)?
        } else {
            self.capture_large(&source, absolute, expected.size, &is_expected)?
        };
        let Some(digest) = digest else { return Ok(Captured::Moved) };
        if is_racy && !is_expected()? {
            self.unpin(&digest);
            return Ok(Captured::Moved);
        }
        Ok(Captured::File(self.file(digest, expected.size, expected.mode)))
    }

    /// The same for a file that was read while it was looked at, and was `expected` before and after that.
    ///
    /// # Errors
    /// As for [`Store::capture`].
    pub(crate) fn capture_read(&self, absolute: &Path, expected: &Fingerprint, read: &Read) -> Result<Captured> {
        self.check_size(absolute, expected.size)?;
        let digest = self.keep_small(&read.content, absolute)?;
        if let Some(file) = &read.file
            && is_racy(expected)
            && !still(file, expected, absolute)?
        {
            self.unpin(&digest);
            return Ok(Captured::Moved);
        }
        Ok(Captured::File(self.file(digest, expected.size, expected.mode)))
    }

    /// `None` if the file changed while it was read.
    fn capture_small(
        &self,
        source: &File,
        absolute: &Path,
        size: u64,
        is_expected: &dyn Fn() -> Result<bool>,
    ) -> Result<Option<Digest>> {
        let mut content = Vec::with_capacity(size as usize);
        source.take(size + 1).read_to_end(&mut content).doing("read", absolute)?;
        if content.len() as u64 != size || !is_expected()? {
            return Ok(None);
        }
        self.keep_small(&content, absolute).map(Some)
    }

    /// `None` if the file changed while it was read.
    fn capture_large(
        &self,
        source: &File,
        absolute: &Path,
        size: u64,
        is_expected: &dyn Fn() -> Result<bool>,
    ) -> Result<Option<Digest>> {
        let reserved = match self.reserve(size, absolute) {
            Ok(reserved) => reserved,
            Err(full) => {
                // Content that is stored already needs no room.
                let digest = hash(source).doing("read", absolute)?;
                let is_known = is_expected()? && self.pin_if_stored(&digest, size);
                return if is_known { Ok(Some(digest)) } else { Err(full) };
            }
        };
        let temp = self.temp()?;
        self.may(StoreWrite::Write).doing("write", &temp.path)?;
        let (digest, copied) = if bytes::clone(source, &temp.file) {
            let length = temp.file.metadata().doing("look at", &temp.path)?.len();
            (hash(&temp.file).doing("read", &temp.path)?, length)
        } else {
            bytes::copy(source, &temp.file, size + 1).doing("copy", absolute)?
        };
        if copied != size || !is_expected()? {
            return Ok(None);
        }
        if self.pin_if_stored(&digest, size) {
            return Ok(Some(digest));
        }
        self.keep(temp, digest, reserved).map(Some)
    }

    /// Gives the temporary its name and pins it.
    pub(super) fn keep(&self, mut temp: Temp, digest: Digest, reserved: Reserved<'_>) -> Result<Digest> {
        let path = stored_path(&self.shelf.dir, &digest);
        self.may(StoreWrite::Rename).doing("write", &path)?;
        bytes::make_read_only(&temp.file).doing("write", &temp.path)?;
        let mut state = self.state();
        // Mostly the name is free, and its directory is there.
        let replaced = match temp.rename_to_new(&path) {
            Ok(()) => 0,
            Err(_) => {
                path.parent().map_or(Ok(()), make_directory)?;
                // Content of the wrong size is what a power failure left; another thread may also have been faster.
                let replaced = path.symlink_metadata().map_or(0, |old| old.len());
                temp.rename(&path).doing("write", &path)?;
                replaced
            }
        };
        state.used = state.used.saturating_sub(replaced);
        *state.pinned.entry(digest).or_default() += 1;
        drop(state);
        reserved.use_up();
        Ok(digest)
    }

    pub(super) fn pin_if_stored(&self, digest: &Digest, size: u64) -> bool {
        // Pinned and looked up under one lock, so that no collection can remove it in between.
        let mut state = self.state();
        let is_stored = state.recent.length(digest) == Some(size)
            || self.path(digest).symlink_metadata().is_ok_and(|found| found.is_file() && found.len() == size);
        if is_stored {
            *state.pinned.entry(*digest).or_default() += 1;
        }
        is_stored
    }
}

/// Whether the open file at `absolute` is the one `expected`, unchanged.
fn still(file: &File, expected: &Fingerprint, absolute: &Path) -> Result<bool> {
    file.metadata().map(|now| Fingerprint::of(&now) == *expected).doing("look at", absolute)
}

/// Whether the file changed so recently that another change could leave its times as they are.
fn is_racy(fingerprint: &Fingerprint) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos());
    // A time in the future is as good as now: the clock was set, or another host wrote it.
    i64::try_from(now).is_ok_and(|now| now.saturating_sub(fingerprint.mtime) < RACY_NANOS)
}
