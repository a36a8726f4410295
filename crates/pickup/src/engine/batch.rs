//! Stages 4 and 5 of one pickup: closing a change set, and handing its plan to the lane.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::known::{AllKnown, Known};
use super::look::is_unseen;
use super::message::{Message, Work};
use super::pickup::{Paused, Pickup, Root};
use super::shared::Bound;
use crate::change::gather::Noted;
use crate::change::{Change, ChangeKind, Content, TreeFile, compare, doubt};
use crate::config::{OnRemoved, UnitKind};
use crate::deploy::{Unit, Verdict};
use crate::error::Result;
use crate::event::EventKind;
use crate::journal::Origin;
use crate::path::UnitPath;
use crate::plan::{Aim, Plan, Route, plan};
use crate::source::Place;
use crate::source::git::Revision;

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "the tests are the writers")]
mod tests;

/// How many units a change set holds where each is a transaction of its own: the first are live before the last are
/// planned, and memory is bounded.
pub(super) const UNITS_MAX: usize = 1000;
/// The same once little is left to look at: nothing else is done beside the last of them.
const UNITS_LAST: usize = 250;
/// So many hints are little.
const HINTS_FEW: usize = 8;

/// What is to go live together, before anything failed or refused is left out.
pub(super) struct ChangeSet {
    pub changes: Vec<Change>,
    /// The units that were compared.
    pub closed: BTreeSet<UnitPath>,
    /// The commit it comes from, if it comes from one.
    pub revision: Option<Arc<Revision>>,
}

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
        is_known(&self.known, self.roots.len(), self.config.unit, unit)
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
        if self.end.is_some() || self.catches_up() || !self.may_deploy() {
            return;
        }
        if self.is_git_blocked() {
            return;
        }
        if let Some(change_set) = self.next_change_set(now, Self::hold_back_moving) {
            self.start_if_any(change_set);
        }
    }

    /// Hands on what is ready while there is much more to look at, where units go one by one: what is captured goes live
    /// while the rest is.
    pub(super) fn keep_lane_busy(&mut self) {
        if self.gathering.len() < self.units_max()
            || self.gathering.holds_removals()
            || !self.is_recovered
            || !self.is_by_unit()
        {
            return;
        }
        if self.is_busy {
            // All others wait until everything is heard.
            let Some(done) = self.inbox.take(|message| matches!(message, Message::Done(_))) else { return };
            self.answer(self.shared.now(), done);
        }
        self.close_change_set();
    }

    /// How many units a change set holds where each is a transaction of its own: of what went in parts already the last are small.
    fn units_max(&self) -> usize {
        let is_rest = self.is_split && self.hints_left <= HINTS_FEW && self.unseen.is_empty();
        if is_rest && self.gathering.len() <= UNITS_MAX { UNITS_LAST } else { UNITS_MAX }
    }

    /// The next change set, if something is ready: also of a pickup that only rehearses. `hold_back` takes out once more
    /// what is not to go yet, and is asked last.
    pub(super) fn next_change_set(
        &mut self,
        now: Instant,
        hold_back: impl FnOnce(&mut Self, Instant, &mut BTreeSet<UnitPath>),
    ) -> Option<ChangeSet> {
        if let Some(ready) = self.take_ready() {
            return Some(self.close_commit(ready));
        }
        let unsettled = self.unsettled_units();
        let revision = self.revision_of_change();
        let is_one_by_one = self.is_by_unit() && revision.is_none();
        // Removals stay together: whether they are believed depends on how many there are.
        let puts_max = if is_one_by_one { self.units_max() } else { usize::MAX };
        let (unseen, roots) = (&self.unseen, self.roots.len());
        let is_unsettled = |unit: &UnitPath| unsettled.contains(unit) || is_unseen(unseen, roots, unit);
        let is_moving = !unsettled.is_empty() || !self.unseen.is_empty();
        let is_put = |unit: &UnitPath| is_known(&self.known, self.roots.len(), self.config.unit, unit);
        // What was just captured is there.
        let may_go = !self.gathering.is_all_captured();
        let mut closed = self.gathering.close(now, is_moving, is_unsettled, is_put, puts_max);
        if closed.is_empty() {
            return None;
        }
        let is_over = self.hints_left == 0 && self.gathering.len() == 0;
        self.is_split = closed.len() >= puts_max && !is_over;
        if !is_one_by_one {
            // All or nothing: what failed together is tried together with what is new.
            self.take_failed(&mut closed);
        }
        hold_back(self, now, &mut closed);
        if closed.is_empty() {
            return None;
        }
        if is_one_by_one && may_go {
            self.clear_the_way(now, &mut closed);
        }
        let mut changes = compare(&closed, &self.touched, |unit| self.wanted(unit), &self.live);
        self.forget_superseded(&closed, &changes);
        self.doubt_removals(&mut changes);
        Some(ChangeSet { changes, closed, revision })
    }

    /// Begins once more what has to be done before anything new is: recovery that failed, and what the journal was not
    /// told; and what is due of what lingers. Whether there is such a thing.
    fn catches_up(&mut self) -> bool {
        let is_due = self.owed.next_try().is_some_and(|next| next <= self.shared.now());
        let is_behind = !self.is_recovered || !self.owed.is_recorded();
        if (is_behind || is_due) && self.may_catch_up() {
            if self.is_recovered {
                self.is_busy = true;
                self.spawn_deployment(Plan::default(), Work::Settle);
            } else {
                self.spawn_recovery(None);
            }
        }
        is_behind
    }

    pub(super) fn may_catch_up(&self) -> bool {
        !self.is_busy && self.pause_until.is_none()
    }

    /// What failed is over where the version that failed is not there any more, and what is there is live.
    fn forget_superseded(&mut self, closed: &BTreeSet<UnitPath>, changes: &[Change]) {
        if self.failures.is_empty() {
            return;
        }
        let changed: BTreeSet<&UnitPath> = changes.iter().map(|change| &change.path).collect();
        for unit in closed.iter().filter(|unit| !changed.contains(unit)) {
            let wanted = self.wanted(unit).map(|content| content.digest());
            // A removal that failed is over once the unit is gone, by whatever way.
            if self.failures.get(unit).is_some_and(|failure| wanted.is_none() || failure.record.digest != wanted) {
                self.forgive(unit);
            }
        }
    }

    /// What failed is tried together with what is new.
    fn take_failed(&mut self, closed: &mut BTreeSet<UnitPath>) {
        closed.extend(self.failures.keys().cloned());
        self.failures.values_mut().for_each(|failure| failure.is_due = true);
    }

    /// A commit is a change set of its own: whoever made it meant each removal in it.
    fn close_commit(&mut self, mut closed: BTreeSet<UnitPath>) -> ChangeSet {
        self.take_failed(&mut closed);
        let mut changes = compare(&closed, &self.touched, |unit| self.wanted(unit), &self.live);
        self.forget_superseded(&closed, &changes);
        if self.config.on_removed == OnRemoved::Keep {
            changes.retain(|change| change.kind != ChangeKind::Removed);
        }
        let revision = self.revision_of_change();
        ChangeSet { changes, closed, revision }
    }

    fn start_if_any(&mut self, ChangeSet { mut changes, closed, revision }: ChangeSet) {
        changes.retain(|change| !self.is_quarantined(change) && !self.is_refused_already(change));
        if changes.is_empty() {
            for unit in &closed {
                self.since.remove(unit);
            }
            return self.commit_is_live();
        }
        self.start(changes, Origin::Change, None, revision);
    }

    /// Where a file became a directory, or a directory a file, the old is taken away in this change set, whatever the
    /// grace of removals, and the new comes with the next.
    fn clear_the_way(&mut self, now: Instant, closed: &mut BTreeSet<UnitPath>) {
        let mut in_the_way = BTreeSet::new();
        let mut held_back = Vec::new();
        // Mostly nothing goes, and what was just captured does not.
        let is_gone = |unit: &UnitPath| self.live.contains_key(unit) && !self.is_wanted(unit);
        if !closed.iter().chain(self.gathering.not_captured()).any(is_gone) {
            return;
        }
        // What no longer waits was refused, or has failed: then the new one fails, too, and says why.
        let goes = |live: &UnitPath| {
            let is_waiting = closed.contains(live) || self.gathering.contains(live);
            is_waiting && is_gone(live)
        };
        for unit in closed.iter().filter(|unit| !self.live.contains_key(unit) && self.is_wanted(unit)) {
            let above = std::iter::successors(unit.parent(), UnitPath::parent);
            let below = self.live.keys_from(unit).take_while(|live| live.starts_with(unit));
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
        revision: Option<Arc<Revision>>,
    ) {
        let written = self.shared.store.write_out();
        // A full disk may hold what nothing refers to any more.
        let written = written
            .or_else(|error| if self.shared.make_room() > 0 { self.shared.store.write_out() } else { Err(error) });
        let next = written.and_then(|()| self.shared.journal().next_generation(&self.config.name));
        let (generation, rollback) = match (next, rollback) {
            (Ok(generation), rollback) => (generation, rollback),
            // Whoever asked for it decides what is next; or is gone.
            (Err(error), Some(rollback)) => return drop(rollback.send(Err(error))),
            (Err(error), None) => {
                return self.put_off(&changes.iter().map(|change| change.path.clone()).collect(), &error);
            }
        };
        self.in_hand = changes.iter().map(|change| change.path.clone()).collect();
        let mut since = HashMap::with_capacity(self.in_hand.len());
        since.extend(self.in_hand.iter().filter_map(|unit| Some((unit.clone(), self.since.remove(unit)?))));
        for unit in &self.in_hand {
            self.touched.remove(unit);
        }
        let plan = self.plan(changes, generation, revision.as_ref());
        self.is_busy = true;
        self.spawn_deployment(plan, Work::Deploy { generation, origin, since, rollback, revision });
    }

    pub(super) fn plan(&self, changes: Vec<Change>, generation: u64, revision: Option<&Arc<Revision>>) -> Plan {
        let accept = |bound: &Bound| {
            let deployer = bound.deployer.clone();
            move |unit: &Unit| -> Verdict { deployer.accepts(unit) }
        };
        let accepts: Vec<_> = self.deployers.iter().map(accept).collect();
        let mut routes: Vec<Route<'_>> = Vec::new();
        for (bound, accepts) in self.deployers.iter().zip(&accepts) {
            routes.push(Route { deployer: &bound.name, scope: bound.deployer.scope(), accepts });
        }
        let aim = Aim { pickup: &self.config.name, generation, revision };
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
        let is_unavailable = self.roots.iter().any(Root::is_unavailable);
        if is_kept || is_unavailable {
            return changes.retain(|change| change.kind != ChangeKind::Removed);
        }
        // What is paused already counts: a directory that is emptied bit by bit is emptied.
        let before = self.paused.as_ref().map_or(0, |paused| paused.units.difference(&gone).count());
        let doubted = doubt(gone.len() + before, self.live.len(), was_seen, self.known.is_empty());
        let doubted = if self.is_confirmed { None } else { doubted };
        self.is_confirmed = false;
        let Some(doubt) = doubted else { return gone.iter().for_each(|unit| self.unpause(unit)) };
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
        let units: BTreeSet<UnitPath> = match self.config.unit {
            // Of many files most are live: the cheap question first. Where roots share a name, the dear one decides.
            UnitKind::File => {
                let is_live = |place: &Place, known: &Known| {
                    self.live.is_file(&place.path, &known.digest, known.fingerprint.mode)
                };
                let other = self.known.iter().filter(|(place, known)| !is_live(place, known));
                other.map(|(place, _)| place.path.clone()).collect()
            }
            UnitKind::Directory | UnitKind::Tree => self.known.keys().map(|place| self.unit_of(&place.path)).collect(),
        };
        for unit in units.into_iter().filter(|unit| !self.is_live(unit)).collect::<Vec<_>>() {
            self.since.entry(unit.clone()).or_insert(now);
            self.gathering.note(now, unit, Noted::Complete);
        }
    }

    /// Whether what is on disk of the unit is live.
    fn is_live(&self, unit: &UnitPath) -> bool {
        match (self.wanted(unit), self.live.get(unit)) {
            (Some(wanted), Some(live)) => wanted.is_same(&live),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }
}

/// Whether any of the roots has something of the unit.
fn is_known(known: &AllKnown, roots: usize, kind: UnitKind, unit: &UnitPath) -> bool {
    (0..roots).any(|root| {
        let place = Place { root, path: unit.clone() };
        known.range(place..).next().is_some_and(|(known, _)| {
            let is_of_unit = if kind == UnitKind::File { known.path == *unit } else { known.path.starts_with(unit) };
            known.root == root && is_of_unit
        })
    })
}
