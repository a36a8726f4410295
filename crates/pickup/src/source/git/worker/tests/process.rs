//! Workers as threads and processes: deadlines, cancellation, and workers that die.

use std::ffi::OsString;
use std::io::{BufReader, Read};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::source::git::worker::{FailureKind, GitWorker, Standing};

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

/// A remote, as far as a worker that is a shell script knows.
async fn look(standing: &std::sync::Arc<Standing>) -> Result<Vec<Found>, Failure> {
    let world = World::new();
    standing.look(world.access(), Vec::new(), Duration::from_secs(60), &CancellationToken::new()).await
}

#[tokio::test]
async fn a_worker_that_looks_is_asked_again_and_replaced_when_it_died() {
    let directory = tempfile::tempdir().unwrap();
    let started = directory.path().join("started");
    // It answers twice, and dies.
    let script = format!(
        r#"echo . >>{}; for time in 1 2; do read line; echo '{{"Reply":{{"Checked":{{"found":[],"renewed":null}}}}}}'; done"#,
        started.display()
    );
    let standing = Standing::new(shell(&script));
    for starts in [1, 1, 2, 2, 3] {
        assert_eq!(look(&standing).await, Ok(Vec::new()));
        assert_eq!(std::fs::read_to_string(&started).unwrap().lines().count(), starts);
    }
    let failure = look(&Standing::new(shell("echo oh dear >&2; exit 3"))).await.unwrap_err();
    assert!(failure.message.contains("(exit status: 3): oh dear"), "{failure:?}");
}

#[tokio::test]
async fn a_look_finds_what_a_check_finds_and_leaves_nothing_behind() {
    let (world, first) = World::with_a_commit();
    world.tag("v1", &first, true);
    let wanted = [None, Some("main"), Some("v1"), Some(first.as_str()), Some("dev")];
    let (checked, _) = world.check(Shape::Mirror, &world.path("m/mirror.git"), &wanted).unwrap();
    let Check { access, wanted, .. } = world.request(Shape::Mirror, &world.path("none"), &wanted);
    let before = std::fs::read_dir(world.directory.path()).unwrap().count();
    let standing = Standing::new(GitWorker::InProcess);
    let found = standing.look(access, wanted, Duration::from_secs(60), &CancellationToken::new()).await.unwrap();
    assert_eq!(found, checked);
    assert_eq!(std::fs::read_dir(world.directory.path()).unwrap().count(), before);
}
