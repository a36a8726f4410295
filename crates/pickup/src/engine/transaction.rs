//! One change set, from intent to commit: the transaction over the deployers.
//!
//! Everything is journalled before it is done, so that `recover` can finish or take back what a crash cut off. Whatever
//! fails is taken back in reverse order; what cannot be taken back is `Stuck`, and said so.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use super::owed::{Lingering, Owed, Owing};
use super::progress::{Deployers, GroupResult, Outcome, Progress};
use super::shared::{Bound, Shared};
use crate::deploy::verify::verify;
use crate::deploy::{Context, Unit};
use crate::error::{Error, Result};
use crate::journal::{
    CommittedGroup, DeploymentId, GroupState, IntendedGroup, IntendedStep, Intent, LiveChange, Origin, StagedStep,
};
use crate::path::UnitPath;
use crate::plan::{Group, Plan, Step};

/// How long commits may gather before they are written: one write for many small groups, a write each for slow ones.
const COMMIT_INTERVAL: Duration = Duration::from_millis(50);

/// From so many steps on, one sync of a whole file system is cheaper than one for each file.
const FLUSHED_STEPS: usize = 32;

/// Carries out plans of one pickup, one at a time.
pub(super) struct Transaction<'a> {
    pub shared: &'a Shared,
    pub pickup: &'a str,
    pub deployers: &'a [Bound],
    /// Those, and former ones that left something.
    pub enders: &'a [Bound],
    pub owed: &'a mut Owing,
    /// What went live before the journal failed.
    pub live: Vec<Outcome>,
    /// Whether the change set is so large that what it writes is put on disk together.
    pub is_flushed: bool,
    /// The contexts that were made first, of which all others are made.
    models: RefCell<Vec<Model<'a>>>,
}

/// A context for phases that may be given up, or for those that end something.
struct Model<'a> {
    deployer: &'a str,
    generation: u64,
    ends: bool,
    context: Context,
}

/// What is to be known of before: each deployer with its unit.
fn asked(groups: &[Group]) -> Vec<(&str, &UnitPath)> {
    let steps = groups.iter().flat_map(|group| &group.steps);
    steps.map(|step| (&*step.deployer, &step.unit.path)).collect()
}

fn outcomes_of(groups: impl IntoIterator<Item = Progress>) -> Vec<Outcome> {
    let mut deployers = Deployers::default();
    groups.into_iter().map(|progress| progress.outcome(&mut deployers)).collect()
}

impl<'a> Transaction<'a> {
    pub(super) fn new(shared: &'a Shared, pickup: &'a str, deployers: &'a [Bound], owed: &'a mut Owing) -> Self {
        Self {
            shared,
            pickup,
            deployers,
            enders: deployers,
            owed,
            live: Vec::new(),
            is_flushed: false,
            models: RefCell::default(),
        }
    }

    /// The same, with `enders`: its deployers, and former ones that left something.
    pub(super) fn ended_by(self, enders: &'a [Bound]) -> Self {
        Self { enders, ..self }
    }

    /// Carries out `plan` as `generation`.
    ///
    /// # Errors
    /// The journal cannot be written. Nothing of the plan is live then but what is in `live`.
    pub(super) async fn carry_out(&mut self, plan: Plan, generation: u64, origin: Origin) -> Result<Vec<Outcome>> {
        self.settle_debts()?;
        self.tend(&plan).await?;
        let (planned, refused): (Vec<Group>, Vec<Group>) =
            plan.groups.into_iter().partition(|group| !group.steps.is_empty());
        let mut outcomes: Vec<Outcome> =
            refused.into_iter().map(|group| Outcome { changes: group.changes, result: GroupResult::Refused }).collect();
        if planned.is_empty() {
            return Ok(outcomes);
        }
        self.models.take();
        self.is_flushed = planned.iter().map(|group| group.steps.len()).sum::<usize>() >= FLUSHED_STEPS;
        self.shared.journal().write_left_of(self.pickup, &asked(&planned))?;
        let mut groups = self.prepare(planned)?;
        // What leaves nothing behind need not be known of beforehand.
        let is_stageless = self.is_stageless(&groups);
        if is_stageless {
            self.check_and_stage(&mut groups).await;
        }
        let id = match self.intend(&groups, generation, origin, is_stageless) {
            Ok(id) => id,
            Err(error) => {
                self.own_up(generation);
                return Err(error);
            }
        };
        if !is_stageless {
            self.check_and_stage(&mut groups).await;
            if let Err(error) = self.record_staged(id, &groups) {
                self.give_up(id, &mut groups, &error).await;
                return Err(error);
            }
        }
        if let Err(error) = self.activate_all(id, &mut groups).await {
            self.live = outcomes_of(groups.into_iter().filter(|progress| progress.is_committed));
            return Err(error);
        }
        self.retire(id, &mut groups).await;
        outcomes.append(&mut outcomes_of(groups));
        Ok(outcomes)
    }

    fn is_stageless(&self, groups: &[Progress]) -> bool {
        let mut steps = groups.iter().flat_map(|progress| &progress.group.steps);
        steps.all(|step| self.bound(&step.deployer).is_ok_and(|bound| bound.deployer.is_stageless()))
    }

    async fn check_and_stage(&self, groups: &mut [Progress]) {
        for group in &mut *groups {
            self.check(group).await;
        }
        for group in &mut *groups {
            self.stage(group).await;
        }
        self.flush(groups).await;
    }

    /// Asks the deployers what they object to, as [`carry_out`](Self::carry_out) does first, and does no more.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(super) async fn rehearse(&self, groups: Vec<Group>) -> Result<Vec<Progress>> {
        let mut groups = self.prepare(groups)?;
        for group in &mut groups {
            self.check(group).await;
        }
        Ok(groups)
    }

    fn bound(&self, name: &str) -> Result<&'a Bound> {
        let known = self.deployers.iter().find(|bound| bound.name == name);
        known.ok_or_else(|| Error::deploy(format!("find a deployer named `{name}`")))
    }

    fn context(&self, unit: &Unit, deployer: &'a Bound) -> Context {
        self.context_like(unit, deployer, false)
    }

    /// For a phase that ends what another one began.
    fn context_to_end(&self, unit: &Unit, deployer: &'a Bound) -> Context {
        self.context_like(unit, deployer, true)
    }

    fn context_like(&self, unit: &Unit, deployer: &'a Bound, ends: bool) -> Context {
        let mut models = self.models.borrow_mut();
        let (name, generation) = (deployer.name.as_str(), unit.generation);
        let is_it =
            |model: &&mut Model<'_>| (model.generation, model.ends) == (generation, ends) && model.deployer == name;
        if let Some(model) = models.iter_mut().find(is_it) {
            return model.context.renewed(self.shared.now(), deployer.common.timeout);
        }
        let make = if ends { Shared::context_to_end } else { Shared::context };
        let context = make(self.shared, self.pickup, generation, deployer).flushed(self.is_flushed);
        models.push(Model { deployer: name, generation, ends, context: context.clone() });
        context
    }

    /// Puts on disk what the deployers of `groups` left to that; a deployer that cannot fails all of its groups.
    async fn flush(&self, groups: &mut [Progress]) {
        let unit = groups.first().and_then(|progress| progress.group.steps.first()).map(|step| step.unit.clone());
        let Some(unit) = unit.filter(|_| self.is_flushed) else { return };
        for bound in self.deployers {
            let Err(error) = bound.deployer.flush(&self.context(&unit, bound)).await else { continue };
            for progress in groups.iter_mut().filter(|progress| progress.failure.is_none()) {
                let of_this = progress.group.steps.iter().position(|step| *step.deployer == *bound.name);
                if let Some(at) = of_this {
                    progress.fail(at, &error, String::new());
                    self.undo(progress).await;
                }
            }
        }
    }

    fn prepare(&self, groups: Vec<Group>) -> Result<Vec<Progress>> {
        let mut old = self.shared.journal().receipts(self.pickup, &asked(&groups))?.into_iter();
        let progress = |group: Group| {
            let old = old.by_ref().take(group.steps.len()).collect();
            Progress::new(group, old)
        };
        Ok(groups.into_iter().map(progress).collect())
    }

    /// Writes down what is about to be done; with what is staged, if that is done already.
    fn intend<'p>(
        &'p self,
        groups: &'p [Progress],
        generation: u64,
        origin: Origin,
        is_staged: bool,
    ) -> Result<DeploymentId> {
        let step = |progress: &'p Progress, at: usize| -> Result<IntendedStep<'p>> {
            let Step { deployer, unit } = &progress.group.steps[at];
            Ok(IntendedStep {
                deployer: (&**deployer).into(),
                config_digest: (&self.bound(deployer)?.config_digest).into(),
                unit: Cow::Borrowed(unit),
                old: progress.old[at].as_ref().map(Cow::Borrowed),
                staged: progress.staged[at].as_ref().map(Cow::Borrowed),
            })
        };
        let group = |progress: &'p Progress| {
            let steps = (0..progress.group.steps.len()).map(|at| step(progress, at)).collect::<Result<_>>()?;
            Ok(IntendedGroup { steps, is_staged: is_staged && progress.failure.is_none() })
        };
        let groups: Vec<IntendedGroup<'p>> = groups.iter().map(group).collect::<Result<_>>()?;
        let first = groups.iter().flat_map(|group| &group.steps).next();
        let revision = first.and_then(|step| step.unit.revision.clone());
        let intent = Intent { pickup: self.pickup.into(), generation, origin, revision, groups };
        self.shared.journal().intend(&intent, self.shared.now_ms())
    }

    /// An intent that failed may have been written all the same: then it is ended like one that was cut off.
    fn own_up(&mut self, generation: u64) {
        let Ok(open) = self.shared.journal().open_deployments() else { return };
        let now = self.shared.now();
        for open in open.iter().filter(|open| open.pickup == self.pickup && open.generation == generation) {
            self.owed.lingering.push(Lingering::new(open.id, open.units(), now));
        }
    }

    async fn check(&self, progress: &mut Progress) {
        for at in 0..progress.group.steps.len() {
            let step = &progress.group.steps[at];
            let result = match self.bound(&step.deployer) {
                Ok(bound) => {
                    let cx = self.context(&step.unit, bound);
                    let result = bound.deployer.check(&cx, &step.unit, progress.old[at].as_ref()).await;
                    result.map_err(|error| (error, cx.take_output()))
                }
                Err(error) => Err((error, String::new())),
            };
            if let Err((error, output)) = result {
                return progress.fail(at, &error, output);
            }
        }
    }

    async fn stage(&self, progress: &mut Progress) {
        for at in 0..progress.group.steps.len() {
            if progress.failure.is_some() {
                break;
            }
            let step = &progress.group.steps[at];
            if step.is_removal() {
                continue;
            }
            let Ok(bound) = self.bound(&step.deployer) else { continue };
            let cx = self.context(&step.unit, bound);
            match bound.deployer.stage(&cx, &step.unit, progress.old[at].as_ref()).await {
                Ok(receipt) => progress.staged[at] = Some(receipt),
                Err(error) => {
                    self.shared.doubt_stored(&error);
                    // All of it may have been done, and only its result lost.
                    let cx_to_end = self.context_to_end(&step.unit, bound);
                    let swept = bound.deployer.sweep(&cx_to_end, &step.unit, None, progress.old[at].as_ref()).await;
                    if let Err(error) = swept {
                        tracing::warn!(pickup = self.pickup, unit = %step.unit.path, %error, "cannot remove yet what may lie about");
                        progress.is_unswept = true;
                    }
                    progress.fail(at, &error, cx.take_output());
                }
            }
        }
        if progress.failure.is_some() {
            self.undo(progress).await;
        }
    }

    fn record_staged(&self, id: DeploymentId, groups: &[Progress]) -> Result<()> {
        let mut steps = Vec::new();
        for (at, progress) in groups.iter().enumerate().filter(|(_, progress)| progress.failure.is_none()) {
            let staged = progress.staged.iter().enumerate();
            steps.extend(staged.map(|(step, receipt)| StagedStep { group: at, step, receipt: receipt.clone() }));
        }
        if steps.is_empty() { Ok(()) } else { self.shared.journal().staged(id, &steps) }
    }

    async fn activate_all(&mut self, id: DeploymentId, groups: &mut [Progress]) -> Result<()> {
        let mut written = 0;
        let mut last = self.shared.now();
        for at in 0..groups.len() {
            self.activate(&mut groups[at]).await;
            if self.shared.now() - last >= COMMIT_INTERVAL || at + 1 == groups.len() {
                self.flush(&mut groups[written..=at]).await;
                if let Err(error) = self.commit(id, &mut groups[..=at], written) {
                    self.give_up(id, groups, &error).await;
                    return Err(error);
                }
                written = at + 1;
                last = self.shared.now();
            }
        }
        Ok(())
    }

    async fn activate(&self, progress: &mut Progress) {
        for at in 0..progress.group.steps.len() {
            if progress.failure.is_some() {
                break;
            }
            progress.begun = at + 1;
            if let Err((error, output)) = self.activate_step(progress, at).await {
                progress.fail(at, &error, output);
            }
        }
        if progress.failure.is_some() && progress.begun > 0 {
            self.undo(progress).await;
        }
    }

    async fn activate_step(&self, progress: &mut Progress, at: usize) -> Result<(), (Error, String)> {
        let step = &progress.group.steps[at];
        let old = progress.old[at].as_ref();
        let bound = self.bound(&step.deployer).map_err(|error| (error, String::new()))?;
        let cx = self.context(&step.unit, bound);
        let with_output = |error| (error, cx.take_output());
        match (&progress.staged[at], old) {
            (Some(staged), old) => {
                let live = bound.deployer.activate(&cx, &step.unit, staged, old).await.map_err(with_output)?;
                let cx = self.context(&step.unit, bound);
                let verified = async {
                    bound.deployer.verify(&cx, &step.unit, &live).await?;
                    verify(&bound.common.verify, bound.common.verify_timeout, &cx, &step.unit).await
                };
                verified.await.map_err(|error| (error, cx.take_output()))?;
                progress.live[at] = Some(live);
            }
            (None, Some(old)) => bound.deployer.remove(&cx, &step.unit, old).await.map_err(with_output)?,
            // It was never live here: there is nothing to take away.
            (None, None) => {}
        }
        Ok(())
    }

    /// Takes back in reverse order what was staged, activated or removed.
    async fn undo(&self, progress: &mut Progress) {
        for at in (0..progress.group.steps.len()).rev() {
            let step = &progress.group.steps[at];
            let was_begun = at < progress.begun;
            let result = match self.bound(&step.deployer) {
                Err(error) => Err(error),
                Ok(bound) => match (&progress.staged[at], progress.old[at].as_ref()) {
                    (Some(staged), old) => {
                        let cx = self.context_to_end(&step.unit, bound);
                        bound.deployer.revert(&cx, &step.unit, staged, old).await
                    }
                    (None, Some(old)) if step.is_removal() && was_begun => {
                        super::recover::put_back(self.shared, self.pickup, bound, step, old).await
                    }
                    (None, _) => Ok(()),
                },
            };
            if let Err(error) = result {
                progress.undo_errors.push(format!("{}: {error}", step.deployer));
                progress.is_undo_final |= !error.is_transient();
            }
        }
    }

    /// Records what went live, and what failed, of the groups from `from` on.
    fn commit(&self, id: DeploymentId, groups: &mut [Progress], from: usize) -> Result<()> {
        let now = self.shared.now_ms();
        let mut committed = Vec::new();
        for (at, progress) in
            groups.iter_mut().enumerate().skip(from).filter(|(_, progress)| progress.failure.is_none())
        {
            let live = progress.live.iter_mut().map(Option::take).enumerate();
            let live = live.map(|(step, receipt)| LiveChange { step, receipt }).collect();
            committed.push(CommittedGroup { group: at, live });
        }
        if !committed.is_empty() {
            let mut journal = self.shared.journal();
            if let Err(error) = journal.committed(id, &committed, now) {
                // All of it may have been written all the same, and a commit is never taken back.
                let open = journal.open_deployment(id)?;
                let states = open.map(|open| open.groups.into_iter().map(|group| group.state).collect::<Vec<_>>());
                let is_written = |group: &CommittedGroup| {
                    states.as_ref().and_then(|states| states.get(group.group)) == Some(&GroupState::Committed)
                };
                if !committed.iter().all(is_written) {
                    return Err(error);
                }
            }
            drop(journal);
            for group in &committed {
                groups[group.group].is_committed = true;
            }
        }
        for (at, progress) in groups.iter().enumerate().skip(from) {
            let Some(failure) = &progress.failure else { continue };
            if progress.undo_errors.is_empty() {
                self.shared.journal().reverted(id, at, &failure.cause, &failure.output, now)?;
            } else {
                self.shared.journal().stuck(id, at, &failure.cause, &progress.undo_errors, now)?;
            }
        }
        Ok(())
    }

    /// The journal cannot be written: what is not committed is taken back, and the debt to say so is kept.
    async fn give_up(&mut self, id: DeploymentId, groups: &mut [Progress], error: &Error) {
        for (at, progress) in groups.iter_mut().enumerate().rev() {
            if progress.is_committed {
                continue;
            }
            if progress.failure.is_none() {
                self.undo(progress).await;
            }
            let cause = error.to_string();
            self.owed.unwritten.push(match progress.undo_errors.as_slice() {
                [] => Owed::Revert { id, group: at, cause },
                errors => Owed::Stick { id, group: at, cause, undo_errors: errors.to_vec() },
            });
        }
        self.retire(id, groups).await;
    }

    /// Lets go of the old versions. A failure here harms nobody: the new version is live and recorded. It is tried again,
    /// as it is with what could not be taken back.
    async fn retire(&mut self, id: DeploymentId, groups: &mut [Progress]) {
        let (mut retired, mut lingering) = (Vec::new(), BTreeSet::new());
        for (at, progress) in groups.iter().enumerate().filter(|(_, progress)| progress.is_committed).rev() {
            let mut is_retired = true;
            for (step, (staged, old)) in progress.group.steps.iter().zip(progress.staged.iter().zip(&progress.old)) {
                let (Ok(bound), Some(staged)) = (self.bound(&step.deployer), staged) else { continue };
                let cx = self.context_to_end(&step.unit, bound);
                if let Err(error) = bound.deployer.retire(&cx, &step.unit, staged, old.as_ref()).await {
                    tracing::warn!(pickup = self.pickup, unit = %step.unit.path, %error, "cannot let go of the old version yet");
                    is_retired = false;
                }
            }
            if is_retired {
                retired.push(at);
            } else {
                lingering.extend(progress.units());
            }
        }
        for progress in groups.iter().filter(|progress| !progress.undo_errors.is_empty() || progress.is_unswept) {
            lingering.extend(progress.units());
        }
        if !self.owed.lingering.is_empty() {
            let committed = groups.iter().filter(|progress| progress.is_committed);
            self.owed.superseded(self.shared.now(), &committed.flat_map(Progress::units).collect());
        }
        let lingers = !lingering.is_empty();
        self.owed.unwritten.push(Owed::End { id, retired, lingers });
        if lingers {
            self.owed.lingering.push(Lingering::new(id, lingering, self.shared.now()));
        }
        if let Err(error) = self.settle_debts() {
            // Should we stop before it is, recovery retires once more; every phase is idempotent.
            tracing::warn!(pickup = self.pickup, %error, "the deployment is live, but its end is not recorded");
        }
        let first = groups.first().and_then(|progress| progress.group.steps.first());
        if let Some(step) = first.filter(|_| !lingers) {
            self.shared.sweep_scratch(self.pickup, step.unit.generation);
        }
    }
}
