use std::os::unix::fs::MetadataExt;

use super::*;
use crate::deploy::testing::{Sandbox, removed};

fn deployer(sandbox: &Sandbox) -> Release {
    deployer_with(sandbox, |_| {})
}

fn deployer_with(sandbox: &Sandbox, change: impl FnOnce(&mut ReleaseConfig)) -> Release {
    let into = sandbox.path("into").display().to_string();
    let mut config = ReleaseConfig { into, keep: 2, link: "current".into(), shared: Vec::new(), durable: false };
    change(&mut config);
    Release::new(config).unwrap()
}

async fn deploy(sandbox: &Sandbox, release: &Release, unit: &Unit) -> (Staged, Live) {
    let cx = sandbox.cx();
    release.check(&cx, unit, None).await.unwrap();
    release.stage(&cx, unit, None).await.unwrap();
    let staged = release.stage(&cx, unit, None).await.unwrap();
    release.activate(&cx, unit, &staged, None).await.unwrap();
    let live = release.activate(&cx, unit, &staged, None).await.unwrap();
    assert_eq!(release.observe(&cx, &live).await.unwrap(), Observed::Alive);
    (staged, live)
}

async fn commit(sandbox: &Sandbox, release: &Release, unit: &Unit) -> Live {
    let (staged, live) = deploy(sandbox, release, unit).await;
    for _ in 0..2 {
        release.retire(&sandbox.cx(), unit, &staged, None).await.unwrap();
    }
    live
}

async fn revert(sandbox: &Sandbox, release: &Release, unit: &Unit, staged: &Staged) {
    for _ in 0..2 {
        release.revert(&sandbox.cx(), unit, staged, None).await.unwrap();
    }
}

/// The names of the releases on disk.
fn releases(sandbox: &Sandbox) -> Vec<String> {
    let names = std::fs::read_dir(sandbox.path("into/releases")).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_release_goes_live_behind_a_relative_link() {
    let sandbox = Sandbox::new();
    let release = deployer_with(&sandbox, |config| config.durable = true);
    let unit = sandbox.tree("", &[("a/x", b"one"), ("b", b"two")], 1);
    let live = commit(&sandbox, &release, &unit).await;
    assert_eq!(live.name, format!("1-{}", unit.digest().unwrap().short()));
    assert_eq!(std::fs::read_link(sandbox.path("into/current")).unwrap(), Path::new("releases").join(&live.name));
    assert_eq!(sandbox.read("into/current/a/x"), "one");
    assert_eq!(releases(&sandbox), [live.name.clone(), format!("{}.json", live.name)]);
    for _ in 0..2 {
        release.remove(&sandbox.cx(), &removed(""), &live).await.unwrap();
    }
    assert_eq!(sandbox.listing("into"), ["releases/"]);
    assert_eq!(release.observe(&sandbox.cx(), &live).await.unwrap(), Observed::Gone);
}

#[tokio::test]
async fn a_revert_flips_back_from_any_point() {
    let sandbox = Sandbox::new();
    let release = deployer(&sandbox);
    let first = sandbox.tree("", &[("x", b"one")], 1);
    let (staged, _) = deploy(&sandbox, &release, &first).await;
    revert(&sandbox, &release, &first, &staged).await;
    assert_eq!(sandbox.listing("into"), ["releases/"]);

    commit(&sandbox, &release, &first).await;
    let second = sandbox.tree("", &[("x", b"two")], 2);
    let staged = release.stage(&sandbox.cx(), &second, None).await.unwrap();
    assert_eq!(sandbox.read("into/current/x"), "one");
    revert(&sandbox, &release, &second, &staged).await;
    assert_eq!(releases(&sandbox).len(), 2);
    let (staged, live) = deploy(&sandbox, &release, &second).await;
    assert_eq!(sandbox.read("into/current/x"), "two");
    revert(&sandbox, &release, &second, &staged).await;
    assert_eq!(sandbox.read("into/current/x"), "one");
    assert_eq!(releases(&sandbox).len(), 2);
    assert!(matches!(release.observe(&sandbox.cx(), &live).await.unwrap(), Observed::Drifted(_)));
}

#[tokio::test]
async fn unchanged_files_are_shared_unless_somebody_touched_them() {
    let sandbox = Sandbox::new();
    let release = deployer(&sandbox);
    let inode = |path: &str| std::fs::metadata(sandbox.path(path)).unwrap().ino();
    commit(&sandbox, &release, &sandbox.tree("", &[("d/same", b"s"), ("touched", b"t"), ("new", b"1")], 1)).await;
    let (same, touched) = (inode("into/current/d/same"), inode("into/current/touched"));
    std::fs::write(sandbox.path("into/current/touched"), "T").unwrap();
    commit(&sandbox, &release, &sandbox.tree("", &[("d/same", b"s"), ("touched", b"t"), ("new", b"2")], 2)).await;
    assert_eq!(inode("into/current/d/same"), same);
    assert_ne!(inode("into/current/touched"), touched);
    assert_eq!(sandbox.read("into/current/touched"), "t");
    assert_eq!(sandbox.read("into/current/new"), "2");
}

#[tokio::test]
async fn an_older_release_on_disk_is_used_again() {
    let sandbox = Sandbox::new();
    let release = deployer(&sandbox);
    let first = commit(&sandbox, &release, &sandbox.tree("", &[("x", b"one")], 1)).await;
    commit(&sandbox, &release, &sandbox.tree("", &[("x", b"two")], 2)).await;
    let again = sandbox.tree("", &[("x", b"one")], 3);
    let (staged, live) = deploy(&sandbox, &release, &again).await;
    assert_eq!(live.name, first.name);
    revert(&sandbox, &release, &again, &staged).await;
    assert_eq!(sandbox.read("into/current/x"), "two");
    assert!(sandbox.path("into/releases").join(&first.name).is_dir(), "it was not ours to delete");
    // Somebody edited it: it is built anew.
    std::fs::write(sandbox.path("into/releases").join(&first.name).join("x"), "edited").unwrap();
    let live = commit(&sandbox, &release, &again).await;
    assert_ne!(live.name, first.name);
    assert_eq!(sandbox.read("into/current/x"), "one");
}

#[tokio::test]
async fn touching_what_is_live_keeps_it_through_a_revert() {
    let sandbox = Sandbox::new();
    let release = deployer(&sandbox);
    let first = commit(&sandbox, &release, &sandbox.tree("", &[("x", b"one")], 1)).await;
    let again = sandbox.tree("", &[("x", b"one")], 2);
    let (staged, live) = deploy(&sandbox, &release, &again).await;
    assert_eq!(live.name, first.name);
    revert(&sandbox, &release, &again, &staged).await;
    assert_eq!(sandbox.read("into/current/x"), "one");
}

#[tokio::test]
async fn only_the_newest_releases_are_kept() {
    let sandbox = Sandbox::new();
    let release = deployer(&sandbox);
    std::fs::create_dir_all(sandbox.path("into/releases/not-ours")).unwrap();
    std::fs::create_dir_all(sandbox.path("into/releases/.staging-1-0123456789ab")).unwrap();
    for generation in 1..=12 {
        let bytes = generation.to_string();
        commit(&sandbox, &release, &sandbox.tree("", &[("x", bytes.as_bytes())], generation)).await;
    }
    let names = releases(&sandbox);
    let kept: Vec<_> = names.iter().map(|name| name.split('-').next().unwrap()).collect();
    assert_eq!(kept, ["11", "11", "12", "12", "not"]);
}

#[tokio::test]
async fn what_is_live_and_what_was_is_kept_however_old() {
    let sandbox = Sandbox::new();
    let release = deployer_with(&sandbox, |config| config.keep = 1);
    let first = commit(&sandbox, &release, &sandbox.tree("", &[("x", b"1")], 1)).await;
    let second = commit(&sandbox, &release, &sandbox.tree("", &[("x", b"2")], 2)).await;
    commit(&sandbox, &release, &sandbox.tree("", &[("x", b"1")], 3)).await;
    for live in [first, second] {
        assert!(sandbox.path("into/releases").join(live.name).is_dir());
    }
}

#[tokio::test]
async fn shared_paths_outlive_the_release() {
    let sandbox = Sandbox::new();
    let release = deployer_with(&sandbox, |config| config.shared = vec!["var/data".into(), "log".into()]);
    let unit = sandbox.tree("", &[("x", b"1"), ("var/data/seed", b"s"), ("var/other", b"o")], 1);
    commit(&sandbox, &release, &unit).await;
    std::fs::write(sandbox.path("into/current/var/data/kept"), "kept").unwrap();
    commit(&sandbox, &release, &sandbox.tree("", &[("x", b"2")], 2)).await;
    assert_eq!(sandbox.read("into/current/var/data/kept"), "kept");
    assert_eq!(sandbox.listing("into/shared"), ["log/", "var/", "var/data/", "var/data/kept"]);
}

#[tokio::test]
async fn a_link_that_is_no_symlink_is_refused() {
    let sandbox = Sandbox::new();
    let (release, unit) = (deployer(&sandbox), sandbox.tree("", &[("x", b"1")], 1));
    let (staged, live) = deploy(&sandbox, &release, &unit).await;
    std::fs::remove_file(sandbox.path("into/current")).unwrap();
    std::fs::create_dir(sandbox.path("into/current")).unwrap();
    let error = release.check(&sandbox.cx(), &unit, None).await.unwrap_err();
    assert!(error.to_string().ends_with("into/current, which is no symlink"), "{error}");
    assert!(release.activate(&sandbox.cx(), &unit, &staged, None).await.is_err());
    assert!(matches!(release.observe(&sandbox.cx(), &live).await.unwrap(), Observed::Drifted(_)));
    assert!(release.remove(&sandbox.cx(), &removed(""), &live).await.is_err());
}

/// What lies outside: the releases of another entry, with names like ours.
fn outside(sandbox: &Sandbox) -> PathBuf {
    let outside = sandbox.path("outside");
    for name in ["1-0123456789ab", "2-0123456789ab", "3-0123456789ab", ".staging-1-0123456789ab"] {
        std::fs::create_dir_all(outside.join(name)).unwrap();
        std::fs::write(outside.join(name).join("x"), "theirs").unwrap();
        std::fs::write(outside.join(format!("{name}.json")), "theirs").unwrap();
    }
    outside
}

fn exchange_for_link(sandbox: &Sandbox, outside: &Path) {
    std::fs::rename(sandbox.path("into/releases"), sandbox.path("into/ours")).unwrap();
    std::os::unix::fs::symlink(outside, sandbox.path("into/releases")).unwrap();
}

#[tokio::test]
async fn nothing_is_written_or_removed_where_a_symlink_in_the_place_of_the_releases_leads() {
    let sandbox = Sandbox::new();
    let release = deployer_with(&sandbox, |config| config.keep = 1);
    let outside = outside(&sandbox);
    let (first, second) = (sandbox.tree("", &[("x", b"1")], 1), sandbox.tree("", &[("x", b"2")], 2));
    let live = commit(&sandbox, &release, &first).await;
    let (staged, _) = deploy(&sandbox, &release, &second).await;
    let theirs = outside.join(&staged.name);
    std::fs::create_dir(&theirs).unwrap();
    std::fs::write(theirs.join("x"), "theirs").unwrap();
    let before = sandbox.listing("outside");
    exchange_for_link(&sandbox, &outside);
    let (cx, third) = (sandbox.cx(), sandbox.tree("", &[("x", b"3")], 3));
    let refused = release.check(&cx, &third, None).await.unwrap_err().to_string();
    assert!(refused.contains("a symlink, or no directory: ") && refused.ends_with("into/releases"), "{refused}");
    assert!(release.stage(&cx, &third, None).await.is_err());
    assert!(release.retire(&cx, &second, &staged, None).await.is_err());
    assert!(release.revert(&cx, &second, &staged, None).await.is_err());
    assert!(release.remove(&cx, &removed(""), &live).await.is_err());
    assert_eq!(sandbox.listing("outside"), before);
}

#[tokio::test]
async fn a_release_that_is_being_built_stays_where_it_was_begun() {
    let sandbox = Sandbox::new();
    let config = deployer_with(&sandbox, |config| config.shared = vec!["log".into()]).work.config.clone();
    let outside = outside(&sandbox);
    let (unit, stop, into) = (sandbox.tree("", &[("d/x", b"1")], 1), Stop::new(&sandbox.cx()), sandbox.path("into"));
    std::fs::create_dir_all(into.join(RELEASES)).unwrap();
    let builder = Builder::new(&into, &config, &unit, &stop).unwrap();
    // Nothing is written through what somebody put where the manifest is written first.
    let temporary = format!("releases/.staging-{}.json", builder.name());
    std::os::unix::fs::symlink(outside.join("1-0123456789ab.json"), into.join(temporary)).unwrap();
    let before = sandbox.listing("outside");
    exchange_for_link(&sandbox, &outside);
    let name = builder.build(None).unwrap();
    assert_eq!(sandbox.listing("outside"), before);
    assert_eq!(sandbox.read("outside/1-0123456789ab.json"), "theirs");
    assert_eq!(sandbox.read(&format!("into/ours/{name}/d/x")), "1");
    assert_eq!(std::fs::read_link(into.join("ours").join(&name).join("log")).unwrap(), Path::new("../../shared/log"));
}

#[tokio::test]
async fn a_failed_build_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    let (release, unit) = (deployer(&sandbox), sandbox.tree("", &[("a", b"good"), ("b", b"bad")], 1));
    std::fs::write(sandbox.store(b"bad", 0o644).path().unwrap(), "damaged").unwrap();
    assert!(release.stage(&sandbox.cx(), &unit, None).await.is_err());
    assert!(releases(&sandbox).is_empty());
    std::fs::remove_dir_all(sandbox.path("into")).unwrap();
    std::fs::write(sandbox.path("into"), "").unwrap();
    assert!(release.check(&sandbox.cx(), &unit, None).await.is_err());
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for (link, shared) in [("a/b", "x"), ("..", "x"), ("releases", "x"), ("current", "../x"), ("current", "/x")] {
        let shared = vec![PathBuf::from(shared)];
        let config = ReleaseConfig { into: "/srv".into(), keep: 1, link: link.into(), shared, durable: false };
        assert_eq!(Release::new(config).unwrap_err().kind(), ErrorKind::Config, "{link}");
    }
}
