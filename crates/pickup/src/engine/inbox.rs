//! What a pickup's thread waits on: hints of the watcher, messages of everybody else, or a deadline.
//!
//! Putting something in never waits. Hints are bounded: past the bound they are dropped as a whole and the pickup is
//! told so, which is a rescan and no loss.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::source::watch::Notice;

/// How many hints wait at most. A rescan costs less than working off more than that.
const NOTICES_MAX: usize = 1 << 17;

/// A queue with one reader.
pub(super) struct Inbox<M> {
    state: Mutex<State<M>>,
    filled: Condvar,
}

struct State<M> {
    notices: Vec<Notice>,
    messages: VecDeque<M>,
}

/// Everything that had gathered.
pub(super) struct Mail<M> {
    pub notices: Vec<Notice>,
    pub messages: VecDeque<M>,
}

impl<M> Inbox<M> {
    pub(super) fn new() -> Self {
        let state = State { notices: Vec::new(), messages: VecDeque::new() };
        Self { state: Mutex::new(state), filled: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<M>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn notice(&self, notice: Notice) {
        let mut state = self.lock();
        if state.notices.len() >= NOTICES_MAX {
            state.notices.clear();
            state.notices.push(Notice::Overflow);
        }
        // A long write comes as thousands of equal hints in a row.
        if state.notices.last() != Some(&notice) {
            state.notices.push(notice);
        }
        drop(state);
        self.filled.notify_one();
    }

    pub(super) fn message(&self, message: M) {
        self.lock().messages.push_back(message);
        self.filled.notify_one();
    }

    /// Waits for anything, at the latest until `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>, now: impl Fn() -> Instant) -> Mail<M> {
        let mut state = self.lock();
        while state.notices.is_empty() && state.messages.is_empty() {
            state = match deadline {
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(now());
                    if left.is_zero() {
                        break;
                    }
                    self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Mail { notices: std::mem::take(&mut state.notices), messages: std::mem::take(&mut state.messages) }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a test of waiting needs the clock")]
mod tests {
    use super::*;

    #[test]
    fn too_many_hints_become_one_overflow() {
        let inbox = Inbox::<()>::new();
        for root in 0..NOTICES_MAX + 1 {
            inbox.notice(Notice::Anchor { root, is_exchanged: true });
        }
        let mail = inbox.wait(None, Instant::now);
        assert_eq!(mail.notices, [Notice::Overflow, Notice::Anchor { root: NOTICES_MAX, is_exchanged: true }]);
    }

    #[test]
    fn equal_hints_in_a_row_are_one() {
        let inbox = Inbox::<()>::new();
        for _ in 0..1000 {
            inbox.notice(Notice::Anchor { root: 0, is_exchanged: true });
        }
        assert_eq!(inbox.wait(None, Instant::now).notices.len(), 1);
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let inbox = Inbox::<()>::new();
        let mail = inbox.wait(Some(Instant::now()), Instant::now);
        assert!(mail.notices.is_empty() && mail.messages.is_empty());
    }
}
