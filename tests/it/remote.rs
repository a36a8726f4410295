//! Real git servers, each on a port of its own on loopback, and the repositories they serve.
//!
//! All of a server lives in a directory that the test gives it, and ends when the test drops it: any number of them run
//! side by side, and none reads the configuration or the keys of whoever runs the tests.

use std::path::Path;
use std::process::Command;

mod cgi;
mod daemon;
mod edit;
mod hole;
mod http;
mod listener;
mod sshd;
pub mod tls;
mod upstream;

pub use self::cgi::Request;
pub use self::daemon::GitDaemon;
pub use self::edit::Edit;
pub use self::hole::{BlackHole, Drip};
pub use self::http::{Fault, HttpServer};
pub use self::listener::Listener;
pub use self::sshd::{KnownHosts, Sshd};
pub use self::upstream::Upstream;

/// Nobody's configuration, nobody's home.
const PRIVATE: [(&str, &str); 7] = [
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_CONFIG_SYSTEM", "/dev/null"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_AUTHOR_NAME", "An Author"),
    ("GIT_AUTHOR_EMAIL", "author@example.org"),
    ("GIT_COMMITTER_NAME", "A Committer"),
    ("GIT_COMMITTER_EMAIL", "committer@example.org"),
];

/// The git program in a directory, without anybody's own configuration.
pub fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).env_clear().envs(PRIVATE);
    command.env("HOME", directory).env("LC_ALL", "C").env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Runs git with the words of `line`, and gives what it printed.
#[track_caller]
pub fn run(directory: &Path, line: &str) -> String {
    let output = git(directory).args(line.split_whitespace()).output().expect("run git");
    assert!(output.status.success(), "git {line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}
