//! Stage 8 of 8: durable records in, what subscribers see out.
//!
//! Events are for programs, logs are for people: every event is logged by the engine as well, in one line.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::capture::Digest;
use crate::change::{ChangeKind, Doubt};
use crate::deploy::Happening;
use crate::path::UnitPath;
use crate::source::git::Revision;

/// The version of the events' shape. A field may be added within a version; nothing is renamed or removed.
pub const EVENT_VERSION: u32 = 1;

/// Something that happened, as a subscriber sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// [`EVENT_VERSION`].
    pub version: u32,
    /// Counts up by one from 1, in each run of the engine.
    pub sequence: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at: i64,
    /// The pickup concerned; empty for the engine as a whole.
    pub pickup: String,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// The kinds of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The pickup watches: from here on no change is missed. What was there at its start is listed, and what of it is new
    /// is captured from here on.
    Watching {
        /// How many files it knows, or has listed.
        files: usize,
        /// How many directories it watches.
        directories: usize,
        /// Whether it polls, and why.
        polling: Option<String>,
    },
    /// A pickup directory is not to be had; nothing is undeployed because of it.
    Unavailable {
        /// The directory.
        directory: String,
        /// Why.
        reason: String,
    },
    /// A unit is live.
    Deployed {
        /// The unit.
        unit: UnitPath,
        /// What happened to it.
        change: ChangeKind,
        /// The identity of its content; `None` when it was removed.
        digest: Option<Digest>,
        /// The generation it went live with.
        generation: u64,
        /// The deployers that took it, in order.
        deployers: Vec<String>,
        /// From the first sight of the change to the commit, in milliseconds.
        took: u64,
        /// The git commit it comes from, if it comes from one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<Arc<Revision>>,
    },
    /// A change failed; what was live before is live again.
    RolledBack {
        /// The units of the transaction group.
        units: Vec<UnitPath>,
        /// The generation it would have been.
        generation: u64,
        /// What failed and why.
        cause: String,
        /// The last output of what failed.
        output: String,
        /// In how many milliseconds it is tried again; `None` if it is quarantined.
        retry_in: Option<u64>,
    },
    /// A change failed and could not be taken back in full: somebody has to look, unless it is tried again.
    Stuck {
        /// The units of the transaction group.
        units: Vec<UnitPath>,
        /// The generation it would have been.
        generation: u64,
        /// What failed and why.
        cause: String,
        /// What went wrong while it was taken back.
        undo_errors: Vec<String>,
        /// In how many milliseconds it is tried again, where what went wrong may pass; `None` if not by itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_in: Option<u64>,
    },
    /// A unit that no deployer took.
    Refused {
        /// The unit.
        unit: UnitPath,
        /// The deployer that refused it.
        deployer: String,
        /// Its reason.
        reason: String,
    },
    /// Removals are not carried out until they are confirmed.
    RemovalsPaused {
        /// How many units would be removed.
        units: usize,
        /// Why that is doubted.
        doubt: Doubt,
    },
    /// The kernel lost track of changes; everything is being compared again.
    Rescanning {
        /// Why.
        reason: String,
    },
    /// Something that was live was changed or removed by somebody else, and is deployed again.
    Drifted {
        /// The unit.
        unit: UnitPath,
        /// The deployer that noticed.
        deployer: String,
        /// What it found.
        found: String,
    },
    /// Something happened to an instance of a running program: it was started, activated, looked at, asked to stop,
    /// stopped.
    Instance {
        /// The deployer that runs it.
        deployer: String,
        /// The generation it belongs to.
        generation: u64,
        /// What happened.
        #[serde(flatten)]
        happening: Happening,
    },
    /// What was live is not any more, and its deployer gave up on it: it shows as failed.
    Broken {
        /// The units.
        units: Vec<UnitPath>,
        /// The deployer that gave up.
        deployer: String,
        /// Why.
        cause: String,
    },
    /// A failure that is not about one unit, such as a full disk. It is tried again until it heals.
    Troubled {
        /// What failed and why.
        cause: String,
    },
    /// The trouble is over.
    Healed,
    /// An earlier generation was made live, and changes are held back until `release`.
    Held {
        /// The generation that is live.
        generation: u64,
    },
    /// Changes are deployed again.
    Released,
    /// The reference that is followed leads to another commit, which is being deployed.
    CommitSeen {
        /// The commit.
        revision: Revision,
    },
    /// The remote could not be asked, or what it has is refused; what is live stays.
    CheckFailed {
        /// What failed and why, without secrets.
        cause: String,
        /// In how many milliseconds it is asked again; `None` if not by itself.
        retry_in: Option<u64>,
    },
    /// The remote could be asked again.
    CheckHealed,
    /// The configuration was read again.
    Reloaded {
        /// Names of pickups that were started, changed or stopped.
        changed: Vec<String>,
        /// How many mistakes it holds.
        errors: usize,
    },
    /// The configuration could not be read again; the running one stays.
    ReloadFailed {
        /// Why.
        cause: String,
    },
}

/// What [`Events::next`] gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// The next event.
    Event(Event),
    /// The subscriber was too slow: this many events are lost to it. The journal has them all.
    Lagged(u64),
}

/// A subscription. Holds at most 1,024 events; a slower reader is told how many it missed.
#[derive(Debug)]
pub struct Events(broadcast::Receiver<Event>);

impl Events {
    /// Waits for the next event; `None` once the engine has stopped.
    pub async fn next(&mut self) -> Option<Delivery> {
        match self.0.recv().await {
            Ok(event) => Some(Delivery::Event(event)),
            Err(RecvError::Lagged(missed)) => Some(Delivery::Lagged(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// How many events a subscriber may lag behind.
const CAPACITY: usize = 1024;

/// Where events are published.
#[derive(Debug)]
pub(crate) struct Publisher {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` once the engine has stopped.
    sender: Option<broadcast::Sender<Event>>,
    sequence: u64,
}

impl Publisher {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { sender: Some(broadcast::Sender::new(CAPACITY)), sequence: 0 }) }
    }

    pub(crate) fn subscribe(&self) -> Events {
        match &self.state().sender {
            Some(sender) => Events(sender.subscribe()),
            None => Events(broadcast::channel(1).1),
        }
    }

    pub(crate) fn publish(&self, at: i64, pickup: &str, kind: impl FnOnce() -> EventKind) {
        // The lock spans the send, so that the order of sequence numbers is the order of delivery.
        let mut state = self.state();
        state.sequence += 1;
        let Some(sender) = state.sender.as_ref().filter(|sender| sender.receiver_count() > 0) else { return };
        let event = Event { version: EVENT_VERSION, sequence: state.sequence, at, pickup: pickup.into(), kind: kind() };
        // A subscriber that is gone by now is no error.
        let _ = sender.send(event);
    }

    /// Nothing comes any more: subscribers see the end once they have seen everything before it.
    pub(crate) fn close(&self) {
        self.state().sender = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_subscriber_that_lags_is_told_how_much_it_missed() {
        let publisher = Publisher::new();
        let mut events = publisher.subscribe();
        for _ in 0..CAPACITY + 5 {
            publisher.publish(0, "p", || EventKind::Released);
        }
        assert_eq!(events.next().await, Some(Delivery::Lagged(5)));
        let Some(Delivery::Event(event)) = events.next().await else { panic!("no event") };
        assert_eq!(event.sequence, 6);
        drop(publisher);
        let mut left = 0;
        while events.next().await.is_some() {
            left += 1;
        }
        assert_eq!(left, CAPACITY - 1);
    }

    #[tokio::test]
    async fn what_nobody_hears_is_counted_and_not_put_together() {
        let publisher = Publisher::new();
        publisher.publish(0, "p", || unreachable!("nobody hears"));
        let mut events = publisher.subscribe();
        publisher.publish(0, "p", || EventKind::Released);
        let Some(Delivery::Event(event)) = events.next().await else { panic!("no event") };
        assert_eq!(event.sequence, 2);
    }

    #[test]
    fn events_are_versioned_json_and_read_back() {
        let kind = EventKind::Held { generation: 3 };
        let event = Event { version: EVENT_VERSION, sequence: 1, at: 2, pickup: "p".into(), kind };
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(text, r#"{"version":1,"sequence":1,"at":2,"pickup":"p","event":"held","generation":3}"#);
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
    }
}
