//! `--once`, signals, and the configuration read again.

use rustix::process::Signal;

use crate::sandbox::{Daemon, Sandbox, assert_shown, holds};

#[test]
fn once_deploys_what_is_there_and_exits() {
    let sandbox = Sandbox::new();
    sandbox.file("in/a.py", "one");
    let said = sandbox.run(&["run", "--once"]);
    assert!(said.contains(" done pickup=code deployed=1 ") && said.ends_with("[exit code 0]"), "{said}");
    assert!(holds(&sandbox.path("out/a.py"), "one"));
    assert!(sandbox.run(&["run", "--once"]).contains(" done pickup=code deployed=0 "));
}

#[test]
fn a_dry_run_prints_the_plan_and_does_nothing() {
    let sandbox = Sandbox::new();
    sandbox.file("in/a.py", "one");
    let plan = ["run", "--once", "--dry-run"];
    assert_shown!(sandbox, sandbox.run(&plan), @r"
    code  ready
      generation 1
        added  a.py  3 B    to default
    a dry run: nothing was done
    [exit code 0]
    ");
    assert!(!sandbox.path("out").exists() && !sandbox.path("state").exists());
    std::fs::create_dir_all(sandbox.path("out/a.py")).unwrap();
    sandbox.file("out/a.py/in-the-way", "somebody else's");
    assert_shown!(sandbox, sandbox.run(&plan), @r"
    code  not all can be deployed
      generation 1
        added  a.py  3 B    to default
        objection  cannot default: replace [dir]/out/a.py, which is a directory
    a dry run: nothing was done
    [exit code 1]
    ");
}

#[test]
fn once_exits_1_if_anything_failed() {
    let sandbox = Sandbox::empty();
    let entry = "[hot-deploy.user.code]\npickup_from = \"in\"\ndeploy_to = \"judge\"\n";
    let deployer = "[deployer.judge]\nkind = \"exec\"\ncommand = [\"false\"]\nretry = 1\nretry_backoff = \"1ms\"\n";
    sandbox.file("pickup.conf", &format!("{entry}{deployer}")).file("in/a.py", "one");
    let said = sandbox.run(&["run", "--once"]);
    assert!(said.contains(" not done pickup=code deployed=0 failed=1 ") && said.ends_with("[exit code 1]"), "{said}");
    // A broken entry is a failure, too.
    sandbox.file("pickup.conf", "[hot-deploy.user.code]\n");
    let said = sandbox.run(&["run", "--once"]);
    assert!(said.contains(" not done pickup=code ") && said.ends_with("[exit code 1]"), "{said}");
}

#[test]
fn sighup_reads_the_configuration_again() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon();
    daemon.signal(Signal::HUP);
    daemon.wait_for("configuration read again");
    daemon.wait_for("SIGHUP: everything is looked at");
    sandbox.file("pickup.conf", "[hot-deploy.user.other]\npickup_from = \"in\"\n");
    daemon.wait_for(" watching pickup=other ");
    sandbox.file("pickup.conf", "[[[");
    daemon.wait_for("the running one stays");
    assert_eq!(sandbox.json(&["status", "--json", "--state-dir", ".pickup"])[0]["name"], "other");
    daemon.stop();
}

#[test]
fn sigint_ends_it_and_the_socket_goes() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon();
    assert!(sandbox.path(".pickup/control.sock").exists());
    daemon.signal(Signal::INT);
    assert_eq!(daemon.wait().code(), Some(0));
    assert!(!sandbox.path(".pickup/control.sock").exists());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let sandbox = Sandbox::empty();
    let entry = "[hot-deploy.user.code]\npickup_from = \"in\"\ndeploy_to = \"slow\"\n";
    let command = "command = [\"sh\", \"-c\", \"touch begun; exec cat fifo\"]";
    sandbox.file("pickup.conf", &format!("{entry}[deployer.slow]\nkind = \"exec\"\nstdin = \"none\"\n{command}\n"));
    // Opening it waits for a writer that never comes.
    assert!(std::process::Command::new("mkfifo").arg(sandbox.path("fifo")).status().unwrap().success());
    let mut daemon = sandbox.daemon();
    sandbox.file("in/a.py", "one");
    // The deployer runs once `status` says so.
    while sandbox.json(&["status", "--json"])[0]["state"] != "deploying" {}
    daemon.signal(Signal::TERM);
    daemon.wait_for("stopping");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(130));
}

#[test]
fn the_log_is_json_where_asked_for() {
    let sandbox = Sandbox::empty();
    let entry = "[hot-deploy.user.code]\npickup_from = \"in\"\n";
    sandbox.file("pickup.conf", &format!("[pickup]\nlog_format = \"json\"\n{entry}"));
    let mut daemon = Daemon::spawn(sandbox.command(&["run"]));
    let line = daemon.wait_for("watching");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["fields"]["message"], "watching");
    assert_eq!(line["fields"]["pickup"], "code");
    daemon.stop();
}

#[test]
fn the_first_line_says_where_everything_is() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon();
    let first = daemon.seen.first().cloned().unwrap_or_default();
    assert_shown!(sandbox, first, @"[time] INFO  pickupd starts state=[dir]/.pickup socket=[dir]/.pickup/control.sock configuration=pickup.conf version=0.1.0");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait().code(), Some(0));
    assert_shown!(sandbox, daemon.seen.last().cloned().unwrap_or_default(), @"[time] INFO  stopped");
}
