//! One pickup: stages 1 to 5 on a thread of its own, and a lane that carries out one change set at a time.
//!
//! The thread waits for hints, messages or the next deadline, drains everything that gathered, and works the batch off
//! stage by stage. It never deploys: while the lane is busy, new changes gather into the next change set.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use globset::GlobSet;
use tokio::sync::oneshot;

use super::git::commits::Follow;
use super::inbox::{Inbox, Mail};
use super::known::{AllKnown, Reading, Unsaved};
use super::links::Links;
use super::message::{End, Message};
use super::owed::Owing;
use super::relook::Relook;
use super::shared::{Bound, Shared};
use super::status::SyncReport;
use crate::change::Content;
use crate::change::Doubt;
use crate::change::gather::{Gathering, Patience};
use crate::change::live::Live;
use crate::config::{PickupConfig, UnitKind, WatchMode};
use crate::deploy::{Ending, Scope};
use crate::journal::Quarantined;
use crate::path::UnitPath;
use crate::settle::Settle;
use crate::source::Place;
use crate::source::git::Revision;
use crate::source::ignore::Rules;
use crate::source::probe::Probe;
use crate::source::watch::Subscriber;

/// How long a deployer may take to end what it runs: less than the engine's end may.
const END_MAX: Duration = Duration::from_secs(15);

/// One of the `pickup_from` directories.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// As configured, absolute.
    pub path: PathBuf,
    pub state: RootState,
    /// Directories that could not be watched, and are polled.
    pub unwatched: BTreeSet<UnitPath>,
    pub directories: usize,
    /// Why it is polled, if it is.
    pub polling: Option<String>,
    /// Who else may write to it, if anybody may.
    pub exposed: Option<String>,
    /// Whether all of it was listed since it is there: what a later listing misses went before our eyes.
    pub is_listed: bool,
    /// Whether it is a bare repository in the state directory, and no directory of files.
    pub is_mirror: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RootState {
    /// Not looked at yet.
    Unknown,
    Present {
        real: PathBuf,
        device: u64,
        inode: u64,
        /// Inode numbers are given out again; `None` where the file system keeps no birth times.
        born: Option<SystemTime>,
    },
    Missing {
        reason: String,
    },
}

impl Root {
    pub(super) fn real(&self) -> Option<&PathBuf> {
        match &self.state {
            RootState::Present { real, .. } => Some(real),
            RootState::Unknown | RootState::Missing { .. } => None,
        }
    }
}

/// Removals that wait for a confirmation.
#[derive(Clone, Debug)]
pub(super) struct Paused {
    pub units: BTreeSet<UnitPath>,
    pub doubt: Doubt,
}

/// A unit that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub record: Quarantined,
    /// When it is tried again; `None` while it is quarantined.
    pub retry: Option<Instant>,
    /// How many retries its deployer allows.
    pub retries: u32,
    /// Whether it may be tried now.
    pub is_due: bool,
}

/// Somebody who waits until everything is worked off.
pub(super) struct Waiter {
    pub reply: oneshot::Sender<SyncReport>,
    pub report: SyncReport,
    /// Whether retries are waited for, too.
    pub until_final: bool,
}

pub(super) struct Pickup {
    pub shared: Arc<Shared>,
    pub config: Arc<PickupConfig>,
    pub deployers: Arc<[Bound]>,
    /// Those, and former ones that left something: what they began is ended by them.
    pub enders: Arc<[Bound]>,
    pub inbox: Arc<Inbox<Message>>,
    pub subscriber: Subscriber,
    pub probe: Probe,
    pub rules: Rules,
    /// Files whose writers open and close them several times.
    pub reopened: GlobSet,
    pub roots: Vec<Root>,
    pub settle: Settle,
    pub gathering: Gathering,
    /// Every file we captured, as it was then.
    pub known: AllKnown,
    /// What of it is still being read.
    pub reading: Reading,
    /// The directories that are watched already, and listed next.
    pub watched: BTreeSet<Place>,
    /// The number of the listing that was the last to be compared with them; never 0.
    pub listing: u32,
    /// How many hints were heard of and not acted on yet.
    pub hints_left: usize,
    /// Whether a part of what gathered went before the rest, because it was so much.
    pub is_split: bool,
    /// How many there were when they were last packed.
    pub packed: usize,
    /// How many of them a start had read from the journal.
    pub loaded: usize,
    /// What of `known` the journal has not been told.
    pub unsaved: Unsaved,
    /// Since when there is any.
    pub unsaved_since: Option<Instant>,
    /// Whether the journal tells of one of them what it was before.
    pub is_outdated: bool,
    /// What is there and is never deployed, or cannot be judged, and why.
    pub refused: BTreeMap<Place, String>,
    /// What was listed at the start and not looked at yet.
    pub unseen: BTreeSet<Place>,
    /// Whether what a listing finds to be new is looked at later, bit by bit.
    pub puts_off: bool,
    /// The symlinks among what is known or refused.
    pub links: Links,
    /// The roots that are git repositories.
    pub follows: BTreeMap<usize, Follow>,
    /// The roots of which it is known whether they lie in a clone.
    pub sought: BTreeSet<usize>,
    /// The commit that is live, if it is known.
    pub live_revision: Option<Revision>,
    /// What was acknowledged, by unit.
    pub live: Live,
    pub generation: Option<u64>,
    /// How many units went live, or were removed, since it runs.
    pub deployed: u64,
    pub last_success: Option<i64>,
    pub last_error: Option<(i64, String)>,
    /// Units whose file was touched since it was deployed.
    pub touched: BTreeSet<UnitPath>,
    /// When a change of the unit was seen first.
    pub since: HashMap<UnitPath, Instant>,
    /// Units that no listing but a hint told us to be gone.
    pub seen_removed: BTreeSet<UnitPath>,
    pub paused: Option<Paused>,
    pub is_confirmed: bool,
    pub failures: BTreeMap<UnitPath, Failure>,
    /// Failures that are over, and the journal was not told yet.
    pub forgiven: BTreeSet<UnitPath>,
    /// What no deployer takes, as it was then.
    pub unrouted: BTreeMap<UnitPath, Content>,
    pub held: Option<u64>,
    /// What was asked for before it was known what is live, or while the lane was busy; in order.
    pub deferred: Vec<Message>,
    pub owed: Owing,
    /// Whether all of it is to be tried again once the lane gives it back.
    pub is_rearmed: bool,
    pub is_busy: bool,
    /// What the lane works on.
    pub in_hand: BTreeSet<UnitPath>,
    /// Looks that failed for a reason outside the file, such as a full disk, and are tried again.
    pub relook: Relook,
    pub trouble: Option<String>,
    /// After a failure of the environment, nothing begins before this.
    pub pause_until: Option<Instant>,
    pub pause: Duration,
    pub next_poll: Option<Instant>,
    /// When what was captured a moment ago gets files of its own, and the journal is told what was seen.
    pub put_away_at: Option<Instant>,
    /// When the journal is to write what it could not.
    pub write_later_at: Option<Instant>,
    /// How many files were put away, or told of, since memory was given back.
    pub let_go: usize,
    /// How many had been captured like that by all pickups when it was looked at last.
    pub added_before: u64,
    pub next_rescan: Instant,
    pub waiters: Vec<Waiter>,
    /// Why it is to end, once it is.
    pub end: Option<End>,
    /// Whether it is known what is live.
    pub is_recovered: bool,
    /// Held by the lane while it works.
    pub turn: Arc<Mutex<()>>,
    /// Which start of this pickup it is; a lane of an earlier one is not ours.
    pub start: u64,
}

impl Pickup {
    /// Runs until it is told to stop.
    pub(super) fn run(mut self) {
        if let Err(error) = self.begin() {
            self.troubled(&error.to_string());
        }
        while self.end.is_none() || self.is_busy {
            self.rest();
            let deadline = self.next_deadline();
            let now = self.shared.clock.now.clone();
            let mail = self.inbox.wait(deadline, || now());
            self.work_off(mail);
        }
        self.save_known(usize::MAX);
        self.end_deployers();
    }

    /// Tells the deployers that this was all, one after the other in reverse order.
    fn end_deployers(&self) {
        let shared = &self.shared;
        for bound in self.deployers.iter().rev() {
            let ending = match &self.end {
                Some(End::Entry { successors }) if successors.contains(&bound.name) => Ending::Exchange,
                Some(End::Entry { .. }) => Ending::Entry,
                Some(End::Engine) | None => Ending::Engine,
            };
            let timeout = bound.common.timeout.min(END_MAX);
            let cx = shared.context_of(&self.config.name, self.generation.unwrap_or(0), bound, timeout);
            let end = || shared.runtime.block_on(bound.deployer.shutdown(&cx, ending));
            // The runtime may be gone already, and then says so by a panic.
            match std::panic::catch_unwind(std::panic::AssertUnwindSafe(end)) {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(error)) => {
                    tracing::error!(pickup = self.config.name, deployer = bound.name, %error, "cannot end what runs");
                }
            }
        }
    }

    fn work_off(&mut self, mail: Mail<Message>) {
        let now = self.shared.now();
        for message in mail.messages {
            self.answer(now, message);
        }
        if self.end.is_some() {
            return;
        }
        self.hear(now, mail.notices);
        self.look_at_due(now);
        self.rescan_due(now);
        self.make_up();
        self.look_at_repositories(now);
        self.look_at_unseen(now);
        self.close_change_set();
        self.answer_waiters();
        self.put_away();
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        if self.end.is_some() {
            return None;
        }
        let retry = self.next_retry();
        let gathered = if self.may_deploy() && !self.is_git_blocked() { self.gathering_deadline() } else { None };
        [
            Some(self.next_rescan),
            self.next_poll,
            self.when_to_put_away(),
            self.next_git_deadline(),
            self.settle.next_deadline(),
            (!self.unseen.is_empty()).then(|| self.shared.now()),
            self.relook.next(),
            gathered,
            retry,
            self.pause_until.filter(|_| !self.is_busy),
            self.owed.next_try().filter(|_| self.may_catch_up()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn gathering_deadline(&self) -> Option<Instant> {
        let unsettled = self.unsettled_units();
        self.gathering.next_deadline(|unit| unsettled.contains(unit) || self.is_unseen(unit))
    }

    /// Whether a change set may begin now.
    pub(super) fn may_deploy(&self) -> bool {
        !self.is_busy && self.held.is_none() && self.pause_until.is_none()
    }

    pub(super) fn answer(&mut self, now: Instant, message: Message) {
        match message {
            // What was live and what failed is not known yet, or somebody was there before.
            message @ (Message::Rollback { .. } | Message::Release(_) | Message::Retry { .. })
                if !self.is_recovered || !self.deferred.is_empty() =>
            {
                self.deferred.push(message);
            }
            Message::Sync { confirm_removals, reply, until_final } => {
                self.is_confirmed |= confirm_removals;
                if confirm_removals {
                    self.take_up_paused(now);
                }
                self.rescan_all(now);
                self.ask_remote();
                self.waiters.push(Waiter { reply, report: SyncReport::new(&self.config.name), until_final });
            }
            Message::Done(done) if done.start == self.start => self.done(now, done),
            Message::Checked(checked) => self.checked(now, checked),
            Message::Imported(delivery) => self.imported(now, delivery),
            // The lane of an earlier start; recovery waited for it.
            Message::Done(_) => {}
            // A caller that gave up waiting is no error, here and below.
            Message::Status(reply) => drop(reply.send(self.status())),
            Message::Plan { options, reply } => self.rehearse_beside(options, reply),
            Message::Explain(path, reply) => drop(reply.send(self.explain(&path))),
            Message::Rollback { to, reply } => self.roll_back(to, reply),
            Message::Release(reply) => drop(reply.send(self.release(now))),
            Message::Retry { unit, reply } => drop(reply.send(self.retry(now, unit.as_deref()))),
            Message::Broken { deployer, units, cause } => self.broken(&deployer, units, &cause),
            Message::Stop(end) => self.end = Some(end),
        }
    }

    /// The unit that `path` belongs to.
    pub(super) fn unit_of(&self, path: &UnitPath) -> UnitPath {
        unit_of(self.config.unit, path)
    }

    /// The units that have a path somebody may still be writing to, or one among several that could not be captured.
    pub(super) fn unsettled_units(&self) -> BTreeSet<UnitPath> {
        let pending = self.settle.pending().map(|(place, _)| place);
        // What can be captured again is looked at again before its unit goes; what cannot be read stays away from it.
        let missed = self.relook.missed().filter(|_| self.config.unit != UnitKind::File);
        pending.chain(missed).map(|place| self.unit_of(&place.path)).collect()
    }

    /// Whether every deployer takes units one by one.
    pub(super) fn is_by_unit(&self) -> bool {
        are_by_unit(&self.deployers)
    }

    pub(super) fn patience(config: &PickupConfig, is_by_unit: bool) -> Patience {
        Patience {
            quiet: config.quiet,
            quiet_max: config.quiet_max,
            settle: config.settle,
            alone_at_once: is_by_unit && config.unit != UnitKind::Tree,
            is_whole: !is_by_unit,
        }
    }

    /// Something outside the artifacts failed. Said once until it heals.
    pub(super) fn troubled(&mut self, cause: &str) {
        if self.trouble.as_deref() != Some(cause) {
            tracing::error!(pickup = self.config.name, cause, "in trouble; it is tried again until it heals");
            self.shared.publish(&self.config.name, crate::event::EventKind::Troubled { cause: cause.into() });
            self.trouble = Some(cause.into());
        }
        self.last_error = Some((self.shared.now_ms(), cause.into()));
    }

    /// Once all is captured that could not be, and nothing else is in the way, the trouble is over.
    fn make_up(&mut self) {
        if self.owed.is_recorded() && self.pause_until.is_none() && self.relook.is_made_up() {
            self.healed();
        }
    }

    pub(super) fn healed(&mut self) {
        if self.relook.is_any_missed() {
            return;
        }
        if self.trouble.take().is_some() {
            tracing::info!(pickup = self.config.name, "the trouble is over");
            self.shared.publish(&self.config.name, crate::event::EventKind::Healed);
        }
    }

    /// Whether changes are looked for without being asked.
    pub(super) fn is_watching(&self) -> bool {
        self.config.watch != WatchMode::Off
    }
}

/// Whether each of them takes units one by one.
pub(super) fn are_by_unit(deployers: &[Bound]) -> bool {
    deployers.iter().all(|bound| bound.deployer.scope() == Scope::Unit)
}

/// The unit that `path` belongs to where units are of this `kind`.
pub(super) fn unit_of(kind: UnitKind, path: &UnitPath) -> UnitPath {
    match kind {
        UnitKind::File => path.clone(),
        UnitKind::Directory => path.first(),
        UnitKind::Tree => UnitPath::root(),
    }
}
