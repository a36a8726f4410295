//! The engine: the only module that knows every stage, reads the clock and spawns.
//!
//! Each pickup is a thread that watches and a lane that deploys; they share the journal, the content store and one
//! watcher. What is configured can be exchanged while it runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

mod aside;
mod batch;
#[cfg(unix)]
mod control;
mod failures;
mod follow;
mod former;
mod git;
mod hold;
mod inbox;
mod known;
mod lane;
mod links;
mod listing;
mod look;
mod message;
mod offline;
mod outcome;
mod owed;
mod pickup;
mod plan;
mod planned;
mod progress;
mod recover;
mod rehearse;
mod relook;
mod rest;
mod roots;
mod running;
mod shared;
mod start;
mod status;
#[cfg(all(test, target_os = "linux"))]
mod testing;
mod transaction;
#[cfg(target_os = "linux")]
mod unclaimed;
mod whole;
mod why;

pub use self::offline::Records;
pub use self::planned::{
    Interrupted, Objection, PlanOptions, PlanReport, PlannedChange, PlannedChangeSet, PlannedCommit, PlannedGroup,
    PlannedRefusal, PlannedStep, PlannedWait, Wait,
};
pub use self::start::Builder;
pub use self::status::{Failed, LastError, Noted, PickupStatus, RemovalsPaused, RootStatus, State, SyncReport};
pub use self::why::{Explanation, Verdict as Why};

use self::follow::Reread;
use self::message::Message;
use self::running::Running;
use self::shared::Shared;
use crate::config::{Config, Problem, Severity};
use crate::deploy::dynamic::DynDeployer;
use crate::error::{Error, ErrorKind, Result};
use crate::event::{EventKind, Events};
use crate::journal::Deployment;

/// How long a shutdown waits for the step in hand before it is given up.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(20);

/// A running engine. Cheap to clone; all clones are the same engine.
///
/// It ends with [`shutdown`](Self::shutdown). Dropping the last clone stops it too, without waiting.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// What the embedder registered, by the name in `deploy_to`.
    registered: BTreeMap<String, Arc<dyn DynDeployer>>,
    state: Mutex<Running>,
    /// One exchange of the configuration at a time.
    exchanging: Mutex<()>,
    /// Cancelled when the engine ends.
    end: CancellationToken,
    /// Asks for the configuration to be read again, where a file is followed.
    reread: Option<mpsc::Sender<Reread>>,
    #[cfg(unix)]
    control: self::control::Control,
    /// Held as long as the engine runs: one engine a state directory.
    _lock: std::fs::File,
}

/// How a [`sync`](Engine::sync) is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncOptions {
    /// Carry out removals that are paused, or would be. Default: no.
    pub confirm_removals: bool,
    /// Wait for retries, too, until each artifact is live or quarantined. Default: no.
    pub until_final: bool,
}

impl Engine {
    /// An engine for `config`, to be started.
    pub fn builder(config: Config) -> Builder {
        Builder::new(config)
    }

    /// Subscribes to what happens from now on.
    pub fn subscribe(&self) -> Events {
        self.0.shared.events.subscribe()
    }

    /// Where journal, content store and control socket live.
    pub fn state_dir(&self) -> &Path {
        &self.0.shared.state_dir
    }

    fn state(&self) -> MutexGuard<'_, Running> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of the pickup `name`, or of all, in the order of their names.
    ///
    /// # Errors
    /// No pickup has that name.
    pub async fn status(&self, name: Option<&str>) -> Result<Vec<PickupStatus>> {
        let asked = self.state().ask(name, Message::Status);
        let mut statuses: Vec<PickupStatus> = Vec::new();
        for (_, reply) in asked {
            statuses.extend(reply.await.ok());
        }
        statuses.extend(self.state().not_running(name));
        statuses.sort_by(|one, other| one.name.cmp(&other.name));
        if let (Some(name), true) = (name, statuses.is_empty()) {
            return Err(self.unknown(name));
        }
        Ok(statuses)
    }

    fn unknown(&self, name: &str) -> Error {
        let state = self.state();
        if let Some(idle) = state.not_running(Some(name)).pop() {
            let why = idle.trouble.unwrap_or_default();
            return Error::new(ErrorKind::NotFound, format!("ask `{name}`, which is {}: {why}", idle.state.as_str()));
        }
        let names = state.names();
        Error::new(ErrorKind::NotFound, format!("find a pickup named `{name}`; there are: {}", names.join(", ")))
    }

    /// Why `path` was, or was not, deployed: an answer from each pickup it belongs to. Relative paths are below a
    /// pickup directory.
    pub async fn why(&self, path: &Path) -> Vec<Explanation> {
        let asked = self.state().ask_about(path);
        let mut answers = Vec::new();
        for reply in asked {
            answers.extend(reply.await.ok().flatten());
        }
        answers
    }

    /// Compares everything now, and waits until all that was there is live, has failed or waits for somebody else.
    ///
    /// # Errors
    /// No pickup has that name, or the engine is stopping.
    pub async fn sync(&self, name: Option<&str>, options: SyncOptions) -> Result<Vec<SyncReport>> {
        let SyncOptions { confirm_removals, until_final } = options;
        let message = |reply| Message::Sync { confirm_removals, reply, until_final };
        let asked = self.state().ask(name, message);
        if let (Some(name), true) = (name, asked.is_empty()) {
            return Err(self.unknown(name));
        }
        let mut reports: Vec<SyncReport> =
            self.state().not_running(name).iter().filter_map(SyncReport::broken).collect();
        for (_, reply) in asked {
            reports.push(reply.await.map_err(|_| stopping())?);
        }
        reports.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(reports)
    }

    /// Makes generation `to` of `name` live again, or the one before the present one, and holds there until
    /// [`release`](Self::release). Gives the generation whose content is live.
    ///
    /// # Errors
    /// No such pickup or generation, or a deployer failed; then what was live stays.
    pub async fn rollback(&self, name: &str, to: Option<u64>) -> Result<u64> {
        self.ask_one(name, |reply| Message::Rollback { to, reply }).await?
    }

    /// Lifts the hold of a rollback: what is on disk is deployed again.
    ///
    /// # Errors
    /// No such pickup, or it is not held.
    pub async fn release(&self, name: &str) -> Result<()> {
        self.ask_one(name, Message::Release).await?
    }

    /// Re-arms what failed at or below `unit` (a path below the pickup directory, or absolute), or all of it. Gives how
    /// many units.
    ///
    /// # Errors
    /// No pickup has that name.
    pub async fn retry(&self, name: &str, unit: Option<&Path>) -> Result<usize> {
        let unit = unit.map(Path::to_path_buf);
        self.ask_one(name, |reply| Message::Retry { unit, reply }).await
    }

    async fn ask_one<T>(&self, name: &str, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T> {
        let reply = self.state().ask_named(name, message);
        reply.ok_or_else(|| self.unknown(name))?.await.map_err(|_| stopping())
    }

    /// Deployments, newest first, `limit` at most.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn history(&self, name: Option<&str>, limit: usize) -> Result<Vec<Deployment>> {
        self.0.shared.journal().history(name, limit)
    }

    /// Exchanges the configuration: entries that were added, changed or removed take effect, all others run on.
    ///
    /// # Errors
    /// The state directory differs: that needs a restart.
    pub async fn reload(&self, config: Config) -> Result<()> {
        let wanted = std::path::absolute(&config.settings.state_dir);
        if wanted.is_ok_and(|wanted| wanted != self.0.shared.state_dir) {
            let action =
                format!("change state_dir to {} while running: restart for it", config.settings.state_dir.display());
            return Err(Error::new(ErrorKind::Config, action));
        }
        let engine = self.clone();
        // Entries that end finish the step in hand first.
        let exchanged = tokio::task::spawn_blocking(move || engine.exchange(config)).await;
        exchanged.map_err(|error| Error::new(ErrorKind::Cancelled, "exchange the configuration").caused_by(error))
    }

    /// Reads the file that is [followed](Builder::follow) again now, whether or not it has changed.
    ///
    /// # Errors
    /// No file is followed, or it cannot be used; then the running configuration stays.
    pub async fn reread(&self) -> Result<()> {
        let none = || Error::new(ErrorKind::Config, "read the configuration again: the engine follows no file");
        let (reply, answer) = oneshot::channel();
        self.0.reread.as_ref().ok_or_else(none)?.send(reply).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }

    fn exchange(&self, config: Config) {
        for problem in &config.problems {
            log_problem(problem);
        }
        let errors = config.problems.iter().filter(|problem| problem.severity == Severity::Error).count();
        let _turn = self.0.exchanging.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody who asks for the status waits for what is being finished.
        let ended = self.state().end_changed(&config);
        let mut changed = ended.join();
        #[cfg(target_os = "linux")]
        unclaimed::stop(&self.0.shared, &self.0.registered, &config);
        changed.extend(self.state().start_missing(&self.0.shared, &self.0.registered, &config));
        changed.sort_unstable();
        changed.dedup();
        tracing::info!(changed = changed.join(","), errors, "configuration read again");
        self.0.shared.publish("", EventKind::Reloaded { changed, errors });
    }

    /// Says why a configuration could not be read again; the running one stays.
    pub(crate) fn reload_failed(&self, error: &Error) {
        tracing::error!(%error, "the configuration cannot be read again; the running one stays");
        self.0.shared.publish("", EventKind::ReloadFailed { cause: error.to_string() });
    }

    /// Stops watching, finishes the step in hand, and ends every thread and task.
    pub async fn shutdown(&self) {
        self.0.end.cancel();
        self.0.shared.watcher.end();
        let engine = self.clone();
        let ended = tokio::task::spawn_blocking(move || {
            let ended = engine.state().end_all();
            ended.join();
            if let Err(error) = engine.0.shared.journal().fold() {
                tracing::debug!(%error, "the journal is not folded; the next start does it");
            }
        });
        let cancel = self.0.shared.cancel.clone();
        let overdue = async {
            tokio::time::sleep(SHUTDOWN_GRACE).await;
            cancel.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = ended => {}
            () = overdue => {}
        }
        self.0.shared.events.close();
        #[cfg(unix)]
        self.0.control.close().await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end.cancel();
        self.shared.watcher.end();
        self.shared.cancel.cancel();
        // The threads end by themselves.
        drop(self.state.get_mut().unwrap_or_else(PoisonError::into_inner).end_all());
        // And the lock goes before they do.
        self.shared.store.let_go();
    }
}

fn stopping() -> Error {
    Error::new(ErrorKind::Cancelled, "get an answer: the engine is stopping")
}

fn log_problem(problem: &Problem) {
    match problem.severity {
        Severity::Warning => tracing::warn!("{problem}"),
        Severity::Error => tracing::error!("{problem}"),
    }
}
