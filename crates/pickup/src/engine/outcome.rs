//! What comes back from the lane: what is live now, what failed, and what the journal is told of it.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::failures::TRANSIENT_MAX;
use super::git::import::short;
use super::message::{Done, Message, Work};
use super::pickup::Pickup;
use super::progress::{GroupResult, Outcome};
use crate::change::gather::Noted;
use crate::change::{Change, ChangeKind, Content};
use crate::error::{Error, ErrorKind};
use crate::event::EventKind;
use crate::journal::{KnownFile, Origin};
use crate::path::UnitPath;
use crate::source::git::Revision;
use crate::source::{Fingerprint, Place};

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "the tests are the writers")]
mod tests;

/// How long the journal may not be told what was seen, where there is always something to do.
pub(super) const UNSAVED_MAX: Duration = Duration::from_secs(10);

impl Pickup {
    /// The lane is free again.
    pub(super) fn done(&mut self, now: Instant, done: Done) {
        self.is_busy = false;
        let mut in_hand = std::mem::take(&mut self.in_hand);
        self.owed = done.owed;
        if std::mem::take(&mut self.is_rearmed) {
            self.owed.rearm(now);
        }
        let result = match (done.work, done.result) {
            (Work::Recover, result) => result.and_then(|_| self.recovered(now, done.loaded, done.drifted)),
            (Work::Settle, result) => result.map(drop),
            (Work::Deploy { generation, origin, since, rollback, revision }, Ok(outcomes)) => {
                self.applied(now, generation, &since, &outcomes, revision.as_ref());
                if let (Some(reply), Origin::Rollback { to }) = (rollback, origin) {
                    self.answer_rollback(to, &outcomes, reply);
                    if self.held.is_none() {
                        // Some of it may have gone back, unit by unit; what is on disk is wanted again.
                        for unit in &in_hand {
                            self.gathering.note(now, unit.clone(), Noted::Complete);
                        }
                    }
                }
                Ok(())
            }
            (Work::Deploy { generation, since, rollback, revision, .. }, Err(error)) => {
                self.applied(now, generation, &since, &done.live, revision.as_ref());
                for change in done.live.iter().flat_map(|outcome| outcome.changes.iter()) {
                    in_hand.remove(&change.path);
                }
                match rollback {
                    Some(rollback) => {
                        // Whoever asked is gone: nobody to tell.
                        let _ = rollback.send(Err(error));
                        Ok(())
                    }
                    None => Err(error),
                }
            }
        };
        match result {
            Ok(()) => {
                if self.owed.is_recorded() {
                    self.pause = Duration::ZERO;
                    self.healed();
                } else {
                    let unwritten = "record the end of a deployment in the journal; it is tried again";
                    self.put_off(&BTreeSet::new(), &Error::new(ErrorKind::Journal, unwritten));
                }
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => {}
            Err(error) => {
                self.put_off(&in_hand, &error);
                self.refuse_deferred(&error);
            }
        }
        if self.is_recovered {
            for message in std::mem::take(&mut self.deferred) {
                self.answer(now, message);
            }
        }
    }

    /// Nobody waits for an answer until a disk has room again.
    fn refuse_deferred(&mut self, cause: &Error) {
        let refusal = || {
            let action = format!("answer for {}, which is in trouble and tries again: {cause}", self.config.name);
            Error::new(ErrorKind::Busy, action)
        };
        // Whoever asked may be gone: nobody to tell.
        for message in std::mem::take(&mut self.deferred) {
            match message {
                Message::Rollback { reply, .. } => drop(reply.send(Err(refusal()))),
                Message::Release(reply) => drop(reply.send(Err(refusal()))),
                // All of it is tried again by itself.
                Message::Retry { reply, .. } => drop(reply.send(0)),
                other => self.deferred.push(other),
            }
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

    fn applied(
        &mut self,
        now: Instant,
        generation: u64,
        since: &HashMap<UnitPath, Instant>,
        outcomes: &[Outcome],
        revision: Option<&Arc<Revision>>,
    ) {
        let wall = self.shared.now_ms();
        for outcome in outcomes {
            match &outcome.result {
                GroupResult::Applied(deployers) => {
                    self.generation = Some(generation);
                    self.last_success = Some(wall);
                    if let Some(revision) = revision {
                        self.live_revision = Some(Revision::clone(revision));
                    }
                    for change in outcome.changes.iter() {
                        let took = since.get(&change.path).map_or(0, |since| elapsed_ms(*since, now));
                        self.went_live(change, generation, deployers, took, revision);
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
                GroupResult::Stuck { .. } => self.stuck(now, generation, outcome),
            }
        }
        self.save_known_later(now);
    }

    /// Nobody knows what is live. Where that may pass, the change is tried again until it is live or could be taken back:
    /// either says what is.
    fn stuck(&mut self, now: Instant, generation: u64, outcome: &Outcome) {
        let GroupResult::Stuck { deployer, cause, undo_errors, is_transient } = &outcome.result else { return };
        let retry = if *is_transient {
            let cause = format!("stuck: {cause}; and it could not be taken back yet: {}", undo_errors.join("; "));
            self.failed(now, outcome, deployer, &cause, true)
        } else {
            self.failed_for_good(outcome, cause, undo_errors);
            None
        };
        let units: Vec<UnitPath> = outcome.changes.iter().map(|change| change.path.clone()).collect();
        // Should the former content come back, it differs in nothing from what was live, and is to be sent all the same.
        self.touched.extend(units.iter().filter(|unit| self.live.contains_key(unit)).cloned());
        let name = &self.config.name;
        let retry_in = retry.map(|retry| elapsed_ms(now, retry));
        let (cause, undo_errors) = (cause.clone(), undo_errors.clone());
        if retry_in.is_some() {
            tracing::error!(
                pickup = name,
                generation,
                cause,
                ?undo_errors,
                retry_in_ms = retry_in,
                "stuck; it is tried again"
            );
        } else {
            tracing::error!(pickup = name, generation, cause, ?undo_errors, "stuck; somebody has to look");
        }
        self.shared.publish(name, EventKind::Stuck { units, generation, cause, undo_errors, retry_in });
    }

    fn went_live(
        &mut self,
        change: &Change,
        generation: u64,
        deployers: &[Arc<str>],
        took: u64,
        revision: Option<&Arc<Revision>>,
    ) {
        let name = &self.config.name;
        let (unit, kind) = (change.path.clone(), change.kind);
        let digest = change.content.as_ref().map(Content::digest);
        let word = if change.kind == ChangeKind::Removed { "removed" } else { "deployed" };
        tracing::info!(
            pickup = name, %unit, change = kind.as_str(), deployers = deployers.join(","), generation,
            digest = digest.map(|digest| digest.short()).unwrap_or_default(), took_ms = took,
            commit = revision.map(|revision| short(&revision.commit)), "{word}"
        );
        self.shared.publish_with(name, || {
            let deployers = deployers.iter().map(ToString::to_string).collect();
            let revision = revision.cloned();
            EventKind::Deployed { unit: unit.clone(), change: kind, digest, generation, deployers, took, revision }
        });
        self.deployed += 1;
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
                    // A newer version that came meanwhile stays until it is live, too.
                    self.delete_if_live(&unit);
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
        let below = |root| {
            let known = self.known.range(Place { root, path: unit.clone() }..).map(|(place, _)| place);
            known.take_while(move |place| place.root == root && place.path.starts_with(unit))
        };
        let places: Vec<Place> = (0..self.roots.len()).flat_map(below).cloned().collect();
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
                    self.is_outdated = true;
                }
                Err(error) => {
                    tracing::warn!(pickup = self.config.name, path = %path.display(), %error, "cannot remove the file that was picked up");
                }
            }
        }
    }

    /// Tells the journal which files were seen, so that the next start need not read them again: `at_most` so many. Whether it
    /// could be told.
    pub(super) fn save_known(&mut self, at_most: usize) -> bool {
        self.record_forgiven();
        let followed = self.followed();
        if self.unsaved.is_empty() && followed.is_empty() {
            self.unsaved_since = None;
            return true;
        }
        // Up to where a repository was taken up is told together with all that was found there.
        let at_most = if followed.is_empty() { at_most } else { usize::MAX };
        let (mut seen, mut gone) = (Vec::new(), Vec::new());
        for place in self.unsaved.next(at_most) {
            match self.known.get(place) {
                // A racy fingerprint must not outlive the process: what hides behind it would never be found.
                Some(known) if !known.is_racy() => {
                    let (fingerprint, digest) = (known.fingerprint, known.digest);
                    seen.push(KnownFile { place: place.clone(), fingerprint, digest });
                }
                Some(_) | None => gone.push(place.clone()),
            }
        }
        let written = self.shared.store.write_out();
        let saved = written.and_then(|()| self.shared.journal().save_known(&self.config.name, &seen, &gone, &followed));
        match saved {
            Ok(()) => {
                self.unsaved.drop_next(seen.len() + gone.len());
                if self.unsaved.is_empty() {
                    (self.unsaved_since, self.is_outdated) = (None, false);
                }
                self.followed_saved();
            }
            Err(error) => {
                self.troubled(&error.to_string());
                return false;
            }
        }
        true
    }

    /// The same once there is time: what is new and forgotten in a crash is read once more, and nothing else. What the journal
    /// tells otherwise would make a wish of a touch that was deployed.
    fn save_known_later(&mut self, now: Instant) {
        self.record_forgiven();
        if self.is_outdated || self.is_overdue(now) || !self.followed().is_empty() {
            self.save_known(usize::MAX);
        }
        self.put_away_later();
    }

    /// Whether the journal was not told for long enough what was seen.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.unsaved_since.is_some_and(|since| now.saturating_duration_since(since) >= UNSAVED_MAX)
    }
}

/// How long the clock of the engine says since `start`; for log lines.
fn elapsed_ms(start: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX)
}

fn lstat(path: &Path) -> Option<Fingerprint> {
    #[expect(clippy::disallowed_methods, reason = "what was picked up is deleted only if it is still the same file")]
    std::fs::symlink_metadata(path).ok().map(|metadata| Fingerprint::of(&metadata))
}

#[expect(clippy::disallowed_methods, reason = "`delete_after_pickup` asks for it")]
fn remove_file(path: &Path) -> std::io::Result<()> {
    std::fs::remove_file(path)
}
