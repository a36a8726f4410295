//! What a look at one name tells about others.

use std::collections::BTreeSet;
use std::fs;

use super::*;
use crate::config::PickupConfig;
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
