//! Bad versions under load: the old one serves on.

use std::net::SocketAddr;

use super::load::{CLIENTS, Load, Tally, ask_once};
use super::{Supervised, drop_version, edit, kill_all, sandbox, wait_for_processes};
use crate::daemon::Daemon;
use crate::sandbox::Sandbox;

/// A probation that a program which ends at its beginning surely ends in, however slow the machine is.
const LONGER: &str = "probation = \"2s\"";

/// Drops a version that fails between two good ones; gives what the clients saw, and what was said of it.
fn between(word: &str, keys: &str) -> (Tally, String) {
    let (sandbox, address) = sandbox(keys);
    drop_version(&sandbox, "v0");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    let load = Load::start(address, false);
    drop_version(&sandbox, &format!("bad {word}"));
    let failed = daemon.wait_for(|line| line.message == "failed; the old version stays");
    load.wait_for(100);
    drop_version(&sandbox, "v1");
    daemon.wait_deployed("version", 2);
    load.wait_for(100);
    let tally = load.stop();
    println!("{word:?}: {} served, {} lost, longest wait {:?}", tally.served, tally.lost.len(), tally.longest);
    assert!(tally.versions.contains(&"v1".to_owned()), "{:?}", tally.versions);
    wait_for_processes(&sandbox, 1);
    daemon.stop();
    wait_for_processes(&sandbox, 0);
    (tally, format!("{}\n{}", failed.field("cause"), failed.field("output")))
}

#[test]
fn a_version_that_crashes_at_its_start_costs_nothing() {
    let (tally, said) = between("crash", "");
    assert_eq!(tally.lost, Vec::<String>::new());
    assert!(said.contains("exit status 3 before it was ready") && said.contains("this version cannot start"), "{said}");
    assert!(!tally.versions.contains(&"bad".to_owned()));
}

#[test]
fn a_version_that_never_gets_ready_costs_nothing() {
    let (tally, said) = between("never", "");
    assert_eq!(tally.lost, Vec::<String>::new());
    assert!(said.contains("it did not say `READY=1`") && said.contains("this version never gets ready"), "{said}");
}

#[test]
fn a_version_that_ends_in_its_probation_costs_nothing() {
    let (tally, said) = between("die", LONGER);
    assert_eq!(tally.lost, Vec::<String>::new());
    assert!(said.contains("exit status 9 in its probation"), "{said}");
}

/// What a program has accepted dies with it; what it has not yet accepted is the old version's.
#[test]
fn a_version_that_vanishes_in_its_probation_costs_what_it_had_accepted() {
    let (tally, said) = between("vanish", LONGER);
    assert!(tally.lost.len() <= CLIENTS, "{:?}", tally.lost);
    assert!(said.contains("exit status 9 in its probation"), "{said}");
}

/// One that ignores SIGTERM is replaced and, at its deadline, killed.
fn deaf(keys: &str) -> Tally {
    let (sandbox, address) = sandbox(keys);
    drop_version(&sandbox, "v0 deaf");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    let load = Load::start(address, false);
    drop_version(&sandbox, "v1");
    daemon.wait_deployed("version", 2);
    let killed = daemon.wait_for(|line| line.message == "instance stopped");
    assert_eq!(killed.field("how"), "killed by signal 9");
    load.wait_for(100);
    let tally = load.stop();
    println!("deaf {keys:?}: {} served, {} lost, longest wait {:?}", tally.served, tally.lost.len(), tally.longest);
    wait_for_processes(&sandbox, 1);
    daemon.stop();
    tally
}

#[test]
fn a_version_that_ignores_the_signal_costs_what_it_holds_when_it_is_killed() {
    let lost = deaf("").lost;
    assert!(lost.len() <= CLIENTS, "{lost:?}");
}

#[test]
fn a_version_that_ignores_the_signal_costs_nothing_where_we_carry_connections() {
    assert_eq!(deaf("carried = true").lost, Vec::<String>::new());
}

fn status(sandbox: &Sandbox) -> String {
    String::from_utf8_lossy(&sandbox.ask(["status", "web", "--json", "--config", "pickup.conf"]).stdout).into_owned()
}

/// Lets a version live, then crash at each start, until it is quarantined.
fn crashed_again_and_again() -> (Supervised, SocketAddr, Daemon) {
    let (sandbox, address) = sandbox("restart_max = 2");
    let crash = sandbox.path("crash");
    edit(&sandbox, "restart_max", &format!("env = {{ CRASH = \"{}\" }}\nrestart_max", crash.display()));
    drop_version(&sandbox, "v0 loop");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    sandbox.write("crash", "");
    kill_all(&sandbox);
    let given_up = daemon.wait_for(|line| line.message == "what was live is not any more");
    assert!(given_up.field("cause").contains("2 restarts did not help"), "{given_up:?}");
    assert!(given_up.field("cause").contains("the last time: exit status 7"), "{given_up:?}");
    wait_for_processes(&sandbox, 0);
    (sandbox, address, daemon)
}

#[test]
fn a_crash_loop_ends_in_quarantine_and_a_new_version_ends_that() {
    let (sandbox, address, daemon) = crashed_again_and_again();
    daemon.log(|log| {
        let pauses = log.lines.iter().filter(|line| line.message == "it is started again");
        let pauses: Vec<_> = pauses.map(|line| line.fields["pause_ms"].to_string().replace('"', "")).collect();
        assert_eq!(pauses, ["250", "500"]);
    });
    let status = status(&sandbox);
    assert!(status.contains("\"failed\"") && status.contains("did not help"), "{status}");
    let daemon = restarted(&sandbox, daemon);
    daemon.wait_for(|line| line.message.starts_with("it is quarantined"));
    drop_version(&sandbox, "v1");
    daemon.wait_deployed("version", 1);
    assert_eq!(ask_once(address).expect("an answer"), "v1");
    daemon.stop();
}

#[test]
fn a_retry_ends_the_quarantine_of_a_program() {
    let (sandbox, address, daemon) = crashed_again_and_again();
    sandbox.remove("crash");
    sandbox.ask(["retry", "web", "--config", "pickup.conf"]);
    daemon.wait_deployed("version", 2);
    assert_eq!(ask_once(address).expect("an answer"), "v0");
    daemon.stop();
}

fn restarted(sandbox: &Sandbox, daemon: Daemon) -> Daemon {
    daemon.stop();
    sandbox.daemon()
}

#[test]
fn a_program_without_a_sign_of_life_is_killed_and_started_again() {
    let (sandbox, _) = sandbox("watchdog = \"500ms\"");
    drop_version(&sandbox, "v0 hang");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    daemon.wait_for(|line| line.message == "no sign of life; it is killed");
    daemon.wait_for(|line| line.message == "it is started again");
    daemon.wait_until("a second start", |log| {
        log.lines.iter().filter(|line| line.message == "instance activated").count() == 2
    });
    daemon.stop();
}

#[test]
fn what_a_program_prints_is_in_the_log_within_bounds() {
    let (sandbox, _) = sandbox("");
    drop_version(&sandbox, "v0 chatty");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    let line = daemon.wait_for(|line| line.message == "output" && line.field("line") == "ready for requests");
    assert_eq!(line.field("pickup"), "web");
    let said = daemon.stop();
    let lines = said.matches("\"line\":\"line ").count();
    assert!((100..=2000).contains(&lines), "{lines} lines");
}

#[test]
fn an_instance_is_started_activated_stopping_and_stopped() {
    let (sandbox, _) = sandbox("");
    drop_version(&sandbox, "v0");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    drop_version(&sandbox, "v1");
    daemon.wait_deployed("version", 2);
    daemon
        .wait_until("the old one to be stopped", |log| log.lines.iter().any(|line| line.message == "instance stopped"));
    daemon.log(|log| {
        let said = log.lines.iter().filter(|line| line.message.starts_with("instance "));
        let said: Vec<_> = said.map(|line| format!("{} {}", line.fields["generation"], line.message)).collect();
        let expected = ["1 instance started", "1 instance activated", "2 instance started", "2 instance activated"];
        assert_eq!(said[..4], expected);
        assert_eq!(said[4..], ["1 instance stopping", "1 instance stopped"]);
    });
    // A program gets its time at the end, too.
    let said = daemon.stop();
    assert!(said.contains("\"how\":\"exit status 0\""), "{said}");
}
