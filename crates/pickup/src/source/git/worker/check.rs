//! Asking a remote where references point, and fetching what is not there.

use git2::{Oid, Repository};

use super::resolve::{Target, resolve};
use super::{Check, Failure, FailureKind, Found, Shape};
use crate::source::git::transport::{self, RemoteRef, Report, Transport, failed};

/// A wanted reference, while it is followed.
struct Followed {
    target: Target,
    /// Our own reference that keeps it.
    local: String,
}

/// Where each wanted reference of `check` is; all that are found are in `repository` then.
pub(super) fn follow(check: &Check, repository: &Repository, report: Report<'_>) -> Result<Vec<Found>, Failure> {
    let mut transport = transport::open(&check.access, repository)?;
    let refs = transport.list()?;
    let wanted = check.wanted.iter().map(|wanted| resolve(wanted.reference.as_deref(), &refs));
    let followed: Vec<Result<Followed, String>> = wanted
        .map(|target| target.map(|target| Followed { local: local_name(check.shape, &target), target }))
        .collect();
    let work = Work { check, repository, refs: &refs };
    work.fetch(transport.as_mut(), followed.iter().flatten(), report)?;
    followed
        .into_iter()
        .map(|followed| match followed {
            Ok(followed) => work.found(transport.as_mut(), &followed, report),
            Err(reason) => Ok(Found::Missing { reason }),
        })
        .collect()
}

/// Under which name we keep what the remote calls otherwise.
fn local_name(shape: Shape, target: &Target) -> String {
    match (target, shape) {
        (Target::Commit { commit, .. }, Shape::Mirror | Shape::Clone) => format!("refs/pickup/commits/{commit}"),
        (Target::Named { name, .. }, _) if name == "HEAD" => "refs/pickup/head".to_owned(),
        (Target::Named { name, .. }, Shape::Mirror) => name.clone(),
        (Target::Named { name, .. }, Shape::Clone) => match name.strip_prefix("refs/heads/") {
            Some(branch) => format!("refs/remotes/origin/{branch}"),
            None if name.starts_with("refs/tags/") => name.clone(),
            None => format!("refs/pickup/{}", name.trim_start_matches("refs/")),
        },
    }
}

/// What a check works with.
struct Work<'a> {
    check: &'a Check,
    repository: &'a Repository,
    refs: &'a [RemoteRef],
}

impl Work<'_> {
    /// Fetches what is announced and not here; what is here needs only its reference moved.
    fn fetch<'f>(
        &self,
        transport: &mut dyn Transport,
        followed: impl Iterator<Item = &'f Followed>,
        report: Report<'_>,
    ) -> Result<(), Failure> {
        // References that are followed already go on from where they are: cutting their history at the depth again would
        // hide whether a branch moved forward.
        let (mut known, mut new) = (Vec::new(), Vec::new());
        for Followed { target, local } in followed {
            let (name, object, commit) = match target {
                Target::Named { name, object, commit, .. } => (name, *object, *commit),
                Target::Commit { commit, announced: Some(name) } => (name, *commit, *commit),
                Target::Commit { announced: None, .. } => continue,
            };
            self.clear_way(local)?;
            if self.has(object) && self.is_whole(commit) {
                self.point(local, object)?;
                continue;
            }
            let specs = if self.repository.refname_to_id(local).is_ok() { &mut known } else { &mut new };
            let spec = format!("+{name}:{local}");
            if !specs.contains(&spec) {
                specs.push(spec);
            }
        }
        for (specs, depth) in [(known, 0), (new, self.check.depth)] {
            if !specs.is_empty() {
                transport.fetch(&specs, depth, report)?;
                self.refresh()?;
            }
        }
        Ok(())
    }

    /// Looks whether what was wanted is really here: a fetch of what the remote does not have succeeds.
    fn found(&self, transport: &mut dyn Transport, followed: &Followed, report: Report<'_>) -> Result<Found, Failure> {
        match &followed.target {
            Target::Commit { commit, .. } => self.found_commit(transport, *commit, &followed.local, report),
            Target::Named { name, branch, is_branch, .. } => {
                // What was fetched may be newer than what was announced before.
                let object = self.repository.find_reference(&followed.local).and_then(|reference| reference.resolve());
                let Ok(object) = object else {
                    let why = format!("it announces {name} and does not send it");
                    return Err(failed(&self.check.access, FailureKind::Unreachable, why));
                };
                match object.peel_to_commit() {
                    Ok(commit) => {
                        Ok(Found::At { commit: commit.id().to_string(), branch: branch.clone(), is_branch: *is_branch })
                    }
                    Err(_) => Ok(Found::Missing { reason: format!("`{name}` of the remote leads to no commit") }),
                }
            }
        }
    }

    fn found_commit(
        &self,
        transport: &mut dyn Transport,
        commit: Oid,
        local: &str,
        report: Report<'_>,
    ) -> Result<Found, Failure> {
        if !self.is_whole(commit) {
            self.fetch_commit(transport, commit, local, report)?;
        }
        // The id may be that of a tag.
        let object = self.repository.find_object(commit, None).and_then(|object| object.peel_to_commit());
        let Ok(found) = object else {
            let reason = format!("no branch or tag of the remote leads to the commit {commit}");
            return Ok(Found::Missing { reason });
        };
        self.point(local, commit)?;
        Ok(Found::At { commit: found.id().to_string(), branch: None, is_branch: false })
    }

    /// Asks for the commit by its id, which not every server grants; then for everything it could be in.
    fn fetch_commit(
        &self,
        transport: &mut dyn Transport,
        commit: Oid,
        local: &str,
        report: Report<'_>,
    ) -> Result<(), Failure> {
        let spec = format!("+{commit}:{local}");
        match transport.fetch(&[spec], self.check.depth, report) {
            Ok(()) => self.refresh()?,
            Err(failure) => match failure.kind {
                FailureKind::NotFound | FailureKind::Unreachable | FailureKind::Other | FailureKind::Unsupported => {}
                FailureKind::Authentication
                | FailureKind::HostKey
                | FailureKind::Timeout
                | FailureKind::TooLarge
                | FailureKind::Refused
                | FailureKind::Busy => return Err(failure),
            },
        }
        if self.is_whole(commit) || self.refs.is_empty() {
            return Ok(());
        }
        let (heads, tags) = match self.check.shape {
            Shape::Mirror => ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"),
            // Tags are names of the user's own as well; those that are only looked through stay out of their way.
            Shape::Clone => ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/pickup/tags/*"),
        };
        transport.fetch(&[heads.to_owned(), tags.to_owned()], 0, report)?;
        self.refresh()
    }

    fn has(&self, object: Oid) -> bool {
        self.repository.odb().is_ok_and(|odb| odb.exists(object))
    }

    /// Whether the commit, and the tree at its top, can be read.
    fn is_whole(&self, commit: Oid) -> bool {
        self.repository.find_commit(commit).and_then(|commit| commit.tree()).is_ok()
    }

    fn point(&self, local: &str, object: Oid) -> Result<(), Failure> {
        if self.repository.refname_to_id(local).ok() == Some(object) {
            return Ok(());
        }
        let done = self.repository.reference(local, object, true, "pickup: fetch");
        done.map(drop).map_err(|e| self.local(&e))
    }

    /// Removes references of ours that are in the way of `local`: where `a` was a branch, `a/b` cannot be one, and the
    /// remote, which has `a/b`, cannot have `a` any more.
    fn clear_way(&self, local: &str) -> Result<(), Failure> {
        if self.check.shape == Shape::Clone && local.starts_with("refs/tags/") {
            return Ok(());
        }
        let mut in_the_way = Vec::new();
        for (at, _) in local.match_indices('/').skip(1) {
            in_the_way.extend(self.repository.find_reference(&local[..at]).ok());
        }
        if let Ok(below) = self.repository.references_glob(&format!("{local}/*")) {
            in_the_way.extend(below.flatten());
        }
        for mut reference in in_the_way {
            reference.delete().map_err(|e| self.local(&e))?;
        }
        Ok(())
    }

    /// The `git` program may have brought packs that libgit2 does not know of.
    fn refresh(&self) -> Result<(), Failure> {
        self.repository.odb().and_then(|odb| odb.refresh()).map_err(|e| self.local(&e))
    }

    fn local(&self, error: &git2::Error) -> Failure {
        Failure::local(self.repository.path(), error)
    }
}
