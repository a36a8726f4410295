//! The files seen in the pickup directories, so that a start need not read them all again.

use rusqlite::params;

use super::content::{digest_of, index, load_path, path_bytes};
use super::open::PAGES;
use super::{Attempt, Fault, Followed, Journal, JournalWrite, KnownFile, Result, enter_pickup};
use crate::source::{Fingerprint, Place};

/// What is kept in memory of pages that are read once, in KiB.
const PAGES_ONCE: i32 = 128;

impl Journal {
    /// What `take` makes of every file seen in a pickup's directories, by place.
    pub(crate) fn known<C: FromIterator<T>, T>(
        &self,
        pickup: &str,
        mut take: impl FnMut(KnownFile) -> Option<T>,
    ) -> Result<C> {
        // Each page is read once. Kept in memory, they would lie between what is made of them, and given back they would
        // leave holes there too small to be of use.
        self.remember_pages(PAGES_ONCE)?;
        let known = self.read(|view| {
            let mut list = view.prepare_cached(
                "SELECT root, path, dev, ino, size, mtime, ctime, mode, digest FROM known
                 WHERE pickup = (SELECT id FROM pickup WHERE name = ?1) ORDER BY root, path",
            )?;
            let rows = list.query_and_then([pickup], |row| {
                let root = usize::try_from(row.get::<_, i64>(0)?);
                let root = root.map_err(|_| Fault::Unexpected("a root's number is negative".to_owned()))?;
                Ok(KnownFile {
                    place: Place { root, path: load_path(row, 1)? },
                    fingerprint: Fingerprint {
                        dev: row.get::<_, i64>(2)?.cast_unsigned(),
                        ino: row.get::<_, i64>(3)?.cast_unsigned(),
                        size: row.get::<_, i64>(4)?.cast_unsigned(),
                        mtime: row.get(5)?,
                        ctime: row.get(6)?,
                        mode: row.get(7)?,
                    },
                    digest: digest_of(row.get_ref(8)?.as_blob().map_err(rusqlite::Error::from)?)?,
                })
            })?;
            rows.filter_map(|row: Attempt<_>| row.map(&mut take).transpose()).collect()
        });
        self.remember_pages(PAGES)?;
        known
    }

    /// How much of the journal is kept in memory, in KiB.
    fn remember_pages(&self, most: i32) -> Result<()> {
        self.read(|view| Ok(view.execute_batch(&format!("PRAGMA cache_size = -{most}"))?))
    }

    /// Adds or replaces `files`, drops those at `gone`, and records up to where repositories were taken up.
    pub(crate) fn save_known(
        &mut self,
        pickup: &str,
        files: &[KnownFile],
        gone: &[Place],
        followed: &[Followed],
    ) -> Result<()> {
        self.write(JournalWrite::Known, |transaction| {
            let pickup = enter_pickup(transaction, pickup)?;
            let mut remove =
                transaction.prepare_cached("DELETE FROM known WHERE pickup = ?1 AND root = ?2 AND path = ?3")?;
            for place in gone {
                remove.execute(params![pickup, index(place.root), path_bytes(&place.path)])?;
            }
            let mut save = transaction.prepare_cached(
                "INSERT OR REPLACE INTO known (pickup, root, path, dev, ino, size, mtime, ctime, mode, digest)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
            )?;
            for KnownFile { place, fingerprint, digest } in files {
                let Fingerprint { dev, ino, size, mtime, ctime, mode } = *fingerprint;
                save.execute(params![
                    pickup,
                    index(place.root),
                    path_bytes(&place.path),
                    // SQLite's integers are signed; device and inode numbers come back bit for bit.
                    dev.cast_signed(),
                    ino.cast_signed(),
                    size.cast_signed(),
                    mtime,
                    ctime,
                    mode,
                    digest.0,
                ])?;
            }
            let mut follow = transaction.prepare_cached(
                "INSERT OR REPLACE INTO followed (pickup, root, origin, revision) VALUES (?1, ?2, ?3, ?4)",
            )?;
            for Followed { root, origin, revision } in followed {
                follow.execute(params![pickup, index(*root), origin, serde_json::to_string(revision)?])?;
            }
            Ok(())
        })
    }
}
