//! Stage 2 of 8: observations in, settled paths out.
//!
//! A path is settled once nothing can still be writing to it. Time is an argument, the disk is not touched: what the
//! disk said is in the observation.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use crate::source::{Fingerprint, Hint, Place, Shape, Writer};

#[cfg(test)]
mod tests;

/// How long a new, empty file waits for its writer: `IN_CREATE` comes a few microseconds before the writer counts as one.
const EMPTY_WAIT: Duration = Duration::from_millis(250);
/// The kernel tells of a close a few microseconds before the writer no longer counts as one.
const CLOSE_LAG: Duration = Duration::from_millis(1);
/// Kernels before 6.13 stamp times by the tick, 10 ms at most: two writes closer than this may leave the same times.
const RACY: Duration = Duration::from_millis(20);
/// The longest pause between two looks at a path that does not move.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// What an unsettled path waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Somebody has it open for writing.
    Writer,
    /// It is new and empty.
    Empty,
    /// Its size and times have to stand still for this long.
    Still(Duration),
    /// Its own format says that something is missing.
    Partial(String),
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Writer => f.write_str("a program has it open for writing"),
            Self::Empty => f.write_str("it is new and empty, and its writer may not have begun"),
            Self::Still(window) => write!(f, "its size and times have to stand still for {window:?}"),
            Self::Partial(why) => write!(f, "it is incomplete: {why}"),
        }
    }
}

/// What settling says of one observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is writing to it: it may be captured.
    Settled,
    /// It has to wait; it will be asked for again by [`Settle::due`].
    Wait(Waiting),
}

#[derive(Clone, Debug)]
struct Pending {
    fingerprint: Fingerprint,
    /// When the fingerprint was first seen as it is.
    since: Instant,
    /// When it was seen last.
    seen: Instant,
    waiting: Waiting,
    due: Instant,
    pause: Duration,
}

/// The paths that are not settled yet.
#[derive(Clone, Debug)]
pub(crate) struct Settle {
    window: Duration,
    pending: HashMap<Place, Pending>,
    deadlines: BTreeSet<(Instant, Place)>,
}

/// One file as it was just seen.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub fingerprint: Fingerprint,
    pub hint: Hint,
    pub writer: Writer,
    pub shape: Shape,
    /// Whether its writers open and close it several times, so that only stillness counts.
    pub is_reopened: bool,
}

impl Settle {
    /// `window` is how long a path must stand still where nothing stronger proves that it is complete.
    pub(crate) fn new(window: Duration) -> Self {
        Self { window, pending: HashMap::new(), deadlines: BTreeSet::new() }
    }

    /// Takes what was seen at `place` and says whether it is settled.
    pub(crate) fn observe(&mut self, now: Instant, place: &Place, seen: &Seen) -> Verdict {
        let before = self.take(place);
        let since = match &before {
            Some(pending) if pending.fingerprint == seen.fingerprint => pending.since,
            _ => now,
        };
        let Some(waiting) = self.waits_for(now, since, seen) else { return Verdict::Settled };
        let pause = match &before {
            _ if seen.hint == Hint::Closed => CLOSE_LAG,
            // Nothing moved since the last look: look less and less often. An event comes at once all the same.
            Some(pending) if pending.since == since => (pending.pause * 2).min(LOOK_MAX),
            _ => self.window.max(Duration::from_millis(50)),
        };
        let due = match &waiting {
            Waiting::Empty => since + EMPTY_WAIT,
            Waiting::Still(window) => since + *window,
            Waiting::Writer | Waiting::Partial(_) => now + pause,
        };
        let pending = Pending { fingerprint: seen.fingerprint, since, seen: now, waiting: waiting.clone(), due, pause };
        self.deadlines.insert((due, place.clone()));
        self.pending.insert(place.clone(), pending);
        Verdict::Wait(waiting)
    }

    /// The rules, strongest signal first.
    fn waits_for(&self, now: Instant, since: Instant, seen: &Seen) -> Option<Waiting> {
        let is_still = now.saturating_duration_since(since) >= self.window;
        let still = (!is_still).then_some(Waiting::Still(self.window));
        match (seen.writer, &seen.shape, seen.hint) {
            (Writer::Somebody, _, _) => Some(Waiting::Writer),
            (_, Shape::Partial(why), _) => Some(Waiting::Partial(why.clone())),
            // The user told us that a close proves nothing here.
            _ if seen.is_reopened => still,
            (Writer::Nobody, _, Hint::Created | Hint::Scan) if seen.fingerprint.size == 0 => {
                let waited = now.saturating_duration_since(since) >= EMPTY_WAIT;
                (!waited).then_some(Waiting::Empty)
            }
            (Writer::Nobody, _, _) => None,
            // No lease to be had: a rename into place and a close are the next best proof.
            (Writer::Unknown, _, Hint::MovedIn | Hint::Closed) => None,
            (Writer::Unknown, _, Hint::Scan | Hint::Created | Hint::Written | Hint::Attributes) => still,
        }
    }

    /// Forgets a path: it is gone, or nothing about it changed after all.
    pub(crate) fn forget(&mut self, place: &Place) {
        self.take(place);
    }

    fn take(&mut self, place: &Place) -> Option<Pending> {
        let pending = self.pending.remove(place)?;
        self.deadlines.remove(&(pending.due, place.clone()));
        Some(pending)
    }

    /// The paths that should be looked at again now. They stay pending until they are observed or forgotten.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Place> {
        let mut due = Vec::new();
        while let Some((at, _)) = self.deadlines.first() {
            if *at > now {
                break;
            }
            if let Some((_, place)) = self.deadlines.pop_first() {
                due.push(place);
            }
        }
        due
    }

    /// When [`due`](Self::due) has something to say next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// What `place` waits for, if it does.
    pub(crate) fn waiting(&self, place: &Place) -> Option<&Waiting> {
        self.pending.get(place).map(|pending| &pending.waiting)
    }

    /// What was found incomplete at `place` for good, and what it lacks: it was looked at so long after it was first seen as it
    /// is that no other write hides behind the same times.
    pub(crate) fn partial(&self, place: &Place) -> Option<(&Fingerprint, &str)> {
        let pending = self.pending.get(place).filter(|pending| pending.seen - pending.since >= RACY)?;
        match &pending.waiting {
            Waiting::Partial(why) => Some((&pending.fingerprint, why)),
            Waiting::Writer | Waiting::Empty | Waiting::Still(_) => None,
        }
    }

    /// Every path that waits, and what for.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (&Place, &Waiting)> {
        self.pending.iter().map(|(place, pending)| (place, &pending.waiting))
    }
}
