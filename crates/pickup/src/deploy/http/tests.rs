use std::sync::Mutex;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::deploy::testing::{Sandbox, removed};

/// A server that gives these answers, one a connection, and remembers what it was asked.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// An answer is a status line with further headers, two line ends, and a body; `hang up` is none at all.
    async fn new(answers: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answers) = (requests.clone(), answers.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (mut text, mut buffer) = (String::new(), [0; 4096]);
                while !is_whole(&text) {
                    let read = stream.read(&mut buffer).await.unwrap();
                    text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
                }
                seen.lock().unwrap().push(text);
                if answer != "hang up" {
                    let (head, body) = answer.split_once("\n\n").unwrap_or((&answer, ""));
                    let (head, length) = (head.replace('\n', "\r\n"), body.len());
                    let answer =
                        format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        Self { address, requests }
    }

    fn config(&self) -> HttpConfig {
        HttpConfig::new(format!("{}/{{pickup}}/{{unit}}?g={{generation}}", self.address))
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// The first line of each request, and its body.
    fn lines(&self) -> Vec<String> {
        let line = |text: &String| {
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            format!("{} {body}", head.lines().next().unwrap().trim_end_matches(" HTTP/1.1")).trim_end().to_owned()
        };
        self.requests().iter().map(line).collect()
    }
}

fn is_whole(text: &str) -> bool {
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    header(head, "content-length").unwrap_or("0").parse::<usize>().unwrap() <= body.len()
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    let lines = request.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

async fn activate(http: &Http, cx: &Context, unit: &Unit) -> (Staged, Result<Live>) {
    http.stage(cx, unit, None).await.unwrap();
    let staged = http.stage(cx, unit, None).await.unwrap();
    let live = http.activate(cx, unit, &staged, None).await;
    (staged, live)
}

#[tokio::test]
async fn a_file_is_sent_with_its_digest_and_a_key_and_removed_again() {
    let (sandbox, server) = (Sandbox::new(), Server::new(&["201 Created\n\nwelcome", "204 No Content"]).await);
    let config = HttpConfig { headers: [("X-Team".into(), "web".into())].into(), ..server.config() };
    let (http, cx, unit) = (Http::new(config).unwrap(), sandbox.cx(), sandbox.file("a b/x.war", b"hello", 7));
    assert_eq!(http.accepts(&unit), Verdict::Accepted);
    let (staged, live) = activate(&http, &cx, &unit).await;
    let live = live.unwrap();
    assert!(cx.take_output().contains("201 Created\nwelcome"));
    http.retire(&cx, &unit, &staged, None).await.unwrap();
    assert!(sandbox.listing("scratch").is_empty());
    http.remove(&cx, &removed("a b/x.war"), &live).await.unwrap();
    assert_eq!(server.lines(), ["PUT /web/a%20b/x.war?g=7 hello", "DELETE /web/a%20b/x.war?g=7"]);
    let requests = server.requests();
    let digest = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";
    assert_eq!(header(&requests[0], "repr-digest"), Some(digest));
    assert_eq!(header(&requests[0], "content-length"), Some("5"));
    assert_eq!(header(&requests[0], "x-team"), Some("web"));
    let keys: Vec<_> = requests.iter().map(|request| header(request, "idempotency-key").unwrap().len()).collect();
    assert_eq!(keys, [66, 66]);
}

#[tokio::test]
async fn what_may_work_later_is_tried_again_with_the_same_key() {
    let answers = ["503 No\nRetry-After: 0", "hang up", "429 Slow", "500 Oh", "200 OK"];
    let (sandbox, server) = (Sandbox::new(), Server::new(&answers).await);
    let (http, cx, unit) = (Http::new(server.config()).unwrap(), sandbox.cx(), sandbox.file("x", b"hello", 1));
    activate(&http, &cx, &unit).await.1.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 5);
    assert!(
        requests.iter().all(|request| header(request, "idempotency-key") == header(&requests[0], "idempotency-key"))
    );
    assert!(server.lines().iter().all(|line| line == "PUT /web/x?g=1 hello"), "each has the whole body");
}

#[tokio::test]
async fn an_answer_that_never_gets_better_is_the_failure() {
    let (sandbox, server) = (Sandbox::new(), Server::new(&["500 Oh\n\nbroken war"; 5]).await);
    let (http, cx, unit) = (Http::new(server.config()).unwrap(), sandbox.cx(), sandbox.file("x", b"hello", 1));
    let error = activate(&http, &cx, &unit).await.1.unwrap_err();
    let expected = format!("PUT {}/web/x: it answers 500 Internal Server Error: broken war", server.address);
    assert_eq!((error.to_string(), error.is_transient()), (expected, false));
}

#[tokio::test]
async fn a_pause_longer_than_the_phase_is_not_waited_for() {
    let (sandbox, server) = (Sandbox::new(), Server::new(&["503 No\nRetry-After: 3600"]).await);
    let (http, cx, unit) = (Http::new(server.config()).unwrap(), sandbox.cx(), sandbox.file("x", b"hello", 1));
    let error = activate(&http, &cx, &unit).await.1.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("503"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_silent_fails_before_the_phase_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = HttpConfig::new(format!("http://{}/{{unit}}", listener.local_addr().unwrap()));
    let sandbox = Sandbox::new();
    let (http, unit) = (Http::new(config).unwrap(), sandbox.file("x", b"hello", 1));
    let cx = sandbox.cx_of(Duration::from_millis(300));
    let error = activate(&http, &cx, &unit).await.1.unwrap_err();
    assert!(error.to_string().contains("no answer within"), "{error}");
    assert!(std::time::Instant::now() < cx.deadline());
}

#[tokio::test]
async fn nobody_there_is_a_matter_of_the_environment() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = HttpConfig::new(format!("http://{}/{{unit}}", listener.local_addr().unwrap()));
    drop(listener);
    let sandbox = Sandbox::new();
    let (http, unit) = (Http::new(config).unwrap(), sandbox.file("x", b"hello", 1));
    let error = activate(&http, &sandbox.cx_of(Duration::from_millis(800)), &unit).await.1.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("onnection refused"), "{error}");
}

#[tokio::test]
async fn a_reply_that_says_otherwise_is_a_failure() {
    let answers = ["200 OK\n\nFAIL - no such thing", "200 OK\n\nFAIL - No context exists", "404 Not Found"];
    let (sandbox, server) = (Sandbox::new(), Server::new(&answers).await);
    let config = HttpConfig {
        remove_url: Some(format!("{}/undeploy?path=/{{stem}}", server.address)),
        remove_method: "GET".into(),
        expect: vec!["OK - ".into()],
        remove_expect: vec!["OK - ".into(), "No context exists".into()],
        ..server.config()
    };
    let (http, cx, unit) = (Http::new(config).unwrap(), sandbox.cx(), sandbox.file("x.y.war", b"hello", 1));
    let (staged, live) = activate(&http, &cx, &unit).await;
    let error = live.unwrap_err();
    assert!(error.to_string().ends_with("expected: FAIL - no such thing") && !error.is_transient(), "{error}");
    http.revert(&cx, &unit, &staged, None).await.unwrap();
    http.remove(&cx, &unit, &staged.sent).await.unwrap();
    assert_eq!(server.lines()[1..], ["GET /undeploy?path=/x.y", "GET /undeploy?path=/x.y"]);
}

#[tokio::test]
async fn revert_sends_what_was_live_before_or_removes() {
    let (sandbox, server) = (Sandbox::new(), Server::new(&["200 OK"; 5]).await);
    let config = HttpConfig::new(format!("{}/{{unit}}", server.address));
    let (http, cx) = (Http::new(config).unwrap(), sandbox.cx());
    let old = activate(&http, &cx, &sandbox.file("x", b"old", 1)).await.1.unwrap();
    let unit = sandbox.file("x", b"new", 2);
    let staged = http.stage(&cx, &unit, Some(&old)).await.unwrap();
    forget(&staged.directory).unwrap();
    http.revert(&cx, &unit, &staged, Some(&old)).await.unwrap();
    assert_eq!(server.lines().len(), 1, "what was never sent needs no request");
    let staged = activate(&http, &cx, &unit).await.0;
    for _ in 0..2 {
        http.revert(&cx, &unit, &staged, Some(&old)).await.unwrap();
    }
    let staged = activate(&http, &cx, &unit).await.0;
    http.revert(&cx, &unit, &staged, None).await.unwrap();
    assert_eq!(server.lines(), ["PUT /x old", "PUT /x new", "PUT /x old", "PUT /x new", "DELETE /x"]);
    let requests = server.requests();
    assert_ne!(header(&requests[0], "idempotency-key"), header(&requests[2], "idempotency-key"));
}

#[tokio::test]
async fn content_that_is_not_there_any_more_is_not_reverted_to_in_silence() {
    let (sandbox, server) = (Sandbox::new(), Server::new(&["200 OK"; 2]).await);
    let (http, cx) = (Http::new(HttpConfig::new(format!("{}/{{unit}}", server.address))).unwrap(), sandbox.cx());
    let old = activate(&http, &cx, &sandbox.file("x", b"old", 1)).await.1.unwrap();
    let unit = sandbox.file("x", b"new", 2);
    let staged = activate(&http, &cx, &unit).await.0;
    std::fs::remove_file(&old.stored).unwrap();
    let error = http.revert(&cx, &unit, &staged, Some(&old)).await.unwrap_err();
    assert!(error.to_string().starts_with("open "), "{error}");
}

#[tokio::test]
async fn a_body_follows_a_redirect_on_the_same_server_only() {
    let (sandbox, other) = (Sandbox::new(), Server::new(&["200 OK"]).await);
    let away = format!("307 There\nLocation: {}/x", other.address);
    let server = Server::new(&["308 There\nLocation: /else?where", "200 OK", &away]).await;
    sandbox.store(b"x", 0o644);
    let token = sandbox.path("token");
    std::fs::write(&token, "a-long-token\n").unwrap();
    let config = HttpConfig { bearer_file: Some(token), ..server.config() };
    let (http, cx) = (Http::new(config).unwrap(), sandbox.cx());
    activate(&http, &cx, &sandbox.file("x", b"one", 1)).await.1.unwrap();
    let error = activate(&http, &cx, &sandbox.file("y", b"two", 2)).await.1.unwrap_err();
    assert!(error.to_string().ends_with("/x, another server, which is sent nothing"), "{error}");
    assert_eq!(server.lines(), ["PUT /web/x?g=1 one", "PUT /else?where one", "PUT /web/y?g=2 two"]);
    let told = server.requests().iter().all(|text| header(text, "authorization") == Some("Bearer a-long-token"));
    assert!(told && other.requests().is_empty());
}

#[tokio::test]
async fn secrets_are_read_again_and_shown_nowhere() {
    let answers = ["401 No\n\nYou said Basic YW5uOndyb25nLXBhc3N3b3Jk", "200 OK\n\nright-password"];
    let (sandbox, server) = (Sandbox::new(), Server::new(&answers).await);
    let file = sandbox.path("password");
    let config = HttpConfig { username: Some("ann".into()), password_file: Some(file.clone()), ..server.config() };
    let (http, cx, unit) = (Http::new(config).unwrap(), sandbox.cx(), sandbox.file("x", b"hello", 1));
    assert!(http.check(&cx, &unit, None).await.unwrap_err().to_string().starts_with("read "));
    std::fs::write(&file, "wrong-password\n").unwrap();
    let error = activate(&http, &cx, &unit).await.1.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("401"), "{error}");
    assert!(!error.to_string().contains("YW5u") && !cx.take_output().contains("YW5u"));
    std::fs::write(&file, "right-password").unwrap();
    let (staged, live) = activate(&http, &cx, &unit).await;
    assert!(!cx.take_output().contains("right-password"));
    assert!(!format!("{staged:?}{live:?}{http:?}").contains("right-password"));
    assert_eq!(header(&server.requests()[1], "authorization"), Some("Basic YW5uOnJpZ2h0LXBhc3N3b3Jk"));
}

#[tokio::test]
async fn where_something_went_earlier_is_not_told_the_secret_of_another_server() {
    let sandbox = Sandbox::new();
    let (old, new) = (Server::new(&["200 OK"; 2]).await, Server::new(&[]).await);
    let live = activate(&Http::new(old.config()).unwrap(), &sandbox.cx(), &sandbox.file("x", b"1", 1)).await.1.unwrap();
    let token = sandbox.path("token");
    std::fs::write(&token, "a-long-token\n").unwrap();
    let http = Http::new(HttpConfig { bearer_file: Some(token), ..new.config() }).unwrap();
    http.remove(&sandbox.cx(), &removed("x"), &live).await.unwrap();
    assert_eq!(header(&old.requests()[1], "authorization"), None);
}

#[tokio::test]
async fn a_long_reply_is_cut() {
    let long = format!("400 Bad\n\n{}", "x".repeat(1 << 20));
    let (sandbox, server) = (Sandbox::new(), Server::new(&[&long]).await);
    let (http, cx, unit) = (Http::new(server.config()).unwrap(), sandbox.cx(), sandbox.file("x", b"hello", 1));
    let error = activate(&http, &cx, &unit).await.1.unwrap_err();
    assert!(error.to_string().len() < 400 && cx.take_output().len() <= crate::deploy::OUTPUT_MAX);
}

#[test]
fn trees_are_refused_with_a_reason() {
    let (sandbox, http) = (Sandbox::new(), Http::new(HttpConfig::new("http://h/")).unwrap());
    let verdict = http.accepts(&sandbox.tree("app", &[("a", b"1")], 1));
    assert_eq!(verdict, Verdict::Refused("an http deployer sends single files, and this is a tree".into()));
}
