//! Stages 4 and 5 of one pickup: closing a change set, handing its plan to the lane, and what comes back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::failures::TRANSIENT_MAX;
use super::pickup::{Done, Paused, Pickup, Work};
use super::shared::Bound;
use super::transaction::{GroupResult, Outcome, elapsed_ms};
use crate::change::gather::Noted;
use crate::change::{Change, ChangeKind, Content, TreeFile, compare, doubt};
use crate::config::{OnRemoved, UnitKind};
use crate::deploy::{Unit, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventKind;
use crate::journal::{KnownFile, Origin};
use crate::path::UnitPath;
use crate::plan::{Aim, Plan, Route, plan};
use crate::source::{Fingerprint, Place};

/// How many units a change set holds where each is a transaction of its own: the first are live before the last are
/// planned, and memory is bounded.
const UNITS_MAX: usize = 1000;

impl Pickup {
    /// What `unit` consists of on disk, as captured; the first root that has it counts.
    pub(super) fn wanted(&self, unit: &UnitPath) -> Option<Content> {
        let place = |root| Place { root, path: unit.clone() };
        match self.config.unit {
            UnitKind::File => {
                (0..self.roots.len()).find_map(|root| self.captured_file(&place(root))).map(Content::File)
            }
            UnitKind::Directory => (0..self.roots.len()).find_map(|root| {
                self.captured_file(&place(root)).map(Content::File).or_else(|| self.tree(&[root], unit))
            }),
            UnitKind::Tree => self.tree(&(0..self.roots.len()).collect::<Vec<_>>(), unit),
        }
    }

    pub(super) fn is_wanted(&self, unit: &UnitPath) -> bool {
        (0..self.roots.len()).any(|root| {
            let place = Place { root, path: unit.clone() };
            self.known.range(place..).next().is_some_and(|(known, _)| {
                known.root == root
                    && if self.config.unit == UnitKind::File {
                        known.path == *unit
                    } else {
                        known.path.starts_with(unit)
                    }
            })
        })
    }

    fn captured_file(&self, place: &Place) -> Option<crate::capture::CapturedFile> {
        let known = self.known.get(place)?;
        Some(self.shared.store.file(known.digest, known.fingerprint.size, known.fingerprint.mode))
    }

    fn tree(&self, roots: &[usize], unit: &UnitPath) -> Option<Content> {
        let mut files = BTreeMap::new();
        for &root in roots {
            let top = Place { root, path: unit.clone() };
            let below =
                self.known.range(top..).take_while(|(place, _)| place.root == root && place.path.starts_with(unit));
            for (place, _) in below {
                let (Some(path), Some(file)) = (place.path.below(unit), self.captured_file(place)) else { continue };
                files.entry(path.clone()).or_insert(TreeFile { path, file });
            }
        }
        (!files.is_empty()).then(|| Content::Tree(files.into_values().collect()))
    }

    /// Hands the next change set to the lane, if one may begin and something is ready.
    pub(super) fn close_change_set(&mut self) {
        let now = self.shared.now();
        if self.pause_until.is_some_and(|until| until <= now) {
            self.pause_until = None;
        }
        self.retry_due(now);
        if !self.may_deploy() || self.end.is_some() {
            return;
        }
        let unsettled = self.unsettled_units();
        let mut closed = self.gathering.close(now, !unsettled.is_empty(), |unit| unsettled.contains(unit));
        if closed.is_empty() {
            return;
        }
        if self.is_by_unit() {
            self.clear_the_way(now, &mut closed);
            // Removals stay together: whether they are believed depends on how many there are.
            let puts = closed.iter().filter(|unit| self.is_wanted(unit));
            for unit in puts.skip(UNITS_MAX).cloned().collect::<Vec<_>>() {
                closed.remove(&unit);
                self.gathering.note(now, unit, Noted::Complete);
            }
        } else {
            // All or nothing: what failed together is tried together with what is new.
            closed.extend(self.failures.keys().cloned());
            self.failures.values_mut().for_each(|failure| failure.is_due = true);
        }
        let mut changes = compare(&closed, &self.touched, |unit| self.wanted(unit), &self.live);
        self.doubt_removals(&mut changes);
        changes.retain(|change| !self.is_quarantined(change) && !self.is_refused_already(change));
        if changes.is_empty() {
            for unit in &closed {
                self.since.remove(unit);
            }
            return;
        }
        self.start(changes, Origin::Change, None);
    }

    /// Where a file became a directory, or a directory a file, the old is taken away in this change set, whatever the
    /// grace of removals, and the new comes with the next.
    fn clear_the_way(&mut self, now: Instant, closed: &mut BTreeSet<UnitPath>) {
        let mut in_the_way = BTreeSet::new();
        let mut held_back = Vec::new();
        // What no longer waits was refused, or has failed: then the new one fails, too, and says why.
        let goes = |live: &UnitPath| {
            let is_waiting = closed.contains(live) || self.gathering.contains(live);
            is_waiting && self.live.contains_key(live) && !self.is_wanted(live)
        };
        for unit in closed.iter().filter(|unit| !self.live.contains_key(unit) && self.is_wanted(unit)) {
            let above = std::iter::successors(unit.parent(), UnitPath::parent);
            let below = self.live.range(unit.clone()..).map(|(live, _)| live).take_while(|live| live.starts_with(unit));
            let old: Vec<UnitPath> = above.chain(below.cloned()).filter(goes).collect();
            if !old.is_empty() {
                in_the_way.extend(old);
                held_back.push(unit.clone());
            }
        }
        for unit in held_back {
            closed.remove(&unit);
            self.gathering.note(now, unit, Noted::Complete);
        }
        closed.extend(in_the_way);
    }

    /// Plans `changes` and gives them to the lane.
    pub(super) fn start(
        &mut self,
        changes: Vec<Change>,
        origin: Origin,
        rollback: Option<oneshot::Sender<Result<u64>>>,
    ) {
        let next = self.shared.journal().next_generation(&self.config.name);
        let generation = match next {
            Ok(generation) => generation,
            Err(error) => return self.put_off(&changes.iter().map(|change| change.path.clone()).collect(), &error),
        };
        self.in_hand = changes.iter().map(|change| change.path.clone()).collect();
        let since = self.in_hand.iter().filter_map(|unit| Some((unit.clone(), self.since.remove(unit)?))).collect();
        for unit in &self.in_hand {
            self.touched.remove(unit);
        }
        let plan = self.plan(changes, generation);
        self.is_busy = true;
        self.spawn_deployment(plan, Work::Deploy { generation, origin, since, rollback });
    }

    fn plan(&self, changes: Vec<Change>, generation: u64) -> Plan {
        let accept = |bound: &Bound| {
            let deployer = bound.deployer.clone();
            move |unit: &Unit| -> Verdict { deployer.accepts(unit) }
        };
        let accepts: Vec<_> = self.deployers.iter().map(accept).collect();
        let mut routes: Vec<Route<'_>> = Vec::new();
        for (bound, accepts) in self.deployers.iter().zip(&accepts) {
            routes.push(Route { deployer: &bound.name, scope: bound.deployer.scope(), accepts });
        }
        let aim = Aim { pickup: &self.config.name, generation, revision: None };
        let plan = plan(aim, changes, &self.live, &routes);
        for refusal in &plan.refusals {
            let (unit, deployer, reason) = (refusal.unit.clone(), refusal.deployer.clone(), refusal.reason.clone());
            tracing::info!(pickup = self.config.name, %unit, deployer, reason, "refused");
            self.shared.publish(&self.config.name, EventKind::Refused { unit, deployer, reason });
        }
        plan
    }

    /// Leaves out removals that are not asked for, or not believed.
    fn doubt_removals(&mut self, changes: &mut Vec<Change>) {
        let gone: BTreeSet<UnitPath> = changes
            .iter()
            .filter(|change| change.kind == ChangeKind::Removed)
            .map(|change| change.path.clone())
            .collect();
        if gone.is_empty() {
            return;
        }
        let was_seen = gone.iter().all(|unit| self.seen_removed.contains(unit));
        self.seen_removed.retain(|unit| !gone.contains(unit));
        let is_kept = self.config.on_removed == OnRemoved::Keep || self.config.delete_after_pickup;
        // A root that is not there says nothing about what was in it; its return is a rescan.
        let is_unavailable = self.roots.iter().any(|root| root.real().is_none());
        if is_kept || is_unavailable {
            return changes.retain(|change| change.kind != ChangeKind::Removed);
        }
        // What is paused already counts: a directory that is emptied bit by bit is emptied.
        let before = self.paused.as_ref().map_or(0, |paused| paused.units.len());
        let doubted = if self.is_confirmed { None } else { doubt(gone.len() + before, self.live.len(), was_seen) };
        self.is_confirmed = false;
        let Some(doubt) = doubted else { return };
        changes.retain(|change| change.kind != ChangeKind::Removed);
        let paused = self.paused.get_or_insert_with(|| Paused { units: BTreeSet::new(), doubt });
        paused.units.extend(gone);
        let units = paused.units.len();
        let confirm = format!("pickupd sync {} --confirm-removals", self.config.name);
        tracing::warn!(pickup = self.config.name, units, confirm, "removals are paused until they are confirmed");
        self.shared.publish(&self.config.name, EventKind::RemovalsPaused { units, doubt });
    }

    /// The user confirmed: what was paused is judged once more, and believed.
    pub(super) fn take_up_paused(&mut self, now: Instant) {
        for unit in self.paused.take().map(|paused| paused.units).unwrap_or_default() {
            self.gathering.note(now, unit, Noted::Complete);
        }
    }

    /// Notes every unit that differs from what is live: at start, and when a hold ends.
    pub(super) fn note_differences(&mut self, now: Instant) {
        let units: BTreeSet<UnitPath> = self.known.keys().map(|place| self.unit_of(&place.path)).collect();
        for unit in units {
            let wanted = self.wanted(&unit);
            let is_same = match (&wanted, self.live.get(&unit)) {
                (Some(wanted), Some(live)) => wanted.is_same(live),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !is_same {
                self.since.entry(unit.clone()).or_insert(now);
                self.gathering.note(now, unit, Noted::Complete);
            }
        }
    }

    /// The lane is free again.
    pub(super) fn done(&mut self, now: Instant, done: Done) {
        self.is_busy = false;
        let in_hand = std::mem::take(&mut self.in_hand);
        self.owed = done.owed;
        let result = match (done.work, done.result) {
            (Work::Recover, result) => result.and_then(|_| self.recovered(now, done.drifted)),
            (Work::Deploy { generation, origin, since, rollback }, Ok(outcomes)) => {
                self.applied(now, generation, &since, &outcomes);
                if let (Some(reply), Origin::Rollback { to }) = (rollback, origin) {
                    self.answer_rollback(to, &outcomes, reply);
                }
                Ok(())
            }
            (Work::Deploy { rollback, .. }, Err(error)) => match rollback {
                Some(rollback) => {
                    // Whoever asked is gone: nobody to tell.
                    let _ = rollback.send(Err(error));
                    Ok(())
                }
                None => Err(error),
            },
        };
        match result {
            Ok(()) => {
                self.pause = Duration::ZERO;
                if self.owed.is_empty() {
                    self.healed();
                }
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => {}
            Err(error) => self.put_off(&in_hand, &error),
        }
        if let Some((to, reply)) = self.pending_rollback.take() {
            self.roll_back(to, reply);
        }
    }

    /// The engine itself could not work: everything waits a little and is tried again.
    pub(super) fn put_off(&mut self, units: &BTreeSet<UnitPath>, error: &Error) {
        self.troubled(&error.to_string());
        let now = self.shared.now();
        self.pause = (self.pause * 2).clamp(Duration::from_millis(500), TRANSIENT_MAX);
        self.pause_until = Some(now + self.pause);
        for unit in units {
            self.since.entry(unit.clone()).or_insert(now);
            // A change that differs in nothing was asked for by a touch or a drift, and still is.
            self.touched.insert(unit.clone());
            self.gathering.note(now, unit.clone(), Noted::Complete);
        }
    }

    fn applied(&mut self, now: Instant, generation: u64, since: &HashMap<UnitPath, Instant>, outcomes: &[Outcome]) {
        for outcome in outcomes {
            match &outcome.result {
                GroupResult::Applied(deployers) => {
                    self.generation = Some(generation);
                    self.last_success = Some(self.shared.now_ms());
                    for change in outcome.changes.iter() {
                        let took = since.get(&change.path).map_or(0, |since| elapsed_ms(*since, now));
                        self.went_live(change, generation, deployers, took);
                    }
                }
                GroupResult::Refused => {
                    for change in outcome.changes.iter() {
                        if let Some(content) = &change.content {
                            self.unrouted.insert(change.path.clone(), content.clone());
                        }
                    }
                }
                GroupResult::RolledBack { deployer, cause, output, is_transient } => {
                    let retry = self.failed(now, outcome, deployer, cause, *is_transient);
                    let units: Vec<UnitPath> = outcome.changes.iter().map(|change| change.path.clone()).collect();
                    let shown = units.iter().map(UnitPath::to_string).collect::<Vec<_>>().join(", ");
                    let retry_in = retry.map(|retry| elapsed_ms(now, retry));
                    tracing::error!(
                        pickup = self.config.name,
                        units = shown,
                        generation,
                        cause,
                        output,
                        retry_in_ms = retry_in,
                        "failed; the old version stays"
                    );
                    let (cause, output) = (cause.clone(), output.clone());
                    let kind = EventKind::RolledBack { units, generation, cause, output, retry_in };
                    self.shared.publish(&self.config.name, kind);
                }
                GroupResult::Stuck { cause, undo_errors } => {
                    self.failed_for_good(outcome, cause, undo_errors);
                    let units = outcome.changes.iter().map(|change| change.path.clone()).collect();
                    tracing::error!(
                        pickup = self.config.name,
                        generation,
                        cause,
                        ?undo_errors,
                        "stuck; somebody has to look"
                    );
                    let (cause, undo_errors) = (cause.clone(), undo_errors.clone());
                    let kind = EventKind::Stuck { units, generation, cause, undo_errors };
                    self.shared.publish(&self.config.name, kind);
                }
            }
        }
        self.save_known();
    }

    fn went_live(&mut self, change: &Change, generation: u64, deployers: &[String], took: u64) {
        let name = &self.config.name;
        let (unit, kind) = (change.path.clone(), change.kind);
        let digest = change.content.as_ref().map(Content::digest);
        let short = digest.map(|digest| digest.short()).unwrap_or_default();
        let word = if change.kind == ChangeKind::Removed { "removed" } else { "deployed" };
        tracing::info!(
            pickup = name, %unit, change = kind.as_str(), deployers = deployers.join(","), generation,
            digest = short, took_ms = took, "{word}"
        );
        let deployers = deployers.to_vec();
        let revision = None;
        let deployed =
            EventKind::Deployed { unit: unit.clone(), change: kind, digest, generation, deployers, took, revision };
        self.shared.publish(name, deployed);
        for waiter in &mut self.waiters {
            waiter.report.deployed += 1;
        }
        self.forgive(&unit);
        self.unrouted.remove(&unit);
        match &change.content {
            Some(content) => {
                self.shared.unpin(content);
                self.live.insert(unit.clone(), content.clone());
                if self.config.delete_after_pickup {
                    self.delete_source(&unit);
                }
            }
            None => {
                self.live.remove(&unit);
            }
        }
    }

    pub(super) fn delete_if_live(&mut self, unit: &UnitPath) {
        let wanted = self.wanted(unit);
        let is_live = wanted.is_some_and(|wanted| self.live.get(unit).is_some_and(|live| live.is_same(&wanted)));
        if is_live {
            self.delete_source(unit);
        }
    }

    /// It is there again: nothing has to be confirmed.
    pub(super) fn unpause(&mut self, unit: &UnitPath) {
        if let Some(paused) = &mut self.paused {
            paused.units.remove(unit);
            if paused.units.is_empty() {
                self.paused = None;
            }
        }
    }

    /// Takes a deployed unit out of the pickup directory, unless somebody changed it since.
    fn delete_source(&mut self, unit: &UnitPath) {
        let places: Vec<Place> =
            self.known.keys().filter(|place| self.unit_of(&place.path) == *unit).cloned().collect();
        for place in places {
            let Some(real) = self.roots[place.root].real() else { continue };
            let path = real.join(place.path.as_path());
            let is_ours = self.known.get(&place).is_some_and(|known| lstat(&path) == Some(known.fingerprint));
            if !is_ours {
                continue;
            }
            match remove_file(&path) {
                Ok(()) => {
                    self.known.remove(&place);
                    self.unsaved.insert(place);
                }
                Err(error) => {
                    tracing::warn!(pickup = self.config.name, path = %path.display(), %error, "cannot remove the file that was picked up");
                }
            }
        }
    }

    /// Tells the journal which files were seen, so that the next start need not read them again.
    pub(super) fn save_known(&mut self) {
        if self.unsaved.is_empty() {
            return;
        }
        let (mut seen, mut gone) = (Vec::new(), Vec::new());
        for place in &self.unsaved {
            match self.known.get(place) {
                // A racy fingerprint must not outlive the process: what hides behind it would never be found.
                Some(known) if !known.is_racy => {
                    let (fingerprint, digest) = (known.fingerprint, known.digest);
                    seen.push(KnownFile { place: place.clone(), fingerprint, digest });
                }
                Some(_) | None => gone.push(place.clone()),
            }
        }
        let saved = self.shared.journal().save_known(&self.config.name, &seen, &gone);
        match saved {
            Ok(()) => self.unsaved.clear(),
            Err(error) => self.troubled(&error.to_string()),
        }
    }
}

fn lstat(path: &Path) -> Option<Fingerprint> {
    #[expect(clippy::disallowed_methods, reason = "what was picked up is deleted only if it is still the same file")]
    std::fs::symlink_metadata(path).ok().map(|metadata| Fingerprint::of(&metadata))
}

#[expect(clippy::disallowed_methods, reason = "`delete_after_pickup` asks for it")]
fn remove_file(path: &Path) -> std::io::Result<()> {
    std::fs::remove_file(path)
}
