#![expect(clippy::disallowed_methods, reason = "the tests read what the programs wrote")]

use std::net::TcpListener;
use std::path::Path;

use super::*;

fn launch(directory: &Path, argv: &[&str]) -> Launch {
    Launch {
        program: argv[0].into(),
        argv: argv.iter().map(OsString::from).collect(),
        env: vec![("PATH".into(), "/usr/bin:/bin".into()), ("GREETING".into(), "hello".into())],
        cwd: directory.to_path_buf(),
        fds: Vec::new(),
        output: File::create(directory.join("out")).unwrap(),
        pid_file: File::create(directory.join("pid")).unwrap(),
        ids: None,
        limits: Vec::new(),
    }
}

fn wait(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid);
    rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap();
}

fn output(launch: Launch, directory: &Path) -> (i32, String) {
    let pid = launch.start().unwrap();
    wait(pid);
    (pid, std::fs::read_to_string(directory.join("out")).unwrap())
}

#[test]
fn listen_pid_is_the_child_itself() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let mut launch = launch(at, &["/bin/sh", "-c", "echo $$ $LISTEN_PID $GREETING; test -S /dev/fd/3 && echo socket"]);
    launch.fds.push(TcpListener::bind("127.0.0.1:0").unwrap().into());
    let (pid, said) = output(launch, at);
    assert_eq!(said, format!("{pid} {pid} hello\nsocket\n"));
    assert_eq!(std::fs::read_to_string(at.join("pid")).unwrap(), pid.to_string());
}

#[test]
fn nothing_but_what_was_handed_over_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let _leaking = {
        let file = File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&file, rustix::io::FdFlags::empty()).unwrap();
        file
    };
    let mut launch = launch(
        at,
        &[
            "/bin/sh",
            "-c",
            "cd /proc/self/fd && echo 3 4 5 6 7 8 9 1? 2? | tr ' ' '\\n' | while read fd; do test -e $fd && echo $fd; done",
        ],
    );
    for _ in 0..2 {
        launch.fds.push(TcpListener::bind("127.0.0.1:0").unwrap().into());
    }
    let (_, said) = output(launch, at);
    // The shell's own copies of its pipe come and go below; the two sockets are there, and the file is not.
    assert!(said.starts_with("3\n4\n"), "{said}");
}

#[test]
fn limits_hold() {
    let directory = tempfile::tempdir().unwrap();
    let mut launch = launch(directory.path(), &["/bin/sh", "-c", "ulimit -n; ulimit -H -n"]);
    launch.limits.push((Limit::Nofile, 77));
    assert_eq!(output(launch, directory.path()).1, "77\n77\n");
}

#[test]
fn a_program_that_cannot_run_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let error = launch(directory.path(), &["/no/such/program"]).start().unwrap_err();
    assert_eq!(error.to_string(), "find how to run /no/such/program: No such file or directory (os error 2)");
    let mut with_fds = launch(directory.path(), &["/dev/null"]);
    // So many that any pipe of the standard library's own lies among their numbers.
    with_fds.fds.extend((0..40).map(|_| OwnedFd::from(TcpListener::bind("127.0.0.1:0").unwrap())));
    assert!(with_fds.start().unwrap_err().to_string().contains("Permission denied"));
}

#[test]
fn another_user_is_somebody_else_in_full() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else can become somebody else; then the system says so.
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut launch = launch(directory.path(), &["/bin/sh", "-c", "id -u; id -g; id -G"]);
    launch.ids = Some(Ids { user: 12345, group: 23456, groups: vec![23456, 34567] });
    assert_eq!(output(launch, directory.path()).1, "12345\n23456\n23456 34567\n");
}

#[test]
fn an_address_that_a_copy_of_us_holds_for_a_moment_is_waited_for() {
    let mut refusals = 3;
    let result = bound(|| {
        refusals -= 1;
        if refusals > 0 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok("bound") }
    });
    assert_eq!((result.unwrap(), refusals), ("bound", 0));
    let error = bound(|| Err::<(), _>(io::ErrorKind::PermissionDenied.into())).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}
