//! The commits of one pickup: from where a repository stands to a change set that is ready to be planned.
//!
//! A mirror stands where its remote did at the last check. A clone stands where its `HEAD` does, once git is at rest there:
//! until then nothing of it is deployed, so that one pull is one change set, whoever pulls.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::pickup::{Known, Pickup};
use super::checks::{Checked, Failed, Following};
use super::import::{Delivery, Order, short};
use super::{Repositories, repository};
use crate::capture::{CapturedFile, Digest};
use crate::config::GitConfig;
use crate::error::{Error, Result};
use crate::event::EventKind;
use crate::journal::Followed;
use crate::path::UnitPath;
use crate::source::git::barrier::{Clone as GitClone, Rest};
use crate::source::git::import::Imported;
use crate::source::git::listing::Terms;
use crate::source::git::worker::{FailureKind, Found};
use crate::source::git::{GitProblem, Revision};
use crate::source::watch::Target;
use crate::source::{Fingerprint, Hint, Place};

/// How soon a repository that could not be read is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A wait that is longer than this is somebody's work in progress, and not waited for by `sync`.
const SHORT_WAIT: Duration = Duration::from_millis(900);

/// A root that is a git repository, and how far its commits have come.
pub(in super::super) struct Follow {
    /// What was asked for; the defaults for a clone that only lies there.
    pub git: GitConfig,
    /// Who asks the remote; nobody does for a clone that is pulled by hand.
    pub following: Option<Following>,
    /// The working tree, if there is one.
    pub clone: Option<GitClone>,
    /// Where the objects of a mirror are.
    mirror: PathBuf,
    /// Tells apart what was followed before the configuration changed.
    origin: String,
    /// The commit whose files are what is known.
    pub seen: Option<Revision>,
    is_unsaved: bool,
    /// Where the repository stands.
    target: Option<(String, Option<String>, bool)>,
    /// The commit that is being brought in.
    importing: Option<String>,
    /// What commits changed that no change set holds yet; `None` if no commit waits.
    ready: Option<BTreeSet<UnitPath>>,
    /// Git is at work in the clone: how, and when to look again.
    pub waiting: Option<(String, Instant)>,
    is_long: bool,
    /// Whether something was heard of since the last look.
    is_told: bool,
    /// Why the remote cannot be asked.
    unreachable: Option<GitProblem>,
    /// Why the commit that it leads to cannot be brought in.
    unusable: Option<GitProblem>,
    again: Option<Instant>,
    /// The commit that cannot be deployed as it is: only another one is tried by itself.
    refused: Option<String>,
    /// The check that somebody waits for, and the last one that came.
    awaited: u64,
    covered: u64,
}

/// What of a repository fails.
#[derive(Clone, Copy)]
enum Side {
    Remote,
    Commit,
}

impl Follow {
    fn new(git: GitConfig, following: Option<Following>, mirror: PathBuf) -> Self {
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

    pub(in super::super) fn is_mirror(&self) -> bool {
        !self.mirror.as_os_str().is_empty()
    }

    /// Whether nothing of the root may be deployed now.
    fn is_blocked(&self) -> bool {
        self.waiting.is_some() || (!self.is_mirror() && (self.importing.is_some() || self.is_behind()))
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

    fn is_behind(&self) -> bool {
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
            let follow =
                self.follows.entry(root).or_insert_with(|| Follow::new(GitConfig::default(), None, PathBuf::new()));
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

    /// Another directory lies at a root: whether it is a clone has to be found out.
    pub(in super::super) fn forget_clone(&mut self, root: usize) {
        self.sought.remove(&root);
        if let Some(follow) = self.follows.get_mut(&root) {
            follow.clone = None;
            follow.waiting = None;
            follow.target = follow.target.take().filter(|_| follow.is_mirror());
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

    /// Finds out whether a root lies in a clone.
    fn seek_clone(&mut self, now: Instant, root: usize) {
        let Some(real) = self.roots[root].real().cloned() else { return };
        if !self.sought.insert(root) {
            return;
        }
        let found = match GitClone::find(&real) {
            Ok(Some(clone)) => clone,
            Ok(None) => return,
            Err(error) => return self.cannot_read(now, root, &error),
        };
        let watched = found.watched().into_iter().map(|directory| (directory, Target::Repository { root }));
        let watched: Vec<_> = watched.collect();
        if self.is_watching() {
            // What cannot be watched is looked at before each change set all the same.
            let _ = self.shared.watcher.watch(self.subscriber, &watched);
        }
        let follow =
            self.follows.entry(root).or_insert_with(|| Follow::new(GitConfig::default(), None, PathBuf::new()));
        follow.clone = Some(found);
        follow.is_told = true;
    }

    fn cannot_read(&mut self, now: Instant, root: usize, error: &Error) {
        match self.follows.get_mut(&root) {
            // Nobody asked for git here: the ordinary rules for files hold.
            None => {
                let directory = self.roots[root].path.display().to_string();
                tracing::info!(pickup = self.config.name, directory, %error, "not followed as a git clone");
            }
            Some(follow) => {
                follow.again = Some(now + LOOK_AGAIN);
                self.sought.remove(&root);
                self.git_failed(root, Side::Commit, &error.to_string(), 1, None);
            }
        }
    }

    /// Whether git is at rest in the clone, and where it stands then.
    fn look_at_clone(&mut self, now: Instant, root: usize) {
        let has_changes = self.gathering.len() > 0;
        let Some(follow) = self.follows.get_mut(&root) else { return };
        let is_due = follow.waiting.as_ref().is_some_and(|(_, again)| *again <= now)
            || follow.again.is_some_and(|again| again <= now);
        if !(follow.is_told || is_due || has_changes) {
            return;
        }
        follow.is_told = false;
        let Some(clone) = &mut follow.clone else { return };
        follow.again = None;
        if self.shared.git.is_pulled(clone.git_dir()) {
            return follow.wait("it is being pulled".into(), now, Duration::from_millis(20));
        }
        let wall = (self.shared.clock.wall)();
        let rest = clone.rest(wall, &mut |path| self.probe.writer(path));
        match rest {
            Ok(Rest::Busy { reason, again_in }) => follow.wait(reason, now, again_in),
            Ok(Rest::At { commit, branch }) => {
                follow.waiting = None;
                follow.target = commit.map(|commit| (commit, branch, false));
            }
            Err(error) => {
                follow.again = Some(now + LOOK_AGAIN);
                let error = error.to_string();
                self.git_failed(root, Side::Commit, &error, 1, None);
            }
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

    /// Brings in the commit that the repository stands at, unless it is known.
    fn bring_in(&mut self, now: Instant, root: usize) {
        let Some(follow) = self.follows.get_mut(&root) else { return };
        let is_early = follow.again.is_some_and(|again| again > now);
        if follow.importing.is_some() || follow.waiting.is_some() || is_early || !follow.is_behind() {
            return;
        }
        let Some((to, branch, is_branch)) = follow.target.clone() else { return };
        if follow.refused.as_ref() == Some(&to) {
            return;
        }
        let subdir = match &follow.clone {
            Some(clone) => clone.prefix(),
            None => follow.git.subdir.as_ref().and_then(UnitPath::new),
        };
        let terms = Terms {
            subdir,
            symlinks: self.config.symlinks,
            allow: follow.git.allow.clone(),
            files_max: follow.git.files_max,
            size_max: follow.git.size_max,
        };
        let seen = follow.seen.as_ref();
        let same_branch = seen.filter(|seen| is_branch && seen.branch == branch);
        let descends_from = same_branch.filter(|_| follow.git.fast_forward_only).map(|seen| seen.commit.clone());
        let known = self.known.range(Place { root, path: UnitPath::root() }..);
        let known = known.take_while(|(place, _)| place.root == root);
        let order = Order {
            shared: self.shared.clone(),
            config: self.config.clone(),
            inbox: self.inbox.clone(),
            root,
            git_dir: follow.clone.as_ref().map_or(follow.mirror.clone(), |clone| clone.git_dir().to_path_buf()),
            terms,
            from: seen.map(|seen| seen.commit.clone()),
            to: to.clone(),
            branch,
            known: known.map(|(place, known)| (place.path.clone(), known.digest)).collect(),
            descends_from,
            timeout: follow.git.timeout,
        };
        follow.importing = Some(to);
        order.spawn();
    }

    /// A commit is in the content store, or could not be brought there.
    pub(in super::super) fn imported(&mut self, now: Instant, delivery: Delivery) {
        let Delivery { root, commit, result } = delivery;
        let Some(follow) = self.follows.get_mut(&root) else { return };
        if follow.importing.as_deref() != Some(&commit) {
            return;
        }
        follow.importing = None;
        match result {
            Ok(imported) => {
                self.take_in(now, root, imported);
                self.git_healed(root, Side::Commit);
            }
            Err(error) if error.is_transient() => {
                follow.again = Some(now + LOOK_AGAIN);
                self.git_failed(root, Side::Commit, &error.to_string(), 1, Some(LOOK_AGAIN));
            }
            Err(error) if self.config.git.is_none() => {
                // Nobody asked for git here: the ordinary rules for files hold.
                let directory = self.roots[root].path.display().to_string();
                tracing::info!(pickup = self.config.name, directory, %error, "not followed as a git clone");
                self.follows.remove(&root);
            }
            Err(error) => {
                follow.refused = Some(commit);
                self.git_failed(root, Side::Commit, &error.to_string(), 1, None);
            }
        }
    }

    /// From now on, what is known of the root is what the commit holds.
    fn take_in(&mut self, now: Instant, root: usize, imported: Imported<CapturedFile>) {
        let Imported { revision, files, removed, refused, problems, .. } = imported;
        let is_mirror = self.follows.get(&root).is_some_and(Follow::is_mirror);
        let mut units = BTreeSet::new();
        for (path, file) in files {
            units.insert(self.unit_of(&path));
            self.take_file(now, Place { root, path }, &file, is_mirror);
        }
        for path in removed {
            let place = Place { root, path };
            if !is_mirror && self.on_disk(&place).is_some() {
                // No part of the commit, and there: an ordinary file.
                self.relook.insert((now, place));
                continue;
            }
            units.insert(self.unit_of(&place.path));
            self.known.remove(&place);
            self.settle.forget(&place);
            self.unsaved.insert(place);
        }
        if is_mirror {
            self.refused.retain(|place, _| place.root != root);
            // Whatever a crash left behind that no commit holds any more.
            units.extend(self.live.keys().filter(|unit| !self.is_wanted(unit)).cloned());
        }
        for problem in problems {
            tracing::warn!(pickup = self.config.name, problem, "some ignore rules are not used");
        }
        for (path, reason) in refused {
            self.refuse(Place { root, path }, reason);
        }
        for unit in &units {
            self.since.entry(unit.clone()).or_insert(now);
        }
        self.gathering.take(&units);
        let (name, commit) = (&self.config.name, short(&revision.commit));
        let (branch, subject) = (revision.branch.as_deref(), revision.subject.as_str());
        tracing::info!(pickup = name, commit, branch, subject, author = revision.author, "commit seen");
        self.shared.publish(name, EventKind::CommitSeen { revision: revision.clone() });
        let Some(follow) = self.follows.get_mut(&root) else { return };
        follow.seen = Some(revision);
        follow.is_unsaved = true;
        follow.ready.get_or_insert_default().extend(units);
        // It may stand elsewhere by now.
        follow.is_told = true;
    }

    fn take_file(&mut self, now: Instant, place: Place, file: &CapturedFile, is_mirror: bool) {
        let on_disk = if is_mirror { None } else { self.on_disk(&place) };
        let is_executable = |mode: u32| mode & 0o111 != 0;
        let mode = match on_disk {
            // Git knows no more of a mode than this; the rest is the user's.
            Some(mode) if is_executable(mode) == is_executable(file.mode) => mode,
            Some(_) | None => file.mode,
        };
        let known = self.known.get(&place);
        if known.is_some_and(|known| known.digest == file.digest && known.fingerprint.mode == mode) {
            return self.shared.store.unpin(&file.digest);
        }
        if let Some(known) = known {
            self.shared.store.unpin(&known.digest);
        }
        let fingerprint = Fingerprint { mode, size: file.size, ..Fingerprint::COMMITTED };
        self.known.insert(place.clone(), Known { fingerprint, digest: file.digest, is_racy: false });
        self.settle.forget(&place);
        self.unsaved.insert(place.clone());
        if !is_mirror {
            // What lies there may be an edit that nobody committed.
            self.relook.insert((now, place));
        }
    }

    fn on_disk(&self, place: &Place) -> Option<u32> {
        let path = self.roots[place.root].real()?.join(place.path.as_path());
        #[expect(clippy::disallowed_methods, reason = "of a file's mode, git keeps one bit")]
        let metadata = std::fs::metadata(path).ok()?;
        Some(Fingerprint::of(&metadata).mode)
    }

    /// Whether the file of a clone holds what was committed, although its bytes differ: git may have rewritten line ends.
    pub(in super::super) fn is_committed(&self, place: &Place) -> bool {
        self.follows
            .get(&place.root)
            .and_then(|follow| follow.clone.as_ref())
            .is_some_and(|clone| clone.is_clean(&place.path))
    }

    /// What the commits that are ready changed, all of them together.
    pub(in super::super) fn take_ready(&mut self) -> Option<BTreeSet<UnitPath>> {
        let mut ready = None;
        for follow in self.follows.values_mut() {
            if let Some(units) = follow.ready.take() {
                ready.get_or_insert_with(BTreeSet::new).extend(units);
            }
        }
        ready
    }

    /// The commit that a change set of now belongs to: that which is not live yet. All of a mirror belongs to one.
    pub(in super::super) fn revision_of_change(&self) -> Option<Arc<Revision>> {
        let follow = self.follows.values().find(|follow| follow.seen.is_some())?;
        let seen = follow.seen.as_ref()?;
        let live = self.live_revision.as_ref();
        let is_live = live.is_some_and(|live| live.commit == seen.commit);
        if is_live && !follow.is_mirror() {
            return None;
        }
        let previous = match live {
            Some(live) if is_live => live.previous.clone(),
            Some(live) => Some(live.commit.clone()),
            None => None,
        };
        Some(Arc::new(Revision { previous, ..seen.clone() }))
    }

    /// Nothing of the commit is left to be deployed.
    pub(in super::super) fn commit_is_live(&mut self) {
        if self.failures.is_empty()
            && self.held.is_none()
            && let Some(revision) = self.revision_of_change()
        {
            self.live_revision = Some(Revision::clone(&revision));
        }
    }

    fn git_failed(&mut self, root: usize, side: Side, cause: &str, attempts: u32, retry_in: Option<Duration>) {
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

    fn git_healed(&mut self, root: usize, side: Side) {
        let Some(follow) = self.follows.get_mut(&root) else { return };
        if follow.problem_mut(side).take().is_some() {
            tracing::info!(pickup = self.config.name, "the repository can be followed again");
            self.shared.publish(&self.config.name, EventKind::CheckHealed);
        }
    }
}

impl Follow {
    fn wait(&mut self, reason: String, now: Instant, again_in: Duration) {
        self.is_long = again_in > SHORT_WAIT;
        self.waiting = Some((reason, now + again_in));
    }
}
