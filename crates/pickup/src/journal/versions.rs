//! What each generation consists of, where a commit leaves that for later.
//!
//! A version is a row for each unit that a deployment changed, and its brief says the same. So what a large brief deployment
//! changed is written when there is nothing else to do; whoever asks before reads the brief.

use rusqlite::{Connection, OptionalExtension, params};

use super::brief::{self, Brief};
use super::content::{file_key, path_bytes};
use super::{Attempt, DeploymentId, Journal, JournalWrite, Result};

/// Deployments that change fewer units are not worth coming back for.
const LATER_MIN: usize = if cfg!(test) { 2 } else { 64 };

/// The versions of a deployment that are not written.
pub(super) struct Unwritten {
    pub generation: i64,
    pub brief: Brief,
}

impl Journal {
    /// Writes what one commit left for later. Whether there may be more of that. After a failure there is none until the next
    /// large commit or the next start: nothing is lost, and whoever asks reads the brief.
    pub(crate) fn write_versions(&mut self) -> Result<bool> {
        if !std::mem::take(&mut self.has_unwritten) {
            return Ok(false);
        }
        let next = self.read(|view| {
            let mut find = view.prepare_cached("SELECT min(deployment) FROM unversioned")?;
            Ok(find.query_row([], |row| row.get::<_, Option<i64>>(0))?)
        })?;
        if let Some(next) = next {
            self.write(JournalWrite::Version, |transaction| write(transaction, DeploymentId(next)))?;
            self.has_unwritten = true;
        }
        Ok(self.has_unwritten)
    }
}

/// Writes the versions of a brief deployment that is committed now, or notes that they are to be written. Whether they are.
pub(super) fn commit(
    transaction: &Connection,
    id: DeploymentId,
    pickup: i64,
    generation: i64,
    brief: &Brief,
) -> Attempt<bool> {
    if brief.steps_changes().count() < LATER_MIN {
        insert(transaction, pickup, generation, brief)?;
        return Ok(true);
    }
    transaction.prepare_cached("INSERT OR IGNORE INTO unversioned (deployment) VALUES (?1)")?.execute([id.0])?;
    Ok(false)
}

/// Writes the versions of a deployment, if they are not.
pub(super) fn write(transaction: &Connection, id: DeploymentId) -> Attempt<()> {
    let taken = transaction.prepare_cached("DELETE FROM unversioned WHERE deployment = ?1")?.execute([id.0])?;
    if taken == 0 {
        return Ok(());
    }
    let mut find = transaction.prepare_cached("SELECT pickup, generation FROM deployment WHERE id = ?1")?;
    let found: Option<(i64, i64)> = find.query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    if let (Some((pickup, generation)), Some((brief, _))) = (found, brief::find(transaction, id)?) {
        insert(transaction, pickup, generation, &brief)?;
    }
    Ok(())
}

/// Writes all versions of a pickup that are not written.
pub(super) fn write_all(transaction: &Connection, pickup: i64) -> Attempt<()> {
    let mut list = transaction.prepare_cached(
        "SELECT unversioned.deployment FROM unversioned JOIN deployment ON deployment.id = unversioned.deployment
         WHERE deployment.pickup = ?1 ORDER BY unversioned.deployment",
    )?;
    let ids = list.query_map([pickup], |row| row.get(0).map(DeploymentId))?.collect::<Result<Vec<_>, _>>()?;
    ids.into_iter().try_for_each(|id| write(transaction, id))
}

/// Those of a pickup that are not written, oldest first.
pub(super) fn unwritten(view: &Connection, pickup: &str) -> Attempt<Vec<Unwritten>> {
    let mut list = view.prepare_cached(
        "SELECT deployment.id, deployment.generation
         FROM unversioned JOIN deployment ON deployment.id = unversioned.deployment
         WHERE deployment.pickup = (SELECT id FROM pickup WHERE name = ?1) ORDER BY deployment.generation",
    )?;
    let mut unwritten = Vec::new();
    let mut rows = list.query([pickup])?;
    while let Some(row) = rows.next()? {
        if let Some((brief, _)) = brief::find(view, DeploymentId(row.get(0)?))? {
            unwritten.push(Unwritten { generation: row.get(1)?, brief });
        }
    }
    Ok(unwritten)
}

fn insert(transaction: &Connection, pickup: i64, generation: i64, brief: &Brief) -> Attempt<()> {
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
