//! Asking a remote where references point, and nothing more.

use std::path::Path;

use super::resolve::{Target, resolve};
use super::{Check, Failure, Found, Reply, checkout, mirror};
use crate::source::git::transport;

pub(super) fn ask(check: &Check, aside: &Path) -> Result<Reply, Failure> {
    let check = checkout::as_cloned(check)?;
    let repository = mirror::make(aside).map_err(|e| Failure::local(aside, &e))?;
    let refs = transport::open(&check.access, &repository)?.list()?;
    let found = check.wanted.iter().map(|wanted| match resolve(wanted.reference.as_deref(), &refs) {
        Ok(Target::Named { commit, branch, is_branch, .. }) => {
            Found::At { commit: commit.to_string(), branch, is_branch }
        }
        Ok(Target::Commit { commit, .. }) => Found::At { commit: commit.to_string(), branch: None, is_branch: false },
        Err(reason) => Found::Missing { reason },
    });
    Ok(Reply::Checked { found: found.collect(), renewed: None })
}
