//! A small intent in brief: one column of its deployment's row.
//!
//! Before anything is done, two pages are written instead of seven. Whatever is recorded of the deployment next writes the brief
//! out first, in the same transaction; whoever reads before that, as recovery does, reads the brief.

use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::deployment::Rows;
use super::history::DeploymentChange;
use super::{Attempt, DeploymentId, IntendedGroup, IntendedStep, Intent};
use crate::capture::{CapturedFile, Digest, Stored};
use crate::change::{Change, ChangeKind, Content};
use crate::deploy::Unit;
use crate::path::UnitPath;

/// More steps than this are not brief, and cost more twice than once.
const STEPS_MAX: usize = 8;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Brief {
    groups: Vec<Vec<Step>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Step {
    deployer: String,
    config_digest: String,
    unit: UnitChange,
    changes: Vec<UnitChange>,
    /// JSON, as in the columns they go to.
    old: Option<String>,
    staged: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct UnitChange {
    path: UnitPath,
    kind: ChangeKind,
    content: Option<File>,
    previous: Option<Digest>,
}

#[derive(Debug, Serialize, Deserialize)]
struct File {
    digest: Digest,
    size: u64,
    mode: u32,
}

impl Brief {
    /// `None` where it would not be brief, or not all of it is staged.
    pub(super) fn of(intent: &Intent) -> Option<Self> {
        let steps: usize = intent.groups.iter().map(|group| group.steps.len()).sum();
        if steps > STEPS_MAX || !intent.groups.iter().all(|group| group.is_staged) {
            return None;
        }
        let group = |group: &IntendedGroup| group.steps.iter().map(Step::of).collect();
        Some(Self { groups: intent.groups.iter().map(group).collect::<Option<_>>()? })
    }

    /// Its groups, with as much of their units as rows would tell: pickup, generation and revision are the deployment's.
    /// `store` is where contents are stored.
    pub(super) fn groups(self, stored: &Stored) -> Attempt<Vec<IntendedGroup>> {
        let group = |steps: Vec<Step>| -> Attempt<IntendedGroup> {
            let steps = steps.into_iter().map(|step| step.intended(stored)).collect::<Attempt<_>>()?;
            Ok(IntendedGroup { steps, is_staged: true })
        };
        self.groups.into_iter().map(group).collect()
    }

    /// What it changes, each unit of a group once.
    fn changes(&self) -> Vec<DeploymentChange> {
        let mut changes = Vec::new();
        for group in &self.groups {
            let mut seen = HashSet::new();
            let all = group.iter().flat_map(|step| &step.changes).filter(|change| seen.insert(&change.path));
            changes.extend(all.map(|change| DeploymentChange {
                path: change.path.clone(),
                kind: change.kind,
                digest: change.content.as_ref().map(|file| file.digest),
            }));
        }
        changes
    }

    pub(super) fn deployers(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().flatten().map(|step| step.deployer.as_str())
    }

    fn digests(&self) -> impl Iterator<Item = Digest> {
        let steps = self.groups.iter().flatten();
        let all = steps.flat_map(|step| step.changes.iter().chain([&step.unit]));
        all.filter_map(|change| change.content.as_ref()).map(|file| file.digest)
    }
}

impl Step {
    fn of(step: &IntendedStep) -> Option<Self> {
        let unit = &step.unit;
        Some(Self {
            deployer: step.deployer.clone(),
            config_digest: step.config_digest.clone(),
            unit: UnitChange::of(&unit.path, unit.change, unit.content.as_ref(), unit.previous)?,
            changes: unit
                .changes
                .iter()
                .map(|change| UnitChange::of(&change.path, change.kind, change.content.as_ref(), change.previous))
                .collect::<Option<_>>()?,
            old: step.old.as_ref().map(Value::to_string),
            staged: step.staged.as_ref().map(Value::to_string),
        })
    }

    fn intended(self, stored: &Stored) -> Attempt<IntendedStep> {
        let receipt = |json: Option<String>| json.map(|json| serde_json::from_str(&json)).transpose();
        let changes: Arc<[Change]> = self.changes.into_iter().map(|change| change.change(stored)).collect();
        let Change { path, kind, content, previous } = self.unit.change(stored);
        let unit = Unit {
            pickup: String::new(),
            path,
            change: kind,
            content,
            previous,
            generation: 0,
            changes,
            revision: None,
        };
        let (deployer, config_digest) = (self.deployer, self.config_digest);
        Ok(IntendedStep { deployer, config_digest, unit, old: receipt(self.old)?, staged: receipt(self.staged)? })
    }
}

impl UnitChange {
    fn of(path: &UnitPath, kind: ChangeKind, content: Option<&Content>, previous: Option<Digest>) -> Option<Self> {
        let content = match content {
            None => None,
            Some(Content::File(file)) => Some(File { digest: file.digest, size: file.size, mode: file.mode }),
            Some(Content::Tree(_)) => return None,
        };
        Some(Self { path: path.clone(), kind, content, previous })
    }

    fn change(self, stored: &Stored) -> Change {
        let file = |file: File| Content::File(CapturedFile::stored(file.digest, file.size, file.mode, stored));
        Change { path: self.path, kind: self.kind, content: self.content.map(file), previous: self.previous }
    }
}

/// Writes the deployment out, if it is brief.
pub(super) fn write_out(transaction: &Connection, id: DeploymentId) -> Attempt<()> {
    let Some(brief) = find(transaction, id)? else { return Ok(()) };
    let mut rows = Rows::new(transaction, id)?;
    // Rows do not say where the store is.
    for (number, group) in brief.groups(&Stored::nowhere())?.iter().enumerate() {
        rows.group(number, group)?;
    }
    transaction.prepare_cached("UPDATE deployment SET intent = NULL WHERE id = ?1")?.execute([id.0])?;
    Ok(())
}

/// The brief of a deployment, if it is brief.
pub(super) fn find(view: &Connection, id: DeploymentId) -> Attempt<Option<Brief>> {
    let mut find = view.prepare_cached("SELECT intent FROM deployment WHERE id = ?1")?;
    let json: Option<Option<String>> = find.query_row([id.0], |row| row.get(0)).optional()?;
    Ok(json.flatten().map(|json| serde_json::from_str(&json)).transpose()?)
}

/// What a brief deployment changes; `None` if it is not brief.
pub(super) fn changes(view: &Connection, id: i64) -> Attempt<Option<Vec<DeploymentChange>>> {
    Ok(find(view, DeploymentId(id))?.map(|brief| brief.changes()))
}

/// The digests of all files that brief deployments are about.
pub(super) fn digests(view: &Connection) -> Attempt<Vec<Digest>> {
    let mut list = view.prepare_cached("SELECT id FROM deployment WHERE finished_at IS NULL AND intent IS NOT NULL")?;
    let ids = list.query_map([], |row| row.get(0).map(DeploymentId))?;
    let mut digests = Vec::new();
    for id in ids {
        digests.extend(find(view, id?)?.iter().flat_map(Brief::digests));
    }
    Ok(digests)
}
