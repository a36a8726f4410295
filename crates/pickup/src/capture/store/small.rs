//! Content that was read into memory: it is written under its own name.
//!
//! A temporary that is renamed costs twice as much as the file itself. A file is made, filled and pinned under one lock, so
//! nobody of this process sees half of it, and half of one that a crash leaves is told by its length.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::hook::StoreWrite;
use super::{Store, bytes, make_directory};
use crate::capture::{Digest, stored_path};
use crate::error::{IoContext, Result};

/// What is longer takes too long for the others that wait for the lock, and gains little.
pub(super) const BRIEF_MAX: usize = 16 * 1024;

impl Store {
    /// Takes `content` into the store and pins it; `named` is what errors call it.
    pub(super) fn keep_small(&self, content: &[u8], named: &Path) -> Result<Digest> {
        let (digest, size) = (Digest(*blake3::hash(content).as_bytes()), content.len() as u64);
        let is_brief = content.len() <= BRIEF_MAX && self.below.is_none();
        if is_brief && self.keep_brief(&digest, content)? || self.pin_if_stored(&digest, size) {
            return Ok(digest);
        }
        let reserved = self.reserve(size, named)?;
        let temp = self.temp()?;
        self.fill(&temp.file, content).doing("write", &temp.path)?;
        self.keep(temp, digest, reserved)
    }

    /// Writes `content` under its own name and pins it. `false` if somebody has the name, or it cannot be had in this way.
    fn keep_brief(&self, digest: &Digest, content: &[u8]) -> Result<bool> {
        self.count()?;
        let mut state = self.state();
        // What is stored already needs no room, so a full store is not the end of it.
        let used = state.used.checked_add(content.len() as u64).filter(|used| *used <= self.max);
        let Some(used) = used.filter(|_| !state.pinned.contains_key(digest)) else { return Ok(false) };
        let path = stored_path(&self.dir, digest);
        let Some(file) = self.create(&path)? else { return Ok(false) };
        let written = self.fill(&file, content).and_then(|()| self.finish(&file));
        if written.is_err() {
            // Half a file that stays is replaced by the next capture, or collected.
            let _ = fs::remove_file(&path);
        }
        written.doing("write", path)?;
        state.used = used;
        *state.pinned.entry(*digest).or_default() += 1;
        Ok(true)
    }

    /// A new file, read-only for all others; `None` if the name is taken, or this system makes none that we could fill.
    fn create(&self, path: &Path) -> Result<Option<File>> {
        let create = || self.may(StoreWrite::Create).and_then(|()| bytes::create_read_only(path));
        let mut created = create();
        if created.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            path.parent().map_or(Ok(()), make_directory)?;
            created = create();
        }
        match created {
            Err(e) if matches!(e.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::Unsupported) => Ok(None),
            created => created.map(Some).doing("write", path),
        }
    }

    fn fill(&self, mut file: &File, content: &[u8]) -> io::Result<()> {
        if let Err(error) = self.may(StoreWrite::Write) {
            file.write_all(&content[..content.len() / 2])?;
            return Err(error);
        }
        file.write_all(content)
    }

    fn finish(&self, file: &File) -> io::Result<()> {
        if self.mark.is_masked() {
            bytes::make_read_only(file)?;
        }
        self.may(StoreWrite::Rename)
    }
}
