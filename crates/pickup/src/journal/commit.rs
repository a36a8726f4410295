//! What one commit writes for each of its groups: what is live now, and what the generation consists of.

use std::ops::RangeInclusive;

use rusqlite::{CachedStatement, Connection, OptionalExtension, params};

use super::brief::{Brief, Deployer, Step};
use super::content::{file_key, index, path_bytes};
use super::deployment::expect_step;
use super::{Attempt, CommittedGroup, DeploymentId, Fault};

/// One commit.
pub(super) struct Commit {
    pub id: DeploymentId,
    pub pickup: i64,
    pub generation: i64,
    pub now: i64,
    /// Whether a look into the quarantine is worth its time.
    pub is_any_quarantined: bool,
}

impl Commit {
    pub(super) fn of(transaction: &Connection, id: DeploymentId, now: i64) -> Attempt<Self> {
        let mut find = transaction.prepare_cached("SELECT pickup, generation FROM deployment WHERE id = ?1")?;
        let found = find.query_row([id.0], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (pickup, generation) = found.ok_or_else(|| Fault::NotFound(format!("there is no deployment {}", id.0)))?;
        let mut any = transaction.prepare_cached("SELECT 1 FROM quarantine WHERE pickup = ?1")?;
        Ok(Self { id, pickup, generation, now, is_any_quarantined: any.exists([pickup])? })
    }

    /// To write what is live, row by row.
    pub(super) fn rows<'a>(&self, transaction: &'a Connection) -> Attempt<LiveRows<'a>> {
        let mut put = transaction.prepare_cached(
            "INSERT INTO live (pickup, deployer, path, config_digest, content, generation, receipt, since)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
             ON CONFLICT DO UPDATE SET config_digest = excluded.config_digest, content = excluded.content,
                generation = excluded.generation, receipt = excluded.receipt, since = excluded.since
             WHERE excluded.generation >= live.generation",
        )?;
        let remove = transaction.prepare_cached(
            "DELETE FROM live WHERE pickup = ?1 AND deployer = ?2 AND path = ?3 AND generation <= ?4",
        )?;
        // What is bound stays bound: most of it is the same for all rows.
        put.raw_bind_parameter(1, self.pickup)?;
        put.raw_bind_parameter(6, self.generation)?;
        put.raw_bind_parameter(8, self.now)?;
        Ok(LiveRows { pickup: self.pickup, generation: self.generation, put, remove, bound: None })
    }

    /// Writes what is live of all of a brief deployment now.
    pub(super) fn brief(&self, transaction: &Connection, brief: &Brief, groups: &[CommittedGroup]) -> Attempt<()> {
        let mut rows = self.rows(transaction)?;
        for group in groups {
            for change in &group.live {
                let found = brief.find(group.group, change.step);
                let Some((step, deployer)) = found else { return expect_step(0, self.id, group.group, change.step) };
                let receipt = change.receipt.as_ref().map(ToString::to_string);
                rows.write(step, deployer, receipt.as_deref())?;
            }
        }
        Ok(())
    }

    /// Lets the units of a brief deployment out of the quarantine.
    pub(super) fn release(&self, transaction: &Connection, brief: &Brief) -> Attempt<()> {
        if !self.is_any_quarantined {
            return Ok(());
        }
        let mut release = transaction.prepare_cached("DELETE FROM quarantine WHERE pickup = ?1 AND path = ?2")?;
        for change in brief.steps_changes() {
            release.execute(params![self.pickup, path_bytes(&change.path)])?;
        }
        Ok(())
    }

    /// Writes what is live of each of the groups now.
    pub(super) fn live<'a>(
        &self,
        transaction: &Connection,
        groups: impl Iterator<Item = &'a CommittedGroup>,
    ) -> Attempt<()> {
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
    pub(super) fn versions(&self, transaction: &Connection, groups: &RangeInclusive<usize>) -> Attempt<()> {
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

/// Writes what is live, unless what is there is newer.
pub(super) struct LiveRows<'a> {
    pickup: i64,
    generation: i64,
    put: CachedStatement<'a>,
    remove: CachedStatement<'a>,
    /// The deployer that is bound.
    bound: Option<Deployer>,
}

impl LiveRows<'_> {
    /// What `step` left, with its receipt; without one, that it left nothing.
    pub(super) fn write(&mut self, step: &Step, deployer: &Deployer, receipt: Option<&str>) -> Attempt<()> {
        let path = path_bytes(&step.unit.path);
        let Some(receipt) = receipt else {
            self.remove.execute(params![self.pickup, deployer.name, path, self.generation])?;
            return Ok(());
        };
        if self.bound.as_ref() != Some(deployer) {
            self.put.raw_bind_parameter(2, &deployer.name)?;
            self.put.raw_bind_parameter(4, &deployer.config_digest)?;
            self.bound = Some(deployer.clone());
        }
        let file = step.unit.content.as_ref();
        self.put.raw_bind_parameter(3, path)?;
        self.put.raw_bind_parameter(5, file.map(|file| file_key(&file.digest, file.mode, file.size)))?;
        self.put.raw_bind_parameter(7, receipt)?;
        self.put.raw_execute()?;
        Ok(())
    }
}
