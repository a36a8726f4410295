//! Letting go of old deployments, and of contents that nothing refers to any more.

use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Attempt, Journal, JournalWrite, Result, WENT_LIVE, brief, content, later};
use crate::capture::Digest;

/// The keys of all contents that are needed: by what is live, by any kept generation, by a deployment that is open.
const NEEDED: &str = "
    SELECT content FROM live WHERE content IS NOT NULL
    UNION SELECT content FROM unit_version WHERE content IS NOT NULL
    UNION SELECT content FROM step WHERE content IS NOT NULL
    UNION SELECT change.content FROM change JOIN deployment ON deployment.id = change.deployment
          WHERE deployment.finished_at IS NULL AND change.content IS NOT NULL";

impl Journal {
    /// Folds what was written into the database file, so that the next start finds one file. Called at the end of a run.
    pub(crate) fn fold(&self) -> Result<()> {
        self.read(|view| Ok(view.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?))
    }

    /// Gives back the memory that much reading and writing took.
    pub(crate) fn rest(&self) -> Result<()> {
        self.read(|view| Ok(view.execute_batch("PRAGMA shrink_memory")?))
    }

    /// Drops the deployments of a pickup that were finished before `keep_after`, in milliseconds since the epoch, but
    /// never the newest of which anything was committed. What was live in each generation that is left can be told as
    /// before. Then writes the WAL back: this is where fsync is called, so not while a deployment runs.
    pub(crate) fn prune(&mut self, pickup: &str, keep_after: i64) -> Result<()> {
        self.write(JournalWrite::Prune, |transaction| {
            let mut find = transaction.prepare_cached("SELECT id FROM pickup WHERE name = ?1")?;
            let Some(pickup) = find.query_row([pickup], |row| row.get(0)).optional()? else { return Ok(()) };
            later::write_all(transaction, pickup)?;
            drop_deployments(transaction, pickup, keep_after)?;
            fold(transaction, pickup)?;
            transaction.execute(&format!("DELETE FROM content WHERE key NOT IN ({NEEDED})"), [])?;
            Ok(())
        })?;
        // A reader in the way only puts it off until the next time.
        let checkpoint = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        checkpoint.map_err(|error| super::Fault::Sql(error).doing(JournalWrite::Prune.action(), &self.path))
    }

    /// The digests of all files, those inside trees too, that the content store must keep.
    pub(crate) fn referenced(&self) -> Result<HashSet<Digest>> {
        self.read(|view| {
            let mut list = view.prepare_cached(&format!(
                "SELECT needed.content, content.files FROM ({NEEDED}) AS needed
                 LEFT JOIN content ON content.key = needed.content"
            ))?;
            let mut rows = list.query([])?;
            let mut digests = HashSet::new();
            while let Some(row) = rows.next()? {
                digests.extend(content::file_digests(row, 0)?);
            }
            digests.extend(brief::digests(view)?);
            // What was seen and is not live yet is needed for the next try.
            let mut known = view.prepare_cached("SELECT DISTINCT digest FROM known")?;
            let mut rows = known.query([])?;
            while let Some(row) = rows.next()? {
                digests.extend(content::optional_digest(row, 0)?);
            }
            Ok(digests)
        })
    }
}

fn drop_deployments(transaction: &Connection, pickup: i64, keep_after: i64) -> Attempt<()> {
    let mut list = transaction.prepare_cached(
        "SELECT id FROM deployment WHERE pickup = ?1 AND finished_at < ?2
            AND generation IS NOT (SELECT committed FROM pickup WHERE id = ?1)",
    )?;
    let old = list.query_map(params![pickup, keep_after], |row| row.get(0))?;
    keep_revision(transaction, pickup, keep_after)?;
    for id in old.collect::<Result<Vec<i64>, _>>()? {
        for sql in [
            "DELETE FROM change WHERE deployment = ?1",
            "DELETE FROM step WHERE deployment = ?1",
            "DELETE FROM step_group WHERE deployment = ?1",
            "DELETE FROM brief WHERE deployment = ?1",
            "DELETE FROM deployment WHERE id = ?1",
        ] {
            transaction.prepare_cached(sql)?.execute([id])?;
        }
    }
    Ok(())
}

/// Takes down the commit that was live when the deployments that are about to go were over.
fn keep_revision(transaction: &Connection, pickup: i64, keep_after: i64) -> Attempt<()> {
    transaction.execute(
        &format!(
            "UPDATE pickup SET base_revision = ifnull((
            SELECT revision FROM deployment
            WHERE pickup = ?1 AND finished_at < ?2 AND revision IS NOT NULL AND generation < pickup.committed
              AND {WENT_LIVE}
            ORDER BY generation DESC LIMIT 1), base_revision)
         WHERE id = ?1"
        ),
        [pickup, keep_after],
    )?;
    Ok(())
}

/// Makes the oldest generation that is left the base: of each unit's versions up to there, only the last is kept.
fn fold(transaction: &Connection, pickup: i64) -> Attempt<()> {
    let mut find = transaction.prepare_cached("SELECT min(generation) FROM deployment WHERE pickup = ?1")?;
    let Some(oldest) = find.query_row([pickup], |row| row.get::<_, Option<i64>>(0))? else { return Ok(()) };
    transaction.execute("UPDATE pickup SET oldest = max(oldest, ?2) WHERE id = ?1", [pickup, oldest])?;
    transaction.execute(
        "DELETE FROM unit_version WHERE pickup = ?1 AND generation <
            (SELECT max(later.generation) FROM unit_version AS later
             WHERE later.pickup = ?1 AND later.path = unit_version.path AND later.generation <= ?2)",
        [pickup, oldest],
    )?;
    // With nothing before it left, a removal says no more than no row at all.
    transaction.execute(
        "DELETE FROM unit_version WHERE pickup = ?1 AND generation <= ?2 AND content IS NULL",
        [pickup, oldest],
    )?;
    Ok(())
}
