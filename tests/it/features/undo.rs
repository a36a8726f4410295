//! What fails is taken back: by a later deployer, and by `verify`.

use std::fs;
use std::net::TcpListener;

use super::release::releases;
use super::{COPY, FAILED, config, json, nth};
use crate::sandbox::Sandbox;

#[test]
fn a_second_deployer_that_fails_takes_the_first_back() {
    let judge = "[deployer.judge]\nkind = \"exec\"\ncommand = [\"/bin/false\"]\nretry = 0\n";
    let config = config("deploy_to = [\"copy\", \"judge\"]", &format!("{COPY}{judge}"));
    let sandbox = Sandbox::new().config(&config).file("in/a", "a");
    let daemon = sandbox.daemon();
    let failed = nth(&daemon, FAILED, 1);
    assert!(failed.field("cause").contains("judge"), "{failed:?}");
    assert_eq!(failed.field("units"), "a");
    assert_eq!(sandbox.read("deployed/p/a"), None);
    let history = json(&sandbox, ["history", "--json"]);
    assert!(history[0]["outcome"]["rolled_back"].is_object(), "{history}");
}

#[test]
fn the_old_content_is_live_again_after_a_failure_and_new_content_heals() {
    let judge =
        "[deployer.judge]\nkind = \"exec\"\ncommand = [\"sh\", \"-c\", \"! grep bad $PICKUP_PATH\"]\nretry = 0\n";
    let config = config("deploy_to = [\"copy\", \"judge\"]", &format!("{COPY}{judge}"));
    let sandbox = Sandbox::new().config(&config).file("in/a", "good");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    sandbox.write("in/a", "bad");
    let failed = nth(&daemon, FAILED, 1);
    assert!(failed.field("output").contains("bad"), "{failed:?}");
    assert_eq!(sandbox.read("deployed/p/a").as_deref(), Some("good"));
    sandbox.write("in/a", "better");
    daemon.wait_deployed("a", 2);
    assert_eq!(sandbox.read("deployed/p/a").as_deref(), Some("better"));
    assert_eq!(json(&sandbox, ["status", "--json"])[0]["state"], "live");
}

#[test]
fn a_copy_that_does_not_pass_its_checks_is_taken_back() {
    let checks = "verify = [\"exec:/usr/bin/test -e good\"]\nverify_timeout = \"300ms\"\nretry = 0\n";
    let config = config("deploy_to = [\"copy\"]", &format!("{COPY}{checks}"));
    let sandbox = Sandbox::new().config(&config).file("good", "").file("in/a", "one");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    sandbox.remove("good");
    sandbox.write("in/a", "two");
    sandbox.write("in/b", "new");
    daemon.sync();
    let failed = nth(&daemon, FAILED, 1);
    assert!(failed.field("cause").contains("/usr/bin/test"), "{failed:?}");
    assert_eq!(sandbox.deployed().into_iter().collect::<Vec<_>>(), [("a".to_owned(), "one".to_owned())]);
    sandbox.write("good", "");
    sandbox.write("in/a", "three");
    daemon.wait_deployed("a", 2);
    assert_eq!(sandbox.deployed()["a"], "three");
}

#[test]
fn a_release_that_does_not_pass_its_checks_is_taken_back() {
    let site = "[deployer.site]\nkind = \"release\"\ninto = \"site\"\ndurable = false\nretry = 0\n\
                verify = [\"exec:/bin/test -e good\"]\nverify_timeout = \"300ms\"\n";
    let sandbox = Sandbox::new().config(&config("deploy_to = [\"site\"]", site)).file("good", "").file("in/a", "one");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    let live = fs::read_link(sandbox.path("site/current")).expect("a link");
    sandbox.remove("good");
    sandbox.write("in/a", "two");
    nth(&daemon, FAILED, 1);
    assert_eq!(fs::read_link(sandbox.path("site/current")).expect("a link"), live);
    assert_eq!(sandbox.read("site/current/a").as_deref(), Some("one"));
    assert_eq!(releases(&sandbox), 1);
    sandbox.write("good", "");
    sandbox.write("in/a", "three");
    daemon.wait_deployed("a", 2);
    assert_eq!(sandbox.read("site/current/a").as_deref(), Some("three"));
}

#[test]
fn a_listener_that_opens_in_time_passes_the_check() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("an address");
    // The first check says that checking has begun.
    let checks = format!("verify = [\"exec:./begun\", \"tcp://{address}\"]\nverify_timeout = \"20s\"\n");
    let config = config("deploy_to = [\"copy\"]", &format!("{COPY}{checks}"));
    let sandbox = Sandbox::new().config(&config).script("begun", "echo begun > pipe");
    sandbox.run("mkfifo", ["pipe"]);
    let daemon = sandbox.daemon();
    sandbox.write("in/a", "a");
    assert_eq!(sandbox.read("pipe").as_deref(), Some("begun\n"));
    assert_eq!(daemon.deployed("a"), 0);
    let _listener = TcpListener::bind(address).expect("listen");
    daemon.wait_deployed("a", 1);
}
