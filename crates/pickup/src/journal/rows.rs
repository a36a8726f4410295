//! The rows of a deployment that is written out: its groups, what each changes, and the steps to it.

use std::collections::HashMap;

use rusqlite::{CachedStatement, Connection, params};
use serde_json::Value;

use super::content::{Contents, index, path_bytes};
use super::{Attempt, DeploymentId, GroupState, IntendedGroup};
use crate::change::Change;
use crate::path::UnitPath;

/// Writes the rows of an intent, each statement prepared once.
pub(super) struct Rows<'a> {
    id: DeploymentId,
    group: CachedStatement<'a>,
    change: CachedStatement<'a>,
    step: CachedStatement<'a>,
    contents: Contents<'a>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(transaction: &'a Connection, id: DeploymentId) -> Attempt<Self> {
        Ok(Self {
            id,
            group: transaction
                .prepare_cached("INSERT INTO step_group (deployment, number, state) VALUES (?1, ?2, ?3)")?,
            change: transaction.prepare_cached(
                "INSERT INTO change (deployment, in_group, number, path, kind, content, previous)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?,
            step: transaction.prepare_cached(
                "INSERT INTO step (deployment, in_group, number, deployer, config_digest, path, kind, content,
                                   previous, changes, old, staged)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?,
            contents: Contents::new(transaction)?,
        })
    }

    pub(super) fn group(&mut self, number: usize, group: &IntendedGroup<'_>, state: GroupState) -> Attempt<()> {
        self.group.execute(params![self.id.0, index(number), state.as_str()])?;
        let mut changes = Changes::default();
        for (step_number, step) in group.steps.iter().enumerate() {
            let unit = &step.unit;
            let mut numbers = Vec::with_capacity(unit.changes.len());
            for change in unit.changes.iter() {
                let (change_number, is_new) = changes.enter(change);
                if is_new {
                    self.change(number, change_number, change)?;
                }
                numbers.push(change_number);
            }
            let content = unit.content.as_ref().map(|content| self.contents.save(content)).transpose()?;
            self.step.execute(params![
                self.id.0,
                index(number),
                index(step_number),
                step.deployer,
                step.config_digest,
                path_bytes(&unit.path),
                unit.change.as_str(),
                content,
                unit.previous.map(|digest| digest.0),
                serde_json::to_string(&numbers)?,
                step.old.as_deref().map(Value::to_string),
                step.staged.as_deref().map(Value::to_string),
            ])?;
        }
        Ok(())
    }

    fn change(&mut self, group: usize, number: usize, change: &Change) -> Attempt<()> {
        let content = change.content.as_ref().map(|content| self.contents.save(content)).transpose()?;
        self.change.execute(params![
            self.id.0,
            index(group),
            index(number),
            path_bytes(&change.path),
            change.kind.as_str(),
            content,
            change.previous.map(|digest| digest.0),
        ])?;
        Ok(())
    }
}

/// The changes of one group, numbered: deployers of the same unit share theirs.
#[derive(Default)]
struct Changes<'a> {
    numbers: HashMap<&'a UnitPath, Vec<(usize, &'a Change)>>,
    count: usize,
}

impl<'a> Changes<'a> {
    /// The number of this change, and whether it is new.
    fn enter(&mut self, change: &'a Change) -> (usize, bool) {
        let same_path = self.numbers.entry(&change.path).or_default();
        if let Some((number, _)) = same_path.iter().find(|(_, known)| *known == change) {
            return (*number, false);
        }
        let number = self.count;
        same_path.push((number, change));
        self.count += 1;
        (number, true)
    }
}
