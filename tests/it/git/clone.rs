//! A clone as the pickup directory: made by the daemon, or the user's own, pulled by the daemon or by hand.

use super::followed::{Followed, RARELY, json, nth, said};
use crate::daemon::Daemon;
use crate::remote::{git, run};

/// The user's own clone in `in`, and an entry with these keys, which know no address.
fn own(keys: &str) -> Followed {
    let followed = Followed::new("");
    followed.configure_entries(&Followed::entry("p", &format!("pickup_from = \"in\"\n{keys}")));
    let url = followed.url();
    run(&followed.sandbox.path(""), &format!("clone --quiet {url} in"));
    followed
}

/// The same, and the daemon, once it has deployed what is there.
fn own_running(keys: &str) -> (Followed, Daemon) {
    let followed = own(keys);
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one")]);
    (followed, daemon)
}

/// Runs git in the clone.
fn user(followed: &Followed, line: &str) -> String {
    run(&followed.sandbox.path("in"), line)
}

/// How many deployments there were.
fn generations(followed: &Followed) -> usize {
    followed.history().len()
}

#[test]
fn a_clone_is_made_where_there_is_none_and_follows() {
    let followed = Followed::clone_in(RARELY);
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one")]);
    let second = followed.upstream.edit().rename("a", "b").file("c", "c").commit();
    daemon.sync();
    followed.holds(&daemon, [("b", "one"), ("c", "c")]);
    assert_eq!(user(&followed, "rev-parse HEAD"), second);
    assert_eq!(user(&followed, "status --porcelain"), "");
    assert_eq!((generations(&followed), said(&daemon, super::followed::SEEN)), (2, 2), "{}", daemon.said());
    assert_eq!(followed.history()[0]["revision"]["commit"], second);
}

#[test]
fn a_users_own_clone_is_pulled_on_demand() {
    let (followed, daemon) = own_running(RARELY);
    followed.upstream.commit(&[("a", "two"), ("b", "two")]);
    let last = followed.upstream.commit(&[("c", "three")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "two"), ("b", "two"), ("c", "three")]);
    assert_eq!(user(&followed, "rev-parse HEAD"), last);
    assert_eq!((generations(&followed), &followed.git()["live"]["commit"]), (2, &last.into()), "{}", daemon.said());
}

#[test]
fn a_users_own_clone_is_pulled_on_the_timer() {
    let (followed, daemon) = own_running(super::followed::OFTEN);
    followed.upstream.commit(&[("a", "two")]);
    daemon.wait_deployed("a", 2);
    followed.holds(&daemon, [("a", "two")]);
}

#[test]
fn a_pull_by_hand_of_many_commits_is_one_generation() {
    let (followed, daemon) = own_running("");
    let many: Vec<String> = (0..50).map(|number| format!("many/{number}")).collect();
    let files: Vec<(&str, &str)> = many.iter().map(|path| (path.as_str(), "m")).collect();
    followed.upstream.commit(&files);
    followed.upstream.commit(&[("a", "two")]);
    let last = followed.upstream.edit().rename("many/0", "moved").remove("many/1").commit();
    user(&followed, "pull --quiet --ff-only");
    daemon.wait_deployed("moved", 1);
    daemon.sync();
    assert_eq!(followed.sandbox.deployed().len(), 50, "{}", daemon.said());
    let history = followed.history();
    assert_eq!((history.len(), &history[0]["revision"]["commit"]), (2, &last.into()), "{}", daemon.said());
    assert_eq!(history[0]["revision"]["previous"], followed.first);
}

#[test]
fn a_switch_of_branches_by_hand_is_one_generation_each() {
    let (followed, daemon) = own_running("");
    followed.upstream.edit().on("other").after("refs/heads/main").file("a", "other").file("b", "b").commit();
    user(&followed, "fetch --quiet");
    user(&followed, "checkout --quiet other");
    daemon.wait_deployed("b", 1);
    daemon.sync();
    followed.holds(&daemon, [("a", "other"), ("b", "b")]);
    assert_eq!((generations(&followed), &followed.git()["live"]["branch"]), (2, &"other".into()));
    user(&followed, "checkout --quiet main");
    daemon.wait_deployed("a", 3);
    daemon.sync();
    followed.holds(&daemon, [("a", "one")]);
    assert_eq!(generations(&followed), 3);
}

#[test]
fn a_pull_that_ends_in_a_conflict_waits_for_the_user() {
    let (followed, daemon) = own_running("");
    followed.sandbox.write("in/a", "mine");
    daemon.wait_deployed("a", 2);
    user(&followed, "commit --quiet --all --message mine");
    daemon.sync();
    followed.upstream.commit(&[("a", "theirs"), ("b", "b")]);
    let pull = git(&followed.sandbox.path("in")).args(["pull", "--quiet", "--no-rebase"]).output().expect("run git");
    assert!(!pull.status.success(), "{pull:?}");
    daemon.sync();
    followed.holds(&daemon, [("a", "mine")]);
    assert!(followed.git()["waiting"].as_str().is_some_and(|why| why.contains("merge")), "{}", followed.git());
    followed.sandbox.write("in/a", "both");
    user(&followed, "commit --quiet --all --message both");
    daemon.wait_deployed("b", 1);
    daemon.sync();
    followed.holds(&daemon, [("a", "both"), ("b", "b")]);
    assert!(!daemon.said().contains("<<<<<<<"), "{}", daemon.said());
    assert_eq!(followed.git()["waiting"], serde_json::Value::Null);
}

#[test]
fn an_edit_nobody_committed_is_deployed_as_any_file_is() {
    let (followed, daemon) = own_running(RARELY);
    followed.sandbox.write("in/a", "edited");
    followed.sandbox.write("in/new", "untracked");
    daemon.wait_deployed("a", 2);
    daemon.wait_deployed("new", 1);
    followed.holds(&daemon, [("a", "edited"), ("new", "untracked")]);
    assert_eq!(followed.git()["live"]["commit"], followed.first);
}

#[test]
fn an_edited_clone_is_not_pulled_and_is_pulled_once_the_edit_is_gone() {
    let (followed, daemon) = own_running(RARELY);
    followed.sandbox.write("in/a", "mine");
    daemon.wait_deployed("a", 2);
    let second = followed.upstream.commit(&[("a", "theirs"), ("b", "b")]);
    daemon.sync();
    let problem = followed.problem();
    assert!(problem.contains('a'), "{problem}");
    assert_eq!(followed.sandbox.read("in/a").as_deref(), Some("mine"));
    assert_eq!(user(&followed, "rev-parse HEAD"), followed.first);
    followed.holds(&daemon, [("a", "mine")]);
    assert_eq!(followed.status()["state"], "failed");
    user(&followed, "checkout --quiet -- a");
    daemon.sync();
    daemon.wait_deployed("b", 1);
    daemon.sync();
    followed.holds(&daemon, [("a", "theirs"), ("b", "b")]);
    assert_eq!((user(&followed, "rev-parse HEAD"), followed.problem()), (second, String::new()));
}

#[test]
fn a_clone_with_commits_of_its_own_is_not_pulled() {
    let (followed, daemon) = own_running(RARELY);
    followed.sandbox.write("in/mine", "mine");
    user(&followed, "add mine");
    user(&followed, "commit --quiet --message mine");
    let own = user(&followed, "rev-parse HEAD");
    daemon.wait_deployed("mine", 1);
    followed.upstream.commit(&[("a", "two")]);
    daemon.sync();
    assert_ne!(followed.problem(), "", "{}", daemon.said());
    assert_eq!(user(&followed, "rev-parse HEAD"), own);
    followed.holds(&daemon, [("a", "one"), ("mine", "mine")]);
    user(&followed, "pull --quiet --rebase");
    daemon.wait_deployed("a", 2);
    daemon.sync();
    followed.holds(&daemon, [("a", "two"), ("mine", "mine")]);
    assert_eq!(followed.problem(), "", "{}", daemon.said());
}

#[test]
fn a_lock_in_the_clone_is_waited_for() {
    let (followed, daemon) = own_running(RARELY);
    // Somebody has it open.
    let lock = std::fs::File::create(followed.sandbox.path("in/.git/index.lock")).expect("make a file");
    followed.upstream.commit(&[("a", "two")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "one")]);
    let status = followed.git();
    assert!(status["waiting"].is_string() || status["problem"].is_object(), "{status}");
    drop(lock);
    followed.sandbox.remove("in/.git/index.lock");
    daemon.sync();
    followed.holds(&daemon, [("a", "two")]);
}

#[test]
fn a_clone_that_vanishes_undeploys_nothing_and_is_made_again() {
    let followed = Followed::clone_in(RARELY);
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one")]);
    followed.sandbox.remove_all("in");
    daemon.sync();
    followed.holds(&daemon, [("a", "one")]);
    assert_eq!(followed.sandbox.read("in/a").as_deref(), Some("one"), "{}", daemon.said());
    followed.upstream.commit(&[("a", "two")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "two")]);
}

#[test]
fn a_directory_with_files_of_somebody_elses_is_not_made_a_clone() {
    let followed = Followed::clone_in(RARELY);
    followed.sandbox.write("in/precious", "mine");
    let daemon = followed.sandbox.daemon();
    assert_ne!(followed.problem(), "", "{}", daemon.said());
    assert_eq!(followed.sandbox.tree("in").len(), 1);
    assert_eq!(followed.sandbox.read("in/precious").as_deref(), Some("mine"));
}

#[test]
fn a_clone_below_another_repository_is_its_own() {
    let followed = Followed::clone_in(RARELY);
    run(&followed.sandbox.path(""), "init --quiet");
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one")]);
    assert_eq!(user(&followed, "rev-parse HEAD"), followed.first);
}

#[test]
fn a_clone_through_a_symlink_and_an_odd_path_is_made() {
    let followed = Followed::new("");
    followed.sandbox.make("real/deep");
    followed.sandbox.symlink("real/deep", "linked");
    followed.configure(&format!("pickup_from = \"linked/../deep/./clone\"\n{RARELY}"));
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one")]);
    followed.upstream.commit(&[("a", "two")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "two")]);
}

#[test]
fn a_plain_clone_that_is_not_followed_says_where_it_stands() {
    let (followed, daemon) = own_running("");
    let git = followed.git();
    assert_eq!((&git["live"]["commit"], &git["live"]["branch"]), (&followed.first.clone().into(), &"main".into()));
    user(&followed, "tag here");
    user(&followed, "commit --quiet --allow-empty --message empty");
    daemon.sync();
    let history = json(&followed.sandbox, ["history", "--json"]);
    assert_eq!(history.as_array().map(Vec::len), Some(1), "nothing changed: {history}");
    nth(&daemon, super::followed::SEEN, 2);
}
