//! Large blobs, written to files without passing through the daemon's memory.
#![expect(clippy::disallowed_methods, reason = "this is the door to exported files")]

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use git2::{Oid, Repository};

use super::{Failure, FailureKind};

pub(super) fn export(repository: &Path, blobs: &[(String, PathBuf)]) -> Result<(), Failure> {
    let opened = Repository::open(repository).map_err(|e| Failure::local(repository, &e))?;
    for (id, path) in blobs {
        let blob = Oid::from_str(id).and_then(|id| opened.find_blob(id)).map_err(|e| {
            let why = format!("read the object {id} of {}: {}", repository.display(), e.message());
            Failure::new(FailureKind::Other, why)
        })?;
        write(path, blob.content()).map_err(|e| Failure::io("write", path, &e))?;
    }
    Ok(())
}

/// Writes a file that must not exist; a half one does not stay.
fn write(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content).inspect_err(|_| {
        let _removed = std::fs::remove_file(path);
    })
}
