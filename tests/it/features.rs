//! What the configuration promises, key by key, driven through the daemon.

use serde_json::Value;

use crate::daemon::{Daemon, Line, Log};
use crate::sandbox::Sandbox;

mod archive;
mod choice;
mod exec;
#[cfg(target_os = "linux")]
mod module;
mod quarantine;
mod release;
mod reload;
mod together;
mod undo;
mod unit;
mod while_down;

/// What is said of a deployment that failed.
const FAILED: &str = "failed; the old version stays";

/// A copier into `deployed/{pickup}` under the name `copy`; keys may follow.
const COPY: &str = "[deployer.copy]\nkind = \"copy\"\ninto = \"deployed/{pickup}\"\ndurable = false\n";

/// A configuration: the entry `p`, which watches `in`, with these keys, and these deployers.
fn config(keys: &str, deployers: &str) -> String {
    format!("[pickup]\nlog_format = \"json\"\n\n[hot-deploy.user.p]\npickup_from = \"in\"\n{keys}\n\n{deployers}\n")
}

/// How often the daemon said `message`.
fn said(log: &Log, message: &str) -> usize {
    log.lines.iter().filter(|line| line.message == message).count()
}

/// Waits until the daemon said `message` this often, and gives the last of those lines.
#[track_caller]
fn nth(daemon: &Daemon, message: &str, times: usize) -> Line {
    daemon.wait_until(&format!("`{message}` {times} times"), |log| said(log, message) >= times);
    daemon.log(|log| log.lines.iter().filter(|line| line.message == message).nth(times - 1).cloned()).expect("a line")
}

/// What a command answers with `--json`.
#[track_caller]
fn json<const N: usize>(sandbox: &Sandbox, arguments: [&str; N]) -> Value {
    serde_json::from_slice(&sandbox.ask(arguments).stdout).expect("JSON")
}

/// What `why` says of a path, in full.
#[track_caller]
fn why(sandbox: &Sandbox, path: &str) -> String {
    String::from_utf8(sandbox.ask(["why", path]).stdout).expect("text")
}
