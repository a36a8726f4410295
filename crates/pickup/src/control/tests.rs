//! A socket that garbage, greed and long paths do not bring down.
#![expect(clippy::disallowed_methods, reason = "a socket is a file")]

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::*;
use crate::config::{PickupConfig, Settings, Surroundings};
use crate::{Config, Delivery, Engine, EventKind, SyncOptions};

/// A pickup `code` on an empty directory, with the state directory at `state` below a temporary one.
struct Sandbox {
    directory: TempDir,
    state_dir: PathBuf,
}

impl Sandbox {
    fn new(state: &str) -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::create_dir(directory.path().join("in")).unwrap();
        let state_dir = directory.path().join(state);
        Self { directory, state_dir }
    }

    fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    async fn engine(&self) -> Engine {
        let pickup = PickupConfig { deploy_to: vec!["seen".into()], ..PickupConfig::new("code", self.path("in")) };
        let config = Config {
            settings: Settings { state_dir: self.state_dir.clone(), ..Settings::default() },
            pickups: [("code".into(), pickup)].into(),
            ..Config::default()
        };
        let deployer = crate::deploy::from_fn(|_| async { Ok::<(), Error>(()) });
        let engine = Engine::builder(config).deployer("seen", deployer).start().await.unwrap();
        engine.serve_control().unwrap();
        engine
    }

    fn socket(&self) -> PathBuf {
        self.state_dir.join("control.sock")
    }

    /// Sends `bytes` and gives all that comes back.
    async fn send(&self, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        // The server may have refused before it read everything.
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = String::new();
        let read = timeout(Duration::from_secs(30), stream.read_to_string(&mut answer)).await.expect("no answer");
        // What was said before the connection broke counts.
        drop(read);
        answer
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_asks_for_everything_an_engine_can_tell() {
    let sandbox = Sandbox::new("state");
    std::fs::write(sandbox.path("in/a.txt"), "a").unwrap();
    let engine = sandbox.engine().await;
    let client = Client::connect(&sandbox.state_dir).await.unwrap();
    let options = SyncOptions { confirm_removals: true, until_final: true };
    let reports = client.sync(None, options).await.unwrap();
    assert!(reports.iter().all(SyncReport::is_success), "{reports:?}");

    let status = client.status(Some("code")).await.unwrap();
    assert_eq!(status, engine.status(None).await.unwrap());
    assert_eq!(client.history(None, 10).await.unwrap(), engine.history(None, 10).unwrap());
    let why = client.why(&sandbox.path("in/a.txt")).await.unwrap();
    assert_eq!(why, engine.why(&sandbox.path("in/a.txt")).await);
    assert_eq!(client.retry("code", None).await.unwrap(), 0);
    assert_eq!(
        client.release("code").await.unwrap_err().to_string(),
        engine.release("code").await.unwrap_err().to_string()
    );
    let options = crate::PlanOptions { confirm_removals: true };
    std::fs::write(sandbox.path("in/b.txt"), "b").unwrap();
    let plans = client.plan(Some("code"), options).await.unwrap();
    assert!(plans.len() == 1 && plans[0].is_success(), "{plans:?}");
    let unknown = client.status(Some("cod")).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound);
    insta::assert_snapshot!(unknown, @"find a pickup named `cod`; there are: code");
    let unfollowed = client.reload().await.unwrap_err();
    assert_eq!(unfollowed.kind(), ErrorKind::Config);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_streamed_until_the_engine_ends() {
    let sandbox = Sandbox::new("state");
    let engine = sandbox.engine().await;
    let client = Client::connect(&sandbox.state_dir).await.unwrap();
    let mut events = client.events().await.unwrap();
    std::fs::write(sandbox.path("in/a.txt"), "a").unwrap();
    client.sync(None, SyncOptions::default()).await.unwrap();
    loop {
        let next = timeout(Duration::from_secs(30), events.next()).await.expect("no event").unwrap();
        let Some(Delivery::Event(event)) = next else { panic!("{next:?}") };
        if let EventKind::Deployed { unit, .. } = event.kind {
            assert_eq!(unit.to_string(), "a.txt");
            break;
        }
    }
    engine.shutdown().await;
    while let Some(delivery) = events.next().await.unwrap() {
        assert!(matches!(delivery, Delivery::Event(_)), "{delivery:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_answered_and_does_no_harm() {
    let sandbox = Sandbox::new("state");
    let engine = sandbox.engine().await;
    let deep = format!("{}{}", "[".repeat(50_000), "\n");
    let cases: [(&[u8], &str); 9] = [
        (b"hello\n", "read the request: expected value"),
        (b"\n", "read the request: EOF"),
        (b"[1]\n", "it is no JSON object"),
        (b"\xff\xfe\n", "read the request"),
        (br#"{"command":"status"}"#, "it names no version"),
        (br#"{"version":2,"command":"status"}"#, "answer version 2 of the protocol: this daemon speaks 1"),
        (br#"{"version":1,"command":"explode"}"#, "unknown variant `explode`"),
        (br#"{"version":1,"command":"status","nmae":"code"}"#, "unknown field `nmae`"),
        (deep.as_bytes(), "recursion limit"),
    ];
    for (sent, expected) in cases {
        let answer = sandbox.send(sent).await;
        assert!(answer.starts_with(r#"{"error":{"kind":"protocol","message":""#), "{sent:?}: {answer}");
        assert!(answer.contains(expected), "{sent:?}: {answer}");
        assert_eq!(answer.find('\n'), Some(answer.len() - 1), "one line: {answer}");
    }
    assert_eq!(sandbox.send(b"").await, "");
    // A request needs no end where nothing follows it.
    let answer = sandbox.send(br#"{"version":1,"command":"status"}"#).await;
    assert!(answer.starts_with(r#"{"status":[{"name":"code""#), "{answer}");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_too_long_is_refused_unread() {
    let sandbox = Sandbox::new("state");
    let engine = sandbox.engine().await;
    let padded = |length: usize| {
        let start = r#"{"version":1,"command":"status","name":""#;
        format!("{start}{}\"}}\n", "x".repeat(length - start.len() - 2)).into_bytes()
    };
    let answer = sandbox.send(&padded(REQUEST_MAX)).await;
    assert!(answer.contains("not_found"), "{}", &answer[..100.min(answer.len())]);
    let answer = sandbox.send(&padded(REQUEST_MAX + 1)).await;
    insta::assert_snapshot!(answer, @r#"{"error":{"kind":"protocol","message":"read a line of more than 65536 bytes"}}"#);
    let answer = sandbox.send(&vec![b'x'; 16 * REQUEST_MAX]).await;
    // The rest was never read, so that the answer may be lost with the connection.
    assert!(answer.is_empty() || answer.contains("more than 65536 bytes"), "{answer}");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_connections_than_there_are_places_are_turned_away_and_told() {
    let sandbox = Sandbox::new("state");
    let engine = sandbox.engine().await;
    let client = Client::connect(&sandbox.state_dir).await.unwrap();
    let mut open = Vec::new();
    let refused = loop {
        match client.events().await {
            Ok(events) => open.push(events),
            Err(error) => break error,
        }
        assert!(open.len() <= 32, "no limit");
    };
    assert_eq!(refused.kind(), ErrorKind::Busy, "{refused}");
    insta::assert_snapshot!(refused, @"answer: 32 connections are open; close some, or try again");
    assert!(open.len() > 28, "only {}", open.len());
    drop(open);
    // The places are free again once the engine has noticed.
    let freed = async { while client.status(None).await.is_err() {} };
    timeout(Duration::from_secs(30), freed).await.expect("no place was freed");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_its_owners_only_and_goes_with_the_engine() {
    let sandbox = Sandbox::new("state");
    let engine = sandbox.engine().await;
    let metadata = std::fs::symlink_metadata(sandbox.socket()).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert!(!sandbox.state_dir.join("control.new").exists());
    engine.serve_control().unwrap();
    engine.shutdown().await;
    assert!(!sandbox.socket().exists());
    assert_eq!(Client::connect(&sandbox.state_dir).await.unwrap_err().kind(), ErrorKind::NoDaemon);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_daemon_left_behind_is_replaced() {
    let sandbox = Sandbox::new("state");
    std::fs::create_dir_all(sandbox.state_dir.join("control.new")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(sandbox.socket()).unwrap());
    drop(std::os::unix::net::UnixListener::bind(sandbox.state_dir.join("control.new/control.sock")).unwrap());
    let dead = Client::connect(&sandbox.state_dir).await.unwrap_err();
    assert_eq!(dead.kind(), ErrorKind::NoDaemon);
    let engine = sandbox.engine().await;
    Client::connect(&sandbox.state_dir).await.unwrap();
    // One that is dropped without a shutdown takes its socket along, too.
    drop(engine);
    let gone = async { while Client::connect(&sandbox.state_dir).await.is_ok() {} };
    timeout(Duration::from_secs(30), gone).await.expect("the socket stayed");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_state_directory_with_a_long_path_has_a_socket() {
    let long = format!("{}/{}/state", "d".repeat(120), "e".repeat(120));
    for name in [long, "s".repeat(60)] {
        let sandbox = Sandbox::new(&name);
        assert_eq!(Client::connect(&sandbox.state_dir).await.unwrap_err().kind(), ErrorKind::NoDaemon);
        let engine = sandbox.engine().await;
        let client = Client::connect(&sandbox.state_dir).await.unwrap();
        assert_eq!(client.status(None).await.unwrap().len(), 1);
        engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_file_is_read_again_when_asked() {
    let sandbox = Sandbox::new("state");
    let file = sandbox.path("pickup.conf");
    let entry = |name: &str| format!("[hot-deploy.user.{name}]\npickup_from = \"in\"\n");
    let text = format!("[pickup]\nstate_dir = \"state\"\n{}", entry("one"));
    std::fs::write(&file, &text).unwrap();
    let config = Config::load(&file, &Surroundings::default()).unwrap();
    let engine = Engine::builder(config).follow(&file, Surroundings::default()).start().await.unwrap();
    engine.serve_control().unwrap();
    let client = Client::connect(&sandbox.state_dir).await.unwrap();
    std::fs::write(&file, text.replace("user.one", "user.two")).unwrap();
    client.reload().await.unwrap();
    assert_eq!(names(&client).await, ["two"]);
    std::fs::write(&file, "[[[").unwrap();
    let error = client.reload().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("pickup.conf:1:"), "{error}");
    assert_eq!(names(&client).await, ["two"]);
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_file_is_read_again_however_it_is_written() {
    let sandbox = Sandbox::new("state");
    let file = sandbox.path("pickup.conf");
    let text =
        |name: &str| format!("[pickup]\nstate_dir = \"state\"\n[hot-deploy.user.{name}]\npickup_from = \"in\"\n");
    std::fs::write(&file, text("one")).unwrap();
    let config = Config::load(&file, &Surroundings::default()).unwrap();
    let engine = Engine::builder(config).follow(&file, Surroundings::default()).start().await.unwrap();
    let mut events = engine.subscribe();
    let mut reloaded = async || loop {
        let next = timeout(Duration::from_secs(30), events.next()).await.expect("not read again");
        let Some(Delivery::Event(event)) = next else { panic!("{next:?}") };
        if let EventKind::Reloaded { changed, .. } = event.kind {
            return changed.join(" ");
        }
    };
    std::fs::write(&file, text("two")).unwrap();
    assert_eq!(reloaded().await, "one two");
    std::fs::write(sandbox.path("other"), text("three")).unwrap();
    std::fs::rename(sandbox.path("other"), &file).unwrap();
    assert_eq!(reloaded().await, "three two");
    engine.shutdown().await;
}

async fn names(client: &Client) -> Vec<String> {
    client.status(None).await.unwrap().into_iter().map(|status| status.name).collect()
}

#[test]
fn requests_read_back_as_they_were_written() {
    use std::os::unix::ffi::OsStrExt;
    let odd = PathBuf::from(std::ffi::OsStr::from_bytes(b"a\xff"));
    let requests = [
        Request::Status { name: None },
        Request::Why { path: odd.clone() },
        Request::History { name: Some("x".into()), limit: 3 },
        Request::Sync { name: None, confirm_removals: true, until_final: true },
        Request::Rollback { name: "x".into(), to: Some(u64::MAX) },
        Request::Release { name: "x".into() },
        Request::Retry { name: "x".into(), path: Some(ExactPath(odd)) },
        Request::Reload {},
        Request::Events {},
    ];
    for request in requests {
        let json = request.to_json().unwrap().to_string();
        assert_eq!(Request::from_json(json.as_bytes()).unwrap(), request, "{json}");
    }
}
