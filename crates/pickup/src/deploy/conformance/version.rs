//! The files a deployer is tried with, and the units made of them.
#![expect(clippy::disallowed_methods, reason = "this is a door: it captures bytes into a store of its own")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::capture::{CapturedFile, Digest};
use crate::change::{Change, ChangeKind, Content, TreeFile};
use crate::deploy::{Scope, Unit};
use crate::error::{Error, IoContext, Result};
use crate::path::UnitPath;

/// The pickup that every unit of a [`Version`] belongs to.
pub const PICKUP: &str = "conformance";

/// One version of a unit: its files, and what the world sees once it is live.
#[derive(Clone, Debug)]
pub struct Version {
    path: PathBuf,
    files: Vec<File>,
    is_tree: bool,
    serves: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct File {
    /// Below the unit; empty where the unit is the file.
    path: PathBuf,
    bytes: Vec<u8>,
    mode: u32,
}

impl Version {
    /// A unit of one file. Its mode is 0o644.
    pub fn file(path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        let file = File { path: PathBuf::new(), bytes: bytes.into(), mode: 0o644 };
        Self { path: path.into(), files: vec![file], is_tree: false, serves: None }
    }

    /// A unit of several files, none yet; `path` may be empty, for all of the pickup.
    pub fn tree(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), files: Vec::new(), is_tree: true, serves: None }
    }

    /// Adds a file to a tree. Its mode is 0o644.
    #[must_use]
    pub fn with(mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push(File { path: path.into(), bytes: bytes.into(), mode: 0o644 });
        self
    }

    /// Sets the mode of the file that was named last.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Self {
        if let Some(file) = self.files.last_mut() {
            file.mode = mode & 0o7777;
        }
        self
    }

    /// What the world sees once this is live. Default: the bytes of the first file.
    #[must_use]
    pub fn serves(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.serves = Some(bytes.into());
        self
    }

    pub(super) fn served(&self) -> &[u8] {
        let first = || self.files.first().map_or(&[][..], |file| &file.bytes);
        self.serves.as_deref().unwrap_or_else(first)
    }

    /// The unit that a deployer of this scope is given, added in `generation`; its files are captured into the directory
    /// `store`. For what else a deployer is to be tried with: everything in a [`Unit`] can be changed.
    ///
    /// # Errors
    /// A path leads outside, or the store cannot be written.
    pub fn unit(&self, store: &Path, scope: Scope, generation: u64) -> Result<Unit> {
        let path = unit_path(&self.path)?;
        let content = match scope {
            Scope::Unit => self.content(store, Path::new(""))?,
            Scope::Pickup => Content::Tree(self.captured(store, &self.path)?.into()),
        };
        let of_unit = match scope {
            Scope::Unit => content.clone(),
            Scope::Pickup => self.content(store, Path::new(""))?,
        };
        let change = Change { path: path.clone(), kind: ChangeKind::Added, content: Some(of_unit), previous: None };
        let (path, kind) = match scope {
            Scope::Unit => (path, ChangeKind::Added),
            // As the engine has it: a pickup as a whole is never new.
            Scope::Pickup => (UnitPath::root(), ChangeKind::Modified),
        };
        Ok(Unit {
            pickup: PICKUP.into(),
            path,
            change: kind,
            content: Some(content),
            previous: None,
            generation,
            changes: Arc::new([change]),
            revision: None,
        })
    }

    fn content(&self, store: &Path, below: &Path) -> Result<Content> {
        let files = self.captured(store, below)?;
        match files.first() {
            Some(only) if !self.is_tree => Ok(Content::File(only.file.clone())),
            Some(_) | None => Ok(Content::Tree(files.into())),
        }
    }

    fn captured(&self, store: &Path, below: &Path) -> Result<Vec<TreeFile>> {
        let mut files = Vec::new();
        for file in &self.files {
            let path = unit_path(&below.components().chain(file.path.components()).collect::<PathBuf>())?;
            files.push(TreeFile { path, file: capture(store, file)? });
        }
        files.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(files)
    }
}

fn unit_path(path: &Path) -> Result<UnitPath> {
    UnitPath::new(path).ok_or_else(|| Error::deploy("use a path that is none of a unit:").at(path))
}

fn capture(store: &Path, file: &File) -> Result<CapturedFile> {
    let digest = Digest::of(&file.bytes);
    let stored = store.join(digest.to_string());
    std::fs::create_dir_all(store).doing("create the directory", store)?;
    if !stored.exists() {
        std::fs::write(&stored, &file.bytes).doing("write", &stored)?;
    }
    Ok(CapturedFile::at(stored, digest, file.bytes.len() as u64, file.mode))
}
