//! What failed is tried again a few times, then left until something changes.

use super::{FAILED, config, json, nth, said};
use crate::daemon::{Daemon, Line};
use crate::sandbox::Sandbox;

/// Runs `script` for each unit, in the sandbox.
fn judged_by(script: &str, retry: u32) -> Sandbox {
    let judge = format!(
        "[deployer.judge]\nkind = \"exec\"\ncommand = [\"./judge\"]\nretry = {retry}\nretry_backoff = \"50ms\"\n"
    );
    Sandbox::new().config(&config("deploy_to = [\"judge\"]", &judge)).script("judge", script)
}

fn attempts(sandbox: &Sandbox) -> usize {
    sandbox.read("attempts").map_or(0, |text| text.lines().count())
}

/// Whether a failure says that it will be tried again.
fn is_retried(line: &Line) -> bool {
    line.fields.get("retry_in_ms").is_some_and(|wait| !wait.is_null())
}

/// Waits for the failure number `times`, which must be the last one by itself.
#[track_caller]
fn quarantined(daemon: &Daemon, times: usize) {
    let line = nth(daemon, FAILED, times);
    assert!(!is_retried(&line), "{line:?}");
}

#[test]
fn after_its_retries_it_is_tried_no_more_by_itself_and_new_content_rearms_it() {
    let sandbox = judged_by("echo x >> attempts; grep -q good \"$PICKUP_PATH\"", 2).file("in/a", "bad");
    let daemon = sandbox.daemon();
    quarantined(&daemon, 3);
    daemon.sync();
    daemon.sync();
    assert_eq!(attempts(&sandbox), 3);
    let status = json(&sandbox, ["status", "--json"]);
    assert_eq!(status[0]["failed"][0]["attempts"], 3, "{status}");
    assert!(status[0]["failed"][0]["retry_at"].is_null(), "{status}");
    sandbox.write("in/a", "worse");
    quarantined(&daemon, 6);
    sandbox.write("in/a", "good");
    daemon.wait_deployed("a", 1);
    assert_eq!(attempts(&sandbox), 7);
    assert_eq!(json(&sandbox, ["status", "--json"])[0]["failed"], serde_json::json!([]));
}

#[test]
fn retry_rearms_it_with_all_its_attempts() {
    let sandbox = judged_by("test -e good", 1).file("in/a", "a");
    let daemon = sandbox.daemon();
    quarantined(&daemon, 2);
    sandbox.ask(["retry", "p"]);
    quarantined(&daemon, 4);
    sandbox.write("good", "");
    sandbox.ask(["retry", "p", "a"]);
    daemon.wait_deployed("a", 1);
}

#[test]
fn a_quarantine_outlives_a_restart() {
    let sandbox = judged_by("echo x >> attempts; exit 1", 0).file("in/a", "a");
    let daemon = sandbox.daemon();
    quarantined(&daemon, 1);
    daemon.stop();
    let daemon = sandbox.daemon();
    assert_eq!(attempts(&sandbox), 1, "{}", daemon.said());
    assert_eq!(json(&sandbox, ["status", "--json"])[0]["state"], "failed");
}

#[test]
fn exit_75_is_tried_again_until_it_works_and_is_never_quarantined() {
    let sandbox = judged_by("test -e ready || exit 75", 0).file("in/a", "a");
    let daemon = sandbox.daemon();
    nth(&daemon, FAILED, 4);
    assert!(daemon.log(|log| log.lines.iter().filter(|line| line.message == FAILED).all(is_retried)));
    sandbox.write("ready", "");
    daemon.wait_deployed("a", 1);
    daemon.assert_deployed_once(["a"]);
}

#[test]
fn a_bad_unit_blocks_no_other() {
    let sandbox = judged_by("test $PICKUP_UNIT != bad", 0).file("in/a", "a").file("in/bad", "b").file("in/c", "c");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    daemon.wait_deployed("c", 1);
    sandbox.write("in/d", "d");
    daemon.wait_deployed("d", 1);
    daemon.sync();
    daemon.assert_deployed_once(["a", "c", "d"]);
    assert_eq!(daemon.log(|log| said(log, FAILED)), 1, "{}", daemon.said());
}
