//! Clones among the roots: whether git is at rest in them, and where they stand then.

use std::time::{Duration, Instant};

use super::super::pickup::{Pickup, Root};
use super::commits::{Follow, LOOK_AGAIN, Side};
use crate::error::Error;
use crate::source::Place;
use crate::source::git::barrier::{Clone as GitClone, Rest};
use crate::source::git::peek;
use crate::source::watch::Target;

impl Pickup {
    /// Another directory lies at a root: whether it is a clone has to be found out.
    pub(in super::super) fn forget_clone(&mut self, root: usize) {
        self.sought.remove(&root);
        if let Some(follow) = self.follows.get_mut(&root) {
            follow.clone = None;
            follow.rested();
            follow.target = follow.target.take().filter(|_| follow.is_mirror());
        }
    }

    /// Whether git may have a say in what is picked up: of each root, where that lies now.
    pub(in super::super) fn is_in_repository(&self) -> bool {
        let mut directories = self.roots.iter().filter_map(Root::real);
        self.config.git.is_some() || directories.any(|real| !matches!(GitClone::find(real), Ok(None)))
    }

    /// Finds out whether a root lies in a clone.
    pub(super) fn seek_clone(&mut self, now: Instant, root: usize) {
        let Some(real) = self.roots[root].real().cloned() else { return };
        if !self.sought.insert(root) {
            return;
        }
        let found = match GitClone::find(&real) {
            // Somewhere to drop files that happens to lie in a repository.
            Ok(Some(clone)) if !clone.is_tracked() && self.config.git.is_none() => return,
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
        let follow = self.follows.entry(root).or_insert_with(Follow::unasked);
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
    pub(super) fn look_at_clone(&mut self, now: Instant, root: usize) {
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
        if peek::cut_off(clone.work_dir()).is_some() {
            let reason = "a pull by pickup was cut off, and half of it may be there; the next check finishes it";
            return follow.wait(reason.into(), now, LOOK_AGAIN);
        }
        let wall = (self.shared.clock.wall)();
        let rest = clone.rest(wall, &mut |path| self.probe.writer(path));
        match rest {
            Ok(Rest::Busy { reason, again_in }) => follow.wait(reason, now, again_in),
            Ok(Rest::At { commit, branch }) => {
                follow.rested();
                follow.target = commit.map(|commit| (commit, branch, false));
                if !follow.is_behind() {
                    self.git_healed(root, Side::Commit);
                }
            }
            Err(error) => {
                follow.again = Some(now + LOOK_AGAIN);
                let error = error.to_string();
                self.git_failed(root, Side::Commit, &error, 1, None);
            }
        }
    }

    /// Whether the file of a clone holds what was committed, although its bytes differ: git may have rewritten line ends.
    pub(in super::super) fn is_committed(&self, place: &Place) -> bool {
        self.follows
            .get(&place.root)
            .and_then(|follow| follow.clone.as_ref())
            .is_some_and(|clone| clone.is_clean(&place.path))
    }
}
