//! Directories that are exchanged while they are captured, each file of a version with its number in it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::change::Content;
use crate::config::UnitKind;
use crate::deploy::{Unit, from_fn};
use crate::{Config, Engine, PickupConfig, SyncOptions};

/// The versions among the files of each deployment.
type Live = Arc<Mutex<Vec<BTreeSet<String>>>>;

fn versions(unit: &Unit) -> BTreeSet<String> {
    let files = match &unit.content {
        Some(Content::Tree(files)) => files.iter().map(|file| file.file.stored.clone()).collect(),
        Some(Content::File(file)) => vec![file.stored.clone()],
        None => Vec::new(),
    };
    files.iter().map(|stored| fs::read_to_string(stored).unwrap().lines().next().unwrap().to_owned()).collect()
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

/// Exchanges `exchanged` for `versions` versions one after the other, each made anew or taken from a `stock` of two.
async fn is_one_version_whenever_it_is_live(unit: UnitKind, exchanged: &str, count: usize, stock: bool) {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let exchanged = base.join(exchanged);
    make(&exchanged, 0);
    let (engine, live) = started(&base, unit).await;
    let writer = tokio::task::spawn_blocking(move || {
        for version in 1..=count {
            let made = if stock { base.join("other") } else { base.join(format!("made{version}")) };
            if !stock || version == 1 {
                make(&made, version);
            }
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
    is_one_version_whenever_it_is_live(UnitKind::Directory, "in/app", 100, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_directories_that_take_turns_at_a_name_are_not_mixed() {
    is_one_version_whenever_it_is_live(UnitKind::Directory, "in/app", 20_001, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_exchanged_within_a_tree_is_one_version() {
    is_one_version_whenever_it_is_live(UnitKind::Tree, "in/app", 100, false).await;
}
