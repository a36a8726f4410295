//! Settling, by data: who has the file open, how we learned of it, and when.
#![expect(clippy::disallowed_methods, reason = "some instant to count from")]

use super::*;
use crate::path::UnitPath;
use proptest::prelude::*;

fn place() -> Place {
    Place { root: 0, path: UnitPath::new("a").unwrap() }
}

fn fingerprint(size: u64, mtime: i64) -> Fingerprint {
    Fingerprint { dev: 1, ino: 1, size, mtime, ctime: mtime, mode: 0o644 }
}

fn seen(size: u64, hint: Hint, writer: Writer) -> Seen {
    Seen { fingerprint: fingerprint(size, 1), hint, writer, shape: Shape::Whole, is_reopened: false }
}

const WINDOW: Duration = Duration::from_secs(2);

/// One row: what is seen first, and whether it is settled at once.
#[test]
fn the_strongest_signal_decides() {
    let still = Verdict::Wait(Waiting::Still(WINDOW));
    let rows = [
        (seen(1, Hint::Closed, Writer::Somebody), Verdict::Wait(Waiting::Writer)),
        (seen(1, Hint::MovedIn, Writer::Somebody), Verdict::Wait(Waiting::Writer)),
        (seen(1, Hint::Scan, Writer::Somebody), Verdict::Wait(Waiting::Writer)),
        (seen(1, Hint::Scan, Writer::Nobody), Verdict::Settled),
        (seen(1, Hint::Created, Writer::Nobody), Verdict::Settled),
        (seen(1, Hint::Written, Writer::Nobody), Verdict::Settled),
        (seen(0, Hint::Created, Writer::Nobody), Verdict::Wait(Waiting::Empty)),
        (seen(0, Hint::Scan, Writer::Nobody), Verdict::Wait(Waiting::Empty)),
        (seen(0, Hint::Closed, Writer::Nobody), Verdict::Settled),
        (seen(0, Hint::MovedIn, Writer::Nobody), Verdict::Settled),
        (seen(1, Hint::Closed, Writer::Unknown), Verdict::Settled),
        (seen(1, Hint::MovedIn, Writer::Unknown), Verdict::Settled),
        (seen(1, Hint::Scan, Writer::Unknown), still.clone()),
        (seen(1, Hint::Created, Writer::Unknown), still.clone()),
        (seen(1, Hint::Written, Writer::Unknown), still.clone()),
        (Seen { is_reopened: true, ..seen(1, Hint::Closed, Writer::Nobody) }, still),
    ];
    for (seen, expected) in rows {
        let verdict = Settle::new(WINDOW).observe(Instant::now(), &place(), &seen);
        assert_eq!(verdict, expected, "{seen:?}");
    }
}

#[test]
fn a_cut_off_archive_waits_whatever_the_signal() {
    let partial = Shape::Partial("zip: cut off".into());
    let seen = Seen { shape: partial, ..seen(9, Hint::MovedIn, Writer::Nobody) };
    let verdict = Settle::new(WINDOW).observe(Instant::now(), &place(), &seen);
    assert_eq!(verdict, Verdict::Wait(Waiting::Partial("zip: cut off".into())));
}

#[test]
fn stillness_is_counted_from_the_last_change() {
    let start = Instant::now();
    let mut settle = Settle::new(WINDOW);
    let growing = |size| Seen { fingerprint: fingerprint(size, 1), ..seen(0, Hint::Scan, Writer::Unknown) };
    let second = Duration::from_secs(1);
    for (at, size) in [(0, 1), (1, 2), (2, 3)] {
        let verdict = settle.observe(start + second * at, &place(), &growing(size));
        assert!(matches!(verdict, Verdict::Wait(_)), "{at}");
    }
    assert_eq!(settle.next_deadline(), Some(start + second * 4));
    assert_eq!(settle.due(start + second * 3), []);
    assert_eq!(settle.due(start + second * 4), [place()]);
    assert_eq!(settle.observe(start + second * 4, &place(), &growing(3)), Verdict::Settled);
    assert_eq!(settle.next_deadline(), None);
}

#[test]
fn a_path_that_never_moves_is_looked_at_less_and_less_often() {
    let mut now = Instant::now();
    let mut settle = Settle::new(WINDOW);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        settle.observe(now, &place(), &seen(1, Hint::Scan, Writer::Somebody));
        let due = settle.next_deadline().unwrap();
        pauses.push((due - now).as_secs());
        now = due;
        assert_eq!(settle.due(now), [place()]);
    }
    assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
}

#[test]
fn a_close_that_is_told_before_it_is_done_is_looked_at_again_at_once() {
    let start = Instant::now();
    let mut settle = Settle::new(WINDOW);
    settle.observe(start, &place(), &seen(1, Hint::Written, Writer::Somebody));
    settle.observe(start, &place(), &seen(1, Hint::Closed, Writer::Somebody));
    let due = start + CLOSE_LAG;
    assert_eq!(settle.next_deadline(), Some(due));
    assert_eq!(settle.due(due), [place()]);
    settle.observe(due, &place(), &seen(1, Hint::Scan, Writer::Somebody));
    assert_eq!(settle.next_deadline(), Some(due + CLOSE_LAG * 2));
}

proptest! {
    /// Whatever is observed in whatever order: a path with a writer is never settled, and a path that waits is always
    /// asked for again.
    #[test]
    fn nothing_that_waits_is_forgotten(steps in prop::collection::vec((0u64..3, 0u8..6, 0u8..3, any::<bool>(), 0u64..3000), 1..60)) {
        let mut now = Instant::now();
        let mut settle = Settle::new(WINDOW);
        for (size, hint, writer, is_reopened, pause) in steps {
            now += Duration::from_millis(pause);
            let hint = [Hint::Scan, Hint::Created, Hint::Written, Hint::Attributes, Hint::Closed, Hint::MovedIn][hint as usize];
            let writer = [Writer::Nobody, Writer::Somebody, Writer::Unknown][writer as usize];
            let seen = Seen { is_reopened, ..seen(size, hint, writer) };
            settle.due(now);
            match settle.observe(now, &place(), &seen) {
                Verdict::Settled => {
                    prop_assert_ne!(writer, Writer::Somebody);
                    prop_assert!(settle.next_deadline().is_none() && settle.waiting(&place()).is_none());
                }
                Verdict::Wait(waiting) => {
                    prop_assert_eq!(settle.waiting(&place()), Some(&waiting));
                    let due = settle.next_deadline();
                    prop_assert!(due.is_some_and(|due| due > now && due <= now + LOOK_MAX));
                }
            }
        }
    }
}

#[test]
fn what_is_incomplete_is_so_for_good_once_it_is_judged_after_its_last_tick() {
    let start = Instant::now();
    let mut settle = Settle::new(WINDOW);
    let partial = |mtime| Seen {
        fingerprint: fingerprint(1, mtime),
        shape: Shape::Partial("cut".into()),
        ..seen(1, Hint::Scan, Writer::Nobody)
    };
    let written = Seen { writer: Writer::Somebody, ..partial(2) };
    // When it is seen how, and whether that is for good.
    let looks = [(0, partial(1), false), (19, partial(1), false), (20, partial(1), true), (21, partial(1), true)];
    let later = [(22, partial(2), false), (60, written, false), (61, partial(2), true)];
    for (at, seen, is_for_good) in looks.into_iter().chain(later) {
        settle.observe(start + Duration::from_millis(at), &place(), &seen);
        let expected = is_for_good.then_some((seen.fingerprint, "cut"));
        assert_eq!(settle.partial(&place()).map(|(judged, why)| (*judged, why)), expected, "after {at} ms");
    }
}
