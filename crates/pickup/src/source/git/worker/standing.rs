//! Workers that stay for a while: what a remote has is asked again and again, and starting a process costs more than asking.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::io::BufReader;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::process::{Pipes, Worker, bounded, listen, overhear, tell, written};
use super::{Access, Call, Failure, FailureKind, Found, GitWorker, Reply, Request, Wanted};

/// How long a worker is kept that nobody asks anything.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// How often one worker is asked: whatever it may lose in memory, it does not lose it for ever.
const LOOKS_MAX: usize = 10_000;

/// Those who ask so close together ask together.
const GATHERING: Duration = Duration::from_millis(2);

/// How many remotes of one host are asked for with one request: a slow one keeps no more than these waiting.
const CALLS_MAX: usize = 32;

/// How long a survey may take, with names that are slow to be found.
const SURVEY_MAX: Duration = Duration::from_secs(10);

/// Workers that wait for the next look at a remote.
#[derive(Debug)]
pub(crate) struct Standing {
    kind: GitWorker,
    idle: Mutex<Idle>,
    /// Who waits for the next survey of a host; there is a task for each host that is in here.
    gathered: Mutex<BTreeMap<String, Vec<Caller>>>,
}

/// Somebody who waits for the answer to a call.
#[derive(Debug)]
struct Caller {
    call: Call,
    answer: oneshot::Sender<Option<Vec<Found>>>,
}

#[derive(Debug, Default)]
struct Idle {
    /// The one that was busy last is last.
    looking: Vec<Looking>,
    /// Whether there is a task that ends those nobody needs any more.
    is_swept: bool,
}

/// A worker that looks.
#[derive(Debug)]
struct Looking {
    worker: Worker,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    /// What it says beside its replies.
    words: JoinHandle<String>,
    looks: usize,
    /// When it was asked last.
    since: Instant,
}

impl Standing {
    pub(crate) fn new(kind: GitWorker) -> Arc<Self> {
        Arc::new(Self { kind, idle: Mutex::default(), gathered: Mutex::default() })
    }

    /// Where each of `wanted` is at the remote.
    ///
    /// # Errors
    /// The remote cannot be asked, within the deadline. A future that is dropped kills the worker.
    pub(crate) async fn look(
        self: &Arc<Self>,
        access: Access,
        wanted: Vec<Wanted>,
        deadline: Duration,
        cancel: &CancellationToken,
    ) -> Result<Vec<Found>, Failure> {
        let request = Request::Look { access, wanted };
        let reply = match &self.kind {
            GitWorker::InProcess => self.kind.run(&request, deadline, cancel, |_| {}).await?,
            GitWorker::Program { program, arguments } => {
                bounded(&request, deadline, cancel, self.ask(program, arguments, &request)).await?
            }
        };
        match reply {
            Reply::Checked { found, .. } => Ok(found),
            _ => Err(Failure::new(FailureKind::Other, "understand what the git worker answered")),
        }
    }

    /// Where each of the wanted references of `call` is at a remote that [a connection to `host`](Access::is_plain) is
    /// enough for; `None` if that is to be asked in another way. Who asks at about the same time is asked for together.
    pub(crate) async fn survey(
        self: &Arc<Self>,
        host: String,
        call: Call,
        cancel: &CancellationToken,
    ) -> Option<Vec<Found>> {
        let (answer, answered) = oneshot::channel();
        self.gather(host, Caller { call, answer });
        tokio::select! {
            () = cancel.cancelled() => None,
            found = answered => found.ok().flatten(),
        }
    }

    fn gather(self: &Arc<Self>, host: String, caller: Caller) {
        match self.gathered().entry(host) {
            Entry::Occupied(mut callers) => callers.get_mut().push(caller),
            Entry::Vacant(place) => {
                tokio::spawn(self.clone().call_all(place.key().clone()));
                place.insert(vec![caller]);
            }
        }
    }

    fn gathered(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Caller>>> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for those who are gathered, until there are none.
    async fn call_all(self: Arc<Self>, host: String) {
        tokio::time::sleep(GATHERING).await;
        while let Some(callers) = self.next_callers(&host) {
            let (calls, answers): (Vec<Call>, Vec<_>) =
                callers.into_iter().map(|Caller { call, answer }| (call, answer)).unzip();
            let request = Request::Survey { calls };
            let never = CancellationToken::new();
            let reply = match &self.kind {
                GitWorker::InProcess => self.kind.run(&request, SURVEY_MAX, &never, |_| {}).await,
                GitWorker::Program { program, arguments } => {
                    bounded(&request, SURVEY_MAX, &never, self.ask(program, arguments, &request)).await
                }
            };
            // Who is not answered asks in another way, which tells why.
            let Ok(Reply::Surveyed { found }) = reply else { continue };
            for (answer, found) in answers.into_iter().zip(found) {
                let _unwanted = answer.send(found);
            }
        }
    }

    fn next_callers(&self, host: &str) -> Option<Vec<Caller>> {
        let mut gathered = self.gathered();
        let callers = gathered.get_mut(host)?;
        // Who was cancelled wants no answer.
        callers.retain(|caller| !caller.answer.is_closed());
        if callers.is_empty() {
            gathered.remove(host);
            return None;
        }
        let count = callers.len().min(CALLS_MAX);
        Some(callers.drain(..count).collect())
    }

    async fn ask(
        self: &Arc<Self>,
        program: &Path,
        arguments: &[OsString],
        request: &Request,
    ) -> Result<Reply, Failure> {
        let line = written(request)?;
        while let Some(mut looking) = self.take() {
            // One that died while it waited says nothing about the remote.
            if let Some(reply) = looking.ask(&line).await {
                self.keep(looking);
                return Ok(reply);
            }
        }
        let mut looking = Looking::start(program, arguments)?;
        match looking.ask(&line).await {
            Some(reply) => {
                self.keep(looking);
                Ok(reply)
            }
            None => Err(looking.end().await),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that was busy last, so that those who are too many get old.
    fn take(&self) -> Option<Looking> {
        self.idle().looking.pop()
    }

    fn keep(self: &Arc<Self>, looking: Looking) {
        if looking.looks >= LOOKS_MAX {
            return;
        }
        let mut idle = self.idle();
        idle.looking.push(looking);
        if !std::mem::replace(&mut idle.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(self)));
        }
    }
}

/// Ends workers that nobody needs any more, until there are none.
async fn sweep(standing: Weak<Standing>) {
    loop {
        tokio::time::sleep(IDLE_MAX).await;
        let Some(standing) = standing.upgrade() else { return };
        let mut idle = standing.idle();
        idle.looking.retain(|looking| looking.since.elapsed() < IDLE_MAX);
        if idle.looking.is_empty() {
            idle.is_swept = false;
            return;
        }
    }
}

impl Looking {
    fn start(program: &Path, arguments: &[OsString]) -> Result<Self, Failure> {
        let (worker, Pipes { to, from, words }) = Worker::start(program, arguments)?;
        let words = tokio::spawn(overhear(words));
        Ok(Self { worker, to, from, words, looks: 0, since: Instant::now() })
    }

    /// `None` if it died.
    async fn ask(&mut self, line: &[u8]) -> Option<Reply> {
        tell(&mut self.to, line).await;
        let reply = listen(&mut self.from, &mut |_| {}).await?;
        self.looks += 1;
        self.since = Instant::now();
        Some(reply)
    }

    /// Why it died.
    async fn end(self) -> Failure {
        drop(self.to);
        let words = self.words;
        self.worker.end(async { words.await.unwrap_or_default() }).await
    }
}
