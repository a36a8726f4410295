//! What an open store leaves behind if it is not closed: then a crash may have torn what it was writing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::bytes;
use crate::error::{Error, IoContext, Result};

/// There while the store is open.
#[derive(Debug)]
pub(super) struct Mark {
    path: PathBuf,
    is_clean: bool,
    is_masked: bool,
}

impl Mark {
    /// Leaves a mark in `dir`, and sees whether one is there.
    pub(super) fn leave(dir: &Path) -> Result<Self> {
        let path = dir.join("open");
        let is_clean = match fs::remove_file(&path) {
            Ok(()) => false,
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) => return Err(Error::io("remove", path, e)),
        };
        let is_masked = bytes::is_masked(&path).doing("write", &path)?;
        Ok(Self { path, is_clean, is_masked })
    }

    /// Whether nothing in the store can be torn by a crash of ours.
    pub(super) fn is_clean(&self) -> bool {
        self.is_clean
    }

    /// Whether the process makes files with less of a mode than it asks for.
    pub(super) fn is_masked(&self) -> bool {
        self.is_masked
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // If it stays, the next start looks at more than it needs to.
        let _ = fs::remove_file(&self.path);
    }
}
