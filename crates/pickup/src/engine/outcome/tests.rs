//! What is done once it is known what went live.

use std::fs;

use super::*;
use crate::config::PickupConfig;
use crate::engine::aside::Aside;
use crate::engine::known::Known;
use crate::engine::owed::Lingering;
use crate::engine::testing::knowing;
use crate::journal::Intent;
use crate::source::Hint;

/// One that knows `a` and `b`, which are old.
fn knowing_two() -> (tempfile::TempDir, Pickup, Aside) {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    fs::create_dir(base.join("in")).unwrap();
    for name in ["a", "b"] {
        fs::write(base.join("in").join(name), name).unwrap();
    }
    let (mut pickup, aside) = knowing(&base, PickupConfig::new("p", base.join("in")));
    grow_old(&mut pickup);
    (directory, pickup, aside)
}

/// As if all that is known had been written long ago: no fingerprint is too fresh to be told.
fn grow_old(pickup: &mut Pickup) {
    for (_, known) in pickup.known.iter_mut() {
        *known = Known::new(known.fingerprint, known.digest, false);
    }
}

#[tokio::test]
async fn a_version_that_came_during_a_deployment_is_not_deleted_until_it_is_live_too() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let (path, unit) = (base.join("in/a"), UnitPath::new("a").unwrap());
    fs::create_dir(base.join("in")).unwrap();
    fs::write(&path, "one").unwrap();
    let config = PickupConfig { delete_after_pickup: true, ..PickupConfig::new("p", base.join("in")) };
    let (mut pickup, _aside) = knowing(&base, config);
    let change = |content| Change { path: unit.clone(), kind: ChangeKind::Added, content, previous: None };
    let one = change(pickup.wanted(&unit));
    fs::write(base.join("next"), "two").unwrap();
    fs::rename(base.join("next"), &path).unwrap();
    let now = pickup.shared.now();
    pickup.look(now, Place { root: 0, path: unit.clone() }, Hint::MovedIn);
    let two = change(pickup.wanted(&unit));
    pickup.went_live(&one, 1, &[], 0, None);
    assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    pickup.went_live(&two, 2, &[], 0, None);
    assert!(!path.exists());
}

#[tokio::test]
async fn the_journal_is_told_what_was_seen_once_it_is_quiet_or_after_ten_seconds() {
    let (_directory, mut pickup, _aside) = knowing_two();
    let told = |pickup: &Pickup| {
        let known: Vec<KnownFile> = pickup.shared.journal().known("p", Some).unwrap();
        known.len()
    };
    let start = pickup.unsaved_since.unwrap();
    pickup.save_known_later(start);
    pickup.save_known_later(start + UNSAVED_MAX - Duration::from_millis(1));
    assert_eq!((told(&pickup), pickup.unsaved_since), (0, Some(start)));
    pickup.save_known(1);
    assert_eq!((told(&pickup), pickup.unsaved.len()), (1, 1));
    pickup.save_known_later(start + UNSAVED_MAX);
    assert_eq!((told(&pickup), pickup.unsaved.len(), pickup.unsaved_since), (2, 0, None));
    pickup.save_known_later(start + UNSAVED_MAX);
    assert_eq!(pickup.unsaved_since, None, "there is nothing to tell");
}

#[tokio::test]
async fn what_is_known_is_not_looked_at_again_however_fast_the_journal_is() {
    let (_directory, mut pickup, _aside) = knowing_two();
    pickup.save_known(usize::MAX);
    for waits in [false, true] {
        pickup.known.clear();
        pickup.reading = crate::engine::known::Reading::begin(&pickup.shared, "p", 1).unwrap();
        while waits && !pickup.reading.is_over() {
            std::thread::yield_now();
        }
        pickup.puts_off = true;
        pickup.rescan_root(pickup.shared.now(), 0);
        pickup.puts_off = false;
        assert_eq!(pickup.known.len(), 2, "{waits}");
        assert_eq!(pickup.unseen.len(), 0, "{waits}");
    }
}

#[tokio::test]
async fn a_touch_that_was_deployed_is_not_deployed_again_after_a_crash() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    fs::create_dir(base.join("in")).unwrap();
    let (path, unit) = (base.join("in/a"), UnitPath::new("a").unwrap());
    fs::write(&path, "a").unwrap();
    let (mut pickup, _aside) = knowing(&base, PickupConfig::new("p", base.join("in")));
    grow_old(&mut pickup);
    pickup.save_known(usize::MAX);
    let touched = std::time::SystemTime::now() + Duration::from_millis(100);
    fs::File::options().write(true).open(&path).unwrap().set_modified(touched).unwrap();
    let place = Place { root: 0, path: unit.clone() };
    pickup.look(pickup.shared.now(), place.clone(), Hint::Closed);
    assert!(pickup.touched.remove(&unit), "it is a wish");
    // It is deployed, and the change set is over: as `applied` does at its end.
    pickup.save_known_later(pickup.shared.now());
    // kill -9, and the next start.
    pickup.load_known(|_| true).unwrap();
    pickup.look(pickup.shared.now(), place, Hint::Scan);
    assert!(!pickup.touched.contains(&unit), "deployed twice");
}

#[tokio::test]
async fn what_lingers_is_tried_at_once_also_if_that_was_asked_for_during_a_deployment() {
    let (_directory, mut pickup, _aside) = knowing_two();
    let now = pickup.shared.now();
    let (origin, groups) = (Origin::Change, Vec::new());
    let intent = Intent { pickup: "p".into(), generation: 1, origin, revision: None, groups };
    let id = pickup.shared.journal().intend(&intent, 0).unwrap();
    pickup.owed.lingering.push(Lingering::new(id, BTreeSet::new(), now));
    let owed = std::mem::take(&mut pickup.owed);
    pickup.is_busy = true;
    pickup.retry(now, None);
    let (start, work, result) = (pickup.start, Work::Settle, Ok(Vec::new()));
    pickup.done(now, Done { start, work, result, live: Vec::new(), owed, loaded: None, drifted: BTreeSet::new() });
    assert_eq!(pickup.owed.next_try(), Some(now));
}
