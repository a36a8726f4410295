//! The lane of one pickup: carries out one change set at a time, away from the thread that watches.

use std::collections::{BTreeSet, HashMap};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::former::let_go;
use super::inbox::Inbox;
use super::message::{Done, Message, Work};
use super::pickup::Pickup;
use super::recover::{finish_open, load, observe_all};
use super::transaction::Transaction;
use crate::capture::Digest;
use crate::error::{Error, ErrorKind};
use crate::event::EventKind;
use crate::journal::Origin;
use crate::plan::Plan;

/// How long what is live is not looked at in favour of the first look at the pickup directories.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(1);

/// Tells the pickup that its lane is free, whatever happens: also when the work panics, or the runtime drops it.
struct Report {
    inbox: Arc<Inbox<Message>>,
    done: Option<Done>,
}

impl Drop for Report {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            self.inbox.message(Message::Done(done));
        }
    }
}

impl Pickup {
    fn report(&mut self, work: Work) -> Report {
        let result = Err(Error::new(ErrorKind::Cancelled, "finish the deployment: it was cut off"));
        let owed = std::mem::take(&mut self.owed);
        let (live, drifted) = (Vec::new(), BTreeSet::new());
        let done = Done { start: self.start, work, result, live, owed, loaded: None, drifted };
        Report { inbox: self.inbox.clone(), done: Some(done) }
    }

    pub(super) fn spawn_deployment(&mut self, plan: Plan, work: Work) {
        let (generation, origin) = match &work {
            Work::Deploy { generation, origin, .. } => (*generation, *origin),
            Work::Recover | Work::Settle => (0, Origin::Start),
        };
        let mut report = self.report(work);
        let (shared, deployers, config) = (self.shared.clone(), self.deployers.clone(), self.config.clone());
        let (turn, enders) = (self.turn.clone(), self.enders.clone());
        // Journal and files are blocking work; the deployers' futures run here, too.
        self.shared.runtime.spawn_blocking(move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(done) = &mut report.done else { return };
            let runtime = shared.runtime.clone();
            let transaction = Transaction::new(&shared, &config.name, &deployers, &mut done.owed);
            let mut transaction = transaction.ended_by(&enders);
            let result = runtime.block_on(transaction.carry_out(plan, generation, origin));
            let live = transaction.live;
            (done.result, done.live) = (result, live);
        });
    }

    /// Finishes or takes back what a crash cut off, then looks whether everything that should be live is: after the first
    /// look at the pickup directories, the end of which `looked` tells, unless that takes long.
    pub(super) fn spawn_recovery(&mut self, looked: Option<Receiver<()>>) {
        self.is_busy = true;
        let mut report = self.report(Work::Recover);
        let (shared, deployers, config) = (self.shared.clone(), self.deployers.clone(), self.config.clone());
        let (turn, enders) = (self.turn.clone(), self.enders.clone());
        self.shared.runtime.spawn_blocking(move || {
            let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(done) = &mut report.done else { return };
            let runtime = shared.runtime.clone();
            done.result = runtime.block_on(async {
                done.drifted = finish_open(&shared, &config.name, &enders, &mut done.owed).await?;
                let_go(&shared, &config.name, &deployers, &enders).await;
                // Both at once would be slower for whoever waits until all is watched.
                let _over = looked.map(|looked| looked.recv_timeout(FIRST_LOOK_MAX));
                // It would be read again and again.
                while shared.journal().write_later()? {}
                let reader = shared.reader()?;
                let loaded = load(&shared, &reader, &config.name, &deployers)?;
                let sizes: HashMap<Digest, u64> = loaded.live.sizes().collect();
                let stored = shared.store.stored(|digest| sizes.get(digest).copied())?;
                drop(sizes);
                done.loaded = Some((loaded, stored));
                for drift in observe_all(&shared, &reader, &config.name, &deployers).await? {
                    let (unit, deployer, found) = (drift.unit, drift.deployer, drift.found);
                    tracing::warn!(pickup = config.name, %unit, deployer, found, "not as it was deployed; it is deployed again");
                    shared.publish(&config.name, EventKind::Drifted { unit: unit.clone(), deployer, found });
                    done.drifted.insert(unit);
                }
                Ok(Vec::new())
            });
        });
    }
}
