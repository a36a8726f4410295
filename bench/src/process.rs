//! A process that is measured: what it prints, and when; what it used, from `/proc`; the signals it gets.

use std::cell::RefCell;
use std::io::{ErrorKind, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// A line that a process printed.
#[derive(Clone, Debug)]
pub struct Line {
    /// When it was read.
    pub at: Instant,
    /// Without the line break.
    pub text: String,
}

/// Lines that were read at once.
#[derive(Debug)]
pub struct Said {
    /// When that was.
    pub at: Instant,
    /// With the breaks between them.
    pub text: String,
}

/// What is read somewhere else, line by line. It is taken apart here: the reader works beside what is measured.
pub struct Printed {
    said: Receiver<Said>,
    /// What was read and not given yet, the last line first.
    rest: RefCell<Vec<Line>>,
}

impl Printed {
    pub fn new(said: Receiver<Said>) -> Self {
        Self { said, rest: RefCell::default() }
    }

    /// The next line; `None` if there is none until `deadline`.
    ///
    /// # Errors
    /// There will be none any more.
    pub fn next(&self, deadline: Instant) -> Result<Option<Line>, Disconnected> {
        loop {
            if let Some(line) = self.rest.borrow_mut().pop() {
                return Ok(Some(line));
            }
            match self.said.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Said { at, text }) => {
                    let lines = text.lines().map(|text| Line { at, text: text.to_owned() });
                    self.rest.borrow_mut().extend(lines.rev());
                }
                Err(RecvTimeoutError::Timeout) => return Ok(None),
                Err(RecvTimeoutError::Disconnected) => return Err(Disconnected),
            }
        }
    }
}

/// Whoever said something is gone.
#[derive(Debug)]
pub struct Disconnected;

/// What a process used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Processor time, user and system, without children.
    pub cpu: Duration,
    /// Bytes resident now.
    pub resident: u64,
    /// Bytes resident at most.
    pub peak: u64,
}

/// A running process. It is killed when the value is dropped.
pub struct Process {
    child: Child,
    lines: Printed,
}

impl Process {
    /// Starts `command` and reads its output, and its errors if `with_errors`.
    pub fn spawn(command: Command, with_errors: bool) -> Result<Self> {
        Self::spawn_fed(command, Stdio::null(), with_errors)
    }

    /// The same, with something to read.
    pub fn spawn_fed(mut command: Command, input: Stdio, with_errors: bool) -> Result<Self> {
        command.stdin(input).stdout(Stdio::piped());
        command.stderr(if with_errors { Stdio::piped() } else { Stdio::null() });
        let name = command.get_program().to_owned();
        let mut child = command.spawn().with_context(|| format!("start {}", name.display()))?;
        let (said, lines) = channel();
        if let Some(output) = child.stdout.take() {
            hear(output, said.clone());
        }
        if let Some(errors) = child.stderr.take() {
            hear(errors, said);
        }
        Ok(Self { child, lines: Printed::new(lines) })
    }

    /// The process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line; `None` if there is none until `deadline`.
    ///
    /// # Errors
    /// The process ended.
    pub fn line(&self, deadline: Instant) -> Result<Option<Line>> {
        let next = self.lines.next(deadline);
        next.or_else(|Disconnected| bail!("process {} has ended", self.id()))
    }

    /// Reads lines until one `is_it`.
    ///
    /// # Errors
    /// The process ended, or there is none within `cap`.
    pub fn wait_for(&self, cap: Duration, what: &str, is_it: impl Fn(&str) -> bool) -> Result<Line> {
        let deadline = Instant::now() + cap;
        let mut last = String::new();
        loop {
            match self.line(deadline).with_context(|| format!("wait for {what}; its last line: {last}"))? {
                Some(line) if is_it(&line.text) => return Ok(line),
                Some(line) => last = line.text,
                None => bail!("waited {cap:?} for {what}; the last line: {last}"),
            }
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).with_context(|| format!("signal process {}", self.id()))
    }

    /// SIGTERM, and the end.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.child.wait().context("wait for a process")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What a loop in a shell runs does not end with the loop.
        let children = children(self.id());
        // All of them may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for child in children {
            let _ = kill_process(child, Signal::KILL);
        }
    }
}

/// The processes that process `id` has started on its first thread, and that run.
pub fn children(id: u32) -> Vec<Pid> {
    let ids = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    ids.split_whitespace().filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
}

/// Reads from `pipe` until it ends, or nobody wants it.
pub fn hear(mut pipe: impl Read + Send + 'static, said: Sender<Said>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        // A line that is not whole yet.
        let mut begun = Vec::new();
        loop {
            let read = match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(read) => &buffer[..read],
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let at = Instant::now();
            let Some(end) = read.iter().rposition(|byte| *byte == b'\n') else {
                begun.extend_from_slice(read);
                continue;
            };
            begun.extend_from_slice(&read[..=end]);
            let text = String::from_utf8_lossy(&begun).into_owned();
            if said.send(Said { at, text }).is_err() {
                return;
            }
            begun.clear();
            begun.extend_from_slice(&read[end + 1..]);
        }
        if !begun.is_empty() {
            // Whoever listened may be gone.
            let _ = said.send(Said { at: Instant::now(), text: String::from_utf8_lossy(&begun).into_owned() });
        }
    });
}

/// What process `id` used so far.
pub fn usage_of(id: u32) -> Result<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let kilobytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    // What has ended and was not waited for has no memory any more.
    ensure!(status.contains("VmHWM:"), "process {id} has ended");
    // Of every thread, in nanoseconds: `stat` counts in ticks of 10 ms only.
    let mut cpu = Duration::ZERO;
    for thread in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        let ran = text.split_whitespace().next().and_then(|word| word.parse().ok());
        cpu += Duration::from_nanos(ran.unwrap_or(0));
    }
    Ok(Usage { cpu, resident: kilobytes("VmRSS:") * 1024, peak: kilobytes("VmHWM:") * 1024 })
}
