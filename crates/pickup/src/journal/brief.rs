//! A deployment in brief: one row says what it is about, and a column of its own row how far all of it has come.
//!
//! Where nothing that was staged lies about and all of it goes live at once, no more is ever written: a deployment of a thousand
//! units is two rows instead of three for each of them. Whatever is recorded of a part of it, or fails, writes it out first, in the
//! same transaction. Whoever reads, as recovery and the history do, reads the brief.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::deployment::parse_state;
use super::history::DeploymentChange;
use super::rows::Rows;
use super::{Attempt, DeploymentId, Fault, GroupState, IntendedGroup, IntendedStep, Intent, later};
use crate::capture::{CapturedFile, Digest, Stored};
use crate::change::live::Kept;
use crate::change::{Change, ChangeKind, Content};
use crate::deploy::Unit;
use crate::path::UnitPath;

/// More steps than this are not read at once.
const STEPS_MAX: usize = 1024;

/// A receipt of more bytes is not brief: the history keeps what is.
const RECEIPT_MAX: usize = 64;

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Brief {
    deployers: Vec<Deployer>,
    pub groups: Vec<Vec<Step>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Deployer {
    pub name: String,
    pub config_digest: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Step {
    /// Its place among the deployers.
    deployer: usize,
    pub unit: UnitChange,
    /// Mostly it is that of the unit.
    #[serde(default)]
    changes: Option<Vec<UnitChange>>,
    /// JSON, as in the columns they would go to.
    #[serde(default)]
    old: Option<String>,
    #[serde(default)]
    staged: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct UnitChange {
    pub path: UnitPath,
    kind: ChangeKind,
    #[serde(default)]
    pub content: Option<File>,
    #[serde(default)]
    previous: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct File {
    pub digest: Digest,
    pub size: u64,
    pub mode: u32,
}

// As lists: the names of the fields would be half of it. Whoever reads takes both, since older journals have the names.

impl Serialize for Step {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.deployer, &self.unit, &self.changes, &self.old, &self.staged).serialize(serializer)
    }
}

impl Serialize for UnitChange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.path, self.kind, &self.content, self.previous).serialize(serializer)
    }
}

impl Serialize for File {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.digest, self.size, self.mode).serialize(serializer)
    }
}

impl Brief {
    /// `None` where it would not be brief, or not all of it is staged.
    pub(super) fn of(intent: &Intent<'_>) -> Option<Self> {
        let steps: usize = intent.groups.iter().map(|group| group.steps.len()).sum();
        if steps == 0 || steps > STEPS_MAX || !intent.groups.iter().all(|group| group.is_staged) {
            return None;
        }
        let mut brief = Self { deployers: Vec::new(), groups: Vec::with_capacity(intent.groups.len()) };
        for group in &intent.groups {
            let steps = group.steps.iter().map(|step| brief.step(step)).collect::<Option<_>>()?;
            brief.groups.push(steps);
        }
        Some(brief)
    }

    fn step(&mut self, step: &IntendedStep<'_>) -> Option<Step> {
        let same = |known: &Deployer| known.name == step.deployer && known.config_digest == step.config_digest;
        let deployer = self.deployers.iter().position(same).unwrap_or_else(|| {
            let (name, config_digest) = (step.deployer.to_string(), step.config_digest.to_string());
            self.deployers.push(Deployer { name, config_digest });
            self.deployers.len() - 1
        });
        let Unit { path, change, content, previous, changes, .. } = &*step.unit;
        let unit = UnitChange::of(path, *change, content.as_ref(), *previous)?;
        let of = |change: &Change| UnitChange::of(&change.path, change.kind, change.content.as_ref(), change.previous);
        // Mostly it stands for itself.
        let is_itself = matches!(&**changes, [change] if of(change).as_ref() == Some(&unit));
        let changes = if is_itself { None } else { Some(changes.iter().map(of).collect::<Option<Vec<_>>>()?) };
        Some(Step { deployer, unit, changes, old: small(step.old.as_deref())?, staged: small(step.staged.as_deref())? })
    }

    /// Stores it as that of the deployment.
    pub(super) fn save(&self, transaction: &Connection, id: DeploymentId) -> Attempt<()> {
        let mut insert = transaction.prepare_cached("INSERT INTO brief (deployment, intent) VALUES (?1, ?2)")?;
        insert.execute(params![id.0, serde_json::to_string(self)?])?;
        Ok(())
    }

    /// How many groups it has.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// The step with that number in the group with that number, and its deployer.
    pub(super) fn find(&self, group: usize, step: usize) -> Option<(&Step, &Deployer)> {
        let step = self.groups.get(group)?.get(step)?;
        Some((step, self.deployers.get(step.deployer)?))
    }

    /// All of its steps, each with its deployer.
    pub(super) fn steps(&self) -> impl Iterator<Item = (&Step, &Deployer)> {
        let steps = self.groups.iter().flatten();
        steps.filter_map(|step| Some((step, self.deployers.get(step.deployer)?)))
    }

    /// Its groups, with as much of their units as rows would tell: pickup, generation and revision are the deployment's.
    /// `store` is where contents are stored.
    pub(super) fn groups(self, stored: &Stored) -> Attempt<Vec<IntendedGroup<'static>>> {
        let Self { deployers, groups } = self;
        let group = |steps: Vec<Step>| -> Attempt<IntendedGroup<'static>> {
            let steps = steps.into_iter().map(|step| step.intended(&deployers, stored)).collect::<Attempt<_>>()?;
            Ok(IntendedGroup { steps, is_staged: true })
        };
        groups.into_iter().map(group).collect()
    }

    /// All that its steps change.
    pub(super) fn steps_changes(&self) -> impl Iterator<Item = &UnitChange> {
        self.groups.iter().flatten().flat_map(Step::changes)
    }

    /// What it changes, each unit of a group once.
    pub(super) fn changes(&self) -> Vec<DeploymentChange> {
        let mut changes = Vec::new();
        for group in &self.groups {
            let mut seen = HashSet::new();
            let all = group.iter().flat_map(Step::changes).filter(|change| seen.insert(&change.path));
            changes.extend(all.map(|change| DeploymentChange {
                path: change.path.clone(),
                kind: change.kind,
                digest: change.content.as_ref().map(|file| file.digest),
            }));
        }
        changes
    }

    pub(super) fn deployers(&self) -> impl Iterator<Item = &str> {
        self.deployers.iter().map(|deployer| deployer.name.as_str())
    }

    fn digests(&self) -> impl Iterator<Item = Digest> {
        let steps = self.groups.iter().flatten();
        let all = steps.flat_map(|step| step.changes().iter().chain([&step.unit]));
        all.filter_map(|change| change.content.as_ref()).map(|file| file.digest)
    }
}

impl Step {
    fn changes(&self) -> &[UnitChange] {
        self.changes.as_deref().unwrap_or(std::slice::from_ref(&self.unit))
    }

    fn intended(self, deployers: &[Deployer], stored: &Stored) -> Attempt<IntendedStep<'static>> {
        let receipt = |json: Option<String>| json.map(|json| serde_json::from_str(&json).map(Cow::Owned)).transpose();
        let changes: Arc<[Change]> = self.changes().iter().map(|change| change.change(stored)).collect();
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
        let deployer = deployers.get(self.deployer);
        let deployer = deployer.ok_or_else(|| Fault::Unexpected("a deployer is missing".to_owned()))?;
        let (deployer, config_digest) = (deployer.name.clone().into(), deployer.config_digest.clone().into());
        let unit = Cow::Owned(unit);
        Ok(IntendedStep { deployer, config_digest, unit, old: receipt(self.old)?, staged: receipt(self.staged)? })
    }
}

/// The receipt as JSON; `None` if it is too long.
fn small(receipt: Option<&Value>) -> Option<Option<String>> {
    let json = receipt.map(Value::to_string);
    json.as_ref().is_none_or(|json| json.len() <= RECEIPT_MAX).then_some(json)
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

    /// What it leaves of the unit, if it leaves anything.
    pub(super) fn kept(&self) -> Option<Kept> {
        self.content.as_ref().map(|file| Kept::File { digest: file.digest, size: file.size, mode: file.mode })
    }

    fn change(&self, stored: &Stored) -> Change {
        let file = |file: &File| Content::File(CapturedFile::stored(file.digest, file.size, file.mode, stored));
        let (path, content) = (self.path.clone(), self.content.as_ref().map(file));
        Change { path, kind: self.kind, content, previous: self.previous }
    }
}

/// Writes the deployment out, if it is brief.
pub(super) fn write_out(transaction: &Connection, id: DeploymentId) -> Attempt<()> {
    let Some((brief, state)) = find(transaction, id)? else { return Ok(()) };
    later::write_of(transaction, id)?;
    let mut rows = Rows::new(transaction, id)?;
    // Rows do not say where the store is.
    for (number, group) in brief.groups(&Stored::nowhere())?.iter().enumerate() {
        rows.group(number, group, state)?;
    }
    transaction.prepare_cached("UPDATE deployment SET state = NULL WHERE id = ?1")?.execute([id.0])?;
    transaction.prepare_cached("DELETE FROM brief WHERE deployment = ?1")?.execute([id.0])?;
    Ok(())
}

/// How far a deployment has come, if it is brief and has so many groups; with its brief, which is `kept` or found.
pub(super) fn of_groups(
    view: &Connection,
    id: DeploymentId,
    count: usize,
    kept: Option<Brief>,
) -> Attempt<Option<(Brief, GroupState)>> {
    let found = match kept {
        Some(brief) => state(view, id)?.map(|state| (brief, state)),
        None => find(view, id)?,
    };
    Ok(found.filter(|(brief, _)| brief.len() == count))
}

/// Notes how far all of a brief deployment has come.
pub(super) fn advance(transaction: &Connection, id: DeploymentId, state: GroupState) -> Attempt<()> {
    let mut write = transaction.prepare_cached("UPDATE deployment SET state = ?2 WHERE id = ?1")?;
    write.execute(params![id.0, state.as_str()])?;
    Ok(())
}

/// How far all of a deployment has come, if it is brief.
pub(super) fn state(view: &Connection, id: DeploymentId) -> Attempt<Option<GroupState>> {
    let mut find = view.prepare_cached("SELECT state FROM deployment WHERE id = ?1")?;
    let state: Option<Option<String>> = find.query_row([id.0], |row| row.get(0)).optional()?;
    state.flatten().as_deref().map(parse_state).transpose()
}

/// The brief of a deployment and how far all of it has come, if it is brief.
pub(super) fn find(view: &Connection, id: DeploymentId) -> Attempt<Option<(Brief, GroupState)>> {
    let Some(state) = state(view, id)? else { return Ok(None) };
    let mut find = view.prepare_cached("SELECT intent FROM brief WHERE deployment = ?1")?;
    let brief = find.query_row([id.0], |row| row.get::<_, String>(0))?;
    Ok(Some((serde_json::from_str(&brief)?, state)))
}

/// The digests of all files that brief deployments are about which are not over, or of which only the brief tells.
pub(super) fn digests(view: &Connection) -> Attempt<Vec<Digest>> {
    let mut list = view.prepare_cached(
        "SELECT id FROM deployment WHERE finished_at IS NULL AND state IS NOT NULL
         UNION SELECT deployment FROM unwritten",
    )?;
    let ids = list.query_map([], |row| row.get(0).map(DeploymentId))?;
    let mut digests = Vec::new();
    for id in ids {
        digests.extend(find(view, id?)?.iter().flat_map(|(brief, _)| brief.digests()));
    }
    Ok(digests)
}
