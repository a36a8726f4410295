//! The daemon's side: a worker is started, told what to do, listened to, and killed when it takes too long.

use std::ffi::OsString;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::serve::{Message, WORKER_MEMORY_MAX, answer, throttled};
use super::{Failure, FailureKind, Progress, Reply, Request};

/// A line that is longer says nothing we asked for.
const LINE_MAX: u64 = 64 << 20;

/// How much of a worker's last words is read.
const WORDS_MAX: u64 = 8 << 10;

/// How long a worker that has answered may take to end.
const FAREWELL: Duration = Duration::from_secs(1);

/// What concerns our own relation to a service manager, and would confuse a program that finds it.
const NOT_INHERITED: [&str; 6] =
    ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// Where git workers run: what speaks to remotes, and writes to repositories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GitWorker {
    /// A process each: this program, which must call [`serve_git_worker`](super::serve_git_worker), with these arguments.
    /// It is killed, with all that it started, when it takes too long.
    Program {
        /// The program; a path, or a name that is looked up in `PATH`.
        program: PathBuf,
        /// Its arguments, all of them.
        arguments: Vec<OsString>,
    },
    /// A thread of this process. What takes too long is given up but goes on in its thread, until the peer hangs up; and
    /// nothing bounds its memory. libgit2 reads the git configuration of this process's user.
    InProcess,
}

impl GitWorker {
    /// Has `request` done, and gives the reply, which is never [`Reply::Failed`].
    ///
    /// A future that is dropped kills the worker.
    pub(crate) async fn run(
        &self,
        request: &Request,
        deadline: Duration,
        cancel: &CancellationToken,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Reply, Failure> {
        let work = async {
            match self {
                Self::Program { program, arguments } => {
                    let (worker, pipes) = Worker::start(program, arguments)?;
                    worker.ask(pipes, request, &mut progress).await
                }
                Self::InProcess => in_thread(request, &mut progress).await,
            }
        };
        bounded(request, deadline, cancel, work).await
    }
}

/// The reply that `work` gives before the deadline, which is never [`Reply::Failed`].
pub(super) async fn bounded(
    request: &Request,
    deadline: Duration,
    cancel: &CancellationToken,
    work: impl Future<Output = Result<Reply, Failure>>,
) -> Result<Reply, Failure> {
    let done = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(Failure::new(FailureKind::Timeout, "finish the git check: it was cancelled")),
        done = tokio::time::timeout(deadline, work) => done.unwrap_or_else(|_| {
            Err(Failure::new(FailureKind::Timeout, format_args!("{} within {} s", purpose(request), deadline.as_secs())))
        }),
    };
    match done {
        Ok(Reply::Failed(failure)) | Err(failure) => Err(failure),
        Ok(reply) => Ok(reply),
    }
}

/// What a request is for, in words that read after "cannot".
fn purpose(request: &Request) -> String {
    match request {
        Request::Check(check) if check.access.url.expose().is_empty() => {
            format!("check the remote of {}", check.repository.display())
        }
        Request::Check(check) => format!("fetch from {}", check.access.url),
        Request::Look { access, .. } => format!("ask {}", access.url),
        Request::Survey { calls } => format!("ask {} remotes", calls.len()),
        Request::Ask { check, .. } => format!("ask the remote of {}", check.repository.display()),
        Request::Advance { repository, .. } => format!("move {} forward", repository.display()),
        Request::Export { repository, .. } => format!("export from {}", repository.display()),
        Request::Repack { repository } => format!("repack {}", repository.display()),
    }
}

/// A worker process; dropped, it is killed with its whole group.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    group: Group,
}

/// The process group of a worker, which is killed at the end in any case: what the worker started may outlive it.
#[derive(Debug)]
struct Group {
    #[cfg(unix)]
    id: Option<rustix::process::Pid>,
}

impl Group {
    fn of(child: &Child) -> Self {
        #[cfg(not(unix))]
        let _ = child;
        Self {
            #[cfg(unix)]
            id: child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw),
        }
    }

    fn kill(&mut self) {
        // Once: later the number may be somebody else's.
        #[cfg(unix)]
        if let Some(id) = self.id.take() {
            let _gone = rustix::process::kill_process_group(id, rustix::process::Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Worker {
    pub(super) fn start(program: &Path, arguments: &[OsString]) -> Result<(Self, Pipes), Failure> {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(|e| Failure::io("run the git worker", program, &e))?;
        let (to, from, words) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let worker = Self { group: Group::of(&child), child };
        let (Some(to), Some(from), Some(words)) = (to, from, words) else { return Err(broken("it has no pipes")) };
        Ok((worker, Pipes { to, from: BufReader::new(from), words }))
    }

    /// Asks for the one thing that it is there for.
    async fn ask(
        self,
        pipes: Pipes,
        request: &Request,
        progress: &mut (impl FnMut(Progress) + Send),
    ) -> Result<Reply, Failure> {
        let line = written(request)?;
        let Pipes { mut to, mut from, words } = pipes;
        let talk = async move {
            tell(&mut to, &line).await;
            let reply = listen(&mut from, progress).await;
            // Only now: a worker whose input ends takes it that nobody is waiting.
            drop(to);
            reply
        };
        let (mut talk, mut words) = (pin!(talk), pin!(overhear(words)));
        let (reply, early) = tokio::select! {
            reply = &mut talk => (reply, None),
            words = &mut words => (talk.await, Some(words)),
        };
        let words = async {
            match early {
                Some(words) => words,
                None => words.await,
            }
        };
        match (reply, self.end(words).await) {
            (Some(reply), _) => Ok(reply),
            (None, failure) => Err(failure),
        }
    }

    /// Waits for its end, not for long; why there was no reply, if there was none.
    pub(super) async fn end(mut self, words: impl Future<Output = String>) -> Failure {
        let end = tokio::time::timeout(FAREWELL, async { (self.child.wait().await, words.await) }).await;
        self.group.kill();
        match end {
            Ok((Ok(status), words)) => died(status, &words),
            Ok((Err(_), _)) | Err(_) => broken("it does not answer"),
        }
    }
}

/// How a worker is spoken to, and what it says.
pub(super) struct Pipes {
    pub to: ChildStdin,
    pub from: BufReader<ChildStdout>,
    pub words: ChildStderr,
}

fn broken(what: &str) -> Failure {
    Failure::new(FailureKind::Other, format_args!("run the git worker: {what}"))
}

/// A request as a worker reads it.
pub(super) fn written(request: &Request) -> Result<Vec<u8>, Failure> {
    let mut line = serde_json::to_vec(request).map_err(|e| broken(&e.to_string()))?;
    line.push(b'\n');
    Ok(line)
}

/// A worker that ended early reads nothing, which its missing reply tells.
pub(super) async fn tell(to: &mut ChildStdin, line: &[u8]) {
    let _closed = to.write_all(line).await;
}

/// Passes progress on until the reply comes; `None` if none does.
pub(super) async fn listen(
    from: &mut BufReader<ChildStdout>,
    progress: &mut (impl FnMut(Progress) + Send),
) -> Option<Reply> {
    loop {
        let mut line = Vec::new();
        (&mut *from).take(LINE_MAX).read_until(b'\n', &mut line).await.ok()?;
        match serde_json::from_slice(&line).ok()? {
            Message::Progress(seen) => progress(seen),
            Message::Reply(reply) => return Some(reply),
        }
    }
}

pub(super) async fn overhear(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    let _unreadable = (&mut from).take(WORDS_MAX).read_to_end(&mut kept).await;
    let _unreadable = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).into_owned()
}

/// Why a worker ended without a reply.
fn died(status: ExitStatus, words: &str) -> Failure {
    if words.contains("memory allocation of") {
        let message = format!(
            "finish the git work: it needs more than the {} MiB of memory that a worker may have; set git_transport = \
             \"cli\", or take large files out of the repository",
            WORKER_MEMORY_MAX >> 20
        );
        return Failure::new(FailureKind::TooLarge, message);
    }
    let words: Vec<&str> = words.split_whitespace().collect();
    let words = if words.is_empty() { String::new() } else { format!(": {}", words.join(" ")) };
    let how = describe(status);
    Failure::new(
        FailureKind::Other,
        format_args!("finish the git work: the worker ended without a reply ({how}){words}"),
    )
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("killed by signal {signal}");
    }
    status.to_string()
}

async fn in_thread(request: &Request, progress: &mut (impl FnMut(Progress) + Send)) -> Result<Reply, Failure> {
    let request = request.clone();
    let (send, mut messages) = mpsc::unbounded_channel();
    let work = move || {
        // Whoever waited may have given up.
        let tell = |message| drop(send.send(message));
        let reply = answer(&request, &mut throttled(|progress| tell(Message::Progress(progress))));
        tell(Message::Reply(reply));
    };
    let thread = std::thread::Builder::new().name("git-worker".into()).spawn(work);
    thread.map_err(|e| Failure::new(FailureKind::Other, format_args!("start a thread for git: {e}")))?;
    while let Some(message) = messages.recv().await {
        match message {
            Message::Progress(seen) => progress(seen),
            Message::Reply(reply) => return Ok(reply),
        }
    }
    Err(Failure::new(FailureKind::Other, "finish the git work: its thread ended without a reply"))
}
