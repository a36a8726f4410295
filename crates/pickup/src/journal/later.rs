//! What large commits leave for later.
//!
//! What is live is a row for each unit, and what a generation consists of is another; the brief of a deployment that went live says
//! both. So what a large one left is written into these tables when there is nothing else to do, in the order of generations;
//! whoever asks before reads the briefs, too.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use rusqlite::{Connection, OptionalExtension, params};

use super::brief::{self, Brief, Deployer, Step};
use super::commit::Commit;
use super::content::{file_key, path_bytes};
use super::{Attempt, CommittedGroup, DeploymentId, Journal, JournalWrite, Result};
use crate::path::UnitPath;

/// Deployments that change fewer units are not worth coming back for.
const LATER_MIN: usize = if cfg!(test) { 2 } else { 64 };

/// So many units may be left at once: whoever needs one of them waits until all of them are written.
const LEFT_MAX: usize = if cfg!(test) { 12 } else { 1 << 17 };

/// A deployment of which not all is written.
pub(super) struct Unwritten {
    pub generation: i64,
    pub brief: Brief,
    /// What is live of it, if that is not written.
    live: Option<Live>,
}

/// What is the same for all that a deployment left live.
struct Live {
    #[cfg(test)]
    since: i64,
    receipt: String,
}

/// What is live of a unit, or that nothing is, of which no row tells yet.
pub(super) struct LiveLater<'a> {
    pub step: &'a Step,
    pub deployer: &'a Deployer,
    pub generation: i64,
    #[cfg(test)]
    pub since: i64,
    /// `None`: it was removed.
    pub receipt: Option<&'a str>,
}

/// What a journal left for later since it was opened. The units of which `live` does not tell yet are known by a hash: one that
/// is not here was not left.
#[derive(Debug, Default)]
pub(super) struct Left {
    hasher: RandomState,
    units: HashMap<i64, HashSet<u64>>,
    /// How many units are not written, whatever it is of them.
    count: usize,
}

impl Left {
    fn add(&mut self, pickup: i64, brief: &Brief) {
        let numbers = brief.steps().map(|(step, of)| self.hasher.hash_one((of.name.as_str(), &step.unit.path)));
        self.units.entry(pickup).or_default().extend(numbers);
    }

    /// Whether all is written.
    pub(super) fn is_nothing(&self) -> bool {
        self.count == 0
    }

    /// Whether what is live of anything of the pickup may have been left.
    pub(super) fn may_be_of(&self, pickup: i64) -> bool {
        self.units.contains_key(&pickup)
    }

    /// Whether what is live of it may have been left.
    pub(super) fn may_hold(&self, pickup: i64, deployer: &str, unit: &UnitPath) -> bool {
        self.units.get(&pickup).is_some_and(|units| units.contains(&self.hasher.hash_one((deployer, unit))))
    }
}

/// What a commit wrote of a brief deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrote {
    All,
    /// What is live, but not what the generation consists of.
    Live,
    /// Neither.
    Neither,
}

impl Journal {
    /// Writes what one commit left for later. Whether there may be more of that.
    pub(crate) fn write_later(&mut self) -> Result<bool> {
        if self.left.as_ref().is_some_and(Left::is_nothing) {
            return Ok(false);
        }
        // If it fails, it is not known what is written.
        let left = self.left.take();
        let next = self.read(|view| {
            let mut find = view.prepare_cached("SELECT min(deployment) FROM unwritten")?;
            Ok(find.query_row([], |row| row.get::<_, Option<i64>>(0))?)
        })?;
        let Some(next) = next else {
            self.left = Some(Left::default());
            return Ok(false);
        };
        self.write(JournalWrite::Later, |transaction| write(transaction, DeploymentId(next)))?;
        self.left = left;
        Ok(true)
    }

    /// Writes what was left of a pickup, if it may be of one of these units: what is deployed again and again is not looked for in
    /// briefs each time.
    pub(crate) fn write_left_of(&mut self, pickup: &str, asked: &[(&str, &UnitPath)]) -> Result<()> {
        if self.left.as_ref().is_some_and(Left::is_nothing) {
            return Ok(());
        }
        let id: Option<i64> = self.read_at_once(|view| {
            let mut find = view.prepare_cached("SELECT id FROM pickup WHERE name = ?1")?;
            Ok(find.query_row([pickup], |row| row.get(0)).optional()?)
        })?;
        let Some(id) = id else { return Ok(()) };
        let may_hold = |left: &Left| asked.iter().any(|(deployer, unit)| left.may_hold(id, deployer, unit));
        if self.left.as_ref().is_some_and(|left| !may_hold(left)) {
            return Ok(());
        }
        let left = self.left.take();
        self.write(JournalWrite::Later, |transaction| write_all(transaction, id))?;
        match left {
            Some(mut left) => {
                left.units.remove(&id);
                self.left = Some(left);
            }
            None => self.look_for_left(),
        }
        Ok(())
    }

    /// Looks whether anything was left by whoever had the journal before. Where it is damaged that is not known, and whoever asks
    /// for what was left is told.
    pub(super) fn look_for_left(&mut self) {
        let is_any = self.read(|view| Ok(view.prepare("SELECT 1 FROM unwritten")?.exists([])?));
        self.left = is_any.is_ok_and(|is_any| !is_any).then(Left::default);
    }

    /// Notes what was left of a brief deployment.
    pub(super) fn leave(&mut self, pickup: i64, brief: &Brief, wrote: Wrote) {
        let Some(left) = &mut self.left else { return };
        if wrote != Wrote::All {
            left.count += brief.steps_changes().count();
        }
        if wrote == Wrote::Neither {
            left.add(pickup, brief);
        }
    }
}

/// Writes what a brief deployment that is committed now left live and what its generation consists of, or notes that it is to be
/// written. What was `left` before is known, or all is written that can be.
pub(super) fn commit(
    transaction: &Connection,
    commit: &Commit,
    brief: &Brief,
    groups: &[CommittedGroup],
    left: Option<&Left>,
) -> Attempt<Wrote> {
    let count = brief.steps_changes().count();
    let is_left = count >= LATER_MIN && left.is_some_and(|left| left.count + count <= LEFT_MAX);
    let receipt = if is_left { common_receipt(brief, groups) } else { None };
    if receipt.is_none() {
        let may_come_back = |(step, deployer): (&Step, &Deployer)| {
            left.is_none_or(|left| left.may_hold(commit.pickup, &deployer.name, &step.unit.path))
        };
        let gone = groups.iter().flat_map(|group| group.live.iter().map(|change| (group.group, change)));
        let mut gone = gone.filter(|(_, change)| change.receipt.is_none());
        if gone.any(|(group, change)| brief.find(group, change.step).is_some_and(may_come_back)) {
            write_all(transaction, commit.pickup)?;
        }
        commit.brief(transaction, brief, groups)?;
    }
    if !is_left {
        versions(transaction, commit.pickup, commit.generation, brief)?;
        return Ok(Wrote::All);
    }
    let since = receipt.is_some().then_some(commit.now);
    let mut note = transaction
        .prepare_cached("INSERT OR IGNORE INTO unwritten (deployment, since, receipt) VALUES (?1, ?2, ?3)")?;
    note.execute(params![commit.id.0, since, receipt])?;
    Ok(if receipt.is_some() { Wrote::Neither } else { Wrote::Live })
}

/// The receipt of all that is live of a deployment, if it is the same; and what has none was removed.
fn common_receipt(brief: &Brief, groups: &[CommittedGroup]) -> Option<String> {
    let mut live = groups.iter().flat_map(|group| group.live.iter().map(|change| (group.group, change)));
    let mut common = None;
    for (number, group) in brief.groups.iter().enumerate() {
        for (at, step) in group.iter().enumerate() {
            let (_, change) = live.next().filter(|(group, change)| (*group, change.step) == (number, at))?;
            if change.receipt.is_some() != step.unit.content.is_some() {
                return None;
            }
            if let Some(receipt) = &change.receipt
                && *common.get_or_insert(receipt) != receipt
            {
                return None;
            }
        }
    }
    // Where all was removed there is none, and none is needed.
    live.next().is_none().then(|| common.map(ToString::to_string).unwrap_or_default())
}

/// Writes what a deployment left for later, if it left anything. What earlier ones of the pickup left must be written already.
fn write(transaction: &Connection, id: DeploymentId) -> Attempt<()> {
    let mut find = transaction.prepare_cached(
        "SELECT deployment.pickup, deployment.generation, unwritten.since, unwritten.receipt
         FROM unwritten JOIN deployment ON deployment.id = unwritten.deployment WHERE unwritten.deployment = ?1",
    )?;
    let found: Option<(i64, i64, Option<i64>, Option<String>)> =
        find.query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).optional()?;
    // An orphan has nothing to write, and is forgotten.
    if let (Some((pickup, generation, since, receipt)), Some((brief, _))) = (found, brief::find(transaction, id)?) {
        if let (Some(now), Some(receipt)) = (since, receipt) {
            let mut rows = Commit { id, pickup, generation, now, is_any_quarantined: false }.rows(transaction)?;
            for (step, deployer) in brief.steps() {
                let receipt = step.unit.content.as_ref().map(|_| receipt.as_str());
                rows.write(step, deployer, receipt)?;
            }
        }
        versions(transaction, pickup, generation, &brief)?;
    }
    transaction.prepare_cached("DELETE FROM unwritten WHERE deployment = ?1")?.execute([id.0])?;
    Ok(())
}

/// Writes what a deployment left, and what those before it did, which would be taken for newer otherwise.
pub(super) fn write_of(transaction: &Connection, id: DeploymentId) -> Attempt<()> {
    let mut find = transaction.prepare_cached(
        "SELECT deployment.pickup FROM unwritten JOIN deployment ON deployment.id = unwritten.deployment
         WHERE unwritten.deployment = ?1",
    )?;
    let pickup = find.query_row([id.0], |row| row.get(0)).optional()?;
    pickup.map_or(Ok(()), |pickup| write_up_to(transaction, pickup, id))
}

/// Writes all that the deployments of a pickup left.
pub(super) fn write_all(transaction: &Connection, pickup: i64) -> Attempt<()> {
    write_up_to(transaction, pickup, DeploymentId(i64::MAX))
}

fn write_up_to(transaction: &Connection, pickup: i64, last: DeploymentId) -> Attempt<()> {
    let mut list = transaction.prepare_cached(
        "SELECT unwritten.deployment FROM unwritten JOIN deployment ON deployment.id = unwritten.deployment
         WHERE deployment.pickup = ?1 AND deployment.id <= ?2 ORDER BY unwritten.deployment",
    )?;
    let ids = list.query_map([pickup, last.0], |row| row.get(0).map(DeploymentId))?.collect::<Result<Vec<_>, _>>()?;
    ids.into_iter().try_for_each(|id| write(transaction, id))
}

/// The deployments of a pickup that left anything, oldest first; or only those of which `live` does not tell yet.
pub(super) fn unwritten(view: &Connection, pickup: &str, only_live: bool) -> Attempt<Vec<Unwritten>> {
    let mut list = view.prepare_cached(
        "SELECT deployment.id, deployment.generation, unwritten.since, unwritten.receipt
         FROM unwritten JOIN deployment ON deployment.id = unwritten.deployment
         WHERE deployment.pickup = (SELECT id FROM pickup WHERE name = ?1) AND (unwritten.since IS NOT NULL OR NOT ?2)
         ORDER BY deployment.generation",
    )?;
    let mut unwritten = Vec::new();
    let mut rows = list.query(params![pickup, only_live])?;
    while let Some(row) = rows.next()? {
        let (since, receipt): (Option<i64>, Option<String>) = (row.get(2)?, row.get(3)?);
        let live = since.zip(receipt).map(|(_since, receipt)| Live {
            #[cfg(test)]
            since: _since,
            receipt,
        });
        if let Some((brief, _)) = brief::find(view, DeploymentId(row.get(0)?))? {
            unwritten.push(Unwritten { generation: row.get(1)?, brief, live });
        }
    }
    Ok(unwritten)
}

/// What they left live, and what they removed, by deployer and path: of each unit the newest.
pub(super) fn live(unwritten: &[Unwritten]) -> BTreeMap<(&str, &[u8]), LiveLater<'_>> {
    let mut newest = BTreeMap::new();
    for Unwritten { generation, brief, live } in unwritten {
        let Some(live) = live else { continue };
        for (step, deployer) in brief.steps() {
            let later = LiveLater {
                step,
                deployer,
                generation: *generation,
                #[cfg(test)]
                since: live.since,
                receipt: step.unit.content.as_ref().map(|_| live.receipt.as_str()),
            };
            newest.insert((deployer.name.as_str(), path_bytes(&step.unit.path)), later);
        }
    }
    newest
}

fn versions(transaction: &Connection, pickup: i64, generation: i64, brief: &Brief) -> Attempt<()> {
    let mut version = transaction.prepare_cached(
        "INSERT OR REPLACE INTO unit_version (pickup, path, generation, content) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for change in brief.steps_changes() {
        let file = change.content.as_ref();
        let key = file.map(|file| file_key(&file.digest, file.mode, file.size));
        version.execute(params![pickup, path_bytes(&change.path), generation, key])?;
    }
    Ok(())
}
