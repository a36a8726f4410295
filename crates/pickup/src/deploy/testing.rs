//! Units, contexts and captured files for the tests of the deployers.
#![expect(clippy::disallowed_methods, reason = "a sandbox is a directory")]

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::capture::{CapturedFile, Digest};
use crate::change::{Change, ChangeKind, Content, TreeFile};
use crate::deploy::{Context, Unit};
use crate::path::UnitPath;

/// A temporary directory with a content store, a target directory and a scratch directory.
pub(crate) struct Sandbox {
    directory: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("store")).unwrap();
        Self { directory }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    pub(crate) fn cx(&self) -> Context {
        self.cx_of(Duration::from_secs(30))
    }

    pub(crate) fn cx_of(&self, timeout: Duration) -> Context {
        Context::new(self.path("scratch"), Instant::now(), timeout)
    }

    pub(crate) fn store(&self, bytes: &[u8], mode: u32) -> CapturedFile {
        let digest = Digest::of(bytes);
        let stored = self.path("store").join(digest.to_string());
        std::fs::write(&stored, bytes).unwrap();
        CapturedFile::at(stored, digest, bytes.len() as u64, mode)
    }

    /// A unit of one file.
    pub(crate) fn file(&self, path: impl AsRef<Path>, bytes: &[u8], generation: u64) -> Unit {
        unit(path, Content::File(self.store(bytes, 0o644)), generation)
    }

    /// A unit of several files.
    pub(crate) fn tree(&self, path: &str, files: &[(&str, &[u8])], generation: u64) -> Unit {
        let mut entries: Vec<_> = files
            .iter()
            .map(|(name, bytes)| TreeFile { path: UnitPath::new(name).unwrap(), file: self.store(bytes, 0o644) })
            .collect();
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        unit(path, Content::Tree(entries.into()), generation)
    }

    pub(crate) fn read(&self, below: &str) -> String {
        std::fs::read_to_string(self.path(below)).unwrap_or_else(|error| panic!("{below}: {error}"))
    }

    /// Everything below a directory, sorted: directories end with a slash.
    pub(crate) fn listing(&self, below: &str) -> Vec<String> {
        let top = self.path(below);
        let mut names: Vec<_> = walkdir::WalkDir::new(&top)
            .min_depth(1)
            .into_iter()
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.path().strip_prefix(&top).unwrap().as_os_str().as_bytes();
                let slash = if entry.file_type().is_dir() { "/" } else { "" };
                format!("{}{slash}", String::from_utf8_lossy(name))
            })
            .collect();
        names.sort();
        names
    }
}

/// A unit that is removed.
pub(crate) fn removed(path: impl AsRef<Path>) -> Unit {
    Unit {
        pickup: "web".into(),
        path: UnitPath::new(path).unwrap(),
        change: ChangeKind::Removed,
        content: None,
        previous: None,
        generation: 7,
        changes: Arc::new([]),
        revision: None,
    }
}

fn unit(path: impl AsRef<Path>, content: Content, generation: u64) -> Unit {
    let path = UnitPath::new(path).unwrap();
    let change = Change { path: path.clone(), kind: ChangeKind::Added, content: Some(content.clone()), previous: None };
    Unit {
        pickup: "web".into(),
        path,
        change: ChangeKind::Added,
        content: Some(content),
        previous: None,
        generation,
        changes: Arc::new([change]),
        revision: None,
    }
}
