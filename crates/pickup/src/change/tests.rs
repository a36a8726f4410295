//! Change sets, by data.
#![expect(clippy::disallowed_methods, reason = "some instant to count from")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::gather::{Gathering, Noted, Patience};
use super::*;

fn path(name: &str) -> UnitPath {
    UnitPath::new(name).unwrap()
}

fn file(byte: u8, mode: u32) -> Content {
    Content::File(CapturedFile::at(Path::new(""), Digest([byte; 32]), 1, mode))
}

/// All that may go.
fn closed(
    gathering: &mut Gathering,
    now: Instant,
    moving: bool,
    unsettled: impl Fn(&UnitPath) -> bool,
) -> BTreeSet<UnitPath> {
    gathering.close(now, moving, unsettled, |_| true, usize::MAX)
}

#[test]
fn of_what_was_captured_only_as_much_goes_as_may() {
    let (now, mut gathering) = (Instant::now(), Gathering::new(PATIENCE));
    for name in ["a", "b", "c"] {
        gathering.note(now, path(name), Noted::Captured);
    }
    let later = now + Duration::from_secs(10);
    let mut close = || gathering.close(later, false, |_| false, |_| panic!("it is known to be there"), 2);
    assert_eq!(close(), ["a", "b"].map(path).into());
    assert_eq!(close(), ["c"].map(path).into());
}

fn kinds(changes: &[Change]) -> Vec<(String, ChangeKind)> {
    changes.iter().map(|change| (change.path.to_string(), change.kind)).collect()
}

#[test]
fn each_difference_has_its_word() {
    let live: Live =
        ["gone", "edited", "chmod", "touched", "same"].map(|name| (path(name), file(1, 0o644))).into_iter().collect();
    let wanted: BTreeMap<_, _> = [
        ("new", file(1, 0o644)),
        ("edited", file(2, 0o644)),
        ("chmod", file(1, 0o755)),
        ("touched", file(1, 0o644)),
        ("same", file(1, 0o644)),
    ]
    .map(|(name, content)| (path(name), content))
    .into();
    let dirty = ["gone", "new", "edited", "chmod", "touched", "same", "came-and-went"].map(path).into();
    let changes = compare(&dirty, &[path("touched")].into(), |unit| wanted.get(unit).cloned(), &live);
    let expected = [
        ("chmod", ChangeKind::Modified),
        ("edited", ChangeKind::Modified),
        ("gone", ChangeKind::Removed),
        ("new", ChangeKind::Added),
        ("touched", ChangeKind::Touched),
    ];
    assert_eq!(kinds(&changes), expected.map(|(name, kind)| (name.to_string(), kind)));
}

#[test]
fn removals_are_doubted_when_they_look_like_an_accident() {
    let rows = [
        ((0, 0, false), None),
        ((1, 1, true), None),
        ((1, 1, false), Some(Doubt::Emptied)),
        ((3, 3, true), Some(Doubt::Emptied)),
        ((3, 4, true), None),
        ((3, 4, false), None),
        ((20, 21, true), None),
        ((21, 42, true), None),
        ((21, 41, true), Some(Doubt::Many)),
        ((500, 10_000, false), None),
    ];
    for ((gone, live, seen), expected) in rows {
        assert_eq!(doubt(gone, live, seen, true), expected, "{gone} of {live}, seen: {seen}");
        // Where something else is, nobody emptied anything: it may be the same under other names.
        let expected = expected.filter(|doubt| *doubt == Doubt::Many);
        assert_eq!(doubt(gone, live, seen, false), expected, "{gone} of {live}, seen: {seen}");
    }
}

const PATIENCE: Patience = Patience {
    quiet: Duration::from_millis(10),
    quiet_max: Duration::from_secs(1),
    settle: Duration::from_secs(2),
    alone_at_once: true,
    is_whole: false,
};

fn ms(start: Instant, milliseconds: u64) -> Instant {
    start + Duration::from_millis(milliseconds)
}

#[test]
fn one_complete_file_alone_goes_at_once() {
    let start = Instant::now();
    let mut gathering = Gathering::new(PATIENCE);
    gathering.note(start, path("a"), Noted::Complete);
    assert_eq!(closed(&mut gathering, start, false, |_| false), [path("a")].into());
    assert_eq!(gathering.next_deadline(|_| false), None);
}

#[test]
fn a_batch_closes_when_it_is_quiet() {
    let start = Instant::now();
    let mut gathering = Gathering::new(PATIENCE);
    gathering.note(start, path("a"), Noted::Complete);
    gathering.note(ms(start, 5), path("b"), Noted::Complete);
    assert!(closed(&mut gathering, ms(start, 14), false, |_| false).is_empty());
    assert_eq!(gathering.next_deadline(|_| false), Some(ms(start, 15)));
    assert_eq!(closed(&mut gathering, ms(start, 15), false, |_| false), [path("a"), path("b")].into());
}

#[test]
fn a_stream_that_never_pauses_is_cut_at_the_cap() {
    let start = Instant::now();
    let mut gathering = Gathering::new(PATIENCE);
    for at in 0..1000 {
        gathering.note(ms(start, at), path(&format!("{at}")), Noted::Complete);
        assert!(closed(&mut gathering, ms(start, at), true, |_| false).is_empty(), "{at}");
    }
    assert_eq!(closed(&mut gathering, ms(start, 1000), true, |_| false).len(), 1000);
}

#[test]
fn a_batch_that_is_full_waits_for_nothing_but_removals() {
    let start = Instant::now();
    let close = |gathering: &mut Gathering, at| gathering.close(ms(start, at), true, |_| false, |_| true, 2);
    let mut gathering = Gathering::new(PATIENCE);
    gathering.note(start, path("a"), Noted::Captured);
    gathering.note(start, path("a"), Noted::Captured);
    gathering.note(start, path("b"), Noted::Inside);
    assert!(close(&mut gathering, 0).is_empty(), "one was captured");
    gathering.note(start, path("c"), Noted::Captured);
    gathering.note(start, path("d"), Noted::Gone);
    assert!(close(&mut gathering, 1).is_empty());
    gathering.take(&[path("d")].into());
    assert_eq!(close(&mut gathering, 1), [path("a"), path("c")].into());
    gathering.note(start, path("e"), Noted::Captured);
    gathering.note(start, path("f"), Noted::Captured);
    gathering.take(&[path("f")].into());
    assert!(close(&mut gathering, 2).is_empty());
}

#[test]
fn one_unfinished_unit_never_holds_back_the_others() {
    let start = Instant::now();
    let mut gathering = Gathering::new(PATIENCE);
    gathering.note(start, path("slow"), Noted::Complete);
    gathering.note(start, path("done"), Noted::Complete);
    let slow = |unit: &UnitPath| *unit == path("slow");
    assert_eq!(closed(&mut gathering, ms(start, 10), true, slow), [path("done")].into());
    assert_eq!(gathering.next_deadline(slow), None);
    assert_eq!(closed(&mut gathering, ms(start, 30), false, |_| false), [path("slow")].into());
}

#[test]
fn a_removal_waits_for_the_file_to_come_back() {
    let start = Instant::now();
    let mut gathering = Gathering::new(PATIENCE);
    gathering.note(start, path("a"), Noted::Gone);
    assert!(closed(&mut gathering, ms(start, 100), false, |_| false).is_empty());
    gathering.note(ms(start, 100), path("a"), Noted::Complete);
    assert_eq!(closed(&mut gathering, ms(start, 110), false, |_| false), [path("a")].into());
}

#[test]
fn where_a_change_set_is_one_transaction_a_file_that_moves_goes_and_comes_together() {
    let start = Instant::now();
    let mut gathering = Gathering::new(Patience { is_whole: true, alone_at_once: false, ..PATIENCE });
    gathering.note(start, path("old"), Noted::Gone);
    gathering.note(ms(start, 1), path("new"), Noted::Complete);
    assert!(closed(&mut gathering, ms(start, 100), false, |_| false).is_empty());
    assert_eq!(gathering.next_deadline(|_| false), Some(ms(start, 200)));
    assert_eq!(closed(&mut gathering, ms(start, 200), false, |_| false), [path("new"), path("old")].into());
    assert_eq!(gathering.next_deadline(|_| false), None);
}

#[test]
fn removals_that_keep_coming_stay_together() {
    let start = Instant::now();
    let mut gathering = Gathering::new(PATIENCE);
    for at in 0..20 {
        gathering.note(ms(start, at * 100), path(&format!("{at}")), Noted::Gone);
        assert!(closed(&mut gathering, ms(start, at * 100 + 99), false, |_| false).is_empty(), "{at}");
    }
    assert_eq!(gathering.next_deadline(|_| false), Some(ms(start, 2100)));
    assert_eq!(closed(&mut gathering, ms(start, 2100), false, |_| false).len(), 20);
    for at in 3000..13_000 {
        gathering.note(ms(start, at), path(&format!("{at}")), Noted::Gone);
    }
    assert_eq!(closed(&mut gathering, ms(start, 13_000), false, |_| false).len(), 10_000);
}

#[test]
fn a_directory_that_is_one_artifact_must_stand_still() {
    let start = Instant::now();
    let mut gathering = Gathering::new(PATIENCE);
    gathering.note(start, path("app"), Noted::Inside);
    gathering.note(ms(start, 1500), path("app"), Noted::Inside);
    assert!(closed(&mut gathering, ms(start, 3499), false, |_| false).is_empty());
    assert_eq!(gathering.next_deadline(|_| false), Some(ms(start, 3500)));
    assert_eq!(closed(&mut gathering, ms(start, 3500), false, |_| false), [path("app")].into());
}

proptest! {
    /// Applying a change set to what is live gives what is wanted, and a second comparison finds nothing.
    #[test]
    fn a_change_set_turns_live_into_wanted(
        live in prop::collection::btree_map(0u8..12, (0u8..3, 0u32..2), 0..12),
        wanted in prop::collection::btree_map(0u8..12, (0u8..3, 0u32..2), 0..12),
    ) {
        let build = |map: BTreeMap<u8, (u8, u32)>| -> Live {
            map.into_iter().map(|(name, (byte, mode))| (path(&name.to_string()), file(byte, mode))).collect()
        };
        let (mut live, wanted) = (build(live), build(wanted));
        let dirty = (0..12).map(|name| path(&name.to_string())).collect();
        for change in compare(&dirty, &BTreeSet::new(), |unit| wanted.get(unit), &live) {
            match change.content {
                Some(content) => { live.insert(change.path, content); }
                None => prop_assert!(live.remove(&change.path)),
            }
        }
        prop_assert_eq!(live.contents(), wanted.contents());
        prop_assert!(compare(&dirty, &BTreeSet::new(), |unit| wanted.get(unit), &live).is_empty());
    }

    /// Whatever is noted and whenever: every unit goes exactly once for each note that is its last.
    #[test]
    fn every_dirty_unit_goes_in_the_end(
        notes in prop::collection::vec((0u8..6, 0u8..3, 0u64..50), 1..60),
        is_whole in any::<bool>(),
    ) {
        let mut now = Instant::now();
        let mut gathering = Gathering::new(Patience { is_whole, alone_at_once: !is_whole, ..PATIENCE });
        let mut open = BTreeSet::new();
        for (name, noted, pause) in notes {
            now += Duration::from_millis(pause);
            let noted = [Noted::Complete, Noted::Inside, Noted::Gone][noted as usize];
            gathering.note(now, path(&name.to_string()), noted);
            open.insert(path(&name.to_string()));
            for unit in closed(&mut gathering, now, true, |_| false) {
                prop_assert!(open.remove(&unit));
            }
        }
        while let Some(deadline) = gathering.next_deadline(|_| false) {
            now = now.max(deadline);
            let closed = closed(&mut gathering, now, false, |_| false);
            prop_assert!(!closed.is_empty());
            for unit in closed {
                prop_assert!(open.remove(&unit));
            }
        }
        prop_assert!(open.is_empty());
    }
}
