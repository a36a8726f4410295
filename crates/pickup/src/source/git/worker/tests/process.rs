//! Workers as threads and processes: deadlines, cancellation, and workers that die.

use std::ffi::OsString;
use std::io::{BufReader, Read};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::source::git::worker::{FailureKind, GitWorker};

fn shell(script: &str) -> GitWorker {
    GitWorker::Program { program: "/bin/sh".into(), arguments: ["-c", script].map(OsString::from).into() }
}

async fn run(worker: &GitWorker, deadline: Duration) -> Result<Reply, Failure> {
    let request = Request::Repack { repository: "/nowhere".into() };
    worker.run(&request, deadline, &CancellationToken::new(), |_| {}).await
}

#[tokio::test]
async fn a_thread_does_the_same() {
    let (world, first) = World::with_a_commit();
    let request = Request::Check(world.request(Shape::Mirror, &world.path("m/mirror.git"), &[None]));
    let mut seen = 0;
    let reply =
        GitWorker::InProcess.run(&request, Duration::from_secs(60), &CancellationToken::new(), |_| seen += 1).await;
    let Ok(Reply::Checked { found, .. }) = reply else { panic!("{reply:?}") };
    assert_eq!(found, [at(&first, Some("main"), true)]);
    assert!(seen >= 1);
}

#[tokio::test]
async fn progress_and_reply_are_passed_on() {
    let script =
        r#"read line; echo '{"Progress":{"objects":1,"objects_total":2,"bytes":3}}'; echo '{"Reply":"Repacked"}'; cat"#;
    let mut seen = Vec::new();
    let request = Request::Repack { repository: "/nowhere".into() };
    let reply =
        shell(script).run(&request, Duration::from_secs(60), &CancellationToken::new(), |p| seen.push(p.bytes)).await;
    assert!(matches!(reply, Ok(Reply::Repacked)), "{reply:?}");
    assert_eq!(seen, [3]);
}

#[tokio::test]
async fn a_worker_that_dies_says_how() {
    for (script, kind, words) in [
        ("echo oh dear >&2; exit 3", FailureKind::Other, "(exit status: 3): oh dear"),
        ("kill -9 $$", FailureKind::Other, "killed by signal 9"),
        ("echo memory allocation of 7 bytes failed >&2; kill -6 $$", FailureKind::TooLarge, "1024 MiB"),
        ("echo nonsense", FailureKind::Other, "without a reply"),
    ] {
        let failure = run(&shell(script), Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(failure.kind, kind, "{failure:?}");
        assert!(failure.message.contains(words), "{failure:?}");
    }
    let missing = GitWorker::Program { program: "/nowhere/at/all".into(), arguments: Vec::new() };
    assert_eq!(run(&missing, Duration::from_secs(60)).await.unwrap_err().kind, FailureKind::Other);
}

#[tokio::test]
async fn a_deadline_kills_the_worker_and_what_it_started() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    // Both hold the pipe open; it ends when both are dead.
    let script = format!("exec 3>{}; sleep 1000 & sleep 1000", pipe.display());
    let end =
        std::thread::spawn(move || std::fs::File::open(pipe).and_then(|mut pipe| pipe.read_to_end(&mut Vec::new())));
    let failure = run(&shell(&script), Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout);
    assert!(failure.message.contains("repack /nowhere within 0 s"), "{failure:?}");
    assert_eq!(end.join().unwrap().unwrap(), 0);
}

#[tokio::test]
async fn a_cancelled_worker_is_killed() {
    let cancel = CancellationToken::new();
    cancel.cancel();
    let request = Request::Repack { repository: "/nowhere".into() };
    let done = shell("sleep 1000").run(&request, Duration::from_secs(60), &cancel, |_| {}).await;
    assert!(done.is_err());
}

#[test]
fn a_request_that_is_none_is_an_error() {
    let error = crate::serve_git_worker(BufReader::new(&b"nonsense\n"[..]), Vec::new()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
}
