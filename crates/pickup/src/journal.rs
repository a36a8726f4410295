//! Stage 7 of 8: intents and receipts in, replay and history out.
//!
//! One SQLite database, `<state_dir>/journal.db`. A *deployment* is one attempt to bring a change set of one pickup live
//! as a generation; it consists of *groups*, each all or nothing, and those of *steps*: one deployer, one unit. A group
//! moves through [`GroupState`] only. Each method that writes is one transaction, so a crash leaves either all of it or
//! nothing. WAL with `synchronous=NORMAL` keeps fsync off the deploy path: a killed process loses nothing, a power cut
//! at most the last transactions. Times are arguments, in milliseconds since the epoch.
//!
//! | table | one row for each | filled by | emptied by |
//! |---|---|---|---|
//! | `pickup` | name ever deployed: highest, newest committed, oldest known and held generation, live commit | every write | – |
//! | `deployment` | attempt: origin, commit, start, end; of a brief one also its state | `intend`, each record, `finish` | `prune` |
//! | `brief` | deployment that is brief: what it is about | `intend` | each record that writes it out, `prune` |
//! | `step_group` | group of a deployment: its state, and why it failed | `intend` and each record | `prune` |
//! | `step` | step of an open deployment: its unit, old and staged receipts | `intend`, `staged` | `finish` |
//! | `change` | changed unit of a group, whichever deployers it went to | `intend` | `prune` |
//! | `live` | (deployer, unit) that is live: receipt and content | `committed`, and what empties `unwritten` | the same |
//! | `unit_version` | (unit, generation) that changed it; no content means removed | `committed`, and what empties `unwritten` | `prune` |
//! | `unwritten` | brief deployment of which these two do not tell yet (`later`) | `committed` | `write_later`, `prune`, a removal, each record that writes it out |
//! | `content` | distinct tree: its list of files (in older journals also file: its size) | `intend` | `prune` |
//! | `known` | file seen in a pickup directory | `save_known` | `save_known` |
//! | `followed` | root that is a git repository: where it comes from, the commit that was taken up | `save_known` | – |
//! | `quarantine` | (unit, deployer) that failed | `quarantine` | `clear_quarantine`, `committed` |
//!
//! Of a deployment that is brief (`brief`) there are no groups, steps and changes until it has to be written out.
//!
//! A content's key is its digest, and for a file also its mode and size: 44 bytes are a file, 32 a tree; 36 are a file of
//! an older version, the size of which is in its row. Paths are the file system's bytes, receipts JSON. No path of the
//! state directory is stored, so it can be moved.

mod brief;
mod closed;
mod commit;
mod content;
mod deployment;
pub mod history;
mod known;
mod later;
mod live;
mod open;
mod pending;
mod prune;
mod quarantine;
mod revision;
mod rows;
mod schema;
mod state;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};
use serde_json::Value;

use self::brief::Brief;
use self::closed::Closing;
pub(crate) use self::closed::Doubt;
pub use self::history::{Deployment, DeploymentChange, Origin, Outcome};
use self::later::Left;
pub(crate) use self::state::GroupState;
use self::state::IllegalTransition;
use crate::capture::{Digest, Stored};
#[cfg(test)]
use crate::change::Content;
use crate::deploy::Unit;
use crate::error::{Error, ErrorKind, Result};
use crate::path::UnitPath;
use crate::source::git::Revision;
use crate::source::{Fingerprint, Place};

/// Called before and after each write transaction; its error is returned as if the process had died there.
pub(crate) type Hook = Arc<dyn Fn(JournalWrite, Moment) -> Result<()> + Send + Sync>;

/// The kinds of write transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum JournalWrite {
    Intend,
    Stage,
    Commit,
    Retire,
    Revert,
    Stick,
    Finish,
    Known,
    Quarantine,
    Hold,
    Prune,
    Later,
}

impl JournalWrite {
    /// The word for the write.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Intend => "intend",
            Self::Stage => "stage",
            Self::Commit => "commit",
            Self::Retire => "retire",
            Self::Revert => "revert",
            Self::Stick => "stick",
            Self::Finish => "finish",
            Self::Known => "known",
            Self::Quarantine => "quarantine",
            Self::Hold => "hold",
            Self::Prune => "prune",
            Self::Later => "later",
        }
    }

    /// What an error says could not be done.
    fn action(self) -> &'static str {
        match self {
            Self::Intend => "write the intent to journal",
            Self::Stage => "record what was staged in journal",
            Self::Commit => "record the commit in journal",
            Self::Retire => "record what was retired in journal",
            Self::Revert => "record the revert in journal",
            Self::Stick => "record what is stuck in journal",
            Self::Finish => "close the deployment in journal",
            Self::Known => "record the files seen in journal",
            Self::Quarantine => "record the quarantine in journal",
            Self::Hold => "record the hold in journal",
            Self::Prune => "prune journal",
            Self::Later => "write what a commit left for later in journal",
        }
    }
}

/// Which side of a write transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Moment {
    /// Nothing of it is written yet.
    Before,
    /// All of it is written.
    After,
}

/// What [`Journal::open`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    /// No journal: this one is fresh.
    New,
    /// A journal of this version.
    Existing,
    /// A journal of an older version, brought up to date.
    Migrated { from: u32 },
    /// A damaged journal. It was renamed to `set_aside`, and this one is fresh: generations count from 1 again.
    Rebuilt { set_aside: PathBuf, why: String },
}

/// Names a deployment in this journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DeploymentId(i64);

/// What is about to be done.
#[derive(Clone, Debug)]
pub(crate) struct Intent<'a> {
    pub pickup: String,
    /// Never used before: [`Journal::next_generation`].
    pub generation: u64,
    pub origin: Origin,
    /// The git commit the change set comes from, if it comes from one.
    pub revision: Option<Arc<Revision>>,
    pub groups: Vec<IntendedGroup<'a>>,
}

/// Steps that go live together or not at all.
#[derive(Clone, Debug)]
pub(crate) struct IntendedGroup<'a> {
    pub steps: Vec<IntendedStep<'a>>,
    /// Whether all of it is staged already, which then left nothing behind.
    pub is_staged: bool,
}

/// One unit for one deployer. Whoever writes it down has all of it already, and whoever reads it makes it.
#[derive(Clone, Debug)]
pub(crate) struct IntendedStep<'a> {
    pub deployer: Cow<'a, str>,
    pub config_digest: Cow<'a, str>,
    pub unit: Cow<'a, Unit>,
    /// The receipt of what is live before.
    pub old: Option<Cow<'a, Value>>,
    /// The receipt of what was staged, if it was.
    pub staged: Option<Cow<'a, Value>>,
}

/// What a step staged; groups and steps are counted from 0, as in the intent.
#[derive(Clone, Debug)]
pub(crate) struct StagedStep {
    pub group: usize,
    pub step: usize,
    /// `None` where there is nothing to stage: a removal.
    pub receipt: Option<Value>,
}

/// A group that went live.
#[derive(Clone, Debug)]
pub(crate) struct CommittedGroup {
    pub group: usize,
    pub live: Vec<LiveChange>,
}

/// What a step left live.
#[derive(Clone, Debug)]
pub(crate) struct LiveChange {
    pub step: usize,
    /// `None` where the unit was removed.
    pub receipt: Option<Value>,
}

/// A deployment that was not finished, with everything that recovery needs.
#[derive(Clone, Debug)]
pub(crate) struct OpenDeployment {
    pub id: DeploymentId,
    pub pickup: String,
    pub generation: u64,
    pub groups: Vec<OpenGroup>,
}

/// One of its groups.
#[derive(Clone, Debug)]
pub(crate) struct OpenGroup {
    pub state: GroupState,
    pub steps: Vec<OpenStep>,
}

/// One of their steps.
#[derive(Clone, Debug)]
pub(crate) struct OpenStep {
    pub deployer: String,
    pub unit: Unit,
    /// What was live when the intent was written.
    pub old: Option<Value>,
    pub staged: Option<Value>,
    /// Whether its deployer went on to something newer in the same place: there is no way back any more, and no need.
    pub is_superseded: bool,
}

/// Which unit is live with which deployer, and how.
#[derive(Clone, Debug)]
pub(crate) struct LiveKey<'a> {
    pub deployer: &'a str,
    /// In the bytes of the file system; [`LiveKey::unit`] is not made for all that are only compared.
    path: &'a [u8],
    pub config_digest: &'a str,
    pub generation: u64,
    /// What is live there: digest and mode of a file, digest of a tree; `None` if that is not known.
    content: Option<&'a [u8]>,
}

/// The receipt of a unit that is live with one deployer.
#[derive(Clone, Debug)]
pub(crate) struct LiveReceipt {
    pub deployer: String,
    pub unit: UnitPath,
    pub generation: u64,
    /// JSON.
    pub receipt: String,
}

/// A unit that is live with one deployer.
#[cfg(test)]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LiveRow {
    pub deployer: String,
    pub unit: UnitPath,
    pub config_digest: String,
    pub digest: Option<Digest>,
    pub generation: u64,
    pub receipt: Value,
    pub content: Option<Content>,
    /// When it was committed.
    pub since: i64,
}

/// A file that was seen, and what was in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownFile {
    pub place: Place,
    pub fingerprint: Fingerprint,
    pub digest: Digest,
}

/// The commit up to which a root that is a git repository was taken up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Followed {
    /// The number of the root in the pickup; 0 for a mirror.
    pub root: usize,
    /// Where the commit was found: another origin makes the record worthless. Without secrets.
    pub origin: String,
    pub revision: Revision,
}

/// A unit that failed with a deployer, and what would make it be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quarantined {
    pub unit: UnitPath,
    pub digest: Option<Digest>,
    pub deployer: String,
    pub attempts: u32,
    /// `None`: only new content, or a retry by hand.
    pub retry_at: Option<i64>,
    pub cause: String,
    pub is_transient: bool,
}

/// The open journal.
pub(crate) struct Journal {
    connection: Connection,
    path: PathBuf,
    /// Where captured files are.
    stored: Stored,
    hook: Option<Hook>,
    /// The highest generation that a pickup ever used, where it is known.
    last_generations: HashMap<String, u64>,
    /// The brief deployment that was worked on last, so that it need not be read again.
    brief: Option<(DeploymentId, Brief)>,
    /// What commits left for later, where that is known.
    left: Option<Left>,
    /// Raised by whoever meets damage.
    doubt: Doubt,
    /// Of the one who writes. It is dropped after the connection.
    closing: Option<Box<Closing>>,
}

impl Journal {
    fn new(connection: Connection, state_dir: &Path, hook: Option<Hook>) -> Self {
        Self {
            connection,
            path: state_dir.join(open::FILE_NAME),
            stored: Stored::In(state_dir.join("store").into()),
            hook,
            last_generations: HashMap::new(),
            brief: None,
            left: None,
            doubt: Doubt::default(),
            closing: None,
        }
    }

    /// Whether it is to be checked later.
    pub(crate) fn is_unchecked(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.is_unchecked)
    }

    /// Whether the next start is to check it before anything else.
    pub(crate) fn doubt(&self) -> &Doubt {
        &self.doubt
    }

    /// The same, and damage that it meets is known to whoever has `doubt`.
    pub(crate) fn doubted_by(self, doubt: Doubt) -> Self {
        Self { doubt, ..self }
    }

    /// The same, and what was captured is `stored` there.
    pub(crate) fn stored(self, stored: Stored) -> Self {
        Self { stored, ..self }
    }

    /// The same, which leaves nothing behind that says how it was closed.
    pub(crate) fn unmarked(self) -> Self {
        self.doubt.raise();
        self
    }

    /// What is wrong with it, if anything is. Reads all of it.
    pub(crate) fn damage(&self) -> Result<Option<String>> {
        self.read(|view| schema::damage(view, schema::current()))
    }

    /// Runs `body` in one transaction, between the two calls of the hook.
    fn write<T>(&mut self, kind: JournalWrite, body: impl FnOnce(&Connection) -> Attempt<T>) -> Result<T> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(kind, Moment::Before))?;
        // The write lock first: a reader that turns writer may be refused without waiting.
        let written = within(&self.connection, "BEGIN IMMEDIATE", body);
        let value = written.map_err(|fault| self.failed(fault, kind.action()))?;
        self.hook.as_ref().map_or(Ok(()), |hook| hook(kind, Moment::After))?;
        Ok(value)
    }

    /// Runs one statement, which has a consistent view by itself.
    fn read_at_once<T>(&self, body: impl FnOnce(&Connection) -> Attempt<T>) -> Result<T> {
        body(&self.connection).map_err(|fault| self.failed(fault, "read journal"))
    }

    /// Runs `body` on one consistent view.
    fn read<T>(&self, body: impl FnOnce(&Connection) -> Attempt<T>) -> Result<T> {
        within(&self.connection, "BEGIN", body).map_err(|fault| self.failed(fault, "read journal"))
    }

    fn failed(&self, fault: Fault, action: &str) -> Error {
        if matches!(&fault, Fault::Sql(error) if open::is_damage(error)) {
            self.doubt.raise();
        }
        fault.doing(action, &self.path)
    }
}

/// Runs `body` between `begin` and the commit, or the rollback if it fails. These are statements like others, and not prepared
/// anew each time: rusqlite's own transactions are.
fn within<T>(connection: &Connection, begin: &str, body: impl FnOnce(&Connection) -> Attempt<T>) -> Attempt<T> {
    let unfinished = Unfinished(connection);
    connection.prepare_cached(begin)?.execute([])?;
    let value = body(connection)?;
    connection.prepare_cached("COMMIT")?.execute([])?;
    drop(unfinished);
    Ok(value)
}

/// Takes back what was begun and neither committed nor taken back by SQLite itself, also when a panic goes by.
struct Unfinished<'a>(&'a Connection);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.0.is_autocommit()
            && let Err(error) = self.0.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "cannot take back what was begun in the journal");
        }
    }
}

/// Whether anything of a deployment went live.
const WENT_LIVE: &str = "(deployment.state IN ('committed', 'retired') OR EXISTS (
    SELECT 1 FROM step_group
    WHERE step_group.deployment = deployment.id AND step_group.state IN ('committed', 'retired')))";

/// The row of a pickup, made if missing.
fn enter_pickup(transaction: &Connection, name: &str) -> Attempt<i64> {
    let mut find = transaction.prepare_cached("SELECT id FROM pickup WHERE name = ?1")?;
    if let Some(id) = find.query_row([name], |row| row.get(0)).optional()? {
        return Ok(id);
    }
    transaction.prepare_cached("INSERT INTO pickup (name) VALUES (?1)")?.execute([name])?;
    Ok(transaction.last_insert_rowid())
}

type Attempt<T> = std::result::Result<T, Fault>;

/// Why a statement, or what it read, was no good; the caller adds what was being done.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    #[error("a column that should hold JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Illegal(#[from] IllegalTransition),
    #[error("{0}")]
    Unexpected(String),
    #[error("{0}")]
    NotFound(String),
}

impl Fault {
    fn doing(self, action: &str, path: &Path) -> Error {
        let (kind, is_transient) = match &self {
            Self::Sql(error) => (ErrorKind::Journal, is_environment(error)),
            Self::Json(_) | Self::Illegal(_) | Self::Unexpected(_) => (ErrorKind::Journal, false),
            Self::NotFound(_) => (ErrorKind::NotFound, false),
        };
        let error = Error::new(kind, action).at(path).caused_by(self);
        if is_transient { error.transient() } else { error }
    }
}

/// Whether it may heal by itself: a full disk, a lock held by a reader, an input or output error.
fn is_environment(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | DiskFull | SystemIoFailure))
}
