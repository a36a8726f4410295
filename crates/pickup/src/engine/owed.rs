//! What a transaction leaves to be done later: records that the journal did not take, and what lies about because a
//! deployer could not take it back or let go of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::recover::end;
use super::transaction::Transaction;
use crate::error::Result;
use crate::journal::DeploymentId;
use crate::path::UnitPath;
use crate::plan::{Group, Plan};

/// How often it is tried again to end a deployment before what it left lies there for good.
const ATTEMPTS_MAX: u32 = 6;
/// The first pause before that; each is twice as long as the one before.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// What could not be recorded yet. Until it is, nothing new may begin: recovery would take back too much.
#[derive(Clone, Debug)]
pub(super) enum Owed {
    /// A group was taken back.
    Revert { id: DeploymentId, group: usize, cause: String },
    /// It could not be.
    Stick { id: DeploymentId, group: usize, cause: String, undo_errors: Vec<String> },
    /// These groups were retired. With them the deployment ended, unless something lingers.
    End { id: DeploymentId, retired: Vec<usize>, lingers: bool },
}

/// A deployment that is recorded and not ended: it holds nothing up but itself.
#[derive(Clone, Debug)]
pub(super) struct Lingering {
    id: DeploymentId,
    units: BTreeSet<UnitPath>,
    attempts: u32,
    next: Instant,
}

impl Lingering {
    pub(super) fn new(id: DeploymentId, units: BTreeSet<UnitPath>, now: Instant) -> Self {
        Self { id, units, attempts: 0, next: now + PAUSE_MIN }
    }

    /// Whether what it left may be in the way of `plan`, or would be done after it.
    fn concerns(&self, plan: &Plan) -> bool {
        let steps = plan.groups.iter().flat_map(|group: &Group| &group.steps);
        let mut planned = steps.map(|step| &step.unit.path);
        planned.any(|new| self.units.iter().any(|old| new.starts_with(old) || old.starts_with(new)))
    }
}

/// All of it, of one pickup.
#[derive(Debug, Default)]
pub(super) struct Owing {
    pub unwritten: Vec<Owed>,
    pub lingering: Vec<Lingering>,
}

impl Owing {
    /// Whether everything is recorded.
    pub(super) fn is_recorded(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// When something that lingers is tried again.
    pub(super) fn next_try(&self) -> Option<Instant> {
        self.lingering.iter().map(|lingering| lingering.next).min()
    }

    /// Somebody asked for it: all of it is tried at once, and as often as at first.
    pub(super) fn rearm(&mut self, now: Instant) {
        for lingering in &mut self.lingering {
            (lingering.attempts, lingering.next) = (0, now);
        }
    }
}

impl Transaction<'_> {
    pub(super) fn settle_debts(&mut self) -> Result<()> {
        let mut journal = self.shared.journal();
        while let Some(owed) = self.owed.unwritten.first_mut() {
            let now = self.shared.now_ms();
            match owed {
                Owed::Revert { id, group, cause } => journal.reverted(*id, *group, cause, "", now)?,
                Owed::Stick { id, group, cause, undo_errors } => {
                    journal.stuck(*id, *group, cause, undo_errors, now)?;
                }
                Owed::End { id, retired, lingers } => {
                    if !retired.is_empty() {
                        journal.retired(*id, retired)?;
                        retired.clear();
                    }
                    if !*lingers {
                        journal.finish(*id, now)?;
                    }
                }
            }
            self.owed.unwritten.remove(0);
        }
        Ok(())
    }

    /// Tries again to end what lingers and is due. What concerns a unit of `plan` is tried for the last time: afterwards
    /// it would undo what is new.
    pub(super) async fn tend(&mut self, plan: &Plan) -> Result<()> {
        // The newest first: each finds what it left.
        for at in (0..self.owed.lingering.len()).rev() {
            let Lingering { id, attempts, next, .. } = self.owed.lingering[at];
            let is_in_the_way = self.owed.lingering[at].concerns(plan);
            if !is_in_the_way && next > self.shared.now() {
                continue;
            }
            let is_last = is_in_the_way || attempts + 1 >= ATTEMPTS_MAX;
            let open = self.shared.journal().open_deployment(id)?;
            let is_over = match open {
                Some(open) => end(self.shared, self.pickup, self.deployers, &open, is_last).await?.is_over,
                None => true,
            };
            if is_over {
                self.owed.lingering.remove(at);
            } else {
                let lingering = &mut self.owed.lingering[at];
                lingering.attempts += 1;
                lingering.next = self.shared.now() + PAUSE_MIN * (1 << lingering.attempts);
            }
        }
        Ok(())
    }
}
