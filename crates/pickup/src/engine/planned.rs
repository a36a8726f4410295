//! What a plan says: what would be done, in which order, and what would wait.

use serde::{Deserialize, Serialize};

use super::progress::Progress;
use super::status::Noted;
use crate::capture::Digest;
use crate::change::{Change, ChangeKind, Content};
use crate::path::UnitPath;
use crate::plan::Refusal;
use crate::source::git::Revision;

/// How a plan is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// Plan as if removals that are paused, or would be, were confirmed. Default: no.
    pub confirm_removals: bool,
}

/// What would be done for one pickup if nothing changed until then. Nothing of it was carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    /// The pickup.
    pub name: String,
    /// The generation that is live.
    pub generation: Option<u64>,
    /// The generation it is held at, if it is: then everything else waits.
    pub held: Option<u64>,
    /// What would be deployed, in this order.
    pub change_sets: Vec<PlannedChangeSet>,
    /// What would not be, and what it waits for.
    pub waiting: Vec<PlannedWait>,
    /// What is there and left alone, and why.
    pub refused: Vec<Noted>,
    /// Deployments that a crash cut off: each is finished or taken back before anything else begins.
    pub interrupted: Vec<Interrupted>,
    /// Which commit it is about, if it is a git entry.
    pub git: Option<PlannedCommit>,
    /// What would keep it from being done, such as a directory or a remote that is not to be had.
    pub trouble: Option<String>,
    /// What the plan does not know, a sentence each.
    pub unknown: Vec<String>,
}

/// One change set: what becomes one generation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedChangeSet {
    /// The generation it would become, unless something else is deployed before.
    pub generation: u64,
    /// The commit it comes from, if it comes from one.
    pub revision: Option<Revision>,
    /// Its transactions, in this order.
    pub groups: Vec<PlannedGroup>,
    /// What some deployer does not take although another does.
    pub refusals: Vec<PlannedRefusal>,
}

/// What goes live whole or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedGroup {
    /// The units, and what happened to each.
    pub changes: Vec<PlannedChange>,
    /// What is carried out, in this order.
    pub steps: Vec<PlannedStep>,
    /// Why it would fail, as far as a deployer's `check` tells.
    pub objection: Option<Objection>,
}

/// A changed unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedChange {
    /// Its path below the pickup directory; empty for a whole tree.
    pub unit: UnitPath,
    /// What happened to it.
    pub change: ChangeKind,
    /// How many files it has; 0 if it is removed.
    pub files: usize,
    /// How many bytes these have.
    pub size: u64,
    /// The identity of its content, if there is content.
    pub digest: Option<Digest>,
    /// What is live before, if anything is.
    pub previous: Option<Digest>,
}

/// One deployer's work on one unit, or in [`Scope::Pickup`](crate::deploy::Scope::Pickup) on the whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// The name in `deploy_to`.
    pub deployer: String,
    /// The unit; empty where the deployer is given the whole pickup.
    pub unit: UnitPath,
    /// Whether it is taken away instead of put there.
    pub is_removal: bool,
}

/// What a deployer objects to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objection {
    /// The deployer.
    pub deployer: String,
    /// The error, as it would stand in the history.
    pub cause: String,
    /// What the deployer said besides.
    pub output: String,
}

/// A unit that a deployer does not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedRefusal {
    /// The unit.
    pub unit: UnitPath,
    /// The deployer.
    pub deployer: String,
    /// Why not.
    pub reason: String,
}

/// Something that would not be deployed now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedWait {
    /// A path below the pickup directory; empty for all of it.
    pub path: UnitPath,
    /// What it waits for in a word, for programs.
    pub wait: Wait,
    /// The reason, as a sentence without a full stop.
    pub reason: String,
}

/// What something waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    /// Its writer, or the rest of its bytes.
    Incomplete,
    /// To stand still for long enough.
    Young,
    /// New content, a retry by itself or one by hand, after it failed.
    Quarantined,
    /// A release of the hold.
    Held,
    /// Somebody to confirm so many removals.
    Unconfirmed,
    /// A deployer that takes it: none does.
    Unaccepted,
    /// Git, which is at work in the clone.
    Git,
    /// The end of its deployment, which is on its way.
    Deploying,
}

impl Wait {
    /// The word users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Young => "young",
            Self::Quarantined => "quarantined",
            Self::Held => "held",
            Self::Unconfirmed => "unconfirmed",
            Self::Unaccepted => "unaccepted",
            Self::Git => "git",
            Self::Deploying => "deploying",
        }
    }
}

/// A deployment that a crash cut off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupted {
    /// Its generation.
    pub generation: u64,
    /// How many transactions would be taken back: what was live before them is live again.
    pub taken_back: usize,
    /// How many are live, and would be finished.
    pub finished: usize,
}

/// The commit that a plan is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedCommit {
    /// The commit that would be live; `None` if there is none, or it is not known.
    pub commit: Option<Revision>,
    /// The commit that is live.
    pub live: Option<Revision>,
    /// Whether the commit has to be fetched first.
    pub needs_fetch: bool,
    /// Where the remote of a clone is, if the clone is not there yet. It would be checked out first, and what it changes
    /// is not part of the plan.
    pub remote_at: Option<String>,
}

impl PlanReport {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            generation: None,
            held: None,
            change_sets: Vec::new(),
            waiting: Vec::new(),
            refused: Vec::new(),
            interrupted: Vec::new(),
            git: None,
            trouble: None,
            unknown: Vec::new(),
        }
    }

    /// Of an entry that cannot run.
    pub(super) fn broken(name: &str, trouble: impl Into<String>) -> Self {
        Self { trouble: Some(trouble.into()), ..Self::new(name) }
    }

    /// Whether everything that is there could be deployed, as far as can be told. What waits for a writer, a hold or a
    /// confirmation is no failure; what failed before and is quarantined is one.
    pub fn is_success(&self) -> bool {
        let groups = self.change_sets.iter().flat_map(|change_set| &change_set.groups);
        let is_quarantined = self.waiting.iter().any(|waiting| waiting.wait == Wait::Quarantined);
        self.trouble.is_none() && !is_quarantined && groups.into_iter().all(|group| group.objection.is_none())
    }

    /// Whether there is nothing to be done, and nothing waits.
    pub fn is_idle(&self) -> bool {
        self.trouble.is_none()
            && self.change_sets.is_empty()
            && self.waiting.is_empty()
            && self.interrupted.is_empty()
            && self.git.as_ref().is_none_or(|git| git.remote_at.is_none())
    }

    pub(super) fn wait(&mut self, path: &UnitPath, wait: Wait, reason: impl Into<String>) {
        self.waiting.push(PlannedWait { path: path.clone(), wait, reason: reason.into() });
    }
}

impl PlannedChange {
    fn new(change: &Change) -> Self {
        let content = change.content.as_ref();
        Self {
            unit: change.path.clone(),
            change: change.kind,
            files: content.map_or(0, |content| content.files().count()),
            size: content.map_or(0, Content::size),
            digest: content.map(Content::digest),
            previous: change.previous,
        }
    }
}

impl From<Progress> for PlannedGroup {
    fn from(progress: Progress) -> Self {
        let steps = progress.group.steps.iter().map(|step| PlannedStep {
            deployer: step.deployer.to_string(),
            unit: step.unit.path.clone(),
            is_removal: step.is_removal(),
        });
        Self {
            changes: progress.group.changes.iter().map(PlannedChange::new).collect(),
            steps: steps.collect(),
            objection: progress.failure.map(|failure| Objection {
                deployer: failure.deployer,
                cause: failure.cause,
                output: failure.output,
            }),
        }
    }
}

impl From<Refusal> for PlannedRefusal {
    fn from(Refusal { unit, deployer, reason }: Refusal) -> Self {
        Self { unit, deployer, reason }
    }
}
