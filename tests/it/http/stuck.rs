//! Servers that are away in the middle of it, and daemons that are.

use std::process::Command;
use std::time::Duration;

use super::server::Server;
use super::{config, why};
use crate::program::program;
use crate::sandbox::Sandbox;

const BUSY: &str = "503 Busy\r\nRetry-After: 0";

/// What is said where a server answered neither the change nor its revert.
const STUCK: &str = "stuck; it is tried again";

fn put(sandbox: &Sandbox, content: impl AsRef<[u8]>) {
    sandbox.write("beside", content);
    sandbox.rename("beside", "in/x");
}

fn status(sandbox: &Sandbox) -> String {
    String::from_utf8(sandbox.ask(["status", "p", "--json"]).stdout).expect("text")
}

#[test]
fn a_server_that_is_away_for_a_change_and_its_revert_is_asked_until_it_is_back() {
    let server = Server::new();
    let keys = "retry_backoff = \"50ms\"";
    let sandbox = Sandbox::new().config(&config(&server.url("/{unit}"), keys)).file("in/x", "one");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("x", 1);
    server.answer(BUSY, usize::MAX);
    put(&sandbox, "two");
    let line = daemon.wait_for(|line| line.message == STUCK);
    assert!(line.field("undo_errors").contains("503 Service Unavailable"), "{line:?}");
    // Nobody has asked for it, and the configured retries are none: it goes on all the same.
    daemon.wait_until("another try", |log| log.lines.iter().filter(|line| line.message == STUCK).count() >= 2);
    let said = why(&sandbox, "in/x");
    assert!(said.contains("503") && said.contains("could not be taken back yet"), "{said}");
    let status = status(&sandbox);
    assert!(status.contains("could not be taken back yet"), "{status}");
    server.answer("", 0);
    daemon.wait_deployed("x", 2);
    assert_eq!(server.holds("/x").as_deref(), Some(&b"two"[..]));
}

/// The former content is what the journal calls live; the server may have something else.
#[test]
fn what_is_put_back_while_nobody_knows_what_is_live_is_sent_again() {
    let server = Server::new();
    let keys = "retry_backoff = \"50ms\"";
    let sandbox = Sandbox::new().config(&config(&server.url("/{unit}"), keys)).file("in/x", "one");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("x", 1);
    server.answer(BUSY, usize::MAX);
    put(&sandbox, "two");
    daemon.wait_for(|line| line.message == STUCK);
    put(&sandbox, "one");
    daemon.sync();
    server.answer("", 0);
    daemon.wait_deployed("x", 2);
    assert_eq!(server.holds("/x").as_deref(), Some(&b"one"[..]));
}

/// The key in the head of a request.
fn key(head: &str) -> String {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let found = lines.find(|(name, _)| name.eq_ignore_ascii_case("idempotency-key"));
    found.expect("a key").1.to_owned()
}

/// More than fits between two sockets.
fn large(byte: u8) -> Vec<u8> {
    vec![byte; 24 << 20]
}

#[test]
fn a_crash_in_the_middle_of_a_request_is_taken_back_and_repeated_with_the_same_key() {
    let server = Server::new();
    let sandbox = Sandbox::new().config(&config(&server.url("/{unit}"), "")).file("in/x", large(1));
    let daemon = sandbox.daemon();
    daemon.wait_deployed("x", 1);
    let seen =
        |head: std::sync::mpsc::Receiver<String>| key(&head.recv_timeout(Duration::from_secs(60)).expect("a request"));
    let (head, _gate) = server.stall();
    put(&sandbox, large(2));
    let deploy = seen(head);
    daemon.kill();
    let (head, _gate) = server.stall();
    let daemon = sandbox.start(Command::new(program()));
    let revert = seen(head);
    daemon.kill();
    let sent = server.headers("idempotency-key").len();
    let daemon = sandbox.daemon();
    daemon.wait_deployed("x", 1);
    let keys = server.headers("idempotency-key").split_off(sent);
    // Each is a request of its own, and a repeated one is the same.
    assert_eq!((keys.len(), &keys[0]), (2, &revert));
    assert!(deploy != revert && keys[1] != deploy && keys[1] != revert, "{deploy} {revert} {keys:?}");
    assert_eq!(server.requests()[sent..], ["PUT /x", "PUT /x"]);
    assert!(server.holds("/x") == Some(large(2)));
}
