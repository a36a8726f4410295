//! The beginning of a pickup, and making an earlier generation live.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::pickup::{Failure, Known, Message, Pickup};
use super::transaction::{GroupResult, Outcome};
use crate::change::gather::Noted;
use crate::change::{Content, compare};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventKind;
use crate::journal::{Origin, Outcome as Recorded};
use crate::path::UnitPath;
use crate::source::git::Revision;

impl Pickup {
    /// Loads what the journal knows, starts recovery, and takes the first look.
    pub(super) fn begin(&mut self) -> Result<()> {
        let now = self.shared.now();
        self.spawn_recovery();
        self.follow_remote();
        self.load_followed()?;
        self.load_known()?;
        self.rescan_all(now);
        let files = self.known.len();
        let directories = self.roots.iter().map(|root| root.directories).sum();
        let polling = self.roots.iter().find_map(|root| root.polling.clone());
        tracing::info!(pickup = self.config.name, files, directories, polling, "watching");
        self.shared.publish(&self.config.name, EventKind::Watching { files, directories, polling });
        Ok(())
    }

    /// Loads the files that were seen before.
    pub(super) fn load_known(&mut self) -> Result<()> {
        for file in self.shared.journal().known(&self.config.name)? {
            if file.place.root < self.roots.len() && self.shared.store.contains(&file.digest) {
                let known = Known { fingerprint: file.fingerprint, digest: file.digest, is_racy: false };
                self.known.insert(file.place, known);
            }
        }
        Ok(())
    }

    /// Recovery is over: what the journal says is live, is.
    pub(super) fn recovered(&mut self, now: Instant, drifted: BTreeSet<UnitPath>) -> Result<()> {
        self.load_live(now, &drifted)?;
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

    /// Loads what is live and what failed, and notes what has to be deployed once more.
    pub(super) fn load_live(&mut self, now: Instant, drifted: &BTreeSet<UnitPath>) -> Result<()> {
        let name = &self.config.name;
        {
            let journal = self.shared.journal();
            self.generation = journal.live_generation(name)?;
            self.held = journal.held(name)?;
            let recent = journal.history(Some(name), 100)?;
            let live = recent
                .iter()
                .find(|deployment| matches!(deployment.outcome, Recorded::Applied | Recorded::Partial { .. }));
            self.last_success = live.and_then(|deployment| deployment.finished_at);
            self.live = match self.generation {
                Some(generation) => journal.contents_at(name, generation)?,
                None => BTreeMap::new(),
            };
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
        let mut stale = self.stale_units()?;
        self.recall_left_behind(now)?;
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

    /// Units that some deployer has not got, or has by another configuration.
    fn stale_units(&self) -> Result<BTreeSet<UnitPath>> {
        let rows = self.shared.journal().live(&self.config.name)?;
        let (mut current, mut outdated) = (BTreeSet::new(), BTreeSet::new());
        for row in &rows {
            let Some(bound) = self.deployers.iter().find(|bound| bound.name == row.deployer) else { continue };
            let is_latest = match self.live.get(&row.unit) {
                Some(live) => row.digest == Some(live.digest()),
                // A deployer that takes the pickup as a whole has a part in every generation.
                None => Some(row.generation) == self.generation,
            };
            if !is_latest {
                // It was left out of `deploy_to` for a while.
                outdated.insert(&row.unit);
            } else if bound.config_digest == row.config_digest {
                current.insert(&row.unit);
            }
        }
        let root = UnitPath::root();
        let is_whole_current = current.contains(&root) && !outdated.contains(&root);
        let is_stale = |unit: &&UnitPath| {
            outdated.contains(unit) || outdated.contains(&root) || !(current.contains(unit) || is_whole_current)
        };
        Ok(self.live.keys().filter(is_stale).cloned().collect())
    }

    /// What a deployer that was left out of `deploy_to` for a while still has, although it is gone everywhere else: live
    /// after all, until it is removed there, too.
    fn recall_left_behind(&mut self, now: Instant) -> Result<()> {
        for row in self.shared.journal().live(&self.config.name)? {
            let is_bound = self.deployers.iter().any(|bound| bound.name == row.deployer);
            if let (true, false, Some(content)) = (is_bound, self.live.contains_key(&row.unit), row.content)
                && !row.unit.is_root()
            {
                self.gathering.note(now, row.unit.clone(), Noted::Complete);
                self.live.insert(row.unit, content);
            }
        }
        Ok(())
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
