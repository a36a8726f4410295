//! Our own end in the middle: what runs is taken up again, or stopped, and never twice.

use super::load::{Load, ask_once};
use super::{drop_version, processes, sandbox, wait_for_processes};
use crate::daemon::Daemon;
use crate::sandbox::Sandbox;

/// How often the daemon ends and starts again.
const RESTARTS: usize = 3;

/// Under load, ends the daemon by `end`, starts it again, and redeploys.
fn outlived(keys: &str, keep_alive: bool, end: impl Fn(Daemon)) {
    let (sandbox, address) = sandbox(keys);
    drop_version(&sandbox, "v0");
    let mut daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    let load = Load::start(address, keep_alive);
    for round in 1..=RESTARTS {
        let before = processes(&sandbox);
        assert_eq!(before.len(), 1);
        end(daemon);
        daemon = sandbox.daemon();
        daemon.wait_for(|line| line.message == "found running");
        load.wait_for(100);
        assert_eq!(processes(&sandbox), before, "it is the same process; the daemon said:\n{}", daemon.said());
        drop_version(&sandbox, &format!("v{round}"));
        daemon.wait_deployed("version", 1);
        wait_for_processes(&sandbox, 1);
    }
    let tally = load.stop();
    println!("outlived {keys:?} {keep_alive}: {} served, longest wait {:?}", tally.served, tally.longest);
    assert_eq!(tally.lost, Vec::<String>::new(), "the daemon said:\n{}", daemon.said());
    assert_eq!(ask_once(address).expect("an answer"), format!("v{RESTARTS}"));
    end_all(&sandbox, daemon);
}

/// Nothing of a test outlives it: the entry goes, and its program with it.
fn end_all(sandbox: &Sandbox, daemon: Daemon) {
    let text = sandbox.read("pickup.conf").expect("a configuration");
    sandbox.write("pickup.conf", text.replace("deploy_to", "enabled = false\ndeploy_to"));
    daemon.hang_up();
    wait_for_processes(sandbox, 0);
    daemon.stop();
}

#[test]
fn a_crash_of_the_daemon_loses_no_request() {
    outlived("", false, Daemon::kill);
}

#[test]
fn a_crash_of_the_daemon_loses_no_request_on_kept_connections() {
    outlived("", true, Daemon::kill);
}

#[test]
fn a_planned_end_with_keep_running_loses_no_request() {
    outlived("keep_running = true", false, |daemon| drop(daemon.stop()));
}

/// The new version was up and not proven when we were killed: it is stopped, the old one never was, and the new one is
/// deployed once more.
#[test]
fn a_crash_in_the_middle_of_a_redeploy_leaves_one_program() {
    let (sandbox, address) = sandbox("");
    drop_version(&sandbox, "v0");
    let mut daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    let load = Load::start(address, false);
    for (round, moment) in ["instance started", "instance activated", "deployed"].into_iter().enumerate() {
        let said = daemon.log(|log| log.lines.iter().filter(|line| line.message == moment).count());
        drop_version(&sandbox, &format!("v{}", round + 1));
        daemon.wait_until(moment, |log| log.lines.iter().filter(|line| line.message == moment).count() > said);
        daemon.kill();
        daemon = sandbox.daemon();
        if moment != "deployed" {
            daemon.wait_deployed("version", 1);
        }
        wait_for_processes(&sandbox, 1);
        assert_eq!(ask_once(address).expect("an answer"), format!("v{}", round + 1), "{}", daemon.said());
    }
    let tally = load.stop();
    println!(
        "crash amid redeploys: {} served, {} lost, longest wait {:?}",
        tally.served,
        tally.lost.len(),
        tally.longest
    );
    assert_eq!(tally.lost, Vec::<String>::new(), "the daemon said:\n{}", daemon.said());
    end_all(&sandbox, daemon);
}

#[test]
fn the_daemon_takes_its_programs_along_and_starts_them_again() {
    let (sandbox, address) = sandbox("");
    drop_version(&sandbox, "v0 fork");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    assert_eq!(processes(&sandbox).len(), 2);
    daemon.stop();
    assert!(processes(&sandbox).is_empty());
    let daemon = sandbox.daemon();
    daemon.wait_for(|line| line.message == "instance activated");
    assert_eq!(ask_once(address).expect("an answer"), "v0");
    // It is no change: what was live still is.
    assert_eq!(daemon.deployed("version"), 0);
    daemon.stop();
    assert!(processes(&sandbox).is_empty());
}

#[test]
fn a_changed_configuration_takes_effect_without_losing_a_request() {
    let (sandbox, address) = sandbox("");
    drop_version(&sandbox, "v0");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    let load = Load::start(address, false);
    let text = sandbox.read("pickup.conf").expect("a configuration");
    sandbox.write("pickup.conf", text.replace("retry = 0", "retry = 0\nenv = { NEW = \"1\" }"));
    daemon.hang_up();
    daemon.wait_deployed("version", 2);
    wait_for_processes(&sandbox, 1);
    let tally = load.stop();
    assert_eq!(tally.lost, Vec::<String>::new(), "the daemon said:\n{}", daemon.said());
    end_all(&sandbox, daemon);
}

#[test]
fn a_pickup_that_is_emptied_stops_its_program() {
    let (sandbox, _) = sandbox("");
    drop_version(&sandbox, "v0");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    sandbox.remove("in/version");
    daemon.wait_removed("version");
    wait_for_processes(&sandbox, 0);
    drop_version(&sandbox, "v1");
    daemon.wait_deployed("version", 2);
    wait_for_processes(&sandbox, 1);
    daemon.stop();
}
