//! Stage 5 of 8: a change set and routes in, ordered steps out.
//!
//! Pure. A plan is a list of transaction groups; what no deployer takes is listed with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::capture::{CapturedFile, Digest};
use crate::change::live::Live;
use crate::change::{Change, ChangeKind, Content, TreeFile};
use crate::path::UnitPath;
use crate::source::git::Revision;

#[cfg(test)]
mod tests;

/// What one call of a deployer is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// One unit at a time.
    #[default]
    Unit,
    /// The whole pickup at once: the unit's path is empty, its content is the tree of everything that is to be live,
    /// and [`Unit::changes`] says what changed.
    Pickup,
}

/// Whether a deployer takes a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Accepted,
    /// It does not, for this reason; the other deployers of the pickup are asked all the same.
    Refused(String),
}

/// One unit of work for a deployer.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// The name of the pickup.
    pub pickup: String,
    /// The path below the pickup directory; empty for the whole of it.
    pub path: UnitPath,
    /// What happened to it.
    pub change: ChangeKind,
    /// What it consists of; `None` exactly when it is removed.
    pub content: Option<Content>,
    /// The digest that was live before, if any was.
    pub previous: Option<Digest>,
    /// The generation this becomes part of, counted from 1 for each pickup.
    pub generation: u64,
    /// The changes this unit stands for: itself, or in [`Scope::Pickup`] all of the change set.
    pub changes: Arc<[Change]>,
    /// The commit it comes from, if it comes from one.
    pub revision: Option<Arc<Revision>>,
}

impl Unit {
    /// The identity of the content, if there is content.
    pub fn digest(&self) -> Option<Digest> {
        self.content.as_ref().map(Content::digest)
    }

    /// The captured file, if the unit is one file and is not removed.
    pub fn file(&self) -> Option<&CapturedFile> {
        match &self.content {
            Some(Content::File(file)) => Some(file),
            Some(Content::Tree(_)) | None => None,
        }
    }
}

/// One deployer of the pickup, in the order of `deploy_to`.
pub(crate) struct Route<'a> {
    pub deployer: &'a str,
    pub scope: Scope,
    pub accepts: &'a dyn Fn(&Unit) -> Verdict,
}

/// One deployer's work on one unit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Step {
    /// All steps to a deployer share its name.
    pub deployer: Arc<str>,
    pub unit: Unit,
}

impl Step {
    /// Whether the step takes something away instead of putting it there.
    pub(crate) fn is_removal(&self) -> bool {
        self.unit.content.is_none()
    }
}

/// What goes live whole or not at all.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Group {
    /// The changes that are acknowledged when the group is committed.
    pub changes: Arc<[Change]>,
    /// In the order they are carried out.
    pub steps: Vec<Step>,
}

/// A unit that a deployer did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub unit: UnitPath,
    pub deployer: String,
    pub reason: String,
}

/// What is to be done, in order, and what is not.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    pub groups: Vec<Group>,
    pub refusals: Vec<Refusal>,
}

/// What a change set becomes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aim<'a> {
    pub pickup: &'a str,
    pub generation: u64,
    /// The commit it comes from, if it comes from one.
    pub revision: Option<&'a Arc<Revision>>,
}

/// Plans one change set.
///
/// Each unit is a group of its own, unless the change set is a commit, or a deployer takes the pickup as a whole: then
/// everything in it is one group. A deployer of the latter sort is given `live` with all changes applied.
pub(crate) fn plan(aim: Aim<'_>, changes: Vec<Change>, live: &Live, routes: &[Route<'_>]) -> Plan {
    let mut plan = Plan::default();
    let routes: Vec<(&Route<'_>, Arc<str>)> = routes.iter().map(|route| (route, route.deployer.into())).collect();
    let as_a_whole = aim.revision.is_some() || routes.iter().any(|(route, _)| route.scope == Scope::Pickup);
    let (ordered, clearing) = in_order(changes);
    if ordered.is_empty() {
        return plan;
    }
    if !as_a_whole {
        for change in ordered {
            let changes: Arc<[Change]> = Arc::new([change]);
            let mut steps = Vec::new();
            for (route, name) in &routes {
                let unit = unit_of(aim, &changes[0], changes.clone());
                plan.refusals.extend(take(route, name, unit, &mut steps));
            }
            plan.groups.push(Group { changes, steps });
        }
        return plan;
    }
    let changes: Arc<[Change]> = ordered.into();
    let whole = Content::Tree(flatten(apply(live, &changes)));
    let (mut steps, mut puts, mut removals) = (Vec::new(), Vec::new(), Vec::new());
    for (route, name) in &routes {
        match route.scope {
            Scope::Pickup => {
                let unit = Unit {
                    pickup: aim.pickup.into(),
                    path: UnitPath::root(),
                    change: ChangeKind::Modified,
                    content: Some(whole.clone()),
                    previous: None,
                    generation: aim.generation,
                    changes: changes.clone(),
                    revision: aim.revision.cloned(),
                };
                plan.refusals.extend(take(route, name, unit, &mut puts));
            }
            Scope::Unit => {
                for (at, change) in changes.iter().enumerate() {
                    let unit = unit_of(aim, change, Arc::new([change.clone()]));
                    let steps = match &change.content {
                        None if at < clearing => &mut steps,
                        Some(_) => &mut puts,
                        None => &mut removals,
                    };
                    plan.refusals.extend(take(route, name, unit, steps));
                }
            }
        }
    }
    steps.append(&mut puts);
    steps.append(&mut removals);
    plan.groups.push(Group { changes, steps });
    plan
}

/// Additions and updates by name, then removals in descending order, so that a directory goes after what is in it.
/// First of all go the removals that make room: of a file where a directory is to be, or the other way round. The number
/// says how many those are.
fn in_order(changes: Vec<Change>) -> (Vec<Change>, usize) {
    let (mut puts, removals): (Vec<_>, Vec<_>) = changes.into_iter().partition(|change| change.content.is_some());
    puts.sort_by(|one, other| one.path.cmp(&other.path));
    if removals.is_empty() {
        return (puts, 0);
    }
    let wanted: BTreeSet<&UnitPath> = puts.iter().map(|change| &change.path).collect();
    let directories: BTreeSet<UnitPath> = puts.iter().flat_map(|change| above(&change.path)).collect();
    let (mut ordered, mut removals): (Vec<_>, Vec<_>) = removals.into_iter().partition(|removal| {
        directories.contains(&removal.path) || above(&removal.path).any(|directory| wanted.contains(&directory))
    });
    for removals in [&mut ordered, &mut removals] {
        removals.sort_by(|one, other| other.path.cmp(&one.path));
    }
    let clearing = ordered.len();
    ordered.append(&mut puts);
    ordered.append(&mut removals);
    (ordered, clearing)
}

/// The directories on the way to `path`.
fn above(path: &UnitPath) -> impl Iterator<Item = UnitPath> {
    std::iter::successors(path.parent(), UnitPath::parent).filter(|directory| !directory.is_root())
}

fn unit_of(aim: Aim<'_>, change: &Change, changes: Arc<[Change]>) -> Unit {
    Unit {
        pickup: aim.pickup.into(),
        path: change.path.clone(),
        change: change.kind,
        content: change.content.clone(),
        previous: change.previous,
        generation: aim.generation,
        changes,
        revision: aim.revision.cloned(),
    }
}

/// A removal is never refused: who took the unit has to take it away again.
fn take(route: &Route<'_>, name: &Arc<str>, unit: Unit, steps: &mut Vec<Step>) -> Option<Refusal> {
    let verdict = if unit.content.is_some() { (route.accepts)(&unit) } else { Verdict::Accepted };
    match verdict {
        Verdict::Accepted => {
            steps.push(Step { deployer: name.clone(), unit });
            None
        }
        Verdict::Refused(reason) => Some(Refusal { unit: unit.path, deployer: route.deployer.into(), reason }),
    }
}

/// What is live once the changes are.
fn apply(live: &Live, changes: &[Change]) -> BTreeMap<UnitPath, Content> {
    let mut after = live.contents();
    for change in changes {
        match &change.content {
            Some(content) => after.insert(change.path.clone(), content.clone()),
            None => after.remove(&change.path),
        };
    }
    after
}

/// Every file of every unit, as one tree.
fn flatten(units: BTreeMap<UnitPath, Content>) -> Arc<[TreeFile]> {
    let mut files = Vec::new();
    for (path, content) in units {
        match content {
            Content::File(file) => files.push(TreeFile { path, file }),
            Content::Tree(tree) => files.extend(tree.iter().map(|entry| TreeFile {
                path: if path.is_root() { entry.path.clone() } else { path.join(entry.path.as_path()) },
                file: entry.file.clone(),
            })),
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    files.into()
}
