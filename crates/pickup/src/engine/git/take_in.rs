//! From a commit to what is known, and to the change set that it becomes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use super::super::known::Known;
use super::super::pickup::Pickup;
use super::commits::{Follow, LOOK_AGAIN, Side};
use super::import::{Delivery, Order, short};
use crate::capture::CapturedFile;
use crate::error::ErrorKind;
use crate::event::EventKind;
use crate::path::UnitPath;
use crate::source::git::Revision;
use crate::source::git::import::Imported;
use crate::source::git::listing::Terms;
use crate::source::{Fingerprint, Place};

impl Pickup {
    /// Brings in the commit that the repository stands at, unless it is known.
    pub(super) fn bring_in(&mut self, now: Instant, root: usize) {
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
        follow.again = None;
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
                if error.kind() == ErrorKind::Git {
                    follow.renew(&error.to_string());
                }
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
        let Imported { revision, files, removed, refused, problems, listed } = imported;
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
                self.relook.insert(now, place);
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
        tracing::info!(pickup = name, commit, branch, subject, author = revision.author, files = listed, "commit seen");
        self.shared.publish(name, EventKind::CommitSeen { revision: revision.clone() });
        let Some(follow) = self.follows.get_mut(&root) else { return };
        // Somebody merged, or took back what was in the way: the remote is asked whether that was enough.
        if let (Some(following), false, true) = (&follow.following, is_mirror, follow.unreachable.is_some()) {
            following.ask();
        }
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
        self.put_away_later();
        let known = self.known.get(&place);
        if known.is_some_and(|known| known.digest == file.digest && known.fingerprint.mode == mode) {
            return self.shared.store.unpin(&file.digest);
        }
        if let Some(known) = known {
            self.shared.store.unpin(&known.digest);
        }
        let fingerprint = Fingerprint { mode, size: file.size, ..Fingerprint::COMMITTED };
        self.known.insert(place.clone(), Known::new(fingerprint, file.digest, false));
        self.settle.forget(&place);
        self.unsaved.insert(place.clone());
        if !is_mirror {
            // What lies there may be an edit that nobody committed.
            self.relook.insert(now, place);
        }
    }

    fn on_disk(&self, place: &Place) -> Option<u32> {
        let path = self.roots[place.root].real()?.join(place.path.as_path());
        #[expect(clippy::disallowed_methods, reason = "of a file's mode, git keeps one bit")]
        let metadata = std::fs::metadata(path).ok()?;
        Some(Fingerprint::of(&metadata).mode)
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
}
