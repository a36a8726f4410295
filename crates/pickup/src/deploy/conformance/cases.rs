//! What is done in each case, and what is to be after it.

use super::Case;
use super::bench::{Bench, Deed, Step, Which};
use super::life::{Phase, Waiting};
use super::report::Failure;

mod trouble;

use Step::{Crashes, Does};

pub(super) const CHECK: Step = Does(Phase::Check);
pub(super) const STAGE: Step = Does(Phase::Stage);
pub(super) const ACTIVATE: Step = Does(Phase::Activate);
pub(super) const VERIFY: Step = Does(Phase::Verify);
pub(super) const REVERT: Step = Does(Phase::Revert);
pub(super) const RETIRE: Step = Does(Phase::Retire);
pub(super) const REMOVE: Step = Does(Phase::Remove);

type Outcome = Result<(), Failure>;

/// Carries out a case in a place that is empty.
pub(super) async fn run(case: Case, bench: &mut Bench<'_>) -> Outcome {
    match case {
        Case::Deploys => deploys(bench).await,
        Case::CheckHasNoEffect => check_has_no_effect(bench).await,
        Case::StagedIsUnseen => staged_is_unseen(bench).await,
        Case::StageRepeats => stage_repeats(bench).await,
        Case::ReceiptsSurvive => receipts_survive(bench).await,
        Case::ActivateRepeats => goes_live(bench, &[CHECK, STAGE, ACTIVATE, ACTIVATE, VERIFY, RETIRE]).await,
        Case::RetireRepeats => goes_live(bench, &[CHECK, STAGE, ACTIVATE, VERIFY, VERIFY, RETIRE, RETIRE]).await,
        Case::RevertsStaged => goes_back(bench, &[CHECK, STAGE, REVERT, REVERT]).await,
        Case::RevertsActivated => goes_back(bench, &[CHECK, STAGE, ACTIVATE, REVERT, REVERT]).await,
        Case::RevertsVerified => goes_back(bench, &[CHECK, STAGE, ACTIVATE, VERIFY, REVERT, REVERT]).await,
        Case::RevertsTouched => reverts_touched(bench).await,
        Case::RevertsTheFirst => reverts_the_first(bench).await,
        Case::FailureLeavesTheOld => failure_leaves_the_old(bench).await,
        Case::RemoveRepeats => remove_repeats(bench).await,
        Case::RemovedIsNoticed => removed_is_noticed(bench).await,
        Case::TakenAwayIsNoticed => taken_away_is_noticed(bench).await,
        Case::CrashStaged => goes_back(bench, &[CHECK, STAGE, Crashes, REVERT, Crashes, REVERT]).await,
        Case::CrashGoesOn => crash_goes_on(bench).await,
        Case::CrashActivated => goes_back(bench, &[CHECK, STAGE, ACTIVATE, Crashes, REVERT]).await,
        Case::CrashReverted => goes_back(bench, &[CHECK, STAGE, ACTIVATE, REVERT, Crashes, REVERT]).await,
        Case::CrashCommitted => goes_live(bench, &[CHECK, STAGE, ACTIVATE, VERIFY, Crashes, RETIRE]).await,
        Case::CrashRetired => goes_live(bench, &[CHECK, STAGE, ACTIVATE, VERIFY, RETIRE, Crashes, RETIRE]).await,
        Case::CrashRemoved => crash_removed(bench).await,
        Case::CancelledEnds => trouble::cancelled(bench, false).await,
        Case::CancelledReverts => trouble::cancelled(bench, true).await,
        Case::DroppedStage => trouble::dropped_stage(bench).await,
        Case::DroppedActivate => trouble::dropped_activate(bench).await,
        Case::DroppedRevert => trouble::dropped_revert(bench).await,
        Case::DroppedRemove => trouble::dropped_remove(bench).await,
    }
}

/// The old version is live, and the new one is about to be.
async fn old_and_new(bench: &mut Bench<'_>) -> Result<(Deed, Deed), Failure> {
    let old = bench.deployed(Which::Old, None).await?;
    let new = bench.deed(Which::New, Some(&old))?;
    Ok((old, new))
}

/// After these steps over the old version, the new one is live.
async fn goes_live(bench: &mut Bench<'_>, steps: &[Step]) -> Outcome {
    let (_, mut new) = old_and_new(bench).await?;
    bench.go(&mut new, steps).await?;
    bench.is_live(&new).await
}

/// After these steps over the old version, that one is live as if nothing had been; and the new one can be deployed.
async fn goes_back(bench: &mut Bench<'_>, steps: &[Step]) -> Outcome {
    let (old, mut new) = old_and_new(bench).await?;
    let before = bench.snapshot(false);
    bench.go(&mut new, steps).await?;
    bench.is_as_before(&before, false)?;
    bench.is_live(&old).await?;
    bench.deploys(Which::New, Some(&old)).await.map(drop)
}

async fn deploys(bench: &mut Bench<'_>) -> Outcome {
    bench.nothing_is_served().await?;
    let old = bench.deploys(Which::Old, None).await?;
    let new = bench.deploys(Which::New, Some(&old)).await?;
    // Somebody touched it.
    bench.deploys(Which::New, Some(&new)).await.map(drop)
}

async fn check_has_no_effect(bench: &mut Bench<'_>) -> Outcome {
    let mut first = bench.deed(Which::New, None)?;
    let before = bench.snapshot(true);
    bench.go(&mut first, &[CHECK]).await?;
    bench.is_as_before(&before, true)?;
    bench.nothing_is_served().await?;
    let (old, mut new) = old_and_new(bench).await?;
    let mut failing = bench.deed(Which::Failing, Some(&old))?;
    let before = bench.snapshot(false);
    bench.go(&mut new, &[CHECK]).await?;
    // Whatever it says to this one.
    let _judged = bench.tries(Phase::Check, &mut failing, Waiting::GoesOn).await;
    bench.is_as_before(&before, false)?;
    bench.is_live(&old).await
}

async fn staged_is_unseen(bench: &mut Bench<'_>) -> Outcome {
    let mut first = bench.deed(Which::Old, None)?;
    bench.go(&mut first, &[CHECK, STAGE]).await?;
    bench.nothing_is_served().await?;
    bench.go(&mut first, &[ACTIVATE, VERIFY, RETIRE]).await?;
    let mut new = bench.deed(Which::New, Some(&first))?;
    bench.go(&mut new, &[CHECK, STAGE]).await?;
    bench.is_live(&first).await
}

async fn stage_repeats(bench: &mut Bench<'_>) -> Outcome {
    goes_back(bench, &[CHECK, STAGE, STAGE, REVERT]).await?;
    bench.renew().await?;
    goes_live(bench, &[CHECK, STAGE, STAGE, ACTIVATE, VERIFY, RETIRE]).await
}

async fn receipts_survive(bench: &mut Bench<'_>) -> Outcome {
    let old = bench.deployed(Which::Old, None).await?;
    bench.receipts_survive(&old)?;
    let new = bench.deployed(Which::New, Some(&old)).await?;
    bench.receipts_survive(&new)
}

async fn reverts_touched(bench: &mut Bench<'_>) -> Outcome {
    let old = bench.deployed(Which::Old, None).await?;
    let mut again = bench.deed(Which::Old, Some(&old))?;
    bench.go(&mut again, &[CHECK, STAGE, ACTIVATE, REVERT, REVERT]).await?;
    bench.is_live(&old).await?;
    bench.deploys(Which::New, Some(&old)).await.map(drop)
}

async fn reverts_the_first(bench: &mut Bench<'_>) -> Outcome {
    for steps in [&[CHECK, STAGE, REVERT, REVERT][..], &[CHECK, STAGE, ACTIVATE, REVERT, REVERT]] {
        let mut first = bench.deed(Which::New, None)?;
        bench.go(&mut first, steps).await?;
        bench.nothing_is_served().await?;
    }
    bench.deploys(Which::Old, None).await.map(drop)
}

async fn failure_leaves_the_old(bench: &mut Bench<'_>) -> Outcome {
    fails(bench, None).await?;
    bench.nothing_is_served().await?;
    let old = bench.deployed(Which::Old, None).await?;
    fails(bench, Some(&old)).await?;
    bench.is_live(&old).await?;
    bench.deploys(Which::New, Some(&old)).await.map(drop)
}

/// Deploys the failing version as the engine does it: up to where it fails, then back.
async fn fails(bench: &mut Bench<'_>, over: Option<&Deed>) -> Outcome {
    let mut failing = bench.deed(Which::Failing, over)?;
    for phase in [Phase::Check, Phase::Stage, Phase::Activate, Phase::Verify] {
        if let Some(Err(_)) = bench.tries(phase, &mut failing, Waiting::GoesOn).await {
            let undo: &[Step] = if failing.staged.is_some() { &[REVERT] } else { &[] };
            return bench.go(&mut failing, undo).await;
        }
    }
    Err(bench.broken("one of these phases to fail", "all of them succeeded".into()))
}

async fn remove_repeats(bench: &mut Bench<'_>) -> Outcome {
    let mut old = bench.deployed(Which::Old, None).await?;
    bench.go(&mut old, &[REMOVE]).await?;
    bench.nothing_is_served().await?;
    bench.go(&mut old, &[REMOVE]).await?;
    bench.nothing_is_served().await?;
    // As when the removal is taken back.
    bench.deploys(Which::Old, None).await.map(drop)
}

async fn removed_is_noticed(bench: &mut Bench<'_>) -> Outcome {
    let mut old = bench.deployed(Which::Old, None).await?;
    bench.go(&mut old, &[REMOVE]).await?;
    bench.is_not_alive(&old).await?;
    // It must not be looking that brings it back.
    bench.nothing_is_served().await
}

async fn taken_away_is_noticed(bench: &mut Bench<'_>) -> Outcome {
    let old = bench.deployed(Which::Old, None).await?;
    bench.take_away().await;
    bench.is_not_alive(&old).await?;
    bench.deploys(Which::Old, Some(&old)).await.map(drop)
}

async fn crash_goes_on(bench: &mut Bench<'_>) -> Outcome {
    let (old, mut new) = old_and_new(bench).await?;
    bench.go(&mut new, &[CHECK, STAGE, Crashes]).await?;
    match bench.tries(Phase::Activate, &mut new, Waiting::GoesOn).await {
        Some(Ok(())) => {
            bench.serves(&new).await?;
            bench.go(&mut new, &[VERIFY, RETIRE]).await?;
            bench.serves(&new).await
        }
        Some(Err(_)) | None => {
            bench.go(&mut new, &[REVERT]).await?;
            bench.is_live(&old).await
        }
    }
}

async fn crash_removed(bench: &mut Bench<'_>) -> Outcome {
    let mut old = bench.deployed(Which::Old, None).await?;
    bench.go(&mut old, &[Crashes, REMOVE]).await?;
    bench.nothing_is_served().await?;
    bench.go(&mut old, &[Crashes, REMOVE]).await?;
    bench.nothing_is_served().await?;
    bench.deploys(Which::New, None).await.map(drop)
}
