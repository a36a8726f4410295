//! What a listing says of what was known.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::config::PickupConfig;
use crate::engine::aside::Aside;
use crate::engine::testing::{knowing, later};

/// A pickup that knows these files below `base`, which has these roots.
fn knowing_of(base: &Path, roots: &[&str], files: &[&str]) -> (Pickup, Aside) {
    let roots: Vec<PathBuf> = roots.iter().map(|root| base.join(root)).collect();
    for file in files.iter().map(|file| base.join(file)) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, file.as_os_str().as_encoded_bytes()).unwrap();
    }
    let config = PickupConfig { pickup_from: roots, ..PickupConfig::new("p", base) };
    let (pickup, aside) = knowing(base, config);
    assert_eq!(pickup.known.len(), files.len());
    (pickup, aside)
}

/// What is known, as root and path.
fn known(pickup: &Pickup) -> Vec<String> {
    pickup.known.keys().map(|place| format!("{} {}", place.root, place.path)).collect()
}

#[tokio::test]
async fn what_a_listing_misses_is_gone_and_nothing_else_is() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let files = ["one/a", "one/b/x", "one/b/y", "one/c/z", "two/a", "two/b/x"];
    let (mut pickup, _aside) = knowing_of(&base, &["one", "two"], &files);
    let now = later(&pickup);
    for (gone, listed, left) in [
        ("one/b/x", "", vec!["0 a", "0 b/y", "0 c/z", "1 a", "1 b/x"]),
        ("one/c", "b", vec!["0 a", "0 b/y", "0 c/z", "1 a", "1 b/x"]),
        ("two/a", "c", vec!["0 a", "0 b/y", "1 a", "1 b/x"]),
        ("one/b", "", vec!["0 a", "1 a", "1 b/x"]),
    ] {
        let gone = base.join(gone);
        if gone.is_dir() { fs::remove_dir_all(gone) } else { fs::remove_file(gone) }.unwrap();
        let top = Place { root: 0, path: UnitPath::new(listed).unwrap() };
        let walked = pickup.scan_changed(&top);
        pickup.compare_listing(now, &top, walked, Hint::Scan);
        assert_eq!(known(&pickup), left, "after a listing of `{listed}`");
    }
    let is_noted = |unit: &str| pickup.gathering.contains(&UnitPath::new(unit).unwrap());
    assert!(["b/x", "b/y", "c/z"].into_iter().all(is_noted));
}

/// A listing that found as many as are known may have found others.
#[tokio::test]
async fn what_was_renamed_without_a_word_is_gone_and_there() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let (mut pickup, _aside) = knowing_of(&base, &["in"], &["in/a", "in/b"]);
    fs::rename(base.join("in/b"), base.join("in/c")).unwrap();
    let now = later(&pickup);
    pickup.rescan_root(now, 0);
    pickup.look_at_due(now);
    assert_eq!(known(&pickup), ["0 a", "0 c"]);
}

#[tokio::test]
async fn what_cannot_be_listed_is_not_gone() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let (mut pickup, _aside) = knowing_of(&base, &["in"], &["in/a", "in/b/x"]);
    // As a directory that cannot be read leaves it; whoever runs this test may read all of them.
    let unreadable = vec![(UnitPath::new("b").unwrap(), "not allowed".to_owned())];
    let walked = Walked { unreadable, ..Walked::default() };
    pickup.listing += 1;
    fs::remove_dir_all(base.join("in/b")).unwrap();
    fs::remove_file(base.join("in/a")).unwrap();
    let top = Place { root: 0, path: UnitPath::root() };
    pickup.compare_listing(later(&pickup), &top, (walked, 0), Hint::Scan);
    assert_eq!(known(&pickup), ["0 b/x"]);
    assert!(pickup.refused.keys().any(|place| place.path.to_string() == "b"), "and why is told");
}
