//! `kind = "http"`: what goes over the wire to a server, and what becomes of its answers.

mod server;
mod stuck;
#[cfg(target_os = "linux")]
mod tomcat;

use serde_json::Value;

use self::server::Server;
use crate::daemon::{Daemon, Line};
use crate::sandbox::Sandbox;

/// What is said of a deployment that failed.
const FAILED: &str = "failed; the old version stays";

/// The entry `p` sends what is in `in` to `url`; keys of the deployer may follow.
fn config(url: &str, keys: &str) -> String {
    format!(
        "[pickup]\nlog_format = \"json\"\n\n[hot-deploy.user.p]\npickup_from = \"in\"\ndeploy_to = [\"store\"]\n\n\
         [deployer.store]\nkind = \"http\"\nurl = \"{url}\"\nretry = 0\n{keys}\n"
    )
}

fn failed(daemon: &Daemon) -> Line {
    daemon.wait_for(|line| line.message == FAILED)
}

/// What `why` says of a path, in full.
fn why(sandbox: &Sandbox, path: &str) -> String {
    String::from_utf8(sandbox.ask(["why", path]).stdout).expect("text")
}

#[test]
fn a_file_is_put_replaced_and_deleted() {
    let server = Server::new();
    let sandbox = Sandbox::new().config(&config(&server.url("/{pickup}/{unit}"), ""));
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let sandbox = sandbox.file("in/a b/x.bin", &large).file("in/empty", "");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a b/x.bin", 1);
    daemon.wait_deployed("empty", 1);
    assert_eq!(server.holds("/p/a%20b/x.bin"), Some(large));
    assert_eq!(server.holds("/p/empty"), Some(Vec::new()));
    sandbox.write("beside", "second");
    sandbox.rename("beside", "in/a b/x.bin");
    daemon.wait_deployed("a b/x.bin", 2);
    assert_eq!(server.holds("/p/a%20b/x.bin").as_deref(), Some(&b"second"[..]));
    sandbox.remove("in/a b/x.bin");
    daemon.wait_removed("a b/x.bin");
    assert_eq!(server.holds("/p/a%20b/x.bin"), None);
    let keys = server.headers("idempotency-key");
    assert_eq!(keys.len(), 4);
    assert!(keys.iter().all(|key| keys.iter().filter(|other| *other == key).count() == 1), "{keys:?}");
    assert_eq!(server.headers("repr-digest").len(), 3);
}

#[test]
fn a_server_that_is_overloaded_is_asked_again_with_the_same_key() {
    let server = Server::new();
    server.answer("503 Busy\r\nRetry-After: 0", 3);
    let sandbox = Sandbox::new().config(&config(&server.url("/{unit}"), "")).file("in/x", "one");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("x", 1);
    assert_eq!(server.holds("/x").as_deref(), Some(&b"one"[..]));
    let keys = server.headers("idempotency-key");
    assert!(keys.len() == 4 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

#[test]
fn the_reply_is_in_the_failure_record() {
    let server = Server::new();
    server.answer("422 Unprocessable", 1);
    let sandbox = Sandbox::new().config(&config(&server.url("/{unit}?token=hidden"), "")).file("in/x", "one");
    let daemon = sandbox.daemon();
    let line = failed(&daemon);
    let said = "/x: it answers 422 Unprocessable Entity: this is the reply";
    assert!(line.text.contains(said) && !line.text.contains("hidden"), "{}", line.text);
    let history: Value = serde_json::from_slice(&sandbox.ask(["history", "--json"]).stdout).expect("JSON");
    assert!(history.to_string().contains("this is the reply\\nand this its second line"), "{history}");
    assert!(why(&sandbox, "in/x").contains(said));
}

#[test]
fn once_fails_where_the_server_refuses() {
    let server = Server::new();
    server.answer("422 Unprocessable", 1);
    let sandbox = Sandbox::new().config(&config(&server.url("/{unit}"), "")).file("in/x", "one");
    assert_eq!(sandbox.try_ask(["run", "--once"]).status.code(), Some(1));
    sandbox.write("in/x", "another");
    assert_eq!(sandbox.try_ask(["run", "--once"]).status.code(), Some(0));
    assert_eq!(server.holds("/x").as_deref(), Some(&b"another"[..]));
}

#[test]
fn a_version_that_does_not_verify_is_replaced_by_the_one_before() {
    let server = Server::new();
    let keys = "verify = [\"exec:test ! -e broken\"]\nverify_timeout = \"200ms\"";
    let sandbox = Sandbox::new().config(&config(&server.url("/{unit}"), keys)).file("in/x", "good");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("x", 1);
    sandbox.write("broken", "");
    sandbox.write("beside", "bad");
    sandbox.rename("beside", "in/x");
    failed(&daemon);
    assert_eq!(server.holds("/x").as_deref(), Some(&b"good"[..]));
    assert_eq!(server.requests(), ["PUT /x", "PUT /x", "PUT /x"]);
    sandbox.write("in/new", "bad");
    daemon.wait_for(|line| line.message == FAILED && line.field("units") == "new");
    assert_eq!(server.holds("/new"), None);
    assert_eq!(server.requests()[3..], ["PUT /new", "DELETE /new"]);
}

#[test]
fn a_wrong_token_heals_when_the_file_is_changed_and_is_seen_nowhere() {
    let authority = tempfile::tempdir().expect("a directory");
    let server = Server::encrypted(&authority.path().join("ca.pem"));
    server.login("Bearer the-right-token");
    let keys = format!(
        "bearer_file = \"token\"\nca_file = \"{}\"\nretry_backoff = \"50ms\"",
        authority.path().join("ca.pem").display()
    );
    let sandbox = Sandbox::new().config(&config(&server.url("/{unit}"), &keys));
    let sandbox = sandbox.file("token", "the-wrong-token\n").file("in/x", "one");
    let daemon = sandbox.daemon();
    daemon.wait_until("a refusal", |_| !server.requests().is_empty());
    sandbox.write("token", "the-right-token\n");
    daemon.wait_deployed("x", 1);
    let said = daemon.stop();
    assert!(!said.contains("-token"), "{said}");
    for (name, content) in sandbox.tree(".pickup") {
        assert!(!content.contains("the-right-token") && !content.contains("the-wrong-token"), "{name}");
    }
}

#[test]
fn a_server_of_an_unknown_authority_is_sent_nothing() {
    let authority = tempfile::tempdir().expect("a directory");
    let server = Server::encrypted(&authority.path().join("ca.pem"));
    let sandbox = Sandbox::new().config(&config(&server.url("/{unit}"), "")).file("in/x", "one");
    let daemon = sandbox.daemon();
    let line = daemon.wait_for(|line| line.text.contains("its certificate is not trusted"));
    assert!(line.text.contains("see `ca_file`"), "{}", line.text);
    assert!(server.requests().is_empty());
}

#[test]
fn a_tree_is_refused_with_the_reason() {
    let server = Server::new();
    let text = config(&server.url("/{unit}"), "").replace("deploy_to", "unit = \"directory\"\ndeploy_to");
    let sandbox = Sandbox::new().config(&text).file("in/app/a", "one");
    let daemon = sandbox.daemon();
    daemon.sync();
    assert!(server.requests().is_empty());
    assert!(daemon.said().contains("an http deployer sends single files, and this is a tree"), "{}", daemon.said());
}
