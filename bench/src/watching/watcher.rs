//! A watcher that runs: what it reports, and when.

use std::any::Any;
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::subject::{CHANGED, Subject, Told};
use crate::daemon::Daemon;
use crate::process::{Disconnected, Line, Printed, Process, children};

/// How long a watcher may take until it watches.
const START_CAP: Duration = Duration::from_secs(60);

/// What is between two batches at least.
const BATCH_GAP: Duration = Duration::from_millis(5);

/// Where reports come from.
pub enum Source {
    /// A library in this process, as long as the value lives.
    InProcess {
        /// The library.
        _watching: Box<dyn Any>,
        /// What it reports.
        lines: Printed,
    },
    /// What a process prints.
    Process(Process),
    /// What the daemon logs.
    Daemon(Daemon),
    /// What the programs say that a process runs.
    Telling(Process, Told),
    /// What a client prints that is told by a server.
    Served {
        /// The one that watches.
        server: Process,
        /// The one that prints.
        client: Process,
    },
}

/// Reports of one moment.
pub struct Reported {
    /// When they were read, or the closure was entered.
    pub at: Instant,
    /// Paths below the watched directory.
    pub names: Vec<String>,
}

/// A watcher that runs. It ends when the value is dropped.
pub struct Watcher {
    subject: Subject,
    root: PathBuf,
    source: Source,
    batch: HashSet<String>,
    last: Option<Instant>,
    probes: usize,
}

impl Watcher {
    /// One that was just started.
    pub fn new(subject: Subject, root: PathBuf, source: Source) -> Self {
        Self { subject, root, source, batch: HashSet::new(), last: None, probes: 0 }
    }

    /// The number of the process that watches.
    ///
    /// # Errors
    /// It is this one, or it has ended.
    pub fn id(&self) -> Result<u32> {
        let id = self.process().context("it runs in this process")?.id();
        if self.subject != Subject::Entr {
            return Ok(id);
        }
        // The process is the loop around it.
        let running = children(id).first().and_then(|child| child.as_raw_nonzero().get().try_into().ok());
        running.context("entr does not run")
    }

    /// Ends it in order, if it is our daemon.
    pub fn stop(self) -> Result<()> {
        match self.source {
            Source::Daemon(daemon) => daemon.stop(),
            Source::InProcess { .. } | Source::Process(_) | Source::Telling(..) | Source::Served { .. } => Ok(()),
        }
    }

    /// The process that watches; `None` if it is this one.
    pub fn process(&self) -> Option<&Process> {
        match &self.source {
            Source::InProcess { .. } => None,
            Source::Process(process) | Source::Telling(process, _) | Source::Served { server: process, .. } => {
                Some(process)
            }
            Source::Daemon(daemon) => Some(daemon.process()),
        }
    }

    fn line(&self, deadline: Instant) -> Result<Option<Line>> {
        let lines = match &self.source {
            Source::InProcess { lines, .. } => lines,
            Source::Telling(_, told) => &told.lines,
            Source::Process(process) | Source::Served { client: process, .. } => return process.line(deadline),
            Source::Daemon(daemon) => return daemon.process().line(deadline),
        };
        lines.next(deadline).or_else(|Disconnected| bail!("{} has ended", self.subject.name()))
    }

    /// The next line that reports anything; `None` if there is none until `deadline`.
    pub fn next(&mut self, deadline: Instant) -> Result<Option<Reported>> {
        while let Some(line) = self.line(deadline)? {
            // Lines that come at once are a batch: what a watcher would call its command for, once.
            if self.last.is_none_or(|last| line.at.saturating_duration_since(last) > BATCH_GAP) {
                self.batch.clear();
            }
            self.last = Some(line.at);
            let names = self.subject.names(&self.root, &line.text, &mut self.batch);
            if !names.is_empty() {
                return Ok(Some(Reported { at: line.at, names }));
            }
        }
        Ok(None)
    }

    /// Waits until it watches. Gives when it said so, or when it first reported a file that was made for that.
    pub fn wait_ready(&mut self, every: Duration) -> Result<Instant> {
        if matches!(self.subject, Subject::InProcess(_)) {
            return Ok(Instant::now());
        }
        let deadline = Instant::now() + START_CAP;
        if let Some(ready) = self.subject.ready_line() {
            while let Some(line) = self.line(deadline)? {
                if line.text.contains(ready) {
                    return Ok(line.at);
                }
            }
        }
        while Instant::now() < deadline && self.subject.ready_line().is_none() {
            self.probes += 1;
            std::fs::write(self.root.join(format!("probe-{}", self.probes)), "probe")?;
            let pause = Instant::now() + every;
            while let Some(reported) = self.next(pause)? {
                if reported.names.iter().any(|name| name.starts_with("probe") || name == CHANGED) {
                    return Ok(reported.at);
                }
            }
        }
        bail!("{} does not watch after {START_CAP:?}", self.subject.name())
    }

    /// Waits until it watches and reports nothing any more.
    pub fn wait_quiet(&mut self) -> Result<()> {
        self.wait_ready(Duration::from_millis(50))?;
        // fswatch sleeps a second after each batch.
        let silence = if self.subject == Subject::Fswatch { 1200 } else { 300 };
        while self.next(Instant::now() + Duration::from_millis(silence))?.is_some() {}
        Ok(())
    }
}
