//! The plan of one pickup: the same stages as in earnest, up to what the deployers' `check` says, beside the real one.
//!
//! A rehearsal is a pickup of its own that watches nothing, shares the journal for reading, and begins with what the
//! running one remembers, or with the records. It captures into a place of its own, and forgets all of it in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, atomic::AtomicU64};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::aside::{Aside, Real};
use super::batch::ChangeSet;
use super::inbox::Inbox;
use super::known::AllKnown;
use super::message::Message;
use super::owed::Owing;
use super::pickup::{Failure, Paused, Pickup, Root, RootState};
use super::planned::{Interrupted, PlanOptions, PlanReport, PlannedChangeSet, PlannedGroup, Wait};
use super::recover::load;
use super::running::Parts;
use super::shared::{Bound, Shared};
use super::status::Noted;
use super::transaction::Transaction;
use crate::change::Change;
use crate::change::live::Live;
use crate::config::{PickupConfig, WatchMode};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::GroupState;
use crate::path::UnitPath;
use crate::settle::{Settle, Waiting};
use crate::source::git::Revision;

/// How long a rehearsal waits for files that only have to stand still; what takes longer is said to wait.
const PATIENCE: Duration = Duration::from_secs(1);

/// The longest pause between two looks at what is waited for.
const LOOK_MAX: Duration = Duration::from_millis(200);

/// What the running pickup remembers and the records do not.
pub(super) struct Memory {
    known: AllKnown,
    live: Live,
    live_revision: Option<Revision>,
    commits: Vec<(usize, Option<Revision>)>,
    generation: Option<u64>,
    touched: BTreeSet<UnitPath>,
    seen_removed: BTreeSet<UnitPath>,
    paused: Option<Paused>,
    failures: BTreeMap<UnitPath, Failure>,
    held: Option<u64>,
    in_hand: BTreeSet<UnitPath>,
    roots: Vec<Root>,
    settle: Settle,
    trouble: Option<String>,
}

/// One rehearsal, to be done on a thread of its own.
pub(super) struct Rehearsal<B> {
    pub real: Real,
    pub config: Arc<PickupConfig>,
    /// Gives the deployers.
    pub bind: B,
    /// `None`: what the records say.
    pub memory: Option<Memory>,
    pub options: PlanOptions,
}

impl<B: FnOnce(&Shared) -> Result<Arc<[Bound]>> + Send + 'static> Rehearsal<B> {
    /// Does it; the answer comes when it is done.
    pub(super) fn spawn(self, reply: oneshot::Sender<Result<PlanReport>>) {
        let name = self.config.name.clone();
        let done = move || {
            // What is only rehearsed is not logged; and whoever gave up waiting is no error.
            let quiet = tracing::subscriber::NoSubscriber::default();
            let _ = reply.send(tracing::subscriber::with_default(quiet, || self.run()));
        };
        // A dropped reply is an answer, too.
        if let Err(error) = std::thread::Builder::new().name(format!("plan {name}")).spawn(done) {
            tracing::warn!(pickup = name, %error, "cannot start a thread");
        }
    }

    fn run(self) -> Result<PlanReport> {
        let Self { real, config, bind, memory, options } = self;
        let aside = Aside::new(&real.state_dir)?;
        let shared = aside.shared(real)?;
        let bound = bind(&shared)?;
        // It watches nothing, and so nothing begins by itself.
        let config = Arc::new(PickupConfig { watch: WatchMode::Off, ..PickupConfig::clone(&config) });
        let (inbox, turn, starts) = (Arc::new(Inbox::new()), Arc::default(), AtomicU64::new(0));
        let enders = bound.clone();
        let parts = Parts { shared: shared.clone(), config, bound, enders, inbox, turn, starts };
        let pickup = parts.pickup(shared.watcher.subscribe(Arc::new(|_| {})))?;
        let report = pickup.rehearse(memory, options);
        shared.watcher.end();
        report
    }
}

impl Pickup {
    /// Says what a sync would do, away from this thread.
    pub(super) fn rehearse_beside(&self, options: PlanOptions, reply: oneshot::Sender<Result<PlanReport>>) {
        let shared = &self.shared;
        // What is known is read from the disk.
        if let Err(error) = shared.store.write_out() {
            // Whoever asked may be gone: nobody to tell.
            return drop(reply.send(Err(error)));
        }
        let real = Real {
            state_dir: shared.state_dir.clone(),
            store_max: shared.store.max(),
            git_worker: shared.git.worker.clone(),
            module_probe: shared.module_probe.clone(),
            clock: shared.clock.clone(),
            runtime: shared.runtime.clone(),
            cancel: shared.cancel.clone(),
        };
        let bound = self.deployers.clone();
        let memory = self.is_recovered.then(|| self.memory());
        let bind = move |_: &Shared| Ok(bound);
        Rehearsal { real, config: self.config.clone(), bind, memory, options }.spawn(reply);
    }

    fn memory(&self) -> Memory {
        Memory {
            known: self.known.clone(),
            live: self.live.clone(),
            live_revision: self.live_revision.clone(),
            commits: self.commits_seen(),
            generation: self.generation,
            touched: self.touched.clone(),
            seen_removed: self.seen_removed.clone(),
            paused: self.paused.clone(),
            failures: self.failures.clone(),
            held: self.held,
            in_hand: self.in_hand.clone(),
            roots: self.roots.clone(),
            settle: self.settle.clone(),
            trouble: self.trouble.clone(),
        }
    }

    /// The plan. Nobody else ever sees what becomes of this pickup.
    fn rehearse(mut self, memory: Option<Memory>, options: PlanOptions) -> Result<PlanReport> {
        let now = self.shared.now();
        let mut report = PlanReport::new(&self.config.name);
        self.follow_aside()?;
        self.load_followed()?;
        match memory {
            Some(memory) => self.remember(now, memory),
            None => {
                report.interrupted = self.interrupted()?;
                let store = self.shared.clone();
                self.load_known(|digest| store.store.contains(digest))?;
                self.rescan_all(now);
                let loaded = load(&self.shared, &self.shared.journal(), &self.config.name, &self.deployers)?;
                self.load_live(now, loaded, &BTreeSet::new())?;
                let sentence = "whether what is live still is as it was deployed is not looked at; a start deploys again \
                                what is not, and starts programs that do not run";
                report.unknown.extend((!self.live.is_empty()).then(|| sentence.to_owned()));
            }
        }
        self.note_differences(now);
        self.note_lost_units(now);
        if options.confirm_removals {
            self.is_confirmed = true;
            self.take_up_paused(now);
        }
        self.ask_remote();
        self.await_rest();
        (report.generation, report.held) = (self.generation, self.held);
        self.plan_change_sets(&mut report)?;
        self.say_what_waits(&mut report);
        self.say_trouble(&mut report);
        Ok(report)
    }

    /// Takes over what the real pickup knows, and compares that with what is there now.
    fn remember(&mut self, now: Instant, memory: Memory) {
        self.known = memory.known;
        self.live = memory.live;
        self.live_revision = memory.live_revision;
        self.remember_commits(memory.commits);
        self.generation = memory.generation;
        self.seen_removed = memory.seen_removed;
        self.paused = memory.paused;
        self.failures = memory.failures;
        self.held = memory.held;
        self.in_hand = memory.in_hand;
        self.roots = memory.roots;
        self.settle = memory.settle;
        self.trouble = memory.trouble;
        self.is_recovered = true;
        for unit in memory.touched {
            self.gathering.note(now, unit.clone(), crate::change::gather::Noted::Complete);
            self.touched.insert(unit);
        }
        self.rescan_all(now);
    }

    /// What a crash cut off.
    fn interrupted(&self) -> Result<Vec<Interrupted>> {
        let open = self.shared.journal().open_deployments()?;
        let ours = open.into_iter().filter(|open| open.pickup == self.config.name);
        Ok(ours
            .map(|open| {
                let count = |is: fn(GroupState) -> bool| open.groups.iter().filter(|group| is(group.state)).count();
                Interrupted {
                    generation: open.generation,
                    taken_back: count(|state| matches!(state, GroupState::Intended | GroupState::Staged)),
                    finished: count(|state| matches!(state, GroupState::Committed | GroupState::Retired)),
                }
            })
            .collect())
    }

    /// Waits for git, and a little for files that have to stand still.
    fn await_rest(&mut self) {
        let patience = self.shared.now() + PATIENCE;
        loop {
            let now = self.shared.now();
            self.look_at_due(now);
            self.look_at_repositories(now);
            let looks = [self.settle.next_deadline(), self.relook.next()];
            let next = looks.into_iter().flatten().filter(|at| *at <= patience).min();
            let is_awaited = self.is_repository_awaited();
            if (next.is_none() && !is_awaited) || self.shared.cancel.is_cancelled() {
                return;
            }
            let soon = now + LOOK_MAX;
            let clock = self.shared.clock.now.clone();
            let mail = self.inbox.wait(Some(next.map_or(soon, |at| at.min(soon))), || clock());
            for message in mail.messages {
                match message {
                    Message::Checked(checked) => self.checked(now, checked),
                    Message::Imported(delivery) => self.imported(now, delivery),
                    // Nobody else knows this inbox.
                    _ => {}
                }
            }
        }
    }

    /// Closes one change set after the other, as the real pickup would; time passes as fast as it may.
    fn plan_change_sets(&mut self, report: &mut PlanReport) -> Result<()> {
        if self.is_git_blocked() {
            return Ok(());
        }
        let mut generation = self.shared.journal().next_generation(&self.config.name)?;
        let mut now = self.shared.now();
        let mut gone = BTreeSet::new();
        loop {
            // All was compared a moment ago, and time that only passes here settles nothing.
            let Some(change_set) = self.next_change_set(now, |_, _, _| {}) else {
                let unsettled = self.unsettled_units();
                match self.gathering.next_deadline(|unit| unsettled.contains(unit)) {
                    Some(at) if at > now => now = at,
                    Some(_) | None => return Ok(()),
                }
                continue;
            };
            let ChangeSet { mut changes, revision, .. } = change_set;
            changes.retain(|change| self.may_go(report, change));
            if changes.is_empty() {
                continue;
            }
            let plan = self.plan(changes, generation, revision.as_ref());
            let (groups, unaccepted): (Vec<_>, Vec<_>) = plan.groups.into_iter().partition(|g| !g.steps.is_empty());
            let units: BTreeSet<UnitPath> = unaccepted.iter().flat_map(|g| g.changes.iter()).map(unit).collect();
            let (nobody, some): (Vec<_>, Vec<_>) = plan
                .refusals
                .into_iter()
                .partition(|r| units.contains(&r.unit) || (r.unit.is_root() && groups.is_empty()));
            for refusal in nobody {
                let reason = format!("no deployer takes it; {}: {}", refusal.deployer, refusal.reason);
                report.wait(&refusal.unit, Wait::Unaccepted, reason);
            }
            if groups.is_empty() {
                continue;
            }
            let planned = self.ask_deployers(groups, &mut gone, &mut report.unknown)?;
            let refusals = some.into_iter().map(Into::into).collect();
            let revision = revision.as_deref().cloned();
            report.change_sets.push(PlannedChangeSet { generation, revision, groups: planned, refusals });
            generation += 1;
        }
    }

    /// Whether a change may be planned; if not, says what it waits for.
    fn may_go(&self, report: &mut PlanReport, change: &Change) -> bool {
        let (wait, reason) = if let Some(held) = self.held {
            (Wait::Held, format!("changes are held back: generation {held} is live until `pickupd release`"))
        } else if self.in_hand.contains(&change.path) {
            (Wait::Deploying, "it is being deployed".to_owned())
        } else if self.is_quarantined(change) {
            // With the other failures, below.
            return false;
        } else {
            return true;
        };
        report.wait(&change.path, wait, format!("{}; {reason}", change.kind.as_str()));
        false
    }

    /// What each group would come to; what nobody objects to is live from now on, as far as this rehearsal goes.
    fn ask_deployers(
        &mut self,
        groups: Vec<crate::plan::Group>,
        gone: &mut BTreeSet<UnitPath>,
        unknown: &mut Vec<String>,
    ) -> Result<Vec<PlannedGroup>> {
        let shared = self.shared.clone();
        let mut owed = Owing::default();
        let transaction = Transaction::new(&shared, &self.config.name, &self.deployers, &mut owed);
        let asked = shared.runtime.block_on(transaction.rehearse(groups))?;
        let mut planned = Vec::new();
        for mut progress in asked {
            // A directory that is to go is still in the way of the file that comes after it.
            let is_in_the_way = |old: &UnitPath| {
                progress.group.changes.iter().any(|new| new.path.starts_with(old) || old.starts_with(&new.path))
            };
            if gone.iter().any(is_in_the_way) && progress.failure.take().is_some() {
                let paths: Vec<String> = progress.group.changes.iter().map(|new| new.path.to_string()).collect();
                unknown.push(format!("{}: judged only once what is in the way is removed", paths.join(", ")));
            }
            for change in progress.group.changes.iter() {
                self.touched.remove(&change.path);
                self.failures.remove(&change.path);
                if progress.failure.is_some() {
                    continue;
                }
                match &change.content {
                    Some(content) => self.live.insert(change.path.clone(), content.clone()),
                    None => {
                        gone.insert(change.path.clone());
                        self.live.remove(&change.path);
                    }
                }
            }
            planned.push(PlannedGroup::from(progress));
        }
        Ok(planned)
    }

    fn say_what_waits(&self, report: &mut PlanReport) {
        for (place, waiting) in self.settle.pending() {
            let wait = match waiting {
                Waiting::Writer | Waiting::Partial(_) => Wait::Incomplete,
                Waiting::Empty | Waiting::Still(_) => Wait::Young,
            };
            report.wait(&place.path, wait, waiting.to_string());
        }
        for (unit, failure) in &self.failures {
            report.wait(unit, Wait::Quarantined, failure.sentence());
        }
        for unit in self.paused.iter().flat_map(|paused| &paused.units) {
            let reason = "it is gone, and its removal waits for a confirmation (`--confirm-removals`)";
            report.wait(unit, Wait::Unconfirmed, reason);
        }
        for (reason, _) in self.follows.values().filter_map(|follow| follow.waiting.as_ref()) {
            report.wait(&UnitPath::root(), Wait::Git, reason.as_str());
        }
        if let (Some(held), true) = (self.held, report.waiting.iter().all(|waiting| waiting.wait != Wait::Held)) {
            report.wait(&UnitPath::root(), Wait::Held, format!("held at generation {held} until `pickupd release`"));
        }
        report.waiting.sort_by(|one, other| one.path.cmp(&other.path));
        let refused = self.refused.iter().map(|(place, reason)| (place.path.clone(), reason.clone()));
        report.refused = refused.map(|(path, reason)| Noted { path, reason }).collect();
    }

    fn say_trouble(&self, report: &mut PlanReport) {
        let (git, remote) = self.planned_commit();
        let is_cloned = git.as_ref().is_some_and(|git| git.remote_at.is_some());
        let missing = self.roots.iter().find_map(|root| match &root.state {
            RootState::Missing { reason } => Some((format!("{}: {reason}", root.path.display()), &root.path)),
            RootState::Present { .. } | RootState::Unknown => None,
        });
        let missing = missing.and_then(|(missing, path)| {
            // These two are made by a start, and by a check.
            let sentence = match () {
                () if self.config.name == "default" => format!("{} does not exist; a start makes it", path.display()),
                () if is_cloned => format!("{} does not exist; it is cloned first", path.display()),
                () => return Some(missing),
            };
            report.unknown.push(sentence);
            None
        });
        if is_cloned {
            let sentence = "what the newer commit at the remote changes is not known before it is fetched";
            report.unknown.push(sentence.to_owned());
        }
        report.trouble = self.trouble.clone().or(missing).or(remote);
        report.git = git;
    }
}

fn unit(change: &Change) -> UnitPath {
    change.path.clone()
}

/// That a rehearsal ended without an answer.
pub(super) fn cut_off() -> Error {
    Error::new(ErrorKind::Cancelled, "finish the plan: it was cut off")
}
