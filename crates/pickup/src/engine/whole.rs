//! A unit of several files goes live as it lay there at one moment, although its files are captured one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::known::Known;
use super::listing::SiftKnown;
use super::pickup::Pickup;
use crate::change::gather::Noted;
use crate::config::UnitKind;
use crate::path::UnitPath;
use crate::source::opened::Opened;
use crate::source::scan::Walked;
use crate::source::{Fingerprint, Hint, Place};

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "the tests are the writers")]
mod tests;

impl Pickup {
    /// Takes out of `closed` the units whose files are not all there as they were captured; they are looked at again, and
    /// wait as after any change inside.
    ///
    /// All captures are over when this begins. What still is what was captured, file by file, was there in between: so
    /// all of it was there together at the moment this began, whatever was exchanged before or is exchanged meanwhile.
    pub(super) fn hold_back_moving(&mut self, now: Instant, closed: &mut BTreeSet<UnitPath>) {
        if self.config.unit == UnitKind::File {
            return;
        }
        for unit in closed.clone() {
            let places = (0..self.roots.len()).map(|root| Place { root, path: unit.clone() });
            let moved: Vec<Place> = places.filter(|place| !self.is_as_captured(place, &mut |_, _, _| {})).collect();
            if !moved.is_empty() {
                closed.remove(&unit);
                self.hold_back(now, unit, moved);
            }
        }
    }

    fn hold_back(&mut self, now: Instant, unit: UnitPath, moved: Vec<Place>) {
        tracing::debug!(pickup = self.config.name, %unit, "changed while its files were captured; it is waited for");
        for place in moved {
            self.scan_below(now, &place, Hint::Scan);
        }
        // Also where all of it is by now as it was captured.
        self.gathering.note(now, unit, Noted::Inside);
    }

    /// Whether all that lies in the unit at `top`, in this root, is known, and nothing else is; as far as `sift` leaves it.
    fn is_as_captured(&mut self, top: &Place, sift: SiftKnown<'_>) -> bool {
        // What is taken from commits belongs together by itself, and one file is one version.
        let is_mirror = self.roots[top.root].is_mirror;
        if is_mirror || self.known.contains_key(top) || self.refused.contains_key(top) {
            return true;
        }
        let Some(real) = self.roots[top.root].real().cloned() else { return true };
        let opened = match Opened::open(&real.join(top.path.as_path())) {
            Ok(opened) => opened,
            Err(error) if is_gone(&error) => return self.known_below(top).next().is_none(),
            // What cannot be looked at is not gone.
            Err(_) => return true,
        };
        let Ok(before) = opened.fingerprint() else { return true };
        let walked = self.scan(top, sift);
        // After the listing: a file of another version behind a name of this one is told by its fingerprint.
        let found = self.found(top, &opened, &walked);
        let is_found = |path: &UnitPath| found.contains_key(path);
        let cannot_tell = |place: &Place| {
            self.refused.contains_key(place) || walked.unreadable.iter().any(|(at, _)| place.path.starts_with(at))
        };
        let are_there = self.known_below(top).all(|(place, known)| {
            let is_same = found.get(&place.path).is_some_and(|found| *found == known.fingerprint);
            let is_committed = known.fingerprint.is_committed() && is_found(&place.path);
            is_same || is_committed || cannot_tell(place)
        });
        let is_known = |path: &UnitPath| self.known.contains_key(&Place { root: top.root, path: path.clone() });
        // Another directory may have had the name while it was listed, and have given it back.
        are_there && found.keys().all(is_known) && opened.fingerprint().is_ok_and(|after| after == before)
    }

    fn known_below<'a>(&'a self, top: &'a Place) -> impl Iterator<Item = (&'a Place, &'a Known)> {
        let is_below = |(place, _): &(&Place, &Known)| place.root == top.root && place.path.starts_with(&top.path);
        self.known.range(top.clone()..).take_while(is_below)
    }

    /// The files that `walked` found, as they are in that very directory; without those that are never taken.
    fn found(&self, top: &Place, opened: &Opened, walked: &Walked) -> BTreeMap<UnitPath, Fingerprint> {
        let mut found = BTreeMap::new();
        for listed in &walked.files {
            let place = Place { root: top.root, path: listed.path.clone() };
            let Some(below) = listed.path.below(&top.path).filter(|_| !self.refused.contains_key(&place)) else {
                continue;
            };
            if let Ok(Some(fingerprint)) = opened.file(below.as_path(), self.config.symlinks) {
                found.insert(place.path, fingerprint);
            }
        }
        found
    }
}

/// Whether no directory has that name.
fn is_gone(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}
