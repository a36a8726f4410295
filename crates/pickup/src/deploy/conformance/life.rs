//! One life of a deployer: an instance in a runtime of its own, whose end is as sudden as that of a process.

use std::any::Any;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::deploy::dynamic::DynDeployer;
use crate::deploy::{Context, Deployer, Ending, Receipt, Unit};
use crate::error::{Error, ErrorKind, Result};

/// How long what still runs on threads may take to end.
const END_MAX: Duration = Duration::from_secs(60);

/// A deployer of any type, whose receipts can be read as what they are.
pub(super) trait Living: DynDeployer + Any {
    /// The receipt of a `stage`, read from its JSON and written again.
    fn reread_staged(&self, text: &str) -> Result<Value>;
    /// The receipt of an `activate`, likewise.
    fn reread_live(&self, text: &str) -> Result<Value>;
}

impl<D: Deployer> Living for D {
    fn reread_staged(&self, text: &str) -> Result<Value> {
        reread::<D::Staged>(text)
    }

    fn reread_live(&self, text: &str) -> Result<Value> {
        reread::<D::Live>(text)
    }
}

fn reread<R: Receipt>(text: &str) -> Result<Value> {
    serde_json::from_str::<R>(text)
        .and_then(|receipt| serde_json::to_value(&receipt))
        .map_err(|error| Error::deploy("read the receipt again").caused_by(error))
}

/// A phase that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Check,
    Stage,
    Activate,
    Verify,
    Revert,
    Retire,
    Remove,
    Observe,
    Shutdown,
}

impl Phase {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Stage => "stage",
            Self::Activate => "activate",
            Self::Verify => "verify",
            Self::Revert => "revert",
            Self::Retire => "retire",
            Self::Remove => "remove",
            Self::Observe => "observe",
            Self::Shutdown => "shut down",
        }
    }
}

/// What is done when a phase waits.
#[derive(Clone, Debug)]
pub(super) enum Waiting {
    /// Nothing: it goes on.
    GoesOn,
    /// It is dropped once it was polled so often.
    IsDropped(usize),
    /// It is told to give up.
    IsCancelled(CancellationToken),
}

/// One call of a phase, with all that it is given.
pub(super) struct Call {
    pub(super) phase: Phase,
    pub(super) cx: Context,
    pub(super) unit: Unit,
    pub(super) staged: Option<Value>,
    pub(super) live: Option<Value>,
    pub(super) old: Option<Value>,
}

impl Call {
    /// The receipt it gives, or what was observed; null from a phase that gives nothing.
    async fn perform(&self, deployer: &dyn Living) -> Result<Value> {
        let Self { phase, cx, unit, staged, live, old } = self;
        let old = old.as_ref();
        let missing = || Error::deploy(format!("{} it without the receipt of an earlier phase", phase.as_str()));
        let staged = || staged.as_ref().ok_or_else(missing);
        let live = || live.as_ref().ok_or_else(missing);
        let done = |()| Value::Null;
        match phase {
            Phase::Check => deployer.check(cx, unit, old).await.map(done),
            Phase::Stage => deployer.stage(cx, unit, old).await,
            Phase::Activate => deployer.activate(cx, unit, staged()?, old).await,
            Phase::Verify => deployer.verify(cx, unit, live()?).await.map(done),
            Phase::Revert => deployer.revert(cx, unit, staged()?, old).await.map(done),
            Phase::Retire => deployer.retire(cx, unit, staged()?, old).await.map(done),
            Phase::Remove => deployer.remove(cx, unit, live()?).await.map(done),
            Phase::Observe => {
                let observed = deployer.observe(cx, &live()?.to_string()).await?;
                serde_json::to_value(observed)
                    .map_err(|error| Error::deploy("write what was observed").caused_by(error))
            }
            Phase::Shutdown => deployer.shutdown(cx, Ending::Entry).await.map(done),
        }
    }
}

/// A deployer that lives.
pub(super) struct Life {
    deployer: Arc<dyn Living>,
    /// `None` once it is over.
    runtime: Option<Runtime>,
}

impl Life {
    pub(super) fn begin(make: impl FnOnce() -> Arc<dyn Living>) -> Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let failed = |error| Error::new(ErrorKind::Io, "start a runtime for the deployer").caused_by(error);
        let runtime = runtime.map_err(failed)?;
        let entered = runtime.enter();
        let deployer = make();
        drop(entered);
        Ok(Self { deployer, runtime: Some(runtime) })
    }

    pub(super) fn deployer(&self) -> &dyn Living {
        &*self.deployer
    }

    /// Carries out a phase; `None` if it was dropped.
    pub(super) async fn call(&self, call: Call, waiting: Waiting) -> Option<Result<Value>> {
        let deployer = Arc::clone(&self.deployer);
        let work = async move { call.perform(&*deployer).await };
        let watched = Watched { work: Some(Box::pin(work)), waiting };
        let runtime = self.runtime.as_ref()?;
        match AbortOnDropHandle::new(runtime.spawn(watched)).await {
            Ok(ended) => ended,
            Err(error) => Some(Err(Error::deploy("carry out the phase").caused_by(error))),
        }
    }

    /// Ends it as a crash does: nobody is told. What runs on its threads is waited for, so that the next life is alone.
    pub(super) async fn end(mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let ended = tokio::task::spawn_blocking(move || {
            let entered = runtime.enter();
            drop(self);
            drop(entered);
            runtime.shutdown_timeout(END_MAX);
        });
        let _a_deployer_that_panics_in_its_drop_has_ended_too = ended.await;
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Nobody waits here, because this may be a place where nobody may.
            runtime.shutdown_background();
        }
    }
}

type Work = Pin<Box<dyn Future<Output = Result<Value>> + Send>>;

/// A phase, and what is done when it waits. `None` comes of it once it was dropped.
struct Watched {
    work: Option<Work>,
    waiting: Waiting,
}

impl Future for Watched {
    type Output = Option<Result<Value>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let Some(work) = &mut self.work else { return Poll::Ready(None) };
        if let Poll::Ready(result) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(result));
        }
        match &mut self.waiting {
            Waiting::GoesOn => {}
            Waiting::IsDropped(polls) if *polls > 1 => *polls -= 1,
            Waiting::IsDropped(_) => {
                self.work = None;
                return Poll::Ready(None);
            }
            Waiting::IsCancelled(cancel) => cancel.cancel(),
        }
        Poll::Pending
    }
}
