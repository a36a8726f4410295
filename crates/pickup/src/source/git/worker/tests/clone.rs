//! Clones are made whole or not at all, and else only fetched into.

use std::fs;

use super::*;
use crate::source::git::worker::FailureKind;

fn fetch(world: &World, wanted: &[Option<&str>]) -> Result<Vec<Found>, Failure> {
    world.check(Shape::Clone, &world.path("c/clone"), wanted).map(|(found, _)| found)
}

#[test]
fn a_clone_is_made_where_there_is_none() {
    for is_there in [false, true] {
        let (world, first) = World::with_a_commit();
        if is_there {
            fs::create_dir_all(world.path("c/clone")).unwrap();
        }
        fs::create_dir_all(world.path("c/.clone.pickup-clone/left")).unwrap();
        assert_eq!(fetch(&world, &[None]).unwrap(), [at(&first, Some("main"), true)]);
        let clone = Repository::open(world.path("c/clone")).unwrap();
        assert_eq!(clone.head().unwrap().name().unwrap(), "refs/heads/main");
        assert_eq!(fs::read_to_string(world.path("c/clone/sub/b.txt")).unwrap(), "two\n");
        assert!(clone.statuses(None).unwrap().is_empty());
        let upstream = clone.branch_upstream_name("refs/heads/main").unwrap();
        assert_eq!(upstream.as_str().unwrap(), "refs/remotes/origin/main");
        assert_eq!(fs::read_dir(world.path("c")).unwrap().count(), 1);
    }
}

#[test]
fn a_clone_is_fetched_into_and_its_files_stay() {
    let (world, first) = World::with_a_commit();
    fetch(&world, &[None]).unwrap();
    let second = world.commit("main", &[("a.txt", Some("more\n"))]);
    fs::write(world.path("c/clone/a.txt"), "mine").unwrap();
    assert_eq!(fetch(&world, &[None]).unwrap(), [at(&second, Some("main"), true)]);
    let clone = Repository::open(world.path("c/clone")).unwrap();
    assert_eq!(clone.head().unwrap().target().unwrap().to_string(), first);
    assert_eq!(clone.refname_to_id("refs/remotes/origin/main").unwrap().to_string(), second);
    assert_eq!(fs::read_to_string(world.path("c/clone/a.txt")).unwrap(), "mine");
}

#[test]
fn an_address_of_none_means_that_of_the_clone() {
    let (world, first) = World::with_a_commit();
    fetch(&world, &[None]).unwrap();
    let clone = Repository::open(world.path("c/clone")).unwrap();
    clone.remote_set_url("origin", "../../remote.git").unwrap();
    let mut check = world.request(Shape::Clone, &world.path("c/clone"), &[Some("main")]);
    check.access.url = GitUrl::new("");
    let Reply::Checked { found, .. } = ask(&Request::Check(check)).unwrap() else { panic!() };
    assert_eq!(found, [at(&first, Some("main"), true)]);
}

#[test]
fn foreign_directories_are_refused() {
    let (world, _) = World::with_a_commit();
    fs::create_dir_all(world.path("c/clone")).unwrap();
    fs::write(world.path("c/clone/precious"), "").unwrap();
    let failure = fetch(&world, &[None]).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.message.contains("neither empty nor a git repository"), "{failure:?}");
    assert!(world.path("c/clone/precious").exists());
}

#[test]
fn a_clone_of_something_else_is_refused() {
    let (world, _) = World::with_a_commit();
    fetch(&world, &[None]).unwrap();
    let clone = Repository::open(world.path("c/clone")).unwrap();
    clone.remote_set_url("origin", "https://ann:s3cret@host/other").unwrap();
    let failure = fetch(&world, &[None]).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.message.contains("it is a clone of https://ann@host/other"), "{failure:?}");
    clone.remote_delete("origin").unwrap();
    assert_eq!(fetch(&world, &[None]).unwrap_err().kind, FailureKind::Refused);
}

#[test]
fn no_clone_is_made_of_what_is_missing() {
    let (world, _) = World::with_a_commit();
    let found = fetch(&world, &[Some("nope")]).unwrap();
    assert!(matches!(&found[..], [Found::Missing { .. }]));
    assert_eq!(fs::read_dir(world.path("c")).unwrap().count(), 0);
}

#[test]
fn passwords_do_not_get_into_a_clone() {
    let url = GitUrl::new("https://ann:s3cret@host/x").without_secrets();
    assert_eq!(url.expose(), "https://host/x");
}
