//! The worker's side: one request is read, done and answered.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the door that a worker process comes in by; it reads the clock"
)]

use std::io::{self, BufRead, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Failure, FailureKind, Progress, Reply, Request, Shape, advance, ask, checkout, export, mirror, repack};
use crate::source::git::transport::Report;

/// How much memory a worker process may have for its data. An object is held once, and while it is unpacked twice; a
/// repository with larger files than half of this is what `git_transport = "cli"` is for.
pub(super) const WORKER_MEMORY_MAX: u64 = 1 << 30;

/// No request is longer: an export of a hundred thousand files has some twenty megabytes.
const REQUEST_MAX: u64 = 64 << 20;

/// How often progress is told at most.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// How long libgit2 waits for a connection, and for a peer that says nothing; in milliseconds.
const CONNECT_TIMEOUT_MS: libc::c_int = 15_000;
const IO_TIMEOUT_MS: libc::c_int = 30_000;

/// One line of what a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    Progress(Progress),
    Reply(Reply),
}

/// Serves as a git worker: reads a request from `input`, does it, and writes progress and a reply to `output`. After a
/// mere look at a remote it waits for the next.
///
/// It is the whole of what a process does that [`GitWorker::Program`](super::GitWorker::Program) starts: call it with the
/// standard input and output, first thing in `main`, and end after it. It limits the memory of the process, changes its
/// umask and settings of libgit2, and kills the process, with its whole process group if it leads one, once `input` ends:
/// then whoever asked is gone.
///
/// # Errors
/// A request cannot be read or understood, the process cannot be confined, or a reply cannot be written. A request that
/// fails is a reply like others.
pub fn serve_git_worker(mut input: impl BufRead + Send + 'static, mut output: impl Write) -> io::Result<()> {
    let mut request = understand(&read_request(&mut input)?)?;
    confine(&request)?;
    let (send, requests) = mpsc::channel();
    std::thread::Builder::new().name("watchdog".into()).spawn(move || watch(input, &send))?;
    while serve(&request, &mut output)? {
        let Ok(next) = requests.recv() else { break };
        request = understand(&next)?;
        if !request.is_look() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a worker that looks does nothing else"));
        }
    }
    Ok(())
}

fn read_request(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.take(REQUEST_MAX).read_until(b'\n', &mut line)?;
    Ok(line)
}

fn understand(line: &[u8]) -> io::Result<Request> {
    serde_json::from_slice(line).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Does one request and says what came of it; whether another may follow.
fn serve(request: &Request, output: &mut impl Write) -> io::Result<bool> {
    let mut unsaid = None;
    let reply = answer(
        request,
        &mut throttled(|progress| {
            if let Err(error) = say(output, &Message::Progress(progress)) {
                unsaid = Some(error);
            }
        }),
    );
    match unsaid {
        Some(error) => Err(error),
        None => say(output, &Message::Reply(reply)).map(|()| request.is_look()),
    }
}

fn say(output: &mut impl Write, message: &Message) -> io::Result<()> {
    // At once: whoever waits for it wakes up once.
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    output.write_all(&line)?;
    output.flush()
}

/// Lets progress through now and then.
pub(super) fn throttled(mut tell: impl FnMut(Progress)) -> impl FnMut(Progress) {
    let mut told: Option<Instant> = None;
    move |progress| {
        let now = Instant::now();
        if told.is_none_or(|told| now.duration_since(told) >= PROGRESS_INTERVAL) {
            told = Some(now);
            tell(progress);
        }
    }
}

/// Does what is asked. A panic is a failure of this request alone.
pub(super) fn answer(request: &Request, report: Report<'_>) -> Reply {
    let done = catch_unwind(AssertUnwindSafe(|| carry_out(request, report)));
    match done {
        Ok(Ok(reply)) => reply,
        Ok(Err(failure)) => Reply::Failed(failure),
        Err(_) => Reply::Failed(Failure::new(
            FailureKind::Other,
            "finish the work: the git worker panicked, perhaps over a reference whose name is not UTF-8",
        )),
    }
}

fn carry_out(request: &Request, report: Report<'_>) -> Result<Reply, Failure> {
    match request {
        Request::Check(check) => match check.shape {
            Shape::Mirror => mirror::check(check, report),
            Shape::Clone => checkout::check(check, report),
        },
        Request::Look { access, wanted } => ask::look(access, wanted),
        #[cfg(target_os = "linux")]
        Request::Survey { calls } => Ok(Reply::Surveyed { found: super::survey::survey(calls) }),
        #[cfg(not(target_os = "linux"))]
        Request::Survey { calls } => Ok(Reply::Surveyed { found: vec![None; calls.len()] }),
        Request::Ask { check, aside } => ask::ask(check, aside),
        Request::Advance { repository, to } => advance::advance(repository, to).map(|()| Reply::Advanced),
        Request::Export { repository, blobs } => export::export(repository, blobs).map(|()| Reply::Exported),
        Request::Repack { repository } => repack::repack(repository).map(|()| Reply::Repacked),
    }
}

/// Passes requests on, until nobody is there who could want a reply.
fn watch(mut input: impl BufRead, requests: &mpsc::Sender<Vec<u8>>) {
    while let Some(line) = read_request(&mut input).ok().filter(|line| !line.is_empty()) {
        // Nobody takes it where no further request is served.
        let _unwanted = requests.send(line);
    }
    #[cfg(unix)]
    {
        use rustix::process::{Signal, getpgrp, getpid, kill_current_process_group, kill_process};
        // ssh and git, which may wait for a peer that never answers, are in the group.
        let _killed = match getpgrp() == getpid() {
            true => kill_current_process_group(Signal::KILL),
            false => kill_process(getpid(), Signal::KILL),
        };
    }
}

/// Makes the process one that cannot hurt: little memory, and nobody's git configuration.
fn confine(request: &Request) -> io::Result<()> {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

        // Only ever lower: an outer limit is not ours to lift.
        let maximum = getrlimit(Resource::Data).maximum;
        let limit = Some(maximum.unwrap_or(u64::MAX).min(WORKER_MEMORY_MAX));
        setrlimit(Resource::Data, Rlimit { current: limit, maximum })?;
        // A clone is its user's, and the files in it are as other programs of theirs would make them.
        let is_ours = match request {
            Request::Check(check) => check.shape == Shape::Mirror,
            Request::Look { .. }
            | Request::Survey { .. }
            | Request::Ask { .. }
            | Request::Export { .. }
            | Request::Repack { .. } => true,
            Request::Advance { .. } => false,
        };
        if is_ours {
            umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
        }
    }
    // SAFETY: these change settings of libgit2 that are read without a lock. No other thread of this process uses libgit2:
    // the work has not begun, and a worker does nothing else.
    let done = unsafe {
        git2::opts::set_server_connect_timeout_in_milliseconds(CONNECT_TIMEOUT_MS)
            .and_then(|()| git2::opts::set_server_timeout_in_milliseconds(IO_TIMEOUT_MS))
            .and_then(|()| {
                use git2::ConfigLevel::{Global, ProgramData, System, XDG};
                [System, Global, XDG, ProgramData]
                    .into_iter()
                    .try_for_each(|level| git2::opts::set_search_path(level, ""))
            })
    };
    done.map_err(io::Error::other)
}
