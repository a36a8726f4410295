//! Wrong usage, and nobody to talk to: what is said, and the exit code.

use crate::sandbox::{Sandbox, assert_shown};

#[test]
fn a_file_that_was_named_must_be_there() {
    let sandbox = Sandbox::empty();
    let lines = ["run --config nope.conf", "check --config nope.conf", "status --config nope.conf"];
    assert_shown!(sandbox, sandbox.transcript(&lines), @r"
    $ pickupd run --config nope.conf
    [stderr]
    error: cannot read configuration nope.conf: No such file or directory (os error 2)
    [exit code 2]
    $ pickupd check --config nope.conf
    [stderr]
    error: cannot read configuration nope.conf: No such file or directory (os error 2)
    [exit code 2]
    $ pickupd status --config nope.conf
    [stderr]
    error: cannot read configuration nope.conf: No such file or directory (os error 2)
    [exit code 2]
    ");
}

#[test]
fn a_file_that_does_not_parse_starts_nothing() {
    let sandbox = Sandbox::empty();
    sandbox.file("pickup.conf", "[hot-deploy.user.a\n");
    assert_shown!(sandbox, sandbox.run(&["run"]), @r"
    [stderr]
    error: cannot use configuration: pickup.conf:1:19: error: unclosed table, expected `]`
    [exit code 2]
    ");
}

#[test]
fn a_log_filter_is_checked_before_anything_starts() {
    let sandbox = Sandbox::new();
    assert_shown!(sandbox, sandbox.run(&["run", "--log", "pickup=loud"]), @r#"
    [stderr]
    error: cannot use the log filter `pickup=loud`: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
    [exit code 2]
    "#);
}

#[test]
fn a_command_that_needs_a_daemon_says_that_there_is_none() {
    let sandbox = Sandbox::new();
    let lines = ["sync", "rollback code", "release code", "retry code", "events", "status"];
    assert_shown!(sandbox, sandbox.transcript(&lines), @r"
    $ pickupd sync
    [stderr]
    error: cannot find a running daemon: nothing listens on [dir]/.pickup/control.sock; start one with `pickupd run`
    [exit code 3]
    $ pickupd rollback code
    [stderr]
    error: cannot find a running daemon: nothing listens on [dir]/.pickup/control.sock; start one with `pickupd run`
    [exit code 3]
    $ pickupd release code
    [stderr]
    error: cannot find a running daemon: nothing listens on [dir]/.pickup/control.sock; start one with `pickupd run`
    [exit code 3]
    $ pickupd retry code
    [stderr]
    error: cannot find a running daemon: nothing listens on [dir]/.pickup/control.sock; start one with `pickupd run`
    [exit code 3]
    $ pickupd events
    [stderr]
    error: cannot find a running daemon: nothing listens on [dir]/.pickup/control.sock; start one with `pickupd run`
    [exit code 3]
    $ pickupd status
    [stderr]
    error: cannot find a running daemon: nothing listens on [dir]/.pickup/control.sock; start one with `pickupd run`
    [exit code 3]
    ");
}

#[test]
fn usage_errors_exit_2() {
    let sandbox = Sandbox::new();
    assert_shown!(sandbox, sandbox.run(&["statsu"]), @r"
    [stderr]
    error: unrecognized subcommand 'statsu'

      tip: a similar subcommand exists: 'status'

    Usage: pickupd [OPTIONS] <COMMAND>

    For more information, try '--help'.
    [exit code 2]
    ");
    let cases: [&[&str]; 8] = [
        &[],
        &["run", "--dry-run"],
        &["run", "--once", "--json"],
        &["run", "in"],
        &["run", "--into", "out"],
        &["run", "in", "--into", "out", "--config", "pickup.conf"],
        &["history", "--limit", "0"],
        &["rollback"],
    ];
    for arguments in cases {
        assert!(sandbox.run(arguments).ends_with("[exit code 2]"), "{arguments:?}");
    }
    assert_shown!(sandbox, sandbox.run(&["run", "in", "--into", "in/out"]), @r"
    [stderr]
    error: cannot watch in and copy into in/out: [dir]/in would pick up what deployer `default` writes to [dir]/in/out
    [exit code 2]
    ");
}
