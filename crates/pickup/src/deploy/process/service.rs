//! The program of one pickup: its listeners, its instances, and which of them serves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::carry::Carriers;
use super::command::Command;
use super::instance::{self, Instance};
use super::listen::{self, Listeners};
use super::notification::Notify;
use super::output::{self, Output};
use super::proc;
use super::record::{Finish, Record, Records, Spec};
use super::spawn;
use super::tend::Tend;
use crate::config::{ListenAddress, ProcessConfig};
use crate::deploy::release::{RELEASES, build};
use crate::deploy::{Context, Reporter, expand};
use crate::error::{Error, Result};

/// The program of one pickup.
pub(super) struct Service {
    pub(super) config: Arc<ProcessConfig>,
    /// The deployer's name.
    deployer: String,
    /// What it belongs to, for log lines and names.
    pub(super) pickup: String,
    /// The directory that holds `releases/`.
    pub(super) into: PathBuf,
    pub(super) records: Records,
    pub(super) reporter: Reporter,
    /// Cancelled when the service is left, or over.
    pub(super) cancel: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) carriers: Carriers,
    /// The release that was staged last: held while one is built or others are removed.
    releases: Mutex<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    listeners: Option<Arc<Listeners>>,
    /// Everything that runs, by generation.
    instances: BTreeMap<u64, Arc<Instance>>,
    /// What is to serve.
    current: Option<u64>,
    keeper: Option<JoinHandle<()>>,
}

impl Service {
    /// Opens the service, and finds what an earlier run of ours left running.
    pub(super) fn open(config: &Arc<ProcessConfig>, deployer: &str, pickup: &str, cx: &Context) -> Result<Arc<Self>> {
        let home = cx.home();
        let into = config.into.as_ref().map(|into| expand::directory(into, pickup)).transpose()?;
        let service = Arc::new(Self {
            config: config.clone(),
            deployer: deployer.into(),
            pickup: pickup.into(),
            into: into.unwrap_or_else(|| home.to_path_buf()),
            records: Records::open(home)?,
            reporter: cx.reporter().clone(),
            cancel: CancellationToken::new(),
            tasks: TaskTracker::new(),
            carriers: Carriers::default(),
            releases: Mutex::default(),
            state: Mutex::default(),
        });
        for (record, pid) in service.records.recall()? {
            service.adopt(record, pid);
        }
        Ok(service)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The living instance of a generation.
    pub(super) fn instance(&self, generation: u64) -> Option<Arc<Instance>> {
        self.last_instance(generation).filter(|instance| instance.is_alive())
    }

    /// The instance of a generation, also one that has ended by itself.
    pub(super) fn last_instance(&self, generation: u64) -> Option<Arc<Instance>> {
        self.state().instances.get(&generation).cloned()
    }

    pub(super) fn instances(&self) -> Vec<Arc<Instance>> {
        self.state().instances.values().filter(|instance| instance.is_alive()).cloned().collect()
    }

    pub(super) fn current(&self) -> Option<u64> {
        self.state().current
    }

    /// Takes up an instance that outlived us.
    fn adopt(self: &Arc<Self>, mut record: Record, pid: i32) {
        let (pickup, generation) = (&self.pickup, record.spec.generation);
        record.started = proc::stat(pid).map(|stat| stat.started);
        record.pid.get_or_insert(pid);
        let instance = Arc::new(Instance::new(&record, pid, &self.config, self.reporter.clone()));
        // It need not say again what it said to an earlier run of ours.
        instance.life.send_modify(|life| life.is_ready = true);
        let offset = self.records.read_to(&record.token);
        match Notify::open(&instance.token).and_then(|notify| self.tend(&instance, notify, offset)) {
            Ok(()) => {
                tracing::info!(pickup, generation, pid, "found running");
                // Two instances of one generation: only one of them is to be.
                if let Some(other) = self.state().instances.insert(generation, instance) {
                    other.kill();
                }
            }
            Err(error) => {
                tracing::error!(pickup, generation, pid, %error, "cannot look after what still runs; it is killed");
                instance.kill();
            }
        }
    }

    fn tend(&self, instance: &Arc<Instance>, notify: Notify, offset: u64) -> Result<()> {
        let process = spawn::watched(instance::open(instance.main())?)
            .map_err(|error| Error::deploy("wait for a process").caused_by(error).transient())?;
        let tend = Tend {
            instance: instance.clone(),
            records: self.records.clone(),
            notify,
            output: Output::open(&self.records.output(&instance.token), offset)?,
            process,
            watchdog: self.config.watchdog,
            health_interval: self.config.health_interval,
            cancel: self.cancel.clone(),
        };
        self.tasks.spawn(tend.run());
        Ok(())
    }

    /// Where the listeners listen.
    fn addresses(&self) -> BTreeMap<String, ListenAddress> {
        self.config.listen.iter().map(|(name, address)| (name.clone(), address.of(&self.pickup))).collect()
    }

    /// The listeners, opened by the first who asks.
    pub(super) fn listeners(&self) -> Result<Arc<Listeners>> {
        let mut state = self.state();
        if let Some(listeners) = &state.listeners {
            return Ok(listeners.clone());
        }
        let addresses = self.addresses();
        let running: Vec<Record> = self.records.recall()?.into_iter().map(|(record, _)| record).collect();
        let listeners = Arc::new(Listeners::open(&addresses, &running)?);
        let carried = self.config.carried();
        for (name, listener) in listeners.iter().filter(|(name, _)| carried.contains(name)) {
            self.carriers.carry(name, listen::share(listener)?, &self.tasks, &self.cancel)?;
        }
        state.listeners = Some(listeners.clone());
        Ok(listeners)
    }

    /// Starts the program, and does not wait for it.
    pub(super) fn launch(self: &Arc<Self>, spec: &Spec) -> Result<Arc<Instance>> {
        let listeners = self.listeners()?;
        let carried = self.config.carried();
        let ports = carried.iter().map(|name| Ok(((*name).to_owned(), listen::free_port()?)));
        let mut record = Record {
            spec: spec.clone(),
            token: token(spec.generation),
            boot: proc::boot(),
            pid: None,
            started: None,
            ports: ports.collect::<Result<_>>()?,
            sockets: listeners.inodes(),
            addresses: self.addresses(),
            deployer: self.deployer.clone(),
            finish: Finish::of(&self.config),
        };
        self.records.write(&record)?;
        match self.launch_as(&mut record, &listeners) {
            Ok(instance) => Ok(instance),
            Err(error) => {
                // Should it run all the same, its environment says whose it is.
                let members = proc::members(record.pid.unwrap_or(-1), &record.token);
                members.iter().for_each(|(pid, _)| kill(*pid));
                self.records.remove(&record.token);
                Err(error)
            }
        }
    }

    fn launch_as(self: &Arc<Self>, record: &mut Record, listeners: &Listeners) -> Result<Arc<Instance>> {
        let notify = Notify::open(&record.token)?;
        let command = Command { config: &self.config, record, listeners, notify: &notify };
        let output = output::create(&self.records.output(&record.token))?;
        let pid = command.launch(output, self.records.pid_file(&record.token)?)?.start()?;
        record.pid = Some(pid);
        record.started = proc::stat(pid).map(|stat| stat.started);
        self.records.write(record)?;
        let instance = Arc::new(Instance::new(record, pid, &self.config, self.reporter.clone()));
        self.tend(&instance, notify, 0)?;
        let replaced = self.state().instances.insert(record.spec.generation, instance.clone());
        if let Some(other) = replaced.filter(|other| other.is_alive()) {
            other.kill();
        }
        instance.say(crate::deploy::Happening::Started { pid });
        Ok(instance)
    }

    /// Connections that come now go to this instance.
    pub(super) fn route(&self, instance: &Instance) {
        self.carriers.route(instance.spec.generation, &instance.ports);
    }

    /// Stops every instance, each within `drain`.
    pub(super) async fn stop_all(&self, drain: Duration) -> Result<()> {
        self.stop_these(self.instances(), drain).await
    }

    /// Stops these instances, each within `drain`.
    pub(super) async fn stop_these(&self, instances: Vec<Arc<Instance>>, drain: Duration) -> Result<()> {
        let mut result = Ok(());
        // All at once: each has its own deadline.
        let mut stopping: Vec<_> = Vec::new();
        for instance in instances {
            stopping.push(tokio::spawn(async move { instance.stop(drain).await }));
        }
        for stopped in stopping {
            if let Ok(Err(error)) = stopped.await {
                result = Err(error);
            }
        }
        self.state().instances.retain(|_, instance| instance.is_alive());
        result
    }

    /// Stops one generation. One that is not there is stopped.
    pub(super) async fn stop(&self, generation: u64, drain: Duration) -> Result<()> {
        let Some(instance) = self.instance(generation) else { return Ok(()) };
        instance.stop(drain).await?;
        self.state().instances.remove(&generation);
        Ok(())
    }

    /// From now on, `generation` is to serve, and `keeper` sees to it.
    pub(super) fn set_current(&self, generation: Option<u64>, keeper: Option<JoinHandle<()>>) {
        let mut state = self.state();
        state.current = generation;
        if let Some(former) = std::mem::replace(&mut state.keeper, keeper) {
            former.abort();
        }
    }

    /// Lets nobody start anything any more.
    pub(super) async fn dismiss_keeper(&self) {
        let former = self.state().keeper.take();
        if let Some(former) = former {
            former.abort();
            // It is cancelled; what it had started is among the instances.
            let _cancelled = former.await;
        }
    }

    /// Finds or builds a release by `build`, and keeps it from being removed before anything runs in it.
    pub(super) fn stage(&self, build: impl FnOnce(&Path) -> Result<(PathBuf, bool)>) -> Result<(PathBuf, bool)> {
        let mut staged = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        let built = build(&self.into)?;
        staged.clone_from(&built.0);
        Ok(built)
    }

    /// Removes the releases that nothing runs in, but the one of `spec`.
    pub(super) fn clean(&self, spec: &Spec) {
        let name = |release: &Path| release.file_name().map(|name| name.to_string_lossy().into_owned());
        let mut pinned: Vec<String> =
            self.instances().iter().filter_map(|instance| name(&instance.spec.release)).collect();
        let staged = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        pinned.extend(name(&spec.release).into_iter().chain(name(&staged)));
        let pinned: Vec<&str> = pinned.iter().map(String::as_str).collect();
        if let Err(error) = build::clean(&self.into.join(RELEASES), 1, &pinned) {
            tracing::warn!(pickup = self.pickup, %error, "cannot remove old releases");
        }
    }

    /// Lets go of everything; what runs, runs on.
    pub(super) async fn leave(&self) {
        self.dismiss_keeper().await;
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let mut state = self.state();
        state.listeners = None;
        state.instances.retain(|_, instance| instance.is_active.load(Ordering::Relaxed));
    }

    /// As [`leave`](Self::leave), where nothing is left that could serve: what is in the file system of the listeners goes, too.
    pub(super) async fn close(&self) {
        self.leave().await;
        self.addresses().values().for_each(listen::remove);
    }

    /// Waits for what goes on in the background.
    pub(super) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = work => {}
            }
        });
    }
}

fn kill(pid: i32) {
    if let Ok(process) = instance::open(pid) {
        let _gone = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL);
    }
}

/// A name that no other instance has, on this machine or in an earlier run.
fn token(generation: u64) -> String {
    use std::hash::{BuildHasher, Hasher};
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!("{generation}-{random:016x}")
}
