//! Mirrors follow what the remote does, and heal.

use std::fs;

use super::*;
use crate::source::git::worker::FailureKind;
use crate::source::git::worker::mirror::condemn;

fn follow(world: &World, wanted: &[Option<&str>]) -> Vec<Found> {
    let (found, renewed) = world.check(Shape::Mirror, &world.path("m/mirror.git"), wanted).unwrap();
    assert_eq!(renewed, None);
    found
}

/// Runs `check` with both transports.
fn with_both(check: impl Fn(World, String)) {
    for transport in [GitTransport::Libgit2, GitTransport::Cli] {
        let (mut world, first) = World::with_a_commit();
        world.transport = transport;
        check(world, first);
    }
}

#[test]
fn a_mirror_is_made_and_follows() {
    with_both(|world, first| {
        assert_eq!(follow(&world, &[None, Some("main")]), vec![at(&first, Some("main"), true); 2]);
        let second = world.commit("main", &[("a.txt", Some("more\n"))]);
        assert_eq!(follow(&world, &[None]), [at(&second, Some("main"), true)]);
        let other = world.commit_on("main", None, &[("x", Some("rewritten"))]);
        assert_eq!(follow(&world, &[Some("main")]), [at(&other, Some("main"), true)]);
        let mirror = Repository::open_bare(world.path("m/mirror.git")).unwrap();
        assert_eq!(mirror.refname_to_id("refs/heads/main").unwrap().to_string(), other);
        assert!(!world.path("m/mirror.git/FETCH_HEAD").exists());
        // Moved back to what is here already: nothing is fetched, and yet our branch goes with it.
        world.remote.reference("refs/heads/main", Oid::from_str(&second).unwrap(), true, "").unwrap();
        assert_eq!(follow(&world, &[Some("main")]), [at(&second, Some("main"), true)]);
        assert_eq!(mirror.refname_to_id("refs/heads/main").unwrap().to_string(), second);
    });
}

#[test]
fn tags_are_peeled_and_followed_when_they_move() {
    with_both(|world, first| {
        let second = world.commit("main", &[("a.txt", Some("more\n"))]);
        world.tag("light", &first, false);
        world.tag("v1", &first, true);
        let wanted = [Some("light"), Some("v1"), Some("refs/tags/v1")];
        let expected = |commit: &str| ["light", "v1", "v1"].map(|tag| at(commit, Some(tag), false));
        assert_eq!(follow(&world, &wanted), expected(&first));
        world.tag("light", &second, false);
        world.tag("v1", &second, true);
        assert_eq!(follow(&world, &wanted), expected(&second));
    });
}

#[test]
fn a_commit_is_found_by_its_id() {
    with_both(|world, first| {
        let second = world.commit("main", &[("a.txt", Some("more\n"))]);
        assert_eq!(follow(&world, &[Some(&first), Some(&second)]), [at(&first, None, false), at(&second, None, false)]);
        let unknown = "0123456789012345678901234567890123456789";
        let [Found::Missing { reason }] = &follow(&world, &[Some(unknown)])[..] else { panic!() };
        assert!(reason.contains("leads to the commit 0123456789"), "{reason}");
    });
}

#[test]
fn what_is_missing_is_said_and_found_once_it_is_there() {
    with_both(|world, first| {
        let reason = |found: Vec<Found>| match found.into_iter().next() {
            Some(Found::Missing { reason }) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason(follow(&world, &[Some("dev")])), "the remote has no branch or tag `dev`; it has main");
        let dev = world.commit_on("dev", Some(Oid::from_str(&first).unwrap()), &[("d", Some("d"))]);
        assert_eq!(follow(&world, &[Some("dev")]), [at(&dev, Some("dev"), true)]);
        world.remote.find_reference("refs/heads/dev").unwrap().delete().unwrap();
        assert_eq!(reason(follow(&world, &[Some("dev")])), "the remote has no branch or tag `dev`; it has main");
        // `dev` is still here, where `dev/x` has to go.
        let below = world.commit("dev/x", &[("d", Some("e"))]);
        assert_eq!(follow(&world, &[Some("dev/x")]), [at(&below, Some("dev/x"), true)]);
    });
}

#[test]
fn an_empty_remote_has_no_commits_yet() {
    let world = World::new();
    let reason = "the remote has no commits yet".to_owned();
    assert_eq!(follow(&world, &[None]), [Found::Missing { reason }]);
}

#[test]
fn a_damaged_mirror_is_renewed() {
    let (world, first) = World::with_a_commit();
    let mirror = world.path("m/mirror.git");
    let packs = |damage: &dyn Fn(&Path)| {
        for entry in fs::read_dir(mirror.join("objects/pack")).unwrap() {
            damage(&entry.unwrap().path());
        }
    };
    follow(&world, &[None]);
    let damages: [(&str, &dyn Fn()); 6] = [
        ("no HEAD", &|| fs::remove_file(mirror.join("HEAD")).unwrap()),
        ("an empty reference", &|| fs::write(mirror.join("refs/heads/main"), "").unwrap()),
        ("no packs", &|| packs(&|path| fs::remove_file(path).unwrap())),
        ("empty packs", &|| {
            packs(&|path| {
                fs::remove_file(path).unwrap();
                fs::write(path, "").unwrap();
            })
        }),
        ("a file instead", &|| {
            fs::remove_dir_all(&mirror).unwrap();
            fs::write(&mirror, "").unwrap();
        }),
        ("what the reader saw", &|| condemn(&mirror, "a blob is not readable").unwrap()),
    ];
    for (name, damage) in damages {
        damage();
        let (found, renewed) = world.check(Shape::Mirror, &mirror, &[None]).unwrap();
        assert_eq!(found, [at(&first, Some("main"), true)], "{name}");
        assert!(renewed.is_some(), "{name}");
        assert_eq!(follow(&world, &[None]), found, "{name}");
    }
    let left: Vec<_> = fs::read_dir(world.path("m")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_damaged_mirror_stays_until_there_is_a_better_one() {
    let (mut world, _) = World::with_a_commit();
    let mirror = world.path("m/mirror.git");
    follow(&world, &[None]);
    fs::remove_file(mirror.join("HEAD")).unwrap();
    world.size_max = 1;
    assert!(world.check(Shape::Mirror, &mirror, &[None]).is_err());
    assert!(mirror.join("config").exists());
}

#[test]
fn what_a_killed_worker_left_is_swept() {
    let (world, _) = World::with_a_commit();
    let mirror = world.path("m/mirror.git");
    follow(&world, &[None]);
    let stale = [
        "HEAD.lock",
        "config.lock",
        "packed-refs.lock",
        "shallow.lock",
        "refs/heads/main.lock",
        "objects/pack/pack_git2_x",
        "objects/pack/tmp_pack_x",
        "objects/pickup-repack/x",
        "objects/tmp_objdir-incoming-x/y",
    ];
    for name in stale {
        fs::create_dir_all(mirror.join(name).parent().unwrap()).unwrap();
        fs::write(mirror.join(name), "").unwrap();
    }
    fs::create_dir(world.path("m/mirror.git.new")).unwrap();
    let second = world.commit("main", &[("a.txt", Some("more\n"))]);
    assert_eq!(follow(&world, &[None]), [at(&second, Some("main"), true)]);
    for name in stale {
        assert!(!mirror.join(name).exists(), "{name}");
    }
    assert!(!world.path("m/mirror.git.new").exists());
}

#[test]
fn two_workers_do_not_meet_in_a_mirror() {
    let (world, _) = World::with_a_commit();
    follow(&world, &[None]);
    let held = fs::File::open(world.path("m/mirror.git.lock")).unwrap();
    held.lock().unwrap();
    let failure = world.check(Shape::Mirror, &world.path("m/mirror.git"), &[None]).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Busy);
}

#[test]
fn what_is_too_large_is_not_taken() {
    with_both(|mut world, _| {
        // Random enough not to be packed away.
        let text: String = (0..200_000u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
        world.commit("main", &[("large", Some(&text))]);
        world.size_max = 10_000;
        let failure = world.check(Shape::Mirror, &world.path("m/mirror.git"), &[None]).unwrap_err();
        assert_eq!(failure.kind, FailureKind::TooLarge, "{failure:?}");
        assert!(failure.message.contains("git_size_max"), "{failure:?}");
        assert!(!world.path("m/mirror.git").exists());
    });
}

#[test]
fn no_repository_is_not_found() {
    for (url, transport) in [
        ("/nowhere/at/all", GitTransport::Libgit2),
        ("/nowhere/at/all", GitTransport::Cli),
        ("/", GitTransport::Libgit2),
        ("/", GitTransport::Cli),
    ] {
        let world = World::new();
        let mut check = world.request(Shape::Mirror, &world.path("m/mirror.git"), &[None]);
        check.access.url = GitUrl::new(url);
        check.access.transport = transport;
        let failure = ask(&Request::Check(check)).unwrap_err();
        assert_eq!(failure.kind, FailureKind::NotFound, "{failure:?}");
    }
}

#[test]
fn repacking_keeps_everything_that_counts() {
    let (world, _) = World::with_a_commit();
    let mirror = world.path("m/mirror.git");
    let lost = world.commit_on("gone", None, &[("gone", Some("gone"))]);
    follow(&world, &[Some("gone")]);
    Repository::open_bare(&mirror).unwrap().find_reference("refs/heads/gone").unwrap().delete().unwrap();
    let mut commits = Vec::new();
    for n in 0..30 {
        commits.push(world.commit("main", &[("a.txt", Some(&format!("{n}\n")))]));
        follow(&world, &[None]);
    }
    world.tag("v1", &commits[3], true);
    follow(&world, &[Some("v1")]);
    let packs = || {
        let names = fs::read_dir(mirror.join("objects/pack")).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|extension| extension == "pack")).count()
    };
    assert!(packs() > 30);
    // Whoever has it open goes on reading.
    let reader = Repository::open_bare(&mirror).unwrap();
    for _ in 0..2 {
        let reply = ask(&Request::Repack { repository: mirror.clone() });
        assert!(matches!(reply, Ok(Reply::Repacked)), "{reply:?}");
        assert_eq!(packs(), 1);
        assert!(!mirror.join("objects/pickup-repack").exists());
    }
    for repository in [reader, Repository::open_bare(&mirror).unwrap()] {
        for commit in &commits {
            let tree = repository.find_commit(Oid::from_str(commit).unwrap()).unwrap().tree().unwrap();
            tree.get_name("a.txt").unwrap().to_object(&repository).unwrap();
        }
        assert!(repository.find_reference("refs/tags/v1").unwrap().peel_to_tag().is_ok());
    }
    assert!(Repository::open_bare(&mirror).unwrap().find_commit(Oid::from_str(&lost).unwrap()).is_err());
    follow(&world, &[None, Some("v1")]);
}

#[test]
fn blobs_are_exported_to_new_files_only() {
    let (world, first) = World::with_a_commit();
    let mirror = world.path("m/mirror.git");
    follow(&world, &[None]);
    let repository = Repository::open_bare(&mirror).unwrap();
    let tree = repository.find_commit(Oid::from_str(&first).unwrap()).unwrap().tree().unwrap();
    let blob = tree.get_name("a.txt").unwrap().id().to_string();
    let to = world.path("exported");
    let request = Request::Export { repository: mirror, blobs: vec![(blob, to.clone())] };
    assert!(matches!(ask(&request), Ok(Reply::Exported)));
    assert_eq!(fs::read_to_string(&to).unwrap(), "one\n");
    assert_eq!(ask(&request).unwrap_err().kind, FailureKind::Other);
    assert_eq!(fs::read_to_string(&to).unwrap(), "one\n");
}
