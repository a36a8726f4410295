//! What is picked up, what is left alone, and when it is looked at.

use super::{COPY, config, json, why};
use crate::sandbox::Sandbox;

#[test]
fn a_picked_up_file_goes_once_it_is_live_and_its_copy_stays() {
    let sandbox = Sandbox::new().keys("delete_after_pickup = true").file("in/a", "one");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    daemon.sync();
    assert_eq!((sandbox.read("in/a"), sandbox.deployed()["a"].as_str()), (None, "one"));
    sandbox.write("in/a", "two");
    daemon.wait_deployed("a", 2);
    daemon.sync();
    assert_eq!((sandbox.read("in/a"), sandbox.deployed()["a"].as_str()), (None, "two"));
    daemon.stop();
    let daemon = sandbox.daemon();
    assert_eq!(sandbox.deployed()["a"], "two", "{}", daemon.said());
    assert!(daemon.all_deployed().is_empty(), "{}", daemon.said());
}

#[test]
fn a_removed_file_stays_deployed_where_it_is_kept() {
    let sandbox = Sandbox::new().keys("on_removed = \"keep\"").file("in/a", "a").file("in/b", "b");
    let daemon = sandbox.daemon();
    sandbox.remove("in/a");
    daemon.sync();
    assert_eq!(sandbox.deployed().len(), 2);
    sandbox.write("in/a", "again");
    daemon.wait_deployed("a", 2);
    assert_eq!(sandbox.deployed()["a"], "again");
}

#[test]
fn without_recursion_only_the_top_is_picked_up() {
    let sandbox = Sandbox::new().keys("recursive = false").file("in/a", "a").file("in/d/b", "b");
    let daemon = sandbox.daemon();
    sandbox.write("in/d/c", "c");
    sandbox.write("in/e", "e");
    daemon.wait_deployed("e", 1);
    daemon.sync();
    daemon.assert_deployed_once(["a", "e"]);
    assert!(why(&sandbox, "in/d/b").contains("recursive"), "{}", why(&sandbox, "in/d/b"));
}

#[test]
fn patterns_choose_by_name_or_by_path() {
    let sandbox = Sandbox::new().keys("patterns = [\"*.py\", \"conf/*.toml\"]");
    for path in ["in/a.py", "in/d/b.py", "in/conf/c.toml", "in/d.toml", "in/x/conf/e.toml", "in/f.txt"] {
        sandbox.write(path, "x");
    }
    let daemon = sandbox.daemon();
    daemon.sync();
    daemon.assert_deployed_once(["a.py", "d/b.py", "conf/c.toml"]);
    assert!(why(&sandbox, "in/f.txt").contains("*.py"), "{}", why(&sandbox, "in/f.txt"));
    sandbox.rename("in/f.txt", "in/f.py");
    daemon.wait_deployed("f.py", 1);
}

#[test]
fn ignored_files_are_left_alone_and_an_exclamation_mark_takes_them_back() {
    let sandbox = Sandbox::new().keys("ignore = [\"*.log\", \"!keep.log\", \"build/\"]");
    for path in ["in/a.log", "in/keep.log", "in/build/b", "in/c", "in/.git/config", "in/__pycache__/d", "in/e.swp"] {
        sandbox.write(path, "x");
    }
    let daemon = sandbox.daemon();
    daemon.sync();
    daemon.assert_deployed_once(["keep.log", "c"]);
    assert!(why(&sandbox, "in/a.log").contains("`*.log`"), "{}", why(&sandbox, "in/a.log"));
}

#[test]
fn an_ignore_file_counts_from_when_it_appears_until_it_goes() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    sandbox.write("in/.pickupignore", "*.log\n");
    daemon.sync();
    sandbox.write("in/a.log", "a");
    sandbox.write("in/b.txt", "b");
    daemon.sync();
    daemon.assert_deployed_once(["b.txt"]);
    assert!(why(&sandbox, "in/a.log").contains(".pickupignore"), "{}", why(&sandbox, "in/a.log"));
    sandbox.write("in/.pickupignore", "*.dat\n");
    daemon.wait_deployed("a.log", 1);
    sandbox.write("in/c.dat", "c");
    daemon.sync();
    daemon.assert_deployed_once(["a.log", "b.txt"]);
    sandbox.remove("in/.pickupignore");
    daemon.wait_deployed("c.dat", 1);
    daemon.assert_deployed_once(["a.log", "b.txt", "c.dat"]);
}

#[test]
fn an_unwatched_entry_is_looked_at_at_start_and_by_sync_only() {
    let second = "[hot-deploy.user.q]\npickup_from = \"in-q\"\ndeploy_to = [\"copy\"]\n";
    let text = config("deploy_to = [\"copy\"]\nwatch = \"off\"", &format!("{COPY}{second}"));
    let sandbox = Sandbox::new().config(&text).file("in/a", "a").directory("in-q");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    sandbox.write("in/b", "b");
    sandbox.write("in-q/c", "c");
    daemon.wait_deployed("c", 1);
    assert_eq!(daemon.deployed("b"), 0);
    sandbox.ask(["sync", "p"]);
    daemon.wait_deployed("b", 1);
}

#[test]
fn a_polled_entry_misses_nothing() {
    let sandbox =
        Sandbox::new().keys("watch = \"poll\"\npoll_interval = \"100ms\"\nsettle = \"200ms\"").file("in/s", "s");
    let daemon = sandbox.daemon();
    sandbox.write("in/d/a", "one");
    daemon.wait_deployed("d/a", 1);
    sandbox.write("in/d/a", "two");
    daemon.wait_deployed("d/a", 2);
    sandbox.remove("in/d/a");
    daemon.wait_removed("d/a");
    assert_eq!(sandbox.deployed().into_keys().collect::<Vec<_>>(), ["s"]);
}

#[test]
fn the_first_of_several_directories_wins_and_the_next_steps_in() {
    let text = config("deploy_to = [\"copy\"]", COPY).replace("\"in\"", "[\"in\", \"in-2\"]");
    let sandbox = Sandbox::new().config(&text).file("in/a", "first").file("in/b", "b").file("in-2/a", "second");
    let sandbox = sandbox.file("in-2/c", "c");
    let daemon = sandbox.daemon();
    daemon.sync();
    daemon.assert_deployed_once(["a", "b", "c"]);
    assert_eq!(sandbox.deployed()["a"], "first");
    assert!(why(&sandbox, "in-2/a").contains("comes first"), "{}", why(&sandbox, "in-2/a"));
    sandbox.write("in-2/a", "second, changed");
    daemon.sync();
    daemon.assert_deployed_once(["a", "b", "c"]);
    sandbox.remove("in/a");
    daemon.wait_deployed("a", 2);
    assert_eq!(sandbox.deployed()["a"], "second, changed");
}

#[test]
fn a_disabled_entry_is_shown_and_does_nothing() {
    let sandbox = Sandbox::new().keys("enabled = false").file("in/a", "a");
    let daemon = sandbox.daemon();
    assert_eq!(json(&sandbox, ["status", "--json"])[0]["state"], "disabled");
    assert!(daemon.all_deployed().is_empty());
    assert!(sandbox.deployed().is_empty());
}

#[test]
fn a_missing_directory_is_waited_for() {
    let sandbox = Sandbox::new();
    sandbox.shell("rmdir in");
    let daemon = sandbox.daemon();
    assert_eq!(json(&sandbox, ["status", "--json"])[0]["state"], "unavailable");
    sandbox.write("in/a", "a");
    daemon.wait_deployed("a", 1);
    assert_eq!(sandbox.deployed()["a"], "a");
}
