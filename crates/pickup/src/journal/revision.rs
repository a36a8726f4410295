//! Which commits are live, were live, and were taken up.

use rusqlite::{OptionalExtension, params};

use super::content::load_json;
use super::{Fault, Followed, Journal, Result, WENT_LIVE};
use crate::source::git::Revision;

impl Journal {
    /// The newest commit of which anything was committed.
    pub(crate) fn live_revision(&self, pickup: &str) -> Result<Option<Revision>> {
        self.read(|view| {
            let mut find = view.prepare_cached("SELECT revision FROM pickup WHERE name = ?1")?;
            let mut rows = find.query([pickup])?;
            match rows.next()? {
                Some(row) => load_json(row, 0),
                None => Ok(None),
            }
        })
    }

    /// The commit that was live once `generation` was over: that of the newest deployment up to there which had one and
    /// of which anything was committed. `None` also for a generation whose contents were pruned.
    pub(crate) fn revision_at(&self, pickup: &str, generation: u64) -> Result<Option<Revision>> {
        self.read(|view| {
            let mut find = view.prepare_cached("SELECT id, oldest, base_revision FROM pickup WHERE name = ?1")?;
            let found = find.query_row([pickup], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).optional()?;
            let Some((id, oldest, base)): Option<(i64, i64, Option<String>)> = found else { return Ok(None) };
            if generation.cast_signed() < oldest {
                return Ok(None);
            }
            let mut newest = view.prepare_cached(&format!(
                "SELECT revision FROM deployment WHERE pickup = ?1 AND generation <= ?2 AND revision IS NOT NULL
                    AND {WENT_LIVE}
                 ORDER BY generation DESC LIMIT 1"
            ))?;
            let newest = newest.query_row(params![id, generation.cast_signed()], |row| row.get(0)).optional()?;
            let json: Option<String> = newest.or(base);
            Ok(json.as_deref().map(serde_json::from_str).transpose()?)
        })
    }

    /// Up to which commit each of a pickup's repositories was taken up, by root.
    pub(crate) fn followed(&self, pickup: &str) -> Result<Vec<Followed>> {
        self.read(|view| {
            let mut list = view.prepare_cached(
                "SELECT root, origin, revision FROM followed
                 WHERE pickup = (SELECT id FROM pickup WHERE name = ?1) ORDER BY root",
            )?;
            let rows = list.query_and_then([pickup], |row| {
                let root = usize::try_from(row.get::<_, i64>(0)?);
                let root = root.map_err(|_| Fault::Unexpected("a root's number is negative".to_owned()))?;
                let revision = load_json(row, 2)?.ok_or_else(|| Fault::Unexpected("a commit is missing".to_owned()))?;
                Ok(Followed { root, origin: row.get(1)?, revision })
            })?;
            rows.collect()
        })
    }
}
