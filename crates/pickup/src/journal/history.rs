//! What was deployed, when, and how it ended: the rows that users see.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use super::brief::{self, Brief};
use super::content::{index, load_json, load_kind, load_path, optional_digest};
use super::deployment::parse_state;
use super::state::GroupState;
use super::{Attempt, DeploymentId, Fault, Journal, Result};
use crate::capture::Digest;
use crate::change::ChangeKind;
use crate::path::UnitPath;
use crate::source::git::Revision;

/// How many changes of one deployment are listed; the others are counted.
const CHANGES_MAX: usize = 100;

/// What made a deployment happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Something changed in the pickup directory or its repository.
    Change,
    /// It was found at start.
    Start,
    /// Somebody asked for everything to be looked at.
    Sync,
    /// Somebody asked for an earlier generation.
    Rollback {
        /// The generation that was asked for.
        to: u64,
    },
    /// An earlier failure was tried again.
    Retry,
}

/// How a deployment ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has not ended yet, or the process died and recovery has not run.
    Open,
    /// All of it is live.
    Applied,
    /// None of it is live; what was live before still is.
    RolledBack {
        /// Why.
        cause: String,
        /// What the deployer that failed said, its last 16 KiB.
        output: String,
    },
    /// Some transaction groups are live, the others were rolled back.
    Partial {
        /// How many are live.
        applied: u64,
        /// How many were rolled back.
        rolled_back: u64,
        /// Why the first of these was.
        cause: String,
        /// What the deployer that failed said, its last 16 KiB.
        output: String,
    },
    /// It failed, and so did the way back, for at least one transaction group: somebody must look.
    Stuck {
        /// Why it failed.
        cause: String,
        /// Why the way back failed.
        undo_errors: Vec<String>,
    },
}

/// One unit that a deployment changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentChange {
    /// Its path below the pickup directory.
    pub path: UnitPath,
    /// What happened to it.
    pub kind: ChangeKind,
    /// The identity of its new content; `None` exactly when it was removed.
    pub digest: Option<Digest>,
}

/// One attempt to bring a change set live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// The name of the pickup.
    pub pickup: String,
    /// Its generation, counted from 1 for each pickup.
    pub generation: u64,
    /// When it began, in milliseconds since the epoch.
    pub started_at: i64,
    /// When it ended, in milliseconds since the epoch.
    pub finished_at: Option<i64>,
    /// What made it happen.
    pub origin: Origin,
    /// The git commit it comes from, if it comes from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<Revision>,
    /// How it ended.
    pub outcome: Outcome,
    /// What it changed: the first 100 units.
    pub changes: Vec<DeploymentChange>,
    /// How many units it changed.
    pub changes_total: u64,
}

impl Deployment {
    /// Why it failed, if it did.
    pub fn error(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Open | Outcome::Applied => None,
            Outcome::RolledBack { cause, .. } | Outcome::Partial { cause, .. } | Outcome::Stuck { cause, .. } => {
                Some(cause)
            }
        }
    }
}

impl Journal {
    /// The last `limit` deployments, of one pickup or of all, newest first.
    pub(crate) fn history(&self, pickup: Option<&str>, limit: usize) -> Result<Vec<Deployment>> {
        self.read(|view| {
            let mut list = view.prepare_cached(
                "SELECT deployment.id, pickup.name, deployment.generation, deployment.started_at,
                        deployment.finished_at, deployment.origin, deployment.revision
                 FROM deployment JOIN pickup ON pickup.id = deployment.pickup
                 WHERE ?1 IS NULL OR pickup.name = ?1 ORDER BY deployment.id DESC LIMIT ?2",
            )?;
            let rows = list.query_and_then(params![pickup, index(limit)], |row| {
                let id: i64 = row.get(0)?;
                let finished_at: Option<i64> = row.get(4)?;
                let brief = brief::find(view, DeploymentId(id))?;
                let (changes, changes_total) =
                    brief.as_ref().map_or_else(|| changes(view, id), |(brief, _)| Ok(first_changes(brief)))?;
                let outcome = match brief {
                    // What fails is written out.
                    Some((_, GroupState::Committed | GroupState::Retired)) => Outcome::Applied,
                    Some(_) => Outcome::Open,
                    None => outcome(view, id, finished_at.is_some())?,
                };
                Ok(Deployment {
                    pickup: row.get(1)?,
                    generation: row.get::<_, i64>(2)?.cast_unsigned(),
                    started_at: row.get(3)?,
                    finished_at,
                    origin: load_json(row, 5)?.ok_or_else(|| Fault::Unexpected("an origin is missing".to_owned()))?,
                    revision: load_json(row, 6)?,
                    outcome,
                    changes,
                    changes_total,
                })
            })?;
            rows.collect()
        })
    }
}

/// The first changes of a deployment, and how many there are.
fn changes(view: &Connection, deployment: i64) -> Attempt<(Vec<DeploymentChange>, u64)> {
    // Deployers that knew different versions of a unit before can give it two changes.
    let mut count =
        view.prepare_cached("SELECT count(*) FROM (SELECT DISTINCT in_group, path FROM change WHERE deployment = ?1)")?;
    let total: i64 = count.query_row([deployment], |row| row.get(0))?;
    let mut list = view.prepare_cached(
        "SELECT path, kind, content, min(number) FROM change
         WHERE deployment = ?1 GROUP BY in_group, path ORDER BY in_group, min(number) LIMIT ?2",
    )?;
    let rows = list.query_and_then([deployment, index(CHANGES_MAX)], |row| {
        Ok(DeploymentChange { path: load_path(row, 0)?, kind: load_kind(row, 1)?, digest: optional_digest(row, 2)? })
    })?;
    Ok((rows.collect::<Attempt<_>>()?, total.cast_unsigned()))
}

/// The same of a brief one.
fn first_changes(brief: &Brief) -> (Vec<DeploymentChange>, u64) {
    let mut changes = brief.changes();
    let total = changes.len() as u64;
    changes.truncate(CHANGES_MAX);
    (changes, total)
}

/// What follows from the states of the groups. Once each is decided nothing changes it, whatever is left to clean up.
fn outcome(view: &Connection, deployment: i64, is_finished: bool) -> Attempt<Outcome> {
    let (mut applied, mut rolled_back) = (0, 0);
    let (mut first_revert, mut first_stuck) = (None, None);
    let mut undo_errors = Vec::new();
    let mut groups = view.prepare_cached(
        "SELECT state, cause, output, undo_errors FROM step_group WHERE deployment = ?1 ORDER BY number",
    )?;
    let mut groups = groups.query([deployment])?;
    while let Some(row) = groups.next()? {
        let cause = || row.get::<_, Option<String>>(1).map(Option::unwrap_or_default);
        match parse_state(&row.get::<_, String>(0)?)? {
            GroupState::Intended | GroupState::Staged if !is_finished => return Ok(Outcome::Open),
            GroupState::Committed | GroupState::Retired => applied += 1,
            // A deployment is not finished before its groups are; should one be, nothing of it is live.
            GroupState::Intended | GroupState::Staged | GroupState::Reverted => {
                rolled_back += 1;
                if first_revert.is_none() {
                    first_revert = Some((cause()?, row.get::<_, Option<String>>(2)?.unwrap_or_default()));
                }
            }
            GroupState::Stuck => {
                undo_errors.extend(load_json::<Vec<String>>(row, 3)?.unwrap_or_default());
                if first_stuck.is_none() {
                    first_stuck = Some(cause()?);
                }
            }
        }
    }
    Ok(match (first_stuck, first_revert) {
        (Some(cause), _) => Outcome::Stuck { cause, undo_errors },
        (None, Some((cause, output))) if applied == 0 => Outcome::RolledBack { cause, output },
        (None, Some((cause, output))) => Outcome::Partial { applied, rolled_back, cause, output },
        (None, None) => Outcome::Applied,
    })
}
