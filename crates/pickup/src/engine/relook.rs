//! Looks that are to be repeated: at what moved under our hands, and at what a full disk kept from being captured.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::source::Place;

/// The files that are looked at again, and when.
#[derive(Debug, Default)]
pub(super) struct Relook {
    due: BTreeSet<(Instant, Place)>,
    /// The same by place, and whether it could not be captured.
    places: BTreeMap<Place, (Instant, bool)>,
    missed: usize,
    /// Whether anything was missed since it was said to be over.
    was_missed: bool,
}

impl Relook {
    /// Looks at `place` again.
    pub(super) fn insert(&mut self, at: Instant, place: Place) {
        self.enter(at, place, false);
    }

    /// The same, for what could not be captured: what belongs to it does not go without it.
    pub(super) fn insert_missed(&mut self, at: Instant, place: Place) {
        self.enter(at, place, true);
    }

    fn enter(&mut self, at: Instant, place: Place, is_missed: bool) {
        self.remove(&place);
        self.due.insert((at, place.clone()));
        self.places.insert(place, (at, is_missed));
        self.missed += usize::from(is_missed);
        self.was_missed |= is_missed;
    }

    /// It was looked at.
    pub(super) fn remove(&mut self, place: &Place) {
        if let Some((at, is_missed)) = self.places.remove(place) {
            self.due.remove(&(at, place.clone()));
            self.missed -= usize::from(is_missed);
        }
    }

    /// Drops those that are gone.
    pub(super) fn forget(&mut self, is_gone: impl Fn(&Place) -> bool) {
        let gone: Vec<Place> = self.places.keys().filter(|place| is_gone(place)).cloned().collect();
        gone.iter().for_each(|place| self.remove(place));
    }

    /// Takes out one that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Place> {
        let (_, place) = self.due.first().filter(|(at, _)| *at <= now)?;
        let place = place.clone();
        self.remove(&place);
        Some(place)
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// What could not be captured.
    pub(super) fn missed(&self) -> impl Iterator<Item = &Place> {
        let places = if self.missed > 0 { Some(&self.places) } else { None };
        places.into_iter().flatten().filter(|(_, (_, is_missed))| *is_missed).map(|(place, _)| place)
    }

    pub(super) fn is_any_missed(&self) -> bool {
        self.missed > 0
    }

    /// Whether all that had been missed is there now; said once.
    pub(super) fn is_made_up(&mut self) -> bool {
        self.missed == 0 && std::mem::take(&mut self.was_missed)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::path::UnitPath;

    #[test]
    fn what_was_missed_is_made_up_once_it_was_looked_at() {
        let place = |name: &str| Place { root: 0, path: UnitPath::new(name).unwrap() };
        let now = tokio::time::Instant::now().into_std();
        let mut relook = Relook::default();
        relook.insert(now, place("moved"));
        relook.insert_missed(now, place("a"));
        relook.insert_missed(now + Duration::from_secs(1), place("a"));
        relook.insert_missed(now, place("b"));
        assert_eq!(relook.missed().collect::<Vec<_>>(), [&place("a"), &place("b")]);
        assert_eq!(relook.pop_due(now), Some(place("b")));
        assert!(!relook.is_made_up());
        relook.forget(|gone| *gone == place("a"));
        assert!(relook.is_made_up() && !relook.is_made_up());
        assert_eq!(relook.next(), Some(now));
    }
}
