//! What else can lie in a directory: none of it stops the watcher, and each ordinary file beside it is deployed.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, RenameFlags, renameat_with};

use crate::daemon::Daemon;
use crate::program::program;
use crate::sandbox::Sandbox;

/// Makes one of everything that is no file in `directory`, which is there.
fn oddities(sandbox: &Sandbox, directory: &str) -> Option<UnixListener> {
    sandbox.run("mkfifo", [format!("{directory}/fifo")]);
    let socket = UnixListener::bind(sandbox.path(directory).join("socket")).expect("bind a socket");
    // Only root can make one: the rest of the test holds without it.
    if rustix::process::geteuid().is_root() {
        let device = rustix::fs::makedev(1, 3);
        let path = sandbox.path(directory).join("device");
        rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o644), device).expect("mknod");
    }
    sandbox.symlink("nowhere", &format!("{directory}/dangling"));
    sandbox.symlink("loop", &format!("{directory}/loop"));
    sandbox.symlink("..", &format!("{directory}/circle"));
    sandbox.symlink("/etc/passwd", &format!("{directory}/out"));
    sandbox.symlink("/etc", &format!("{directory}/out-directory"));
    Some(socket)
}

/// The daemon still takes an ordinary file in `directory`, and took nothing else there.
#[track_caller]
fn works_on(sandbox: &Sandbox, daemon: &Daemon, unit: &str) {
    sandbox.write(format!("in/{unit}"), "one");
    daemon.wait_deployed(unit, 1);
    sandbox.write(format!("in/{unit}"), "two");
    daemon.wait_deployed(unit, 2);
    daemon.sync();
    assert_eq!(daemon.deployed(unit), 2);
    assert_eq!(sandbox.read(format!("deployed/p/{unit}")).as_deref(), Some("two"));
}

#[test]
fn fifos_sockets_devices_and_symlinks_that_lead_nowhere_are_left_alone_with_a_reason() {
    let sandbox = Sandbox::new().directory("in/before");
    let _before = oddities(&sandbox, "in/before");
    let daemon = sandbox.daemon();
    works_on(&sandbox, &daemon, "before/f");
    sandbox.make("in/after");
    let _after = oddities(&sandbox, "in/after");
    works_on(&sandbox, &daemon, "after/f");
    let units: Vec<String> = daemon.all_deployed().into_keys().collect();
    assert_eq!(units, ["after/f", "before/f"]);
    for directory in ["before", "after"] {
        for name in ["fifo", "socket", "dangling", "loop", "out", "out-directory"] {
            let path = format!("{directory}/{name}");
            daemon.wait_for(|line| line.field("path") == path && !line.field("reason").is_empty());
        }
    }
}

#[test]
fn an_oddity_that_takes_the_place_of_a_file_and_goes_again_stops_nothing() {
    let sandbox = Sandbox::new().file("in/f", "one").file("in/g", "other");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("f", 1);
    daemon.wait_deployed("g", 1);
    sandbox.remove("in/f");
    sandbox.run("mkfifo", ["in/f"]);
    daemon.wait_removed("f");
    sandbox.remove("in/f");
    sandbox.make("in/f");
    sandbox.write("in/f/inner", "below");
    daemon.wait_deployed("f/inner", 1);
    sandbox.remove_all("in/f");
    sandbox.write("in/f", "two");
    daemon.wait_deployed("f", 2);
    daemon.sync();
    assert_eq!(sandbox.read("deployed/p/f").as_deref(), Some("two"));
}

/// What was a file is a directory, and the other way about: by three renames, and by one that exchanges them.
fn take_each_others_place(keys: &str) {
    let sandbox = Sandbox::new().keys(keys).file("in/f", "one").file("in/d/e/x", "two").file("in/d/y", "three");
    let daemon = sandbox.daemon();
    let is_live = |what: &str| {
        let answer = daemon.sync();
        assert!(answer.status.success(), "{keys} {what}: {answer:?}\n{}", daemon.said());
        assert_eq!(sandbox.deployed(), sandbox.tree("in"), "{keys} {what}\n{}", daemon.said());
    };
    is_live("at first");
    let exchange = || {
        renameat_with(CWD, sandbox.path("in/f"), CWD, sandbox.path("in/d"), RenameFlags::EXCHANGE).expect("exchange");
    };
    let by_turns = || {
        sandbox.rename("in/f", "aside");
        sandbox.rename("in/d", "in/f");
        sandbox.rename("aside", "in/d");
    };
    for is_frozen in [false, true] {
        let swaps: [(&str, &dyn Fn()); 2] = [("exchanged", &exchange), ("renamed by turns", &by_turns)];
        for (what, swap) in swaps {
            // Frozen, the daemon hears of all of it at once.
            if is_frozen {
                daemon.freeze();
            }
            swap();
            if is_frozen {
                daemon.thaw();
            }
            is_live(&format!("{what}, frozen: {is_frozen}"));
        }
    }
    assert_eq!(sandbox.read("in/f").as_deref(), Some("one"));
    daemon.freeze();
    sandbox.remove("in/f");
    sandbox.write("in/f/a/z", "four");
    sandbox.remove_all("in/d");
    sandbox.write("in/d", "five");
    daemon.thaw();
    is_live("made anew");
    let said = daemon.stop();
    assert!(!said.contains("\"ERROR\"") && !said.contains("lost"), "{said}");
}

#[test]
fn a_file_and_a_directory_take_each_others_place() {
    take_each_others_place("");
    take_each_others_place("unit = \"directory\"\nsettle = \"200ms\"");
}

#[test]
fn names_of_any_bytes_and_any_length_are_deployed() {
    let long = "l".repeat(255);
    let names: [&[u8]; 13] = [
        b"with space",
        b" leading and trailing ",
        b"line\nbreak",
        b"tab\tand\x1bescape",
        b"single'quote",
        b"double\"quote",
        b"back\\slash",
        b"$HOME",
        b"-rf",
        b"{unit}",
        b"star*",
        b"not utf-8 \xff\xfe",
        long.as_bytes(),
    ];
    let sandbox = Sandbox::new();
    let path = |top: &str, name: &[u8]| sandbox.path(top).join(OsStr::from_bytes(name));
    for name in &names[..6] {
        sandbox.write(path("in", name), name);
    }
    let daemon = sandbox.daemon();
    for name in &names[6..] {
        sandbox.write(path("in", name), name);
    }
    sandbox.make("in/below");
    for name in names {
        sandbox.write(path("in/below", name), name);
    }
    daemon.wait_until("26 files", |log| log.deployed.len() >= 2 * names.len());
    daemon.sync();
    for name in names {
        for top in ["deployed/p", "deployed/p/below"] {
            let found = fs::read(path(top, name));
            assert_eq!(
                found.ok().as_deref(),
                Some(name),
                "{}; the daemon said:\n{}",
                name.escape_ascii(),
                daemon.said()
            );
        }
    }
    assert!(daemon.all_deployed().values().all(|times| *times == 1), "{:?}", daemon.all_deployed());
    fs::remove_file(path("in", names[11])).expect("remove");
    fs::write(path("in", names[2]), "rewritten").expect("write");
    daemon.wait_removed("not utf-8 \u{fffd}\u{fffd}");
    daemon.wait_until("a second version", |log| log.deployed.values().any(|times| *times == 2));
    assert!(!path("deployed/p", names[11]).exists());
    assert_eq!(fs::read(path("deployed/p", names[2])).ok().as_deref(), Some(b"rewritten".as_slice()));
}

#[test]
fn an_unreadable_file_is_left_alone_until_it_can_be_read() {
    if !rustix::process::geteuid().is_root() {
        // Whoever runs the tests owns the files, and the daemon too: chmod is enough.
        return unreadable(&Sandbox::new(), Command::new(program()));
    }
    // Root reads everything: the daemon runs as nobody.
    let sandbox = Sandbox::new();
    sandbox.shell("chmod 755 . && chown -R 65534:65534 .");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program());
    unreadable(&sandbox, command);
}

fn unreadable(sandbox: &Sandbox, command: Command) {
    sandbox.write("in/secret", "secret");
    sandbox.chmod("in/secret", 0o000);
    sandbox.write("in/closed/f", "closed");
    sandbox.chmod("in/closed", 0o000);
    let daemon = sandbox.daemon_by(command);
    works_on(sandbox, &daemon, "f");
    daemon.wait_for(|line| line.field("path") == "secret" && line.field("reason").contains("cannot be read"));
    assert_eq!(daemon.deployed("secret"), 0);
    sandbox.chmod("in/secret", 0o644);
    sandbox.chmod("in/closed", 0o755);
    daemon.wait_deployed("secret", 1);
    daemon.wait_deployed("closed/f", 1);
    // A live file that becomes unreadable is not gone.
    sandbox.chmod("in/secret", 0o000);
    daemon.sync();
    assert_eq!(daemon.all_removed().len(), 0);
    sandbox.chmod("in/secret", 0o644);
}
