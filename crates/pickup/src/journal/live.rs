//! What is live now, and what was live in a generation.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;

#[cfg(test)]
use super::LiveRow;
use super::brief::UnitChange;
use super::content::{self, load_json, path_bytes};
use super::later::{Left, LiveLater};
use super::{Attempt, Fault, Journal, JournalWrite, LiveKey, LiveReceipt, Result, WENT_LIVE, later};
use crate::change::Content;
use crate::change::live::Kept;
use crate::path::UnitPath;

/// The deployers that have nothing live of, or between, the units that are asked about: so it is where much is new.
fn fresh_to<'a>(view: &Connection, pickup: Option<i64>, asked: &[(&'a str, &UnitPath)]) -> Attempt<Vec<&'a str>> {
    let mut spans: BTreeMap<&str, (&[u8], &[u8])> = BTreeMap::new();
    for (deployer, unit) in asked {
        let path = path_bytes(unit);
        let span = spans.entry(deployer).or_insert((path, path));
        *span = (span.0.min(path), span.1.max(path));
    }
    let mut any = view
        .prepare_cached("SELECT 1 FROM live WHERE pickup = ?1 AND deployer = ?2 AND path BETWEEN ?3 AND ?4 LIMIT 1")?;
    let mut fresh = Vec::new();
    for (deployer, (first, last)) in spans {
        if !any.exists(params![pickup, deployer, first, last])? {
            fresh.push(deployer);
        }
    }
    Ok(fresh)
}

/// A row of what is live.
pub(super) struct Row<'a> {
    pub deployer: &'a str,
    pub path: &'a [u8],
    pub config_digest: &'a str,
    pub content: Option<&'a [u8]>,
    pub generation: i64,
    pub receipt: &'a str,
    #[cfg(test)]
    pub since: i64,
}

/// What was left for later, by deployer and path.
type Newer<'a> = BTreeMap<(&'a str, &'a [u8]), LiveLater<'a>>;

/// Tells `each` of what is live of a pickup, with what was left for later, by deployer and path, from after the one that is given;
/// until it gives false.
pub(super) fn each(
    view: &Connection,
    pickup: &str,
    newer: &Newer<'_>,
    after: Option<(&str, &UnitPath)>,
    mut each: impl FnMut(Row<'_>) -> Attempt<bool>,
) -> Attempt<()> {
    // No deployer has an empty name.
    let root = UnitPath::root();
    let after = after.map_or(("", path_bytes(&root)), |(deployer, unit)| (deployer, path_bytes(unit)));
    let mut newer = newer.range((Bound::Excluded(after), Bound::Unbounded)).peekable();
    let mut list = view.prepare_cached(
        "SELECT deployer, path, config_digest, content, generation, receipt, since FROM live
         WHERE pickup = (SELECT id FROM pickup WHERE name = ?1) AND (deployer, path) > (?2, ?3) ORDER BY deployer, path",
    )?;
    let mut rows = list.query(params![pickup, after.0, after.1])?;
    while let Some(row) = rows.next()? {
        let text = |column| -> Attempt<_> { Ok(row.get_ref(column)?.as_str().map_err(rusqlite::Error::from)?) };
        let bytes =
            |column| -> Attempt<_> { Ok(row.get_ref(column)?.as_blob_or_null().map_err(rusqlite::Error::from)?) };
        let (deployer, path, generation) = (text(0)?, bytes(1)?.unwrap_or_default(), row.get(4)?);
        while let Some((_, later)) = newer.next_if(|(key, _)| **key < (deployer, path)) {
            if !later.tell(&mut each)? {
                return Ok(());
            }
        }
        let goes_on = match newer.next_if(|(key, _)| **key == (deployer, path)) {
            Some((_, later)) if later.generation >= generation => later.tell(&mut each)?,
            Some(_) | None => each(Row {
                deployer,
                path,
                config_digest: text(2)?,
                content: bytes(3)?,
                generation,
                receipt: text(5)?,
                #[cfg(test)]
                since: row.get(6)?,
            })?,
        };
        if !goes_on {
            return Ok(());
        }
    }
    for (_, later) in newer {
        if !later.tell(&mut each)? {
            break;
        }
    }
    Ok(())
}

impl LiveLater<'_> {
    fn tell(&self, each: &mut impl FnMut(Row<'_>) -> Attempt<bool>) -> Attempt<bool> {
        // What was removed is not live.
        let Some(receipt) = self.receipt else { return Ok(true) };
        let file = self.step.unit.content.as_ref();
        let key = file.map(|file| content::file_key(&file.digest, file.mode, file.size));
        each(Row {
            deployer: &self.deployer.name,
            path: path_bytes(&self.step.unit.path),
            config_digest: &self.deployer.config_digest,
            content: key.as_ref().map(<[u8; _]>::as_slice),
            generation: self.generation,
            receipt,
            #[cfg(test)]
            since: self.since,
        })
    }
}

impl LiveKey<'_> {
    /// The unit.
    pub(crate) fn unit(&self) -> Option<UnitPath> {
        content::path_of(self.path).ok()
    }

    /// Whether the unit is the whole pickup directory.
    pub(crate) fn is_root(&self) -> bool {
        self.path.is_empty()
    }

    /// Whether it is known what is live there.
    pub(crate) fn is_told(&self) -> bool {
        self.content.is_some()
    }

    /// Whether that is live there: the same bytes, and the same modes.
    pub(crate) fn holds(&self, kept: &Kept) -> bool {
        self.content.is_some_and(|key| content::is_key_of(key, kept))
    }

    /// How the path of `unit` compares with that of this one, in the order of rows and of [`Journal::units_at`].
    pub(crate) fn compare(&self, unit: &UnitPath) -> Ordering {
        path_bytes(unit).cmp(self.path)
    }
}

impl Journal {
    /// What is live for a pickup, in the order of deployer and path, at most `limit` rows after `after`: to observe it
    /// without holding all of it at once.
    pub(crate) fn live_after(
        &self,
        pickup: &str,
        after: Option<(&str, &UnitPath)>,
        limit: usize,
    ) -> Result<Vec<LiveReceipt>> {
        self.read(|view| {
            let unwritten = later::unwritten(view, pickup, true)?;
            let mut rows = Vec::new();
            each(view, pickup, &later::live(&unwritten), after, |row| {
                rows.push(LiveReceipt {
                    deployer: row.deployer.to_owned(),
                    unit: content::path_of(row.path)?,
                    generation: row.generation.cast_unsigned(),
                    receipt: row.receipt.to_owned(),
                });
                Ok(rows.len() < limit)
            })?;
            Ok(rows)
        })
    }

    /// Tells `each` of everything that is live for a pickup, by deployer and path, receipts and contents left out.
    pub(crate) fn each_live(&self, pickup: &str, mut tell: impl FnMut(LiveKey<'_>)) -> Result<()> {
        self.read(|view| {
            let unwritten = later::unwritten(view, pickup, true)?;
            each(view, pickup, &later::live(&unwritten), None, |row| {
                let Row { deployer, path, config_digest, content, generation, .. } = row;
                tell(LiveKey { deployer, path, config_digest, generation: generation.cast_unsigned(), content });
                Ok(true)
            })
        })
    }

    /// Everything that is live for a pickup, by deployer and path.
    #[cfg(test)]
    pub(crate) fn live(&self, pickup: &str) -> Result<Vec<LiveRow>> {
        let mut rows = self.read(|view| {
            let unwritten = later::unwritten(view, pickup, true)?;
            let mut rows = Vec::new();
            each(view, pickup, &later::live(&unwritten), None, |row| {
                rows.push(LiveRow {
                    deployer: row.deployer.to_owned(),
                    unit: content::path_of(row.path)?,
                    config_digest: row.config_digest.to_owned(),
                    digest: row.content.map(content::digest_of).transpose()?,
                    generation: row.generation.cast_unsigned(),
                    receipt: serde_json::from_str(row.receipt)?,
                    content: None,
                    since: row.since,
                });
                Ok(true)
            })?;
            Ok(rows)
        })?;
        for row in &mut rows {
            row.content = self.live_content(pickup, &row.deployer, &row.unit)?;
        }
        Ok(rows)
    }

    /// The receipts of what deployers have live of units, in the order they are asked for.
    pub(crate) fn receipts(&self, pickup: &str, asked: &[(&str, &UnitPath)]) -> Result<Vec<Option<Value>>> {
        let find_all = |view: &Connection| {
            // Once for all: of those that are asked about there may be many.
            let mut id = view.prepare_cached("SELECT id FROM pickup WHERE name = ?1")?;
            let id: Option<i64> = id.query_row([pickup], |row| row.get(0)).optional()?;
            let may_hold = |left: &Left| {
                id.is_some_and(|id| asked.iter().any(|(deployer, unit)| left.may_hold(id, deployer, unit)))
            };
            let is_left = self.left.as_ref().is_none_or(may_hold);
            let unwritten = if is_left { later::unwritten(view, pickup, true)? } else { Vec::new() };
            let newer = later::live(&unwritten);
            let mut find = view.prepare_cached(
                "SELECT receipt, generation FROM live WHERE pickup = ?1 AND deployer = ?2 AND path = ?3",
            )?;
            // Of one it would be the same question.
            let fresh = if asked.len() > 1 { fresh_to(view, id, asked)? } else { Vec::new() };
            let receipt = |(deployer, unit): &(&str, &UnitPath)| {
                let path = path_bytes(unit);
                let later = newer.get(&(*deployer, path));
                if !fresh.contains(deployer) {
                    let mut rows = find.query(params![id, deployer, path])?;
                    if let Some(row) = rows.next()? {
                        let generation: i64 = row.get(1)?;
                        if later.is_none_or(|later| later.generation < generation) {
                            return load_json(row, 0);
                        }
                    }
                }
                Ok(later.and_then(|later| later.receipt).map(serde_json::from_str).transpose()?)
            };
            asked.iter().map(receipt).collect()
        };
        // The number of a pickup never changes.
        let is_all_written = self.left.as_ref().is_some_and(Left::is_nothing);
        if asked.len() <= 1 && is_all_written { self.read_at_once(find_all) } else { self.read(find_all) }
    }

    /// The content that `deployer` has live of `unit`.
    pub(crate) fn live_content(&self, pickup: &str, deployer: &str, unit: &UnitPath) -> Result<Option<Content>> {
        self.read(|view| {
            let unwritten = later::unwritten(view, pickup, true)?;
            let newer = later::live(&unwritten);
            let later = newer.get(&(deployer, path_bytes(unit)));
            let mut find = view.prepare_cached(
                "SELECT live.content, content.size, content.files, live.generation
                 FROM live LEFT JOIN content ON content.key = live.content
                 WHERE live.pickup = (SELECT id FROM pickup WHERE name = ?1) AND deployer = ?2 AND path = ?3",
            )?;
            let mut rows = find.query(params![pickup, deployer, path_bytes(unit)])?;
            if let Some(row) = rows.next()? {
                let generation: i64 = row.get(3)?;
                if later.is_none_or(|later| later.generation < generation) {
                    return content::load(row, 0, &self.stored);
                }
            }
            Ok(later.and_then(|later| later.step.unit.kept()).map(|kept| kept.content(&self.stored)))
        })
    }

    /// Exchanges the receipt of what is live: it was put back by undoing its removal.
    pub(crate) fn replace_receipt(&mut self, pickup: &str, deployer: &str, unit: &UnitPath, new: &Value) -> Result<()> {
        self.write(JournalWrite::Revert, |transaction| {
            let mut find = transaction.prepare_cached("SELECT id FROM pickup WHERE name = ?1")?;
            let Some(id) = find.query_row([pickup], |row| row.get(0)).optional()? else { return Ok(()) };
            later::write_all(transaction, id)?;
            transaction
                .prepare_cached("UPDATE live SET receipt = ?4 WHERE pickup = ?1 AND deployer = ?2 AND path = ?3")?
                .execute(params![id, deployer, path_bytes(unit), new.to_string()])?;
            Ok(())
        })
    }

    /// The names of all pickups that have records.
    pub(crate) fn pickups(&self) -> Result<Vec<String>> {
        self.read(|view| {
            let mut list = view.prepare_cached("SELECT name FROM pickup ORDER BY name")?;
            let names = list.query_map([], |row| row.get(0))?;
            Ok(names.collect::<Result<_, _>>()?)
        })
    }

    /// The newest generation of which anything was committed.
    pub(crate) fn live_generation(&self, pickup: &str) -> Result<Option<u64>> {
        self.read(|view| {
            let mut find = view.prepare_cached("SELECT committed FROM pickup WHERE name = ?1")?;
            let found: Option<Option<i64>> = find.query_row([pickup], |row| row.get(0)).optional()?;
            Ok(found.flatten().map(i64::cast_unsigned))
        })
    }

    /// When the newest deployment was over of which anything was committed.
    pub(crate) fn last_success(&self, pickup: &str) -> Result<Option<i64>> {
        self.read(|view| {
            let mut find = view.prepare_cached(&format!(
                "SELECT finished_at FROM deployment
                 WHERE pickup = (SELECT id FROM pickup WHERE name = ?1)
                   AND {WENT_LIVE}
                 ORDER BY generation DESC LIMIT 1"
            ))?;
            let found: Option<Option<i64>> = find.query_row([pickup], |row| row.get(0)).optional()?;
            Ok(found.flatten())
        })
    }

    /// What was live once `generation` was over: for each unit its last committed content, removed ones left out.
    ///
    /// # Errors
    ///
    /// `NotFound` for a generation whose contents were pruned.
    pub(crate) fn contents_at(&self, pickup: &str, generation: u64) -> Result<BTreeMap<UnitPath, Content>> {
        let units = self.units_at(pickup, generation)?.into_iter();
        Ok(units.map(|(unit, kept)| (unit, kept.content(&self.stored))).collect())
    }

    /// The same, ordered by the bytes of the paths.
    ///
    /// # Errors
    ///
    /// As for [`contents_at`](Self::contents_at).
    pub(crate) fn units_at(&self, pickup: &str, generation: u64) -> Result<Vec<(UnitPath, Kept)>> {
        self.read(|view| {
            let mut find = view.prepare_cached("SELECT oldest FROM pickup WHERE name = ?1")?;
            let oldest: Option<i64> = find.query_row([pickup], |row| row.get(0)).optional()?;
            if let Some(oldest) = oldest.filter(|oldest| generation.cast_signed() < *oldest) {
                return Err(Fault::NotFound(format!(
                    "generation {generation} of {pickup} is pruned, {oldest} is the oldest that is kept"
                )));
            }
            let unwritten = later::unwritten(view, pickup, false)?;
            let mut newer = BTreeMap::new();
            for of in unwritten.iter().filter(|of| of.generation <= generation.cast_signed()) {
                let changes = of.brief.steps_changes();
                newer.extend(changes.map(|change| (path_bytes(&change.path), (of.generation, change))));
            }
            // Beside max(), SQLite takes the other columns from the row that holds the maximum.
            let mut list = view.prepare_cached(
                "SELECT version.path, version.key, content.size, content.files, version.generation
                 FROM (SELECT path, content AS key, max(generation) AS generation FROM unit_version
                       WHERE pickup = (SELECT id FROM pickup WHERE name = ?1) AND generation <= ?2
                       GROUP BY path) AS version
                 LEFT JOIN content ON content.key = version.key
                 ORDER BY version.path",
            )?;
            let mut rows = list.query(params![pickup, generation.cast_signed()])?;
            let mut units = Vec::new();
            let mut newer = newer.into_iter().peekable();
            let take = |units: &mut Vec<_>, change: &UnitChange| {
                units.extend(change.kept().map(|kept| (change.path.clone(), kept)));
            };
            while let Some(row) = rows.next()? {
                let path = row.get_ref(0)?.as_blob().map_err(rusqlite::Error::from)?;
                while let Some((_, (_, change))) = newer.next_if(|(newer, _)| *newer < path) {
                    take(&mut units, change);
                }
                match newer.next_if(|(newer, _)| *newer == path) {
                    Some((_, (of, change))) if of >= row.get(4)? => take(&mut units, change),
                    Some(_) | None => {
                        if let Some(kept) = content::load_kept(row, 1, &self.stored)? {
                            units.push((content::path_of(path)?, kept));
                        }
                    }
                }
            }
            newer.for_each(|(_, (_, change))| take(&mut units, change));
            Ok(units)
        })
    }
}
