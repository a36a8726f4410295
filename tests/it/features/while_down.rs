//! What happened while no daemon ran is done once, and nothing else is.

use crate::sandbox::Sandbox;

const DRIFTED: &str = "not as it was deployed; it is deployed again";

fn deployed() -> Sandbox {
    let sandbox = Sandbox::new();
    for name in ["added-to", "modified", "removed", "touched", "rests"] {
        sandbox.write(format!("in/d/{name}"), name);
    }
    // Written long before: times of a file that is captured as soon as it is written are not kept over a restart.
    sandbox.run("touch", ["-d", "2001-01-01", "in/d/touched"]);
    let daemon = sandbox.daemon();
    daemon.sync();
    assert_eq!(daemon.all_deployed().len(), 5);
    daemon.stop();
    sandbox
}

#[test]
fn each_change_made_meanwhile_is_done_once_and_nothing_else() {
    let sandbox = deployed();
    sandbox.write("in/d/added", "new");
    sandbox.write("in/d/modified", "changed");
    sandbox.remove("in/d/removed");
    sandbox.run("touch", ["in/d/touched"]);
    let daemon = sandbox.daemon();
    daemon.sync();
    daemon.assert_deployed_once(["d/added", "d/modified", "d/touched"]);
    assert_eq!(daemon.all_removed().into_iter().collect::<Vec<_>>(), [("d/removed".to_owned(), 1)]);
    assert_eq!(sandbox.deployed(), sandbox.tree("in"));
    daemon.stop();
    let daemon = sandbox.daemon();
    assert!(daemon.all_deployed().is_empty(), "{}", daemon.said());
}

#[test]
fn a_target_removed_or_edited_meanwhile_is_deployed_again() {
    let sandbox = deployed();
    sandbox.remove("deployed/p/d/removed");
    sandbox.write("deployed/p/d/modified", "by hand");
    let daemon = sandbox.daemon();
    daemon.sync();
    daemon.wait_for(|line| line.says(DRIFTED, "d/removed"));
    daemon.wait_for(|line| line.says(DRIFTED, "d/modified"));
    daemon.assert_deployed_once(["d/modified", "d/removed"]);
    assert_eq!(sandbox.deployed(), sandbox.tree("in"));
}

#[test]
fn a_target_edited_by_hand_and_changed_at_its_source_gets_the_source_once() {
    let sandbox = deployed();
    sandbox.write("deployed/p/d/modified", "by hand");
    sandbox.write("in/d/modified", "changed");
    let daemon = sandbox.daemon();
    daemon.sync();
    daemon.assert_deployed_once(["d/modified"]);
    assert_eq!(sandbox.deployed()["d/modified"], "changed");
}

#[test]
fn once_with_nothing_to_do_deploys_nothing_and_exits_0() {
    let sandbox = deployed();
    let output = sandbox.try_ask(["run", "--once"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("\"message\":\"deployed\""), "{output:?}");
    sandbox.write("in/d/added", "new");
    let output = sandbox.try_ask(["run", "--once"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(sandbox.deployed(), sandbox.tree("in"));
}
