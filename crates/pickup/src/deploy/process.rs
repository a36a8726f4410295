//! `kind = "process"`: a supervised program, redeployed without losing a request.
//!
//! The listeners are ours and stay open; each generation of the program gets them, proves itself beside the one before,
//! and only then that one is asked to finish. What runs is also on disk (`record`), so that a crash of ours ends with it
//! taken up or stopped, and never with two.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::change::Content;
use crate::config::{ProcessConfig, ReleaseConfig};
use crate::deploy::lane::{self, Lanes, Stop};
use crate::deploy::release::RELEASES;
use crate::deploy::release::build::{self, Builder};
use crate::deploy::{Context, Deployer, Ending, Observed, Scope, Unit};
use crate::error::{Error, ErrorKind, IoContext, Result};

mod carry;
mod command;
mod instance;
mod keeper;
mod listen;
mod notification;
mod output;
mod proc;
mod ready;
mod record;
mod service;
mod spawn;
mod start;
mod tend;
pub(crate) mod unclaimed;
mod user;

use record::Spec;
use service::Service;

/// Runs a program from an immutable release of the pickup, and keeps it running.
pub struct Process {
    config: Arc<ProcessConfig>,
    name: String,
    services: Mutex<HashMap<String, Arc<Service>>>,
    lanes: Lanes,
}

/// A release that is not run yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Staged {
    spec: Spec,
    /// Whether a revert removes the release: not if it was there before.
    is_new: bool,
}

/// What runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Live {
    spec: Spec,
    /// The process it was activated as; one that was restarted since is in the records.
    pid: Option<i32>,
    /// When that process started, in clock ticks since the boot.
    started: Option<u64>,
}

impl Process {
    /// Makes the deployer that the section called `name` describes.
    ///
    /// # Errors
    /// The command names no program, or the user is not known.
    pub fn new(config: ProcessConfig, name: &str) -> Result<Self> {
        if config.command.first().is_none_or(String::is_empty) {
            return Err(Error::new(ErrorKind::Config, "run a command without a program"));
        }
        if let Some(user) = &config.user {
            user::User::look_up(user)?;
        }
        Ok(Self { config: Arc::new(config), name: name.into(), services: Mutex::default(), lanes: Lanes::default() })
    }

    fn service(&self, pickup: &str, cx: &Context) -> Result<Arc<Service>> {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(service) = services.get(pickup) {
            return Ok(service.clone());
        }
        let service = Service::open(&self.config, &self.name, pickup, cx)?;
        services.insert(pickup.to_owned(), service.clone());
        Ok(service)
    }
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("name", &self.name).field("config", &self.config).finish_non_exhaustive()
    }
}

impl Deployer for Process {
    type Staged = Staged;
    type Live = Live;

    /// A pickup is one program, whatever it consists of.
    fn scope(&self) -> Scope {
        Scope::Pickup
    }

    async fn check(&self, _cx: &Context, unit: &Unit, _old: Option<&Live>) -> Result<()> {
        let program = self.config.command.first().map(String::as_str).unwrap_or_default();
        let is_filled = program.contains('{');
        if let Some(below) = below_release(program).filter(|_| !is_filled)
            && let Some(Content::Tree(files)) = &unit.content
            && !files.is_empty()
        {
            let found = files.iter().find(|file| file.path.as_path() == below);
            let Some(found) = found else {
                return Err(Error::deploy(format!("run {program}: there is no such file in the pickup")));
            };
            if found.file.mode & 0o111 == 0 {
                return Err(Error::deploy(format!("run {program}: it is not executable")));
            }
        }
        Ok(())
    }

    async fn stage(&self, cx: &Context, unit: &Unit, _old: Option<&Live>) -> Result<Staged> {
        let service = self.service(&unit.pickup, cx)?;
        let digest = unit.digest().ok_or_else(|| Error::deploy("run nothing"))?;
        let units = unit.changes.iter().map(|change| change.path.clone()).collect();
        let mut spec =
            Spec { pickup: unit.pickup.clone(), generation: unit.generation, digest, release: PathBuf::new(), units };
        if is_empty(unit) {
            // Everything was removed: the program goes once this is committed.
            return Ok(Staged { spec, is_new: false });
        }
        let live = service.current().and_then(|generation| service.instance(generation));
        let live = live.and_then(|live| Some(live.spec.release.file_name()?.to_str()?.to_owned()));
        let (subject, builder) = (unit.clone(), service.clone());
        let is_small = lane::is_small(unit.content.as_ref());
        let build = move |stop: &Stop| builder.stage(|into| build_release(into, &subject, live.as_deref(), stop));
        let (release, is_new) = self.lanes.run(cx, unit, is_small, build).await?;
        spec.release = release;
        // Before anything is started: an address that cannot be had is known now.
        service.listeners()?;
        Ok(Staged { spec, is_new })
    }

    async fn activate(&self, cx: &Context, unit: &Unit, staged: &Staged, old: Option<&Live>) -> Result<Live> {
        let service = self.service(&unit.pickup, cx)?;
        let spec = &staged.spec;
        if spec.is_empty() {
            return Ok(Live { spec: spec.clone(), pid: None, started: None });
        }
        if !self.config.overlap {
            service.set_current(None, None);
            service.carriers.hold();
            service.dismiss_keeper().await;
            service.stop_all(self.config.drain_timeout).await?;
        } else if let Some(old) = old {
            // What was found running after a crash is kept from now on, should this one fail.
            service.take_up(&old.spec, cx).await;
        }
        let instance = service.bring_up(spec, cx).await?;
        let pid = instance.main();
        Ok(Live { spec: spec.clone(), pid: Some(pid), started: proc::stat(pid).map(|stat| stat.started) })
    }

    /// The old version still runs; whoever does not live through this goes.
    async fn verify(&self, cx: &Context, unit: &Unit, live: &Live) -> Result<()> {
        let service = self.service(&unit.pickup, cx)?;
        if live.spec.is_empty() {
            return Ok(());
        }
        let gone = || Error::deploy(format!("keep generation {}: it is gone", live.spec.generation));
        // One that has ended since tells how.
        let instance = service.last_instance(live.spec.generation).ok_or_else(gone)?;
        let proven = ready::probation(&self.config, &instance, cx).await;
        if proven.is_err() {
            cx.output(&instance.tail());
        }
        proven
    }

    async fn revert(&self, cx: &Context, unit: &Unit, staged: &Staged, old: Option<&Live>) -> Result<()> {
        let service = self.service(&unit.pickup, cx)?;
        let spec = &staged.spec;
        let old = old.filter(|old| old.spec.generation != spec.generation);
        let running = old.and_then(|old| service.instance(old.spec.generation));
        if let Some(running) = running.filter(|running| !running.is_stopping()) {
            // It never stopped: connections go there again before the other one is stopped.
            service.route(&running);
        }
        if service.current() == Some(spec.generation) {
            service.set_current(None, None);
            service.dismiss_keeper().await;
        }
        service.stop(spec.generation, service.failed_drain()).await?;
        if let Some(old) = old {
            service.ensure(&old.spec, cx).await?;
        }
        if staged.is_new && old.is_none_or(|old| old.spec.release != spec.release) {
            discard(&spec.release)?;
        }
        Ok(())
    }

    /// The new version is recorded: it is kept, and the old one finishes.
    async fn retire(&self, cx: &Context, unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<()> {
        let service = self.service(&unit.pickup, cx)?;
        service.records.set_quarantined(None);
        service.keep(&staged.spec, cx).await;
        service.drain_others(&staged.spec);
        Ok(())
    }

    async fn remove(&self, cx: &Context, unit: &Unit, live: &Live) -> Result<()> {
        let service = self.service(&unit.pickup, cx)?;
        service.set_current(None, None);
        service.dismiss_keeper().await;
        service.stop_all(self.config.drain_timeout).await?;
        if live.spec.is_empty() { Ok(()) } else { discard(&live.spec.release) }
    }

    /// Takes up what runs, or starts it again from its release: after an end of ours it is not a change that it is gone.
    async fn observe(&self, cx: &Context, live: &Live) -> Result<Observed> {
        let service = self.service(&live.spec.pickup, cx)?;
        match service.ensure(&live.spec, cx).await {
            Ok(is_running) => {
                if !is_running {
                    let (pickup, generation) = (&live.spec.pickup, live.spec.generation);
                    tracing::warn!(pickup, generation, "it is quarantined, and not started again until it is retried");
                }
                service.drain_others(&live.spec);
                Ok(Observed::Alive)
            }
            Err(error) => Ok(Observed::Drifted(format!("cannot {error}"))),
        }
    }

    async fn shutdown(&self, cx: &Context, ending: Ending) -> Result<()> {
        let services: Vec<_> = {
            let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
            services.drain().map(|(_, service)| service).collect()
        };
        let runs_on = match ending {
            Ending::Engine => self.config.keep_running,
            Ending::Exchange => true,
            Ending::Entry => false,
        };
        let mut result = Ok(());
        for service in services {
            service.dismiss_keeper().await;
            if !runs_on {
                let left = cx.deadline().saturating_duration_since(tokio::time::Instant::now().into_std());
                // A killing takes its time, too.
                let drain = self.config.drain_timeout.min(left.saturating_sub(Duration::from_secs(2)));
                result = service.stop_all(drain).await.and(result);
                service.close().await;
            } else {
                service.leave().await;
            }
        }
        result
    }
}

/// The path in the release of a program such as `./bin/server`.
fn below_release(program: &str) -> Option<&Path> {
    let path = Path::new(program.strip_prefix("./").unwrap_or(program));
    (program.contains('/') && path.is_relative() && !path.starts_with("..")).then_some(path)
}

fn is_empty(unit: &Unit) -> bool {
    match &unit.content {
        None => true,
        Some(Content::Tree(files)) => files.is_empty(),
        Some(Content::File(_)) => false,
    }
}

/// Builds the release, or finds it; gives its directory, and whether it is ours to take back.
fn build_release(into: &Path, unit: &Unit, live: Option<&str>, stop: &Stop) -> Result<(PathBuf, bool)> {
    let config = ReleaseConfig {
        into: String::new(),
        keep: 1,
        link: "current".into(),
        shared: Vec::new(),
        // Whatever is lost with the machine is built again from the content store.
        durable: false,
    };
    let releases = into.join(RELEASES);
    #[expect(clippy::disallowed_methods, reason = "releases are ours to make")]
    std::fs::create_dir_all(&releases).doing("create the directory", &releases)?;
    let builder = Builder::new(into, &config, unit, stop)?;
    let (name, is_new) = match builder.find_built(live)? {
        Some(name) => (name, false),
        None => (builder.build(live)?, true),
    };
    let is_ours = name == builder.name() && live != Some(&name);
    Ok((releases.join(name), is_new || is_ours))
}

fn discard(release: &Path) -> Result<()> {
    match (release.parent(), release.file_name().and_then(|name| name.to_str())) {
        (Some(releases), Some(name)) => build::delete(releases, name),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
