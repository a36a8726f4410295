//! What work costs: time, processor time and bytes, of a program run to its end or of a daemon meanwhile.

use std::collections::BTreeMap;
use std::ops::{AddAssign, Sub};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::daemon::Daemon;
use crate::figure::{Table, Unit};

/// What a process used so far, with all its children.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Processor seconds, user and system. The kernel tells them in hundredths.
    pub cpu: f64,
    /// Bytes that were asked for by reading, wherever they came from.
    pub read: f64,
    /// Bytes that were written, wherever they went.
    pub written: f64,
    /// Bytes that went to the file system's pages: what will reach the disk.
    pub stored: f64,
}

impl Cost {
    /// Of one process, and of those of its children that ended and were waited for.
    pub fn of(id: u32) -> Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).context("read the processor time")?;
        // After the name, which may hold anything.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        let ticks: f64 = fields.iter().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
        let io = std::fs::read_to_string(format!("/proc/{id}/io")).context("read the bytes")?;
        let lines: BTreeMap<&str, f64> = io
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter_map(|(key, value)| Some((key, value.parse().ok()?)))
            .collect();
        let bytes = |key: &str| lines.get(key).copied().unwrap_or_default();
        let cpu = ticks / clock_ticks_per_second() as f64;
        Ok(Self { cpu, read: bytes("rchar"), written: bytes("wchar"), stored: bytes("write_bytes") })
    }

    /// Of one process and everything it started that runs or was waited for.
    pub fn of_tree(id: u32) -> Result<Self> {
        let mut sum = Self::of(id)?;
        let mut left = children(id);
        while let Some(child) = left.pop() {
            left.extend(children(child));
            // It may end while we look; then its parent has it.
            sum += Self::of(child).unwrap_or_default();
        }
        Ok(sum)
    }

    /// Puts it into `table`: the bytes, and the processor time.
    pub fn enter(&self, table: &mut Table, subject: &str) {
        table.add(subject, "processor time", Unit::CpuSeconds, [self.cpu]);
        table.add(subject, "bytes read", Unit::Bytes, [self.read]);
        table.add(subject, "bytes written", Unit::Bytes, [self.written]);
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.read += other.read;
        self.written += other.written;
        self.stored += other.stored;
    }
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            cpu: self.cpu - other.cpu,
            read: self.read - other.read,
            written: self.written - other.written,
            stored: self.stored - other.stored,
        }
    }
}

fn children(id: u32) -> Vec<u32> {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{id}/task")) else { return Vec::new() };
    let lists = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}

/// What a program came to.
#[derive(Clone, Copy, Debug)]
pub struct Ran {
    /// From its start to its end.
    pub took: Duration,
    /// With all its children.
    pub cost: Cost,
}

/// Runs a program to its end.
///
/// # Errors
/// It does not exit with 0.
pub fn run(command: &mut Command) -> Result<Ran> {
    let start = Instant::now();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().with_context(|| format!("run {command:?}"))?;
    // Left unburied for a moment, it still says what it used.
    waitid(WaitId::Pid(Pid::from_child(&child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
        .context("wait for a program")?;
    let took = start.elapsed();
    let cost = Cost::of(child.id())?;
    let status = child.wait().context("wait for a program")?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(Ran { took, cost })
}

/// Runs lines of shell, with `arguments` as `$1`, `$2` …
///
/// # Errors
/// One of them fails.
pub fn shell<'a>(script: &str, arguments: impl IntoIterator<Item = &'a std::ffi::OsStr>) -> Result<Ran> {
    run(Command::new("sh").args(["-euc", script, "sh"]).args(arguments))
}

/// Calls `is_so` each millisecond until it is, and gives the moment.
///
/// # Errors
/// It is not within `cap`.
pub fn wait_until(cap: Duration, what: &str, mut is_so: impl FnMut() -> bool) -> Result<Instant> {
    let start = Instant::now();
    while !is_so() {
        ensure!(start.elapsed() < cap, "waited {cap:?} for {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(Instant::now())
}

/// Waits until a daemon that was just started answers, and all that was there is worked off.
///
/// # Errors
/// It does not within a minute.
pub fn wait_for_answer(daemon: &Daemon) -> Result<()> {
    let mut last = Ok(());
    let answers = || {
        last = daemon.ask(&["sync"]).map(drop);
        last.is_ok()
    };
    wait_until(Duration::from_secs(60), "the daemon to answer", answers)?;
    last
}
