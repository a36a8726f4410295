//! What is written while a deployment runs: the intent, each group's records, the end.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

use super::brief::{self, Brief, write_out};
use super::commit::Commit;
use super::content::index;
use super::later::Wrote;
use super::rows::Rows;
use super::state::{GroupState, Record};
use super::{
    Attempt, CommittedGroup, DeploymentId, Fault, Intent, Journal, JournalWrite, Result, StagedStep, enter_pickup,
    later,
};
use crate::deploy::OUTPUT_MAX;

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
    pub(crate) fn intend(&mut self, intent: &Intent<'_>, now: i64) -> Result<DeploymentId> {
        // One that fails may have been written all the same: then the last is not known.
        let last = self.last_generations.remove(&intent.pickup);
        let brief = Brief::of(intent);
        let id = self.write(JournalWrite::Intend, |transaction| {
            let pickup = enter_pickup(transaction, &intent.pickup)?;
            transaction
                .prepare_cached(
                    "INSERT INTO deployment (pickup, generation, origin, revision, started_at, state)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                )?
                .execute(params![
                    pickup,
                    intent.generation.cast_signed(),
                    serde_json::to_string(&intent.origin)?,
                    intent.revision.as_deref().map(serde_json::to_string).transpose()?,
                    now,
                    brief.as_ref().map(|_| GroupState::Staged.as_str())
                ])?;
            let id = DeploymentId(transaction.last_insert_rowid());
            if let Some(brief) = &brief {
                brief.save(transaction, id)?;
                return Ok(id);
            }
            let mut rows = Rows::new(transaction, id)?;
            for (number, group) in intent.groups.iter().enumerate() {
                rows.group(number, group, if group.is_staged { GroupState::Staged } else { GroupState::Intended })?;
            }
            Ok(id)
        })?;
        self.brief = brief.map(|brief| (id, brief));
        if let Some(last) = last {
            self.last_generations.insert(intent.pickup.clone(), last.max(intent.generation));
        }
        Ok(id)
    }

    /// Records what was staged; every group that is named becomes staged.
    pub(crate) fn staged(&mut self, id: DeploymentId, steps: &[StagedStep]) -> Result<()> {
        self.brief = None;
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

    /// Records that groups went live: their state, what is live now, and what the generation consists of, which may be
    /// [written later](Journal::write_later). Their units leave the quarantine. For a group that is committed already
    /// nothing is written.
    pub(crate) fn committed(&mut self, id: DeploymentId, groups: &[CommittedGroup], now: i64) -> Result<()> {
        let kept = self.kept(id);
        let mut wrote = Wrote::All;
        // One that fails may have been written all the same: then it is not known what was left.
        let left = self.left.take();
        let (pickup, brief) = self.write(JournalWrite::Commit, |transaction| {
            let commit = Commit::of(transaction, id, now)?;
            let numbers: BTreeSet<usize> = groups.iter().map(|group| group.group).collect();
            let brief = brief::of_groups(transaction, id, numbers.len(), kept)?;
            let is_moved = match &brief {
                Some((brief, state)) => {
                    let next = state.next(Record::Committed)?;
                    let is_moved = next != *state;
                    if is_moved {
                        wrote = later::commit(transaction, &commit, brief, groups, left.as_ref())?;
                        commit.release(transaction, brief)?;
                        brief::advance(transaction, id, next)?;
                    }
                    is_moved
                }
                None => {
                    write_out(transaction, id)?;
                    let moved = advance_all(transaction, id, &numbers, Record::Committed, Some(now))?;
                    let mut changes = groups.iter().flat_map(|group| &group.live);
                    // What is left for later would bring back what is removed now.
                    if changes.any(|change| change.receipt.is_none())
                        && left.as_ref().is_none_or(|left| left.may_be_of(commit.pickup))
                    {
                        later::write_all(transaction, commit.pickup)?;
                    }
                    // Of those that are committed already, later generations may have changed what is live since.
                    commit.live(transaction, groups.iter().filter(|group| moved.contains(&group.group)))?;
                    for run in runs(&moved) {
                        commit.versions(transaction, &run)?;
                    }
                    !moved.is_empty()
                }
            };
            if is_moved {
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
            Ok((commit.pickup, brief))
        })?;
        self.left = left;
        if let Some((brief, _)) = &brief {
            self.leave(pickup, brief, wrote);
        }
        self.brief = brief.map(|(brief, _)| (id, brief));
        Ok(())
    }

    /// Records that nothing is left of what only a revert of these groups would have needed.
    pub(crate) fn retired(&mut self, id: DeploymentId, groups: &[usize]) -> Result<()> {
        let kept = self.kept(id);
        self.write(JournalWrite::Retire, |transaction| {
            let groups: BTreeSet<usize> = groups.iter().copied().collect();
            match brief::of_groups(transaction, id, groups.len(), kept)? {
                Some((_, state)) => brief::advance(transaction, id, state.next(Record::Retired)?),
                None => {
                    write_out(transaction, id)?;
                    advance_all(transaction, id, &groups, Record::Retired, None).map(drop)
                }
            }
        })
    }

    /// The brief of the deployment, if it was the last that was worked on.
    fn kept(&mut self, id: DeploymentId) -> Option<Brief> {
        self.brief.take().filter(|(of, _)| *of == id).map(|(_, brief)| brief)
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
        self.brief = None;
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
        self.brief = None;
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
        self.brief = None;
        self.write(JournalWrite::Finish, |transaction| {
            match brief::state(transaction, id)? {
                Some(state) if !state.is_final() => {
                    return Err(Fault::Unexpected(format!("all of it is only {state}")));
                }
                Some(_) | None => {}
            }
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

pub(super) fn expect_step(written: usize, id: DeploymentId, group: usize, step: usize) -> Attempt<()> {
    if written == 1 {
        return Ok(());
    }
    Err(Fault::NotFound(format!("group {group} of deployment {} has no step {step}", id.0)))
}

/// The first 16 KiB: what a deployer says must not fill the disk.
pub(super) fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(OUTPUT_MAX)]
}
