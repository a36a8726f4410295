//! What is not tried for now: units that failed, and pickups held at a generation.

use rusqlite::{OptionalExtension, params};

use super::content::{load_path, optional_digest, path_bytes};
use super::deployment::bounded;
use super::{Journal, JournalWrite, Quarantined, Result, enter_pickup};
use crate::path::UnitPath;

impl Journal {
    /// Records that a unit failed with a deployer, in place of what was recorded for the two before.
    pub(crate) fn quarantine(&mut self, pickup: &str, failed: &Quarantined) -> Result<()> {
        self.write(JournalWrite::Quarantine, |transaction| {
            let pickup = enter_pickup(transaction, pickup)?;
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO quarantine (pickup, path, deployer, digest, attempts, retry_at, cause,
                                                        is_transient)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![
                    pickup,
                    path_bytes(&failed.unit),
                    failed.deployer,
                    failed.digest.map(|digest| digest.0),
                    failed.attempts,
                    failed.retry_at,
                    bounded(&failed.cause),
                    failed.is_transient,
                ])?;
            Ok(())
        })
    }

    /// What failed in a pickup and was neither deployed since nor cleared, by unit and deployer.
    pub(crate) fn quarantined(&self, pickup: &str) -> Result<Vec<Quarantined>> {
        self.read(|view| {
            let mut list = view.prepare_cached(
                "SELECT path, deployer, digest, attempts, retry_at, cause, is_transient FROM quarantine
                 WHERE pickup = (SELECT id FROM pickup WHERE name = ?1) ORDER BY path, deployer",
            )?;
            let rows = list.query_and_then([pickup], |row| {
                Ok(Quarantined {
                    unit: load_path(row, 0)?,
                    digest: optional_digest(row, 2)?,
                    deployer: row.get(1)?,
                    attempts: row.get(3)?,
                    retry_at: row.get(4)?,
                    cause: row.get(5)?,
                    is_transient: row.get(6)?,
                })
            })?;
            rows.collect()
        })
    }

    /// Lets a unit, or every unit of the pickup, be tried again.
    pub(crate) fn clear_quarantine(&mut self, pickup: &str, unit: Option<&UnitPath>) -> Result<()> {
        self.write(JournalWrite::Quarantine, |transaction| {
            transaction
                .prepare_cached(
                    "DELETE FROM quarantine WHERE pickup = (SELECT id FROM pickup WHERE name = ?1)
                                              AND (?2 IS NULL OR path = ?2)",
                )?
                .execute(params![pickup, unit.map(path_bytes)])?;
            Ok(())
        })
    }

    /// Holds a pickup at a generation, or lifts the hold.
    pub(crate) fn hold(&mut self, pickup: &str, generation: Option<u64>) -> Result<()> {
        self.write(JournalWrite::Hold, |transaction| {
            let pickup = enter_pickup(transaction, pickup)?;
            transaction
                .prepare_cached("UPDATE pickup SET held = ?2 WHERE id = ?1")?
                .execute(params![pickup, generation.map(u64::cast_signed)])?;
            Ok(())
        })
    }

    /// The generation at which a pickup is held.
    pub(crate) fn held(&self, pickup: &str) -> Result<Option<u64>> {
        self.read(|view| {
            let mut find = view.prepare_cached("SELECT held FROM pickup WHERE name = ?1")?;
            let held: Option<Option<i64>> = find.query_row([pickup], |row| row.get(0)).optional()?;
            Ok(held.flatten().map(i64::cast_unsigned))
        })
    }
}
