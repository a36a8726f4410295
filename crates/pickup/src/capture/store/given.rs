//! Contents that are given to the store: bytes in memory, and files of our own that it may keep.

use std::io;
use std::path::Path;

use super::bytes::{self, Temp};
use super::{Store, hash};
use crate::capture::CapturedFile;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::source::git::import::Contents;

#[cfg(test)]
mod tests;

impl Store {
    /// Takes `content` into the store, for a file of that mode; `named` is what errors call it. The content stays pinned
    /// until [`Store::unpin`].
    ///
    /// # Errors
    /// The store cannot be written, or its limit is reached. No trace stays behind.
    pub(crate) fn put(&self, named: &Path, content: &[u8], mode: u32) -> Result<CapturedFile> {
        let size = content.len() as u64;
        self.check_size(named, size)?;
        let digest = self.keep_small(content, named)?;
        Ok(self.file(digest, size, mode))
    }

    /// Takes the file at `path` into the store, by its name where that is possible: it is gone from there afterwards, also
    /// after an error. Nobody else may write to it. The content stays pinned until [`Store::unpin`].
    ///
    /// # Errors
    /// The file cannot be read, the store cannot be written, or its limit is reached. No trace stays behind.
    pub(crate) fn adopt(&self, named: &Path, path: &Path, mode: u32) -> Result<CapturedFile> {
        let file = bytes::open_source(path, false).doing("read", path)?;
        let found = file.metadata().doing("look at", path)?;
        if !found.is_file() {
            return Err(Error::new(ErrorKind::Io, "take into the content store what is no file:").at(path));
        }
        let size = found.len();
        // From here on it is removed, unless it is kept.
        let given = Temp::given(path.to_owned(), file);
        self.check_size(named, size)?;
        let digest = hash(&given.file).doing("read", path)?;
        if !self.pin_if_stored(&digest, size) {
            let reserved = self.reserve(size, named)?;
            let temp = self.take_over(given, size)?;
            self.keep(temp, digest, reserved)?;
        }
        Ok(self.file(digest, size, mode))
    }

    /// Pins content once more that is pinned already, for a file of that mode.
    pub(crate) fn share(&self, file: &CapturedFile, mode: u32) -> CapturedFile {
        *self.state().pinned.entry(file.digest).or_default() += 1;
        self.file(file.digest, file.size, mode)
    }

    /// Makes `given` a temporary of the store's own.
    fn take_over(&self, mut given: Temp, size: u64) -> Result<Temp> {
        let mut temp = self.temp()?;
        match given.rename(&temp.path) {
            Ok(()) => {
                // The file that had the temporary's name is gone.
                temp.file = given.file.try_clone().doing("read", &temp.path)?;
                Ok(temp)
            }
            // Another file system.
            Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
                bytes::copy(&given.file, &temp.file, size).doing("copy", &given.path)?;
                Ok(temp)
            }
            Err(e) => Err(Error::io("take into the content store", &given.path, e)),
        }
    }

    pub(super) fn check_size(&self, named: &Path, size: u64) -> Result<()> {
        if size <= self.max {
            return Ok(());
        }
        let what = format!("capture {size} bytes with a `store_max` of {} bytes:", self.max);
        Err(Error::new(ErrorKind::Io, what).at(named))
    }
}

impl Contents for Store {
    type File = CapturedFile;

    fn put(&self, named: &Path, content: &[u8], mode: u32) -> Result<CapturedFile> {
        self.put(named, content, mode)
    }

    fn adopt(&self, named: &Path, path: &Path, mode: u32) -> Result<CapturedFile> {
        self.adopt(named, path, mode)
    }

    fn share(&self, file: &CapturedFile, mode: u32) -> CapturedFile {
        self.share(file, mode)
    }

    fn unpin(&self, file: &CapturedFile) {
        self.unpin(&file.digest);
    }
}
