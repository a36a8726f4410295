//! One group of a change set on its way through a transaction, and what became of it.

use std::sync::Arc;

use serde_json::Value;

use crate::change::Change;
use crate::error::Error;
use crate::path::UnitPath;
use crate::plan::Group;

/// What became of one group.
#[derive(Debug)]
pub(super) struct Outcome {
    pub changes: Arc<[Change]>,
    pub result: GroupResult,
}

/// The names of some deployers.
pub(super) type Deployers = Arc<[Arc<str>]>;

#[derive(Debug)]
pub(super) enum GroupResult {
    /// Live and recorded; the deployers that took it.
    Applied(Deployers),
    /// Taken back: what was live before is live again.
    RolledBack { deployer: String, cause: String, output: String, is_transient: bool },
    /// Not taken back in full. `is_transient` if whatever keeps it from being taken back may pass.
    Stuck { deployer: String, cause: String, undo_errors: Vec<String>, is_transient: bool },
    /// No deployer took it.
    Refused,
}

/// One group on its way.
pub(super) struct Progress {
    pub group: Group,
    /// The receipts of what is live before, by step.
    pub old: Vec<Option<Value>>,
    pub staged: Vec<Option<Value>>,
    pub live: Vec<Option<Value>>,
    /// How many steps were begun with activate or remove.
    pub begun: usize,
    pub failure: Option<Failure>,
    pub undo_errors: Vec<String>,
    /// One of them does not pass by itself.
    pub is_undo_final: bool,
    /// What a stage that failed left could not be swept.
    pub is_unswept: bool,
    pub is_committed: bool,
}

pub(super) struct Failure {
    pub deployer: String,
    pub cause: String,
    pub output: String,
    is_transient: bool,
}

impl Progress {
    pub(super) fn new(group: Group, old: Vec<Option<Value>>) -> Self {
        let none = || vec![None; group.steps.len()];
        let (staged, live) = (none(), none());
        let undo_errors = Vec::new();
        Self {
            group,
            old,
            staged,
            live,
            begun: 0,
            failure: None,
            undo_errors,
            is_undo_final: false,
            is_unswept: false,
            is_committed: false,
        }
    }

    pub(super) fn units(&self) -> impl Iterator<Item = UnitPath> {
        self.group.steps.iter().map(|step| step.unit.path.clone())
    }

    pub(super) fn fail(&mut self, at: usize, error: &Error, output: String) {
        let deployer = self.group.steps[at].deployer.to_string();
        let cause = format!("{deployer}: {error}");
        self.failure = Some(Failure { deployer, cause, output, is_transient: error.is_transient() });
    }

    /// What became of it. `deployers` are those of the group before, mostly the same.
    pub(super) fn outcome(self, deployers: &mut Deployers) -> Outcome {
        let result = match self.failure {
            None => {
                let mut own: Vec<&Arc<str>> = Vec::new();
                for step in &self.group.steps {
                    if !own.contains(&&step.deployer) {
                        own.push(&step.deployer);
                    }
                }
                if !own.iter().copied().eq(deployers.iter()) {
                    *deployers = own.into_iter().cloned().collect();
                }
                GroupResult::Applied(deployers.clone())
            }
            Some(failure) if self.undo_errors.is_empty() => GroupResult::RolledBack {
                deployer: failure.deployer,
                cause: failure.cause,
                output: failure.output,
                is_transient: failure.is_transient,
            },
            Some(failure) => GroupResult::Stuck {
                deployer: failure.deployer,
                cause: failure.cause,
                undo_errors: self.undo_errors,
                is_transient: !self.is_undo_final,
            },
        };
        Outcome { changes: self.group.changes, result }
    }
}
