//! What a pickup's thread waits on: hints of the watcher, messages of everybody else, or a deadline.
//!
//! Putting something in never waits. Hints are bounded: past the bound they are dropped as a whole and the pickup is
//! told so, which is a rescan and no loss. A hint that another one is likely to follow at once is kept back for a moment:
//! whoever creates a file then writes and closes it, and one look is enough for the three.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::source::Hint;
use crate::source::watch::Notice;

/// How many hints wait at most. A rescan costs less than working off more than that.
const NOTICES_MAX: usize = 1 << 17;

/// How long a hint is kept back for what is likely to follow.
const FOLLOWED_WITHIN: Duration = Duration::from_millis(2);

/// How often others are let go first before what is likely to follow is slept for: mostly it follows at once, and a processor that
/// sleeps takes longer to wake than the rest of a file takes to be written.
const YIELDS_MAX: usize = 200;

/// A queue with one reader.
pub(super) struct Inbox<M> {
    state: Mutex<State<M>>,
    filled: Condvar,
}

struct State<M> {
    notices: Vec<Notice>,
    /// How many of them are to be handed out: up to the last that nothing is likely to follow.
    ripe: usize,
    /// When the others are ripe, too.
    ripens: Option<Instant>,
    messages: VecDeque<M>,
}

/// Everything that had gathered.
pub(super) struct Mail<M> {
    pub notices: Vec<Notice>,
    pub messages: VecDeque<M>,
}

impl<M> Inbox<M> {
    pub(super) fn new() -> Self {
        let state = State { notices: Vec::new(), ripe: 0, ripens: None, messages: VecDeque::new() };
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
            state.ripe = 1;
        }
        let is_followed = is_followed(&notice);
        // A long write comes as thousands of equal hints in a row.
        if state.notices.last() != Some(&notice) {
            state.notices.push(notice);
        }
        let count = state.notices.len();
        if !is_followed {
            state.ripe = count;
        }
        // Of those that are kept back, the first sets the time, and the others are no news.
        let is_news = !is_followed || count == state.ripe + 1;
        drop(state);
        if is_news {
            self.filled.notify_one();
        }
    }

    pub(super) fn message(&self, message: M) {
        self.lock().messages.push_back(message);
        self.filled.notify_one();
    }

    /// Takes out the first message that `is_wanted`, if one is there, and leaves all else.
    pub(super) fn take(&self, is_wanted: impl FnMut(&M) -> bool) -> Option<M> {
        let mut state = self.lock();
        let at = state.messages.iter().position(is_wanted)?;
        state.messages.remove(at)
    }

    /// Waits for anything, at the latest until `deadline`.
    pub(super) fn wait(&self, deadline: Option<Instant>, now: impl Fn() -> Instant) -> Mail<M> {
        let (mut state, mut yields) = (self.lock(), 0);
        loop {
            state.ripen(&now);
            if state.ripe > 0 || !state.messages.is_empty() {
                break;
            }
            if state.ripens.is_some() && yields < YIELDS_MAX {
                yields += 1;
                drop(state);
                std::thread::yield_now();
                state = self.lock();
                continue;
            }
            let until = [deadline, state.ripens].into_iter().flatten().min();
            state = match until {
                None => self.filled.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(now());
                    if left.is_zero() {
                        break;
                    }
                    self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        Mail { notices: state.take_ripe(), messages: std::mem::take(&mut state.messages) }
    }
}

impl<M> State<M> {
    fn ripen(&mut self, now: impl Fn() -> Instant) {
        if self.ripe == self.notices.len() {
            return;
        }
        let now = now();
        if *self.ripens.get_or_insert(now + FOLLOWED_WITHIN) <= now {
            self.ripe = self.notices.len();
        }
    }

    fn take_ripe(&mut self) -> Vec<Notice> {
        if self.ripe == 0 {
            return Vec::new();
        }
        self.ripens = None;
        let rest = self.notices.split_off(std::mem::take(&mut self.ripe));
        std::mem::replace(&mut self.notices, rest)
    }
}

/// Whether another hint about the same file is likely to come at once.
fn is_followed(notice: &Notice) -> bool {
    matches!(notice, Notice::Entry { hint: Some(Hint::Created | Hint::Written | Hint::Attributes), .. })
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
        // What is kept back comes after it.
        (0..NOTICES_MAX).for_each(|root| inbox.notice(Notice::Anchor { root, is_exchanged: true }));
        inbox.notice(entry("a", Hint::Created));
        let now = Instant::now();
        assert_eq!(inbox.wait(Some(now), || now).notices, [Notice::Overflow]);
    }

    #[test]
    fn equal_hints_in_a_row_are_one() {
        let inbox = Inbox::<()>::new();
        for _ in 0..1000 {
            inbox.notice(Notice::Anchor { root: 0, is_exchanged: true });
        }
        assert_eq!(inbox.wait(None, Instant::now).notices.len(), 1);
    }

    fn entry(name: &str, hint: Hint) -> Notice {
        let path = crate::path::UnitPath::new(name).unwrap();
        Notice::Entry { place: crate::source::Place { root: 0, path }, hint: Some(hint) }
    }

    #[test]
    fn creations_writes_and_attributes_are_kept_back() {
        let hints = [
            (Some(Hint::Created), true),
            (Some(Hint::Written), true),
            (Some(Hint::Attributes), true),
            (Some(Hint::Closed), false),
            (Some(Hint::MovedIn), false),
            (Some(Hint::Scan), false),
            (None, false),
        ];
        for (hint, is_kept_back) in hints {
            let (inbox, start) = (Inbox::<()>::new(), Instant::now());
            let place = crate::source::Place { root: 0, path: crate::path::UnitPath::new("a").unwrap() };
            inbox.notice(Notice::Entry { place, hint });
            assert_eq!(inbox.wait(Some(start), || start).notices.is_empty(), is_kept_back, "{hint:?}");
        }
    }

    /// The clock is read just before the wait, with the lock held: whatever is put in after that finds somebody waiting.
    #[test]
    fn whoever_waits_is_woken_by_a_hint_also_by_one_that_is_kept_back() {
        for hint in [Hint::Closed, Hint::Created] {
            let (inbox, (asked, waits)) = (Inbox::<()>::new(), std::sync::mpsc::channel());
            let now = || {
                let _nobody_cares_any_more = asked.send(());
                Instant::now()
            };
            let start = Instant::now();
            std::thread::scope(|scope| {
                let waiter = scope.spawn(|| inbox.wait(Some(start + Duration::from_secs(60)), now));
                waits.recv().unwrap();
                inbox.notice(entry("a", hint));
                assert_eq!(waiter.join().unwrap().notices, [entry("a", hint)]);
            });
            assert!(start.elapsed() < Duration::from_secs(30), "{hint:?}: it slept until its deadline");
        }
    }

    #[test]
    fn what_is_likely_to_be_followed_is_handed_out_with_what_follows() {
        let (inbox, start) = (Inbox::<()>::new(), Instant::now());
        let (created, closed, next) = (entry("a", Hint::Created), entry("a", Hint::Closed), entry("b", Hint::Created));
        inbox.notice(created.clone());
        assert_eq!(inbox.wait(Some(start), || start).notices, []);
        inbox.notice(closed.clone());
        inbox.notice(next.clone());
        assert_eq!(inbox.wait(Some(start), || start).notices, [created, closed]);
        assert_eq!(inbox.wait(Some(start), || start).notices, []);
        let later = start + FOLLOWED_WITHIN;
        assert_eq!(inbox.wait(None, || later).notices, [next]);
        inbox.notice(entry("c", Hint::Created));
        assert_eq!(inbox.wait(Some(later), || later).notices, [], "each is kept back for as long");
    }

    #[test]
    fn a_message_is_not_kept_back_and_does_not_hasten_a_hint() {
        let (inbox, start) = (Inbox::new(), Instant::now());
        inbox.notice(entry("a", Hint::Written));
        inbox.message(1);
        let mail = inbox.wait(None, || start);
        assert!(mail.notices.is_empty() && mail.messages == [1]);
        inbox.message(2);
        let mail = inbox.wait(None, || start + FOLLOWED_WITHIN);
        assert_eq!((mail.notices.len(), mail.messages.len()), (1, 1));
    }

    #[test]
    fn what_is_taken_out_leaves_the_others_in_order() {
        let inbox = Inbox::new();
        [1, 2, 3, 2].into_iter().for_each(|message| inbox.message(message));
        assert_eq!((inbox.take(|message| *message == 2), inbox.take(|message| *message == 4)), (Some(2), None));
        assert_eq!(inbox.wait(None, Instant::now).messages, [1, 3, 2]);
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let inbox = Inbox::<()>::new();
        let mail = inbox.wait(Some(Instant::now()), Instant::now);
        assert!(mail.notices.is_empty() && mail.messages.is_empty());
    }
}
