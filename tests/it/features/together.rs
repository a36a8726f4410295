//! Promises that meet: a file that becomes a directory, a reload during a deployment, a failure of what would be deleted.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

use super::release::releases;
use super::{COPY, FAILED, config, json, nth, said, why};
use crate::sandbox::Sandbox;

#[test]
fn a_file_that_becomes_a_directory_and_back_is_deployed_as_what_it_is() {
    let sandbox = Sandbox::new().file("in/a", "file").file("in/rests", "r");
    let daemon = sandbox.daemon();
    sandbox.remove("in/a");
    sandbox.write("in/a/b", "below");
    daemon.wait_deployed("a/b", 1);
    daemon.sync();
    assert_eq!(sandbox.deployed(), sandbox.tree("in"), "{}", daemon.said());
    sandbox.remove_all("in/a");
    sandbox.write("in/a", "file again");
    daemon.sync();
    assert_eq!(sandbox.deployed(), sandbox.tree("in"), "{}", daemon.said());
    assert_eq!(daemon.log(|log| said(log, FAILED)), 0, "{}", daemon.said());
}

#[test]
fn a_file_that_became_a_directory_while_down_is_deployed_as_what_it_is() {
    let sandbox = Sandbox::new().file("in/a", "file").file("in/b/c", "below").file("in/rests", "r");
    sandbox.daemon().stop();
    sandbox.shell("rm -r in/a in/b; mkdir in/a; echo c > in/a/c; echo b > in/b");
    let daemon = sandbox.daemon();
    daemon.sync();
    assert_eq!(sandbox.deployed(), sandbox.tree("in"), "{}", daemon.said());
    assert_eq!(daemon.log(|log| said(log, FAILED)), 0, "{}", daemon.said());
}

#[test]
fn a_file_whose_deployment_fails_is_not_deleted() {
    let judge = "[deployer.judge]\nkind = \"exec\"\ncommand = [\"./judge\"]\nretry = 0\n";
    let config = config("deploy_to = [\"judge\"]\ndelete_after_pickup = true", judge);
    let sandbox = Sandbox::new().config(&config).script("judge", "grep -q good \"$PICKUP_PATH\"").file("in/a", "bad");
    let daemon = sandbox.daemon();
    nth(&daemon, FAILED, 1);
    daemon.sync();
    assert_eq!(sandbox.read("in/a").as_deref(), Some("bad"));
    sandbox.write("in/a", "good");
    daemon.wait_deployed("a", 1);
    daemon.sync();
    assert_eq!(sandbox.read("in/a"), None);
}

#[test]
fn a_deployment_on_its_way_is_finished_before_a_reload_takes_over() {
    let run = "[deployer.run]\nkind = \"exec\"\ncommand = [\"./run\"]\nretry = 0\n";
    let text = config("deploy_to = [\"run\"]", run);
    let sandbox = Sandbox::new().config(&text).script("run", "echo x >> runs; echo begun > begun; cat go");
    sandbox.run("mkfifo", ["begun", "go"]);
    let daemon = sandbox.daemon();
    sandbox.write("in/a", "a");
    assert_eq!(sandbox.read("begun").as_deref(), Some("begun\n"));
    sandbox.write("pickup.conf", text.replace("deploy_to", "quiet = \"20ms\"\ndeploy_to"));
    sandbox.write("go", "now");
    nth(&daemon, "configuration read again", 1);
    daemon.sync();
    daemon.assert_deployed_once(["a"]);
    assert_eq!(sandbox.read("runs").as_deref(), Some("x\n"));
}

#[test]
fn a_release_goes_back_if_the_program_after_it_fails() {
    let site = "[deployer.site]\nkind = \"release\"\ninto = \"site\"\ndurable = false\n\
                [deployer.judge]\nkind = \"exec\"\ncommand = [\"./judge\"]\nper = \"change_set\"\nretry = 0\n";
    let sandbox = Sandbox::new().config(&config("deploy_to = [\"site\", \"judge\"]", site));
    let sandbox = sandbox.script("judge", "! grep -q bad site/current/a").file("in/a", "good");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    let live = fs::read_link(sandbox.path("site/current")).expect("a link");
    sandbox.write("in/a", "bad");
    nth(&daemon, FAILED, 1);
    assert_eq!(fs::read_link(sandbox.path("site/current")).expect("a link"), live);
    assert_eq!(releases(&sandbox), 1);
    sandbox.write("in/a", "better");
    daemon.wait_deployed("a", 2);
    assert_eq!(sandbox.read("site/current/a").as_deref(), Some("better"));
}

#[test]
fn a_link_taken_away_while_down_is_there_again() {
    let site = "[deployer.site]\nkind = \"release\"\ninto = \"site\"\ndurable = false\n";
    let sandbox = Sandbox::new().config(&config("deploy_to = [\"site\"]", site)).file("in/a", "a").file("in/b", "b");
    sandbox.daemon().stop();
    sandbox.remove("site/current");
    let daemon = sandbox.daemon();
    daemon.sync();
    assert_eq!(sandbox.tree("site/current"), sandbox.tree("in"), "{}", daemon.said());
}

#[test]
fn a_touch_asks_once_more_for_what_is_quarantined() {
    let judge = "[deployer.judge]\nkind = \"exec\"\ncommand = [\"test\", \"-e\", \"good\"]\nretry = 0\n";
    let sandbox = Sandbox::new().config(&config("deploy_to = [\"judge\"]", judge)).file("in/a", "a");
    let daemon = sandbox.daemon();
    nth(&daemon, FAILED, 1);
    sandbox.write("good", "");
    sandbox.run("touch", ["in/a"]);
    daemon.wait_deployed("a", 1);
}

#[test]
fn an_http_check_passes_once_the_answer_is_a_2xx() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    let checks = format!("verify = [\"http://{address}/health?unit={{unit}}\"]\nverify_timeout = \"20s\"\n");
    let config = config("deploy_to = [\"copy\"]", &format!("{COPY}{checks}"));
    let sandbox = Sandbox::new().config(&config);
    let daemon = sandbox.daemon();
    sandbox.write("in/a b", "x");
    for answer in ["503 Service Unavailable", "404 Not Found", "204 No Content"] {
        let (mut peer, _) = listener.accept().expect("a peer");
        let mut request = [0; 4096];
        let length = peer.read(&mut request).expect("a request");
        assert!(String::from_utf8_lossy(&request[..length]).starts_with("GET /health?unit=a%20b "));
        write!(peer, "HTTP/1.1 {answer}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").expect("answer");
    }
    daemon.wait_deployed("a b", 1);
}

#[test]
fn the_second_directory_does_not_step_in_for_a_first_that_is_not_to_be_had() {
    let text = config("deploy_to = [\"copy\"]", COPY).replace("\"in\"", "[\"in\", \"in-2\"]");
    let sandbox = Sandbox::new().config(&text).file("in/a", "first").file("in/b", "b").file("in-2/a", "second");
    let daemon = sandbox.daemon();
    sandbox.rename("in", "gone");
    sandbox.write("in-2/c", "c");
    daemon.wait_deployed("c", 1);
    daemon.sync();
    assert_eq!(sandbox.deployed()["a"], "first", "{}", daemon.said());
    assert_eq!(sandbox.deployed()["b"], "b", "{}", daemon.said());
    sandbox.rename("gone", "in");
    sandbox.write("in/a", "first, changed");
    daemon.wait_deployed("a", 2);
    assert_eq!(sandbox.deployed()["a"], "first, changed");
}

#[test]
fn what_a_rule_leaves_alone_from_now_on_is_not_undeployed_in_silence() {
    let sandbox = Sandbox::new().file("in/a.log", "a").file("in/b", "b").file("in/c", "c").file("in/d", "d");
    let daemon = sandbox.daemon();
    sandbox.write("in/.pickupignore", "*.log\n");
    daemon.sync();
    let is_removed = daemon.all_removed().contains_key("a.log");
    assert_eq!(sandbox.deployed().contains_key("a.log"), !is_removed, "{}", daemon.said());
    assert!(why(&sandbox, "in/a.log").contains("ignored"), "{}", why(&sandbox, "in/a.log"));
    sandbox.remove("in/.pickupignore");
    daemon.sync();
    assert_eq!(sandbox.deployed().len(), 4);
}

#[test]
fn once_exits_1_for_what_would_be_tried_again_later() {
    let run = "[deployer.run]\nkind = \"exec\"\ncommand = [\"./run\"]\nretry = 1\nretry_backoff = \"50ms\"\n";
    let sandbox = Sandbox::new().config(&config("deploy_to = [\"run\"]", run)).script("run", "exit 75");
    sandbox.write("in/a", "a");

    let output = sandbox.try_ask(["run", "--once"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn a_rollback_that_fails_leaves_everything_as_it_was() {
    let judge = "[deployer.judge]\nkind = \"exec\"\ncommand = [\"./judge\"]\nretry = 0\n";
    let config = config("deploy_to = [\"copy\", \"judge\"]", &format!("{COPY}{judge}"));
    let sandbox = Sandbox::new().config(&config).script("judge", "! test -e no").file("in/a", "one");
    let daemon = sandbox.daemon();
    sandbox.write("in/a", "two");
    daemon.wait_deployed("a", 2);
    sandbox.write("no", "");
    let output = sandbox.try_ask(["rollback", "p"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(sandbox.deployed()["a"], "two");
    assert!(json(&sandbox, ["status", "--json"])[0]["held"].is_null());
    sandbox.remove("no");
    sandbox.write("in/a", "three");
    daemon.wait_deployed("a", 3);
    assert_eq!(sandbox.deployed()["a"], "three");
}
