//! What runs: a thread for each usable entry, and a word on each entry that does not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use tokio::sync::oneshot;

use super::former::bind_former;
use super::git::repository;
use super::inbox::Inbox;
use super::known::{AllKnown, Reading, Unsaved};
use super::links::Links;
use super::message::{End, Message};
use super::owed::Owing;
use super::pickup::{Pickup, Root, are_by_unit};
use super::relook::Relook;
use super::shared::{Bound, Shared};
use super::status::{PickupStatus, State};
use super::why::Explanation;
use crate::change::gather::Gathering;
use crate::change::live::Live;
use crate::config::{Config, DeployerConfig, GitConfig, PickupConfig, Severity};
use crate::deploy::Reporter;
use crate::deploy::build::{Site, build};
use crate::deploy::dynamic::DynDeployer;
use crate::deploy::report::Report;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventKind;
use crate::settle::Settle;
use crate::source::ignore::Rules;
use crate::source::probe::Probe;
use crate::source::watch::{Subscriber, Watcher};

/// How long a pickup whose thread panicked rests before it starts again.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// One entry that runs.
struct Entry {
    config: Arc<PickupConfig>,
    /// The configurations of its deployers, to tell whether they changed.
    deployers: Vec<DeployerConfig>,
    inbox: Arc<Inbox<Message>>,
    thread: JoinHandle<()>,
}

/// Everything that runs, and everything that does not.
#[derive(Default)]
pub(super) struct Running {
    entries: BTreeMap<String, Entry>,
    /// Entries that are configured and do not run.
    idle: BTreeMap<String, (State, String)>,
}

/// What was told to stop.
pub(super) struct Ended(BTreeMap<String, Entry>);

impl Ended {
    /// Waits until all of it has stopped; gives the names.
    pub(super) fn join(self) -> Vec<String> {
        let join = |(name, entry): (String, Entry)| {
            entry.join();
            name
        };
        self.0.into_iter().map(join).collect()
    }
}

pub(super) type Registered = BTreeMap<String, Arc<dyn DynDeployer>>;

impl Running {
    /// Takes out what does not run under `config`, told to stop; it has to be [joined](Ended::join) before
    /// [`start_missing`](Self::start_missing).
    pub(super) fn end_changed(&mut self, config: &Config) -> Ended {
        let broken = config.broken_pickups();
        self.end(config, |former| {
            let pickup = config.pickups.get(&former.name).filter(|pickup| pickup.enabled);
            // A mistake is no order to stop what runs.
            let pickup = pickup.or(broken.contains(former.name.as_str()).then_some(former));
            End::Entry { successors: pickup.map(|pickup| pickup.deploy_to.clone()).unwrap_or_default() }
        })
    }

    fn end(&mut self, config: &Config, end: impl Fn(&PickupConfig) -> End) -> Ended {
        let is_same = |name: &String, entry: &Entry| {
            let pickup = config.pickups.get(name).filter(|pickup| pickup.enabled);
            pickup.is_some_and(|pickup| *pickup == *entry.config && deployers_of(config, pickup) == entry.deployers)
        };
        let ending: Vec<String> =
            self.entries.iter().filter(|(name, entry)| !is_same(name, entry)).map(|(name, _)| name.clone()).collect();
        let ended = Ended(ending.iter().filter_map(|name| Some((name.clone(), self.entries.remove(name)?))).collect());
        ended.0.values().for_each(|entry| entry.inbox.message(Message::Stop(end(&entry.config))));
        ended
    }

    /// Starts what `config` has and does not run yet; gives the names.
    pub(super) fn start_missing(
        &mut self,
        shared: &Arc<Shared>,
        registered: &Registered,
        config: &Config,
    ) -> Vec<String> {
        self.idle = idle(config);
        let mut started = Vec::new();
        for pickup in config.pickups.values().filter(|pickup| pickup.enabled) {
            let name = &pickup.name;
            if self.entries.contains_key(name) {
                continue;
            }
            match Entry::start(shared, registered, pickup.clone(), config) {
                Ok(entry) => {
                    self.entries.insert(name.clone(), entry);
                }
                Err(error) => {
                    tracing::error!(pickup = name, %error, "cannot start");
                    self.idle.insert(name.clone(), (State::Broken, error.to_string()));
                }
            }
            started.push(name.clone());
        }
        started
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.entries.keys().chain(self.idle.keys()).cloned().collect()
    }

    /// Asks the pickup `name`, or all.
    pub(super) fn ask<T>(
        &self,
        name: Option<&str>,
        message: impl Fn(oneshot::Sender<T>) -> Message,
    ) -> Vec<(String, oneshot::Receiver<T>)> {
        let asked = self.entries.iter().filter(|(known, _)| name.is_none_or(|name| name == *known));
        asked.map(|(name, entry)| (name.clone(), entry.ask(&message))).collect()
    }

    pub(super) fn ask_named<T>(
        &self,
        name: &str,
        message: impl FnOnce(oneshot::Sender<T>) -> Message,
    ) -> Option<oneshot::Receiver<T>> {
        self.entries.get(name).map(|entry| entry.ask(message))
    }

    /// Asks every pickup about `path`; a relative one is tried below each of its directories.
    pub(super) fn ask_about(&self, path: &Path) -> Vec<oneshot::Receiver<Option<Explanation>>> {
        let mut asked = Vec::new();
        for entry in self.entries.values() {
            if entry.config.pickup_from.is_empty() && path.is_relative() {
                asked.push(entry.ask(|reply| Message::Explain(path.to_path_buf(), reply)));
            }
            let below = |root: &PathBuf| if path.is_absolute() { path.to_path_buf() } else { root.join(path) };
            let mut paths: Vec<PathBuf> = entry.config.pickup_from.iter().map(below).collect();
            paths.dedup();
            asked.extend(paths.into_iter().map(|path| entry.ask(|reply| Message::Explain(path, reply))));
        }
        asked
    }

    /// A word on each entry that does not run.
    pub(super) fn not_running(&self, name: Option<&str>) -> Vec<PickupStatus> {
        let asked = self.idle.iter().filter(|(known, _)| name.is_none_or(|name| name == *known));
        asked.map(|(name, (state, reason))| PickupStatus::not_running(name, *state, reason)).collect()
    }

    /// Tells everything to stop.
    pub(super) fn end_all(&mut self) -> Ended {
        self.end(&Config::default(), |_| End::Engine)
    }
}

pub(super) fn deployers_of(config: &Config, pickup: &PickupConfig) -> Vec<DeployerConfig> {
    pickup.deploy_to.iter().filter_map(|name| config.deployers.get(name).cloned()).collect()
}

/// Entries that are configured and do not run: broken ones, and those that are switched off.
pub(super) fn idle(config: &Config) -> BTreeMap<String, (State, String)> {
    let mut idle = BTreeMap::new();
    for problem in config.problems.iter().filter(|problem| problem.severity == Severity::Error) {
        if let Some(name) = problem.section.strip_prefix("hot-deploy.user.")
            && !config.pickups.contains_key(name)
        {
            idle.entry(name.to_owned()).or_insert((State::Broken, problem.to_string()));
        }
    }
    for pickup in config.pickups.values().filter(|pickup| !pickup.enabled) {
        idle.insert(pickup.name.clone(), (State::Disabled, "`enabled` is false".to_owned()));
    }
    idle
}

impl Entry {
    fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> oneshot::Receiver<T> {
        let (reply, answer) = oneshot::channel();
        self.inbox.message(message(reply));
        answer
    }

    fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!(pickup = self.config.name, "the thread of this pickup panicked");
        }
    }

    fn start(shared: &Arc<Shared>, registered: &Registered, config: PickupConfig, all: &Config) -> Result<Self> {
        let deployers = deployers_of(all, &config);
        let config = Arc::new(config);
        let inbox = Arc::new(Inbox::new());
        let reporter = |name: &str| reporter(shared, &config, &inbox, name);
        let bound: Arc<[Bound]> = bind(shared, registered, &config, &deployers, reporter)?.into();
        let former = bind_former(shared, registered, all, &config, reporter);
        let enders = if former.is_empty() { bound.clone() } else { bound.iter().cloned().chain(former).collect() };
        // Compiled once here, so that a mistake is the entry's and not the thread's.
        Rules::new(&config)?;
        glob_set(&config.settle_patterns)?;
        let parts = Parts {
            shared: shared.clone(),
            config: config.clone(),
            bound,
            enders,
            inbox: inbox.clone(),
            turn: Arc::default(),
            starts: AtomicU64::new(0),
        };
        // A panic is a bug of ours and must not be the end of this pickup: the journal knows where it was.
        let run = move || {
            while let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| parts.run())) {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let cause = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                let name = &parts.config.name;
                tracing::error!(
                    pickup = name,
                    cause,
                    "the thread of this pickup panicked, please report it; it starts again"
                );
                let cause = format!("the thread of this pickup panicked: {cause}");
                parts.shared.publish(name, EventKind::Troubled { cause });
                std::thread::sleep(RESTART_PAUSE);
            }
        };
        let thread = std::thread::Builder::new()
            .name(format!("pickup {}", config.name))
            .spawn(run)
            .map_err(|error| Error::new(ErrorKind::Io, "start a thread").caused_by(error))?;
        Ok(Self { config, deployers, inbox, thread })
    }
}

/// The deployers of an entry, in the order of `deploy_to`.
pub(super) fn bind(
    shared: &Shared,
    registered: &Registered,
    config: &PickupConfig,
    deployers: &[DeployerConfig],
    reporter: impl Fn(&str) -> Reporter,
) -> Result<Vec<Bound>> {
    let site = Site { state_dir: &shared.real_dir, module_probe: shared.module_probe.as_deref() };
    // Everything that decides where and how things are put; not how often it is tried, or how it is verified.
    let kinds: Vec<_> = deployers.iter().map(|deployer| (&deployer.name, &deployer.kind)).collect();
    let description = format!("{:?} {kinds:?}", config.deploy_to);
    let config_digest = blake3::hash(description.as_bytes()).to_hex()[..16].to_owned();
    config
        .deploy_to
        .iter()
        .map(|name| {
            let configured = deployers.iter().find(|deployer| deployer.name == *name);
            let (deployer, common) = match (registered.get(name), configured) {
                (Some(deployer), configured) => {
                    (deployer.clone(), configured.map(|configured| configured.common.clone()).unwrap_or_default())
                }
                (None, Some(configured)) => (build(configured, site)?, configured.common.clone()),
                (None, None) => {
                    let action = format!("use deployer `{name}`: it is neither configured nor registered");
                    return Err(Error::new(ErrorKind::Config, action));
                }
            };
            let (name, config_digest) = (name.clone(), config_digest.clone());
            Ok(Bound { reporter: reporter(&name), name, deployer, common, config_digest })
        })
        .collect()
}

/// Publishes what a deployer says between its phases, and tells the pickup what failed.
fn reporter(shared: &Arc<Shared>, config: &Arc<PickupConfig>, inbox: &Arc<Inbox<Message>>, deployer: &str) -> Reporter {
    // Weak, because a deployer may live in what it would keep alive.
    let (shared, inbox) = (Arc::downgrade(shared), Arc::downgrade(inbox));
    let (pickup, deployer) = (config.name.clone(), deployer.to_owned());
    Reporter::new(move |report| match report {
        Report::Instance { generation, happening } => {
            if let Some(shared) = shared.upgrade() {
                let deployer = deployer.clone();
                shared.publish(&pickup, EventKind::Instance { deployer, generation, happening });
            }
        }
        Report::Failed { units, cause } => {
            if let Some(inbox) = inbox.upgrade() {
                inbox.message(Message::Broken { deployer: deployer.clone(), units, cause });
            }
        }
    })
}

fn glob_set(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    let invalid = |error: globset::Error| Error::new(ErrorKind::Config, "use `settle_patterns`").caused_by(error);
    for pattern in patterns {
        // Without a slash the file name counts, wherever it lies.
        let anywhere = if pattern.contains('/') { pattern.clone() } else { format!("**/{pattern}") };
        set.add(Glob::new(&anywhere).map_err(invalid)?);
    }
    set.build().map_err(invalid)
}

/// What a pickup is made of.
pub(super) struct Parts {
    pub shared: Arc<Shared>,
    pub config: Arc<PickupConfig>,
    pub bound: Arc<[Bound]>,
    pub enders: Arc<[Bound]>,
    pub inbox: Arc<Inbox<Message>>,
    /// Held by the lane while it works: a pickup that starts again after a panic waits for its former lane.
    pub turn: Arc<Mutex<()>>,
    /// How often it started.
    pub starts: AtomicU64,
}

/// The directories of an entry; for a mirror, one root that is on no disk.
fn roots(shared: &Shared, config: &PickupConfig) -> Vec<Root> {
    match (config.git.as_deref(), config.pickup_from.as_slice()) {
        (Some(git), []) => vec![Root::mirror(repository(shared, config, git))],
        (Some(GitConfig { subdir: Some(subdir), .. }), [directory]) => vec![Root::new(directory.join(subdir))],
        (_, directories) => directories.iter().cloned().map(Root::new).collect(),
    }
}

/// Ends the watches of a pickup, however it ends.
struct Subscription<'a>(&'a Watcher, Subscriber);

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        self.0.unsubscribe(self.1);
    }
}

impl Parts {
    /// Runs the pickup on this thread, which leases are probed on and which therefore has its own signal mask.
    fn run(&self) {
        let heard = self.inbox.clone();
        let subscriber = self.shared.watcher.subscribe(Arc::new(move |notice| heard.notice(notice)));
        let _subscription = Subscription(&self.shared.watcher, subscriber);
        match self.pickup(subscriber) {
            Ok(pickup) => pickup.run(),
            Err(error) => tracing::error!(pickup = self.config.name, %error, "cannot set up the thread"),
        }
    }

    pub(super) fn pickup(&self, subscriber: Subscriber) -> Result<Pickup> {
        let Self { shared, config, bound, enders, inbox, turn, starts } = self;
        let probe =
            Probe::on_this_thread().map_err(|error| Error::new(ErrorKind::Io, "block SIGIO").caused_by(error))?;
        let (shared, config, bound, inbox) = (shared.clone(), config.clone(), bound.clone(), inbox.clone());
        let (rules, reopened) = (Rules::new(&config)?, glob_set(&config.settle_patterns)?);
        let now = shared.now();
        Ok(Pickup {
            gathering: Gathering::new(Pickup::patience(&config, are_by_unit(&bound))),
            settle: Settle::new(config.settle),
            roots: roots(&shared, &config),
            next_rescan: now + config.rescan_interval,
            live: Live::new(shared.store.place()),
            // What an earlier start left, if anything.
            put_away_at: Some(now),
            write_later_at: None,
            shared,
            config,
            deployers: bound,
            enders: enders.clone(),
            inbox,
            subscriber,
            probe,
            rules,
            reopened,
            known: AllKnown::new(),
            reading: Reading::default(),
            watched: BTreeSet::new(),
            listing: 0,
            unseen: BTreeSet::new(),
            puts_off: false,
            packed: 0,
            hints_left: 0,
            is_split: false,
            loaded: 0,
            unsaved: Unsaved::default(),
            unsaved_since: None,
            is_outdated: false,
            refused: BTreeMap::new(),
            links: Links::default(),
            follows: BTreeMap::new(),
            sought: BTreeSet::new(),
            live_revision: None,
            generation: None,
            deployed: 0,
            last_success: None,
            last_error: None,
            touched: BTreeSet::new(),
            since: HashMap::new(),
            seen_removed: BTreeSet::new(),
            paused: None,
            is_confirmed: false,
            failures: BTreeMap::new(),
            forgiven: BTreeSet::new(),
            unrouted: BTreeMap::new(),
            held: None,
            deferred: Vec::new(),
            owed: Owing::default(),
            is_rearmed: false,
            is_busy: false,
            in_hand: BTreeSet::new(),
            relook: Relook::default(),
            trouble: None,
            pause_until: None,
            pause: Duration::ZERO,
            next_poll: None,
            let_go: 0,
            added_before: 0,
            waiters: Vec::new(),
            end: None,
            is_recovered: false,
            turn: turn.clone(),
            start: starts.fetch_add(1, Ordering::Relaxed),
        })
    }
}
