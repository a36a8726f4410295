//! What can be told without a running engine: the journal's records.

use std::path::Path;

use super::status::{LastError, PickupStatus, State};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Deployment, Journal};

/// The records in a state directory, for reading while no engine runs.
pub struct Records(Journal);

impl Records {
    /// Opens the records in `state_dir`.
    ///
    /// # Errors
    /// There are none, or they cannot be read.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let found = Journal::open_read_only(state_dir)?;
        let none = || Error::new(ErrorKind::NotFound, "find records of an earlier run in").at(state_dir);
        found.map(Self).ok_or_else(none)
    }

    /// Deployments, newest first, `limit` at most.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn history(&self, name: Option<&str>, limit: usize) -> Result<Vec<Deployment>> {
        self.0.history(name, limit)
    }

    /// What was live when the last engine stopped, of `name` or of every pickup.
    ///
    /// # Errors
    /// The journal cannot be read, or no pickup has that name.
    pub fn status(&self, name: Option<&str>) -> Result<Vec<PickupStatus>> {
        let mut names = self.0.pickups()?;
        names.retain(|known| name.is_none_or(|name| name == known));
        if let (Some(name), true) = (name, names.is_empty()) {
            return Err(Error::new(ErrorKind::NotFound, format!("find a pickup named `{name}` in the records")));
        }
        names.iter().map(|name| self.status_of(name)).collect()
    }

    fn status_of(&self, name: &str) -> Result<PickupStatus> {
        let mut status = PickupStatus::not_running(name, State::Stopped, "no daemon runs");
        status.generation = self.0.live_generation(name)?;
        status.held = self.0.held(name)?;
        if let Some(generation) = status.generation {
            status.units = self.0.contents_at(name, generation)?.len();
        }
        let history = self.0.history(Some(name), 100)?;
        let applied = |deployment: &&Deployment| matches!(deployment.outcome, crate::journal::Outcome::Applied);
        status.last_success = history.iter().find(applied).and_then(|deployment| deployment.finished_at);
        let failed = history.iter().find_map(|deployment| Some((deployment.started_at, deployment.error()?)));
        status.last_error = failed.map(|(at, cause)| LastError { at, cause: cause.to_string() });
        Ok(status)
    }

    /// Whether a unit is recorded as live: the records' answer to `why`.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn live_units(&self, name: &str) -> Result<Vec<crate::path::UnitPath>> {
        match self.0.live_generation(name)? {
            Some(generation) => Ok(self.0.contents_at(name, generation)?.into_keys().collect()),
            None => Ok(Vec::new()),
        }
    }

    /// The names of the pickups that have records.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn pickups(&self) -> Result<Vec<String>> {
        self.0.pickups()
    }
}
