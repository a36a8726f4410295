//! Asking a remote where references point, and nothing more.

use std::path::Path;

use git2::{Odb, Repository};

use super::resolve::{Target, resolve};
use super::{Access, Check, Failure, FailureKind, Found, Reply, Wanted, checkout, mirror};
use crate::source::git::transport::{self, RemoteRef};

/// For a remote with which no repository on disk has to do.
pub(super) fn look(access: &Access, wanted: &[Wanted]) -> Result<Reply, Failure> {
    let none = Odb::new().and_then(Repository::from_odb);
    let none =
        none.map_err(|e| Failure::new(FailureKind::Other, format_args!("ask {}: {}", access.url, e.message())))?;
    found(access, &none, wanted)
}

/// For the remote of a clone.
pub(super) fn ask(check: &Check, aside: &Path) -> Result<Reply, Failure> {
    let check = checkout::as_cloned(check)?;
    let repository = mirror::make(aside).map_err(|e| Failure::local(aside, &e))?;
    found(&check.access, &repository, &check.wanted)
}

fn found(access: &Access, repository: &Repository, wanted: &[Wanted]) -> Result<Reply, Failure> {
    let refs = transport::open(access, repository)?.list()?;
    Ok(Reply::Checked { found: among(&refs, wanted), renewed: None })
}

/// Where each of `wanted` is, given what the remote announced.
pub(super) fn among(refs: &[RemoteRef], wanted: &[Wanted]) -> Vec<Found> {
    let found = wanted.iter().map(|wanted| match resolve(wanted.reference.as_deref(), refs) {
        Ok(Target::Named { commit, branch, is_branch, .. }) => {
            Found::At { commit: commit.to_string(), branch, is_branch }
        }
        Ok(Target::Commit { commit, .. }) => Found::At { commit: commit.to_string(), branch: None, is_branch: false },
        Err(reason) => Found::Missing { reason },
    });
    found.collect()
}
