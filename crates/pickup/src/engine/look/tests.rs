//! What a look at one name tells about others.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

use super::*;
use crate::config::PickupConfig;
use crate::config::WatchMode;
use crate::engine::batch::UNITS_MAX;
use crate::engine::testing::knowing;

#[tokio::test]
async fn a_file_in_the_place_of_a_directory_takes_away_what_was_below_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    for file in ["one/app/x", "one/app/y/z", "one/app-2", "one/b", "two/app/x"] {
        fs::create_dir_all(base.join(file).parent().unwrap()).unwrap();
        fs::write(base.join(file), file).unwrap();
    }
    let roots = ["one", "two"].map(|root| base.join(root)).into();
    let config = PickupConfig { pickup_from: roots, ..PickupConfig::new("p", base.join("one")) };
    let (mut pickup, _aside) = knowing(&base, config);
    assert_eq!(pickup.known.len(), 5);
    fs::remove_dir_all(base.join("one/app")).unwrap();
    fs::write(base.join("one/app"), "a file").unwrap();
    let path = |path: &str| UnitPath::new(path).unwrap();
    let now = pickup.shared.now();
    pickup.look(now, Place { root: 0, path: path("app") }, Hint::MovedIn);
    let known: Vec<_> = pickup.known.keys().map(|place| (place.root, place.path.to_string())).collect();
    let expected = [(0, "app"), (0, "app-2"), (0, "b"), (1, "app/x")];
    assert_eq!(BTreeSet::from_iter(known), BTreeSet::from(expected.map(|(root, path)| (root, path.to_owned()))));
    assert_eq!(pickup.seen_removed, BTreeSet::from([path("app/x"), path("app/y/z")]), "no mass removal to be doubted");
}

#[tokio::test]
async fn what_came_and_went_holds_nothing_up() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    fs::create_dir(base.join("in")).unwrap();
    let config = PickupConfig { quiet: Duration::ZERO, ..PickupConfig::new("p", base.join("in")) };
    let (mut pickup, _aside) = knowing(&base, config);
    pickup.is_recovered = true;
    let entry =
        |name: String, hint| Notice::Entry { place: Place { root: 0, path: UnitPath::new(&name).unwrap() }, hint };
    // Two writers: one moves its files in, and the other has taken its temporary away.
    let mut notices = vec![entry(".temporary".into(), Some(Hint::Created))];
    for number in 0..UNITS_MAX {
        fs::write(base.join("in").join(number.to_string()), "x").unwrap();
        notices.push(entry(number.to_string(), Some(Hint::MovedIn)));
    }
    notices.push(entry(".temporary".into(), None));
    pickup.hear(pickup.shared.now(), notices);
    assert!(pickup.is_busy, "the lane has something to do before all is heard");
}

/// Nobody waits for the rest of a thousand, or for an hour; but what fits into one change set is one.
#[tokio::test]
async fn of_a_burst_that_went_in_parts_the_last_are_small() {
    for is_split in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        fs::create_dir(base.join("in")).unwrap();
        let config = PickupConfig { quiet: Duration::from_secs(3600), ..PickupConfig::new("p", base.join("in")) };
        let (mut pickup, _aside) = knowing(&base, config);
        (pickup.is_recovered, pickup.is_split) = (true, is_split);
        let files = (0..UNITS_MAX - 1).map(|number| number.to_string());
        let notices = files.map(|name| {
            fs::write(base.join("in").join(&name), &name).unwrap();
            Notice::Entry { place: Place { root: 0, path: UnitPath::new(&name).unwrap() }, hint: Some(Hint::MovedIn) }
        });
        let notices = notices.collect();
        pickup.hear(pickup.shared.now(), notices);
        assert_eq!(pickup.in_hand.len(), if is_split { 250 } else { 0 });
        assert_eq!((pickup.is_split, pickup.hints_left), (is_split, 0));
    }
}

#[tokio::test]
async fn directories_that_are_watched_together_are_all_watched_and_listed() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    fs::create_dir(base.join("in")).unwrap();
    let (mut pickup, _aside) = knowing(&base, PickupConfig::new("p", base.join("in")));
    let (tell, told) = std::sync::mpsc::channel();
    pickup.subscriber = pickup.shared.watcher.subscribe(Arc::new(move |notice| drop(tell.send(notice))));
    pickup.config = Arc::new(PickupConfig { watch: WatchMode::Auto, ..PickupConfig::clone(&pickup.config) });
    let names: Vec<String> = (0..3 * WATCHED_AHEAD).map(|number| number.to_string()).collect();
    let place = |path: &str| Place { root: 0, path: UnitPath::new(path).unwrap() };
    let mut notices = vec![Notice::Entry { place: place("not-there"), hint: Some(Hint::Created) }];
    for name in &names {
        fs::create_dir(base.join("in").join(name)).unwrap();
        fs::write(base.join("in").join(name).join("x"), "x").unwrap();
        notices.push(Notice::Entry { place: place(name), hint: Some(Hint::Created) });
    }
    pickup.hear(pickup.shared.now(), notices);
    assert_eq!(pickup.known.len(), names.len());
    assert!(pickup.watched.is_empty(), "the next that is told of one of them watches it anew");
    // As if it had been watched together with others, and had gone before it was listed.
    pickup.watched.insert(place("gone"));
    pickup.hear(pickup.shared.now(), vec![Notice::Entry { place: place(&names[0]), hint: Some(Hint::Created) }]);
    assert!(pickup.watched.is_empty());
    for name in &names {
        fs::write(base.join("in").join(name).join("y"), "y").unwrap();
    }
    let mut missing: BTreeSet<Place> = names.iter().map(|name| place(&format!("{name}/y"))).collect();
    while !missing.is_empty() {
        let notice = told.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("not watched: {missing:?}"));
        if let Notice::Entry { place, .. } = notice {
            missing.remove(&place);
        }
    }
}
