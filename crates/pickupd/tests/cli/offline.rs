//! Commands that only read, when no daemon runs.

use crate::sandbox::{Sandbox, assert_shown};

#[test]
fn what_is_on_record_is_told_without_a_daemon() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon();
    sandbox.file("in/a.py", "one");
    daemon.wait_for(" deployed ");
    daemon.stop();
    sandbox.file("in/new.py", "two").file("in/.pickupignore", "*.bak.py\n");
    assert_shown!(sandbox, sandbox.run(&["status"]), @r"
    NAME  STATE    GENERATION  LIVE    LAST SUCCESS
    code  stopped  1           1 unit  [time] (a moment ago)
    [stderr]
    note: no daemon runs; this is what is on record in [dir]/.pickup
    [exit code 0]
    ");
    assert_shown!(sandbox, sandbox.run(&["history", "code"]), @r"
    WHEN                 NAME  GENERATION  OUTCOME  ORIGIN  CHANGES
    [time]  code  1           applied  change  +a.py
    [stderr]
    note: no daemon runs; this is what is on record in [dir]/.pickup
    [exit code 0]
    ");
    let lines = ["why in/a.py", "why new.py", "why in/x.bak.py", "why in/x.txt", "why gone.py"];
    assert_shown!(sandbox, sandbox.transcript(&lines), @r"
    $ pickupd why in/a.py
    a.py in code: live
      it is live as it was when a daemon ran last; a later change waits for the next one
      live is a file of 3 bytes, digest [digest]
      no daemon runs: this is what the configuration and the records say
    [exit code 0]
    $ pickupd why new.py
    new.py in code: waiting
      it is taken up when a daemon runs
      no daemon runs: this is what the configuration and the records say
    [exit code 0]
    $ pickupd why in/x.bak.py
    x.bak.py in code: ignored
      it is ignored by the rule `*.bak.py` (.pickupignore:1)
      no daemon runs: this is what the configuration and the records say
    [exit code 0]
    $ pickupd why in/x.txt
    x.txt in code: not matched
      it matches none of the patterns *.py
      no daemon runs: this is what the configuration and the records say
    [exit code 0]
    $ pickupd why gone.py
    gone.py in code: missing
      there is no such file
      no daemon runs: this is what the configuration and the records say
    [exit code 0]
    ");
    assert_shown!(sandbox, sandbox.run(&["status", "nope"]), @r"
    [stderr]
    error: cannot find a pickup named `nope` in the records
    [exit code 2]
    ");
}

#[test]
fn the_state_directory_is_all_that_reading_needs() {
    let sandbox = Sandbox::new();
    assert!(sandbox.run(&["run", "--once"]).ends_with("[exit code 0]"));
    sandbox.file("pickup.conf", "[[[");
    assert!(sandbox.run(&["status"]).ends_with("[exit code 2]"));
    assert!(sandbox.run(&["status", "--state-dir", ".pickup"]).ends_with("[exit code 0]"));
}
