//! The roots of one pickup: where they are, whether they are there, and when they are listed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::pickup::{Pickup, Root, RootState};
use crate::config::WatchMode;
use crate::config::exposure::exposure;
use crate::event::EventKind;
use crate::source::mount::{Events, filesystem_sends_events, real_root};
use crate::source::watch::{Failure, Target};
use crate::source::{Fingerprint, Hint, Place};

impl Pickup {
    /// Looks where every root is, and compares everything in it.
    pub(super) fn rescan_all(&mut self, now: Instant) {
        for root in 0..self.roots.len() {
            self.find_root(root);
            self.rescan_root(now, root);
        }
        self.schedule(now);
    }

    /// Looks where every root is.
    pub(super) fn find_roots(&mut self) {
        (0..self.roots.len()).for_each(|root| self.find_root(root));
    }

    /// Polls and reconciles when it is time.
    pub(super) fn rescan_due(&mut self, now: Instant) {
        if self.next_rescan <= now {
            return self.rescan_all(now);
        }
        if self.next_poll.is_some_and(|at| at <= now) {
            for root in 0..self.roots.len() {
                if self.roots[root].polling.is_some() {
                    self.root_moved(now, root, false);
                    self.rescan_root(now, root);
                } else {
                    for path in self.roots[root].unwatched.clone() {
                        self.scan_below(now, &Place { root, path }, Hint::Scan);
                    }
                }
            }
            self.schedule_poll(now);
        }
    }

    fn schedule(&mut self, now: Instant) {
        let interval = if self.is_watching() { self.config.rescan_interval } else { Duration::from_secs(365 * 86_400) };
        self.next_rescan = now + interval;
        self.schedule_poll(now);
    }

    fn schedule_poll(&mut self, now: Instant) {
        let polls = self.roots.iter().any(|root| root.polling.is_some() || !root.unwatched.is_empty());
        self.next_poll = (polls && self.is_watching()).then(|| now + self.config.poll_interval);
    }

    /// Something on the way to the root changed: if it leads elsewhere now, all that is compared. `is_exchanged` says that
    /// it does, although the new directory may look like the old one: inode numbers are given out again.
    ///
    /// Says whether all was compared.
    pub(super) fn root_moved(&mut self, now: Instant, root: usize, is_exchanged: bool) -> bool {
        let before = self.roots[root].state.clone();
        self.find_root(root);
        if !is_exchanged && self.roots[root].state == before {
            return false;
        }
        // Whoever takes the directory away does not mean each file in it.
        self.roots[root].is_listed = false;
        self.seen_removed.clear();
        self.rescan_root(now, root);
        self.schedule_poll(now);
        true
    }

    /// Resolves the root, says so if it came or went, and keeps watch over the way to it.
    fn find_root(&mut self, root: usize) {
        if self.roots[root].is_mirror {
            return;
        }
        // Once more after each change: what happens while the watches are exchanged is seen by the look that follows.
        loop {
            self.anchor(root);
            let state = resolve(&self.roots[root].path);
            self.look_who_may_write(root);
            if state == self.roots[root].state {
                return;
            }
            self.say_root(root, &state);
            // Watches of a former directory tell of paths that are not ours any more.
            self.shared.watcher.forget_root(self.subscriber, root);
            self.roots[root].unwatched.clear();
            self.watched.retain(|place| place.root != root);
            self.forget_clone(root);
            self.roots[root].is_listed = false;
            self.roots[root].state = state;
            self.roots[root].polling = self.polls(root);
        }
    }

    fn say_root(&self, root: usize, state: &RootState) {
        let name = &self.config.name;
        let directory = self.roots[root].path.display().to_string();
        match state {
            RootState::Missing { reason } => {
                tracing::warn!(
                    pickup = name,
                    directory,
                    reason,
                    "the pickup directory is not to be had; nothing is undeployed"
                );
                let reason = reason.clone();
                self.shared.publish(name, EventKind::Unavailable { directory, reason });
            }
            RootState::Present { .. } | RootState::Unknown => {
                if matches!(self.roots[root].state, RootState::Missing { .. }) {
                    tracing::info!(pickup = name, directory, "the pickup directory is there again");
                }
            }
        }
    }

    /// Warns if others than our user may write to the root, once for each of its states.
    fn look_who_may_write(&mut self, root: usize) {
        let found = exposure(&self.roots[root].path).map(|found| found.advice());
        let root = &mut self.roots[root];
        if let Some(reason) = found.as_ref().filter(|_| root.exposed != found) {
            let directory = root.path.display().to_string();
            tracing::warn!(pickup = self.config.name, directory, reason, "others may write to the pickup directory");
        }
        root.exposed = found;
    }

    /// Why the root is polled, if it is.
    fn polls(&self, root: usize) -> Option<String> {
        let real = self.roots[root].real()?;
        match self.config.watch {
            WatchMode::Poll => Some("`watch` is `poll`".into()),
            WatchMode::Native | WatchMode::Off => None,
            WatchMode::Auto => match filesystem_sends_events(real) {
                Ok(Events::Sent) => None,
                Ok(Events::NotSent(name)) => Some(format!("{name} does not tell of changes made elsewhere")),
                Err(error) => Some(error.to_string()),
            },
        }
    }

    /// Watches every name on the way to the root, symlinks included, so that nothing can be exchanged unseen.
    fn anchor(&mut self, root: usize) {
        if !self.is_watching() || self.config.watch == WatchMode::Poll {
            return;
        }
        let anchors: Vec<(PathBuf, Target)> = names_on_the_way(&self.roots[root].path)
            .into_iter()
            .map(|(directory, name)| (directory, Target::Anchor { root, name }))
            .collect();
        for (at, failure) in self.shared.watcher.watch(self.subscriber, &anchors) {
            match failure {
                // An ancestor that is missing, too: the one above it is watched.
                Failure::Gone => {}
                Failure::Limit(reason) | Failure::Other(reason) => {
                    let directory = anchors[at].0.display();
                    tracing::debug!(pickup = self.config.name, %directory, reason, "cannot watch the way to the root");
                }
            }
        }
    }
}

fn resolve(path: &Path) -> RootState {
    let missing = |reason: String| RootState::Missing { reason };
    let real = match real_root(path) {
        Ok(real) => real,
        Err(error) => {
            return missing(match error.io_error() {
                Some(io) if io.kind() == std::io::ErrorKind::NotFound => "it does not exist".into(),
                Some(io) => io.to_string(),
                None => error.to_string(),
            });
        }
    };
    #[expect(clippy::disallowed_methods, reason = "a root is told by its device and inode")]
    match std::fs::metadata(&real) {
        Ok(metadata) if metadata.is_dir() => {
            let fingerprint = Fingerprint::of(&metadata);
            #[expect(clippy::disallowed_methods, reason = "a directory that cannot be listed is not to be had")]
            match std::fs::read_dir(&real) {
                Ok(_) => RootState::Present {
                    real,
                    device: fingerprint.dev,
                    inode: fingerprint.ino,
                    born: metadata.created().ok(),
                },
                Err(error) => missing(format!("it cannot be listed: {error}")),
            }
        }
        Ok(_) => missing("it is not a directory".into()),
        Err(error) => missing(error.to_string()),
    }
}

/// Every directory on the way to `path`, with the name in it that matters; symlinks on the way are followed once each.
#[expect(clippy::disallowed_methods, reason = "symlinks on the way to a root are watched, too")]
fn names_on_the_way(path: &Path) -> Vec<(PathBuf, std::ffi::OsString)> {
    let mut names = Vec::new();
    let mut open = vec![path.to_path_buf()];
    // A chain of symlinks longer than the kernel follows leads nowhere.
    for _ in 0..40 {
        let Some(path) = open.pop() else { break };
        for ancestor in path.ancestors() {
            let (Some(parent), Some(name)) = (ancestor.parent(), ancestor.file_name()) else { continue };
            let entry = (parent.to_path_buf(), name.to_os_string());
            if names.contains(&entry) {
                continue;
            }
            names.push(entry);
            if let Ok(target) = ancestor.read_link() {
                open.push(parent.join(target));
            }
        }
    }
    names
}

impl Root {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            state: RootState::Unknown,
            unwatched: BTreeSet::new(),
            directories: 0,
            polling: None,
            exposed: None,
            is_listed: false,
            is_mirror: false,
        }
    }

    /// What is taken from a bare repository: there is no directory to look at.
    pub(super) fn mirror(repository: PathBuf) -> Self {
        Self { is_mirror: true, ..Self::new(repository) }
    }

    /// Whether it is a directory that is not to be had.
    pub(super) fn is_unavailable(&self) -> bool {
        !self.is_mirror && self.real().is_none()
    }
}
