//! The first minute: start, drop a file, stop, start again.

use crate::sandbox::Sandbox;

#[test]
fn what_is_there_at_start_is_deployed() {
    let sandbox = Sandbox::new().file("in/a.txt", "x");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a.txt", 1);
    assert_eq!(sandbox.read("deployed/p/a.txt").as_deref(), Some("x"));
}

#[test]
fn a_restart_deploys_nothing_that_is_live_and_everything_that_changed_meanwhile() {
    let sandbox = Sandbox::new().file("in/a.txt", "a").file("in/b.txt", "b");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a.txt", 1);
    daemon.wait_deployed("b.txt", 1);
    daemon.kill();
    sandbox.write("in/b.txt", "b2");
    sandbox.write("in/c.txt", "c");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("b.txt", 1);
    daemon.wait_deployed("c.txt", 1);
    daemon.sync();
    daemon.assert_deployed_once(["b.txt", "c.txt"]);
    assert_eq!(sandbox.read("deployed/p/b.txt").as_deref(), Some("b2"));
}
