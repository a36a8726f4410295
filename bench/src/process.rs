//! A process that is measured: what it prints, and when; what it used, from `/proc`; the signals it gets.

use std::io::{BufRead, BufReader, Read};
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
    lines: Receiver<Line>,
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
        Ok(Self { child, lines })
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
        match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("process {} has ended", self.id()),
        }
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

/// Reads lines from `pipe` until it ends, or nobody wants them.
pub fn hear(pipe: impl Read + Send + 'static, said: Sender<Line>) {
    std::thread::spawn(move || {
        let mut pipe = BufReader::with_capacity(1 << 16, pipe);
        let mut bytes = Vec::new();
        while matches!(pipe.read_until(b'\n', &mut bytes), Ok(1..)) {
            let at = Instant::now();
            let text = String::from_utf8_lossy(&bytes).trim_end_matches(['\n', '\r']).to_owned();
            if said.send(Line { at, text }).is_err() {
                return;
            }
            bytes.clear();
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
