//! What a release consists of, written beside it: so that a later one can reuse it without reading it.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use crate::capture::{CapturedFile, Digest};
use crate::deploy::place::{Identity, Parent, Root};
use crate::error::{Error, IoContext, Result};
use crate::path::UnitPath;

/// `releases/<name>.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) generation: u64,
    pub(super) digest: Digest,
    /// The configured shared paths: a release with others is another release.
    pub(super) shared: Vec<UnitPath>,
    pub(super) files: Vec<Entry>,
}

/// One file of a release, and how `stat` saw it once it was complete.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) path: UnitPath,
    pub(super) digest: Digest,
    pub(super) mode: u32,
    pub(super) identity: Identity,
}

impl Entry {
    /// Whether the release's file is still untouched and is what `captured` asks for.
    pub(super) fn holds(&self, release: &Root, captured: &CapturedFile) -> bool {
        self.digest == captured.digest && self.mode == mode(captured) && self.is_untouched(release)
    }

    /// Whether the file is still as it was built, as far as `stat` tells.
    pub(super) fn is_untouched(&self, release: &Root) -> bool {
        let name = self.path.file_name().unwrap_or_default();
        let found = release.parent(&self.path).ok().flatten().and_then(|parent| parent.look(name).ok().flatten());
        found.is_some_and(|found| found.is_file() && found.identity == self.identity && found.mode == self.mode)
    }
}

/// The permission bits that a release's file gets: never setuid or setgid.
pub(super) fn mode(captured: &CapturedFile) -> u32 {
    captured.mode & 0o777
}

pub(super) fn file_name(release: &str) -> String {
    format!("{release}.json")
}

/// Reads a manifest; one that is missing or that nobody can read makes its release one that is not reused.
pub(super) fn read(releases: &Parent, name: &str) -> Option<Manifest> {
    let mut bytes = Vec::new();
    releases.read(file_name(name).as_ref()).ok()?.read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

pub(super) fn write(releases: &Parent, name: &str, manifest: &Manifest) -> Result<()> {
    let (file_name, temporary) = (file_name(name), format!(".staging-{name}.json"));
    let path = releases.path().join(&temporary);
    let bytes =
        serde_json::to_vec(manifest).map_err(|error| Error::deploy("write the manifest").at(&path).caused_by(error))?;
    // Left by an attempt that was interrupted, or put there by somebody: nothing is written through it.
    releases.remove_all(temporary.as_ref())?;
    let mut file = releases.create(temporary.as_ref())?;
    file.write_all(&bytes).doing("write", &path)?;
    releases.rename(temporary.as_ref(), file_name.as_ref())
}
