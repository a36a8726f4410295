//! Opening: a fresh journal, one of ours, one that is damaged, one from the future.
#![expect(clippy::disallowed_methods, reason = "this is the door to the journal's file")]

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::closed::{self, Closing};
use super::{Attempt, Fault, Hook, Journal, Opened, schema};
use crate::error::{Error, ErrorKind, IoContext, Result};

/// The journal's name in the state directory.
pub(super) const FILE_NAME: &str = "journal.db";

/// How long a writer waits for another process that reads a checkpoint, such as `pickupd status`.
const BUSY_MAX: Duration = Duration::from_secs(5);

/// More than there are statements in this module, so that each is prepared once.
const STATEMENTS_MAX: usize = 128;

/// How much of the journal is kept in memory, in KiB: the files known in a large pickup, and their contents.
pub(super) const PAGES: i32 = 4 * 1024;

/// What is found where the journal should be.
enum Found {
    Nothing,
    Sound { version: usize },
    Newer { version: usize },
    Damaged { why: String },
}

impl Journal {
    /// Opens the journal for writing, and makes it if there is none. A damaged one is set aside.
    ///
    /// The caller must be the only one to do so for this state directory.
    ///
    /// # Errors
    ///
    /// `NewerSchema` if a newer version wrote it, which leaves it untouched; `Journal` or `Io` if it cannot be opened.
    pub(crate) fn open(state_dir: &Path, hook: Option<Hook>, now_ms: i64) -> Result<(Self, Opened)> {
        let path = state_dir.join(FILE_NAME);
        create_private_dir(state_dir).doing("create", state_dir)?;
        let mut opened = Opened::Existing;
        let was_closed = closed::take_mark(&path);
        match look(&path, was_closed)? {
            Found::Nothing => opened = Opened::New,
            Found::Sound { version } if version < schema::current() => {
                opened = Opened::Migrated { from: u32::try_from(version).unwrap_or(u32::MAX) };
            }
            Found::Sound { .. } => {}
            Found::Newer { version } => return Err(newer(&path, version)),
            Found::Damaged { why } => {
                let set_aside = set_aside(&path, now_ms)?;
                opened = Opened::Rebuilt { set_aside, why };
            }
        }
        make_private(&path).doing("make private", &path)?;
        let connection = connect(&path).map_err(|fault| fault.doing("open journal", &path))?;
        let mut journal = Self::new(connection, state_dir, hook);
        journal.look_for_left();
        let is_unchecked = was_closed && opened == Opened::Existing;
        journal.closing = Some(Box::new(Closing { path, is_unchecked, doubt: journal.doubt.clone() }));
        Ok((journal, opened))
    }

    /// Opens the journal for reading, beside a daemon or without one; `None` if there is no journal.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open), and `Journal` for one that is damaged or that only a start would bring up to date.
    pub(crate) fn open_read_only(state_dir: &Path) -> Result<Option<Self>> {
        let path = state_dir.join(FILE_NAME);
        if !exists(&path)? {
            return Ok(None);
        }
        let failed = |fault: Fault| fault.doing("read journal", &path);
        let connection = connect_read_only(&path).map_err(failed)?;
        match schema::version(&connection).map_err(failed)? {
            0 => Ok(None),
            version if version > schema::current() => Err(newer(&path, version)),
            version if version < schema::current() => Err(failed(Fault::Unexpected(format!(
                "it has version {version}, and only a start brings it to {}",
                schema::current()
            )))),
            _ => Ok(Some(Self::new(connection, state_dir, None))),
        }
    }
}

/// Judges the file without changing it: a connection that may not write makes no checkpoint when it is closed. One that
/// `was_closed` in order is not read.
fn look(path: &Path, was_closed: bool) -> Result<Found> {
    if !exists(path)? {
        return Ok(Found::Nothing);
    }
    let judge = || {
        let connection = connect_read_only(path)?;
        let version = schema::version(&connection)?;
        if version > schema::current() {
            return Ok(Found::Newer { version });
        }
        if was_closed && version == schema::current() {
            return Ok(Found::Sound { version });
        }
        Ok(match schema::damage(&connection, version)? {
            Some(why) => Found::Damaged { why },
            None if version == 0 => Found::Nothing,
            None => Found::Sound { version },
        })
    };
    judge().or_else(|fault: Fault| match &fault {
        Fault::Sql(error) if is_damage(error) => Ok(Found::Damaged { why: error.to_string() }),
        _ => Err(fault.doing("open journal", path)),
    })
}

/// Whether a journal lies there.
fn exists(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => Ok(true),
        // A symlink here could make us write, or set aside, somebody else's file.
        Ok(_) => Err(Error::new(ErrorKind::Journal, "open journal").at(path).caused_by("it is no regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("look at", path, error)),
    }
}

pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

fn newer(path: &Path, version: usize) -> Error {
    let known = schema::current();
    Error::new(ErrorKind::NewerSchema, "use journal").at(path).caused_by(format!(
        "it has version {version}, and this program knows none after {known}: run the newer program again, or choose \
         another state_dir"
    ))
}

fn connect(path: &Path) -> Attempt<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    // A checkpoint is the only thing here that calls fsync. `prune` makes one, off the deploy path; by itself one comes
    // only after 40 MiB.
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL;
         PRAGMA wal_autocheckpoint = 10240;
         PRAGMA journal_size_limit = 4194304;",
    )?;
    connection.execute_batch(&format!("PRAGMA cache_size = -{PAGES};"))?;
    schema::migrate(&mut connection, schema::MIGRATIONS)?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> Attempt<()> {
    connection.busy_timeout(BUSY_MAX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // Plans do not depend on the values that are bound; SQLite would prepare a statement anew whenever they changed.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn connect_read_only(path: &Path) -> Attempt<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    prepare(&connection)?;
    // Contents are found by their digests, anywhere in their table: with less, its pages are read again and again.
    connection.execute_batch(&format!("PRAGMA cache_size = -{PAGES};"))?;
    Ok(connection)
}

/// Renames a damaged journal, with what belongs to it, to a name that is free.
fn set_aside(path: &Path, now_ms: i64) -> Result<PathBuf> {
    let stem = format!("damaged-{}", now_ms.div_euclid(1000));
    let names = std::iter::once(stem.clone()).chain((1..).map(|again| format!("{stem}.{again}")));
    let mut free = names.map(|name| with_suffix(path, &format!(".{name}")));
    let target = free.find(|name| fs::symlink_metadata(name).is_err()).unwrap_or_else(|| with_suffix(path, ".damaged"));
    // The database first: without its WAL it could pass for a sound one of some time ago.
    for suffix in ["", "-wal", "-shm"] {
        let from = with_suffix(path, suffix);
        match fs::rename(&from, with_suffix(&target, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("set aside", from, error)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(target)
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(unix)]
fn create_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

#[cfg(not(unix))]
fn create_private_dir(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Makes sure that the file exists and is ours alone; SQLite gives the same mode to what it puts beside it.
#[cfg(unix)]
fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => remove_leftovers(path),
        // By name, not by handle: closing any handle of the file would drop the locks of a connection in this process.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        }
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn make_private(path: &Path) -> io::Result<()> {
    match fs::OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(_) => remove_leftovers(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the WAL of a journal that is gone, which a fresh one must not take up.
fn remove_leftovers(path: &Path) -> io::Result<()> {
    for suffix in ["-wal", "-shm"] {
        match fs::remove_file(with_suffix(path, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}
