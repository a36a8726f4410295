//! Listing directories of one pickup, and comparing what is there with what is known.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::known::{AllKnown, Known, sift};
use super::links;
use super::pickup::Pickup;
use crate::change::gather::Noted;
use crate::config::WatchMode;
use crate::path::UnitPath;
use crate::source::opened::Opened;
use crate::source::probe::Glimpse;
use crate::source::scan::{Found, Listed, Tree, Walked, walk};
use crate::source::watch::{Failure, Target};
use crate::source::{Fingerprint, Hint, Place};

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "the tests are the writers")]
mod tests;

/// After so many files their directory is opened anew: another may have its name by now.
const OPENED_MAX: usize = 1024;

/// So many files of a listing may wait until what is known of them is read.
const HELD_MAX: usize = 1 << 16;

/// Takes out of what a directory was found to hold what is known and did not change.
pub(super) type SiftKnown<'a> = &'a mut dyn FnMut(&mut AllKnown, &UnitPath, &mut Vec<Found>);

impl Pickup {
    /// Compares everything in the root with what is known.
    pub(super) fn rescan_root(&mut self, now: Instant, root: usize) {
        let top = Place { root, path: UnitPath::root() };
        if self.roots[root].real().is_none() {
            return;
        }
        let (walked, found) = self.scan_changed(&top);
        self.roots[root].directories = walked.directories.len();
        self.compare_listing(now, &top, (walked, found), Hint::Scan);
        self.roots[root].is_listed = true;
        self.note_lost_units(now);
    }

    /// Compares what lies at and below a directory with what is known.
    pub(super) fn scan_below(&mut self, now: Instant, place: &Place, hint: Hint) {
        let walked = self.scan_changed(place);
        let hint = if hint == Hint::MovedIn { Hint::MovedIn } else { Hint::Scan };
        self.compare_listing(now, place, walked, hint);
    }

    /// Stands watch in these directories; gives those where it does.
    pub(super) fn stand_watch(&self, places: Vec<Place>) -> BTreeSet<Place> {
        if !self.is_watching() || self.config.watch == WatchMode::Poll {
            return BTreeSet::new();
        }
        let places: Vec<(&PathBuf, Place)> =
            places.into_iter().filter_map(|place| Some((self.roots[place.root].real()?, place))).collect();
        let wanted: Vec<_> = places.iter().map(|(real, place)| target(real, place)).collect();
        let failed: Vec<usize> =
            self.shared.watcher.watch(self.subscriber, &wanted).into_iter().map(|(at, _)| at).collect();
        let stands = places.into_iter().enumerate().filter(|(at, _)| !failed.contains(at));
        stands.map(|(_, (_, place))| place).collect()
    }

    /// Lists what lies at and below a directory, and stands watch there. `sift` may take out what is known.
    pub(super) fn scan(&mut self, place: &Place, sift: SiftKnown<'_>) -> Walked {
        let Some(real) = self.roots[place.root].real().cloned() else { return Walked::default() };
        let watches = self.is_watching() && self.config.watch != WatchMode::Poll;
        let (watcher, subscriber) = (&self.shared.watcher, self.subscriber);
        let (unwatched, watched) = (&mut self.roots[place.root].unwatched, &mut self.watched);
        unwatched.retain(|path| !path.starts_with(&place.path));
        let mut limit = None;
        let mut stand_watch = |directories: &[UnitPath]| {
            let places = directories.iter().map(|path| Place { root: place.root, path: path.clone() });
            let places: Vec<Place> = places.filter(|place| watches && !watched.remove(place)).collect();
            let wanted: Vec<_> = places.iter().map(|place| target(&real, place)).collect();
            for (at, failure) in watcher.watch(subscriber, &wanted) {
                match failure {
                    // Gone again: the event of its removal comes, or came.
                    Failure::Gone => {}
                    Failure::Limit(reason) | Failure::Other(reason) => {
                        unwatched.insert(places[at].path.clone());
                        limit = Some(reason);
                    }
                }
            }
        };
        let (recursive, symlinks) = (self.config.recursive, self.config.symlinks);
        let (known, reading) = (&mut self.known, &mut self.reading);
        let is_known = reading.may_know(known, place);
        let tree = Tree { root: &real, index: place.root, recursive, symlinks, is_known };
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

    /// Lists what lies at and below a directory, less those files that are as they are known to be; and how many are known.
    fn scan_changed(&mut self, place: &Place) -> (Walked, usize) {
        // As many as a mark has bits for, without 0.
        self.listing = self.listing % (u32::MAX >> 1) + 1;
        let (root, listing) = (place.root, self.listing);
        let mut marked = 0;
        let mut sift = |known: &mut AllKnown, directory: &UnitPath, found: &mut Vec<Found>| {
            marked += sift(known, root, listing, directory, found);
        };
        let walked = self.scan(place, &mut sift);
        (walked, marked)
    }

    fn compare_listing(&mut self, now: Instant, top: &Place, (walked, found): (Walked, usize), hint: Hint) {
        let root = top.root;
        let Some(real) = self.roots[root].real().cloned() else { return };
        for path in walked.links {
            let hops = links::hops(&real.join(path.as_path()));
            self.links.note(Place { root, path }, hops);
        }
        let is_below = |place: &&Place| place.root == root && place.path.starts_with(&top.path);
        let known_below = self.known.range(top.clone()..).take_while(|(place, _)| is_below(place));
        let is_new = known_below.clone().next().is_none();
        // Mostly it is all there.
        let unlisted = (found < self.known.len()).then_some(known_below).into_iter().flatten();
        let unlisted = unlisted.filter(|(_, known)| !known.is_found(self.listing)).map(|(place, _)| place);
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
        // Neighbours follow each other.
        let mut open: Option<(PathBuf, Option<Opened>, usize)> = None;
        for Listed { path, is_regular, fingerprint: seen } in walked.files {
            let place = Place { root, path };
            let known = if is_new { None } else { self.known.get(&place).copied() };
            // What is known by another identity was compared already; what lies behind a symlink was not.
            let is_same = |known: &Known| {
                !known.is_racy() && !is_regular && fingerprint(&real, &place) == Some(known.fingerprint)
            };
            if known.as_ref().is_some_and(is_same) && !missed.contains(&place) {
                continue;
            }
            if self.puts_off {
                self.unseen.insert(place);
                continue;
            }
            if !is_regular {
                self.look(now, place, hint);
                continue;
            }
            let above = place.path.as_path().parent().unwrap_or(Path::new(""));
            let (_, directory, count) = match &mut open {
                Some(last) if last.0 == above && last.2 < OPENED_MAX => last,
                open => open.insert((above.to_owned(), Opened::open_real(&real.join(above)).ok(), 0)),
            };
            *count += 1;
            let glimpse = Glimpse { fingerprint: seen.as_ref(), directory: directory.as_ref(), is_taken: true, is_new };
            self.look_again(now, place, hint, Some(glimpse));
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

/// To watch a directory of the root that is really at `real`.
fn target(real: &Path, place: &Place) -> (PathBuf, Target) {
    (real.join(place.path.as_path()), Target::Directory(place.clone()))
}

/// The fingerprint behind the name, symlinks followed; whether they may be is the look's business.
#[expect(clippy::disallowed_methods, reason = "the cheap half of a look, for the many files that did not change")]
fn fingerprint(real: &Path, place: &Place) -> Option<Fingerprint> {
    let metadata = std::fs::metadata(real.join(place.path.as_path())).ok()?;
    metadata.is_file().then(|| Fingerprint::of(&metadata))
}
