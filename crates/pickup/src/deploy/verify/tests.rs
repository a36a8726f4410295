use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;
use crate::deploy::testing::{Sandbox, removed};

/// Answers one request after the other, and says what was asked for.
async fn server(answers: Vec<&'static str>) -> (String, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            let text = String::from_utf8_lossy(&request[..length]);
            asked.push(text.lines().next().unwrap_or_default().to_owned());
            let head = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
        }
        asked
    });
    (address, asked)
}

async fn check(check: VerifyCheck, timeout: Duration) -> Result<()> {
    let sandbox = Sandbox::new();
    verify(&[check], timeout, &sandbox.cx(), &removed("a b.py")).await
}

#[tokio::test]
async fn a_check_is_repeated_until_it_passes() {
    let redirect = "302 Found\r\nlocation: http://127.0.0.1:1/";
    let (address, asked) = server(vec!["503 Service Unavailable", redirect, "204 No Content"]).await;
    check(VerifyCheck::Http(format!("http://{address}/{{unit}}")), Duration::from_secs(20)).await.unwrap();
    assert_eq!(asked.await.unwrap(), ["GET /a%20b.py HTTP/1.1"; 3]);
}

#[tokio::test]
async fn a_listener_is_enough_for_tcp() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    check(VerifyCheck::Tcp(address.clone()), Duration::from_secs(20)).await.unwrap();
    drop(listener);
    let error = check(VerifyCheck::Tcp(address.clone()), Duration::from_millis(100)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("tcp://{address} does not pass within 100ms: Connection refused")), "{text}");
}

#[tokio::test]
async fn a_program_passes_by_its_exit_status() {
    let argv = |argv: [&str; 3]| VerifyCheck::Exec(argv.map(String::from).to_vec());
    check(argv(["/bin/sh", "-c", "test '{pickup}' = web"]), Duration::from_secs(20)).await.unwrap();
    let error = check(argv(["/bin/sh", "-c", "exit 4"]), Duration::from_millis(300)).await.unwrap_err();
    assert!(error.to_string().ends_with("exit status 4") || error.to_string().contains("finish"), "{error}");
}

#[tokio::test]
async fn of_many_attempts_the_last_ones_output_is_kept() {
    let sandbox = Sandbox::new();
    let cx = sandbox.cx();
    let tried = tempfile::NamedTempFile::new().unwrap();
    let script = "echo x >> \"$1\"; wc -l < \"$1\"; test $(wc -l < \"$1\") = 3";
    let argv = ["sh", "-c", script, "sh", tried.path().to_str().unwrap()].map(str::to_owned).to_vec();
    cx.output("before\n");
    verify(&[VerifyCheck::Exec(argv)], Duration::from_secs(20), &cx, &removed("a")).await.unwrap();
    assert_eq!(cx.take_output(), "before\n3\n");
}

#[tokio::test]
async fn the_last_result_is_told_even_when_the_phase_is_short() {
    let sandbox = Sandbox::new();
    let cx = sandbox.cx_of(Duration::from_millis(200));
    let checks = [VerifyCheck::Tcp("127.0.0.1:1".into())];
    let error = verify(&checks, Duration::from_secs(30), &cx, &removed("x")).await.unwrap_err();
    assert!(error.to_string().contains("refused") && Instant::now() < cx.deadline(), "{error}");
}
