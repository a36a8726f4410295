//! What failed in one pickup: when it is tried again, and what re-arms it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use super::pickup::{Failure, Pickup};
use super::progress::Outcome;
use crate::capture::Digest;
use crate::change::gather::Noted;
use crate::change::{Change, ChangeKind, Content};
use crate::event::EventKind;
use crate::journal::Quarantined;
use crate::path::UnitPath;

/// The longest pause between two tries of something whose cause lies outside.
pub(super) const TRANSIENT_MAX: Duration = Duration::from_secs(30);
/// The longest pause between two tries of a failed artifact.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);

impl Pickup {
    /// Records a failure; gives when it is tried again.
    pub(super) fn failed(
        &mut self,
        now: Instant,
        outcome: &Outcome,
        deployer: &str,
        cause: &str,
        is_transient: bool,
    ) -> Option<Instant> {
        let common = self.deployers.iter().find(|bound| bound.name == deployer).map(|bound| bound.common.clone());
        let common = common.unwrap_or_default();
        let mut latest = None;
        self.capture_again(now, outcome);
        for change in outcome.changes.iter() {
            let digest = change.content.as_ref().map(Content::digest);
            let before = self.failures.get(&change.path).filter(|failure| failure.record.digest == digest);
            let attempts = before.map_or(0, |failure| failure.record.attempts) + 1;
            let pause = common.retry_backoff.saturating_mul(1 << (attempts - 1).min(20));
            let pause = pause.min(if is_transient { TRANSIENT_MAX } else { BACKOFF_MAX });
            let retry = (is_transient || attempts <= common.retry).then(|| now + pause);
            let retry_at = retry.map(|_| self.shared.now_ms() + i64::try_from(pause.as_millis()).unwrap_or(i64::MAX));
            let (unit, deployer, cause) = (change.path.clone(), deployer.to_owned(), cause.to_owned());
            let record = Quarantined { unit, digest, deployer, attempts, retry_at, cause, is_transient };
            self.remember_failure(Failure { record, retry, retries: common.retry, is_due: false });
            latest = retry;
        }
        latest
    }

    /// What is not in the content store any more is looked at anew, before it is tried again.
    fn capture_again(&mut self, now: Instant, outcome: &Outcome) {
        let contents = outcome.changes.iter().filter_map(|change| change.content.as_ref());
        let lost: BTreeSet<Digest> = contents
            .flat_map(Content::files)
            .map(|file| file.digest)
            .filter(|digest| !self.shared.store.contains(digest))
            .collect();
        for (place, _) in self.known.iter().filter(|(_, known)| lost.contains(&known.digest)) {
            self.relook.insert(now, place.clone());
        }
    }

    pub(super) fn failed_for_good(&mut self, outcome: &Outcome, cause: &str, undo_errors: &[String]) {
        for change in outcome.changes.iter() {
            let cause = format!("stuck: {cause}; and while it was taken back: {}", undo_errors.join("; "));
            let digest = change.content.as_ref().map(Content::digest);
            let (unit, deployer) = (change.path.clone(), String::new());
            let record =
                Quarantined { unit, digest, deployer, attempts: 1, retry_at: None, cause, is_transient: false };
            self.remember_failure(Failure { record, retry: None, retries: 0, is_due: false });
        }
    }

    /// A deployer gave up on what is live: it shows as failed, and is deployed again when somebody asks for it.
    pub(super) fn broken(&mut self, deployer: &str, units: Vec<UnitPath>, cause: &str) {
        tracing::error!(pickup = self.config.name, deployer, cause, "what was live is not any more");
        for unit in &units {
            let Some(digest) = self.live.digest(unit) else { continue };
            let (unit, deployer, cause) = (unit.clone(), deployer.to_owned(), format!("{deployer}: {cause}"));
            let (digest, is_transient) = (Some(digest), false);
            let record = Quarantined { unit, digest, deployer, attempts: 1, retry_at: None, cause, is_transient };
            self.remember_failure(Failure { record, retry: None, retries: 0, is_due: false });
        }
        let (deployer, cause) = (deployer.to_owned(), cause.to_owned());
        self.shared.publish(&self.config.name, EventKind::Broken { units, deployer, cause });
    }

    fn remember_failure(&mut self, failure: Failure) {
        self.last_error = Some((self.shared.now_ms(), format!("{}: {}", failure.record.unit, failure.record.cause)));
        for waiter in &mut self.waiters {
            waiter.report.failed.insert(failure.record.unit.clone(), failure.record.cause.clone());
        }
        if let Err(error) = self.shared.journal().quarantine(&self.config.name, &failure.record) {
            tracing::warn!(pickup = self.config.name, %error, "cannot record the failure");
        }
        self.failures.insert(failure.record.unit.clone(), failure);
    }

    pub(super) fn forgive(&mut self, unit: &UnitPath) -> bool {
        for waiter in &mut self.waiters {
            waiter.report.failed.remove(unit);
        }
        if self.failures.remove(unit).is_none() {
            return false;
        }
        self.forgiven.insert(unit.clone());
        self.record_forgiven();
        true
    }

    /// Tells the journal which failures are over; what it does not take is told again.
    pub(super) fn record_forgiven(&mut self) {
        while let Some(unit) = self.forgiven.pop_first() {
            if self.failures.contains_key(&unit) {
                continue;
            }
            if let Err(error) = self.shared.journal().clear_quarantine(&self.config.name, Some(&unit)) {
                tracing::warn!(pickup = self.config.name, %error, "cannot record yet that the failure is over");
                self.forgiven.insert(unit);
                return;
            }
        }
    }

    pub(super) fn is_quarantined(&self, change: &Change) -> bool {
        let digest = change.content.as_ref().map(Content::digest);
        self.failures.get(&change.path).is_some_and(|failure| {
            // A touch asks for it again.
            failure.record.digest == digest && !failure.is_due && change.kind != ChangeKind::Touched
        })
    }

    pub(super) fn is_refused_already(&self, change: &Change) -> bool {
        let refused = self.unrouted.get(&change.path);
        refused.is_some_and(|refused| change.content.as_ref().is_some_and(|content| refused.is_same(content)))
    }

    pub(super) fn retry_due(&mut self, now: Instant) {
        let due: Vec<UnitPath> = self
            .failures
            .iter()
            .filter(|(_, failure)| failure.retry.is_some_and(|at| at <= now))
            .map(|(unit, _)| unit.clone())
            .collect();
        for unit in due {
            self.rearm(now, &unit);
        }
    }

    fn rearm(&mut self, now: Instant, unit: &UnitPath) {
        if let Some(failure) = self.failures.get_mut(unit) {
            failure.retry = None;
            failure.is_due = true;
            let live = self.live.digest(unit);
            if live.is_some() && live == failure.record.digest {
                // What is live was asked for once more, after a touch or a drift; nothing differs but that.
                self.touched.insert(unit.clone());
            }
            self.since.entry(unit.clone()).or_insert(now);
            self.gathering.note(now, unit.clone(), Noted::Complete);
        }
    }

    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.failures.values().filter_map(|failure| failure.retry).min()
    }

    /// Re-arms what failed at or below `unit`, or all of it.
    pub(super) fn retry(&mut self, now: Instant, unit: Option<&Path>) -> usize {
        let wanted = |failed: &UnitPath| unit.is_none_or(|unit| self.is_at(failed, unit));
        let units: Vec<UnitPath> = self.failures.keys().filter(|failed| wanted(failed)).cloned().collect();
        for unit in &units {
            if let Some(failure) = self.failures.get_mut(unit) {
                failure.record.attempts = 0;
            }
            self.rearm(now, unit);
        }
        self.owed.rearm(now);
        // The lane has it, and may be past what it was asked for.
        self.is_rearmed = self.is_busy;
        self.pause_until = None;
        units.len()
    }

    /// Whether `path`, as a user typed it, names `unit`: below the pickup directory, or absolute.
    fn is_at(&self, unit: &UnitPath, path: &Path) -> bool {
        if path.is_absolute() {
            return self.roots.iter().any(|root| root.path.join(unit.as_path()).starts_with(path));
        }
        UnitPath::new(path).is_some_and(|path| unit.starts_with(&path))
    }
}
