//! The running daemon: what it says, and the signals it gets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::ioctl_fionread;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value};

use crate::program::program;

/// How long a test waits for something to be said before it fails.
const CAP: Duration = Duration::from_secs(30);

/// One line of the log.
#[derive(Clone, Debug)]
pub struct Line {
    /// As it was printed.
    pub text: String,
    /// The message.
    pub message: String,
    /// The fields beside the message.
    pub fields: Map<String, Value>,
}

impl Line {
    fn parse(text: String) -> Self {
        let parsed = serde_json::from_str::<Map<String, Value>>(&text).ok();
        let fields = parsed.and_then(|mut line| match line.remove("fields") {
            Some(Value::Object(fields)) => Some(fields),
            _ => None,
        });
        let mut fields = fields.unwrap_or_default();
        let message = match fields.remove("message") {
            Some(Value::String(message)) => message,
            _ => String::new(),
        };
        Self { text, message, fields }
    }

    /// A field as text; empty if it is not there.
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether this says `message` of the unit `unit`.
    pub fn says(&self, message: &str, unit: &str) -> bool {
        self.message == message && self.field("unit") == unit
    }
}

/// Everything the daemon said so far.
#[derive(Default)]
pub struct Log {
    pub lines: Vec<Line>,
    /// How often each unit went live.
    pub deployed: BTreeMap<String, usize>,
    /// How often each unit was removed.
    pub removed: BTreeMap<String, usize>,
    has_ended: bool,
}

impl Log {
    fn hear(&mut self, line: Line) {
        let counts = match line.message.as_str() {
            "deployed" => Some(&mut self.deployed),
            "removed" => Some(&mut self.removed),
            _ => None,
        };
        if let Some(counts) = counts {
            *counts.entry(line.field("unit").to_owned()).or_default() += 1;
        }
        self.lines.push(line);
    }

    fn show(&self) -> String {
        let skipped = self.lines.len().saturating_sub(400);
        let mut text = String::new();
        if skipped > 0 {
            writeln!(text, "… {skipped} lines before …").expect("write to a string");
        }
        for line in &self.lines[skipped..] {
            writeln!(text, "{}", line.text).expect("write to a string");
        }
        text
    }
}

#[derive(Default)]
struct Heard {
    log: Mutex<Log>,
    more: Condvar,
}

impl Heard {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running daemon. It is killed when the test drops it.
pub struct Daemon {
    child: Child,
    directory: PathBuf,
    heard: Arc<Heard>,
    pipes: [Arc<OwnedFd>; 2],
    readers: Vec<JoinHandle<()>>,
}

impl Daemon {
    /// Runs `command` on the `pickup.conf` in `directory`.
    pub(crate) fn spawn(mut command: Command, directory: &Path) -> Self {
        command.args(["run", "--config", "pickup.conf"]);
        command.env("NO_COLOR", "1").env_remove("RUST_LOG").env_remove("STATE_DIRECTORY").env_remove("NOTIFY_SOCKET");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start the daemon");
        let heard = Arc::new(Heard::default());
        let pipes: [Arc<OwnedFd>; 2] = [
            Arc::new(child.stdout.take().expect("the daemon's output").into()),
            Arc::new(child.stderr.take().expect("the daemon's errors").into()),
        ];
        let readers = pipes.clone().map(|pipe| {
            let heard = heard.clone();
            std::thread::spawn(move || read(&pipe, &heard))
        });
        Self { child, directory: directory.to_path_buf(), heard, pipes, readers: readers.into() }
    }

    /// The process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("signal the daemon");
    }

    /// Waits until what was said so far satisfies `is_enough`; `what` is what the test waits for, in words.
    #[track_caller]
    pub fn wait_until(&self, what: &str, is_enough: impl FnMut(&Log) -> bool) {
        self.wait_within(CAP, what, is_enough);
    }

    /// As [`wait_until`](Self::wait_until), with another cap.
    #[track_caller]
    pub fn wait_within(&self, cap: Duration, what: &str, mut is_enough: impl FnMut(&Log) -> bool) {
        let deadline = Instant::now() + cap;
        let mut log = self.heard.log();
        while !is_enough(&log) {
            let left = deadline.saturating_duration_since(Instant::now());
            let reason = match () {
                () if log.has_ended => "the daemon ended",
                () if left.is_zero() => "the cap is over",
                () => {
                    let waited = self.heard.more.wait_timeout(log, left);
                    log = waited.unwrap_or_else(PoisonError::into_inner).0;
                    continue;
                }
            };
            let said = log.show();
            drop(log);
            panic!("waited for: {what}; {reason}. The daemon said:\n{said}");
        }
    }

    /// Waits for a line, from the first one on.
    #[track_caller]
    pub fn wait_for(&self, is_it: impl Fn(&Line) -> bool) -> Line {
        let mut found = None;
        let mut next = 0;
        self.wait_until("a line", |log| {
            found = log.lines[next..].iter().find(|line| is_it(line)).cloned();
            next = log.lines.len();
            found.is_some()
        });
        found.expect("it was found")
    }

    /// Waits until `unit` went live `times` times since the daemon's start.
    #[track_caller]
    pub fn wait_deployed(&self, unit: &str, times: usize) {
        self.wait_until(&format!("{unit} to be deployed {times} times"), |log| {
            log.deployed.get(unit).copied().unwrap_or_default() >= times
        });
    }

    #[track_caller]
    pub fn wait_removed(&self, unit: &str) {
        self.wait_until(&format!("{unit} to be removed"), |log| log.removed.contains_key(unit));
    }

    /// How often `unit` went live.
    pub fn deployed(&self, unit: &str) -> usize {
        self.heard.log().deployed.get(unit).copied().unwrap_or_default()
    }

    /// How often each unit went live.
    pub fn all_deployed(&self) -> BTreeMap<String, usize> {
        let log = self.heard.log();
        log.deployed.clone()
    }

    /// How often each unit was removed.
    pub fn all_removed(&self) -> BTreeMap<String, usize> {
        let log = self.heard.log();
        log.removed.clone()
    }

    /// Fails unless exactly these units went live since the daemon's start, once each.
    #[track_caller]
    pub fn assert_deployed_once<S: AsRef<str>>(&self, units: impl IntoIterator<Item = S>) {
        let wanted: BTreeMap<String, usize> = units.into_iter().map(|unit| (unit.as_ref().to_owned(), 1)).collect();
        let deployed = self.all_deployed();
        assert!(deployed == wanted, "{deployed:?} is not {wanted:?}; the daemon said:\n{}", self.said());
    }

    /// Everything that was said, for messages.
    pub fn said(&self) -> String {
        self.heard.log().show()
    }

    /// Calls `look` with everything that was said so far.
    pub fn log<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.heard.log())
    }

    /// A barrier: everything that was done to the disk before is worked off when this returns, or has failed.
    #[track_caller]
    pub fn sync(&self) -> Output {
        let mut command = Command::new(program());
        command.args(["sync", "--config", "pickup.conf"]).current_dir(&self.directory).env_remove("STATE_DIRECTORY");
        let output = command.output().expect("run pickupd");
        let is_answered = matches!(output.status.code(), Some(0 | 1));
        assert!(is_answered, "pickupd sync: {output:?}; the daemon said:\n{}", self.said());
        self.catch_up();
        output
    }

    /// Waits until everything that the daemon has said was heard.
    fn catch_up(&self) {
        let is_empty = |pipe: &Arc<OwnedFd>| ioctl_fionread(pipe).unwrap_or_default() == 0;
        let mut log = self.heard.log();
        while !log.has_ended && !self.pipes.iter().all(is_empty) {
            log = self.heard.more.wait(log).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Stops the process where it stands, so that events pile up.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGHUP.
    pub fn hang_up(&self) {
        self.signal(Signal::HUP);
    }

    /// SIGKILL, as a crash.
    pub fn kill(mut self) {
        self.child.kill().expect("kill the daemon");
        self.end();
    }

    /// SIGTERM. Expects exit code 0, and gives everything that was said.
    #[track_caller]
    pub fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.end();
        let said = self.said();
        assert!(status.success(), "the daemon ended with {status}; it said:\n{said}");
        said
    }

    fn end(&mut self) -> ExitStatus {
        let status = self.child.wait().expect("wait for the daemon");
        for reader in self.readers.drain(..) {
            reader.join().expect("the reader");
        }
        status
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended; and a frozen process dies of SIGKILL as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Hears what comes from the pipe. What is taken from it is heard before the log is let go of: an empty pipe and a lock on the
/// log prove that all was heard.
fn read(pipe: &OwnedFd, heard: &Heard) {
    let (mut chunk, mut pending) = (vec![0; 64 << 10], Vec::new());
    loop {
        // Outside the lock, and without taking anything.
        let mut readable = [PollFd::new(pipe, PollFlags::IN)];
        if poll(&mut readable, None).is_err() {
            continue;
        }
        let mut log = heard.log();
        let Ok(length @ 1..) = rustix::io::read(pipe, &mut chunk) else { break };
        pending.extend_from_slice(&chunk[..length]);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            log.hear(Line::parse(String::from_utf8_lossy(&line[..end]).into_owned()));
        }
        drop(log);
        heard.more.notify_all();
    }
    heard.log().has_ended = true;
    heard.more.notify_all();
}
