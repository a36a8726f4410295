//! Faults from outside while the built daemon works: rights that go and come back, a process that is stopped in the middle.

use crate::sandbox::Sandbox;
use crate::trouble::unprivileged;

#[test]
fn a_pickup_directory_that_may_not_be_read_for_a_while_undeploys_nothing_and_loses_nothing() {
    let sandbox = Sandbox::new().file("in/a", "one").file("in/d/b", "one");
    let daemon = unprivileged(&sandbox);
    daemon.wait_deployed("a", 1);
    daemon.wait_deployed("d/b", 1);
    sandbox.chmod("in", 0o000);
    sandbox.try_ask(["sync"]);
    let status = sandbox.ask(["status"]);
    assert!(String::from_utf8_lossy(&status.stdout).contains("Permission denied"), "{status:?}");
    assert_eq!(sandbox.deployed().len(), 2);
    sandbox.chmod("in", 0o755);
    sandbox.write("in/a", "two");
    daemon.wait_deployed("a", 2);
    daemon.sync();
    assert!(daemon.all_removed().is_empty(), "{}", daemon.said());
    assert_eq!(sandbox.deployed()["a"], "two");
}

#[test]
fn a_daemon_that_is_stopped_in_the_middle_of_a_burst_goes_on_where_it_was() {
    const FILES: usize = 300;
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    for file in 0..FILES {
        sandbox.write(format!("in/f{file}"), format!("one {file}"));
        match file % 50 {
            20 => daemon.freeze(),
            40 => daemon.thaw(),
            _ => {}
        }
    }
    daemon.sync();
    let deployed = sandbox.deployed();
    assert_eq!(deployed.len(), FILES);
    for file in 0..FILES {
        assert_eq!(deployed[&format!("f{file}")], format!("one {file}"));
    }
}
