//! Repositories that libgit2 does not read, each with the way out.

use std::path::Path;

use git2::{ErrorCode, Repository};

use crate::error::{Error, ErrorKind, Result};

/// The error of a repository that cannot be opened; names the way out where there is one. Transient, because the way out is
/// somebody's to go.
pub(crate) fn cannot_open(path: &Path, cause: git2::Error) -> Error {
    let action = match cause.code() {
        ErrorCode::Owner => {
            // libgit2 names the directory in quotation marks; it may be one above `path`.
            let owned = cause.message().split('\'').nth(1).map_or_else(|| path.display().to_string(), str::to_owned);
            format!(
                "open a git repository that belongs to somebody else: if its owner is trusted, run `git config --global --add \
                 safe.directory {}` as the user that the daemon runs as:",
                owned.trim_end_matches('/')
            )
        }
        _ => way_out(cause.message()).unwrap_or("open the git repository of").to_owned(),
    };
    Error::new(ErrorKind::Git, action).at(path).caused_by(cause).transient()
}

/// Looks whether the index can be read.
///
/// # Errors
/// It cannot; the message names the way out.
pub(super) fn check_index(repository: &Repository) -> Result<()> {
    repository.index().and_then(|mut index| index.read(false)).map_err(|cause| {
        let action = way_out(cause.message()).unwrap_or("read the git index of");
        Error::new(ErrorKind::Git, action).at(repository.path()).caused_by(cause).transient()
    })
}

/// What to do about what libgit2 complains of, to be read before the path.
fn way_out(message: &str) -> Option<&'static str> {
    // libgit2 has no codes for these. Its words are held by the tests.
    let known = [
        (
            "unknown object format",
            "read a git repository with SHA-256 ids, of which libgit2 knows nothing: use one with SHA-1 ids instead of",
        ),
        (
            "refstorage",
            "read a git repository that keeps its references as a reftable, of which libgit2 knows nothing: run `git refs \
             migrate --ref-format=files` in",
        ),
        (
            "mandatory extension: 'link'",
            "read a split git index, of which libgit2 knows nothing: run `git config core.splitIndex false` and `git \
             update-index --no-split-index` in",
        ),
        (
            "mandatory extension: 'sdir'",
            "read a sparse git index, of which libgit2 knows nothing: run `git sparse-checkout reapply --no-sparse-index` in",
        ),
    ];
    known.iter().find(|(words, _)| message.contains(words)).map(|(_, action)| *action)
}
