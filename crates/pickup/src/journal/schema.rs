//! The tables, and the steps that bring an older journal up to date.

use std::collections::BTreeSet;

use rusqlite::{Connection, TransactionBehavior};

use super::Attempt;

/// Step N leads from version N to N + 1. A step that was released is never edited: add another.
pub(super) const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE pickup (
        id         INTEGER PRIMARY KEY,
        name       TEXT NOT NULL UNIQUE,
        generation INTEGER NOT NULL DEFAULT 0, -- the highest ever used, also by a failure
        committed  INTEGER,                    -- the newest of which anything went live
        oldest     INTEGER NOT NULL DEFAULT 0, -- the oldest whose contents can still be told
        held       INTEGER
    );
    CREATE TABLE deployment (
        id          INTEGER PRIMARY KEY,
        pickup      INTEGER NOT NULL,
        generation  INTEGER NOT NULL,
        origin      TEXT NOT NULL,             -- JSON
        started_at  INTEGER NOT NULL,
        finished_at INTEGER,
        UNIQUE (pickup, generation)
    );
    CREATE TABLE step_group (
        deployment  INTEGER NOT NULL,
        number      INTEGER NOT NULL,
        state       TEXT NOT NULL,
        decided_at  INTEGER,                   -- committed, reverted or stuck
        cause       TEXT,
        output      TEXT,                      -- of the deployer that failed
        undo_errors TEXT,                      -- JSON list
        PRIMARY KEY (deployment, number)
    ) WITHOUT ROWID;
    CREATE TABLE step (
        deployment    INTEGER NOT NULL,
        in_group      INTEGER NOT NULL,
        number        INTEGER NOT NULL,
        deployer      TEXT NOT NULL,
        config_digest TEXT NOT NULL,
        path          BLOB NOT NULL,
        kind          TEXT NOT NULL,
        content       BLOB,
        previous      BLOB,
        changes       TEXT NOT NULL,           -- JSON list of numbers of change, same group
        old           TEXT,                    -- JSON receipt
        staged        TEXT,                    -- JSON receipt
        PRIMARY KEY (deployment, in_group, number)
    ) WITHOUT ROWID;
    CREATE TABLE change (
        deployment INTEGER NOT NULL,
        in_group   INTEGER NOT NULL,
        number     INTEGER NOT NULL,
        path       BLOB NOT NULL,
        kind       TEXT NOT NULL,
        content    BLOB,
        previous   BLOB,
        PRIMARY KEY (deployment, in_group, number)
    ) WITHOUT ROWID;
    CREATE TABLE live (
        pickup        INTEGER NOT NULL,
        deployer      TEXT NOT NULL,
        path          BLOB NOT NULL,
        config_digest TEXT NOT NULL,
        content       BLOB,
        generation    INTEGER NOT NULL,
        receipt       TEXT NOT NULL,           -- JSON
        since         INTEGER NOT NULL,
        PRIMARY KEY (pickup, deployer, path)
    ) WITHOUT ROWID;
    CREATE TABLE unit_version (
        pickup     INTEGER NOT NULL,
        path       BLOB NOT NULL,
        generation INTEGER NOT NULL,
        content    BLOB,                       -- NULL: removed
        PRIMARY KEY (pickup, path, generation)
    ) WITHOUT ROWID;
    CREATE TABLE content (
        key   BLOB NOT NULL PRIMARY KEY,
        size  INTEGER NOT NULL,
        files TEXT                             -- of a tree: JSON list of [path, digest, size, mode]
    ) WITHOUT ROWID;
    CREATE TABLE known (
        pickup INTEGER NOT NULL,
        root   INTEGER NOT NULL,
        path   BLOB NOT NULL,
        dev    INTEGER NOT NULL,
        ino    INTEGER NOT NULL,
        size   INTEGER NOT NULL,
        mtime  INTEGER NOT NULL,
        ctime  INTEGER NOT NULL,
        mode   INTEGER NOT NULL,
        digest BLOB NOT NULL,
        PRIMARY KEY (pickup, root, path)
    ) WITHOUT ROWID;
    CREATE TABLE quarantine (
        pickup       INTEGER NOT NULL,
        path         BLOB NOT NULL,
        deployer     TEXT NOT NULL,
        digest       BLOB,
        attempts     INTEGER NOT NULL,
        retry_at     INTEGER,
        cause        TEXT NOT NULL,
        is_transient INTEGER NOT NULL,
        PRIMARY KEY (pickup, path, deployer)
    ) WITHOUT ROWID;
",
    "
    ALTER TABLE deployment ADD COLUMN revision TEXT;  -- JSON; of a change set that comes from a commit
    ALTER TABLE pickup ADD COLUMN revision TEXT;      -- JSON; the newest commit of which anything went live
    ALTER TABLE pickup ADD COLUMN base_revision TEXT; -- JSON; the newest commit among deployments that were pruned
    CREATE TABLE followed (
        pickup   INTEGER NOT NULL,
        root     INTEGER NOT NULL,
        origin   TEXT NOT NULL,
        revision TEXT NOT NULL,                -- JSON
        PRIMARY KEY (pickup, root)
    ) WITHOUT ROWID;
",
    "
    ALTER TABLE deployment ADD COLUMN intent TEXT;    -- JSON; of one whose groups are not written out
",
    "
    ALTER TABLE deployment ADD COLUMN state TEXT;     -- of all groups of one that is not written out; NULL: staged
    -- Those of version 3 read otherwise. Nothing of them is live, and what they were about is deployed again.
    INSERT INTO step_group (deployment, number, state, cause)
        SELECT id, 0, 'reverted', 'it was cut off, and found by a newer version' FROM deployment WHERE intent IS NOT NULL;
    UPDATE deployment SET intent = NULL;
",
    "
    CREATE TABLE brief (
        deployment INTEGER PRIMARY KEY,
        intent     TEXT NOT NULL               -- JSON
    );
    CREATE TABLE unversioned (
        deployment INTEGER PRIMARY KEY         -- a brief one, what it changed is not in unit_version yet
    );
    INSERT INTO brief SELECT id, intent FROM deployment WHERE intent IS NOT NULL;
    UPDATE deployment SET state = ifnull(state, 'staged') WHERE intent IS NOT NULL;
    -- All of a row is written whenever one of its columns changes, and this one is long.
    ALTER TABLE deployment DROP COLUMN intent;
",
    "
    ALTER TABLE unversioned RENAME TO unwritten;
    ALTER TABLE unwritten ADD COLUMN since INTEGER;   -- of what is live of it; NULL: that is written
    ALTER TABLE unwritten ADD COLUMN receipt TEXT;    -- JSON; of all that is live of it
",
];

/// The version that this program writes.
pub(super) fn current() -> usize {
    MIGRATIONS.len()
}

/// The version of a journal; 0 for an empty database.
pub(super) fn version(connection: &Connection) -> Attempt<usize> {
    // A negative number was never ours; as a huge one it counts as newer, and is left alone.
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

/// Brings the journal to the last of `migrations`, each step in a transaction of its own; says where it stood before.
pub(super) fn migrate(connection: &mut Connection, migrations: &[&str]) -> Attempt<usize> {
    let from = version(connection)?;
    for (step, sql) in migrations.iter().enumerate().skip(from) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", i64::try_from(step + 1).unwrap_or(i64::MAX))?;
        transaction.commit()?;
    }
    Ok(from)
}

/// What is wrong with the journal, if anything is: damaged pages, tables missing for its version.
pub(super) fn damage(connection: &Connection, version: usize) -> Attempt<Option<String>> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        // SQLite puts a headline above it.
        return Ok(verdict.lines().last().map(str::to_owned));
    }
    let mut intact = Connection::open_in_memory()?;
    migrate(&mut intact, &MIGRATIONS[..version.min(MIGRATIONS.len())])?;
    let (expected, found) = (tables(&intact)?, tables(connection)?);
    if version == 0 && !found.is_empty() {
        return Ok(Some("it holds tables and no version".to_owned()));
    }
    Ok(expected.difference(&found).next().map(|table| format!("table {table} is missing")))
}

/// The names of all tables.
fn tables(connection: &Connection) -> Attempt<BTreeSet<String>> {
    let mut list = connection.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'")?;
    let names = list.query_map([], |row| row.get(0))?;
    Ok(names.collect::<Result<_, _>>()?)
}
