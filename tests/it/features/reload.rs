//! The configuration changes while the daemon runs.

use std::fs::File;
use std::io::Write;

use super::{COPY, config, json, said};
use crate::daemon::Daemon;
use crate::sandbox::Sandbox;

const READ: &str = "configuration read again";
const NOT_READ: &str = "the configuration cannot be read again; the running one stays";

/// An entry `q` that watches `in-q`, and is copied to `deployed/q`.
const SECOND: &str = "[hot-deploy.user.q]\npickup_from = \"in-q\"\ndeploy_to = [\"copy\"]\n";

/// Replaces the configuration as editors do, and waits until the daemon said `message` once more.
#[track_caller]
fn replace(sandbox: &Sandbox, daemon: &Daemon, text: &str, message: &str) {
    let before = daemon.log(|log| said(log, message));
    sandbox.write("pickup.conf.new", text);
    sandbox.rename("pickup.conf.new", "pickup.conf");
    daemon.wait_until(message, |log| said(log, message) > before);
}

fn one() -> String {
    config("deploy_to = [\"copy\"]", COPY)
}

fn two() -> String {
    one() + SECOND
}

#[test]
fn an_added_entry_is_picked_up_at_once() {
    let sandbox = Sandbox::new().config(&one()).file("in/a", "a").file("in-q/b", "b");
    let daemon = sandbox.daemon();
    replace(&sandbox, &daemon, &two(), READ);
    daemon.wait_deployed("b", 1);
    sandbox.write("in-q/c", "c");
    daemon.wait_deployed("c", 1);
    daemon.assert_deployed_once(["a", "b", "c"]);
    assert_eq!(sandbox.tree("deployed/q").len(), 2);
}

#[test]
fn a_configuration_written_in_place_is_read() {
    let sandbox = Sandbox::new().config(&one()).file("in-q/b", "b");
    let daemon = sandbox.daemon();
    sandbox.write("pickup.conf", two());
    daemon.wait_deployed("b", 1);
}

/// Half a configuration would end what the other half asks for, which may be a program that serves.
#[test]
fn a_configuration_is_not_read_before_its_writer_has_finished() {
    let sandbox = Sandbox::new().config(&two()).file("in/a", "a");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    let text = two() + "[hot-deploy.user.r]\npickup_from = \"in-r\"\ndeploy_to = [\"copy\"]\n";
    let (first, second) = text.split_at(one().len());
    let mut file = File::create(sandbox.path("pickup.conf")).expect("write in place");
    daemon.wait_until(NOT_READ, |log| said(log, NOT_READ) == 1);
    file.write_all(first.as_bytes()).expect("write the first half");
    daemon.hang_up();
    daemon.wait_until(NOT_READ, |log| said(log, NOT_READ) >= 2);
    let refused = daemon.wait_for(|line| line.message == NOT_READ);
    assert!(refused.field("error").contains("somebody has open for writing"), "{refused:?}");
    file.write_all(second.as_bytes()).expect("write the second half");
    drop(file);
    let read = daemon.wait_for(|line| line.message == READ);
    assert_eq!(read.field("changed"), "r", "{}", daemon.said());
    assert_eq!(read.fields["errors"], 0, "{}", daemon.said());
}

#[test]
fn an_empty_configuration_is_no_order_to_end_everything() {
    let sandbox = Sandbox::new().config(&one()).file("in/a", "a");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    sandbox.write("pickup.conf", "\n");
    let refused = daemon.wait_for(|line| line.message == NOT_READ);
    assert!(refused.field("error").contains("that is empty"), "{refused:?}");
    sandbox.write("in/b", "b");
    daemon.wait_deployed("b", 1);
    sandbox.write("pickup.conf", two());
    daemon.wait_for(|line| line.message == READ);
}

#[test]
fn a_changed_target_gets_everything_and_other_entries_rest() {
    let sandbox = Sandbox::new().config(&two()).file("in/a", "a").file("in-q/b", "b");
    let daemon = sandbox.daemon();
    let moved = two().replacen("\"copy\"", "\"moved\"", 1)
        + "[deployer.moved]\nkind = \"copy\"\ninto = \"moved/{pickup}\"\ndurable = false\n";
    replace(&sandbox, &daemon, &moved, READ);
    daemon.wait_deployed("a", 2);
    assert_eq!(sandbox.read("moved/p/a").as_deref(), Some("a"));
    let moved = moved.replace("moved/", "again/");
    replace(&sandbox, &daemon, &moved, READ);
    daemon.wait_deployed("a", 3);
    assert_eq!(sandbox.read("again/p/a").as_deref(), Some("a"));
    sandbox.write("in/a", "two");
    daemon.wait_deployed("a", 4);
    assert_eq!(sandbox.read("again/p/a").as_deref(), Some("two"));
    daemon.sync();
    assert_eq!(daemon.deployed("b"), 1, "{}", daemon.said());
}

#[test]
fn a_deployer_that_was_left_out_for_a_while_catches_up_with_a_change_of_mode() {
    const MOVED: &str = "[deployer.moved]\nkind = \"copy\"\ninto = \"moved/{pickup}\"\ndurable = false\n";
    let sandbox = Sandbox::new().config(&(one() + MOVED)).file("in/a", "a");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    let moved = one().replacen("\"copy\"", "\"moved\"", 1) + MOVED;
    replace(&sandbox, &daemon, &moved, READ);
    daemon.wait_deployed("a", 2);
    sandbox.chmod("in/a", 0o751);
    daemon.wait_deployed("a", 3);
    assert_eq!(sandbox.mode("moved/p/a"), 0o751);
    replace(&sandbox, &daemon, &(one() + MOVED), READ);
    daemon.wait_deployed("a", 4);
    assert_eq!(sandbox.mode("deployed/p/a"), 0o751);
}

#[test]
fn a_removed_entry_leaves_its_target_and_watches_no_more() {
    let sandbox = Sandbox::new().config(&two()).file("in/a", "a").file("in-q/b", "b");
    let daemon = sandbox.daemon();
    let text = two().replace(SECOND, "");
    replace(&sandbox, &daemon, &text, READ);
    sandbox.write("in-q/c", "c");
    sandbox.remove("in-q/b");
    daemon.sync();
    assert_eq!(sandbox.tree("deployed/q")["b"], "b");
    assert_eq!(sandbox.tree("deployed/q").len(), 1, "{}", daemon.said());
    replace(&sandbox, &daemon, &two(), READ);
    daemon.wait_deployed("c", 1);
}

#[test]
fn a_file_that_does_not_parse_leaves_the_running_configuration() {
    let sandbox = Sandbox::new().config(&one());
    let daemon = sandbox.daemon();
    replace(&sandbox, &daemon, "[hot-deploy.user.p\nwhat", NOT_READ);
    sandbox.write("in/a", "a");
    daemon.wait_deployed("a", 1);
    replace(&sandbox, &daemon, &two(), READ);
    sandbox.write("in-q/b", "b");
    daemon.wait_deployed("b", 1);
    daemon.assert_deployed_once(["a", "b"]);
}

#[test]
fn a_mistake_breaks_its_own_entry_only_and_is_shown() {
    let sandbox = Sandbox::new().config(&two()).file("in/a", "a").file("in-q/b", "b");
    let daemon = sandbox.daemon();
    replace(&sandbox, &daemon, &two().replacen("pickup_from", "pickup_form", 1), READ);
    let status = json(&sandbox, ["status", "--json"]);
    let state = |name| status.as_array()?.iter().find(|entry| entry["name"] == name)?["state"].as_str();
    assert_eq!((state("p"), state("q")), (Some("broken"), Some("live")), "{status}");
    sandbox.write("in-q/c", "c");
    daemon.wait_deployed("c", 1);
    replace(&sandbox, &daemon, &two(), READ);
    sandbox.write("in/d", "d");
    daemon.wait_deployed("d", 1);
    daemon.assert_deployed_once(["a", "b", "c", "d"]);
}

#[test]
fn sighup_looks_at_everything_now() {
    let sandbox = Sandbox::new().config(&config("deploy_to = [\"copy\"]\nwatch = \"off\"", COPY));
    let daemon = sandbox.daemon();
    sandbox.write("in/a", "a");
    daemon.hang_up();
    daemon.wait_deployed("a", 1);
}
