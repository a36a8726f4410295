//! A directory with a configuration in it, the program run there, and the daemon.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// How long anything may take before a test fails.
pub const CAP: Duration = Duration::from_secs(30);

/// What differs from run to run, and what stands for it in a snapshot.
const FILTERS: [(&str, &str); 7] = [
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", "[time]"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "[time]"),
    (r"\d\d:\d\d:\d\d\.\d{3}", "[time]"),
    (r"\(\d+(ms|s|m) ago\)", "(a moment ago)"),
    (r"(digest[ =])[0-9a-f]{12}", "$1[digest]"),
    (r"after \d+(ms|s)", "after [span]"),
    (r"pickupd \d+\.\d+\.\d+", "pickupd [version]"),
];

/// Compares `$text` with an inline snapshot, without what differs from run to run.
macro_rules! assert_shown {
    ($sandbox:expr, $text:expr, @$snapshot:literal) => {
        let mut settings = insta::Settings::clone_current();
        $sandbox.filters(&mut settings);
        settings.bind(|| insta::assert_snapshot!($text, @$snapshot));
    };
}
pub(crate) use assert_shown;

pub struct Sandbox {
    directory: TempDir,
}

impl Sandbox {
    /// Nothing but an empty pickup directory `in`.
    pub fn empty() -> Self {
        let directory = tempfile::Builder::new().prefix("cli").tempdir().unwrap();
        std::fs::create_dir(directory.path().join("in")).unwrap();
        Self { directory }
    }

    /// With one entry `code` that copies `*.py` from `in` to `out`.
    pub fn new() -> Self {
        let sandbox = Self::empty();
        sandbox.file(
            "pickup.conf",
            "[hot-deploy.user.code]\npickup_from = \"in\"\npatterns = [\"*.py\"]\n\n[deployer.default]\nkind = \"copy\"\n\
             into = \"out\"\ndurable = false\n",
        );
        sandbox
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    pub fn file(&self, below: &str, text: &str) -> &Self {
        std::fs::write(self.path(below), text).unwrap();
        self
    }

    pub fn filters(&self, settings: &mut insta::Settings) {
        settings.add_filter(&format!("{}/?", self.directory.path().display()), "[dir]/");
        FILTERS.iter().for_each(|(pattern, replacement)| settings.add_filter(pattern, *replacement));
    }

    /// The program with nothing of our own environment but what it needs to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("pickupd"));
        command.args(arguments).current_dir(self.directory.path()).env_clear();
        command.env("HOME", self.directory.path()).env("TZ", "UTC").env("PATH", std::env::var_os("PATH").unwrap());
        command
    }

    /// Runs the program; gives what it printed and its exit code.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        let code = output.status.code().map_or("none".to_owned(), |code| code.to_string());
        let err = if err.is_empty() { err } else { format!("[stderr]\n{err}") };
        format!("{out}{err}[exit code {code}]")
    }

    /// Runs the program with each line of arguments; gives what somebody at a terminal would see.
    pub fn transcript(&self, lines: &[&str]) -> String {
        let mut text = String::new();
        for line in lines {
            let arguments: Vec<&str> = line.split_whitespace().collect();
            text.push_str(&format!("$ pickupd {line}\n{}\n", self.run(&arguments)));
        }
        text
    }

    /// What the program prints, read as JSON.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The daemon, watching.
    pub fn daemon(&self) -> Daemon {
        let mut daemon = Daemon::spawn(self.command(&["run"]));
        daemon.wait_for(" watching ");
        daemon
    }
}

/// A running daemon. Killed when dropped.
pub struct Daemon {
    child: Child,
    lines: Receiver<String>,
    pub seen: Vec<String>,
}

impl Daemon {
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (tell, lines) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line that contains `text`; gives it.
    pub fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + CAP;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(error) => panic!("no line with `{text}` ({error}); seen:\n{}", self.seen.join("\n")),
            }
        }
    }

    /// Takes in what it has said by now.
    pub fn try_hear(&mut self) {
        self.seen.extend(self.lines.try_iter());
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended; what it said meanwhile is in `seen`.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + CAP;
        // The pipe closes when the process ends.
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.seen.push(line);
        }
        assert!(Instant::now() < deadline, "it does not end; seen:\n{}", self.seen.join("\n"));
        self.child.wait().unwrap()
    }

    /// Ends it as a service manager does.
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.wait().code(), Some(0), "{}", self.seen.join("\n"));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that has ended already is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `path` holds `text`.
pub fn holds(path: &Path, text: &str) -> bool {
    std::fs::read_to_string(path).is_ok_and(|found| found == text)
}
