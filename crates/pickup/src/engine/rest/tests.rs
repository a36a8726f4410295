//! When a pickup wakes to put away what it captured.

use std::borrow::Cow;
use std::fs;

use serde_json::Value;

use super::{PACK_MIN, UNSAVED_MAX};
use crate::capture::{CapturedFile, Digest, Stored};
use crate::change::live::Live;
use crate::change::{Change, ChangeKind, Content};
use crate::config::PickupConfig;
use crate::engine::testing::{knowing, later};
use crate::journal::{CommittedGroup, IntendedGroup, IntendedStep, Intent, LiveChange, Origin};
use crate::path::UnitPath;
use crate::plan::{Aim, Group, Route, Scope, Step, Unit, Verdict, plan};

#[tokio::test]
async fn what_was_captured_is_put_away_when_nothing_is_deployed_and_nobody_wakes_for_it_before_or_after() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    fs::create_dir(base.join("in")).unwrap();
    fs::write(base.join("in/a"), "a").unwrap();
    let (mut pickup, _aside) = knowing(&base, PickupConfig::new("p", base.join("in")));
    // Also while changes wait for a release.
    pickup.held = Some(1);
    assert!(pickup.next_deadline() == pickup.put_away_at && pickup.put_away_at.is_some());
    pickup.put_away_at = Some(later(&pickup));
    pickup.put_away();
    assert!(pickup.put_away_at.is_some(), "it is too soon");
    pickup.is_busy = true;
    assert_eq!(pickup.next_deadline(), Some(pickup.next_rescan));
    let due = Some(pickup.shared.now());
    pickup.put_away_at = due;
    pickup.put_away();
    assert_eq!(pickup.put_away_at, due);
    pickup.is_busy = false;
    // Another pickup captured something since.
    pickup.added_before = pickup.shared.store.added() + 1;
    pickup.put_away();
    assert!(pickup.put_away_at > due);
    pickup.put_away_at = due;
    pickup.put_away();
    assert!(pickup.unsaved.is_empty() && pickup.put_away_at.is_some(), "first the journal is told what was seen");
    pickup.put_away();
    assert_eq!(pickup.next_deadline(), Some(pickup.next_rescan));
    assert!(!pickup.shared.store.has_recent());
}

#[tokio::test]
async fn the_journal_is_told_after_ten_seconds_although_another_pickup_captures() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    fs::create_dir(base.join("in")).unwrap();
    fs::write(base.join("in/a"), "a").unwrap();
    let (mut pickup, _aside) = knowing(&base, PickupConfig::new("p", base.join("in")));
    pickup.unsaved_since = pickup.shared.now().checked_sub(UNSAVED_MAX);
    // Another pickup captured something since, as it does all the time.
    pickup.added_before = pickup.shared.store.added() + 1;
    pickup.put_away_at = Some(pickup.shared.now());
    pickup.put_away();
    assert!(pickup.unsaved.is_empty());
}

#[tokio::test]
async fn what_a_commit_left_for_later_is_written_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    fs::create_dir(base.join("in")).unwrap();
    let (mut pickup, _aside) = knowing(&base, PickupConfig::new("p", base.join("in")));
    let of = |path: &str| Change {
        path: UnitPath::new(path).unwrap(),
        kind: ChangeKind::Added,
        content: Some(Content::File(CapturedFile::at(base.join("x"), Digest([0; 32]), 1, 0o644))),
        previous: None,
    };
    let accepts = |_: &Unit| Verdict::Accepted;
    let routes = [Route { deployer: "d", scope: Scope::Unit, accepts: &accepts }];
    let aim = Aim { pickup: "p", generation: 1, revision: None };
    let plan = plan(aim, ["a", "b"].map(of).into(), &Live::new(Stored::nowhere()), &routes);
    let group = |group: Group| {
        let step = |step: Step| IntendedStep {
            deployer: step.deployer.to_string().into(),
            config_digest: "".into(),
            unit: Cow::Owned(step.unit),
            old: None,
            staged: Some(Cow::Owned(Value::Null)),
        };
        IntendedGroup { steps: group.steps.into_iter().map(step).collect(), is_staged: true }
    };
    let groups: Vec<_> = plan.groups.into_iter().map(group).collect();
    let live = |group| CommittedGroup { group, live: vec![LiveChange { step: 0, receipt: Some(Value::Null) }] };
    let committed: Vec<_> = (0..groups.len()).map(live).collect();
    let intent = Intent { pickup: "p".into(), generation: 1, origin: Origin::Change, revision: None, groups };
    let id = pickup.shared.journal().intend(&intent, 0).unwrap();
    pickup.shared.journal().committed(id, &committed, 0).unwrap();
    pickup.put_away_at = Some(pickup.shared.now());
    while pickup.put_away_at.is_some_and(|at| at <= pickup.shared.now()) {
        pickup.put_away();
    }
    assert!(!pickup.shared.journal().write_later().unwrap(), "nothing was left");
    assert_eq!(pickup.shared.journal().contents_at("p", 1).unwrap().len(), 2);
}

#[tokio::test]
async fn once_many_were_put_away_the_room_that_they_took_is_given_back() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    fs::create_dir(base.join("in")).unwrap();
    fs::write(base.join("in/a"), "a").unwrap();
    let (mut pickup, _aside) = knowing(&base, PickupConfig::new("p", base.join("in")));
    let room = |pickup: &crate::engine::pickup::Pickup| pickup.since.capacity();
    for (many, is_given_back) in [(PACK_MIN - 2, false), (PACK_MIN, true)] {
        pickup.let_go = many;
        pickup.since.reserve(5000);
        pickup.put_away_at = Some(pickup.shared.now());
        while pickup.put_away_at.is_some_and(|at| at <= pickup.shared.now()) {
            pickup.put_away();
        }
        assert_eq!((room(&pickup) < 5000, pickup.let_go == 0), (is_given_back, is_given_back), "{many}");
    }
}
