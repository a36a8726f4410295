//! Trouble from outside: full and read-only disks, missing rights, too few descriptors and watches, emptied and unmounted
//! directories, a damaged journal. The last good version stays, `status` says why, and it heals by itself.
//!
//! Mounts and limits live in a user namespace of the daemon's own, so that no test needs to be root.

use std::fs;
use std::process::Command;

use crate::daemon::Daemon;
use crate::program::program;
use crate::sandbox::Sandbox;

const MEGABYTE: usize = 1 << 20;

/// The daemon in namespaces of its own, after `setup` ran there in the sandbox.
fn inside(sandbox: &Sandbox, setup: &str) -> Daemon {
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-ec", &format!("{setup}\nexec \"$0\" \"$@\"")]);
    command.arg(program());
    // What is mounted over the state directory hides the control socket from us, so there is nobody to ask.
    let daemon = sandbox.start(command);
    daemon.wait_for(|line| line.message == "ready");
    daemon
}

/// Runs a line of shell in the daemon's namespaces.
fn enter(sandbox: &Sandbox, daemon: &Daemon, line: &str) {
    let target = daemon.id().to_string();
    let directory = sandbox.path("").display().to_string();
    let line = format!("cd '{directory}' && {line}");
    sandbox.run("nsenter", ["--preserve-credentials", "-U", "-m", "-t", &target, "sh", "-ec", &line]);
}

/// What is deployed, as the daemon sees it.
fn deployed(sandbox: &Sandbox, daemon: &Daemon, name: &str) -> Option<Vec<u8>> {
    let path = sandbox.path("deployed/p").join(name);
    fs::read(format!("/proc/{}/root{}", daemon.id(), path.display())).ok()
}

fn retrying(sandbox: Sandbox) -> Sandbox {
    let text = crate::sandbox::COPY.replace("durable = false", "durable = false\nretry = 0\nretry_backoff = \"100ms\"");
    sandbox.config(&text)
}

/// The state of the pickup and everything that is said about it.
fn status(sandbox: &Sandbox) -> String {
    let output = sandbox.ask(["status", "--json"]);
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn a_full_target_keeps_the_old_version_and_heals() {
    let sandbox = retrying(Sandbox::new()).directory("deployed/p");
    let daemon = inside(&sandbox, "mount -t tmpfs -o size=512k tmpfs deployed/p");
    sandbox.write("in/a", "one");
    daemon.wait_deployed("a", 1);
    sandbox.write("in/a", vec![b'2'; MEGABYTE]);
    let failed = daemon.wait_for(|line| line.message == "failed; the old version stays");
    assert!(failed.field("cause").contains("No space left on device"), "{failed:?}");
    assert_eq!(deployed(&sandbox, &daemon, "a").as_deref(), Some(b"one".as_slice()));
    assert!(status(&sandbox).contains("No space left on device"), "{}", status(&sandbox));
    enter(&sandbox, &daemon, "mount -o remount,size=8m deployed/p");
    daemon.wait_deployed("a", 2);
    assert_eq!(deployed(&sandbox, &daemon, "a"), Some(vec![b'2'; MEGABYTE]));
}

#[test]
fn a_full_state_directory_keeps_the_old_version_and_heals() {
    let sandbox = retrying(Sandbox::new()).directory(".pickup");
    let daemon = inside(&sandbox, "mount -t tmpfs -o size=1m,mode=700 tmpfs .pickup");
    sandbox.write("in/a", "one");
    daemon.wait_deployed("a", 1);
    sandbox.write("in/a", vec![b'2'; 2 * MEGABYTE]);
    let trouble = daemon.wait_for(|line| line.message.starts_with("in trouble"));
    assert!(trouble.field("cause").contains("No space left on device"), "{trouble:?}");
    assert_eq!(deployed(&sandbox, &daemon, "a").as_deref(), Some(b"one".as_slice()));
    enter(&sandbox, &daemon, "mount -o remount,size=32m .pickup");
    daemon.wait_deployed("a", 2);
    daemon.wait_for(|line| line.message == "the trouble is over");
    assert_eq!(deployed(&sandbox, &daemon, "a"), Some(vec![b'2'; 2 * MEGABYTE]));
}

#[test]
fn a_read_only_target_keeps_the_old_version_and_heals() {
    let sandbox = retrying(Sandbox::new()).directory("deployed/p");
    let daemon = inside(&sandbox, "mount --bind deployed/p deployed/p");
    sandbox.write("in/a", "one");
    daemon.wait_deployed("a", 1);
    enter(&sandbox, &daemon, "mount -o remount,bind,ro deployed/p");
    sandbox.write("in/a", "two");
    let failed = daemon.wait_for(|line| line.message == "failed; the old version stays");
    assert!(failed.field("cause").contains("Read-only file system"), "{failed:?}");
    assert_eq!(deployed(&sandbox, &daemon, "a").as_deref(), Some(b"one".as_slice()));
    enter(&sandbox, &daemon, "mount -o remount,bind,rw deployed/p");
    daemon.wait_deployed("a", 2);
    assert_eq!(deployed(&sandbox, &daemon, "a").as_deref(), Some(b"two".as_slice()));
}

/// A daemon whose rights count: not root, whoever runs the tests.
pub fn unprivileged(sandbox: &Sandbox) -> Daemon {
    if !rustix::process::geteuid().is_root() {
        return sandbox.daemon();
    }
    sandbox.shell("chown -R 65534:65534 . && chmod 755 .");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program());
    sandbox.daemon_by(command)
}

#[test]
fn a_forbidden_target_keeps_the_old_version_and_heals() {
    let sandbox = retrying(Sandbox::new()).directory("deployed/p");
    let daemon = unprivileged(&sandbox);
    sandbox.write("in/a", "one");
    daemon.wait_deployed("a", 1);
    sandbox.chmod("deployed/p", 0o555);
    sandbox.write("in/a", "two");
    let failed = daemon.wait_for(|line| line.message == "failed; the old version stays");
    assert!(failed.field("cause").contains("Permission denied"), "{failed:?}");
    assert_eq!(sandbox.read("deployed/p/a").as_deref(), Some("one"));
    sandbox.chmod("deployed/p", 0o755);
    daemon.wait_deployed("a", 2);
    assert_eq!(sandbox.read("deployed/p/a").as_deref(), Some("two"));
}

#[test]
fn an_unreadable_file_stops_nobody_and_is_deployed_once_it_can_be_read() {
    let sandbox = Sandbox::new().file("in/secret", "one");
    sandbox.chmod("in/secret", 0o000);
    let daemon = unprivileged(&sandbox);
    sandbox.write("in/b", "b");
    daemon.wait_deployed("b", 1);
    assert_eq!(daemon.deployed("secret"), 0);
    let why = sandbox.ask(["why", "in/secret"]);
    assert!(String::from_utf8_lossy(&why.stdout).contains("Permission denied"), "{why:?}");
    sandbox.chmod("in/secret", 0o644);
    daemon.wait_deployed("secret", 1);
}

#[test]
fn too_few_descriptors_lose_nothing() {
    let sandbox = retrying(Sandbox::new());
    let daemon = sandbox.daemon();
    sandbox.write("in/a", "one");
    daemon.wait_deployed("a", 1);
    let pid = daemon.id().to_string();
    // Every number that is in use stays in use, and no other can be had.
    sandbox.run("prlimit", ["--pid", &pid, "--nofile=3:"]);
    sandbox.write("in/a", "two");
    daemon.wait_for(|line| line.text.contains("Too many open files"));
    assert_eq!(sandbox.read("deployed/p/a").as_deref(), Some("one"));
    sandbox.run("prlimit", ["--pid", &pid, "--nofile=1024:"]);
    daemon.wait_deployed("a", 2);
    assert_eq!(sandbox.read("deployed/p/a").as_deref(), Some("two"));
}

#[test]
fn directories_past_the_watch_limit_are_polled_and_the_limit_is_named() {
    let sandbox = Sandbox::new().keys("poll_interval = \"200ms\"").file("in/1/a", "a").file("in/2/3/b", "b");
    let daemon = inside(&sandbox, "echo 8 > /proc/sys/user/max_inotify_watches");
    for directory in 0..20 {
        sandbox.write(format!("in/new/{directory}/f"), "f");
    }
    daemon.wait_for(|line| line.field("reason").contains("fs.inotify.max_user_watches"));
    for directory in 0..20 {
        daemon.wait_deployed(&format!("new/{directory}/f"), 1);
    }
    sandbox.write("in/new/19/f", "changed");
    daemon.wait_deployed("new/19/f", 2);
}

#[test]
fn without_any_watcher_everything_is_polled() {
    let sandbox = Sandbox::new().keys("poll_interval = \"200ms\"");
    let daemon = inside(&sandbox, "echo 0 > /proc/sys/user/max_inotify_instances");
    daemon.wait_for(|line| line.field("reason").contains("max_user_instances"));
    sandbox.write("in/d/a", "one");
    daemon.wait_deployed("d/a", 1);
    sandbox.write("in/d/a", "two");
    daemon.wait_deployed("d/a", 2);
    sandbox.remove("in/d/a");
    daemon.wait_removed("d/a");
}

#[test]
fn an_emptied_directory_undeploys_nothing_until_confirmed() {
    let sandbox = Sandbox::new().file("in/a", "a").file("in/b", "b").file("in/c", "c");
    let daemon = sandbox.daemon();
    sandbox.shell("rm in/*");
    let paused = daemon.wait_for(|line| line.message.starts_with("removals are paused"));
    assert!(paused.field("confirm").contains("--confirm-removals"), "{paused:?}");
    daemon.sync();
    assert_eq!(sandbox.deployed().len(), 3);
    assert!(status(&sandbox).contains("emptied"), "{}", status(&sandbox));
    sandbox.ask(["sync", "--confirm-removals"]);
    assert_eq!(sandbox.deployed().len(), 0);
}

#[test]
fn a_mass_removal_waits_for_a_confirmation_and_its_return_needs_none() {
    let mut sandbox = Sandbox::new();
    for file in 0..40 {
        sandbox = sandbox.file(&format!("in/f{file}"), "x");
    }
    let daemon = sandbox.daemon();
    sandbox.shell("mkdir aside && mv in/f1* in/f2* in/f3* aside/");
    daemon.wait_for(|line| line.message.starts_with("removals are paused"));
    daemon.sync();
    assert_eq!(sandbox.deployed().len(), 40);
    sandbox.shell("mv aside/* in/");
    daemon.sync();
    assert!(!status(&sandbox).contains("\"doubt\":\""), "{}", status(&sandbox));
    assert!(daemon.all_removed().is_empty(), "{}", daemon.said());
}

#[test]
fn an_unmounted_directory_undeploys_nothing() {
    let sandbox = Sandbox::new();
    let daemon = inside(&sandbox, "mount -t tmpfs tmpfs in; echo a > in/a; echo b > in/b");
    daemon.wait_deployed("b", 1);
    enter(&sandbox, &daemon, "umount in");
    sandbox.ask(["sync"]);
    assert!(daemon.all_removed().is_empty(), "{}", daemon.said());
    assert_eq!(sandbox.deployed().len(), 2);
    enter(&sandbox, &daemon, "mount -t tmpfs tmpfs in; echo a > in/a; echo bb > in/b");
    sandbox.ask(["sync"]);
    assert_eq!(sandbox.deployed()["b"], "bb\n");
    assert!(daemon.all_removed().is_empty(), "{}", daemon.said());
}

#[test]
fn a_damaged_journal_is_set_aside_and_said_so() {
    let sandbox = Sandbox::new().file("in/a", "a");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    daemon.stop();
    fs::write(sandbox.path(".pickup/journal.db"), vec![b'?'; 8192]).expect("damage the journal");
    let daemon = sandbox.daemon();
    daemon.wait_for(|line| line.text.contains("is set aside as"));
    daemon.wait_deployed("a", 1);
    let aside = fs::read_dir(sandbox.path(".pickup")).expect("list").flatten();
    let names: Vec<String> = aside.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(names.iter().any(|name| name.starts_with("journal.db.damaged-")), "{names:?}");
}

#[test]
fn a_newer_journal_is_left_alone() {
    let sandbox = Sandbox::new().file("in/a", "a");
    sandbox.daemon().stop();
    let journal = rusqlite::Connection::open(sandbox.path(".pickup/journal.db")).expect("open");
    journal.pragma_update(None, "user_version", 999).expect("write a version");
    drop(journal);
    let output = sandbox.try_ask(["run"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("999"), "{output:?}");
}

#[test]
fn two_daemons_on_one_state_directory_are_refused() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let output = sandbox.try_ask(["run"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("another daemon runs"), "{output:?}");
    daemon.stop();
}
