//! Directories that others may write to, and files that others own.

use std::os::unix::fs::chown;

use super::{STRANGER, is_root, text};
use crate::sandbox::Sandbox;

fn give_away(sandbox: &Sandbox, path: &str) {
    chown(sandbox.path(path), Some(STRANGER.parse().expect("a number")), None).expect("set the owner");
}

#[test]
fn a_pickup_directory_that_others_may_write_to_is_warned_about_with_the_way_out() {
    let sandbox = Sandbox::new();
    sandbox.chmod("in", 0o777);
    let daemon = sandbox.daemon();
    let is_warning = |line: &crate::daemon::Line| line.message == "others may write to the pickup directory";
    let warning = daemon.wait_for(is_warning);
    assert!(warning.field("reason").contains("chmod o-w"), "{warning:?}");
    for question in ["status", "check"] {
        let shown = text(&sandbox.ask([question]).stdout);
        assert!(shown.contains("everybody may write to it") && shown.contains("chmod o-w"), "{shown}");
        let shown = text(&sandbox.ask([question, "--json"]).stdout);
        assert!(shown.contains("chmod o-w"), "{shown}");
    }
    // It is a warning: the directory works.
    sandbox.write("in/f", "one");
    daemon.wait_deployed("f", 1);
    sandbox.chmod("in", 0o755);
    daemon.sync();
    assert!(!text(&sandbox.ask(["status"]).stdout).contains("chmod"), "it is over");
    assert_eq!(daemon.log(|log| log.lines.iter().filter(|line| is_warning(line)).count()), 1, "said once");
}

#[test]
fn a_pickup_directory_of_another_user_is_warned_about() {
    if !is_root() {
        // Nobody else can give a directory away.
        return;
    }
    let sandbox = Sandbox::new();
    give_away(&sandbox, "in");
    let daemon = sandbox.daemon();
    let warning = daemon.wait_for(|line| line.message == "others may write to the pickup directory");
    assert!(warning.field("reason").contains("user 4242 owns it"), "{warning:?}");
}

#[test]
fn a_state_directory_that_others_may_write_to_is_refused_with_the_way_out() {
    let sandbox = Sandbox::new();
    let refused = |way_out: &str| {
        let output = sandbox.try_ask(["run"]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains(way_out), "{output:?}");
        let output = sandbox.try_ask(["check"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(text(&output.stdout).contains(way_out), "{output:?}");
    };
    sandbox.make(".pickup");
    sandbox.chmod(".pickup", 0o777);
    refused("chmod o-w");
    sandbox.chmod(".pickup", 0o700);
    if is_root() {
        give_away(&sandbox, ".pickup");
        refused("user 4242 owns it");
        sandbox.shell("chown 0 .pickup");
    }
    sandbox.daemon().stop();
}
