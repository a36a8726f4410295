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

    /// Whether what it left may be in the way of `unit`.
    fn concerns(&self, unit: &UnitPath) -> bool {
        self.units.iter().any(|old| old.overlaps(unit))
    }

    /// Whether `older` has to wait for it: what was begun later is ended first.
    pub(super) fn covers(&self, older: &Self) -> bool {
        older.units.iter().any(|unit| self.concerns(unit))
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

    /// Something newer of `units` went live: there is less to do for what lingers of them.
    pub(super) fn superseded(&mut self, now: Instant, units: &BTreeSet<UnitPath>) {
        for lingering in &mut self.lingering {
            if units.iter().any(|unit| lingering.concerns(unit)) {
                (lingering.attempts, lingering.next) = (0, now);
            }
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

    /// Tries again to end what lingers and is due, or concerns a unit of `plan`. The plan is carried out in any case: once
    /// it is live, what lingers beside it is swept and not ended, and should it be taken back, all is as before.
    pub(super) async fn tend(&mut self, plan: &Plan) -> Result<()> {
        // The newest first: each finds what it left.
        for at in (0..self.owed.lingering.len()).rev() {
            let (older, newer) = self.owed.lingering.split_at_mut(at + 1);
            let lingering = &mut older[at];
            let is_due = lingering.next <= self.shared.now();
            if let Some(covering) = newer.iter().filter(|newer| newer.covers(lingering)).map(|newer| newer.next).max() {
                lingering.next = lingering.next.max(covering);
                continue;
            }
            let steps = plan.groups.iter().flat_map(|group: &Group| &group.steps);
            let is_in_the_way = steps.map(|step| &step.unit.path).any(|unit| lingering.concerns(unit));
            if !is_due && !is_in_the_way {
                continue;
            }
            let is_last = is_due && lingering.attempts + 1 >= ATTEMPTS_MAX;
            let open = self.shared.journal().open_deployment(lingering.id)?;
            let is_over = match open {
                Some(open) => end(self.shared, self.pickup, self.enders, &open, is_last).await?.is_over,
                None => true,
            };
            if is_over {
                self.owed.lingering.remove(at);
            } else if is_due {
                lingering.attempts += 1;
                lingering.next = self.shared.now() + PAUSE_MIN * (1 << lingering.attempts);
            }
        }
        Ok(())
    }
}
