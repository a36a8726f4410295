//! The control socket in the wrong hands.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use super::{ask_as_stranger, is_root, text};
use crate::sandbox::Sandbox;

fn connect(sandbox: &Sandbox) -> UnixStream {
    UnixStream::connect(sandbox.path(".pickup/control.sock")).expect("connect to the daemon")
}

#[test]
fn another_user_is_refused_even_where_the_socket_can_be_reached() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let mode = |path: &str| std::fs::metadata(sandbox.path(path)).expect("look").mode() & 0o777;
    assert_eq!((mode(".pickup"), mode(".pickup/control.sock")), (0o700, 0o600));
    if !is_root() {
        // Nobody else can become somebody else.
        return;
    }
    sandbox.chmod("", 0o755);
    let refused = |why: &str| {
        let output = ask_as_stranger(&sandbox, &["sync", "--config", "pickup.conf"]);
        assert!(!output.status.success(), "{output:?}");
        assert!(text(&output.stderr).contains(why), "{output:?}");
    };
    refused("ermission denied");
    // Whoever opened the doors by mistake has let nobody in.
    sandbox.chmod(".pickup", 0o755);
    sandbox.chmod(".pickup/control.sock", 0o666);
    refused("ask as the daemon's user, or as root");
    sandbox.ask(["sync"]);
    daemon.stop();
}

#[test]
fn clients_that_say_nothing_block_nobody() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let silent: Vec<UnixStream> = (0..20).map(|_| connect(&sandbox)).collect();
    let mut halves: Vec<UnixStream> = (0..5).map(|_| connect(&sandbox)).collect();
    for half in &mut halves {
        half.write_all(b"{\"version\":1,\"comma").expect("write");
    }
    sandbox.write("in/f", "one");
    sandbox.ask(["sync"]);
    sandbox.ask(["status"]);
    daemon.wait_deployed("f", 1);
    drop((silent, halves));
    daemon.stop();
}

#[test]
fn a_subscriber_that_never_reads_stops_nothing() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let mut deaf = connect(&sandbox);
    deaf.write_all(b"{\"version\":1,\"command\":\"events\"}\n").expect("write");
    let long = "n".repeat(200);
    for file in 0..300 {
        sandbox.write(format!("in/{file}{long}"), "x");
    }
    daemon.wait_until("every file", |log| log.deployed.len() == 300);
    sandbox.ask(["sync"]);
    daemon.stop();
}

#[test]
fn a_request_without_an_end_is_refused_unread() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let mut endless = connect(&sandbox);
    // It is turned away before it has said all of it, and may notice.
    let _ = endless.write_all(&vec![b'['; 4 << 20]);
    let mut answer = String::new();
    let heard = BufReader::new(&endless).read_line(&mut answer);
    assert!(heard.is_err() || answer.contains("a line of more than 65536 bytes"), "{answer}");
    for nonsense in ["[".repeat(60_000), "{\"version\":1,\"command\":".to_owned() + &"[".repeat(60_000)] {
        let mut stream = connect(&sandbox);
        stream.write_all(format!("{nonsense}\n").as_bytes()).expect("write");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("{\"error\":"), "{answer}");
    }
    sandbox.ask(["status"]);
    daemon.stop();
}
