//! What runs: a thread for each usable entry, and a word on each entry that does not.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use globset::{Glob, GlobSet, GlobSetBuilder};
use tokio::sync::oneshot;

use super::inbox::Inbox;
use super::pickup::{Message, Pickup, Root};
use super::shared::{Bound, Shared};
use super::status::{Explanation, PickupStatus, State};
use crate::change::gather::Gathering;
use crate::config::{Config, DeployerConfig, PickupConfig, Severity};
use crate::deploy::Scope;
use crate::deploy::build::build;
use crate::deploy::dynamic::DynDeployer;
use crate::error::{Error, ErrorKind, Result};
use crate::settle::Settle;
use crate::source::ignore::Rules;
use crate::source::probe::Probe;

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

type Registered = BTreeMap<String, Arc<dyn DynDeployer>>;

impl Running {
    /// Makes what runs match `config`; gives the names of what was started, changed or stopped.
    pub(super) fn exchange(&mut self, shared: &Arc<Shared>, registered: &Registered, config: Config) -> Vec<String> {
        let mut changed = BTreeSet::new();
        let wanted: BTreeMap<String, (PickupConfig, Vec<DeployerConfig>)> = config
            .pickups
            .values()
            .filter(|pickup| pickup.enabled)
            .map(|pickup| (pickup.name.clone(), (pickup.clone(), deployers_of(&config, pickup))))
            .collect();
        let is_same = |name: &String, entry: &Entry| {
            wanted
                .get(name)
                .is_some_and(|(pickup, deployers)| *pickup == *entry.config && *deployers == entry.deployers)
        };
        let ending: Vec<String> =
            self.entries.iter().filter(|(name, entry)| !is_same(name, entry)).map(|(name, _)| name.clone()).collect();
        let ended: Vec<Entry> = ending.iter().filter_map(|name| self.entries.remove(name)).collect();
        changed.extend(ending);
        ended.iter().for_each(|entry| entry.inbox.message(Message::Stop));
        ended.into_iter().for_each(Entry::join);
        self.idle = idle(&config);
        for (name, (pickup, deployers)) in wanted {
            if self.entries.contains_key(&name) {
                continue;
            }
            match Entry::start(shared, registered, pickup, deployers) {
                Ok(entry) => {
                    self.entries.insert(name.clone(), entry);
                }
                Err(error) => {
                    tracing::error!(pickup = name, %error, "cannot start");
                    self.idle.insert(name.clone(), (State::Broken, error.to_string()));
                }
            }
            changed.insert(name);
        }
        changed.into_iter().collect()
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

    pub(super) fn tell_to_stop(&self) {
        self.entries.values().for_each(|entry| entry.inbox.message(Message::Stop));
    }

    /// Stops everything, and waits until it has.
    pub(super) fn stop_all(self) {
        self.tell_to_stop();
        self.entries.into_values().for_each(Entry::join);
    }
}

fn deployers_of(config: &Config, pickup: &PickupConfig) -> Vec<DeployerConfig> {
    pickup.deploy_to.iter().filter_map(|name| config.deployers.get(name).cloned()).collect()
}

/// Entries that are configured and do not run: broken ones, and those that are switched off.
fn idle(config: &Config) -> BTreeMap<String, (State, String)> {
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

    fn start(
        shared: &Arc<Shared>,
        registered: &Registered,
        config: PickupConfig,
        deployers: Vec<DeployerConfig>,
    ) -> Result<Self> {
        let config = Arc::new(config);
        let bound: Arc<[Bound]> = bind(registered, &config, &deployers)?.into();
        let rules = Rules::new(&config)?;
        let reopened = glob_set(&config.settle_patterns)?;
        let inbox = Arc::new(Inbox::new());
        let heard = inbox.clone();
        let subscriber = shared.watcher.subscribe(Arc::new(move |notice| heard.notice(notice)));
        let (shared, shared_config, own_inbox) = (shared.clone(), config.clone(), inbox.clone());
        let run = move || {
            // Leases are probed on this thread, which therefore has its own signal mask.
            match Probe::on_this_thread() {
                Ok(probe) => {
                    let parts = Parts { shared, config: shared_config, bound, rules, reopened, inbox: own_inbox };
                    parts.pickup(subscriber, probe).run();
                }
                Err(error) => tracing::error!(pickup = shared_config.name, %error, "cannot set up the thread"),
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
fn bind(registered: &Registered, config: &PickupConfig, deployers: &[DeployerConfig]) -> Result<Vec<Bound>> {
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
                (None, Some(configured)) => (build(configured)?, configured.common.clone()),
                (None, None) => {
                    let action = format!("use deployer `{name}`: it is neither configured nor registered");
                    return Err(Error::new(ErrorKind::Config, action));
                }
            };
            Ok(Bound { name: name.clone(), deployer, common, config_digest: config_digest.clone() })
        })
        .collect()
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
struct Parts {
    shared: Arc<Shared>,
    config: Arc<PickupConfig>,
    bound: Arc<[Bound]>,
    rules: Rules,
    reopened: GlobSet,
    inbox: Arc<Inbox<Message>>,
}

impl Parts {
    fn pickup(self, subscriber: u64, probe: Probe) -> Pickup {
        let Self { shared, config, bound, rules, reopened, inbox } = self;
        let now = shared.now();
        let is_by_unit = bound.iter().all(|bound| bound.deployer.scope() == Scope::Unit);
        Pickup {
            gathering: Gathering::new(Pickup::patience(&config, is_by_unit)),
            settle: Settle::new(config.settle),
            roots: config.pickup_from.iter().cloned().map(Root::new).collect(),
            next_rescan: now + config.rescan_interval,
            shared,
            config,
            deployers: bound,
            inbox,
            subscriber,
            probe,
            rules,
            reopened,
            known: BTreeMap::new(),
            unsaved: BTreeSet::new(),
            refused: BTreeMap::new(),
            live: BTreeMap::new(),
            generation: None,
            last_success: None,
            last_error: None,
            touched: BTreeSet::new(),
            since: HashMap::new(),
            seen_removed: BTreeSet::new(),
            paused: None,
            is_confirmed: false,
            failures: BTreeMap::new(),
            unrouted: BTreeMap::new(),
            held: None,
            pending_rollback: None,
            owed: Vec::new(),
            is_busy: false,
            in_hand: BTreeSet::new(),
            relook: BTreeSet::new(),
            trouble: None,
            pause_until: None,
            pause: Duration::ZERO,
            next_poll: None,
            waiters: Vec::new(),
            is_stopping: false,
        }
    }
}
