//! The commits of one pickup: from where a repository stands to a change set that is ready to be planned.
//!
//! A mirror stands where its remote did at the last check. A clone stands where its `HEAD` does, once git is at rest there:
//! until then nothing of it is deployed, so that one pull is one change set, whoever pulls.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::pickup::Pickup;
use super::source::{Checked, Failed, Following};
use super::{Repositories, repository};
use crate::config::GitConfig;
use crate::error::Result;
use crate::event::EventKind;
use crate::journal::Followed;
use crate::path::UnitPath;
use crate::source::git::barrier::Clone as GitClone;
use crate::source::git::worker::{FailureKind, Found, condemn};
use crate::source::git::{GitProblem, Revision};

/// How soon a repository that could not be read is looked at again.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A wait that is longer than this is somebody's work in progress, and not waited for by `sync`.
const SHORT_WAIT: Duration = Duration::from_millis(900);

/// How long a `sync` waits for git to be at rest.
const PATIENCE: Duration = Duration::from_secs(5);
/// How seldom a repository is looked at in which git has been at work for long.
const LOOK_SELDOM: Duration = Duration::from_secs(1);

/// A root that is a git repository, and how far its commits have come.
pub(in super::super) struct Follow {
    /// What was asked for; the defaults for a clone that only lies there.
    pub git: GitConfig,
    /// Who asks the remote; nobody does for a clone that is pulled by hand.
    pub following: Option<Following>,
    /// The working tree, if there is one.
    pub clone: Option<GitClone>,
    /// Where the objects of a mirror are.
    pub(super) mirror: PathBuf,
    /// Tells apart what was followed before the configuration changed.
    pub(super) origin: String,
    /// The commit whose files are what is known.
    pub seen: Option<Revision>,
    pub(super) is_unsaved: bool,
    /// Where the repository stands.
    pub(super) target: Option<(String, Option<String>, bool)>,
    /// The commit that is being brought in.
    pub(super) importing: Option<String>,
    /// What commits changed that no change set holds yet; `None` if no commit waits.
    pub(super) ready: Option<BTreeSet<UnitPath>>,
    /// Git is at work in the clone: how, and when to look again.
    pub waiting: Option<(String, Instant)>,
    /// Since when.
    pub(super) waiting_since: Option<Instant>,
    /// Whether it may take long: then nobody waits for it.
    pub(super) is_long: bool,
    /// Whether something was heard of since the last look.
    pub(super) is_told: bool,
    /// Why the remote cannot be asked.
    pub(super) unreachable: Option<GitProblem>,
    /// Why the commit that it leads to cannot be brought in.
    pub(super) unusable: Option<GitProblem>,
    pub(super) again: Option<Instant>,
    /// The commit that cannot be deployed as it is: only another one is tried by itself.
    pub(super) refused: Option<String>,
    /// The check that somebody waits for, and the last one that came.
    pub(super) awaited: u64,
    pub(super) covered: u64,
}

/// What of a repository fails.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Remote,
    Commit,
}

impl Follow {
    pub(super) fn new(git: GitConfig, following: Option<Following>, mirror: PathBuf) -> Self {
        let origin =
            format!("{:?} {:?}", git.url.as_ref().map(|url| blake3::hash(url.expose().as_bytes())), git.subdir);
        Self {
            git,
            following,
            clone: None,
            mirror,
            origin: blake3::hash(origin.as_bytes()).to_hex()[..16].to_owned(),
            seen: None,
            is_unsaved: false,
            target: None,
            importing: None,
            ready: None,
            waiting: None,
            waiting_since: None,
            is_long: false,
            is_told: true,
            unreachable: None,
            unusable: None,
            again: None,
            refused: None,
            awaited: 0,
            covered: 0,
        }
    }

    /// Of a clone that only lies there: nobody asked for git.
    pub(super) fn unasked() -> Self {
        Self::new(GitConfig::default(), None, PathBuf::new())
    }

    pub(in super::super) fn is_mirror(&self) -> bool {
        !self.mirror.as_os_str().is_empty()
    }

    /// Whether nothing of the root may be deployed now.
    fn is_blocked(&self) -> bool {
        self.waiting.is_some() || (!self.is_mirror() && (self.importing.is_some() || self.is_behind()))
    }

    /// A mirror that could not be read twice is made anew.
    pub(super) fn renew(&mut self, why: &str) {
        if self.unusable.is_none() || !self.is_mirror() {
            return;
        }
        if let Err(error) = condemn(&self.mirror, why) {
            tracing::warn!(mirror = %self.mirror.display(), %error, "cannot mark the mirror as damaged");
        } else if let Some(following) = &self.following {
            following.ask();
        }
    }

    /// Why it is not followed, if it is not.
    pub(in super::super) fn problem(&self) -> Option<&GitProblem> {
        self.unusable.as_ref().or(self.unreachable.as_ref())
    }

    fn problem_mut(&mut self, side: Side) -> &mut Option<GitProblem> {
        match side {
            Side::Remote => &mut self.unreachable,
            Side::Commit => &mut self.unusable,
        }
    }

    /// Whether a commit is about to be brought in.
    fn is_coming(&self) -> bool {
        self.importing.is_some() || (self.is_behind() && self.unusable.is_none())
    }

    pub(super) fn is_behind(&self) -> bool {
        self.target.as_ref().is_some_and(|(commit, ..)| self.seen.as_ref().is_none_or(|seen| seen.commit != *commit))
    }
}

impl Pickup {
    /// Joins those who follow the remote of this entry, if it has one.
    pub(in super::super) fn follow_remote(&mut self) {
        let Some(git) = self.config.git.as_deref().cloned() else { return };
        let is_mirror = self.config.pickup_from.is_empty();
        let is_asked = git.url.is_some() || git.auto_checkout;
        let following = is_asked.then(|| Repositories::follow(&self.shared, &self.config, &git, &self.inbox));
        let mirror = if is_mirror { repository(&self.shared, &self.config, &git) } else { PathBuf::new() };
        self.follows.insert(0, Follow::new(git, following, mirror));
    }

    /// What the journal knows of the commits that were followed.
    pub(in super::super) fn load_followed(&mut self) -> Result<()> {
        let followed = self.shared.journal().followed(&self.config.name)?;
        self.live_revision = self.shared.journal().live_revision(&self.config.name)?;
        for Followed { root, origin, revision } in followed {
            if root >= self.roots.len() {
                continue;
            }
            // For a clone it is found out only when it is looked at.
            let follow = self.follows.entry(root).or_insert_with(Follow::unasked);
            if follow.origin == origin {
                follow.seen = Some(revision);
            }
        }
        Ok(())
    }

    /// What the journal is to be told of the commits that are followed.
    pub(in super::super) fn followed(&mut self) -> Vec<Followed> {
        let unsaved = self.follows.iter_mut().filter(|(_, follow)| follow.is_unsaved);
        unsaved
            .filter_map(|(root, follow)| {
                let (origin, revision) = (follow.origin.clone(), follow.seen.clone()?);
                Some(Followed { root: *root, origin, revision })
            })
            .collect()
    }

    pub(in super::super) fn followed_saved(&mut self) {
        self.follows.values_mut().for_each(|follow| follow.is_unsaved = false);
    }

    /// The repository of a root may have changed.
    pub(in super::super) fn told_of_repository(&mut self, root: usize) {
        if let Some(follow) = self.follows.get_mut(&root) {
            follow.is_told = true;
        }
    }

    /// Whether a change set may not begin because git is at work.
    pub(in super::super) fn is_git_blocked(&self) -> bool {
        self.follows.values().any(Follow::is_blocked)
    }

    /// Whether a commit is on its way that is worth waiting for.
    pub(in super::super) fn is_commit_coming(&self) -> bool {
        self.follows.values().any(|follow| {
            let is_waiting = follow.waiting.is_some() && !follow.is_long;
            let is_blocked = self.held.is_some() || self.pause_until.is_some();
            is_waiting
                || follow.is_coming()
                || follow.awaited > follow.covered
                || (follow.ready.is_some() && !is_blocked)
        })
    }

    /// Whether there is more to hear of where a repository stands, or of a commit.
    pub(in super::super) fn is_repository_awaited(&self) -> bool {
        self.follows.values().any(|follow| {
            let is_waiting = follow.waiting.is_some() && !follow.is_long;
            is_waiting || follow.is_coming() || follow.awaited > follow.covered
        })
    }

    pub(in super::super) fn next_git_deadline(&self) -> Option<Instant> {
        let waits = self.follows.values().filter_map(|follow| follow.waiting.as_ref().map(|(_, again)| *again));
        let agains = self.follows.values().filter_map(|follow| follow.again);
        waits.chain(agains).min()
    }

    /// Asks the remote now, for a `sync`.
    pub(in super::super) fn ask_remote(&mut self) {
        for follow in self.follows.values_mut() {
            if let Some(following) = &follow.following {
                follow.awaited = following.ask();
            }
            follow.is_told = true;
            follow.refused = None;
        }
    }

    /// Looks where the clones stand, and brings in what is new.
    pub(in super::super) fn look_at_repositories(&mut self, now: Instant) {
        for root in 0..self.roots.len() {
            self.seek_clone(now, root);
        }
        let roots: Vec<usize> = self.follows.keys().copied().collect();
        for root in roots {
            self.look_at_clone(now, root);
            self.bring_in(now, root);
        }
    }

    /// What a check of the remote came to.
    pub(in super::super) fn checked(&mut self, now: Instant, checked: Checked) {
        let Some(follow) = self.follows.get_mut(&0) else { return };
        follow.covered = follow.covered.max(checked.covers);
        follow.is_told = true;
        match checked.result {
            Ok(Found::At { commit, branch, is_branch }) => {
                if follow.is_mirror() {
                    follow.target = Some((commit, branch, is_branch));
                    follow.again = None;
                }
                self.git_healed(0, Side::Remote);
            }
            Ok(Found::Missing { reason }) => self.git_failed(0, Side::Remote, &reason, 1, None),
            Err(Failed { failure, attempts, retry_in }) => {
                let cause = match failure.kind {
                    FailureKind::Unsupported => {
                        format!("read the repository with git_transport = \"libgit2\": {}", failure.message)
                    }
                    _ => failure.message,
                };
                self.git_failed(0, Side::Remote, &cause, attempts, retry_in);
            }
        }
        self.bring_in(now, 0);
    }

    pub(super) fn git_failed(
        &mut self,
        root: usize,
        side: Side,
        cause: &str,
        attempts: u32,
        retry_in: Option<Duration>,
    ) {
        let at = self.shared.now_ms();
        let Some(follow) = self.follows.get_mut(&root) else { return };
        let problem = follow.problem_mut(side);
        let is_new = problem.as_ref().is_none_or(|problem| problem.cause != cause);
        *problem = Some(GitProblem { at, cause: cause.into(), attempts });
        self.last_error = Some((at, cause.into()));
        if is_new {
            let retry_in = retry_in.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
            tracing::warn!(
                pickup = self.config.name,
                cause,
                retry_in_ms = retry_in,
                "cannot follow the repository; what is live stays"
            );
            self.shared.publish(&self.config.name, EventKind::CheckFailed { cause: cause.into(), retry_in });
        }
    }

    pub(super) fn git_healed(&mut self, root: usize, side: Side) {
        let Some(follow) = self.follows.get_mut(&root) else { return };
        if follow.problem_mut(side).take().is_some() {
            tracing::info!(pickup = self.config.name, "the repository can be followed again");
            self.shared.publish(&self.config.name, EventKind::CheckHealed);
        }
    }
}

impl Follow {
    pub(super) fn wait(&mut self, reason: String, now: Instant, again_in: Duration) {
        let since = *self.waiting_since.get_or_insert(now);
        let waited = now.saturating_duration_since(since);
        self.is_long = again_in > SHORT_WAIT || waited > PATIENCE;
        // An event tells of its end; who waits long looks seldom.
        let again_in = again_in.max((waited / 4).min(LOOK_SELDOM));
        self.waiting = Some((reason, now + again_in));
    }

    /// Git is at rest.
    pub(super) fn rested(&mut self) {
        self.waiting = None;
        self.waiting_since = None;
        self.is_long = false;
    }
}
