//! The repositories of a pickup that rehearses: a mirror of its own, and a clone that is only looked at.

use super::super::pickup::Pickup;
use super::super::planned::PlannedCommit;
use super::commits::Follow;
use super::{Repositories, access, repository};
use crate::error::{Error, ErrorKind, Result};
use crate::source::git::worker::{Check, Failure, Found, Reply, Request, Shape, Wanted};
use crate::source::git::{Revision, peek, seed};

impl Pickup {
    /// Follows the remote of a mirror, in a copy of it that shares its objects. That of a clone is followed by nobody.
    pub(in super::super) fn follow_aside(&mut self) -> Result<()> {
        let Some(git) = self.config.git.as_deref().cloned() else { return Ok(()) };
        if !self.config.pickup_from.is_empty() {
            self.follows.insert(0, Follow::new(git, None, std::path::PathBuf::new()));
            return Ok(());
        }
        let copy = repository(&self.shared, &self.config, &git);
        if let Some(real) = self.real_mirror() {
            seed::seed(&real, &copy).map_err(|error| Error::io("copy the references of", real, error))?;
        }
        let following = Repositories::follow(&self.shared, &self.config, &git, &self.inbox);
        self.follows.insert(0, Follow::new(git, Some(following), copy));
        Ok(())
    }

    /// Where the mirror lies that an engine follows.
    fn real_mirror(&self) -> Option<std::path::PathBuf> {
        let git = self.config.git.as_deref()?;
        let copy = repository(&self.shared, &self.config, git);
        Some(self.shared.real_dir.join(copy.strip_prefix(&self.shared.state_dir).ok()?))
    }

    /// How far the commits of each root have come.
    pub(in super::super) fn commits_seen(&self) -> Vec<(usize, Option<Revision>)> {
        self.follows.iter().map(|(root, follow)| (*root, follow.seen.clone())).collect()
    }

    pub(in super::super) fn remember_commits(&mut self, seen: Vec<(usize, Option<Revision>)>) {
        for (root, revision) in seen {
            self.follows.entry(root).or_insert_with(Follow::unasked).seen = revision;
        }
    }

    /// Which commit a plan is about, with what is wrong with its remote.
    pub(in super::super) fn planned_commit(&self) -> (Option<PlannedCommit>, Option<String>) {
        let Some(follow) = self.follows.values().next() else { return (None, None) };
        let mut trouble = follow.problem().map(|problem| problem.cause.clone());
        let mut planned = PlannedCommit {
            commit: follow.seen.clone(),
            live: self.live_revision.clone(),
            needs_fetch: false,
            remote_at: None,
        };
        if follow.is_mirror() {
            let seen = follow.seen.as_ref();
            planned.needs_fetch = seen
                .is_some_and(|seen| self.real_mirror().is_none_or(|mirror| !peek::has_commit(&mirror, &seen.commit)));
        } else if follow.git.url.is_some() || follow.git.auto_checkout {
            match self.ask_beside() {
                Ok(Found::At { commit, .. }) => {
                    let clone = &self.config.pickup_from[0];
                    let head = peek::head(clone);
                    planned.needs_fetch = !peek::has_commit(clone, &commit);
                    planned.remote_at = (head.as_ref() != Some(&commit)).then_some(commit);
                }
                Ok(Found::Missing { reason }) => trouble = trouble.or(Some(reason)),
                Err(failure) => trouble = trouble.or(Some(failure.message)),
            }
        }
        (Some(planned), trouble)
    }

    /// Asks the remote of the clone where it is, and fetches nothing.
    fn ask_beside(&self) -> std::result::Result<Found, Failure> {
        let broken = |error: &dyn std::fmt::Display| {
            Failure::new(crate::source::git::worker::FailureKind::Other, format_args!("ask the remote: {error}"))
        };
        let git = self.config.git.as_deref().ok_or_else(|| broken(&"it has none"))?;
        let clone = repository(&self.shared, &self.config, git);
        let reference = match &git.reference {
            Some(reference) => Some(reference.clone()),
            None => peek::checked_out(&clone)?,
        };
        let check = Check {
            access: access(git),
            repository: clone,
            shape: Shape::Clone,
            depth: git.depth,
            wanted: vec![Wanted { reference }],
        };
        let request = Request::Ask { check, aside: self.shared.state_dir.join("asked.git") };
        let work = self.shared.git.worker.run(&request, git.timeout, &self.shared.cancel, |_| {});
        match self.shared.runtime.block_on(work)? {
            Reply::Checked { found, .. } => {
                let none = || broken(&Error::new(ErrorKind::Git, "understand the git worker"));
                found.into_iter().next().ok_or_else(none)
            }
            Reply::Failed(failure) => Err(failure),
            Reply::Surveyed { .. } | Reply::Advanced | Reply::Exported | Reply::Repacked => {
                Err(broken(&"the git worker answers nonsense"))
            }
        }
    }
}
