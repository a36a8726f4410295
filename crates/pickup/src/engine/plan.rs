//! Asking for a plan: of a running engine, or of one that is not started.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::aside::Real;
use super::message::Message;
use super::planned::{PlanOptions, PlanReport};
use super::rehearse::{Rehearsal, cut_off};
use super::running::{bind, deployers_of, idle};
use super::shared::{Clock, Shared};
use super::status::State;
use super::{Builder, Engine};
use crate::deploy::Reporter;
use crate::error::{Error, ErrorKind, Result};

impl Engine {
    /// Says what a [`sync`](Self::sync) of now would deploy, and does nothing of it: in which change sets and groups, by
    /// which deployers, what these object to, and what would wait.
    ///
    /// Everything is compared anew, and remotes are asked, beside what the engine is doing: nothing it knows, and nothing
    /// that is live, is changed by it. Of the deployers only `accepts` and `check` are called. Files that changed are read
    /// into a place of their own in the state directory, which is removed again; a mirror is fetched into such a place.
    ///
    /// # Errors
    /// No pickup has that name, or the engine is stopping.
    pub async fn plan(&self, name: Option<&str>, options: PlanOptions) -> Result<Vec<PlanReport>> {
        let asked = self.state().ask(name, |reply| Message::Plan { options, reply });
        if let (Some(name), true) = (name, asked.is_empty()) {
            return Err(self.unknown(name));
        }
        let broken = self.state().not_running(name);
        let broken = broken.into_iter().filter(|status| status.state == State::Broken);
        let mut reports: Vec<PlanReport> =
            broken.map(|status| PlanReport::broken(&status.name, status.trouble.unwrap_or_default())).collect();
        for (name, reply) in asked {
            let planned = reply.await.map_err(|_| super::stopping())?;
            reports.push(planned.unwrap_or_else(|error| PlanReport::broken(&name, format!("cannot {error}"))));
        }
        reports.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(reports)
    }
}

impl Builder {
    /// Says what a start of now would deploy, and neither starts nor does anything of it; see [`Engine::plan`].
    ///
    /// What a crash cut off is left as it is and reported. The state directory is left as it was, and made for a moment
    /// if there is none.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] if an engine runs on the state directory: that one has to be asked. No pickup has that name;
    /// the state directory cannot be written, or its journal not be read.
    pub async fn plan(self, name: Option<&str>, options: PlanOptions) -> Result<Vec<PlanReport>> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| Error::new(ErrorKind::Config, "plan outside a tokio runtime").caused_by(error))?;
        let settings = &self.config.settings;
        let state_dir = std::path::absolute(&settings.state_dir)
            .map_err(|error| Error::io("resolve", &settings.state_dir, error))?;
        check_unlocked(&state_dir)?;
        let real = Real {
            state_dir,
            store_max: settings.store_max,
            git_worker: self.git_worker.clone(),
            module_probe: self.module_probe.clone(),
            clock: Clock::system(),
            runtime,
            cancel: CancellationToken::new(),
        };
        let is_asked = |known: &str| name.is_none_or(|name| name == known);
        let broken =
            idle(&self.config).into_iter().filter(|(known, (state, _))| is_asked(known) && *state == State::Broken);
        let mut reports: Vec<PlanReport> = broken.map(|(name, (_, why))| PlanReport::broken(&name, why)).collect();
        for pickup in self.config.pickups.values().filter(|pickup| pickup.enabled && is_asked(&pickup.name)) {
            let (registered, deployers) = (self.registered.clone(), deployers_of(&self.config, pickup));
            let config = Arc::new(pickup.clone());
            let entry = config.clone();
            let bind = move |shared: &Shared| {
                Ok(bind(shared, &registered, &entry, &deployers, |_| Reporter::default())?.into())
            };
            let (reply, answer) = oneshot::channel();
            Rehearsal { real: real.clone(), config, bind, memory: None, options }.spawn(reply);
            let planned = answer.await.unwrap_or_else(|_| Err(cut_off()));
            reports.push(planned.unwrap_or_else(|error| PlanReport::broken(&pickup.name, format!("cannot {error}"))));
        }
        if let (Some(name), true) = (name, reports.is_empty()) {
            return Err(Error::new(ErrorKind::NotFound, format!("find a pickup named `{name}` that is enabled")));
        }
        reports.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(reports)
    }
}

/// Makes sure that no engine runs on the state directory. One may start later: that harms nobody.
#[expect(clippy::disallowed_methods, reason = "the engine owns the state directory")]
fn check_unlocked(state_dir: &Path) -> Result<()> {
    let path = state_dir.join("lock");
    let lock = match std::fs::File::options().write(true).open(&path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(std::fs::TryLockError::WouldBlock) => {
            let why = "a daemon runs on it; ask that one: `pickupd sync --dry-run`";
            Err(Error::new(ErrorKind::Busy, "plan beside the state directory").at(state_dir).caused_by(why))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(Error::io("lock", path, error)),
    }
}
