//! Starting an engine: the state directory, its lock, the journal, and what runs in the background.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::aside;
use super::follow::Followed;
use super::git::Repositories;
use super::running::Running;
use super::shared::{Clock, Shared};
use super::{Engine, Inner, log_problem};
use crate::capture::store::Store;
use crate::capture::store::hook::{Hook as StoreHook, StoreWrite};
use crate::config::exposure::exposure;
use crate::config::{Config, Surroundings};
use crate::deploy::Deployer;
use crate::deploy::dynamic::DynDeployer;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::event::{EventKind, Events, Publisher};
use crate::journal::{Hook, Journal, JournalWrite, Moment, Opened};
use crate::source::git::worker::GitWorker;
use crate::source::watch::Watcher;

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "the tests are the failing disk")]
mod tests;

/// How often the history is pruned and the content store is swept.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// How long after its start an engine checks a journal that was closed in order.
const CHECK_PAUSE: Duration = Duration::from_secs(60);

/// An engine that is not started yet.
pub struct Builder {
    pub(super) config: Config,
    events: Publisher,
    pub(super) registered: BTreeMap<String, Arc<dyn DynDeployer>>,
    follow: Option<(PathBuf, Surroundings)>,
    pub(super) module_probe: Option<Vec<OsString>>,
    hook: Option<Hook>,
    store_hook: Option<StoreHook>,
    pub(super) git_worker: GitWorker,
    check_pause: Duration,
}

impl Builder {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            events: Publisher::new(),
            registered: BTreeMap::new(),
            follow: None,
            module_probe: None,
            hook: None,
            store_hook: None,
            git_worker: GitWorker::InProcess,
            check_pause: CHECK_PAUSE,
        }
    }

    /// Registers a deployer of your own under the name that `deploy_to` uses.
    #[must_use]
    pub fn deployer(mut self, name: impl Into<String>, deployer: impl Deployer) -> Self {
        self.registered.insert(name.into(), Arc::new(deployer));
        self
    }

    /// Subscribes to everything that happens, from the start on.
    pub fn subscribe(&self) -> Events {
        self.events.subscribe()
    }

    /// Reads the configuration again when `file` changes. A file that does not parse leaves the running one as it is.
    /// Default: it is read when you call [`Engine::reload`].
    #[must_use]
    pub fn follow(mut self, file: impl Into<PathBuf>, surroundings: Surroundings) -> Self {
        self.follow = Some((file.into(), surroundings));
        self
    }

    /// Where git speaks to remotes. Default: in this process, on a thread.
    #[must_use]
    pub fn git_worker(mut self, worker: GitWorker) -> Self {
        self.git_worker = worker;
        self
    }

    /// Names the program, with its arguments, that loads a module for a test before it is loaded here: one that calls
    /// `pickup::deploy::module::serve_probe`, usually this one started once more. Default: none, and configured deployers
    /// of kind `module` need `probe = false` then.
    #[must_use]
    pub fn module_probe(mut self, argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.module_probe = Some(argv.into_iter().map(Into::into).collect());
        self
    }

    /// Calls `hook` before and after each write to the journal, with a word for the write (`intend`, `stage`, `commit`,
    /// `retire` …) and whether it is done: for tests that fail or stop there.
    #[must_use]
    pub fn on_journal_write(mut self, hook: impl Fn(&str, bool) -> Result<()> + Send + Sync + 'static) -> Self {
        let hook = move |write: JournalWrite, moment: Moment| hook(write.as_str(), moment == Moment::After);
        self.hook = Some(Arc::new(hook));
        self
    }

    /// Calls `hook` before each step that writes to the content store, with a word for it: `create` a file, `write` into it,
    /// `rename` it to its place (a small one has that from the beginning, and only counts from then on), `remove` what nobody
    /// refers to. Of short ones all of that is asked before they are kept in memory, and `write` once more before many of
    /// them are written. Its error is that of the step, and half of what is in memory is written where `write` fails: for
    /// tests of a full or broken disk.
    #[must_use]
    pub fn on_store_write(mut self, hook: impl Fn(&str) -> std::io::Result<()> + Send + Sync + 'static) -> Self {
        self.store_hook = Some(StoreHook::new(move |step: StoreWrite| hook(step.as_str())));
        self
    }

    /// Starts the engine on the current tokio runtime. It watches when this returns, and deploys what is there.
    ///
    /// # Errors
    /// The state directory cannot be used: it cannot be made, another engine owns it, its journal was written by a newer
    /// version. Mistakes of single entries are no errors: they are in the status.
    pub async fn start(self) -> Result<Engine> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| Error::new(ErrorKind::Config, "start outside a tokio runtime").caused_by(error))?;
        let (keep_history, check_pause) = (self.config.settings.keep_history, self.check_pause);
        let started = tokio::task::spawn_blocking(move || self.start_here(runtime)).await;
        let (engine, followed) =
            started.map_err(|error| Error::new(ErrorKind::Cancelled, "start the engine").caused_by(error))??;
        tokio::spawn(upkeep(engine.0.shared.clone(), engine.0.end.clone(), keep_history));
        tokio::spawn(check_journal(engine.0.shared.clone(), engine.0.end.clone(), check_pause));
        if let Some(followed) = followed {
            tokio::spawn(followed.follow(Arc::downgrade(&engine.0), engine.0.end.clone()));
        }
        Ok(engine)
    }

    fn start_here(self, runtime: tokio::runtime::Handle) -> Result<(Engine, Option<Followed>)> {
        let clock = Clock::system();
        let state_dir = private_directory(&self.config.settings.state_dir)?;
        let lock = lock(&state_dir)?;
        let now_ms = (clock.wall)().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
        let (journal, opened) = Journal::open(&state_dir, self.hook, i64::try_from(now_ms).unwrap_or(i64::MAX))?;
        let store = Store::open(&state_dir.join("store"), self.config.settings.store_max)?.with_hook(self.store_hook);
        let journal = journal.stored(store.place());
        aside::sweep(&state_dir);
        let shared = Arc::new(Shared {
            real_dir: state_dir.clone(),
            state_dir,
            doubt: journal.doubt().clone(),
            journal: Mutex::new(journal),
            store,
            watcher: Watcher::start(),
            events: self.events,
            git: Repositories::new(self.git_worker),
            clock,
            runtime,
            cancel: CancellationToken::new(),
            module_probe: self.module_probe,
            places: Mutex::default(),
            next_sweep: Mutex::default(),
        });
        say_opened(&shared, opened);
        for problem in &self.config.problems {
            log_problem(problem);
        }
        let followed = self.follow.map(|(file, surroundings)| Followed::new(&shared, file, surroundings));
        let (reread, followed) = followed.unzip();
        let engine = Engine(Arc::new(Inner {
            shared,
            registered: self.registered,
            state: Mutex::new(Running::default()),
            exchanging: Mutex::new(()),
            end: CancellationToken::new(),
            reread,
            #[cfg(unix)]
            control: super::control::Control::default(),
            _lock: lock,
        }));
        make_default(&self.config);
        #[cfg(target_os = "linux")]
        super::unclaimed::stop(&engine.0.shared, &engine.0.registered, &self.config);
        engine.state().start_missing(&engine.0.shared, &engine.0.registered, &self.config);
        Ok((engine, followed))
    }
}

/// The directories of the entry named `default` are made if missing, so that the first run has somewhere to drop a file.
#[expect(clippy::disallowed_methods, reason = "the one pickup directory that is ours to make")]
fn make_default(config: &Config) {
    for path in config.pickups.get("default").into_iter().flat_map(|pickup| &pickup.pickup_from) {
        if let Err(error) = std::fs::create_dir_all(path) {
            tracing::warn!(path = %path.display(), %error, "cannot make the pickup directory");
        }
    }
}

fn say_opened(shared: &Shared, opened: Opened) {
    match opened {
        Opened::New | Opened::Existing => {}
        Opened::Migrated { from } => tracing::info!(from, "the journal was brought up to this version"),
        Opened::Rebuilt { set_aside, why } => {
            let cause = format!(
                "the journal was damaged ({why}) and is set aside as {}; what is in the pickup directories is deployed \
                 again, and the history begins anew",
                set_aside.display()
            );
            tracing::error!(cause);
            shared.publish("", EventKind::Troubled { cause });
        }
    }
}

/// Makes the state directory, for its owner only, and gives its real path.
#[expect(clippy::disallowed_methods, reason = "the engine owns the state directory")]
fn private_directory(path: &Path) -> Result<PathBuf> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).doing("make the state directory", path)?;
    match exposure(path) {
        Some(found) if found.is_grave() => {
            // Whoever may write there may exchange what was judged for what is deployed.
            return Err(Error::new(ErrorKind::Config, "use the state directory").at(path).caused_by(found.advice()));
        }
        Some(found) => {
            tracing::warn!(path = %path.display(), reason = found.advice(), "others may write to the state directory")
        }
        None => {}
    }
    std::path::absolute(path).doing("resolve", path)
}

/// Takes the lock of the state directory: one engine each.
#[expect(clippy::disallowed_methods, reason = "the engine owns the state directory")]
fn lock(state_dir: &Path) -> Result<File> {
    let path = state_dir.join("lock");
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(&path).doing("open", &path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            let why = "another daemon runs on it; stop that one, or choose another `state_dir`";
            Err(Error::new(ErrorKind::Busy, "use the state directory").at(state_dir).caused_by(why))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(Error::io("lock", path, error)),
    }
}

/// Checks the journal as soon as somebody meets damage in it; one that was used without a check, after `pause` at the latest:
/// once nobody waits for the start any more.
async fn check_journal(shared: Arc<Shared>, end: CancellationToken, pause: Duration) {
    let is_unchecked = shared.journal().is_unchecked();
    tokio::select! {
        () = end.cancelled() => return,
        () = shared.doubt.raised() => {}
        () = tokio::time::sleep(pause), if is_unchecked => {}
    }
    let check = move || {
        let why = match shared.reader().and_then(|reader| reader.damage()) {
            Ok(None) => return,
            Ok(Some(why)) => why,
            Err(error) => format!("cannot {error}"),
        };
        shared.doubt.raise();
        let cause = format!(
            "the journal in {} is damaged ({why}); what is deployed stays as it is. Restart to go on: the start sets the \
             journal aside, and what is in the pickup directories is deployed again",
            shared.state_dir.display()
        );
        tracing::error!(cause);
        shared.publish("", EventKind::Troubled { cause });
    };
    if let Err(panic) = tokio::task::spawn_blocking(check).await {
        tracing::warn!(%panic, "cannot check the journal");
    }
}

/// Prunes the history and sweeps the content store, now and then.
async fn upkeep(shared: Arc<Shared>, end: CancellationToken, keep_history: Duration) {
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = tokio::time::sleep(UPKEEP_INTERVAL) => {}
        }
        let shared = shared.clone();
        let swept = tokio::task::spawn_blocking(move || shared.sweep(Some(keep_history))).await;
        if let Ok(Err(error)) = swept {
            tracing::warn!(%error, "cannot sweep the content store");
        }
    }
}
