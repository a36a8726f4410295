//! The beginning of a pickup, and making an earlier generation live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use tokio::sync::oneshot;

use super::known::{self, Reading};
use super::message::Message;
use super::pickup::{Failure, Pickup};
use super::progress::{GroupResult, Outcome};
use super::recover::Loaded;
use crate::capture::Digest;
use crate::change::gather::Noted;
use crate::change::{Content, compare};
use crate::config::UnitKind;
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventKind;
use crate::journal::{Origin, Outcome as Recorded};
use crate::path::UnitPath;
use crate::source::Hint;
use crate::source::git::Revision;

impl Pickup {
    /// Loads what the journal knows, starts recovery, and takes the first look.
    pub(super) fn begin(&mut self) -> Result<()> {
        let now = self.shared.now();
        let (looks, looked) = channel();
        self.spawn_recovery(Some(looked));
        self.follow_remote();
        self.load_followed()?;
        self.reading = Reading::begin(&self.shared, &self.config.name, self.roots.len())?;
        self.find_roots();
        self.puts_off = self.may_put_off();
        self.rescan_all(now);
        self.puts_off = false;
        drop::<Sender<()>>(looks);
        self.reading.end(&mut self.known)?;
        self.loaded = self.known.len();
        let files = self.known.len() + self.unseen.iter().filter(|place| !self.known.contains_key(*place)).count();
        let directories = self.roots.iter().map(|root| root.directories).sum();
        let polling = self.roots.iter().find_map(|root| root.polling.clone());
        tracing::info!(pickup = self.config.name, files, directories, polling, "watching");
        self.shared.publish(&self.config.name, EventKind::Watching { files, directories, polling });
        Ok(())
    }

    /// Whether what is new may be looked at after the watches stand, bit by bit: not where several files belong together,
    /// or what is there is compared with what was live before.
    fn may_put_off(&self) -> bool {
        let is_each_alone = self.config.unit == UnitKind::File && self.is_by_unit();
        is_each_alone && !self.config.delete_after_pickup && !self.is_in_repository()
    }

    /// Loads the files that were seen before, as far as their content `is_stored`.
    pub(super) fn load_known(&mut self, is_stored: impl Fn(&Digest) -> bool) -> Result<()> {
        self.known = known::read(&self.shared.journal(), &self.config.name, self.roots.len(), is_stored)?;
        self.loaded = self.known.len();
        Ok(())
    }

    /// Recovery is over: what the journal says is live, is.
    pub(super) fn recovered(
        &mut self,
        now: Instant,
        loaded: Option<(Loaded, Vec<Digest>)>,
        drifted: BTreeSet<UnitPath>,
    ) -> Result<()> {
        let Some((loaded, stored)) = loaded else {
            return Err(Error::new(ErrorKind::Journal, "tell what is live: nothing was read"));
        };
        self.capture_lost(now, &stored);
        self.load_live(now, loaded, &drifted)?;
        if self.config.delete_after_pickup {
            // What a crash left behind after it went live.
            for unit in self.live.keys().cloned().collect::<Vec<_>>() {
                self.delete_if_live(&unit);
            }
        }
        self.note_differences(now);
        self.note_lost_units(now);
        if self.gathering.len() == 0 {
            self.commit_is_live();
        }
        Ok(())
    }

    /// Takes over what is live and what failed, and notes what has to be deployed once more.
    pub(super) fn load_live(&mut self, now: Instant, loaded: Loaded, drifted: &BTreeSet<UnitPath>) -> Result<()> {
        let Loaded { generation, live, mut stale, left_behind } = loaded;
        (self.generation, self.live) = (generation, live);
        let name = &self.config.name;
        {
            let journal = self.shared.journal();
            self.held = journal.held(name)?;
            self.last_success = journal.last_success(name)?;
            self.failures = journal
                .quarantined(name)?
                .into_iter()
                .map(|record| {
                    // Whatever stopped us may have changed the cause: what was to be retried is retried now.
                    let is_due = record.retry_at.is_some();
                    (record.unit.clone(), Failure { record, retry: None, retries: 0, is_due })
                })
                .collect();
        }
        for unit in left_behind {
            // Live with some: should it be wanted again, the others need it, although nothing differs.
            self.touched.insert(unit.clone());
            self.gathering.note(now, unit, Noted::Complete);
        }
        if drifted.contains(&UnitPath::root()) {
            // A deployer that takes the pickup as a whole: all of it is to be deployed again.
            stale.extend(self.live.keys().cloned());
        }
        for unit in stale.iter().chain(drifted) {
            // Live, but not with these deployers, or not as deployed.
            self.touched.insert(unit.clone());
            self.gathering.note(now, unit.clone(), Noted::Complete);
        }
        for unit in self.failures.keys().cloned().collect::<Vec<_>>() {
            self.gathering.note(now, unit, Noted::Complete);
        }
        self.is_recovered = true;
        Ok(())
    }

    /// What is known and not in the content store any more is captured anew, before anything is deployed.
    fn capture_lost(&mut self, now: Instant, stored: &[Digest]) {
        let is_lost = |digest: &Digest| stored.binary_search(digest).is_err() && !self.shared.store.contains(digest);
        let lost = self.known.iter().filter(|(_, known)| is_lost(&known.digest));
        for place in lost.map(|(place, _)| place.clone()).collect::<Vec<_>>() {
            self.known.remove(&place);
            self.look(now, place, Hint::Scan);
        }
    }

    /// Makes generation `to` live again, or the one before the present one, and holds there.
    pub(super) fn roll_back(&mut self, to: Option<u64>, reply: oneshot::Sender<Result<u64>>) {
        if self.is_busy {
            // One at a time; it is taken up when the lane is free.
            self.deferred.push(Message::Rollback { to, reply });
            return;
        }
        match self.prepare_rollback(to) {
            Err(error) => drop(reply.send(Err(error))),
            Ok((to, target)) => {
                let units: BTreeSet<UnitPath> = self.live.keys().chain(target.keys()).cloned().collect();
                let changes = compare(&units, &BTreeSet::new(), |unit| target.get(unit).cloned(), &self.live);
                if changes.is_empty() {
                    drop(reply.send(self.hold(to).map(|()| to)));
                } else {
                    let revision = self.revision_of_generation(to);
                    self.start(changes, Origin::Rollback { to }, Some(reply), revision);
                }
            }
        }
    }

    fn prepare_rollback(&self, to: Option<u64>) -> Result<(u64, BTreeMap<UnitPath, Content>)> {
        let name = &self.config.name;
        let present = self.held.or(self.generation);
        let present =
            present.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("roll back {name}: nothing is live")))?;
        let journal = self.shared.journal();
        let history = journal.history(Some(name), usize::MAX)?;
        let live = |deployment: &&crate::journal::Deployment| {
            matches!(deployment.outcome, Recorded::Applied | Recorded::Partial { .. })
        };
        let mut generations = history.iter().filter(live).map(|deployment| (deployment.generation, &deployment.origin));
        let found = match to {
            Some(to) => generations.find(|(generation, _)| *generation == to),
            None => generations
                .find(|(generation, origin)| *generation < present && !matches!(origin, Origin::Rollback { .. })),
        };
        let Some((to, _)) = found else {
            let wanted = to.map_or("an earlier generation".to_owned(), |to| format!("generation {to}"));
            let action = format!("roll back {name}: {wanted} is not in its history (see `pickupd history {name}`)");
            return Err(Error::new(ErrorKind::NotFound, action));
        };
        let target = journal.contents_at(name, to)?;
        for content in target.values() {
            self.shared.check_stored(content)?;
        }
        Ok((to, target))
    }

    /// The commit that was live in a generation, with what is live now before it.
    fn revision_of_generation(&self, generation: u64) -> Option<Arc<Revision>> {
        let recorded = self.shared.journal().revision_at(&self.config.name, generation);
        let previous = self.live_revision.as_ref().map(|live| live.commit.clone());
        match recorded {
            Ok(revision) => revision.map(|revision| Arc::new(Revision { previous, ..revision })),
            Err(error) => {
                tracing::warn!(pickup = self.config.name, %error, "cannot tell which commit it was");
                None
            }
        }
    }

    pub(super) fn answer_rollback(&mut self, to: u64, outcomes: &[Outcome], reply: oneshot::Sender<Result<u64>>) {
        let failure = outcomes.iter().find_map(|outcome| match &outcome.result {
            GroupResult::RolledBack { cause, .. } | GroupResult::Stuck { cause, .. } => Some(cause.clone()),
            GroupResult::Applied(_) | GroupResult::Refused => None,
        });
        let result = match failure {
            Some(cause) => Err(Error::deploy(format!("roll back {}: {cause}", self.config.name))),
            None => self.hold(to).map(|()| to),
        };
        // Whoever asked is gone: nobody to tell.
        let _ = reply.send(result);
    }

    fn hold(&mut self, generation: u64) -> Result<()> {
        self.shared.journal().hold(&self.config.name, Some(generation))?;
        self.held = Some(generation);
        tracing::info!(pickup = self.config.name, generation, "held at an earlier generation until `release`");
        self.shared.publish(&self.config.name, EventKind::Held { generation });
        Ok(())
    }

    /// Lifts a hold: what is on disk is deployed again.
    pub(super) fn release(&mut self, now: Instant) -> Result<()> {
        if self.held.is_none() {
            return Err(Error::new(ErrorKind::NotFound, format!("release {}: it is not held", self.config.name)));
        }
        self.shared.journal().hold(&self.config.name, None)?;
        self.held = None;
        tracing::info!(pickup = self.config.name, "released");
        self.shared.publish(&self.config.name, EventKind::Released);
        self.note_differences(now);
        self.rescan_all(now);
        Ok(())
    }
}
