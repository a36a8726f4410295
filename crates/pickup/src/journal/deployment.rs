//! What is written while a deployment runs: the intent, each group's records, the end.

use std::collections::{BTreeSet, HashMap};
use std::ops::RangeInclusive;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};
use serde_json::Value;

use super::brief::{Brief, write_out};
use super::content::{Contents, index, path_bytes};
use super::state::{GroupState, Record};
use super::{
    Attempt, CommittedGroup, DeploymentId, Fault, IntendedGroup, Intent, Journal, JournalWrite, Result, StagedStep,
    enter_pickup,
};
use crate::change::Change;
use crate::deploy::OUTPUT_MAX;
use crate::path::UnitPath;

impl Journal {
    /// One more than the highest generation that the pickup ever used, also by failures.
    pub(crate) fn next_generation(&mut self, pickup: &str) -> Result<u64> {
        if let Some(last) = self.last_generations.get(pickup) {
            return Ok(last + 1);
        }
        let last = self.read(|view| {
            let mut find = view.prepare_cached(
                "SELECT max(generation, ifnull((SELECT max(generation) FROM deployment WHERE pickup = pickup.id), 0))
                 FROM pickup WHERE name = ?1",
            )?;
            let last: Option<i64> = find.query_row([pickup], |row| row.get(0)).optional()?;
            Ok(last.unwrap_or(0).cast_unsigned())
        })?;
        self.last_generations.insert(pickup.to_owned(), last);
        Ok(last + 1)
    }

    /// Writes down what is about to be done; nothing may be done before.
    pub(crate) fn intend(&mut self, intent: &Intent, now: i64) -> Result<DeploymentId> {
        // One that fails may have been written all the same: then the last is not known.
        let last = self.last_generations.remove(&intent.pickup);
        let id = self.write(JournalWrite::Intend, |transaction| {
            let pickup = enter_pickup(transaction, &intent.pickup)?;
            let brief = Brief::of(intent);
            transaction
                .prepare_cached(
                    "INSERT INTO deployment (pickup, generation, origin, revision, started_at, intent)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    pickup,
                    intent.generation.cast_signed(),
                    serde_json::to_string(&intent.origin)?,
                    intent.revision.as_deref().map(serde_json::to_string).transpose()?,
                    now,
                    brief.as_ref().map(serde_json::to_string).transpose()?
                ])?;
            let id = DeploymentId(transaction.last_insert_rowid());
            if brief.is_some() {
                return Ok(id);
            }
            let mut rows = Rows::new(transaction, id)?;
            for (number, group) in intent.groups.iter().enumerate() {
                rows.group(number, group)?;
            }
            Ok(id)
        })?;
        if let Some(last) = last {
            self.last_generations.insert(intent.pickup.clone(), last.max(intent.generation));
        }
        Ok(id)
    }

    /// Records what was staged; every group that is named becomes staged.
    pub(crate) fn staged(&mut self, id: DeploymentId, steps: &[StagedStep]) -> Result<()> {
        self.write(JournalWrite::Stage, |transaction| {
            write_out(transaction, id)?;
            let groups: BTreeSet<usize> = steps.iter().map(|step| step.group).collect();
            advance_all(transaction, id, &groups, Record::Staged, None)?;
            let mut write = transaction.prepare_cached(
                "UPDATE step SET staged = ?4 WHERE deployment = ?1 AND in_group = ?2 AND number = ?3",
            )?;
            for step in steps {
                let receipt = step.receipt.as_ref().map(Value::to_string);
                let written = write.execute(params![id.0, index(step.group), index(step.step), receipt])?;
                expect_step(written, id, step.group, step.step)?;
            }
            Ok(())
        })
    }

    /// Records that groups went live: their state, what is live now, and what the generation consists of. Their units
    /// leave the quarantine. For a group that is committed already nothing is written.
    pub(crate) fn committed(&mut self, id: DeploymentId, groups: &[CommittedGroup], now: i64) -> Result<()> {
        self.write(JournalWrite::Commit, |transaction| {
            write_out(transaction, id)?;
            let commit = Commit::of(transaction, id, now)?;
            let numbers = groups.iter().map(|group| group.group).collect();
            let moved = advance_all(transaction, id, &numbers, Record::Committed, Some(now))?;
            // Of those that are committed already, later generations may have changed what is live since.
            commit.live(transaction, groups.iter().filter(|group| moved.contains(&group.group)))?;
            for run in runs(&moved) {
                commit.versions(transaction, &run)?;
            }
            if !moved.is_empty() {
                // Beside what a commit changed, single files of a clone may be newer: they have no commit.
                transaction
                    .prepare_cached(
                        "UPDATE pickup SET revision = deployment.revision FROM deployment
                         WHERE pickup.id = ?1 AND ifnull(pickup.committed, 0) <= deployment.generation
                           AND deployment.id = ?2 AND deployment.revision IS NOT NULL",
                    )?
                    .execute([commit.pickup, id.0])?;
            }
            if !groups.is_empty() {
                transaction
                    .prepare_cached("UPDATE pickup SET committed = max(ifnull(committed, 0), ?2) WHERE id = ?1")?
                    .execute([commit.pickup, commit.generation])?;
            }
            Ok(())
        })
    }

    /// Records that nothing is left of what only a revert of these groups would have needed.
    pub(crate) fn retired(&mut self, id: DeploymentId, groups: &[usize]) -> Result<()> {
        self.write(JournalWrite::Retire, |transaction| {
            write_out(transaction, id)?;
            advance_all(transaction, id, &groups.iter().copied().collect(), Record::Retired, None).map(drop)
        })
    }

    /// Records that a group failed, and that what was live before is live again.
    pub(crate) fn reverted(
        &mut self,
        id: DeploymentId,
        group: usize,
        cause: &str,
        output: &str,
        now: i64,
    ) -> Result<()> {
        self.write(JournalWrite::Revert, |transaction| {
            write_out(transaction, id)?;
            // The first cause is the one that counts.
            if !advance_all(transaction, id, &BTreeSet::from([group]), Record::Reverted, Some(now))?.is_empty() {
                transaction
                    .prepare_cached(
                        "UPDATE step_group SET cause = ?3, output = ?4 WHERE deployment = ?1 AND number = ?2",
                    )?
                    .execute(params![id.0, index(group), bounded(cause), bounded(output)])?;
            }
            Ok(())
        })
    }

    /// Records that a group failed, and that the way back failed too.
    pub(crate) fn stuck(
        &mut self,
        id: DeploymentId,
        group: usize,
        cause: &str,
        undo_errors: &[String],
        now: i64,
    ) -> Result<()> {
        self.write(JournalWrite::Stick, |transaction| {
            write_out(transaction, id)?;
            let undo_errors: Vec<&str> = undo_errors.iter().map(|error| bounded(error)).collect();
            if !advance_all(transaction, id, &BTreeSet::from([group]), Record::Stuck, Some(now))?.is_empty() {
                transaction
                    .prepare_cached(
                        "UPDATE step_group SET cause = ?3, undo_errors = ?4 WHERE deployment = ?1 AND number = ?2",
                    )?
                    .execute(params![id.0, index(group), bounded(cause), serde_json::to_string(&undo_errors)?])?;
            }
            Ok(())
        })
    }

    /// Closes a deployment, each group of which is retired, reverted or stuck; closing it again changes nothing.
    pub(crate) fn finish(&mut self, id: DeploymentId, now: i64) -> Result<()> {
        self.write(JournalWrite::Finish, |transaction| {
            write_out(transaction, id)?;
            let mut groups =
                transaction.prepare_cached("SELECT number, state FROM step_group WHERE deployment = ?1")?;
            let mut groups = groups.query([id.0])?;
            while let Some(group) = groups.next()? {
                let (number, state): (i64, String) = (group.get(0)?, group.get(1)?);
                if !parse_state(&state)?.is_final() {
                    return Err(Fault::Unexpected(format!("group {number} is only {state}")));
                }
            }
            // The history needs the changes only; receipts can be large.
            transaction.prepare_cached("DELETE FROM step WHERE deployment = ?1")?.execute([id.0])?;
            let closed = transaction
                .prepare_cached("UPDATE deployment SET finished_at = ifnull(finished_at, ?2) WHERE id = ?1")?
                .execute([id.0, now])?;
            // The deployments that are left may be pruned, and no generation is used twice.
            transaction
                .prepare_cached(
                    "UPDATE pickup SET generation = max(pickup.generation, deployment.generation) FROM deployment
                     WHERE pickup.id = deployment.pickup AND deployment.id = ?1",
                )?
                .execute([id.0])?;
            if closed == 1 { Ok(()) } else { Err(Fault::NotFound(format!("there is no deployment {}", id.0))) }
        })
    }
}

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

    pub(super) fn group(&mut self, number: usize, group: &IntendedGroup) -> Attempt<()> {
        let state = if group.is_staged { GroupState::Staged } else { GroupState::Intended };
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
                step.old.as_ref().map(Value::to_string),
                step.staged.as_ref().map(Value::to_string),
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

/// Moves groups to their next state, which was decided at that time; gives those that were not there already.
fn advance_all(
    transaction: &Connection,
    id: DeploymentId,
    groups: &BTreeSet<usize>,
    record: Record,
    decided_at: Option<i64>,
) -> Attempt<BTreeSet<usize>> {
    let mut moved = BTreeSet::new();
    let mut next_state = None;
    for run in runs(groups) {
        let mut find = transaction.prepare_cached(
            "SELECT state FROM step_group WHERE deployment = ?1 AND number BETWEEN ?2 AND ?3 ORDER BY number",
        )?;
        let mut rows = find.query(params![id.0, index(*run.start()), index(*run.end())])?;
        for group in run {
            // Groups are numbered without a gap, so what is missing is missing at the end.
            let missing = || Fault::NotFound(format!("deployment {} has no group {group}", id.0));
            let state =
                parse_state(rows.next()?.ok_or_else(missing)?.get_ref(0)?.as_str().map_err(rusqlite::Error::from)?)?;
            let next = state.next(record)?;
            if next != state {
                next_state = Some(next);
                moved.insert(group);
            }
        }
    }
    let Some(next) = next_state else { return Ok(moved) };
    let mut write = transaction.prepare_cached(
        "UPDATE step_group SET state = ?4, decided_at = ifnull(?5, decided_at)
         WHERE deployment = ?1 AND number BETWEEN ?2 AND ?3",
    )?;
    for run in runs(&moved) {
        write.execute(params![id.0, index(*run.start()), index(*run.end()), next.as_str(), decided_at])?;
    }
    Ok(moved)
}

/// Numbers that follow each other, as ranges.
fn runs(numbers: &BTreeSet<usize>) -> Vec<RangeInclusive<usize>> {
    let mut runs: Vec<RangeInclusive<usize>> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some(last) if last.end() + 1 == number => *last = *last.start()..=number,
            Some(_) | None => runs.push(number..=number),
        }
    }
    runs
}

pub(super) fn parse_state(word: &str) -> Attempt<GroupState> {
    GroupState::from_word(word).ok_or_else(|| Fault::Unexpected(format!("{word} is no state of a group")))
}

/// What one commit writes for each of its groups.
struct Commit {
    id: DeploymentId,
    pickup: i64,
    generation: i64,
    now: i64,
    /// Whether a look into the quarantine is worth its time.
    is_any_quarantined: bool,
}

impl Commit {
    fn of(transaction: &Connection, id: DeploymentId, now: i64) -> Attempt<Self> {
        let mut find = transaction.prepare_cached("SELECT pickup, generation FROM deployment WHERE id = ?1")?;
        let found = find.query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (pickup, generation) = found.ok_or_else(|| Fault::NotFound(format!("there is no deployment {}", id.0)))?;
        let mut any = transaction.prepare_cached("SELECT 1 FROM quarantine WHERE pickup = ?1")?;
        Ok(Self { id, pickup, generation, now, is_any_quarantined: any.exists([pickup])? })
    }

    /// Writes what is live of each of the groups now.
    fn live<'a>(&self, transaction: &Connection, groups: impl Iterator<Item = &'a CommittedGroup>) -> Attempt<()> {
        let mut put = transaction.prepare_cached(
            "INSERT OR REPLACE INTO live (pickup, deployer, path, config_digest, content, generation, receipt, since)
             SELECT ?1, deployer, path, config_digest, content, ?2, ?3, ?4
             FROM step WHERE deployment = ?5 AND in_group = ?6 AND number = ?7",
        )?;
        let mut remove = transaction.prepare_cached(
            "DELETE FROM live WHERE pickup = ?1 AND (deployer, path) =
                (SELECT deployer, path FROM step WHERE deployment = ?2 AND in_group = ?3 AND number = ?4)",
        )?;
        for group in groups {
            let in_group = index(group.group);
            for change in &group.live {
                let step = index(change.step);
                let written = match &change.receipt {
                    Some(receipt) => put.execute(params![
                        self.pickup,
                        self.generation,
                        receipt.to_string(),
                        self.now,
                        self.id.0,
                        in_group,
                        step
                    ])?,
                    None => {
                        remove.execute([self.pickup, self.id.0, in_group, step])?;
                        // It need not have been live: a revert of an earlier removal may have failed half way.
                        1
                    }
                };
                expect_step(written, self.id, group.group, change.step)?;
            }
        }
        Ok(())
    }

    /// Writes what the generation consists of, as far as these groups tell.
    fn versions(&self, transaction: &Connection, groups: &RangeInclusive<usize>) -> Attempt<()> {
        let (first, last) = (index(*groups.start()), index(*groups.end()));
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO unit_version (pickup, path, generation, content)
                 SELECT ?1, path, ?2, content FROM change WHERE deployment = ?3 AND in_group BETWEEN ?4 AND ?5",
            )?
            .execute([self.pickup, self.generation, self.id.0, first, last])?;
        if self.is_any_quarantined {
            // Of the changes, not of the steps: a deployer that takes the pickup as a whole has a step for the root only.
            transaction
                .prepare_cached(
                    "DELETE FROM quarantine WHERE pickup = ?1
                     AND path IN (SELECT path FROM change WHERE deployment = ?2 AND in_group BETWEEN ?3 AND ?4)",
                )?
                .execute([self.pickup, self.id.0, first, last])?;
        }
        Ok(())
    }
}

fn expect_step(written: usize, id: DeploymentId, group: usize, step: usize) -> Attempt<()> {
    if written == 1 {
        return Ok(());
    }
    Err(Fault::NotFound(format!("group {group} of deployment {} has no step {step}", id.0)))
}

/// The first 16 KiB: what a deployer says must not fill the disk.
pub(super) fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(OUTPUT_MAX)]
}
