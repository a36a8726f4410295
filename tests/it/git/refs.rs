//! Which commit is followed: branches, tags and pins, where they move, and what is refused.

use super::followed::{FOLLOWED, Followed, OFTEN, RARELY, UNFOLLOWED, nth, said};
use crate::remote::Upstream;

fn with(reference: &str) -> String {
    format!("{RARELY}\ngit_ref = \"{reference}\"")
}

#[test]
fn a_rewritten_branch_is_refused_and_a_merge_of_it_is_followed() {
    let followed = Followed::new(RARELY);
    let second = followed.upstream.commit(&[("a", "two")]);
    let daemon = followed.sandbox.daemon();
    let rewritten = followed.upstream.amend(&[("a", "rewritten")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "two")]);
    let problem = followed.problem();
    assert!(problem.contains("main") && problem.contains("git_fast_forward_only"), "{problem}");
    assert_eq!(
        (&followed.git()["live"]["commit"], &followed.status()["state"]),
        (&second.clone().into(), &"failed".into())
    );
    daemon.sync();
    assert_eq!(said(&daemon, UNFOLLOWED), 1, "it is said once: {}", daemon.said());
    followed.upstream.branch("main", &second);
    let third = followed.upstream.commit(&[("a", "three")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "three")]);
    assert_eq!((followed.problem().as_str(), &followed.git()["live"]["commit"]), ("", &third.into()));
    assert_eq!(said(&daemon, FOLLOWED), 1, "{}", daemon.said());
    followed.upstream.branch("main", &rewritten);
    daemon.sync();
    followed.holds(&daemon, [("a", "three")]);
    followed.reconfigure(&daemon, &format!("{RARELY}\ngit_fast_forward_only = false"));
    followed.holds(&daemon, [("a", "rewritten")]);
}

#[test]
fn a_branch_that_may_move_backwards_is_followed_there_and_forth() {
    let followed = Followed::new(&format!("{}\ngit_fast_forward_only = false", with("feature")));
    followed.upstream.branch("feature", &followed.first);
    let daemon = followed.sandbox.daemon();
    let second = followed.upstream.edit().on("feature").file("a", "two").file("b", "b").commit();
    daemon.sync();
    followed.holds(&daemon, [("a", "two"), ("b", "b")]);
    followed.upstream.branch("feature", &followed.first);
    daemon.sync();
    followed.holds(&daemon, [("a", "one")]);
    followed.upstream.branch("feature", &second);
    daemon.sync();
    followed.holds(&daemon, [("a", "two"), ("b", "b")]);
    assert_eq!(followed.history().len(), 4);
}

#[test]
fn a_light_tag_is_followed_when_it_moves_and_commits_after_it_are_not() {
    let followed = Followed::new(&with("v1"));
    followed.upstream.tag("v1", &followed.first);
    moves(&followed, |commit| followed.upstream.tag("v1", commit));
}

#[test]
fn an_annotated_tag_is_followed_when_it_moves_and_commits_after_it_are_not() {
    let followed = Followed::new(&with("v1"));
    followed.upstream.annotated_tag("v1", &followed.first);
    moves(&followed, |commit| followed.upstream.annotated_tag("v1", commit));
}

#[track_caller]
fn moves(followed: &Followed, tag: impl Fn(&str)) {
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one")]);
    let second = followed.upstream.commit(&[("a", "two")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "one")]);
    tag(&second);
    daemon.sync();
    followed.holds(&daemon, [("a", "two")]);
    assert_eq!(followed.git()["live"]["branch"], "v1");
    tag(&followed.first);
    daemon.sync();
    followed.holds(&daemon, [("a", "one")]);
    assert_eq!(followed.history().len(), 3);
}

#[test]
fn without_a_reference_the_remotes_head_is_followed_wherever_it_points() {
    let followed = Followed::new(RARELY);
    let other = followed.upstream.edit().on("trunk").after("refs/heads/main").file("a", "trunk").commit();
    let daemon = followed.sandbox.daemon();
    assert_eq!(followed.git()["follows"], "main");
    followed.upstream.git("symbolic-ref HEAD refs/heads/trunk");
    daemon.sync();
    followed.holds(&daemon, [("a", "trunk")]);
    let git = followed.git();
    assert_eq!((&git["live"]["commit"], &git["live"]["branch"]), (&other.into(), &"trunk".into()), "{git}");
}

#[test]
fn a_deleted_branch_stays_live_and_is_said() {
    let followed = Followed::new(&with("feature"));
    followed.upstream.branch("feature", &followed.first);
    let daemon = followed.sandbox.daemon();
    followed.upstream.delete_branch("feature");
    daemon.sync();
    followed.holds(&daemon, [("a", "one")]);
    let problem = followed.problem();
    assert!(problem.contains("feature"), "{problem}");
    assert!(daemon.all_removed().is_empty(), "{}", daemon.said());
    let second = followed.upstream.commit(&[("a", "two")]);
    followed.upstream.branch("feature", &second);
    daemon.sync();
    followed.holds(&daemon, [("a", "two")]);
    assert_eq!(followed.problem(), "");
}

#[test]
fn a_branch_that_comes_later_is_waited_for() {
    let followed = Followed::new(&format!("{OFTEN}\ngit_ref = \"later\""));
    let daemon = followed.sandbox.daemon();
    assert!(nth(&daemon, UNFOLLOWED, 1).field("cause").contains("later"), "{}", daemon.said());
    assert_eq!(followed.sandbox.deployed().len(), 0);
    followed.upstream.branch("later", &followed.first);
    daemon.wait_deployed("a", 1);
}

#[test]
fn another_branch_in_the_configuration_is_deployed() {
    let followed = Followed::new(&with("main"));
    followed.upstream.edit().on("other").after("refs/heads/main").file("a", "other").file("b", "b").commit();
    let daemon = followed.sandbox.daemon();
    followed.reconfigure(&daemon, &with("other"));
    followed.holds(&daemon, [("a", "other"), ("b", "b")]);
    followed.reconfigure(&daemon, &with("main"));
    followed.holds(&daemon, [("a", "one")]);
    assert_eq!(followed.history().len(), 3, "{}", daemon.said());
}

#[test]
fn a_pinned_commit_is_deployed_wherever_it_is_and_a_changed_pin_redeploys() {
    let followed = Followed::new(RARELY);
    let second = followed.upstream.commit(&[("a", "two")]);
    let third = followed.upstream.commit(&[("a", "three")]);
    followed.configure(&with(&second));
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "two")]);
    assert_eq!(followed.git()["live"]["branch"], serde_json::Value::Null);
    followed.reconfigure(&daemon, &with(&third));
    followed.holds(&daemon, [("a", "three")]);
    followed.reconfigure(&daemon, &with(&followed.first));
    followed.holds(&daemon, [("a", "one")]);
    let fourth = followed.upstream.commit(&[("a", "four")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "one")]);
    followed.reconfigure(&daemon, &with(&fourth));
    followed.holds(&daemon, [("a", "four")]);
    followed.reconfigure(&daemon, &with("0123456789012345678901234567890123456789"));
    followed.holds(&daemon, [("a", "four")]);
    assert!(followed.problem().contains("0123456"), "{}", followed.problem());
}

#[test]
fn a_pin_that_changed_while_down_is_deployed_at_start() {
    let followed = Followed::new(RARELY);
    let second = followed.upstream.commit(&[("a", "two")]);
    followed.configure(&with(&followed.first));
    let daemon = followed.sandbox.daemon();
    daemon.kill();
    followed.configure(&with(&second));
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "two")]);
    daemon.assert_deployed_once(["a"]);
}

#[test]
fn a_pinned_commit_is_not_polled() {
    let followed = Followed::new(RARELY);
    let other = Upstream::new(&followed.sandbox.path("served"), "b.git");
    other.commit(&[("b", "b")]);
    let pinned = format!("git_url = \"{}\"\n{OFTEN}\ngit_ref = \"{}\"", followed.url(), followed.first);
    let polled = format!("git_url = \"{}\"\n{OFTEN}", followed.server.url("b.git"));
    let entries = format!("{}{}", Followed::entry("p", &pinned), Followed::entry("polled", &polled));
    followed.configure_entries(&entries);
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one")]);
    let asked = || followed.server.requests_by_path().get("GET /a.git/info/refs").copied();
    let before = asked();
    // The other one is asked at the same interval.
    followed.server.wait_requests(followed.server.requests() + 20);
    assert_eq!(asked(), before, "{:?}", followed.server.requests_by_path());
}
