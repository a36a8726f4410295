//! A program run to its end: bounded in time and output, and stopped together with all that it started.
#![expect(clippy::disallowed_methods, reason = "this is the door to programs")]

use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

use crate::deploy::Context;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// How long a program has between SIGTERM and SIGKILL at most.
const GRACE_MAX: Duration = Duration::from_secs(2);

/// How long output is waited for after the program's end: something it left running may hold the pipe open for ever.
const DRAIN: Duration = Duration::from_millis(100);

/// What concerns our own relation to a service manager, and would confuse a program that finds it.
pub(crate) const NOT_INHERITED: [&str; 6] =
    ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// What is to be run, and with what.
#[derive(Debug, Default)]
pub(crate) struct Program {
    /// The program and its arguments.
    pub(crate) argv: Vec<OsString>,
    /// Set, or unset where `None`, on top of our own environment.
    pub(crate) env: Vec<(OsString, Option<OsString>)>,
    pub(crate) cwd: Option<PathBuf>,
    /// What it reads on standard input; else that is empty.
    pub(crate) stdin: Option<Vec<u8>>,
    /// Where its standard output goes instead of to the context.
    pub(crate) stdout: Option<Kept>,
}

/// Output that is kept for the caller.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) bytes: Arc<Mutex<Vec<u8>>>,
    /// How many bytes of it are kept at most.
    pub(crate) most: usize,
}

impl Program {
    /// Runs the program; its output goes to `cx` as it comes.
    ///
    /// It is asked to stop shortly before `deadline`, or when `cx` is cancelled, and killed after a grace. A future
    /// that is dropped kills at once. What the program leaves running after it ended by itself is let be.
    ///
    /// # Errors
    /// If it cannot be started, or was stopped. How it ended by itself is for the caller to judge.
    pub(crate) async fn run(self, cx: &Context, deadline: Instant) -> Result<ExitStatus> {
        let name = self.name();
        let remaining = deadline.saturating_duration_since(Instant::now());
        // A quarter and a bit are kept back, so that the end comes before the deadline even of a short phase.
        let grace = (remaining / 4).min(GRACE_MAX);
        let soft = deadline - grace - (remaining / 16).min(GRACE_MAX / 4);
        let mut child = self.spawn()?;
        let mut group = Group::of(&child);
        let mut io = Io::new(exchange(&mut child, self.stdin, self.stdout, cx));

        let ended = io.beside(async {
            tokio::select! {
                status = child.wait() => Ended::ByItself(status),
                () = tokio::time::sleep_until(soft.into()) => Ended::OutOfTime,
                () = cx.cancelled() => Ended::Cancelled,
            }
        });
        let error = match ended.await {
            Ended::ByItself(status) => {
                group.release();
                let _leftover = tokio::time::timeout(DRAIN, io.finish()).await;
                return status.doing("wait for", name);
            }
            Ended::OutOfTime => Error::new(ErrorKind::Timeout, format!("finish {name} in {} s", seconds(remaining))),
            Ended::Cancelled => Error::new(ErrorKind::Cancelled, format!("finish {name}: the work was cancelled")),
        };
        io.beside(group.stop(&mut child, grace)).await;
        let _leftover = tokio::time::timeout(DRAIN, io.finish()).await;
        Err(error)
    }

    /// The program as it was configured.
    pub(crate) fn name(&self) -> String {
        self.argv.first().map(|program| Path::new(program).display().to_string()).unwrap_or_default()
    }

    fn spawn(&self) -> Result<Child> {
        let Some((program, arguments)) = self.argv.split_first() else {
            return Err(Error::new(ErrorKind::Config, "run a command without a program"));
        };
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        #[cfg(unix)]
        command.process_group(0);
        if let Some(cwd) = &self.cwd {
            if !cwd.is_dir() {
                let error = std::io::Error::from(std::io::ErrorKind::NotADirectory);
                return Err(Error::io(format!("run {} in the directory", self.name()), cwd, error));
            }
            command.current_dir(cwd);
        }
        command.spawn().doing("run", Path::new(program))
    }
}

enum Ended {
    ByItself(std::io::Result<ExitStatus>),
    OutOfTime,
    Cancelled,
}

fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

/// How a program failed, in words: `exit status 3`, `killed by signal 9`.
pub(crate) fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("killed by signal {signal}");
    }
    match status.code() {
        Some(code) => format!("exit status {code}"),
        None => status.to_string(),
    }
}

/// Feeds the program and takes its output, until all three pipes are closed.
fn exchange(
    child: &mut Child,
    stdin: Option<Vec<u8>>,
    stdout: Option<Kept>,
    cx: &Context,
) -> impl Future<Output = ()> + Send + use<> {
    let (to, out, err, cx) = (child.stdin.take(), child.stdout.take(), child.stderr.take(), cx.clone());
    async move {
        let out = async {
            match stdout {
                Some(kept) => keep(out, &kept).await,
                None => pump(out, &cx).await,
            }
        };
        tokio::join!(feed(to, stdin), out, pump(err, &cx));
    }
}

async fn keep(from: Option<impl AsyncRead + Unpin>, Kept { bytes, most }: &Kept) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 8 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let left = most.saturating_sub(bytes.len());
        bytes.extend_from_slice(&buffer[..count.min(left)]);
    }
}

async fn feed(to: Option<ChildStdin>, bytes: Option<Vec<u8>>) {
    if let (Some(mut to), Some(bytes)) = (to, bytes) {
        // A program need not read what it is told.
        let _closed = to.write_all(&bytes).await;
    }
}

async fn pump(from: Option<impl AsyncRead + Unpin>, cx: &Context) {
    let Some(mut from) = from else { return };
    let (mut buffer, mut kept) = ([0; 8 << 10], 0);
    loop {
        match from.read(&mut buffer[kept..]).await {
            Ok(0) | Err(_) => break,
            Ok(count) => {
                let filled = kept + count;
                let whole = whole_characters(&buffer[..filled]);
                cx.output(&String::from_utf8_lossy(&buffer[..whole]));
                buffer.copy_within(whole..filled, 0);
                kept = filled - whole;
            }
        }
    }
    cx.output(&String::from_utf8_lossy(&buffer[..kept]));
}

/// The length without a last character that is still incomplete.
fn whole_characters(bytes: &[u8]) -> usize {
    match bytes.utf8_chunks().last() {
        // An incomplete character is at most three bytes at the very end; anything else is no text anyway.
        Some(chunk) if matches!(std::str::from_utf8(chunk.invalid()), Err(error) if error.error_len().is_none()) => {
            bytes.len() - chunk.invalid().len()
        }
        Some(_) | None => bytes.len(),
    }
}

/// The traffic on the program's pipes, which goes on beside whatever else is waited for.
struct Io<'a> {
    traffic: Option<Pin<Box<dyn Future<Output = ()> + Send + 'a>>>,
}

impl<'a> Io<'a> {
    fn new(traffic: impl Future<Output = ()> + Send + 'a) -> Self {
        Self { traffic: Some(Box::pin(traffic)) }
    }

    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        std::future::poll_fn(|cx| {
            // The work first: traffic that never ends uses up what tokio lets one task do at a time.
            let work = work.as_mut().poll(cx);
            if work.is_pending()
                && let Some(traffic) = &mut self.traffic
                && traffic.as_mut().poll(cx).is_ready()
            {
                self.traffic = None;
            }
            work
        })
        .await
    }

    async fn finish(&mut self) {
        std::future::poll_fn(|cx| match &mut self.traffic {
            Some(traffic) => traffic.as_mut().poll(cx),
            None => Poll::Ready(()),
        })
        .await;
        self.traffic = None;
    }
}

/// The program and all that it started: a process group, killed when this is dropped.
struct Group {
    #[cfg(unix)]
    leader: Option<rustix::process::Pid>,
}

#[cfg(unix)]
impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self { leader: id.and_then(rustix::process::Pid::from_raw) }
    }

    /// Lets the group live on without us.
    fn release(&mut self) {
        self.leader = None;
    }

    fn signal(&self, signal: rustix::process::Signal) {
        if let Some(leader) = self.leader {
            // It may be gone already.
            let _gone = rustix::process::kill_process_group(leader, signal);
        }
    }

    fn is_gone(&self) -> bool {
        self.leader.is_none_or(|leader| rustix::process::test_kill_process_group(leader).is_err())
    }

    /// Asks the group to end, and kills what is left of it after `grace`.
    async fn stop(&mut self, child: &mut Child, grace: Duration) {
        self.signal(rustix::process::Signal::TERM);
        let _elapsed = tokio::time::timeout(grace, async {
            let _status = child.wait().await;
            let mut pause = Duration::from_millis(5);
            while !self.is_gone() {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        })
        .await;
        // The number stays taken while the group has members, so this hits nobody else.
        if !self.is_gone() {
            self.signal(rustix::process::Signal::KILL);
        }
        self.release();
        let _status = child.wait().await;
    }
}

#[cfg(unix)]
impl Drop for Group {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::KILL);
    }
}

#[cfg(not(unix))]
impl Group {
    fn of(_child: &Child) -> Self {
        Self {}
    }

    fn release(&mut self) {}

    async fn stop(&mut self, child: &mut Child, _grace: Duration) {
        let _gone = child.kill().await;
    }
}

/// One variable of the environment.
pub(crate) fn variable(name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> (OsString, Option<OsString>) {
    (name.as_ref().to_owned(), Some(value.as_ref().to_owned()))
}

#[cfg(test)]
mod tests;
