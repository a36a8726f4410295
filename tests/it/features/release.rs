//! `kind = "release"`: a link to the newest of several releases, and the way back.

use std::fs;

use super::{config, json, why};
use crate::sandbox::Sandbox;

fn site() -> Sandbox {
    let site = "[deployer.site]\nkind = \"release\"\ninto = \"site\"\nkeep = 2\ndurable = false\n";
    Sandbox::new().config(&config("deploy_to = [\"site\"]", site))
}

pub(super) fn releases(sandbox: &Sandbox) -> usize {
    let entries = fs::read_dir(sandbox.path("site/releases")).expect("list releases").flatten();
    // Beside each release is a file that describes it.
    entries.filter(|entry| entry.path().is_dir()).count()
}

fn live(sandbox: &Sandbox) -> Option<String> {
    sandbox.read("site/current/a")
}

#[test]
fn the_link_leads_to_the_newest_release_and_only_some_are_kept() {
    let sandbox = site().file("in/a", "1").file("in/b", "b");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    daemon.wait_deployed("b", 1);
    let mut before = fs::read_link(sandbox.path("site/current")).expect("a link");
    for times in 2..6 {
        sandbox.write("in/a", times.to_string());
        daemon.wait_deployed("a", times);
        let now = fs::read_link(sandbox.path("site/current")).expect("a link");
        assert_ne!(now, before);
        assert_eq!(live(&sandbox), Some(times.to_string()));
        assert_eq!(sandbox.read("site/current/b").as_deref(), Some("b"));
        before = now;
    }
    daemon.sync();
    assert_eq!(releases(&sandbox), 2);
    sandbox.remove("in/b");
    daemon.wait_removed("b");
    assert_eq!(sandbox.tree("site/current").into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn a_rollback_holds_over_a_restart_until_it_is_released() {
    let sandbox = site().file("in/a", "one");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    sandbox.write("in/a", "two");
    daemon.wait_deployed("a", 2);
    sandbox.ask(["rollback", "p"]);
    assert_eq!(live(&sandbox).as_deref(), Some("one"));
    sandbox.write("in/a", "three");
    sandbox.write("in/new", "new");
    daemon.sync();
    assert_eq!(live(&sandbox).as_deref(), Some("one"));
    assert!(why(&sandbox, "in/new").contains("held"), "{}", why(&sandbox, "in/new"));
    daemon.stop();
    let daemon = sandbox.daemon();
    daemon.sync();
    assert_eq!(live(&sandbox).as_deref(), Some("one"), "{}", daemon.said());
    assert_eq!(daemon.all_deployed().len(), 0, "{}", daemon.said());
    assert_eq!(json(&sandbox, ["status", "--json"])[0]["held"], 1);
    sandbox.ask(["release", "p"]);
    daemon.wait_deployed("a", 1);
    daemon.wait_deployed("new", 1);
    assert_eq!(live(&sandbox).as_deref(), Some("three"));
    assert_eq!(sandbox.read("site/current/new").as_deref(), Some("new"));
    let history = json(&sandbox, ["history", "--json"]);
    let origins: Vec<_> = history.as_array().expect("a list").iter().map(|row| row["origin"].to_string()).collect();
    assert!(origins.iter().any(|origin| origin.contains("rollback")), "{history}");
}

#[test]
fn a_generation_whose_release_is_gone_is_built_again() {
    let sandbox = site().file("in/a", "1").file("in/b", "b");
    let daemon = sandbox.daemon();
    daemon.sync();
    sandbox.remove("in/b");
    daemon.wait_removed("b");
    for times in 2..6 {
        sandbox.write("in/a", times.to_string());
        daemon.wait_deployed("a", times);
    }
    daemon.sync();
    assert_eq!(releases(&sandbox), 2);
    sandbox.ask(["rollback", "p", "--to", "1"]);
    assert_eq!(live(&sandbox).as_deref(), Some("1"));
    assert_eq!(sandbox.read("site/current/b").as_deref(), Some("b"));
    let failed = sandbox.try_ask(["rollback", "p", "--to", "77"]);
    assert_eq!(failed.status.code(), Some(2), "{failed:?}");
    assert_eq!(live(&sandbox).as_deref(), Some("1"));
}

#[test]
fn a_rollback_of_copies_puts_back_and_takes_away() {
    let sandbox = Sandbox::new().file("in/a", "one");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    sandbox.write("in/b", "b");
    daemon.wait_deployed("b", 1);
    sandbox.write("in/a", "two");
    daemon.wait_deployed("a", 2);
    sandbox.ask(["rollback", "p", "--to", "1"]);
    assert_eq!(sandbox.deployed().into_iter().collect::<Vec<_>>(), [("a".to_owned(), "one".to_owned())]);
    sandbox.ask(["release", "p"]);
    daemon.sync();
    assert_eq!(sandbox.deployed().len(), 2);
    assert_eq!(sandbox.deployed()["a"], "two");
}
