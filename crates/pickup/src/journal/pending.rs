//! What recovery reads: deployments that were not finished.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rusqlite::{Connection, Row, params};

use super::content::{self, index, load_json, load_kind, load_path, optional_digest};
use super::deployment::parse_state;
use super::{
    Attempt, DeploymentId, Fault, GroupState, IntendedGroup, IntendedStep, Journal, OpenDeployment, OpenGroup,
    OpenStep, Result,
};
use super::{brief, later, live};
use crate::capture::Stored;
use crate::change::Change;
use crate::deploy::Unit;
use crate::path::UnitPath;
use crate::source::git::Revision;

impl Journal {
    /// The deployments that were begun and not finished, oldest first, with everything that recovery needs.
    pub(crate) fn open_deployments(&self) -> Result<Vec<OpenDeployment>> {
        self.read(|view| {
            let mut list = view.prepare_cached(
                "SELECT deployment.id, pickup.name, deployment.generation, deployment.revision
                 FROM deployment JOIN pickup ON pickup.id = deployment.pickup
                 WHERE deployment.finished_at IS NULL ORDER BY deployment.id",
            )?;
            let found = list.query_and_then([], |row| {
                let mut deployment = OpenDeployment {
                    id: DeploymentId(row.get(0)?),
                    pickup: row.get(1)?,
                    generation: row.get::<_, i64>(2)?.cast_unsigned(),
                    groups: Vec::new(),
                };
                let revision = load_json(row, 3)?.map(Arc::new);
                deployment.groups = groups(view, &deployment, revision.as_ref(), &self.stored)?;
                Ok(deployment)
            })?;
            found.collect()
        })
    }

    /// The deployers that have a part in those of a pickup.
    pub(crate) fn open_deployers(&self, pickup: &str) -> Result<BTreeSet<String>> {
        self.read(|view| {
            let mut list = view.prepare_cached(
                "SELECT DISTINCT step.deployer FROM step JOIN deployment ON deployment.id = step.deployment
                 WHERE deployment.finished_at IS NULL
                   AND deployment.pickup = (SELECT id FROM pickup WHERE name = ?1)",
            )?;
            let names = list.query_map([pickup], |row| row.get(0))?;
            let mut names: BTreeSet<String> = names.collect::<rusqlite::Result<_>>()?;
            let mut list = view.prepare_cached(
                "SELECT id FROM deployment WHERE finished_at IS NULL AND state IS NOT NULL
                   AND pickup = (SELECT id FROM pickup WHERE name = ?1)",
            )?;
            for id in list.query_map([pickup], |row| row.get(0))? {
                let brief = brief::find(view, DeploymentId(id?))?;
                names.extend(brief.iter().flat_map(|(brief, _)| brief.deployers()).map(str::to_owned));
            }
            Ok(names)
        })
    }

    /// One of them, if it is not finished.
    pub(crate) fn open_deployment(&self, id: DeploymentId) -> Result<Option<OpenDeployment>> {
        Ok(self.open_deployments()?.into_iter().find(|open| open.id == id))
    }
}

impl OpenDeployment {
    /// The units of the groups that did not end yet, or could not.
    pub(crate) fn units(&self) -> BTreeSet<UnitPath> {
        let ended = |group: &&OpenGroup| matches!(group.state, GroupState::Retired | GroupState::Reverted);
        let open = self.groups.iter().filter(|group| !ended(group));
        open.flat_map(|group| &group.steps).map(|step| step.unit.path.clone()).collect()
    }
}

/// What was committed after a deployment.
struct Newer {
    /// What is live of it: deployer and unit.
    live: Vec<(String, UnitPath)>,
    /// What is live of itself.
    own: Vec<(String, UnitPath)>,
    removed: Vec<UnitPath>,
}

impl Newer {
    fn than(view: &Connection, deployment: &OpenDeployment) -> Attempt<Self> {
        let (pickup, generation) = (&deployment.pickup, deployment.generation.cast_signed());
        let unwritten = later::unwritten(view, pickup, false)?;
        let (mut live, mut own) = (Vec::new(), Vec::new());
        live::each(view, pickup, &later::live(&unwritten), None, |row| {
            if row.generation >= generation {
                let found = if row.generation > generation { &mut live } else { &mut own };
                found.push((row.deployer.to_owned(), content::path_of(row.path)?));
            }
            Ok(true)
        })?;
        let mut list = view.prepare_cached(
            "SELECT path FROM unit_version
             WHERE pickup = (SELECT id FROM pickup WHERE name = ?1) AND generation > ?2 AND content IS NULL",
        )?;
        let removed = list.query_and_then(params![pickup, generation], |row| load_path(row, 0))?;
        let mut removed = removed.collect::<Attempt<Vec<_>>>()?;
        for newer in unwritten.iter().filter(|one| one.generation > generation) {
            let changes = newer.brief.steps_changes().filter(|change| change.content.is_none());
            removed.extend(changes.map(|change| change.path.clone()));
        }
        Ok(Self { live, own, removed })
    }

    fn supersedes(&self, step: &OpenStep) -> bool {
        let unit = &step.unit.path;
        let is_of = |(deployer, _): &&(String, UnitPath)| *deployer == step.deployer;
        let is_live = self.own.iter().filter(is_of).any(|(_, own)| own == unit);
        let is_covered = self.live.iter().filter(is_of).any(|(_, live)| live.overlaps(unit));
        !is_live && (is_covered || self.removed.contains(unit))
    }
}

fn groups(
    view: &Connection,
    deployment: &OpenDeployment,
    revision: Option<&Arc<Revision>>,
    stored: &Stored,
) -> Attempt<Vec<OpenGroup>> {
    if let Some((brief, state)) = brief::find(view, deployment.id)? {
        let newer = Newer::than(view, deployment)?;
        return brief_groups(brief.groups(stored)?, state, deployment, revision, &newer);
    }
    let mut list = view.prepare_cached("SELECT state FROM step_group WHERE deployment = ?1 ORDER BY number")?;
    let states = list.query_and_then([deployment.id.0], |row| -> Attempt<_> {
        Ok(OpenGroup { state: parse_state(&row.get::<_, String>(0)?)?, steps: Vec::new() })
    })?;
    let mut groups = states.collect::<Attempt<Vec<_>>>()?;
    let changes = changes(view, deployment, stored)?;
    let newer = Newer::than(view, deployment)?;
    let mut steps = view.prepare_cached(
        "SELECT step.in_group, step.changes, step.deployer, step.path, step.kind, step.previous,
                step.old, step.staged, step.content, content.size, content.files
         FROM step
         LEFT JOIN content ON content.key = step.content
         WHERE step.deployment = ?1 ORDER BY step.in_group, step.number",
    )?;
    let mut steps = steps.query([deployment.id.0])?;
    while let Some(row) = steps.next()? {
        let group: i64 = row.get(0)?;
        let numbers: Vec<usize> = load_json(row, 1)?.unwrap_or_default();
        let own = numbers.iter().map(|number| changes.get(&(group, index(*number))).cloned());
        let own: Option<Arc<[Change]>> = own.collect();
        let own = own.ok_or_else(|| Fault::Unexpected("a change is missing".to_owned()))?;
        let mut step = step(row, deployment, own, stored)?;
        step.unit.revision = revision.cloned();
        step.is_superseded = newer.supersedes(&step);
        let group = usize::try_from(group).ok().and_then(|group| groups.get_mut(group));
        group.ok_or_else(|| Fault::Unexpected("a group is missing".to_owned()))?.steps.push(step);
    }
    Ok(groups)
}

/// The same of a brief one, all of which has come so far.
fn brief_groups(
    groups: Vec<IntendedGroup<'_>>,
    state: GroupState,
    deployment: &OpenDeployment,
    revision: Option<&Arc<Revision>>,
    newer: &Newer,
) -> Attempt<Vec<OpenGroup>> {
    let step = |IntendedStep { deployer, unit, old, staged, .. }: IntendedStep<'_>| {
        let (pickup, generation, revision) = (deployment.pickup.clone(), deployment.generation, revision.cloned());
        let unit = Unit { pickup, generation, revision, ..unit.into_owned() };
        let (deployer, old, staged) = (deployer.into_owned(), old.map(Cow::into_owned), staged.map(Cow::into_owned));
        let mut step = OpenStep { deployer, unit, old, staged, is_superseded: false };
        step.is_superseded = newer.supersedes(&step);
        step
    };
    let group = |group: IntendedGroup<'_>| {
        let steps = group.steps.into_iter().map(step).collect();
        OpenGroup { state, steps }
    };
    Ok(groups.into_iter().map(group).collect())
}

fn step(row: &Row<'_>, deployment: &OpenDeployment, changes: Arc<[Change]>, stored: &Stored) -> Attempt<OpenStep> {
    Ok(OpenStep {
        deployer: row.get(2)?,
        unit: Unit {
            pickup: deployment.pickup.clone(),
            path: load_path(row, 3)?,
            change: load_kind(row, 4)?,
            content: content::load(row, 8, stored)?,
            previous: optional_digest(row, 5)?,
            generation: deployment.generation,
            changes,
            revision: None,
        },
        old: load_json(row, 6)?,
        staged: load_json(row, 7)?,
        is_superseded: false,
    })
}

/// The changes of a deployment by group and number.
fn changes(view: &Connection, deployment: &OpenDeployment, stored: &Stored) -> Attempt<BTreeMap<(i64, i64), Change>> {
    let mut list = view.prepare_cached(
        "SELECT change.in_group, change.number, change.path, change.kind, change.previous,
                change.content, content.size, content.files
         FROM change LEFT JOIN content ON content.key = change.content WHERE change.deployment = ?1",
    )?;
    let found = list.query_and_then([deployment.id.0], |row| {
        let change = Change {
            path: load_path(row, 2)?,
            kind: load_kind(row, 3)?,
            content: content::load(row, 5, stored)?,
            previous: optional_digest(row, 4)?,
        };
        Ok(((row.get(0)?, row.get(1)?), change))
    })?;
    found.collect()
}
