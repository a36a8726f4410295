#![expect(clippy::disallowed_methods, reason = "what was deployed is looked at")]
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;
use crate::deploy::testing::{Sandbox, removed};
use crate::error::ErrorKind;

fn deployer(sandbox: &Sandbox) -> Copy {
    deployer_with(sandbox, |_| {})
}

fn deployer_with(sandbox: &Sandbox, change: impl FnOnce(&mut CopyConfig)) -> Copy {
    let into = sandbox.path("into/{pickup}").display().to_string();
    let mut config = CopyConfig { into, mode: None, owner: None, strip: 0, durable: false };
    change(&mut config);
    Copy::new(config)
}

/// Every phase twice, because recovery repeats them.
async fn deploy(sandbox: &Sandbox, copy: &Copy, unit: &Unit, old: Option<&Live>) -> (Staged, Live) {
    let cx = sandbox.cx();
    copy.check(&cx, unit, old).await.unwrap();
    copy.stage(&cx, unit, old).await.unwrap();
    let staged = copy.stage(&cx, unit, old).await.unwrap();
    copy.activate(&cx, unit, &staged, old).await.unwrap();
    let live = copy.activate(&cx, unit, &staged, old).await.unwrap();
    copy.verify(&cx, unit, &live).await.unwrap();
    assert_eq!(copy.observe(&cx, &live).await.unwrap(), Observed::Alive);
    (staged, live)
}

async fn commit(sandbox: &Sandbox, copy: &Copy, unit: &Unit, old: Option<&Live>) -> Live {
    let (staged, live) = deploy(sandbox, copy, unit, old).await;
    for _ in 0..2 {
        copy.retire(&sandbox.cx(), unit, &staged, old).await.unwrap();
    }
    live
}

async fn revert(sandbox: &Sandbox, copy: &Copy, unit: &Unit, staged: &Staged, old: Option<&Live>) {
    for _ in 0..2 {
        copy.revert(&sandbox.cx(), unit, staged, old).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_goes_live_and_away_again() {
    let sandbox = Sandbox::new();
    let copy = deployer_with(&sandbox, |config| config.durable = true);
    let live = commit(&sandbox, &copy, &sandbox.file("a/b/x.py", b"one", 1), None).await;
    assert_eq!(sandbox.listing("into"), ["web/", "web/a/", "web/a/b/", "web/a/b/x.py"]);
    let next = commit(&sandbox, &copy, &sandbox.file("a/b/x.py", b"two", 2), Some(&live)).await;
    assert_eq!(sandbox.listing("into"), ["web/", "web/a/", "web/a/b/", "web/a/b/x.py"]);
    assert_eq!(sandbox.read("into/web/a/b/x.py"), "two");
    for _ in 0..2 {
        copy.remove(&sandbox.cx(), &removed("a/b/x.py"), &next).await.unwrap();
        assert_eq!(sandbox.listing("into"), ["web/"]);
    }
    assert_eq!(copy.observe(&sandbox.cx(), &next).await.unwrap(), Observed::Gone);
}

#[tokio::test]
async fn what_is_staged_is_invisible_and_the_old_version_serves() {
    let sandbox = Sandbox::new();
    let copy = deployer(&sandbox);
    let old = commit(&sandbox, &copy, &sandbox.file("x", b"one", 1), None).await;
    let unit = sandbox.file("x", b"two", 2);
    let staged = copy.stage(&sandbox.cx(), &unit, Some(&old)).await.unwrap();
    assert_eq!(sandbox.read("into/web/x"), "one");
    assert!(sandbox.listing("into/web").iter().any(|name| name.starts_with(".x.pickup-")));
    revert(&sandbox, &copy, &unit, &staged, Some(&old)).await;
    assert_eq!(sandbox.listing("into/web"), ["x"]);
}

#[tokio::test]
async fn a_revert_brings_the_old_version_back_from_any_point() {
    let sandbox = Sandbox::new();
    let copy = deployer(&sandbox);
    let first = sandbox.file("d/x", b"one", 1);
    let (staged, _) = deploy(&sandbox, &copy, &first, None).await;
    revert(&sandbox, &copy, &first, &staged, None).await;
    assert_eq!(sandbox.listing("into"), ["web/"]);

    let old = commit(&sandbox, &copy, &first, None).await;
    let unit = sandbox.file("d/x", b"two", 2);
    let (staged, live) = deploy(&sandbox, &copy, &unit, Some(&old)).await;
    assert_eq!(sandbox.read("into/web/d/x"), "two");
    revert(&sandbox, &copy, &unit, &staged, Some(&old)).await;
    assert_eq!(sandbox.read("into/web/d/x"), "one");
    assert_eq!(sandbox.listing("into/web"), ["d/", "d/x"]);
    assert_eq!(copy.observe(&sandbox.cx(), &old).await.unwrap(), Observed::Alive);
    assert!(matches!(copy.observe(&sandbox.cx(), &live).await.unwrap(), Observed::Drifted(_)));
}

#[tokio::test]
async fn a_revert_mends_an_exchange_that_stopped_half_way() {
    let sandbox = Sandbox::new();
    let copy = deployer(&sandbox);
    let old = commit(&sandbox, &copy, &sandbox.file("x", b"one", 1), None).await;
    let unit = sandbox.file("x", b"two", 2);
    // The steps of the exchange by links: each in turn is the last one.
    for steps in 1..=3 {
        let staged = copy.stage(&sandbox.cx(), &unit, Some(&old)).await.unwrap();
        let name = sandbox.listing("into/web").into_iter().find(|name| name.starts_with('.')).unwrap();
        let (target, new) = (sandbox.path("into/web/x"), sandbox.path("into/web").join(&name));
        let backup = sandbox.path("into/web").join(format!("{name}~"));
        std::fs::hard_link(&target, &backup).unwrap();
        if steps >= 2 {
            std::fs::rename(&new, &target).unwrap();
        }
        if steps >= 3 {
            std::fs::rename(&backup, &new).unwrap();
        }
        revert(&sandbox, &copy, &unit, &staged, Some(&old)).await;
        assert_eq!(sandbox.listing("into/web"), ["x"], "after {steps}");
        assert_eq!(sandbox.read("into/web/x"), "one", "after {steps}");
    }
}

#[tokio::test]
async fn a_file_that_was_there_before_us_comes_back() {
    let sandbox = Sandbox::new();
    std::fs::create_dir_all(sandbox.path("into/web")).unwrap();
    std::fs::write(sandbox.path("into/web/x"), "theirs").unwrap();
    let (copy, unit) = (deployer(&sandbox), sandbox.file("x", b"ours", 1));
    let (staged, _) = deploy(&sandbox, &copy, &unit, None).await;
    assert_eq!(sandbox.read("into/web/x"), "ours");
    revert(&sandbox, &copy, &unit, &staged, None).await;
    assert_eq!(sandbox.read("into/web/x"), "theirs");
}

#[tokio::test]
async fn a_tree_loses_what_the_new_one_does_not_have() {
    let sandbox = Sandbox::new();
    let copy = deployer(&sandbox);
    let old = commit(&sandbox, &copy, &sandbox.tree("t", &[("a", b"1"), ("gone/b", b"2")], 1), None).await;
    let unit = sandbox.tree("t", &[("a", b"9"), ("c/d", b"3")], 2);
    let (staged, _) = deploy(&sandbox, &copy, &unit, Some(&old)).await;
    assert!(!sandbox.path("into/web/t/gone/b").exists());
    revert(&sandbox, &copy, &unit, &staged, Some(&old)).await;
    assert_eq!(sandbox.listing("into/web"), ["t/", "t/a", "t/gone/", "t/gone/b"]);
    assert_eq!(sandbox.read("into/web/t/a"), "1");
    let live = commit(&sandbox, &copy, &unit, Some(&old)).await;
    assert_eq!(sandbox.listing("into/web"), ["t/", "t/a", "t/c/", "t/c/d"]);
    copy.remove(&sandbox.cx(), &removed("t"), &live).await.unwrap();
    assert!(sandbox.listing("into/web").is_empty());
}

#[tokio::test]
async fn a_large_tree_goes_through_a_thread() {
    let sandbox = Sandbox::new();
    let copy = deployer_with(&sandbox, |config| config.durable = true);
    let names: Vec<_> = (0..100).map(|at| format!("d{}/f{at}", at % 7)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_bytes())).collect();
    let unit = sandbox.tree("", &files, 1);
    let live = commit(&sandbox, &copy, &unit, None).await;
    assert_eq!(sandbox.listing("into/web").len(), 107);
    copy.remove(&sandbox.cx(), &removed(""), &live).await.unwrap();
    assert!(sandbox.listing("into/web").is_empty());
}

#[tokio::test]
async fn what_somebody_else_changed_is_not_removed() {
    let sandbox = Sandbox::new();
    let copy = deployer(&sandbox);
    let live = commit(&sandbox, &copy, &sandbox.file("x", b"ours", 1), None).await;
    std::fs::write(sandbox.path("into/web/x"), "edited").unwrap();
    assert!(matches!(copy.observe(&sandbox.cx(), &live).await.unwrap(), Observed::Drifted(_)));
    let error = copy.remove(&sandbox.cx(), &removed("x"), &live).await.unwrap_err();
    assert!(error.to_string().ends_with("changed by somebody else since it was deployed"), "{error}");
    assert_eq!(sandbox.read("into/web/x"), "edited");
    // The same bytes in another file are what was deployed.
    std::fs::remove_file(sandbox.path("into/web/x")).unwrap();
    std::fs::write(sandbox.path("into/web/x"), "ours").unwrap();
    assert_eq!(copy.observe(&sandbox.cx(), &live).await.unwrap(), Observed::Alive);
    copy.remove(&sandbox.cx(), &removed("x"), &live).await.unwrap();
}

#[tokio::test]
async fn a_revert_does_not_overwrite_what_somebody_else_put_there() {
    let sandbox = Sandbox::new();
    let copy = deployer(&sandbox);
    let old = commit(&sandbox, &copy, &sandbox.file("x", b"one", 1), None).await;
    let unit = sandbox.file("x", b"two", 2);
    let (staged, _) = deploy(&sandbox, &copy, &unit, Some(&old)).await;
    std::fs::write(sandbox.path("theirs"), "theirs").unwrap();
    std::fs::rename(sandbox.path("theirs"), sandbox.path("into/web/x")).unwrap();
    let error = copy.revert(&sandbox.cx(), &unit, &staged, Some(&old)).await.unwrap_err();
    assert_eq!(std::fs::read(error.path().unwrap()).unwrap(), b"one");
    assert_eq!(sandbox.read("into/web/x"), "theirs");
    std::fs::remove_file(sandbox.path("into/web/x")).unwrap();
    revert(&sandbox, &copy, &unit, &staged, Some(&old)).await;
    assert_eq!(sandbox.read("into/web/x"), "one");
}

#[tokio::test]
async fn what_is_no_file_is_refused_by_the_check() {
    let sandbox = Sandbox::new();
    let copy = deployer(&sandbox);
    std::fs::create_dir_all(sandbox.path("into/web/directory")).unwrap();
    std::fs::write(sandbox.path("into/web/directory/x"), "").unwrap();
    std::fs::write(sandbox.path("into/web/file"), "").unwrap();
    symlink("/etc", sandbox.path("into/web/etc")).unwrap();
    symlink("/etc/hostname", sandbox.path("into/web/host")).unwrap();
    for (path, reason) in [
        ("directory", "which is a directory"),
        ("file/x", "which is a file"),
        ("etc/x", "which is a symlink"),
        ("host", "which is a symlink"),
    ] {
        let unit = sandbox.file(path, b"x", 1);
        let error = copy.check(&sandbox.cx(), &unit, None).await.unwrap_err();
        assert!(error.to_string().ends_with(reason), "{error}");
        assert_eq!(error.kind(), ErrorKind::Deploy);
        // Should it appear only after the check, the later phases refuse as well.
        let activated = match copy.stage(&sandbox.cx(), &unit, None).await {
            Ok(staged) => {
                let result = copy.activate(&sandbox.cx(), &unit, &staged, None).await.map(drop);
                revert(&sandbox, &copy, &unit, &staged, None).await;
                result
            }
            Err(error) => Err(error),
        };
        assert!(activated.is_err(), "{path}");
    }
    assert_eq!(sandbox.listing("into/web"), ["directory/", "directory/x", "etc", "file", "host"]);
}

#[tokio::test]
async fn a_target_that_cannot_be_made_is_an_error() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("into"), "").unwrap();
    let (copy, unit) = (deployer(&sandbox), sandbox.file("x", b"x", 1));
    assert!(copy.check(&sandbox.cx(), &unit, None).await.is_err());
    assert!(copy.stage(&sandbox.cx(), &unit, None).await.is_err());
    let copy = deployer_with(&sandbox, |config| config.into = "/proc/pickup".into());
    assert!(copy.stage(&sandbox.cx(), &unit, None).await.unwrap_err().is_transient());
}

#[tokio::test]
async fn a_failed_stage_leaves_nothing_behind() {
    let sandbox = Sandbox::new();
    let copy = deployer(&sandbox);
    let unit = sandbox.tree("t", &[("a/x", b"good"), ("b/y", b"bad")], 1);
    std::fs::write(sandbox.store(b"bad", 0o644).path().unwrap(), "damaged").unwrap();
    assert!(copy.stage(&sandbox.cx(), &unit, None).await.is_err());
    assert_eq!(sandbox.listing("into"), ["web/"]);
}

#[tokio::test]
async fn names_that_are_not_utf_8_or_very_long_are_fine() {
    let sandbox = Sandbox::new();
    let copy = deployer(&sandbox);
    let long = "n".repeat(255);
    for name in [OsStr::from_bytes(b"a\xff/b\xfe"), OsStr::new(&long)] {
        let live = commit(&sandbox, &copy, &sandbox.file(name, b"one", 1), None).await;
        let json = serde_json::to_value(&live).unwrap();
        let live: Live = serde_json::from_value(json).unwrap();
        let live = commit(&sandbox, &copy, &sandbox.file(name, b"two", 2), Some(&live)).await;
        assert_eq!(std::fs::read(sandbox.path("into/web").join(name)).unwrap(), b"two");
        copy.remove(&sandbox.cx(), &removed(name), &live).await.unwrap();
        assert!(sandbox.listing("into/web").is_empty());
    }
}

#[tokio::test]
async fn setuid_is_never_copied_but_may_be_configured() {
    let sandbox = Sandbox::new();
    let mode = |sandbox: &Sandbox| std::fs::metadata(sandbox.path("into/web/x")).unwrap().permissions().mode() & 0o7777;
    let mut unit = sandbox.file("x", b"x", 1);
    unit.content = Some(Content::File(sandbox.store(b"x", 0o6755)));
    commit(&sandbox, &deployer(&sandbox), &unit, None).await;
    assert_eq!(mode(&sandbox), 0o755);
    commit(&sandbox, &deployer_with(&sandbox, |config| config.mode = Some(0o4711)), &unit, None).await;
    assert_eq!(mode(&sandbox), 0o4711);
}

#[tokio::test]
async fn the_owner_is_set() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let sandbox = Sandbox::new();
    let copy = deployer_with(&sandbox, |config| config.owner = Some("12345:54321".into()));
    commit(&sandbox, &copy, &sandbox.file("x", b"x", 1), None).await;
    let found = std::fs::metadata(sandbox.path("into/web/x")).unwrap();
    assert_eq!((found.uid(), found.gid()), (12345, 54321));
}

#[tokio::test]
async fn leading_components_are_left_out() {
    let sandbox = Sandbox::new();
    let copy = deployer_with(&sandbox, |config| config.strip = 1);
    commit(&sandbox, &copy, &sandbox.file("src/a/x", b"x", 1), None).await;
    assert_eq!(sandbox.listing("into/web"), ["a/", "a/x"]);
    let error = copy.check(&sandbox.cx(), &sandbox.file("x", b"x", 1), None).await.unwrap_err();
    assert_eq!(error.to_string(), "copy x: nothing is left of its path with strip = 1");
    let error = copy.check(&sandbox.cx(), &sandbox.tree("", &[("a/x", b"1"), ("b/x", b"2")], 1), None).await;
    assert!(error.unwrap_err().to_string().ends_with("two files would both be x"));
}

#[tokio::test]
async fn shared_directories_go_with_the_last_file() {
    let sandbox = Sandbox::new();
    let copy = deployer(&sandbox);
    let one = commit(&sandbox, &copy, &sandbox.file("d/one", b"1", 1), None).await;
    let two = commit(&sandbox, &copy, &sandbox.file("d/two", b"2", 1), None).await;
    copy.remove(&sandbox.cx(), &removed("d/one"), &one).await.unwrap();
    assert_eq!(sandbox.listing("into/web"), ["d/", "d/two"]);
    copy.remove(&sandbox.cx(), &removed("d/two"), &two).await.unwrap();
    assert!(sandbox.listing("into/web").is_empty());
}

#[tokio::test]
async fn a_directory_goes_with_its_last_file_although_that_came_when_nobody_knew_whose_it_was() {
    let sandbox = Sandbox::new();
    let one = commit(&sandbox, &deployer(&sandbox), &sandbox.file("d/e/one", b"1", 1), None).await;
    // After a restart, and what was live could not be observed.
    let copy = deployer(&sandbox);
    let two = commit(&sandbox, &copy, &sandbox.file("d/e/two", b"2", 2), None).await;
    copy.remove(&sandbox.cx(), &removed("d/e/one"), &one).await.unwrap();
    assert_eq!(sandbox.listing("into/web"), ["d/", "d/e/", "d/e/two"]);
    copy.remove(&sandbox.cx(), &removed("d/e/two"), &two).await.unwrap();
    assert!(sandbox.listing("into/web").is_empty());
}

/// A removal and what takes its place, as the engine does them: both are checked and staged before either is done.
async fn swap(sandbox: &Sandbox, copy: &Copy, gone: (&str, &Live), unit: &Unit) -> Staged {
    let cx = sandbox.cx();
    copy.check(&cx, &removed(gone.0), Some(gone.1)).await.unwrap();
    copy.check(&cx, unit, None).await.unwrap();
    copy.stage(&cx, unit, None).await.unwrap();
    let staged = copy.stage(&cx, unit, None).await.unwrap();
    copy.remove(&cx, &removed(gone.0), gone.1).await.unwrap();
    staged
}

#[tokio::test]
async fn a_file_unit_becomes_a_directory_of_units_and_a_file_again() {
    let sandbox = Sandbox::new();
    let (copy, cx) = (deployer_with(&sandbox, |config| config.durable = true), sandbox.cx());
    let file = commit(&sandbox, &copy, &sandbox.file("d/a", b"one", 1), None).await;
    let unit = sandbox.file("d/a/b/x", b"two", 2);
    let staged = swap(&sandbox, &copy, ("d/a", &file), &unit).await;
    for _ in 0..2 {
        copy.activate(&cx, &unit, &staged, None).await.unwrap();
    }
    let inner = copy.activate(&cx, &unit, &staged, None).await.unwrap();
    copy.retire(&cx, &unit, &staged, None).await.unwrap();
    assert_eq!(sandbox.listing("into/web"), ["d/", "d/a/", "d/a/b/", "d/a/b/x"]);
    assert_eq!(copy.observe(&cx, &inner).await.unwrap(), Observed::Alive);

    let unit = sandbox.file("d/a", b"three", 3);
    let staged = swap(&sandbox, &copy, ("d/a/b/x", &inner), &unit).await;
    let live = copy.activate(&cx, &unit, &staged, None).await.unwrap();
    copy.retire(&cx, &unit, &staged, None).await.unwrap();
    assert_eq!(sandbox.listing("into/web"), ["d/", "d/a"]);
    assert_eq!(sandbox.read("into/web/d/a"), "three");
    copy.remove(&cx, &removed("d/a"), &live).await.unwrap();
    assert!(sandbox.listing("into/web").is_empty());
}

#[tokio::test]
async fn a_swap_of_file_and_directory_is_taken_back_from_any_point() {
    let sandbox = Sandbox::new();
    let (copy, cx) = (deployer(&sandbox), sandbox.cx());
    let file = commit(&sandbox, &copy, &sandbox.file("a", b"one", 1), None).await;
    let unit = sandbox.file("a/b/x", b"two", 2);
    let staged = copy.stage(&cx, &unit, None).await.unwrap();
    revert(&sandbox, &copy, &unit, &staged, None).await;
    assert_eq!(sandbox.listing("into/web"), ["a"]);
    let staged = swap(&sandbox, &copy, ("a", &file), &unit).await;
    revert(&sandbox, &copy, &unit, &staged, None).await;
    assert!(sandbox.listing("into/web").is_empty());
    let staged = copy.stage(&cx, &unit, None).await.unwrap();
    copy.activate(&cx, &unit, &staged, None).await.unwrap();
    revert(&sandbox, &copy, &unit, &staged, None).await;
    assert!(sandbox.listing("into/web").is_empty());
}

#[tokio::test]
async fn a_file_that_does_not_leave_keeps_its_place() {
    let sandbox = Sandbox::new();
    let (copy, cx) = (deployer(&sandbox), sandbox.cx());
    commit(&sandbox, &copy, &sandbox.file("a", b"one", 1), None).await;
    let unit = sandbox.file("a/x", b"two", 2);
    assert!(copy.check(&cx, &unit, None).await.is_err());
    let staged = copy.stage(&cx, &unit, None).await.unwrap();
    let error = copy.activate(&cx, &unit, &staged, None).await.unwrap_err();
    assert!(error.to_string().ends_with("which is a file"), "{error}");
    revert(&sandbox, &copy, &unit, &staged, None).await;
    assert_eq!(sandbox.listing("into/web"), ["a"]);
    assert_eq!(sandbox.read("into/web/a"), "one");
}

#[tokio::test]
async fn files_and_directories_of_a_tree_take_each_others_places() {
    let sandbox = Sandbox::new();
    let copy = deployer_with(&sandbox, |config| config.durable = true);
    let one: &[(&str, &[u8])] = &[("c", b"1"), ("d/e/x", b"2"), ("d/y", b"3"), ("keep/z", b"4")];
    let two: &[(&str, &[u8])] = &[("c/f/x", b"5"), ("c/g", b"6"), ("d", b"7"), ("keep/z", b"8")];
    let listings = [
        ["t/", "t/c", "t/d/", "t/d/e/", "t/d/e/x", "t/d/y", "t/keep/", "t/keep/z"].as_slice(),
        ["t/", "t/c/", "t/c/f/", "t/c/f/x", "t/c/g", "t/d", "t/keep/", "t/keep/z"].as_slice(),
    ];
    let mut live = commit(&sandbox, &copy, &sandbox.tree("t", one, 1), None).await;
    for (generation, files, before, after) in [(2, two, listings[0], listings[1]), (3, one, listings[1], listings[0])] {
        let unit = sandbox.tree("t", files, generation);
        let staged = copy.stage(&sandbox.cx(), &unit, Some(&live)).await.unwrap();
        revert(&sandbox, &copy, &unit, &staged, Some(&live)).await;
        assert_eq!(sandbox.listing("into/web"), before);
        let (staged, _) = deploy(&sandbox, &copy, &unit, Some(&live)).await;
        revert(&sandbox, &copy, &unit, &staged, Some(&live)).await;
        assert_eq!(sandbox.listing("into/web"), before);
        assert_eq!(copy.observe(&sandbox.cx(), &live).await.unwrap(), Observed::Alive);
        live = commit(&sandbox, &copy, &unit, Some(&live)).await;
        assert_eq!(sandbox.listing("into/web"), after);
    }
    // The unit itself changes its kind.
    live = commit(&sandbox, &copy, &sandbox.file("t", b"9", 4), Some(&live)).await;
    assert_eq!(sandbox.listing("into/web"), ["t"]);
    live = commit(&sandbox, &copy, &sandbox.tree("t", two, 5), Some(&live)).await;
    assert_eq!(sandbox.listing("into/web"), listings[1]);
    copy.remove(&sandbox.cx(), &removed("t"), &live).await.unwrap();
    assert!(sandbox.listing("into/web").is_empty());
}

#[tokio::test]
async fn empty_directories_in_the_place_of_a_file_are_removed() {
    let sandbox = Sandbox::new();
    let copy = deployer(&sandbox);
    std::fs::create_dir_all(sandbox.path("into/web/x/left/over")).unwrap();
    commit(&sandbox, &copy, &sandbox.file("x", b"x", 1), None).await;
    assert_eq!(sandbox.listing("into/web"), ["x"]);
}

#[tokio::test]
async fn a_sweep_removes_what_its_change_left_and_nothing_else() {
    let sandbox = Sandbox::new();
    let (copy, cx) = (deployer(&sandbox), sandbox.cx());
    let old = commit(&sandbox, &copy, &sandbox.tree("t", &[("a", b"1"), ("b", b"1")], 1), None).await;
    // Of this one a file stays beside, another in place: it is neither taken back nor let go of.
    let stuck = sandbox.tree("t", &[("a", b"2"), ("c", b"2")], 2);
    let (staged, _) = deploy(&sandbox, &copy, &stuck, Some(&old)).await;
    let next = sandbox.tree("t", &[("a", b"3"), ("b", b"3")], 3);
    let live = commit(&sandbox, &copy, &next, Some(&old)).await;
    let waiting = sandbox.tree("t", &[("a", b"4")], 4);
    copy.stage(&cx, &waiting, Some(&live)).await.unwrap();
    let listing = sandbox.listing("into/web/t");
    assert_eq!(listing.len(), 6, "{listing:?}");
    for _ in 0..2 {
        copy.sweep(&cx, &stuck, Some(&staged), Some(&old)).await.unwrap();
        let left: Vec<_> = sandbox.listing("into/web/t").into_iter().filter(|name| !name.starts_with(".a")).collect();
        assert_eq!(left, ["a", "b"]);
    }
    assert_eq!(sandbox.listing("into/web/t").len(), 3, "what another change staged is left alone");
    assert_eq!(copy.observe(&cx, &live).await.unwrap(), Observed::Alive);
}

#[tokio::test]
async fn a_stage_whose_result_was_lost_is_swept() {
    let sandbox = Sandbox::new();
    let (copy, cx) = (deployer(&sandbox), sandbox.cx());
    let old = commit(&sandbox, &copy, &sandbox.file("f", b"1", 1), None).await;
    let before = sandbox.listing("into");
    // Its directory is made only later: it waits above the file that is in the way.
    for unit in [sandbox.file("f", b"2", 2), sandbox.file("f/d/x", b"2", 3), sandbox.file("d/e/x", b"2", 4)] {
        let old = (unit.path.as_path() == Path::new("f")).then_some(&old);
        copy.stage(&cx, &unit, old).await.unwrap();
        assert_ne!(sandbox.listing("into"), before);
        copy.sweep(&cx, &unit, None, old).await.unwrap();
        assert_eq!(sandbox.listing("into"), before);
    }
}

#[tokio::test]
async fn a_file_that_gave_way_to_a_directory_or_its_directory_to_a_file_is_gone() {
    let sandbox = Sandbox::new();
    let (copy, cx) = (deployer(&sandbox), sandbox.cx());
    let file = commit(&sandbox, &copy, &sandbox.file("f", b"1", 1), None).await;
    let below = commit(&sandbox, &copy, &sandbox.file("d/x", b"1", 2), None).await;
    std::fs::remove_file(sandbox.path("into/web/f")).unwrap();
    std::fs::create_dir(sandbox.path("into/web/f")).unwrap();
    std::fs::write(sandbox.path("into/web/f/new"), "new").unwrap();
    std::fs::remove_dir_all(sandbox.path("into/web/d")).unwrap();
    std::fs::write(sandbox.path("into/web/d"), "new").unwrap();
    copy.remove(&cx, &removed("f"), &file).await.unwrap();
    copy.remove(&cx, &removed("d/x"), &below).await.unwrap();
    assert_eq!((sandbox.read("into/web/f/new"), sandbox.read("into/web/d")), ("new".into(), "new".into()));
}
