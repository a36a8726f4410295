//! Phases that are told to give up, or are dropped where they wait.

use super::{
    ACTIVATE, Bench, CHECK, Deed, Outcome, Phase, REMOVE, REVERT, STAGE, Step, VERIFY, Waiting, Which, old_and_new,
};

/// At how many points where it waits a phase is dropped.
const POLLS_MAX: usize = 12;

/// `stage`, `activate` and `verify`, each cancelled before it begins and once it waits. With `is_reverted`, what they
/// leave is taken back.
pub(super) async fn cancelled(bench: &mut Bench<'_>, is_reverted: bool) -> Outcome {
    for before in [true, false] {
        for phase in [Phase::Stage, Phase::Activate, Phase::Verify] {
            bench.renew().await?;
            let old = bench.deployed(Which::Old, None).await?;
            let which = if phase == Phase::Activate { bench.slow() } else { Which::New };
            let mut deed = bench.deed(which, Some(&old))?;
            match phase {
                Phase::Activate => bench.go(&mut deed, &[CHECK, STAGE]).await?,
                Phase::Verify => bench.go(&mut deed, &[CHECK, STAGE, ACTIVATE]).await?,
                _ => bench.go(&mut deed, &[CHECK]).await?,
            }
            bench.cancels(phase, &mut deed, before).await?;
            if is_reverted {
                taken_back(bench, &old, &mut deed).await?;
            }
        }
    }
    Ok(())
}

/// A revert, of a second stage where the first gave no receipt, makes the old version live.
async fn taken_back(bench: &mut Bench<'_>, old: &Deed, deed: &mut Deed) -> Outcome {
    if deed.staged.is_none() {
        bench.serves(old).await?;
        bench.go(deed, &[STAGE]).await?;
    }
    bench.go(deed, &[REVERT]).await?;
    bench.is_live(old).await
}

/// Drops a phase after its first poll, its second, and so on, each in a place of its own and after `steps` over the old
/// version; `then` looks at what is left.
async fn dropped(
    bench: &mut Bench<'_>,
    phase: Phase,
    steps: &[Step],
    then: impl AsyncFn(&mut Bench<'_>, &Deed, &mut Deed) -> Outcome,
) -> Outcome {
    for polls in 1..=POLLS_MAX {
        bench.renew().await?;
        let (old, mut new) = old_and_new(bench).await?;
        bench.go(&mut new, steps).await?;
        let ended = bench.tries(phase, &mut new, Waiting::IsDropped(polls)).await;
        then(bench, &old, &mut new).await?;
        if ended.is_some() {
            break;
        }
    }
    Ok(())
}

pub(super) async fn dropped_stage(bench: &mut Bench<'_>) -> Outcome {
    dropped(bench, Phase::Stage, &[CHECK], async |bench, old, new| {
        bench.serves(old).await?;
        bench.go(new, &[STAGE, REVERT]).await?;
        bench.is_live(old).await?;
        bench.deploys(Which::New, Some(old)).await.map(drop)
    })
    .await
}

pub(super) async fn dropped_activate(bench: &mut Bench<'_>) -> Outcome {
    dropped(bench, Phase::Activate, &[CHECK, STAGE], async |bench, old, new| {
        bench.go(new, &[REVERT]).await?;
        bench.is_live(old).await?;
        bench.deploys(Which::New, Some(old)).await.map(drop)
    })
    .await
}

pub(super) async fn dropped_revert(bench: &mut Bench<'_>) -> Outcome {
    dropped(bench, Phase::Revert, &[CHECK, STAGE, ACTIVATE, VERIFY], async |bench, old, new| {
        bench.go(new, &[REVERT]).await?;
        bench.is_live(old).await
    })
    .await
}

pub(super) async fn dropped_remove(bench: &mut Bench<'_>) -> Outcome {
    for polls in 1..=POLLS_MAX {
        bench.renew().await?;
        let mut old = bench.deployed(Which::Old, None).await?;
        let ended = bench.tries(Phase::Remove, &mut old, Waiting::IsDropped(polls)).await;
        bench.go(&mut old, &[REMOVE]).await?;
        bench.nothing_is_served().await?;
        if ended.is_some() {
            break;
        }
    }
    Ok(())
}
