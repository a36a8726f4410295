//! Directories that are exchanged while they are captured, each file of a version with its number in it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::change::Content;
use crate::config::UnitKind;
use crate::deploy::{Unit, from_fn};
use crate::engine::aside::Aside;
use crate::engine::pickup::Pickup;
use crate::engine::testing::{knowing, later};
use crate::path::UnitPath;
use crate::source::Place;
use crate::{Config, Engine, PickupConfig, SyncOptions};

/// The versions among the files of each deployment.
type Live = Arc<Mutex<Vec<BTreeSet<String>>>>;

fn versions(unit: &Unit) -> BTreeSet<String> {
    let files = unit.content.iter().flat_map(Content::files);
    files.map(|file| file.read_to_string().unwrap().lines().next().unwrap().to_owned()).collect()
}

async fn started(base: &Path, unit: UnitKind) -> (Engine, Live) {
    let live = Live::default();
    let seen = live.clone();
    let deployer = from_fn(move |unit: Unit| {
        seen.lock().unwrap().push(versions(&unit));
        std::future::ready(Ok::<(), std::io::Error>(()))
    });
    let (quiet, settle) = (Duration::from_millis(1), Duration::from_millis(5));
    let pickup =
        PickupConfig { unit, quiet, settle, deploy_to: vec!["mine".into()], ..PickupConfig::new("p", base.join("in")) };
    let config = Config::default().state_dir(base.join("state")).pickup(pickup);
    let engine = Engine::builder(config).deployer("mine", deployer).start().await.unwrap();
    (engine, live)
}

/// A version: how many files it has depends on it, too, and so do their contents after the first line.
fn make(directory: &Path, version: usize) {
    fs::create_dir_all(directory.join("below")).unwrap();
    for member in 0..20 + version % 3 {
        let content = format!("{version}\n{member}");
        fs::write(directory.join(member.to_string()), &content).unwrap();
        fs::write(directory.join("below").join(member.to_string()), content).unwrap();
    }
}

fn exchange(one: &Path, other: &Path) {
    renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
}

/// Exchanges `exchanged` for 100 versions one after the other.
async fn is_one_version_whenever_it_is_live(unit: UnitKind, exchanged: &str) {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let exchanged = base.join(exchanged);
    make(&exchanged, 0);
    let (engine, live) = started(&base, unit).await;
    let writer = tokio::task::spawn_blocking(move || {
        for version in 1..=100 {
            let made = base.join(format!("made{version}"));
            make(&made, version);
            exchange(&made, &exchanged);
        }
        fs::read_to_string(exchanged.join("0")).unwrap().lines().next().unwrap().to_owned()
    });
    let last = writer.await.unwrap();
    engine.sync(None, SyncOptions::default()).await.unwrap();
    engine.shutdown().await;
    let live = live.lock().unwrap();
    let mixed: Vec<_> = live.iter().filter(|versions| versions.len() > 1).collect();
    assert!(mixed.is_empty(), "{mixed:?}, of {}", live.len());
    assert_eq!(live.last(), Some(&BTreeSet::from([last])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_that_is_exchanged_for_the_next_again_and_again_is_one_version() {
    is_one_version_whenever_it_is_live(UnitKind::Directory, "in/app").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_exchanged_within_a_tree_is_one_version() {
    is_one_version_whenever_it_is_live(UnitKind::Tree, "in/app").await;
}

/// A pickup of units that are directories.
fn pickup(base: &Path) -> (Pickup, Aside) {
    knowing(base, PickupConfig { unit: UnitKind::Directory, ..PickupConfig::new("p", base.join("in")) })
}

/// `in/app` with a file, and with two in a directory below; `other` is the next version of it, and has just those.
fn two_versions(base: &Path) {
    for (version, directory) in ["in/app", "other"].map(|name| base.join(name)).iter().enumerate() {
        fs::create_dir_all(directory.join("below")).unwrap();
        for name in ["0", "below/1", "below/2"] {
            fs::write(directory.join(name), version.to_string()).unwrap();
        }
    }
}

fn app() -> Place {
    Place { root: 0, path: UnitPath::new("app").unwrap() }
}

#[tokio::test]
async fn a_unit_is_as_captured_if_all_of_it_is_there_and_nothing_else() {
    type Change = fn(&Path);
    let changes: [(&str, Change, bool); 6] = [
        ("none", |_| {}, true),
        ("one more", |base| fs::write(base.join("in/app/below/3"), "0").unwrap(), false),
        ("one less", |base| fs::remove_file(base.join("in/app/below/2")).unwrap(), false),
        ("another of that name", |base| fs::rename(base.join("other/0"), base.join("in/app/0")).unwrap(), false),
        ("all of it", |base| exchange(&base.join("in/app"), &base.join("other")), false),
        ("it is gone", |base| fs::rename(base.join("in/app"), base.join("gone")).unwrap(), false),
    ];
    for (what, change, expected) in changes {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        two_versions(&base);
        let (mut pickup, _aside) = pickup(&base);
        assert_eq!(pickup.known.len(), 3);
        change(&base);
        assert_eq!(pickup.is_as_captured(&app(), &mut |_, _, _| {}), expected, "{what}");
        let closed = pickup.next_change_set(later(&pickup), Pickup::hold_back_moving);
        assert_eq!(closed.is_some_and(|set| set.closed.contains(&app().path)), expected, "{what}");
        assert_eq!(pickup.gathering.contains(&app().path), !expected, "{what}: it is waited for");
        pickup.look_at_due(later(&pickup));
        assert!(pickup.is_as_captured(&app(), &mut |_, _, _| {}), "{what}: it was looked at again");
    }
}

/// What was captured while the other version had the name lacks a file, and so does what is listed while it has it again.
#[tokio::test]
async fn a_version_that_gives_its_name_away_while_it_is_listed_and_takes_it_back_is_not_as_captured() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let (ours, other) = (base.join("in/app"), base.join("other"));
    two_versions(&base);
    let (mut pickup, _aside) = pickup(&base);
    fs::write(ours.join("below/3"), "0").unwrap();
    let changed = || fs::metadata(&ours).map(|found| (found.ctime(), found.ctime_nsec())).unwrap();
    let before = changed();
    let mut listed = Vec::new();
    let is_as_captured = pickup.is_as_captured(&app(), &mut |_, directory, found| {
        listed.push((directory.to_string(), found.len()));
        exchange(&ours, &other);
        // Older kernels tell times apart that are some milliseconds apart.
        while listed.len() == 2 && changed() == before {
            (0..2).for_each(|_| exchange(&ours, &other));
        }
    });
    assert_eq!(listed, [("app".to_owned(), 1), ("app/below".to_owned(), 2)], "the third was not seen");
    assert_eq!(fs::read_to_string(ours.join("0")).unwrap(), "0", "it has its name again");
    assert!(!is_as_captured);
    // Although a look finds nothing new.
    fs::remove_file(ours.join("below/3")).unwrap();
    let closed = pickup.next_change_set(later(&pickup), |pickup, now, closed| {
        closed.clear();
        pickup.hold_back(now, app().path, vec![app()]);
    });
    assert!(closed.is_none() && pickup.gathering.contains(&app().path));
}
