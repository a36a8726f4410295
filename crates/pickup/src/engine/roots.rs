//! The roots of one pickup: where they are, whether they are there, and listing what is in them.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::known::{AllKnown, Known, sift};
use super::links;
use super::pickup::{Pickup, Root, RootState};
use crate::change::gather::Noted;
use crate::config::WatchMode;
use crate::config::exposure::exposure;
use crate::event::EventKind;
use crate::path::UnitPath;
use crate::source::mount::{Events, filesystem_sends_events, real_root};
use crate::source::scan::{Found, Listed, Tree, Walked, walk};
use crate::source::watch::{Failure, Target};
use crate::source::{Fingerprint, Hint, Place};

/// A listing of so many files was made a moment ago when the last of them is looked at.
const FRESH_MAX: usize = 1024;

/// So many files of a listing may wait until what is known of them is read.
const HELD_MAX: usize = 1 << 16;

/// Takes out of what a directory was found to hold what is known and did not change.
pub(super) type SiftKnown<'a> = &'a mut dyn FnMut(&mut AllKnown, &UnitPath, &mut Vec<Found>);

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

    /// Compares everything in the root with what is known.
    pub(super) fn rescan_root(&mut self, now: Instant, root: usize) {
        let top = Place { root, path: UnitPath::root() };
        if self.roots[root].real().is_none() {
            return;
        }
        let walked = self.scan_changed(&top);
        self.roots[root].directories = walked.directories.len();
        self.compare_listing(now, &top, walked, Hint::Scan);
        self.roots[root].is_listed = true;
        self.note_lost_units(now);
    }

    /// Compares what lies at and below a directory with what is known.
    pub(super) fn scan_below(&mut self, now: Instant, place: &Place, hint: Hint) {
        let walked = self.scan_changed(place);
        let hint = if hint == Hint::MovedIn { Hint::MovedIn } else { Hint::Scan };
        self.compare_listing(now, place, walked, hint);
    }

    /// Lists what lies at and below a directory, and stands watch there. `sift` may take out what is known.
    pub(super) fn scan(&mut self, place: &Place, sift: SiftKnown<'_>) -> Walked {
        let Some(real) = self.roots[place.root].real().cloned() else { return Walked::default() };
        let watches = self.is_watching() && self.config.watch != WatchMode::Poll;
        let (watcher, subscriber) = (&self.shared.watcher, self.subscriber);
        let unwatched = &mut self.roots[place.root].unwatched;
        unwatched.retain(|path| !path.starts_with(&place.path));
        let mut limit = None;
        let mut stand_watch = |directories: &[UnitPath]| {
            if !watches {
                return;
            }
            let target = |path: &UnitPath| {
                let target = Target::Directory(Place { root: place.root, path: path.clone() });
                (real.join(path.as_path()), target)
            };
            let wanted: Vec<_> = directories.iter().map(target).collect();
            for (at, failure) in watcher.watch(subscriber, &wanted) {
                match failure {
                    // Gone again: the event of its removal comes, or came.
                    Failure::Gone => {}
                    Failure::Limit(reason) | Failure::Other(reason) => {
                        unwatched.insert(directories[at].clone());
                        limit = Some(reason);
                    }
                }
            }
        };
        let (recursive, symlinks) = (self.config.recursive, self.config.symlinks);
        let tree = Tree { root: &real, index: place.root, recursive, symlinks };
        let (known, reading) = (&mut self.known, &mut self.reading);
        let (mut held, mut held_count) = (Vec::new(), 0);
        let mut sift_or_hold = |directory: &UnitPath, found: &mut Vec<Found>| {
            // At the start, what is known may still be read: the listing need not wait.
            if !reading.is_over() && held_count + found.len() <= HELD_MAX {
                held_count += found.len();
                return held.push((directory.clone(), std::mem::take(found)));
            }
            reading.arrive(known);
            sift(known, directory, found);
        };
        let mut walked = walk(&tree, &place.path, &mut self.rules, &mut stand_watch, &mut sift_or_hold);
        reading.arrive(known);
        for (directory, mut found) in held {
            sift(known, &directory, &mut found);
            walked.files.extend(found.into_iter().map(|found| found.listed(&directory)));
        }
        if let Some(reason) = limit {
            let directories = self.roots[place.root].unwatched.len();
            tracing::warn!(
                pickup = self.config.name,
                directories,
                reason,
                "some directories cannot be watched and are polled instead"
            );
            self.next_poll.get_or_insert(self.shared.now() + self.config.poll_interval);
        }
        for problem in &walked.problems {
            tracing::warn!(pickup = self.config.name, problem, "some ignore rules are not used");
        }
        walked
    }

    /// Lists what lies at and below a directory, less those files that are as they are known to be.
    fn scan_changed(&mut self, place: &Place) -> Walked {
        // As many as a mark has bits for, without 0.
        self.listing = self.listing % (u32::MAX >> 1) + 1;
        let (root, listing) = (place.root, self.listing);
        self.scan(place, &mut |known, directory, found| sift(known, root, listing, directory, found))
    }

    fn compare_listing(&mut self, now: Instant, top: &Place, walked: Walked, hint: Hint) {
        let root = top.root;
        let Some(real) = self.roots[root].real().cloned() else { return };
        for path in walked.links {
            let hops = links::hops(&real.join(path.as_path()));
            self.links.note(Place { root, path }, hops);
        }
        let is_fresh = walked.listed_count <= FRESH_MAX;
        let is_below = |place: &&Place| place.root == root && place.path.starts_with(&top.path);
        let known_below = self.known.range(top.clone()..).take_while(|(place, _)| is_below(place));
        let unlisted = known_below.filter(|(_, known)| !known.is_found(self.listing)).map(|(place, _)| place);
        // A file that was waited for goes without a word where nothing tells of it.
        let missed: BTreeSet<Place> = self.relook.missed().filter(is_below).cloned().collect();
        let waited_for = self.settle.pending().map(|(place, _)| place).filter(is_below);
        let waited_for = waited_for.filter(|place| !self.known.contains_key(place)).chain(&missed);
        let waited_for: Vec<&Place> = waited_for.collect();
        let listed: HashSet<&UnitPath> = match waited_for.as_slice() {
            [] => HashSet::new(),
            [..] => walked.files.iter().map(|listed| &listed.path).collect(),
        };
        let waited_for = waited_for.into_iter().filter(|place| !listed.contains(&place.path));
        // What cannot be listed is not gone.
        let is_unreadable = |place: &Place| walked.unreadable.iter().any(|(at, _)| place.path.starts_with(at));
        let missing = unlisted.chain(waited_for).filter(|place| !is_unreadable(place));
        let missing: BTreeSet<Place> = missing.cloned().collect();
        drop(listed);
        for Listed { path, fingerprint: seen } in walked.files {
            let place = Place { root, path };
            let known = self.known.get(&place).copied();
            // What is known by another identity was compared already; what lies behind a symlink was not.
            let is_same = |known: &Known| {
                !known.is_racy() && seen.is_none() && fingerprint(&real, &place) == Some(known.fingerprint)
            };
            match known.as_ref().is_some_and(is_same) && !missed.contains(&place) {
                true => {}
                false if self.puts_off => drop(self.unseen.insert(place)),
                false => self.look_again(now, place, hint, seen.filter(|_| is_fresh).as_ref()),
            }
        }
        for place in missing {
            // Only `ENOENT` is believed, and the look finds out.
            self.look(now, place, Hint::Scan);
        }
        for (path, reason) in walked.unreadable {
            self.refused.insert(Place { root, path }, format!("the directory cannot be listed: {reason}"));
        }
    }

    /// After a listing: what is live and not there any more has to be judged, even if we never saw it here.
    pub(super) fn note_lost_units(&mut self, now: Instant) {
        if self.roots.iter().any(|root| root.real().is_none()) {
            return;
        }
        let lost: Vec<UnitPath> =
            self.live.keys().filter(|unit| !self.is_wanted(unit) && !self.is_unseen(unit)).cloned().collect();
        for unit in lost {
            let is_paused = self.paused.as_ref().is_some_and(|paused| paused.units.contains(&unit));
            if !is_paused && !self.in_hand.contains(&unit) && !self.gathering.contains(&unit) {
                self.gathering.note(now, unit, Noted::Gone);
            }
        }
    }
}

/// The fingerprint behind the name, symlinks followed; whether they may be is the look's business.
#[expect(clippy::disallowed_methods, reason = "the cheap half of a look, for the many files that did not change")]
fn fingerprint(real: &Path, place: &Place) -> Option<Fingerprint> {
    let metadata = std::fs::metadata(real.join(place.path.as_path())).ok()?;
    metadata.is_file().then(|| Fingerprint::of(&metadata))
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
