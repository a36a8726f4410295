//! Every scenario in which the watchers of others lose changes or hand over half a file (research/watch.md §1e): at rest,
//! and with every processor busy.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::daemon::Daemon;
use crate::sandbox::Sandbox;
use crate::writer::{Busy, Pace};

mod exchange;
mod open;

/// Runs `scenario` at rest, and with every processor busy.
fn at_rest_and_busy(scenario: impl Fn(&Sandbox, &Daemon)) {
    at_rest_and_busy_in(Sandbox::new, scenario);
}

/// The same, in a sandbox that is made otherwise.
fn at_rest_and_busy_in(sandbox: impl Fn() -> Sandbox, scenario: impl Fn(&Sandbox, &Daemon)) {
    for is_busy in [false, true] {
        let sandbox = sandbox();
        let daemon = sandbox.daemon();
        let busy = is_busy.then(Busy::new);
        scenario(&sandbox, &daemon);
        drop(busy);
        drop(daemon);
    }
}

/// Waits until each of `wanted` is live, and makes sure that each went live once and nothing else did.
#[track_caller]
fn all_live_once(sandbox: &Sandbox, daemon: &Daemon, wanted: &BTreeMap<String, String>) {
    all_live(sandbox, daemon, wanted);
    daemon.assert_deployed_once(wanted.keys());
}

#[track_caller]
fn all_live(sandbox: &Sandbox, daemon: &Daemon, wanted: &BTreeMap<String, String>) {
    let what = format!("{} files", wanted.len());
    daemon.wait_until(&what, |log| wanted.keys().all(|unit| log.deployed.contains_key(unit)));
    daemon.sync();
    assert_eq!(sandbox.deployed(), *wanted, "{}", daemon.said());
}

/// Names made of a number, and each with its own name as its content.
fn named(count: usize, name: impl Fn(usize) -> String) -> BTreeMap<String, String> {
    (0..count).map(|number| (name(number), name(number))).collect()
}

#[test]
fn a_file_written_at_once_into_a_new_chain_of_directories_is_found() {
    at_rest_and_busy(|sandbox, daemon| {
        let wanted = named(100, |number| format!("a{number}/b/c/f"));
        for unit in wanted.keys() {
            sandbox.write(format!("in/{unit}"), unit);
        }
        all_live_once(sandbox, daemon, &wanted);
    });
}

#[test]
fn twenty_files_written_at_once_into_each_new_directory_are_found() {
    at_rest_and_busy(|sandbox, daemon| {
        let wanted = named(1000, |number| format!("a{}/b/f{}", number / 20, number % 20));
        for unit in wanted.keys() {
            sandbox.write(format!("in/{unit}"), unit);
        }
        all_live_once(sandbox, daemon, &wanted);
    });
}

#[test]
fn a_directory_removed_and_made_again_with_a_file_is_found() {
    at_rest_and_busy(|sandbox, daemon| {
        for round in 0..50 {
            let content = format!("round {round}");
            if round > 0 {
                sandbox.remove_all("in/d");
            }
            sandbox.write("in/d/f", &content);
            daemon.wait_deployed("d/f", round + 1);
            assert_eq!(sandbox.read("deployed/p/d/f"), Some(content));
        }
        daemon.sync();
        assert_eq!(daemon.deployed("d/f"), 50);
        assert_eq!(daemon.all_removed(), BTreeMap::new());
    });
}

#[test]
fn all_in_a_filled_directory_renamed_in_is_found() {
    at_rest_and_busy(|sandbox, daemon| {
        let wanted = named(100, |number| format!("d{number}/deep/f"));
        for unit in wanted.keys() {
            sandbox.write(format!("aside/{unit}"), unit);
        }
        for number in 0..100 {
            sandbox.rename(&format!("aside/d{number}"), &format!("in/d{number}"));
        }
        all_live_once(sandbox, daemon, &wanted);
    });
}

#[test]
fn a_symlink_turned_to_another_file_at_once_is_deployed_each_time() {
    at_rest_and_busy(|sandbox, daemon| {
        sandbox.write("in/v0", "v0");
        sandbox.write("in/v1", "v1");
        sandbox.symlink("v0", "in/current");
        daemon.wait_deployed("current", 1);
        for round in 1..=50 {
            let version = format!("v{}", round % 2);
            sandbox.symlink(&version, "in/.next.tmp");
            sandbox.rename("in/.next.tmp", "in/current");
            daemon.wait_deployed("current", round + 1);
            assert_eq!(sandbox.read("deployed/p/current"), Some(version));
        }
        daemon.sync();
        assert_eq!(daemon.deployed("current"), 51);
        assert_eq!(daemon.deployed("v0") + daemon.deployed("v1"), 2);
    });
}

#[test]
fn what_gets_its_name_by_a_link_is_found_without_any_close() {
    at_rest_and_busy(|sandbox, daemon| {
        let wanted: BTreeMap<String, String> = named(50, |number| format!("hard{number}"))
            .into_iter()
            .chain(named(50, |number| format!("sftp{number}")))
            .chain(named(50, |number| format!("nameless{number}")))
            .collect();
        for unit in wanted.keys() {
            let to = sandbox.path(format!("in/{unit}"));
            if unit.starts_with("hard") {
                sandbox.write(format!("aside/{unit}"), unit);
                fs::hard_link(sandbox.path(format!("aside/{unit}")), to).expect("link");
            } else if unit.starts_with("sftp") {
                // What OpenSSH does for SSH_FXP_RENAME: link, then unlink.
                let part = sandbox.path(format!("in/{unit}.filepart"));
                fs::write(&part, unit).expect("write");
                fs::hard_link(&part, to).expect("link");
                fs::remove_file(&part).expect("unlink");
            } else {
                let flags = OFlags::TMPFILE | OFlags::WRONLY;
                let file = rustix::fs::open(sandbox.path("in"), flags, Mode::from_raw_mode(0o644)).expect("O_TMPFILE");
                let mut file = File::from(file);
                file.write_all(unit.as_bytes()).expect("write");
                let descriptor = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
                rustix::fs::linkat(CWD, descriptor, CWD, to, AtFlags::SYMLINK_FOLLOW).expect("linkat");
            }
        }
        all_live_once(sandbox, daemon, &wanted);
    });
}

#[test]
fn a_replacement_with_an_older_time_is_deployed() {
    at_rest_and_busy(|sandbox, daemon| {
        let wanted = named(50, |number| format!("f{number}"));
        for unit in wanted.keys() {
            sandbox.write(format!("in/{unit}"), "new in time");
        }
        daemon.wait_until("50 files", |log| wanted.keys().all(|unit| log.deployed.contains_key(unit)));
        daemon.sync();
        for unit in wanted.keys() {
            sandbox.write(format!("aside/{unit}"), unit);
        }
        sandbox.shell("touch -d 2001-01-01 aside/*; mv aside/* in/");
        daemon.wait_until("50 replacements", |log| wanted.keys().all(|unit| log.deployed[unit] >= 2));
        daemon.sync();
        assert_eq!(sandbox.deployed(), wanted);
        assert!(daemon.all_deployed().values().all(|times| *times == 2), "{:?}", daemon.all_deployed());
    });
}

#[test]
fn a_file_cut_off_without_being_opened_is_deployed() {
    at_rest_and_busy(|sandbox, daemon| {
        let wanted: BTreeMap<String, String> = named(50, |number| format!("f{number}"));
        for unit in wanted.keys() {
            sandbox.write(format!("in/{unit}"), format!("{unit} and more"));
        }
        daemon.wait_until("50 files", |log| wanted.keys().all(|unit| log.deployed.contains_key(unit)));
        daemon.sync();
        for unit in wanted.keys() {
            let path = std::ffi::CString::new(sandbox.path(format!("in/{unit}")).into_os_string().into_encoded_bytes());
            let length = unit.len().try_into().expect("a short name");
            // SAFETY: the path is a string that ends in a null byte and lives through the call.
            let result = unsafe { libc::truncate(path.expect("a path").as_ptr(), length) };
            assert_eq!(result, 0);
        }
        daemon.wait_until("50 shorter files", |log| wanted.keys().all(|unit| log.deployed[unit] >= 2));
        daemon.sync();
        assert_eq!(sandbox.deployed(), wanted);
        assert!(daemon.all_deployed().values().all(|times| *times == 2), "{:?}", daemon.all_deployed());
    });
}

#[test]
fn one_new_file_every_ten_milliseconds_starves_nobody() {
    at_rest_and_busy(|sandbox, daemon| {
        let wanted = named(300, |number| format!("f{number:03}"));
        let pace = Pace::new();
        let mut live_meanwhile = 0;
        for unit in wanted.keys() {
            sandbox.write(format!("in/{unit}"), unit);
            pace.idle(Duration::from_millis(10));
            live_meanwhile = daemon.all_deployed().len();
        }
        assert!(live_meanwhile > 100, "only {live_meanwhile} were live when the last was written");
        all_live_once(sandbox, daemon, &wanted);
    });
}
