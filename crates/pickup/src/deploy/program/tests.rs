use super::*;
use crate::deploy::testing::Sandbox;

fn shell(script: &str) -> Program {
    Program { argv: ["/bin/sh", "-c", script].map(OsString::from).to_vec(), ..Program::default() }
}

async fn run(program: Program, cx: &Context) -> Result<ExitStatus> {
    program.run(cx, cx.deadline()).await
}

/// Whether a process lives; one that is dead but not yet collected by its parent does not.
fn is_alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with(['Z', 'X']))
}

/// A killed process of which we are not the parent takes a moment to go.
async fn until_dead(pid: &str) {
    let dead = async {
        while is_alive(pid) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), dead).await.expect("the process to be dead");
}

#[tokio::test]
async fn the_end_is_told_as_it_was() {
    let sandbox = Sandbox::new();
    let cx = sandbox.cx();
    for (script, end) in [("exit 3", "exit status 3"), ("kill -9 $$", "killed by signal 9"), (":", "exit status 0")] {
        assert_eq!(describe(run(shell(script), &cx).await.unwrap()), end);
    }
    let missing = Program { argv: vec!["/no/such/program".into()], ..Program::default() };
    let error = run(missing, &cx).await.unwrap_err();
    assert!(error.to_string().starts_with("run /no/such/program: No such file"), "{error}");
    let forbidden = Program { argv: vec!["/etc/passwd".into()], ..Program::default() };
    let error = run(forbidden, &cx).await.unwrap_err();
    assert!(error.to_string().starts_with("run /etc/passwd: Permission denied"), "{error}");
    let nowhere = Program { cwd: Some("/no/such/directory".into()), ..shell(":") };
    assert!(run(nowhere, &cx).await.unwrap_err().to_string().contains("in the directory /no/such/directory"));
}

#[tokio::test]
async fn both_streams_are_kept_and_bounded() {
    let sandbox = Sandbox::new();
    let cx = sandbox.cx();
    run(shell("echo out; echo err >&2"), &cx).await.unwrap();
    let output = cx.take_output();
    assert!(output.contains("out\n") && output.contains("err\n"), "{output}");
    run(shell("head -c 1048576 /dev/zero | tr '\\0' x; echo; echo the end"), &cx).await.unwrap();
    let output = cx.take_output();
    assert!(output.len() <= crate::deploy::OUTPUT_MAX && output.ends_with("the end\n"));
    run(shell("printf '%.0sü' $(seq 9000)"), &cx).await.unwrap();
    assert!(!cx.take_output().contains(char::REPLACEMENT_CHARACTER));
}

#[tokio::test]
async fn closed_or_unread_streams_are_fine() {
    let sandbox = Sandbox::new();
    let cx = sandbox.cx();
    let unread = Program { stdin: Some(vec![b'x'; 1 << 20]), ..shell("exec 0<&-; exit 0") };
    assert!(run(unread, &cx).await.unwrap().success());
    assert!(run(shell("exec 1>&- 2>&-; exit 0"), &cx).await.unwrap().success());
    let read = Program { stdin: Some(b"hello".to_vec()), ..shell("cat") };
    run(read, &cx).await.unwrap();
    assert_eq!(cx.take_output(), "hello");
}

#[tokio::test]
async fn what_is_left_running_does_not_hold_us_up() {
    let sandbox = Sandbox::new();
    let cx = sandbox.cx();
    assert!(run(shell("sleep 60 & echo $!"), &cx).await.unwrap().success());
    let pid = cx.take_output();
    assert!(is_alive(&pid));
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn a_timeout_ends_grandchildren_too() {
    let sandbox = Sandbox::new();
    for ignore in ["", "trap '' TERM; "] {
        let cx = sandbox.cx_of(Duration::from_secs(4));
        let error = run(shell(&format!("{ignore}sleep 60 & echo $!; wait; sleep 60")), &cx).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(Instant::now() <= cx.deadline(), "it ended before the phase did");
        until_dead(&cx.take_output()).await;
    }
}

#[tokio::test]
async fn a_program_asked_to_stop_may_clean_up() {
    let sandbox = Sandbox::new();
    let cx = sandbox.cx_of(Duration::from_secs(4));
    let error = run(shell("trap 'echo cleaned; exit 0' TERM; sleep 60 & wait"), &cx).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(cx.take_output(), "cleaned\n");
}

#[tokio::test]
async fn traffic_that_never_rests_leaves_room_for_the_work_beside_it() {
    let mut io = Io::new(async {
        loop {
            tokio::task::consume_budget().await;
        }
    });
    io.beside(tokio::time::sleep(Duration::from_millis(1))).await;
}

#[tokio::test]
async fn a_program_that_never_stops_talking_is_stopped_all_the_same() {
    let sandbox = Sandbox::new();
    let cx = sandbox.cx_of(Duration::from_secs(4));
    let error = run(shell("exec cat /dev/zero"), &cx).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(Instant::now() <= cx.deadline(), "it ended before the phase did");
    let cancel = tokio_util::sync::CancellationToken::new();
    let cx = sandbox.cx().cancelled_by(&cancel);
    let work = tokio::spawn({
        let cx = cx.clone();
        async move { run(shell("exec cat /dev/zero"), &cx).await }
    });
    while cx.take_output().is_empty() {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    assert_eq!(work.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
}

#[tokio::test]
async fn cancelling_and_dropping_end_it() {
    let sandbox = Sandbox::new();
    let cancel = tokio_util::sync::CancellationToken::new();
    let cx = sandbox.cx().cancelled_by(&cancel);
    let pid_of = |cx: Context| async move {
        loop {
            let output = cx.take_output();
            if output.ends_with('\n') {
                return output;
            }
            tokio::task::yield_now().await;
        }
    };
    let work = tokio::spawn({
        let cx = cx.clone();
        async move { run(shell("sleep 60 & echo $!; wait"), &cx).await }
    });
    let pid = pid_of(cx.clone()).await;
    work.abort();
    until_dead(&pid).await;
    let work = tokio::spawn({
        let cx = cx.clone();
        async move { run(shell("sleep 60 & echo $!; wait"), &cx).await }
    });
    let pid = pid_of(cx).await;
    cancel.cancel();
    assert_eq!(work.await.unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    until_dead(&pid).await;
}
