//! When a change set closes: quiet, or a cap, or one atomic change alone.
//!
//! Pure: what changed is noted with the time it was seen, and the answer is which units may go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::path::UnitPath;

/// How long a removal is held back, because editors and git delete a file just before they create it again.
const REMOVAL_GRACE: Duration = Duration::from_millis(200);
/// How long removals that keep coming are held back at most: together they show whether they are an accident.
const REMOVALS_MAX: Duration = Duration::from_secs(10);

/// What was noted about a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// It is judged again: nothing more can be known about it.
    Complete,
    /// The same of a file that is complete and was just captured.
    Captured,
    /// Something inside a directory changed, and more may come.
    Inside,
    /// A path is gone.
    Gone,
}

/// How long each kind of change waits for company.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How long a batch waits for the next change.
    pub quiet: Duration,
    /// How long `quiet` can hold it back at most.
    pub quiet_max: Duration,
    /// How long a directory that is one artifact must stand still.
    pub settle: Duration,
    /// Whether one complete file may go at once when nothing else moves.
    pub alone_at_once: bool,
    /// Whether a change set is one transaction: then what goes and what comes go together.
    pub is_whole: bool,
}

/// The units that changed since the last change set closed.
#[derive(Debug)]
pub(crate) struct Gathering {
    patience: Patience,
    dirty: BTreeMap<UnitPath, Held>,
    /// How many of them were just captured.
    captured: usize,
    opened: Option<Instant>,
    moved: Option<Instant>,
    /// When the first and when the last of the removals was noted that wait.
    removals: Option<(Instant, Instant)>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    until: Instant,
    noted: Noted,
}

impl Gathering {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, dirty: BTreeMap::new(), captured: 0, opened: None, moved: None, removals: None }
    }

    /// Notes that something about `unit` changed at `now`.
    pub(crate) fn note(&mut self, now: Instant, unit: UnitPath, noted: Noted) {
        let until = match noted {
            Noted::Complete | Noted::Captured => now,
            Noted::Inside => now + self.patience.settle,
            // As all removals: until none came for a while.
            Noted::Gone => {
                let first = self.removals.map_or(now, |(first, _)| first);
                self.removals = Some((first, now));
                now
            }
        };
        // A file that comes back during the grace of its removal need not wait for the rest of it.
        let before = self.dirty.insert(unit, Held { until, noted });
        self.captured += usize::from(noted == Noted::Captured);
        self.captured -= usize::from(before.is_some_and(|before| before.noted == Noted::Captured));
        self.opened.get_or_insert(now);
        self.moved = Some(now);
    }

    /// Takes the units that may go now, or none. `unsettled` says whether a unit has a path that is still written to;
    /// `moving` whether any path at all has. Of those that `is_put` names, at most `puts_max` go; the rest stay for the
    /// next time, and cost nothing but to be passed over. Where so many were captured, nothing more is waited for.
    pub(crate) fn close(
        &mut self,
        now: Instant,
        moving: bool,
        unsettled: impl Fn(&UnitPath) -> bool,
        is_put: impl Fn(&UnitPath) -> bool,
        puts_max: usize,
    ) -> BTreeSet<UnitPath> {
        let alone = self.patience.alone_at_once
            && !moving
            && self.dirty.len() == 1
            && self.dirty.values().all(|held| matches!(held.noted, Noted::Complete | Noted::Captured));
        // What goes may have to go with what comes.
        let is_full = self.captured >= puts_max && self.removals.is_none();
        if !alone && !is_full && self.batch_deadline().is_none_or(|deadline| deadline > now) {
            return BTreeSet::new();
        }
        if self.patience.is_whole && self.removals_due().is_some_and(|due| due > now) {
            return BTreeSet::new();
        }
        let may_go = |(unit, held): &(&UnitPath, &Held)| self.until(held) <= now && !unsettled(unit);
        let mut puts = 0;
        let fits = |(unit, held): &(&UnitPath, &Held)| {
            // Of many that wait, those that are passed over are asked about each time: the cheap question first.
            let is_put = held.noted == Noted::Captured || is_put(unit);
            puts += usize::from(is_put);
            !is_put || puts <= puts_max
        };
        let closed: BTreeSet<UnitPath> =
            self.dirty.iter().filter(may_go).filter(fits).map(|(unit, _)| unit.clone()).collect();
        if !closed.is_empty() {
            for unit in &closed {
                let held = self.dirty.remove(unit);
                self.captured -= usize::from(held.is_some_and(|held| held.noted == Noted::Captured));
            }
            self.opened = (!self.dirty.is_empty()).then_some(now);
            if !self.dirty.values().any(|held| held.noted == Noted::Gone) {
                self.removals = None;
            }
        }
        closed
    }

    fn until(&self, held: &Held) -> Instant {
        match (held.noted, self.removals) {
            (Noted::Gone, Some((first, last))) => {
                (last + REMOVAL_GRACE.max(self.patience.quiet)).min(first + REMOVALS_MAX)
            }
            (Noted::Gone | Noted::Complete | Noted::Captured | Noted::Inside, _) => held.until,
        }
    }

    /// When the removals that wait may go.
    fn removals_due(&self) -> Option<Instant> {
        let mut removals = self.dirty.values().filter(|held| held.noted == Noted::Gone);
        removals.next().map(|held| self.until(held))
    }

    fn batch_deadline(&self) -> Option<Instant> {
        let (opened, moved) = (self.opened?, self.moved?);
        Some((moved + self.patience.quiet).min(opened + self.patience.quiet_max))
    }

    /// When [`close`](Self::close) may have something to give. A unit with unsettled paths is not counted: it is asked
    /// for again when they settle.
    pub(crate) fn next_deadline(&self, unsettled: impl Fn(&UnitPath) -> bool) -> Option<Instant> {
        let batch = self.batch_deadline()?;
        let waits = self.dirty.iter().filter(|(unit, _)| !unsettled(unit)).map(|(_, held)| self.until(held));
        let removals = if self.patience.is_whole { self.removals_due() } else { None };
        waits.min().map(|until| until.max(batch).max(removals.unwrap_or(batch)))
    }

    /// Takes out units that go another way.
    pub(crate) fn take(&mut self, units: &BTreeSet<UnitPath>) {
        self.dirty.retain(|unit, _| !units.contains(unit));
        self.captured = self.dirty.values().filter(|held| held.noted == Noted::Captured).count();
        if self.dirty.is_empty() {
            self.opened = None;
        }
        if !self.dirty.values().any(|held| held.noted == Noted::Gone) {
            self.removals = None;
        }
    }

    /// Whether all that waits here was just captured.
    pub(crate) fn is_all_captured(&self) -> bool {
        self.captured == self.dirty.len()
    }

    /// What waits here and was not just captured.
    pub(crate) fn not_captured(&self) -> impl Iterator<Item = &UnitPath> {
        self.dirty.iter().filter(|(_, held)| held.noted != Noted::Captured).map(|(unit, _)| unit)
    }

    /// Whether `unit` waits here.
    pub(crate) fn contains(&self, unit: &UnitPath) -> bool {
        self.dirty.contains_key(unit)
    }

    /// Whether a removal waits here.
    pub(crate) fn holds_removals(&self) -> bool {
        self.removals.is_some()
    }

    /// How many units wait here.
    pub(crate) fn len(&self) -> usize {
        self.dirty.len()
    }
}
