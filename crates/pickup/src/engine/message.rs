//! What a pickup's thread is told: by those who ask, by its lane, and by those who fetch for it.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::git::import::Delivery;
use super::git::source::Checked;
use super::owed::Owing;
use super::planned::{PlanOptions, PlanReport};
use super::progress::Outcome;
use super::recover::Loaded;
use super::status::{PickupStatus, SyncReport};
use super::why::Explanation;
use crate::capture::Digest;
use crate::error::Result;
use crate::journal::Origin;
use crate::path::UnitPath;
use crate::source::git::Revision;

/// What others ask of a pickup's thread.
pub(super) enum Message {
    /// Compare everything now; the answer comes when all that was there is live, has failed or waits for somebody else.
    Sync {
        confirm_removals: bool,
        reply: oneshot::Sender<SyncReport>,
        until_final: bool,
    },
    /// The lane is free again.
    Done(Done),
    /// The remote of the entry was asked.
    Checked(Checked),
    /// A commit is in the content store, or could not be brought there.
    Imported(Delivery),
    Status(oneshot::Sender<PickupStatus>),
    /// Say what a `Sync` would do.
    Plan {
        options: PlanOptions,
        reply: oneshot::Sender<Result<PlanReport>>,
    },
    Explain(PathBuf, oneshot::Sender<Option<Explanation>>),
    Rollback {
        to: Option<u64>,
        reply: oneshot::Sender<Result<u64>>,
    },
    Release(oneshot::Sender<Result<()>>),
    Retry {
        unit: Option<PathBuf>,
        reply: oneshot::Sender<usize>,
    },
    /// What was live is not any more, and its deployer gave up on it.
    Broken {
        deployer: String,
        units: Vec<UnitPath>,
        cause: String,
    },
    /// Finish the step in hand and end.
    Stop(End),
}

/// Why a pickup ends.
#[derive(Debug)]
pub(super) enum End {
    /// With the engine.
    Engine,
    /// Its entry was changed or removed; deployers of these names take over.
    Entry { successors: Vec<String> },
}

/// What the lane reports at its end.
pub(super) struct Done {
    pub start: u64,
    pub work: Work,
    pub result: Result<Vec<Outcome>>,
    /// What went live although the result is an error.
    pub live: Vec<Outcome>,
    pub owed: Owing,
    /// What recovery read: the records, and what is in the content store, sorted.
    pub loaded: Option<(Loaded, Vec<Digest>)>,
    pub drifted: BTreeSet<UnitPath>,
}

/// What the lane was given.
#[derive(Debug)]
pub(super) enum Work {
    /// Recovery and observation at start.
    Recover,
    /// Nothing but to write down what could not be written before.
    Settle,
    Deploy {
        generation: u64,
        origin: Origin,
        since: HashMap<UnitPath, Instant>,
        rollback: Option<oneshot::Sender<Result<u64>>>,
        /// The commit it comes from, if it comes from one.
        revision: Option<Arc<Revision>>,
    },
}
