//! Blocking file work: one piece at a time for each unit, given up soon after nobody waits for it any more.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Mutex as AsyncMutex;

use crate::change::Content;
use crate::deploy::{Context, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::path::UnitPath;

/// Up to this much is done on the spot: a hop to another thread costs more than copying a small file does.
const INLINE_BYTES: u64 = 64 << 10;

/// Up to this many files are handled on the spot.
const INLINE_FILES: usize = 8;

/// How many idle lanes may gather before they are swept.
const LANES_MAX: usize = 64;

/// The lanes of one deployer, one a unit.
///
/// A phase that is dropped at its deadline leaves its thread behind for a moment. The next phase of the same unit,
/// which is a revert, waits until that thread is done, so that the two never work on the same files.
#[derive(Debug, Default)]
pub(crate) struct Lanes(Mutex<HashMap<LaneName, Lane>>);

/// The pickup and the unit's path in it.
type LaneName = (String, UnitPath);

/// Whoever holds it works on the unit.
type Lane = Arc<AsyncMutex<()>>;

impl Lanes {
    /// Does `work` in the lane of `unit`: here and now if it `is_small`, else on a thread for blocking work.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        cx: &Context,
        unit: &Unit,
        is_small: bool,
        work: impl FnOnce(&Stop) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.lane(unit).lock_owned().await;
        let stop = Stop::new(cx);
        let abandon = AbandonOnDrop(Arc::clone(&stop.is_abandoned));
        if is_small {
            return work(&stop);
        }
        let result = off_thread(move || {
            let _turn = turn;
            work(&stop)
        });
        let result = result.await;
        drop(abandon);
        result
    }

    fn lane(&self, unit: &Unit) -> Lane {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() > LANES_MAX {
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
        }
        Arc::clone(lanes.entry((unit.pickup.clone(), unit.path.clone())).or_default())
    }
}

/// Does `work` on a thread for blocking work; its panic is ours.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_shutdown) => Err(cancelled()),
    }
}

/// Whether handling this content is cheaper than a hop to another thread.
pub(crate) fn is_small(content: Option<&Content>) -> bool {
    match content {
        None => true,
        Some(Content::File(file)) => file.size <= INLINE_BYTES,
        Some(tree @ Content::Tree(files)) => files.len() <= INLINE_FILES && tree.size() <= INLINE_BYTES,
    }
}

/// Whether so many files are few enough to look at on the spot.
pub(crate) fn is_few(files: usize) -> bool {
    files <= INLINE_FILES
}

/// Tells blocking work when to give up.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    cx: Context,
    is_abandoned: Arc<AtomicBool>,
}

impl Stop {
    pub(crate) fn new(cx: &Context) -> Self {
        Self { cx: cx.clone(), is_abandoned: Arc::default() }
    }

    /// Fails once nobody waits for the work any more.
    pub(crate) fn check(&self) -> Result<()> {
        let is_over = self.is_abandoned.load(Ordering::Relaxed) || self.cx.is_cancelled();
        if is_over { Err(cancelled()) } else { Ok(()) }
    }

    /// Adds to what is shown when the deployment fails.
    pub(crate) fn output(&self, text: &str) {
        self.cx.output(text);
    }
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "finish: the work was cancelled")
}

struct AbandonOnDrop(Arc<AtomicBool>);

impl Drop for AbandonOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::deploy::testing::{Sandbox, removed};

    #[tokio::test]
    async fn a_revert_waits_for_the_thread_of_an_abandoned_stage() {
        let (sandbox, unit, lanes) = (Sandbox::new(), removed("x"), Lanes::default());
        let cx = sandbox.cx();
        let (started, is_started) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        let stage = lanes.run(&cx, &unit, false, move |stop| {
            started.send(()).unwrap();
            while stop.check().is_ok() {
                std::thread::yield_now();
            }
            done.send(()).unwrap();
            stop.check()
        });
        assert!(tokio::time::timeout(Duration::from_millis(20), stage).await.is_err());
        is_started.recv().unwrap();
        let finished = lanes.run(&cx, &unit, true, move |_| Ok(is_done.try_recv().is_ok())).await.unwrap();
        assert!(finished, "the revert began while the stage was still at work");
    }

    #[tokio::test]
    async fn idle_lanes_are_swept() {
        let (sandbox, lanes) = (Sandbox::new(), Lanes::default());
        for at in 0..3 * LANES_MAX {
            lanes.run(&sandbox.cx(), &removed(at.to_string()), true, |_| Ok(())).await.unwrap();
        }
        assert!(lanes.0.lock().unwrap().len() <= LANES_MAX + 1);
    }
}
