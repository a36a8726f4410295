//! What a pickup says about itself: its state, why a path was or was not deployed, and what a `sync` came to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pickup::{Pickup, RootState, Waiter};
use crate::change::{Content, Doubt};
use crate::config::UnitKind;
use crate::path::UnitPath;
use crate::settle::Waiting;
use crate::source::Place;
use crate::source::git::GitStatus;
use crate::source::ignore::{Judged, Rules};

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

/// Why a path was, or was not, deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The pickup that answers.
    pub pickup: String,
    /// The path below its directory.
    pub path: UnitPath,
    /// The unit the path belongs to.
    pub unit: UnitPath,
    /// The verdict in a word, for programs.
    pub verdict: Verdict,
    /// The whole answer, a sentence each, the most important first.
    pub because: Vec<String>,
}

/// The verdicts of `why`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is live as it is on disk.
    Live,
    /// A rule leaves it alone.
    Ignored,
    /// No pattern asks for it.
    NotMatched,
    /// It is there and never deployed, or cannot be judged.
    Refused,
    /// It waits to be complete, for company, or for its turn.
    Waiting,
    /// It failed.
    Failed,
    /// It is held back by a rollback, a pause of removals, or trouble.
    Held,
    /// It is not there.
    Missing,
}

impl Verdict {
    /// The words users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ignored => "ignored",
            Self::NotMatched => "not matched",
            Self::Refused => "refused",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Missing => "missing",
        }
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
            git: None,
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
        let is_blocked = self.held.is_some() || self.pause_until.is_some();
        let is_gathered = self.gathering.next_deadline(|unit| unsettled.contains(unit)).is_some();
        let now = self.shared.now();
        let is_looking = self.relook.first().is_some_and(|(at, _)| *at <= now);
        if is_moving || is_looking || (is_gathered && !is_blocked) {
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
        waiter.report.trouble = self.trouble.clone().or(missing);
        for failure in self.failures.values() {
            waiter.report.failed.insert(failure.record.unit.clone(), failure.record.cause.clone());
        }
        let mut waiting: Vec<Noted> = Vec::new();
        waiting.extend(self.settle.pending().map(|(place, waiting)| noted(&place.path, &waiting.to_string())));
        if let Some(paused) = &self.paused {
            let reason = "its removal waits for a confirmation (`pickupd sync --confirm-removals`)";
            waiting.extend(paused.units.iter().map(|unit| noted(unit, reason)));
        }
        if let Some(held) = self.held {
            waiting.push(noted(&UnitPath::root(), &format!("held at generation {held} until `pickupd release`")));
        }
        waiting.truncate(NAMED_MAX);
        waiter.report.waiting = waiting;
        // A caller that gave up waiting is no error.
        let _ = waiter.reply.send(waiter.report);
    }

    /// Why `path` (absolute) was, or was not, deployed; `None` if it is not below this pickup.
    pub(super) fn explain(&self, path: &Path) -> Option<Explanation> {
        let place = self.place_of(path)?;
        let unit = self.unit_of(&place.path);
        let (verdict, because) = self.judge(&place, &unit, path);
        Some(Explanation { pickup: self.config.name.clone(), path: place.path, unit, verdict, because })
    }

    fn place_of(&self, path: &Path) -> Option<Place> {
        self.roots.iter().enumerate().find_map(|(root, known)| {
            let below = path.strip_prefix(&known.path).ok().or_else(|| path.strip_prefix(known.real()?).ok())?;
            Some(Place { root, path: UnitPath::new(below)? })
        })
    }

    fn judge(&self, place: &Place, unit: &UnitPath, path: &Path) -> (Verdict, Vec<String>) {
        if let RootState::Missing { reason } = &self.roots[place.root].state {
            return (Verdict::Missing, vec![format!("the pickup directory is not to be had: {reason}")]);
        }
        #[expect(clippy::disallowed_methods, reason = "an answer about a path begins with whether it is there")]
        let metadata = std::fs::symlink_metadata(path);
        let is_directory = metadata.as_ref().is_ok_and(std::fs::Metadata::is_dir);
        if let Some((verdict, because)) = left_alone(&self.rules, place, is_directory) {
            return (verdict, vec![because]);
        }
        if let Some(reason) = self.refused.get(place) {
            return (Verdict::Refused, vec![reason.clone()]);
        }
        let mut because = Vec::new();
        if let Some(waiting) = self.settle.waiting(place) {
            because.push(format!("it waits: {waiting}"));
        }
        if let Some(failure) = self.failures.get(unit) {
            because.push(failure.sentence());
            return (Verdict::Failed, because);
        }
        if !because.is_empty() {
            because.extend(self.live_sentence(unit));
            return (Verdict::Waiting, because);
        }
        self.judge_complete(place, unit, metadata.is_ok())
    }

    /// What there is to say of a path that is neither refused nor still written to.
    fn judge_complete(&self, place: &Place, unit: &UnitPath, is_there: bool) -> (Verdict, Vec<String>) {
        let mut because: Vec<String> = self.live_sentence(unit).into_iter().collect();
        let mut first = |sentence: String| because.insert(0, sentence);
        let verdict = if self.unrouted.contains_key(unit) {
            first("no deployer takes it".into());
            Verdict::Refused
        } else if let Some(shadow) = self.shadow(place) {
            first(format!("{} has a file of the same name, and comes first in `pickup_from`", shadow.display()));
            Verdict::Refused
        } else if self.paused.as_ref().is_some_and(|paused| paused.units.contains(unit)) {
            first("it is gone, and its removal waits for a confirmation: `pickupd sync --confirm-removals`".into());
            Verdict::Held
        } else if let Some(held) = self.held {
            first(format!("changes are held back: generation {held} is live until `pickupd release`"));
            Verdict::Held
        } else if self.in_hand.contains(unit) {
            first("it is being deployed".into());
            Verdict::Waiting
        } else if self.gathering.contains(unit) {
            first(match &self.trouble {
                Some(trouble) => format!("it waits until this is over: {trouble}"),
                None => "it is complete and waits for its turn".into(),
            });
            Verdict::Waiting
        } else if !is_there {
            first("there is no such file".into());
            Verdict::Missing
        } else if self.live.contains_key(unit) || self.config.unit == UnitKind::Tree {
            Verdict::Live
        } else if let Some(below) = self.count_below(place) {
            first(format!("it is a directory; {below} files in it are known"));
            Verdict::Live
        } else {
            first("it has not been seen yet; `pickupd sync` looks at once".into());
            Verdict::Waiting
        };
        (verdict, because)
    }

    fn count_below(&self, place: &Place) -> Option<usize> {
        let below = self
            .known
            .range(place.clone()..)
            .take_while(|(known, _)| known.root == place.root && known.path.starts_with(&place.path));
        Some(below.count()).filter(|count| *count > 0)
    }

    fn shadow(&self, place: &Place) -> Option<PathBuf> {
        let other = |root| self.known.contains_key(&Place { root, path: place.path.clone() });
        let root = (0..place.root).find(|root| other(*root))?;
        Some(self.roots[root].path.clone())
    }

    fn live_sentence(&self, unit: &UnitPath) -> Option<String> {
        let deployers: Vec<&str> = self.deployers.iter().map(|bound| bound.name.as_str()).collect();
        Some(format!("live is {}, with {}", described(self.live.get(unit)?), deployers.join(", ")))
    }
}

/// What the rules say of a path that they leave alone.
pub(super) fn left_alone(rules: &Rules, place: &Place, is_directory: bool) -> Option<(Verdict, String)> {
    match rules.judge(place.root, &place.path, is_directory) {
        Judged::Ignored { rule, from } => {
            Some((Verdict::Ignored, format!("it is ignored by the rule `{rule}` ({from})")))
        }
        Judged::NotMatched { patterns } if !is_directory => {
            Some((Verdict::NotMatched, format!("it matches none of the patterns {}", patterns.join(", "))))
        }
        Judged::TooDeep => {
            Some((Verdict::NotMatched, "it lies in a directory below, and `recursive` is false".to_owned()))
        }
        Judged::Taken | Judged::NotMatched { .. } => None,
    }
}

/// What is live, in words.
pub(super) fn described(content: &Content) -> String {
    let kind = match content {
        Content::File(_) => "file".to_owned(),
        Content::Tree(files) => format!("tree of {} files", files.len()),
    };
    format!("a {kind} of {} bytes, digest {}", content.size(), content.digest().short())
}

impl super::pickup::Failure {
    fn sentence(&self) -> String {
        let next = match self.retry {
            Some(_) => "it is tried again by itself",
            None => "it is quarantined until it changes, or until `pickupd retry`",
        };
        format!("it failed {}, last with: {}; {next}", times(self.record.attempts), self.record.cause)
    }
}

/// `once`, `3 times`.
pub(super) fn times(number: u32) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
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
    }
}
