//! New versions under load: nothing is lost.

use super::load::{Load, Tally};
use super::{drop_version, sandbox};

/// How often the program is redeployed.
const REDEPLOYS: usize = 30;

fn redeploy(keys: &str, keep_alive: bool, word: &str) -> Tally {
    let (sandbox, address) = sandbox(keys);
    drop_version(&sandbox, &format!("v0 {word}"));
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    let load = Load::start(address, keep_alive);
    for at in 1..=REDEPLOYS {
        drop_version(&sandbox, &format!("v{at} {word}"));
        daemon.wait_deployed("version", at + 1);
    }
    load.wait_for(100);
    let tally = load.stop();
    println!(
        "{keys:?} keep-alive {keep_alive} {word:?}: {} served, {} lost, longest wait {:?}",
        tally.served,
        tally.lost.len(),
        tally.longest
    );
    assert_eq!(tally.lost, Vec::<String>::new(), "the daemon said:\n{}", daemon.said());
    assert!(tally.versions.contains(&format!("v{REDEPLOYS}")), "{:?}", tally.versions);
    daemon.stop();
    tally
}

#[test]
fn thirty_redeploys_lose_no_request() {
    assert!(redeploy("", false, "").versions.len() > REDEPLOYS);
}

#[test]
fn thirty_redeploys_lose_no_request_on_kept_connections() {
    redeploy("", true, "");
}

#[test]
fn thirty_redeploys_of_a_program_that_forks_lose_no_request() {
    redeploy("", false, "fork");
}

#[test]
fn thirty_redeploys_of_a_program_that_binds_its_own_port_lose_no_request() {
    redeploy("carried = true", false, "");
}

#[test]
fn thirty_redeploys_without_overlap_lose_no_request() {
    redeploy("overlap = false", false, "");
}
