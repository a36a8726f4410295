//! What the journal promises.
#![expect(clippy::disallowed_methods, reason = "a journal is a file")]

mod crash;
mod model;
mod opening;
mod replay;

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::history::{Deployment, Outcome};
use super::*;
use crate::capture::CapturedFile;
use crate::change::{Change, ChangeKind, TreeFile};

fn open(state_dir: &Path) -> Journal {
    Journal::open(state_dir, None, 0).unwrap().0
}

fn path(text: &str) -> UnitPath {
    UnitPath::new(text).unwrap()
}

fn captured(state_dir: &Path, text: &str, mode: u32) -> CapturedFile {
    let digest = Digest(*blake3::hash(text.as_bytes()).as_bytes());
    let name = digest.to_string();
    let stored = state_dir.join("store").join(&name[..2]).join(name);
    CapturedFile::at(stored, digest, text.len() as u64, mode)
}

fn file(state_dir: &Path, text: &str) -> Content {
    Content::File(captured(state_dir, text, 0o644))
}

fn tree(state_dir: &Path, files: &[(&str, &str)]) -> Content {
    let entry = |(at, text): &(&str, &str)| TreeFile { path: path(at), file: captured(state_dir, text, 0o755) };
    Content::Tree(files.iter().map(entry).collect())
}

/// A change to `content`, or a removal.
fn change(at: &str, content: Option<Content>) -> Change {
    let kind = if content.is_some() { ChangeKind::Added } else { ChangeKind::Removed };
    Change { path: path(at), kind, content, previous: None }
}

fn step(deployer: &str, generation: u64, change: &Change) -> IntendedStep<'static> {
    let unit = Unit {
        pickup: "app".to_owned(),
        path: change.path.clone(),
        change: change.kind,
        content: change.content.clone(),
        previous: change.previous,
        generation,
        changes: Arc::new([change.clone()]),
        revision: None,
    };
    IntendedStep {
        deployer: deployer.to_owned().into(),
        config_digest: "c1".into(),
        unit: Cow::Owned(unit),
        old: None,
        staged: None,
    }
}

/// One group for each change, each for the deployer `copy`.
fn intent(generation: u64, changes: &[Change]) -> Intent<'static> {
    let group = |change| IntendedGroup { steps: vec![step("copy", generation, change)], is_staged: false };
    Intent {
        pickup: "app".to_owned(),
        generation,
        origin: Origin::Change,
        revision: None,
        groups: changes.iter().map(group).collect(),
    }
}

/// A unit that failed once with `copy`, for good.
fn failed(unit: &str) -> Quarantined {
    Quarantined {
        unit: path(unit),
        digest: None,
        deployer: "copy".to_owned(),
        attempts: 1,
        retry_at: None,
        cause: "no".to_owned(),
        is_transient: false,
    }
}

/// The commit whose id consists of this digit.
fn revision(digit: char) -> Revision {
    Revision {
        commit: digit.to_string().repeat(40),
        branch: Some("main".to_owned()),
        author: "A".to_owned(),
        subject: format!("change {digit}"),
        committed_at: 7,
        previous: None,
    }
}

fn with_revision(intent: Intent<'static>, digit: char) -> Intent<'static> {
    Intent { revision: Some(Arc::new(revision(digit))), ..intent }
}

fn followed(root: usize, digit: char) -> Followed {
    Followed { root, origin: "https://h/x main".to_owned(), revision: revision(digit) }
}

/// The same, of deployers that stage nothing that would have to be known of.
fn staged_before(mut intent: Intent<'static>) -> Intent<'static> {
    let staged = all_staged(&intent);
    for StagedStep { group, step, receipt } in staged {
        intent.groups[group].steps[step].staged = receipt.map(Cow::Owned);
        intent.groups[group].is_staged = true;
    }
    intent
}

/// The staged receipts of all steps.
fn all_staged(intent: &Intent<'_>) -> Vec<StagedStep> {
    let steps = |(group, of): (usize, &IntendedGroup<'_>)| {
        (0..of.steps.len()).map(move |step| StagedStep { group, step, receipt: Some(json!({ "staged": step })) })
    };
    intent.groups.iter().enumerate().flat_map(steps).collect()
}

/// The live receipts of all steps: the generation where something is live.
fn all_committed(intent: &Intent<'_>) -> Vec<CommittedGroup> {
    let live = |(step, of): (usize, &IntendedStep<'_>)| LiveChange {
        step,
        receipt: of.unit.content.is_some().then(|| json!({ "generation": intent.generation })),
    };
    let group = |(group, of): (usize, &IntendedGroup<'_>)| CommittedGroup {
        group,
        live: of.steps.iter().enumerate().map(live).collect(),
    };
    intent.groups.iter().enumerate().map(group).collect()
}

/// Everything from the intent to the end, at the time `now`.
fn deploy(journal: &mut Journal, intent: &Intent<'_>, now: i64) -> Result<DeploymentId> {
    let id = journal.intend(intent, now)?;
    journal.staged(id, &all_staged(intent))?;
    journal.committed(id, &all_committed(intent), now)?;
    journal.retired(id, &(0..intent.groups.len()).collect::<Vec<_>>())?;
    journal.finish(id, now)?;
    Ok(id)
}

/// Everything from the intent to the end of a deployment that fails.
fn fail(journal: &mut Journal, intent: &Intent<'_>, now: i64) -> DeploymentId {
    let id = journal.intend(intent, now).unwrap();
    for group in 0..intent.groups.len() {
        journal.reverted(id, group, "no", "some output", now).unwrap();
    }
    journal.finish(id, now).unwrap();
    id
}

/// A state directory as a process that was killed now leaves it; its files can be opened elsewhere.
fn killed(state_dir: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["journal.db", "journal.db-wal"] {
        std::fs::copy(state_dir.join(name), copy.path().join(name)).unwrap();
    }
    copy
}
