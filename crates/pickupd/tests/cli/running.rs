//! Commands that ask a running daemon.

use crate::sandbox::{Daemon, Sandbox, assert_shown, holds};

#[test]
fn what_was_dropped_is_shown_by_every_command() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon();
    sandbox.file("in/a.py", "one");
    let line = daemon.wait_for(" deployed ");
    let line = line.split(" took_ms=").next().unwrap();
    assert_shown!(sandbox, line, @"[time] INFO  deployed pickup=code unit=a.py change=added deployers=default generation=1 digest=[digest]");
    assert!(holds(&sandbox.path("out/a.py"), "one"));
    sandbox.file("in/notes.txt", "no").file("in/b.py", "two");
    daemon.wait_for(" deployed ");
    assert_shown!(sandbox, sandbox.run(&["sync"]), @r"
    code  done  nothing to deploy
    [exit code 0]
    ");
    assert_shown!(sandbox, sandbox.run(&["status"]), @r"
    NAME  STATE  GENERATION  LIVE     LAST SUCCESS
    code  live   2           2 units  [time] (a moment ago)
    [exit code 0]
    ");
    assert_shown!(sandbox, sandbox.run(&["status", "code"]), @r"
    NAME  STATE  GENERATION  LIVE     LAST SUCCESS
    code  live   2           2 units  [time] (a moment ago)
      watching     [dir]/in (1 directory)
    [exit code 0]
    ");
    assert_shown!(sandbox, sandbox.run(&["history"]), @r"
    WHEN                 NAME  GENERATION  OUTCOME  ORIGIN  CHANGES
    [time]  code  2           applied  change  +b.py
    [time]  code  1           applied  change  +a.py
    [exit code 0]
    ");
    let lines = ["why in/a.py", "why a.py", "why in/notes.txt", "why in/.git/x", "why gone.py", "why /etc/passwd"];
    assert_shown!(sandbox, sandbox.transcript(&lines), @r"
    $ pickupd why in/a.py
    a.py in code: live
      live is a file of 3 bytes, digest [digest], with default
    [exit code 0]
    $ pickupd why a.py
    a.py in code: live
      live is a file of 3 bytes, digest [digest], with default
    [exit code 0]
    $ pickupd why in/notes.txt
    notes.txt in code: not matched
      it matches none of the patterns *.py
    [exit code 0]
    $ pickupd why in/.git/x
    .git/x in code: ignored
      it is ignored by the rule `.git` (built-in list)
    [exit code 0]
    $ pickupd why gone.py
    gone.py in code: missing
      there is no such file
    [exit code 0]
    $ pickupd why /etc/passwd
    /etc/passwd: not watched: it lies in no pickup directory; `pickupd check` lists them
    [exit code 0]
    ");
    daemon.stop();
}

#[test]
fn a_generation_is_rolled_back_held_and_released() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon();
    sandbox.file("in/a.py", "one");
    daemon.wait_for(" deployed ");
    sandbox.file("in/a.py", "two");
    daemon.wait_for(" deployed ");
    assert_shown!(sandbox, sandbox.run(&["rollback", "code"]), @r"
    code: generation 1 is live; changes are held back until `pickupd release code`
    [exit code 0]
    ");
    assert!(holds(&sandbox.path("out/a.py"), "one"));
    assert_shown!(sandbox, sandbox.run(&["status"]), @r"
    NAME  STATE  GENERATION  LIVE    LAST SUCCESS
    code  held   3           1 unit  [time] (a moment ago)
      held         at generation 1 until `pickupd release code`
    [exit code 0]
    ");
    assert_shown!(sandbox, sandbox.run(&["why", "a.py"]), @r"
    a.py in code: held
      changes are held back: generation 1 is live until `pickupd release`
      live is a file of 3 bytes, digest [digest], with default
    [exit code 0]
    ");
    assert_shown!(sandbox, sandbox.run(&["release", "code"]), @r"
    code: released; what is on disk is deployed again
    [exit code 0]
    ");
    daemon.wait_for(" released ");
    daemon.wait_for(" deployed ");
    assert!(holds(&sandbox.path("out/a.py"), "two"));
    assert_shown!(sandbox, sandbox.run(&["release", "code"]), @r"
    [stderr]
    error: cannot release code: it is not held
    [exit code 2]
    ");
    assert_shown!(sandbox, sandbox.run(&["rollback", "code", "--to", "99"]), @r"
    [stderr]
    error: cannot roll back code: generation 99 is not in its history (see `pickupd history code`)
    [exit code 2]
    ");
    assert_shown!(sandbox, sandbox.run(&["rollback", "cod"]), @r"
    [stderr]
    error: cannot find a pickup named `cod`; there are: code
    [exit code 2]
    ");
    daemon.stop();
}

#[test]
fn a_failure_is_shown_everywhere_and_tried_again() {
    let sandbox = Sandbox::empty();
    sandbox.file(
        "pickup.conf",
        "[hot-deploy.user.code]\npickup_from = \"in\"\ndeploy_to = \"judge\"\n\n[deployer.judge]\nkind = \"exec\"\n\
         command = [\"sh\", \"-c\", \"echo looking; test -e good || { echo it is bad; exit 1; }\"]\nretry = 0\n",
    );
    let mut daemon = sandbox.daemon();
    sandbox.file("in/a.py", "one");
    daemon.wait_for(" failed; ");
    assert_shown!(sandbox, sandbox.run(&["sync"]), @r"
    code  failed  nothing deployed
      failed   a.py: judge: run sh: exit status 1
    [exit code 1]
    ");
    assert_shown!(sandbox, sandbox.run(&["status"]), @r"
    NAME  STATE   GENERATION  LIVE     LAST SUCCESS
    code  failed  -           0 units  -
      failed       a.py: once: judge: run sh: exit status 1; quarantined until it changes, or `pickupd retry code a.py`
    [exit code 0]
    ");
    assert_shown!(sandbox, sandbox.run(&["history"]), @r"
    WHEN                 NAME  GENERATION  OUTCOME      ORIGIN  CHANGES
    [time]  code  1           rolled back  change  +a.py
      judge: run sh: exit status 1
        looking
        it is bad
    [exit code 0]
    ");
    assert_shown!(sandbox, sandbox.run(&["why", "a.py"]), @r"
    a.py in code: failed
      it failed once, last with: judge: run sh: exit status 1; it is quarantined until it changes, or until `pickupd retry`
    [exit code 0]
    ");
    sandbox.file("good", "");
    assert_shown!(sandbox, sandbox.run(&["retry", "code", "other.py"]), @r"
    code: nothing to try again
    [exit code 0]
    ");
    assert_shown!(sandbox, sandbox.run(&["retry", "code", "in/a.py"]), @r"
    code: 1 unit tried again
    [exit code 0]
    ");
    daemon.wait_for(" deployed ");
    assert_shown!(sandbox, sandbox.run(&["sync", "code"]), @r"
    code  done  nothing to deploy
    [exit code 0]
    ");
    daemon.stop();
}

#[test]
fn answers_are_json_for_programs() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    sandbox.file("in/a.py", "one");
    assert_eq!(sandbox.json(&["sync", "--json"])[0]["failed"], serde_json::json!({}));
    assert_eq!(sandbox.json(&["status", "--json"])[0]["state"], "live");
    assert_eq!(sandbox.json(&["history", "--json"])[0]["outcome"], "applied");
    assert_eq!(sandbox.json(&["why", "a.py", "--json"])[0]["verdict"], "live");
    assert_eq!(sandbox.json(&["retry", "code", "--json"]), serde_json::json!({ "units": 0 }));
    daemon.stop();
}

#[test]
fn broken_entries_are_shown_and_stop_nothing() {
    let sandbox = Sandbox::empty();
    sandbox.file(
        "pickup.conf",
        "[hot-deploy.user.bad]\npickup_form = \"in\"\n[hot-deploy.user.good]\npickup_from = \"in\"\n",
    );
    let daemon = sandbox.daemon();
    assert_shown!(sandbox, sandbox.run(&["sync"]), @r"
    bad   failed  nothing deployed
      trouble  pickup.conf:1:1: error: [hot-deploy.user.bad] pickup_from: is missing: which directory is to be watched?
    good  done    nothing to deploy
    [exit code 1]
    ");
    assert_shown!(sandbox, sandbox.run(&["status"]), @r"
    NAME  STATE   GENERATION  LIVE     LAST SUCCESS
    bad   broken  -           0 units  -
      trouble      pickup.conf:1:1: error: [hot-deploy.user.bad] pickup_from: is missing: which directory is to be watched?
    good  idle    -           0 units  -
    [exit code 0]
    ");
    assert_shown!(sandbox, sandbox.run(&["sync", "bad"]), @r"
    [stderr]
    error: cannot ask `bad`, which is broken: pickup.conf:1:1: error: [hot-deploy.user.bad] pickup_from: is missing: which directory is to be watched?
    [exit code 2]
    ");
    daemon.stop();
}

#[test]
fn two_daemons_do_not_share_a_state_directory() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let said = sandbox.run(&["run"]);
    let said: Vec<&str> = said.lines().filter(|line| !line.contains("pickupd starts")).collect();
    assert_shown!(sandbox, said.join("\n"), @r"
    [stderr]
    [time] ERROR cannot use the state directory [dir]/.pickup: another daemon runs on it; stop that one, or choose another `state_dir`
    [exit code 2]
    ");
    daemon.stop();
}

#[test]
fn events_are_followed_until_the_daemon_stops() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon();
    // Both write to what the reader of log lines reads.
    let follow = |arguments: &[&str]| {
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg("exec \"$@\" >&2").arg("sh").arg(sandbox.command(arguments).get_program());
        command.args(arguments).current_dir(sandbox.path("")).env("TZ", "UTC");
        Daemon::spawn(command)
    };
    let (mut text, mut json) = (follow(&["events"]), follow(&["events", "--json"]));
    let mut number = 0;
    // A follower has subscribed once it shows something.
    let mut both = |unit: &str| {
        sandbox.file(&format!("in/{unit}"), "one");
        daemon.wait_for(" deployed ");
    };
    while text.seen.is_empty() || json.seen.is_empty() {
        both(&format!("{number}.py"));
        number += 1;
        text.try_hear();
        json.try_hear();
    }
    both("last.py");
    assert!(text.wait_for("last.py").contains("  code  deployed new last.py, generation "), "{:?}", text.seen);
    assert!(json.wait_for("last.py").starts_with(r#"{"at":"#));
    daemon.stop();
    assert_eq!((text.wait().code(), json.wait().code()), (Some(0), Some(0)));
}

#[test]
fn a_directory_needs_no_configuration() {
    let sandbox = Sandbox::empty();
    let mut daemon = Daemon::spawn(sandbox.command(&["run", "in", "--into", "out", "--state-dir", "elsewhere"]));
    daemon.wait_for(" watching ");
    sandbox.file("in/a.txt", "one");
    daemon.wait_for(" deployed ");
    assert!(holds(&sandbox.path("out/a.txt"), "one"));
    assert!(!sandbox.path(".pickup").exists());
    assert_eq!(sandbox.json(&["status", "--json", "--state-dir", "elsewhere"])[0]["name"], "in");
    daemon.stop();
}

#[test]
fn what_is_printed_cannot_steer_the_terminal() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon();
    sandbox.file("in/\u{1b}[31mred\n.py", "one");
    let line = daemon.wait_for(" deployed ");
    assert!(!line.contains('\u{1b}'), "{line:?}");
    for arguments in [["history", "--color=never"], ["why", "\u{1b}[31mred\n.py"]] {
        let shown = sandbox.run(&arguments);
        assert!(!shown.contains('\u{1b}') && shown.contains(r"\u{1b}[31mred\n.py"), "{shown}");
    }
    daemon.stop();
}

#[test]
fn colours_come_only_when_asked_for() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    assert!(!sandbox.run(&["status"]).contains('\u{1b}'));
    assert!(sandbox.run(&["status", "--color", "always"]).contains('\u{1b}'));
    daemon.stop();
}
