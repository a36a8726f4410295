//! A pickup that nobody runs: a test calls what its thread would, with the time it likes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::aside::{Aside, Real};
use super::inbox::Inbox;
use super::pickup::Pickup;
use super::running::Parts;
use super::shared::Clock;
use crate::config::{PickupConfig, WatchMode};
use crate::source::git::worker::GitWorker;

/// One that knows what is in its directories; with the place it captures into, below `base`. Within a tokio runtime.
pub(super) fn knowing(base: &Path, config: PickupConfig) -> (Pickup, Aside) {
    let aside = Aside::new(&base.join("state")).unwrap();
    let real = Real {
        state_dir: base.join("state"),
        store_max: u64::MAX,
        git_worker: GitWorker::InProcess,
        module_probe: None,
        clock: Clock::system(),
        runtime: tokio::runtime::Handle::current(),
        cancel: CancellationToken::new(),
    };
    let shared = aside.shared(real).unwrap();
    let bound: Arc<[_]> = Arc::new([]);
    let parts = Parts {
        shared: shared.clone(),
        config: Arc::new(PickupConfig { watch: WatchMode::Off, ..config }),
        enders: bound.clone(),
        bound,
        inbox: Arc::new(Inbox::new()),
        turn: Arc::default(),
        starts: AtomicU64::new(0),
    };
    let mut pickup = parts.pickup(shared.watcher.subscribe(Arc::new(|_| {}))).unwrap();
    pickup.rescan_all(shared.now());
    pickup.look_at_due(later(&pickup));
    (pickup, aside)
}

/// Whatever has to stand still has done so by then.
pub(super) fn later(pickup: &Pickup) -> Instant {
    pickup.shared.now() + Duration::from_secs(3600)
}
