//! What a pickup does when there is nothing to do.

use std::time::{Duration, Instant};

use super::outcome::UNSAVED_MAX;
use super::pickup::Pickup;
use crate::capture::store::PUT_AWAY_AT_ONCE;

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "the tests are the writers")]
mod tests;

/// Fewer files than this are not worth packing.
const PACK_MIN: usize = 1024;
/// How long nothing may have been captured before what was captured is put away, and the journal is told what was seen: not
/// in the middle of a burst.
const PUT_AWAY_AFTER: Duration = Duration::from_millis(250);
/// How long a store or a journal that cannot be written is left alone.
const PUT_AWAY_PAUSE: Duration = Duration::from_secs(60);
/// How many files the journal is told of in one go, while others may wait.
const SAVED_AT_ONCE: usize = 1024;

impl Pickup {
    /// Gives back, once much was learned and nothing is left to do, what only the learning needed.
    pub(super) fn rest(&mut self) {
        let is_settled = self.unseen.is_empty() && self.settle.next_deadline().is_none();
        let is_idle = !self.is_busy && self.gathering.len() == 0 && is_settled;
        if !is_idle || self.known.len() < self.packed + self.packed / 8 + PACK_MIN {
            return;
        }
        // Nodes that were filled in order are half empty; built anew from what is sorted they are full, as a start does.
        if self.known.len() != self.loaded {
            self.known = std::mem::take(&mut self.known).into_iter().collect();
        }
        // The first root's come first.
        self.live.pack(self.known.keys().take_while(|place| place.root == 0).map(|place| &place.path));
        self.packed = self.known.len();
        self.give_back();
    }

    /// Gives back what a burst needed: collections keep the room that they had at their largest.
    fn give_back(&mut self) {
        self.since.shrink_to_fit();
        self.shared.store.rest();
        if let Err(error) = self.shared.journal().rest() {
            tracing::debug!(pickup = self.config.name, %error, "the journal keeps its memory");
        }
        trim();
        self.let_go = 0;
    }

    /// Something was captured just now: to work off what gathered may have taken a while.
    pub(super) fn put_away_later(&mut self) {
        let now = self.shared.now();
        let later = now + PUT_AWAY_AFTER;
        self.put_away_at = Some(if self.unsaved.is_empty() {
            later
        } else {
            let since = *self.unsaved_since.get_or_insert(now);
            later.min(since + UNSAVED_MAX)
        });
    }

    /// What is being deployed is needed sooner.
    pub(super) fn when_to_put_away(&self) -> Option<Instant> {
        self.put_away_at.filter(|_| !self.is_busy)
    }

    /// Tells the journal of some of what was seen, has it write what a commit left for later, and then gives files of their
    /// own to some of what was captured a moment ago; in between others go first.
    pub(super) fn put_away(&mut self) {
        let now = self.shared.now();
        if self.when_to_put_away().is_none_or(|at| at > now) {
            return;
        }
        let added = self.shared.store.added();
        if std::mem::replace(&mut self.added_before, added) != added && !self.is_overdue(now) {
            // Another pickup may be in the middle of a burst.
            return self.put_away_later();
        }
        if !self.unsaved.is_empty() {
            let before = self.unsaved.len();
            let is_saved = self.save_known(SAVED_AT_ONCE);
            self.let_go += before.saturating_sub(self.unsaved.len());
            self.put_away_at = Some(if is_saved { now } else { now + PUT_AWAY_PAUSE });
            return;
        }
        if self.write_later_at.is_none_or(|at| at <= now) {
            let written = self.shared.journal().write_later();
            self.write_later_at = None;
            match written {
                Ok(false) => {}
                Ok(true) => {
                    self.put_away_at = Some(now);
                    return;
                }
                // Until it is written the journal knows it otherwise, and nothing else waits for it.
                Err(error) => {
                    tracing::warn!(pickup = self.config.name, %error, "the journal writes some of it later");
                    self.write_later_at = Some(now + PUT_AWAY_PAUSE);
                }
            }
        }
        self.put_away_at = match self.shared.store.put_away_some() {
            Ok(true) => {
                self.let_go += PUT_AWAY_AT_ONCE;
                Some(now)
            }
            Ok(false) => {
                tracing::debug!(pickup = self.config.name, "what was captured is put away");
                if self.let_go >= PACK_MIN {
                    self.give_back();
                }
                self.write_later_at
            }
            Err(error) => {
                tracing::warn!(pickup = self.config.name, %error, "what was captured stays where it is for now");
                Some(now + PUT_AWAY_PAUSE)
            }
        };
    }
}

/// Returns to the system what was freed: glibc keeps it, for each thread that ever worked, and a start frees far more than
/// it leaves in use.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: it takes a number, may be called from any thread at any time, and touches nothing that is in use.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
