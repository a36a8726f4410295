//! What can be told without a running engine: the journal's records, and what the configuration says about a path.

use std::path::Path;

use super::pickup::unit_of;
use super::status::{Failed, LastError, PickupStatus, State};
use super::why::{Explanation, Verdict, described, left_alone, times};
use crate::config::{Config, PickupConfig};
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Deployment, Journal};
use crate::path::UnitPath;
use crate::source::Place;
use crate::source::git::GitStatus;
use crate::source::ignore::Rules;

/// The records in a state directory, for reading while no engine runs.
pub struct Records(Box<Journal>);

impl Records {
    /// Opens the records in `state_dir`.
    ///
    /// # Errors
    /// There are none, or they cannot be read.
    pub fn open(state_dir: &Path) -> Result<Self> {
        let found = Journal::open_read_only(state_dir)?;
        let none = || Error::new(ErrorKind::NotFound, "find records of an earlier run in").at(state_dir);
        found.map(|journal| Self(Box::new(journal))).ok_or_else(none)
    }

    /// Deployments, newest first, `limit` at most.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn history(&self, name: Option<&str>, limit: usize) -> Result<Vec<Deployment>> {
        self.0.history(name, limit)
    }

    /// What was live when the last engine stopped, of `name` or of every pickup.
    ///
    /// # Errors
    /// The journal cannot be read, or no pickup has that name.
    pub fn status(&self, name: Option<&str>) -> Result<Vec<PickupStatus>> {
        let mut names = self.0.pickups()?;
        names.retain(|known| name.is_none_or(|name| name == known));
        if let (Some(name), true) = (name, names.is_empty()) {
            return Err(Error::new(ErrorKind::NotFound, format!("find a pickup named `{name}` in the records")));
        }
        names.iter().map(|name| self.status_of(name)).collect()
    }

    fn status_of(&self, name: &str) -> Result<PickupStatus> {
        let mut status = PickupStatus::not_running(name, State::Stopped, "no daemon runs");
        status.generation = self.0.live_generation(name)?;
        status.held = self.0.held(name)?;
        if let Some(generation) = status.generation {
            status.units = self.0.contents_at(name, generation)?.len();
        }
        status.git = self.0.live_revision(name)?.map(GitStatus::recorded);
        let history = self.0.history(Some(name), 100)?;
        let applied = |deployment: &&Deployment| matches!(deployment.outcome, crate::journal::Outcome::Applied);
        status.last_success = history.iter().find(applied).and_then(|deployment| deployment.finished_at);
        let failed = history.iter().find_map(|deployment| Some((deployment.started_at, deployment.error()?)));
        let quarantined = self.0.quarantined(name)?.into_iter().map(|record| Failed {
            unit: record.unit,
            deployer: record.deployer,
            cause: record.cause,
            attempts: record.attempts,
            retry_at: record.retry_at,
        });
        status.failed = quarantined.take(100).collect();
        status.last_error = failed.map(|(at, cause)| LastError { at, cause: cause.to_string() });
        Ok(status)
    }

    /// Why `path` was, or was not, deployed, as far as `config` and the records tell: an answer from each pickup it
    /// belongs to. Relative paths are below a pickup directory.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn why(&self, config: &Config, path: &Path) -> Result<Vec<Explanation>> {
        let mut answers = Vec::new();
        for pickup in config.pickups.values() {
            for (root, directory) in pickup.pickup_from.iter().enumerate() {
                if let Some(below) = below(directory, path) {
                    answers.push(self.explain(pickup, &Place { root, path: below })?);
                }
            }
        }
        Ok(answers)
    }

    fn explain(&self, pickup: &PickupConfig, place: &Place) -> Result<Explanation> {
        let unit = unit_of(pickup.unit, &place.path);
        let (verdict, mut because) = self.judge(pickup, place, &unit)?;
        because.push("no daemon runs: this is what the configuration and the records say".to_owned());
        Ok(Explanation { pickup: pickup.name.clone(), path: place.path.clone(), unit, verdict, because })
    }

    fn judge(&self, pickup: &PickupConfig, place: &Place, unit: &UnitPath) -> Result<(Verdict, Vec<String>)> {
        let directory = &pickup.pickup_from[place.root];
        #[expect(clippy::disallowed_methods, reason = "an answer about a path begins with whether it is there")]
        let metadata = std::fs::symlink_metadata(directory.join(place.path.as_path()));
        let is_directory = metadata.as_ref().is_ok_and(std::fs::Metadata::is_dir);
        if let Some((verdict, because)) = left_alone(&rules(pickup, place, directory)?, place, is_directory) {
            return Ok((verdict, vec![because]));
        }
        let failed = self.0.quarantined(&pickup.name)?.into_iter().find(|record| record.unit == *unit);
        if let Some(failed) = failed {
            let sentence = format!("it failed {}, last with: {}", times(failed.attempts), failed.cause);
            return Ok((Verdict::Failed, vec![sentence]));
        }
        let live = match self.0.live_generation(&pickup.name)? {
            Some(generation) => self.0.contents_at(&pickup.name, generation)?.remove(unit),
            None => None,
        };
        let live = live.map(|content| format!("live is {}", described(&content)));
        let held = self.0.held(&pickup.name)?;
        Ok(match (metadata.is_ok(), live, held) {
            (_, live, Some(held)) => {
                let sentence = format!("changes are held back: generation {held} is live until `pickupd release`");
                (Verdict::Held, std::iter::once(sentence).chain(live).collect())
            }
            (false, Some(live), None) => (Verdict::Missing, vec!["there is no such file any more".to_owned(), live]),
            (false, None, None) => (Verdict::Missing, vec!["there is no such file".to_owned()]),
            (true, Some(live), None) => {
                let sentence = "it is live as it was when a daemon ran last; a later change waits for the next one";
                (Verdict::Live, vec![sentence.to_owned(), live])
            }
            (true, None, None) => (Verdict::Waiting, vec!["it is taken up when a daemon runs".to_owned()]),
        })
    }

    /// The names of the pickups that have records.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn pickups(&self) -> Result<Vec<String>> {
        self.0.pickups()
    }
}

/// `path` as seen from a pickup directory, if it lies there.
fn below(directory: &Path, path: &Path) -> Option<UnitPath> {
    if path.is_relative() {
        return UnitPath::new(path);
    }
    if let Ok(below) = path.strip_prefix(directory) {
        return UnitPath::new(below);
    }
    #[expect(clippy::disallowed_methods, reason = "a pickup directory may be a symlink, as a user's path may be")]
    let real = directory.canonicalize().ok()?;
    UnitPath::new(path.strip_prefix(real).ok()?)
}

/// The rules of an entry, with the `.pickupignore` files above `place`.
fn rules(pickup: &PickupConfig, place: &Place, directory: &Path) -> Result<Rules> {
    let mut rules = Rules::new(pickup)?;
    let mut above = place.path.parent();
    while let Some(at) = above {
        // What is wrong with such a file is said by the daemon.
        let _ = rules.load_pickupignore(place.root, &at, &directory.join(at.as_path()));
        above = at.parent();
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::change::{Change, ChangeKind};
    use crate::deploy::Unit;
    use std::borrow::Cow;

    use crate::journal::{CommittedGroup, IntendedGroup, IntendedStep, Intent, LiveChange, Origin, StagedStep};
    use crate::source::git::Revision;

    #[test]
    fn without_a_daemon_the_commit_that_is_live_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path(), None, 0).unwrap();
        let revision = Arc::new(Revision {
            commit: "a".repeat(40),
            branch: Some("main".into()),
            author: "A".into(),
            subject: "s".into(),
            committed_at: 1,
            previous: None,
        });
        let change =
            Change { path: UnitPath::root().join("x"), kind: ChangeKind::Removed, content: None, previous: None };
        let unit = Unit {
            pickup: "app".into(),
            path: change.path.clone(),
            change: change.kind,
            content: None,
            previous: None,
            generation: 1,
            changes: Arc::new([change]),
            revision: Some(revision.clone()),
        };
        let step = IntendedStep {
            deployer: "copy".into(),
            config_digest: "".into(),
            unit: Cow::Owned(unit),
            old: None,
            staged: None,
        };
        let intent = Intent {
            pickup: "app".into(),
            generation: 1,
            origin: Origin::Change,
            revision: Some(revision.clone()),
            groups: vec![IntendedGroup { steps: vec![step], is_staged: false }],
        };
        let id = journal.intend(&intent, 0).unwrap();
        journal.staged(id, &[StagedStep { group: 0, step: 0, receipt: None }]).unwrap();
        let live = vec![LiveChange { step: 0, receipt: None }];
        journal.committed(id, &[CommittedGroup { group: 0, live }], 0).unwrap();
        drop(journal);
        let status = Records::open(dir.path()).unwrap().status(Some("app")).unwrap().remove(0);
        let git = status.git.unwrap();
        assert_eq!((git.live, git.follows.as_str()), (Some(Revision::clone(&revision)), "main"));
    }
}
