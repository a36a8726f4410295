//! What a pickup says about itself: its state, and what a `sync` came to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::pickup::{Pickup, RootState, Waiter};
use crate::change::Doubt;
use crate::path::UnitPath;
use crate::settle::Waiting;
use crate::source::git::GitStatus;

/// How many paths of one kind a status names.
const NAMED_MAX: usize = 100;

/// The state of one pickup in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Everything that is there is live.
    Live,
    /// It has not deployed anything yet, and nothing waits.
    Idle,
    /// Something waits: to be complete, for company, or for its turn.
    Pending,
    /// A deployment is on its way.
    Deploying,
    /// Something failed, and the last good version stays.
    Failed,
    /// An earlier generation is live until `release`.
    Held,
    /// A pickup directory is not to be had.
    Unavailable,
    /// Something outside the artifacts fails, such as a full disk.
    Troubled,
    /// Its configuration cannot be used.
    Broken,
    /// `enabled` is false.
    Disabled,
    /// No daemon runs; this is what the journal knows.
    Stopped,
}

impl State {
    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Idle => "idle",
            Self::Pending => "pending",
            Self::Deploying => "deploying",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Unavailable => "unavailable",
            Self::Troubled => "troubled",
            Self::Broken => "broken",
            Self::Disabled => "disabled",
            Self::Stopped => "stopped",
        }
    }
}

/// What is known of one pickup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PickupStatus {
    /// Its name.
    pub name: String,
    /// In a word.
    pub state: State,
    /// The generation that is live.
    pub generation: Option<u64>,
    /// The generation it is held at, if it is.
    pub held: Option<u64>,
    /// How many units are live.
    pub units: usize,
    /// How many files are known.
    pub files: usize,
    /// Its directories.
    pub roots: Vec<RootStatus>,
    /// How many units went live, or were removed, since the entry runs.
    #[serde(default)]
    pub deployed: u64,
    /// When something went live last, in milliseconds since the Unix epoch.
    pub last_success: Option<i64>,
    /// When something failed last, and what.
    pub last_error: Option<LastError>,
    /// What waits, and what for; 100 at most.
    pub pending: Vec<Noted>,
    /// What failed, and when it is tried again; 100 at most.
    pub failed: Vec<Failed>,
    /// What is there and is not deployed, and why; 100 at most.
    pub refused: Vec<Noted>,
    /// Removals that wait for a confirmation.
    pub removals_paused: Option<RemovalsPaused>,
    /// A failure outside the artifacts.
    pub trouble: Option<String>,
    /// How it stands towards its repository, if it is a git entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitStatus>,
}

/// A failure and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// Milliseconds since the Unix epoch.
    pub at: i64,
    /// What failed and why.
    pub cause: String,
}

/// One of a pickup's directories.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootStatus {
    /// As configured.
    pub directory: String,
    /// Why it is not to be had, if it is not.
    pub unavailable: Option<String>,
    /// How many directories are watched.
    pub directories: usize,
    /// Why it is polled, if it is.
    pub polling: Option<String>,
    /// How many directories could not be watched and are polled.
    pub unwatched: usize,
    /// Who else may write to it and so decides what is deployed, if anybody may; and the way out.
    pub exposed: Option<String>,
}

/// A path and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// Below the pickup directory.
    pub path: UnitPath,
    /// The reason, as a sentence without a full stop.
    pub reason: String,
}

/// A unit that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// The unit.
    pub unit: UnitPath,
    /// The deployer that failed.
    pub deployer: String,
    /// What failed and why.
    pub cause: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried again, in milliseconds since the Unix epoch; `None` if it is quarantined.
    pub retry_at: Option<i64>,
}

/// Removals that wait for a confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovalsPaused {
    /// How many units would be removed.
    pub units: usize,
    /// Why that is doubted.
    pub doubt: Doubt,
}

/// What a `sync` came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// The pickup.
    pub name: String,
    /// How many units went live, or were removed.
    pub deployed: usize,
    /// What failed, and why.
    pub failed: BTreeMap<UnitPath, String>,
    /// What waits for somebody else: a writer, a confirmation, a release; 100 at most.
    pub waiting: Vec<Noted>,
    /// A failure outside the artifacts, or a directory that is not to be had.
    pub trouble: Option<String>,
}

impl PickupStatus {
    /// The status of a pickup that does not run.
    pub(super) fn not_running(name: &str, state: State, reason: &str) -> Self {
        Self {
            name: name.into(),
            state,
            generation: None,
            held: None,
            units: 0,
            files: 0,
            roots: Vec::new(),
            deployed: 0,
            last_success: None,
            last_error: None,
            pending: Vec::new(),
            failed: Vec::new(),
            refused: Vec::new(),
            removals_paused: None,
            trouble: (state != State::Stopped).then(|| reason.to_owned()),
            git: None,
        }
    }
}

impl SyncReport {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.into(), deployed: 0, failed: BTreeMap::new(), waiting: Vec::new(), trouble: None }
    }

    /// What there is to report of an entry that should run and cannot.
    pub(super) fn broken(status: &PickupStatus) -> Option<Self> {
        let is_broken = status.state == State::Broken;
        is_broken.then(|| Self { trouble: status.trouble.clone(), ..Self::new(&status.name) })
    }

    /// Whether everything that was there is live.
    pub fn is_success(&self) -> bool {
        self.failed.is_empty() && self.trouble.is_none()
    }
}

impl Pickup {
    pub(super) fn status(&self) -> PickupStatus {
        let pending = self.settle.pending().map(|(place, waiting)| noted(&place.path, &waiting.to_string()));
        let failed = self.failures.values().map(|failure| Failed {
            unit: failure.record.unit.clone(),
            deployer: failure.record.deployer.clone(),
            cause: failure.record.cause.clone(),
            attempts: failure.record.attempts,
            retry_at: failure.record.retry_at.filter(|_| failure.retry.is_some()),
        });
        let refused = self.refused.iter().map(|(place, reason)| noted(&place.path, reason));
        let unrouted = self.unrouted.keys().map(|unit| noted(unit, "no deployer takes it"));
        PickupStatus {
            name: self.config.name.clone(),
            state: self.state(),
            generation: self.generation,
            held: self.held,
            units: self.live.len(),
            files: self.known.len(),
            roots: self.roots.iter().map(root_status).collect(),
            deployed: self.deployed,
            last_success: self.last_success,
            last_error: self.last_error.clone().map(|(at, cause)| LastError { at, cause }),
            pending: pending.take(NAMED_MAX).collect(),
            failed: failed.take(NAMED_MAX).collect(),
            refused: refused.chain(unrouted).take(NAMED_MAX).collect(),
            removals_paused: self
                .paused
                .as_ref()
                .map(|paused| RemovalsPaused { units: paused.units.len(), doubt: paused.doubt }),
            trouble: self.trouble.clone(),
            git: self.git_status(),
        }
    }

    fn state(&self) -> State {
        let is_missing = self.roots.iter().any(|root| matches!(root.state, RootState::Missing { .. }));
        match () {
            () if self.trouble.is_some() => State::Troubled,
            () if is_missing => State::Unavailable,
            () if self.held.is_some() => State::Held,
            () if self.is_busy => State::Deploying,
            () if !self.failures.is_empty() => State::Failed,
            () if self.follows.values().any(|follow| follow.problem().is_some()) => State::Failed,
            () if self.is_commit_coming() || self.is_git_blocked() => State::Pending,
            () if self.gathering.len() > 0 || self.settle.pending().next().is_some() => State::Pending,
            () if self.live.is_empty() => State::Idle,
            () => State::Live,
        }
    }

    /// Answers those who wait until everything is worked off, if it is.
    pub(super) fn answer_waiters(&mut self) {
        if self.waiters.is_empty() || (self.is_busy && self.pause_until.is_none()) {
            return;
        }
        let settles = |waiting: &Waiting| matches!(waiting, Waiting::Empty | Waiting::Still(_));
        let unsettled = self.unsettled_units();
        let is_moving = self.settle.pending().any(|(_, waiting)| settles(waiting));
        let is_blocked = self.held.is_some() || self.pause_until.is_some() || self.is_git_blocked();
        let is_gathered = self.gathering.next_deadline(|unit| unsettled.contains(unit)).is_some();
        let now = self.shared.now();
        let is_looking = !self.unseen.is_empty() || self.relook.next().is_some_and(|at| at <= now);
        if is_moving || is_looking || (is_gathered && !is_blocked) || self.is_commit_coming() {
            return;
        }
        let will_retry =
            self.failures.values().any(|failure| failure.retry.is_some() && failure.record.attempts <= failure.retries);
        for waiter in std::mem::take(&mut self.waiters) {
            if waiter.until_final && will_retry {
                self.waiters.push(waiter);
            } else {
                self.answer_waiter(waiter);
            }
        }
    }

    fn answer_waiter(&self, mut waiter: Waiter) {
        let missing = self.roots.iter().find_map(|root| match &root.state {
            RootState::Missing { reason } => Some(format!("{}: {reason}", root.path.display())),
            RootState::Present { .. } | RootState::Unknown => None,
        });
        let unfollowed = self.follows.values().find_map(|follow| follow.problem());
        let unfollowed = unfollowed.map(|problem| problem.cause.clone());
        waiter.report.trouble = self.trouble.clone().or(missing).or(unfollowed);
        for failure in self.failures.values() {
            waiter.report.failed.insert(failure.record.unit.clone(), failure.record.cause.clone());
        }
        let mut waiting: Vec<Noted> = Vec::new();
        waiting.extend(self.settle.pending().map(|(place, waiting)| noted(&place.path, &waiting.to_string())));
        if let Some(paused) = &self.paused {
            let reason = "its removal waits for a confirmation (`pickupd sync --confirm-removals`)";
            waiting.extend(paused.units.iter().map(|unit| noted(unit, reason)));
        }
        let at_work = self.follows.values().filter_map(|follow| follow.waiting.as_ref());
        waiting.extend(at_work.map(|(reason, _)| noted(&UnitPath::root(), reason)));
        if let Some(held) = self.held {
            waiting.push(noted(&UnitPath::root(), &format!("held at generation {held} until `pickupd release`")));
        }
        waiting.truncate(NAMED_MAX);
        waiter.report.waiting = waiting;
        // A caller that gave up waiting is no error.
        let _ = waiter.reply.send(waiter.report);
    }
}

fn noted(path: &UnitPath, reason: &str) -> Noted {
    Noted { path: path.clone(), reason: reason.into() }
}

fn root_status(root: &super::pickup::Root) -> RootStatus {
    RootStatus {
        directory: root.path.display().to_string(),
        unavailable: match &root.state {
            RootState::Missing { reason } => Some(reason.clone()),
            RootState::Present { .. } | RootState::Unknown => None,
        },
        directories: root.directories,
        polling: root.polling.clone(),
        unwatched: root.unwatched.len(),
        exposed: root.exposed.clone(),
    }
}
