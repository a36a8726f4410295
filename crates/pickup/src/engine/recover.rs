//! After a crash: what was intended and not committed is taken back, what was committed is finished.

use std::collections::BTreeSet;

use serde_json::Value;

use super::owed::{Lingering, Owing};
use super::shared::{Bound, Shared};
use crate::change::ChangeKind;
use crate::change::live::Live;
use crate::deploy::{Observed, Unit};
use crate::error::{Error, Result};
use crate::journal::{GroupState, Journal, LiveReceipt, OpenDeployment, OpenGroup, OpenStep};
use crate::path::UnitPath;
use crate::plan::Step;

/// Why a group is reverted at start.
const CAUSE: &str = "the engine stopped in the middle of it";
/// How many receipts are in memory at once while all are observed.
const OBSERVED_AT_ONCE: usize = 256;

/// Finishes or takes back every deployment of `pickup` that a crash cut off; newest first, so that each revert finds
/// what it left. Gives the units of which nobody knows what is live: they are to be deployed again. `enders` are the
/// deployers of the pickup, and former ones that left something.
pub(super) async fn finish_open(
    shared: &Shared,
    pickup: &str,
    enders: &[Bound],
    owing: &mut Owing,
) -> Result<BTreeSet<UnitPath>> {
    let mut stuck = BTreeSet::new();
    let open: Vec<OpenDeployment> =
        shared.journal().open_deployments()?.into_iter().filter(|open| open.pickup == pickup).collect();
    owing.lingering.clear();
    for deployment in open.into_iter().rev() {
        tracing::warn!(
            pickup,
            generation = deployment.generation,
            "a deployment was cut off; it is finished or taken back"
        );
        let lingering = Lingering::new(deployment.id, deployment.units(), shared.now());
        let is_covered = owing.lingering.iter().any(|newer| newer.covers(&lingering));
        let ended = if is_covered {
            // A newer one lies over it that could not be ended.
            Ended { stuck: unclear(&deployment), is_over: false }
        } else {
            end(shared, pickup, enders, &deployment, false).await?
        };
        stuck.extend(ended.stuck);
        if !ended.is_over {
            // In the order they were begun.
            owing.lingering.insert(0, lingering);
        }
    }
    Ok(stuck)
}

/// The units of a deployment of which nobody knows what is live.
fn unclear(deployment: &OpenDeployment) -> BTreeSet<UnitPath> {
    let is_unclear = |state| matches!(state, GroupState::Intended | GroupState::Staged | GroupState::Stuck);
    let steps = deployment.groups.iter().filter(|group| is_unclear(group.state)).flat_map(|group| &group.steps);
    steps.filter(|step| !step.is_superseded).map(|step| step.unit.path.clone()).collect()
}

/// What became of a deployment that was to be ended.
pub(super) struct Ended {
    /// Units of which nobody knows what is live.
    pub stuck: BTreeSet<UnitPath>,
    /// Whether nothing is left to do, or it was the last try.
    pub is_over: bool,
}

/// Finishes or takes back what is left of `deployment`. After the last try it is over, whatever lies about.
pub(super) async fn end(
    shared: &Shared,
    pickup: &str,
    enders: &[Bound],
    deployment: &OpenDeployment,
    is_last: bool,
) -> Result<Ended> {
    let mut ended = Ended { stuck: BTreeSet::new(), is_over: true };
    for (at, group) in deployment.groups.iter().enumerate().rev() {
        let id = deployment.id;
        match group.state {
            GroupState::Intended | GroupState::Staged | GroupState::Stuck => {
                let TakenBack { errors, unclear, is_clean } = take_back(shared, pickup, enders, group).await;
                let (now, mut journal) = (shared.now_ms(), shared.journal());
                ended.is_over &= errors.is_empty() && is_clean;
                ended.stuck.extend(unclear);
                if !errors.is_empty() {
                    tracing::error!(pickup, ?errors, "a deployment that was cut off cannot be taken back in full");
                    journal.stuck(id, at, CAUSE, &errors, now)?;
                } else if group.state != GroupState::Stuck && (is_clean || is_last) {
                    journal.reverted(id, at, CAUSE, "", now)?;
                }
            }
            GroupState::Committed => {
                let is_retired = retire(shared, pickup, enders, group).await;
                ended.is_over &= is_retired;
                if is_retired || is_last {
                    shared.journal().retired(id, &[at])?;
                }
            }
            // Where staging failed, what came of it is not known.
            GroupState::Reverted => ended.is_over &= sweep_all(shared, pickup, enders, group).await,
            GroupState::Retired => {}
        }
    }
    if !ended.is_over && is_last {
        let generation = deployment.generation;
        tracing::warn!(pickup, generation, "what this deployment left lying about is not tried to be removed any more");
        ended.is_over = true;
    }
    if ended.is_over {
        shared.journal().finish(deployment.id, shared.now_ms())?;
        shared.sweep_scratch(pickup, deployment.generation);
    }
    Ok(ended)
}

/// How far a group was taken back.
struct TakenBack {
    /// Why it is not known what is live, and of which units.
    errors: Vec<String>,
    unclear: Vec<UnitPath>,
    /// Whether nothing may lie beside it.
    is_clean: bool,
}

/// What a step of a deployer that is gone from the configuration ends with.
fn unknown(step: &OpenStep) -> Error {
    Error::deploy(format!("find deployer `{}`: it is not configured any more", step.deployer))
}

async fn take_back(shared: &Shared, pickup: &str, enders: &[Bound], group: &OpenGroup) -> TakenBack {
    let mut taken = TakenBack { errors: Vec::new(), unclear: Vec::new(), is_clean: true };
    for step in group.steps.iter().rev() {
        if step.is_superseded {
            taken.is_clean &= sweep(shared, pickup, enders, step).await;
            continue;
        }
        let result = match enders.iter().find(|bound| bound.name == step.deployer) {
            Some(bound) => take_back_step(shared, pickup, bound, step).await,
            None => Err(unknown(step)),
        };
        match result {
            Ok(is_clean) => taken.is_clean &= is_clean,
            Err(error) => {
                taken.errors.push(format!("{}: {error}", step.deployer));
                taken.unclear.push(step.unit.path.clone());
            }
        }
    }
    taken
}

/// Takes one step back; gives whether nothing of it may lie beside what is live.
async fn take_back_step(shared: &Shared, pickup: &str, bound: &Bound, step: &OpenStep) -> Result<bool> {
    let cx = shared.context_to_end(pickup, step.unit.generation, bound);
    let old = step.old.as_ref();
    match (&step.staged, old) {
        (Some(staged), old) => bound.deployer.revert(&cx, &step.unit, staged, old).await?,
        (None, Some(old)) if step.unit.content.is_none() => {
            let planned = Step { deployer: step.deployer.as_str().into(), unit: step.unit.clone() };
            put_back(shared, pickup, bound, &planned, old).await?;
            // An earlier try may have left something.
            let swept = bound.deployer.sweep(&cx, &step.unit, None, Some(old)).await;
            return Ok(is_taken_back(pickup, step, swept.err()));
        }
        // The receipt was not written, so nothing was activated, but something may lie beside the old version.
        // Staging once more gives the same receipt, and that can be reverted.
        (None, old) if step.unit.content.is_some() => match bound.deployer.stage(&cx, &step.unit, old).await {
            Ok(staged) => {
                let reverted = bound.deployer.revert(&cx, &step.unit, &staged, old).await;
                return Ok(is_taken_back(pickup, step, reverted.err()));
            }
            Err(error) => return Ok(is_taken_back(pickup, step, Some(error))),
        },
        (None, _) => {}
    }
    Ok(true)
}

fn is_taken_back(pickup: &str, step: &OpenStep, error: Option<Error>) -> bool {
    if let Some(error) = &error {
        tracing::debug!(pickup, unit = %step.unit.path, %error, "cannot take back what may have been staged");
    }
    error.is_none()
}

async fn retire(shared: &Shared, pickup: &str, enders: &[Bound], group: &OpenGroup) -> bool {
    let mut is_retired = true;
    for step in &group.steps {
        if step.is_superseded {
            is_retired &= sweep(shared, pickup, enders, step).await;
            continue;
        }
        let Some(staged) = &step.staged else { continue };
        let result = match enders.iter().find(|bound| bound.name == step.deployer) {
            Some(bound) => {
                let cx = shared.context_to_end(pickup, step.unit.generation, bound);
                bound.deployer.retire(&cx, &step.unit, staged, step.old.as_ref()).await
            }
            None => Err(unknown(step)),
        };
        if let Err(error) = result {
            tracing::warn!(pickup, unit = %step.unit.path, %error, "cannot let go of the old version");
            is_retired = false;
        }
    }
    is_retired
}

async fn sweep_all(shared: &Shared, pickup: &str, enders: &[Bound], group: &OpenGroup) -> bool {
    let mut is_swept = true;
    for step in &group.steps {
        is_swept &= sweep(shared, pickup, enders, step).await;
    }
    is_swept
}

/// Removes what is left of a step that nothing else can be done about; gives whether nothing is.
async fn sweep(shared: &Shared, pickup: &str, enders: &[Bound], step: &OpenStep) -> bool {
    let result = match enders.iter().find(|bound| bound.name == step.deployer) {
        Some(bound) => {
            let cx = shared.context_to_end(pickup, step.unit.generation, bound);
            bound.deployer.sweep(&cx, &step.unit, step.staged.as_ref(), step.old.as_ref()).await
        }
        None => Err(unknown(step)),
    };
    if let Err(error) = &result {
        tracing::warn!(pickup, unit = %step.unit.path, %error, "cannot remove what lies about");
    }
    result.is_ok()
}

/// Undoes a removal: what was live is staged and activated again from the content store.
pub(super) async fn put_back(shared: &Shared, pickup: &str, bound: &Bound, step: &Step, old: &Value) -> Result<()> {
    let cx = shared.context_to_end(pickup, step.unit.generation, bound);
    if bound.deployer.observe(&cx, &old.to_string()).await? == Observed::Alive {
        return Ok(());
    }
    let content = shared.journal().live_content(pickup, &step.deployer, &step.unit.path)?;
    let content = content.ok_or_else(|| Error::deploy(format!("find the former content of {}", step.unit.path)))?;
    let unit = Unit { change: ChangeKind::Added, content: Some(content), ..step.unit.clone() };
    let staged = bound.deployer.stage(&cx, &unit, None).await?;
    let live = bound.deployer.activate(&cx, &unit, &staged, None).await?;
    bound.deployer.retire(&cx, &unit, &staged, None).await?;
    shared.journal().replace_receipt(pickup, &step.deployer, &step.unit.path, &live)
}

/// What a look at everything that should be live found.
pub(super) struct Drift {
    pub unit: UnitPath,
    pub deployer: String,
    pub found: String,
}

/// Observes every live receipt of `pickup`.
pub(super) async fn observe_all(
    shared: &Shared,
    reader: &Journal,
    pickup: &str,
    deployers: &[Bound],
) -> Result<Vec<Drift>> {
    let mut drifts = Vec::new();
    let mut rows = reader.live_after(pickup, None, OBSERVED_AT_ONCE)?;
    while let Some(last) = rows.last() {
        let next = reader.live_after(pickup, Some((&last.deployer, &last.unit)), OBSERVED_AT_ONCE)?;
        for rows in rows.chunk_by(|one, other| one.deployer == other.deployer) {
            let Some(bound) = deployers.iter().find(|bound| bound.name == rows[0].deployer) else { continue };
            let observed = observe(shared, pickup, bound, rows).await;
            drifts.extend(rows.iter().zip(observed).filter_map(|(row, observed)| drift(pickup, row, observed)));
        }
        rows = next;
    }
    Ok(drifts)
}

/// What became of `rows`, which are all of one deployer: of all at once where it can, else of one after the other.
async fn observe(shared: &Shared, pickup: &str, bound: &Bound, rows: &[LiveReceipt]) -> Vec<Result<Observed>> {
    let receipts: Vec<&str> = rows.iter().map(|row| row.receipt.as_str()).collect();
    let newest = rows.iter().map(|row| row.generation).max().unwrap_or_default();
    let cx = shared.context(pickup, newest, bound);
    // Where it fails as a whole, each one says what is wrong with it.
    if let Ok(Some(observed)) = bound.deployer.observe_many(&cx, &receipts).await
        && observed.len() == rows.len()
    {
        return observed;
    }
    let mut observed = Vec::with_capacity(rows.len());
    for row in rows {
        let cx = shared.context(pickup, row.generation, bound);
        observed.push(bound.deployer.observe(&cx, &row.receipt).await);
    }
    observed
}

/// How what is live differs from what should be, if it does.
fn drift(pickup: &str, row: &LiveReceipt, observed: Result<Observed>) -> Option<Drift> {
    let found = match observed {
        Ok(Observed::Alive) => return None,
        Ok(Observed::Drifted(found)) => found,
        Ok(Observed::Gone) => "it is gone".to_owned(),
        Err(error) => {
            tracing::warn!(pickup, unit = %row.unit, %error, "cannot tell whether it is still live");
            return None;
        }
    };
    Some(Drift { unit: row.unit.clone(), deployer: row.deployer.clone(), found })
}

/// What a start reads of the records: on the lane, while the pickup takes its first look.
pub(super) struct Loaded {
    /// The newest generation of which anything is live.
    pub generation: Option<u64>,
    pub live: Live,
    /// What is live and has to be deployed once more, because some deployer has not got it, or has it by another
    /// configuration.
    pub stale: BTreeSet<UnitPath>,
    /// What a deployer that was left out of `deploy_to` for a while still has, although it is gone everywhere else: live
    /// after all, until it is removed there, too.
    pub left_behind: Vec<UnitPath>,
}

/// Reads what is live of `pickup`.
pub(super) fn load(shared: &Shared, reader: &Journal, pickup: &str, deployers: &[Bound]) -> Result<Loaded> {
    let generation = reader.live_generation(pickup)?;
    let units = generation.map(|generation| reader.units_at(pickup, generation)).transpose()?.unwrap_or_default();
    let (mut whole, mut marks) = (Mark::default(), vec![Mark::default(); units.len()]);
    let mut left = Vec::new();
    let (mut deployer, mut next) = (String::new(), 0);
    reader.each_live(pickup, |row| {
        let Some(bound) = deployers.iter().find(|bound| bound.name == row.deployer) else { return };
        if deployer != row.deployer {
            (deployer, next) = (row.deployer.to_owned(), 0);
        }
        // Both are in the order of these bytes.
        next += units[next..].iter().take_while(|(unit, _)| row.compare(unit).is_lt()).count();
        let live = units.get(next).filter(|(unit, _)| row.compare(unit).is_eq());
        let is_whole = row.is_root();
        if live.is_none() && row.is_told() && !is_whole {
            left.extend(row.unit().map(|unit| (deployer.clone(), unit)));
        }
        let is_latest = match live {
            Some((_, kept)) => row.holds(kept),
            // A deployer that takes the pickup as a whole has a part in every generation.
            None => Some(row.generation) == generation,
        };
        let is_configured = bound.config_digest == row.config_digest;
        let marked = live.and_then(|_| marks.get_mut(next)).into_iter().chain(is_whole.then_some(&mut whole));
        for mark in marked {
            // It was left out of `deploy_to` for a while.
            mark.is_outdated |= !is_latest;
            mark.is_current |= is_latest && is_configured;
        }
    })?;
    let is_whole_current = whole.is_current && !whole.is_outdated;
    let is_stale = |mark: &Mark| mark.is_outdated || whole.is_outdated || !(mark.is_current || is_whole_current);
    let stale =
        units.iter().zip(&marks).filter(|(_, mark)| is_stale(mark)).map(|((unit, _), _)| unit.clone()).collect();
    let mut live = Live::of(shared.store.place(), units);
    let mut left_behind = Vec::new();
    for (deployer, unit) in left {
        if let Some(content) = reader.live_content(pickup, &deployer, &unit)? {
            live.insert(unit.clone(), content);
            left_behind.push(unit);
        }
    }
    Ok(Loaded { generation, live, stale, left_behind })
}

/// What the deployers' records say of a unit.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    /// A deployer has what is live, by its present configuration.
    is_current: bool,
    /// A deployer has something else.
    is_outdated: bool,
}
