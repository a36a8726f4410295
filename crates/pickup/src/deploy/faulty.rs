//! A layer over a deployer that fails, hangs, dawdles or panics where it is told to.

use std::fmt;
use std::time::Duration;

use crate::deploy::{Context, Deployer, Ending, Observed, Scope, Unit, Verdict};
use crate::error::{Error, Result};

/// The phases of a [`Deployer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// [`Deployer::check`].
    Check,
    /// [`Deployer::stage`].
    Stage,
    /// [`Deployer::activate`].
    Activate,
    /// [`Deployer::verify`].
    Verify,
    /// [`Deployer::revert`].
    Revert,
    /// [`Deployer::retire`].
    Retire,
    /// [`Deployer::sweep`].
    Sweep,
    /// [`Deployer::remove`].
    Remove,
    /// [`Deployer::observe`].
    Observe,
    /// [`Deployer::shutdown`].
    Shutdown,
}

/// What goes wrong with one call of a phase.
#[derive(Debug)]
#[non_exhaustive]
pub enum Fault {
    /// It fails, and nothing was done.
    Fail(Error),
    /// All of it is done, and it fails all the same: its result is lost.
    FailAfter(Error),
    /// It does nothing until its deadline.
    Hang,
    /// It does its work, but only after this time.
    Delay(Duration),
    /// It panics.
    Panic,
}

/// Wraps a deployer, so that a test sees what becomes of its failures.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// use pickup::Error;
/// use pickup::deploy::{Fault, Faulty, Phase, from_fn};
///
/// let is_down = Arc::new(AtomicBool::new(true));
/// let seen = is_down.clone();
/// let load = from_fn(|_unit| async { Ok::<(), Error>(()) });
/// let load = Faulty::new(load, move |phase, _unit| match phase {
///     Phase::Activate if seen.load(Ordering::Relaxed) => Some(Fault::Fail(Error::deploy("reach the server"))),
///     _ => None,
/// });
/// # drop(load);
/// ```
pub struct Faulty<D> {
    inner: D,
    decide: Box<Decide>,
}

type Decide = dyn Fn(Phase, Option<&Unit>) -> Option<Fault> + Send + Sync;

impl<D: Deployer> Faulty<D> {
    /// `inner`, with the faults that `decide` names. It is asked before each phase, with the unit where the phase has one.
    pub fn new(inner: D, decide: impl Fn(Phase, Option<&Unit>) -> Option<Fault> + Send + Sync + 'static) -> Self {
        Self { inner, decide: Box::new(decide) }
    }

    async fn run<T>(&self, phase: Phase, unit: Option<&Unit>, work: impl Future<Output = Result<T>>) -> Result<T> {
        match (self.decide)(phase, unit) {
            None => work.await,
            Some(Fault::Fail(error)) => Err(error),
            Some(Fault::FailAfter(error)) => work.await.and(Err(error)),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Delay(time)) => {
                tokio::time::sleep(time).await;
                work.await
            }
            // Without the noise of the panic hook.
            Some(Fault::Panic) => {
                std::panic::resume_unwind(Box::new(format!("a fault that was asked for, in {phase:?}")))
            }
        }
    }
}

impl<D: fmt::Debug> fmt::Debug for Faulty<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Faulty").field(&self.inner).finish()
    }
}

impl<D: Deployer> Deployer for Faulty<D> {
    type Staged = D::Staged;
    type Live = D::Live;

    fn scope(&self) -> Scope {
        self.inner.scope()
    }

    fn accepts(&self, unit: &Unit) -> Verdict {
        self.inner.accepts(unit)
    }

    async fn check(&self, cx: &Context, unit: &Unit, old: Option<&D::Live>) -> Result<()> {
        self.run(Phase::Check, Some(unit), self.inner.check(cx, unit, old)).await
    }

    async fn stage(&self, cx: &Context, unit: &Unit, old: Option<&D::Live>) -> Result<D::Staged> {
        self.run(Phase::Stage, Some(unit), self.inner.stage(cx, unit, old)).await
    }

    async fn activate(&self, cx: &Context, unit: &Unit, staged: &D::Staged, old: Option<&D::Live>) -> Result<D::Live> {
        self.run(Phase::Activate, Some(unit), self.inner.activate(cx, unit, staged, old)).await
    }

    async fn verify(&self, cx: &Context, unit: &Unit, live: &D::Live) -> Result<()> {
        self.run(Phase::Verify, Some(unit), self.inner.verify(cx, unit, live)).await
    }

    async fn revert(&self, cx: &Context, unit: &Unit, staged: &D::Staged, old: Option<&D::Live>) -> Result<()> {
        self.run(Phase::Revert, Some(unit), self.inner.revert(cx, unit, staged, old)).await
    }

    async fn retire(&self, cx: &Context, unit: &Unit, staged: &D::Staged, old: Option<&D::Live>) -> Result<()> {
        self.run(Phase::Retire, Some(unit), self.inner.retire(cx, unit, staged, old)).await
    }

    async fn sweep(&self, cx: &Context, unit: &Unit, staged: Option<&D::Staged>, old: Option<&D::Live>) -> Result<()> {
        self.run(Phase::Sweep, Some(unit), self.inner.sweep(cx, unit, staged, old)).await
    }

    async fn remove(&self, cx: &Context, unit: &Unit, live: &D::Live) -> Result<()> {
        self.run(Phase::Remove, Some(unit), self.inner.remove(cx, unit, live)).await
    }

    async fn observe(&self, cx: &Context, live: &D::Live) -> Result<Observed> {
        self.run(Phase::Observe, None, self.inner.observe(cx, live)).await
    }

    async fn shutdown(&self, cx: &Context, ending: Ending) -> Result<()> {
        self.run(Phase::Shutdown, None, self.inner.shutdown(cx, ending)).await
    }
}
