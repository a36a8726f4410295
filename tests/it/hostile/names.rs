//! Names of files that steer a terminal, forge a line of the log, or look like something else to a program.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde_json::Value;

use super::text;
use crate::sandbox::{COPY, Sandbox};

/// Escapes to a terminal, forged lines, text written backwards; all of them valid names.
const STEERING: [&str; 7] = [
    "red\u{1b}[31m",
    "title\u{1b}]0;owned\u{7}",
    "c1\u{9b}2J",
    "line\n2026-01-01T00:00:00Z  INFO ready",
    "return\rall is well",
    "\u{202e}gpj.exe",
    "null\u{8}\u{8}\u{8}\u{7f}",
];

fn steers(c: char) -> bool {
    (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c)
}

#[track_caller]
fn is_harmless(what: &str, shown: &str) {
    assert!(!shown.contains(steers), "{what}: {shown:?}");
    assert!(
        !shown.lines().any(|line| line.starts_with("2026-01-01T00") || line.starts_with("all is well")),
        "{what}: {shown}"
    );
}

#[test]
fn names_that_steer_a_terminal_reach_neither_it_nor_the_log() {
    let sandbox =
        Sandbox::new().config(&COPY.replace("\"json\"", "\"text\"").replace("[\"copy\"]", "[\"copy\", \"complain\"]"));
    let complain = "[deployer.complain]\nkind = \"exec\"\ncommand = [\"./complain\"]\nretry = 0\n";
    let config = sandbox.read("pickup.conf").expect("the configuration");
    let sandbox = sandbox
        .config(&format!("{config}{complain}"))
        .script("complain", "printf 'bad \\033[31m\\n\\302\\2332J' >&2; exit 1");
    for name in STEERING {
        sandbox.write(PathBuf::from("in").join(name), "x");
    }
    sandbox.symlink("/etc/\u{1b}[31mpasswd", "in/link\u{1b}[31m");
    let daemon = sandbox.start(std::process::Command::new(crate::program::program()));
    daemon.wait_until("the daemon to be ready", |log| log.lines.iter().any(|line| line.text.contains(" ready")));
    daemon.sync();
    for question in [&["status"][..], &["status", "p"], &["history"], &["why", "in/red\u{1b}[31m"], &["check"]] {
        let output = sandbox.run_pickupd(question);
        is_harmless(&question.join(" "), &(text(&output.stdout) + &text(&output.stderr)));
        let output = sandbox.run_pickupd(&[question, &["--json"]].concat());
        let json: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{question:?}: {error}"));
        assert!(!json.is_null());
        is_harmless(&format!("{question:?} as JSON"), &text(&output.stdout));
    }
    let status: Value = serde_json::from_slice(&sandbox.run_pickupd(&["status", "--json"]).stdout).expect("JSON");
    let failed: BTreeSet<&str> =
        status[0]["failed"].as_array().expect("failed units").iter().filter_map(|unit| unit["unit"].as_str()).collect();
    assert_eq!(failed, BTreeSet::from(STEERING), "whole and unchanged for programs");
    is_harmless("the log", &daemon.stop());
}

#[test]
fn names_that_steer_a_terminal_are_escaped_in_a_log_of_json() {
    let sandbox = Sandbox::new();
    for name in STEERING {
        sandbox.write(PathBuf::from("in").join(name), "x");
    }
    let daemon = sandbox.daemon();
    daemon.wait_until("every name", |log| log.deployed.len() == STEERING.len());
    assert_eq!(BTreeSet::from_iter(daemon.all_deployed().keys().map(String::as_str)), BTreeSet::from(STEERING));
    is_harmless("the log", &daemon.stop());
}

#[test]
fn a_name_is_one_argument_of_a_program_whatever_it_looks_like() {
    let names: [&[u8]; 11] = [
        b"-rf",
        b"--help",
        b"{path}",
        b"{digest}{unit}",
        b"$(touch owned)",
        b"`touch owned`",
        b"a; touch owned",
        b"a b  c",
        b"* ?",
        b"not utf-8 \xff",
        b"a..",
    ];
    let sandbox = Sandbox::new()
        .config(
            "[pickup]\nlog_format = \"json\"\n[hot-deploy.user.p]\npickup_from = \"in\"\ndeploy_to = [\"run\"]\n[deployer.run]\n\
             kind = \"exec\"\ncommand = [\"./run\", \"{unit}\", \"{path}\", \"end\"]\n",
        )
        .script("run", "[ $# = 3 ] && [ \"$3\" = end ] && [ \"$(cat \"$2\")\" = x ] && printf '%s\\0%s\\0' \"$1\" \"$2\" >> got");
    for name in names {
        sandbox.write(PathBuf::from("in").join(OsStr::from_bytes(name)), "x");
    }
    let daemon = sandbox.daemon();
    daemon.wait_until("every name", |log| log.deployed.len() == names.len());
    let got = std::fs::read(sandbox.path("got")).expect("what the program was given");
    let got: Vec<&[u8]> = got.strip_suffix(b"\0").unwrap_or(&got).split(|byte| *byte == 0).collect();
    let units: BTreeSet<&[u8]> = got.iter().copied().step_by(2).collect();
    assert_eq!(units, BTreeSet::from(names));
    for (unit, path) in got.iter().step_by(2).zip(got.iter().skip(1).step_by(2)) {
        // What a program is to open is never an option.
        assert!(path.starts_with(b"/") && path.ends_with(unit), "{}", path.escape_ascii());
    }
    assert!(!sandbox.path("owned").exists());
}

#[test]
fn a_tree_deeper_than_any_path_stops_nobody() {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, sandbox.path("in"), flags, Mode::empty()).expect("open the directory");
    for name in ["d".repeat(250)].iter().cycle().take(20) {
        mkdirat(&at, name, Mode::RWXU).expect("make a directory");
        at = openat(&at, name, flags, Mode::empty()).expect("open a directory");
    }
    drop(openat(&at, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).expect("make a file"));
    sandbox.write("in/f", "one");
    daemon.wait_deployed("f", 1);
    daemon.sync();
    assert_eq!(sandbox.deployed().keys().collect::<Vec<_>>(), ["f"]);
    daemon.stop();
    // The standard library's own removal of the sandbox goes by descriptors, and finds its way.
}
