//! Content that was read into memory: it is written under its own name.
//!
//! A temporary that is renamed costs twice as much as the file itself. Nobody relies on what is not pinned yet, whoever fails
//! takes the name away again, and half of a file that a crash leaves is told by its length.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::hook::StoreWrite;
use super::{Reserved, Store, bytes, make_directory};
use crate::capture::{Digest, stored_path};
use crate::error::{IoContext, Result};

impl Store {
    /// Takes `content` into the store and pins it; `named` is what errors call it.
    pub(super) fn keep_small(&self, content: &[u8], named: &Path) -> Result<Digest> {
        let (digest, size) = (Digest(*blake3::hash(content).as_bytes()), content.len() as u64);
        if self.below.is_none() && self.keep_as_itself(&digest, content, named)? {
            return Ok(digest);
        }
        if self.pin_if_stored(&digest, size) {
            return Ok(digest);
        }
        let reserved = self.reserve(size, named)?;
        let temp = self.temp()?;
        self.fill(&temp.file, content).doing("write", &temp.path)?;
        self.keep(temp, digest, reserved)
    }

    /// Writes `content` under its own name and pins it. `false` if somebody has the name, or it cannot be had in this way.
    fn keep_as_itself(&self, digest: &Digest, content: &[u8], named: &Path) -> Result<bool> {
        if self.state().pinned.contains_key(digest) {
            return Ok(false);
        }
        // What is stored already needs no room.
        let Ok(reserved) = self.reserve(content.len() as u64, named) else { return Ok(false) };
        if !self.state().incoming.insert(*digest) {
            return Ok(false);
        }
        let path = stored_path(&self.dir, digest);
        let mut incoming = Incoming { store: self, digest, path: &path, is_made: false };
        let Some(file) = self.create(&path)? else { return Ok(false) };
        incoming.is_made = true;
        self.fill(&file, content).doing("write", &path)?;
        if self.mark.is_masked() {
            bytes::make_read_only(&file).doing("write", &path)?;
        }
        self.may(StoreWrite::Rename).doing("write", &path)?;
        Ok(incoming.pin(reserved))
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
}

/// Takes the name away again from what was not written to its end, unless somebody else has it by now.
struct Incoming<'a> {
    store: &'a Store,
    digest: &'a Digest,
    path: &'a Path,
    is_made: bool,
}

impl Incoming<'_> {
    /// It is all there. `false` if it was taken away meanwhile.
    fn pin(self, reserved: Reserved<'_>) -> bool {
        let mut state = self.store.state();
        let is_ours = state.incoming.remove(self.digest);
        if is_ours {
            *state.pinned.entry(*self.digest).or_default() += 1;
        }
        drop(state);
        if is_ours {
            reserved.use_up();
        }
        is_ours
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        let mut state = self.store.state();
        if state.incoming.remove(self.digest) && self.is_made {
            // Half a file that stays is replaced by the next capture, or collected.
            let _ = fs::remove_file(self.path);
        }
    }
}
