//! Programs whose entry is gone, switched off, changed to another kind, or broken, while we are away or not.

use super::load::ask_once;
use super::{drop_version, edit, processes, sandbox, wait_for_processes};
use crate::daemon::Daemon;

/// Runs a program, ends the daemon by `end`, changes the configuration, and expects that the program is stopped by the next
/// start, which says so.
fn stopped_by_the_next_start(keys: &str, end: impl Fn(Daemon), from: &str, to: &str) {
    let (sandbox, address) = sandbox(keys);
    let socket = sandbox.path("web.sock");
    edit(&sandbox, "listen = { ", &format!("listen = {{ api = \"unix:{}\", ", socket.display()));
    drop_version(&sandbox, "v0 fork");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    assert!(socket.exists());
    end(daemon);
    assert_eq!(processes(&sandbox).len(), 2);
    edit(&sandbox, from, to);
    let daemon = sandbox.daemon();
    // Nothing waits for it: it was stopped before the daemon was ready.
    assert_eq!(processes(&sandbox), Vec::<u32>::new(), "{}", daemon.said());
    ask_once(address).expect_err("nobody listens");
    assert!(!socket.exists());
    daemon.log(|log| {
        let said = log.lines.iter().filter(|line| line.fields.get("pickup").is_some_and(|pickup| pickup == "web"));
        let said: Vec<_> = said.map(|line| line.message.as_str()).filter(|said| *said != "output").collect();
        let unclaimed = "no entry runs this program any more; it is stopped";
        assert!(said.starts_with(&["found running", unclaimed, "instance stopping", "instance stopped"]), "{said:?}");
    });
    daemon.stop();
}

#[test]
fn a_program_whose_entry_went_while_we_were_down_is_stopped() {
    stopped_by_the_next_start("", Daemon::kill, "user.web]", "user.other]\nenabled = false");
}

/// `keep_running` is about our end, not about the entry's.
#[test]
fn a_program_that_is_kept_running_stops_with_its_entry_too() {
    stopped_by_the_next_start(
        "keep_running = true",
        |daemon| drop(daemon.stop()),
        "deploy_to",
        "enabled = false\ndeploy_to",
    );
}

#[test]
fn a_program_whose_deployer_is_of_another_kind_now_is_stopped() {
    let (from, to) =
        ("deploy_to = [\"web\"]", "deploy_to = [\"copy\"]\n[deployer.copy]\nkind = \"copy\"\ninto = \"out\"");
    stopped_by_the_next_start("", Daemon::kill, from, to);
}

#[test]
fn one_that_does_not_finish_is_killed() {
    let (sandbox, _) = sandbox("");
    edit(&sandbox, "drain_timeout = \"5s\"", "drain_timeout = \"200ms\"");
    drop_version(&sandbox, "v0 deaf");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    daemon.kill();
    edit(&sandbox, "deploy_to", "enabled = false\ndeploy_to");
    let daemon = sandbox.daemon();
    assert_eq!(processes(&sandbox), Vec::<u32>::new(), "{}", daemon.said());
    daemon.stop();
}

/// The same while we run: whoever is in charge of the program hands it over to nobody.
#[test]
fn a_deployer_that_becomes_another_kind_stops_its_program() {
    let (sandbox, _) = sandbox("");
    drop_version(&sandbox, "v0");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    let text = sandbox.read("pickup.conf").expect("a configuration");
    let (before, _) = text.split_once("[deployer.web]").expect("a deployer");
    sandbox.write("pickup.conf", format!("{before}[deployer.web]\nkind = \"copy\"\ninto = \"out\"\n"));
    daemon.hang_up();
    daemon.wait_for(|line| line.message == "instance stopped");
    daemon.wait_deployed("version", 2);
    wait_for_processes(&sandbox, 0);
    daemon.stop();
}

/// A mistake in the file is no order to stop what serves.
#[test]
fn a_program_whose_entry_is_broken_runs_on_until_it_is_mended() {
    let (sandbox, address) = sandbox("");
    drop_version(&sandbox, "v0");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    let before = processes(&sandbox);
    let (good, bad) = ("deploy_to = [\"web\"]", "deploy_to = [\"wbe\"]");
    edit(&sandbox, good, bad);
    daemon.hang_up();
    daemon.wait_for(|line| line.message == "configuration read again");
    assert_eq!(ask_once(address).expect("an answer"), "v0");
    daemon.kill();
    let daemon = sandbox.daemon();
    assert_eq!(ask_once(address).expect("an answer"), "v0");
    edit(&sandbox, bad, good);
    daemon.hang_up();
    daemon.wait_for(|line| line.message == "instance activated");
    assert_eq!(processes(&sandbox), before, "{}", daemon.said());
    edit(&sandbox, good, bad);
    daemon.hang_up();
    // The file's own change may be seen before the signal: then it is read twice, and the second time nothing is new.
    daemon.wait_for(|line| {
        line.message == "configuration read again" && line.field("changed") == "web" && line.fields["errors"] == 1
    });
    edit(&sandbox, "user.web]", "user.other]\nenabled = false");
    daemon.hang_up();
    daemon.wait_for(|line| line.message == "instance stopped");
    wait_for_processes(&sandbox, 0);
    daemon.stop();
}
