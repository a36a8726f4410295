//! The deployer in one line: a closure that takes each unit.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::deploy::{Context, Deployer, Observed, Unit};
use crate::error::{Error, ErrorKind, Result};
use crate::path::UnitPath;

/// Makes a deployer of an async closure, for the program that embeds this crate.
///
/// It is called once for each unit that goes live, and once for each that is removed: then [`Unit::change`] is
/// [`Removed`](crate::change::ChangeKind::Removed) and there is no content.
///
/// What it did counts as done for good: after a restart it is not called again for what is live already. Where its work
/// lives in this process and ends with it, such as a loaded plugin, add [`in_memory`](FromFn::in_memory).
///
/// Its future is dropped at the deadline of the deployer, and when the work is cancelled.
///
/// Nothing is called to revert: the closure never sees the old content again, so what it did stays done when a later
/// step of the same transaction fails. Where that matters, implement [`Deployer`].
///
/// An error it returns keeps its kind and whether it is transient if it is a [`crate::Error`]; any other error is the
/// artifact's fault.
///
/// ```
/// use pickup::deploy::{Unit, from_fn};
///
/// let deployer = from_fn(|unit: Unit| async move {
///     println!("{} {}", unit.change.as_str(), unit.path);
///     Ok::<(), std::io::Error>(())
/// });
/// # let _ = deployer;
/// ```
pub fn from_fn<F, Fut, E>(f: F) -> FromFn<F>
where
    F: Fn(Unit) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    FromFn { f, held: None }
}

/// A closure as a deployer; made by [`from_fn`].
pub struct FromFn<F> {
    f: F,
    /// What this process was given and still has, if that is what counts.
    held: Option<Mutex<BTreeSet<Live>>>,
}

/// What the closure was called for, if anybody is going to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Live {
    #[serde(skip_serializing_if = "String::is_empty")]
    pickup: String,
    #[serde(skip_serializing_if = "UnitPath::is_root")]
    path: UnitPath,
}

impl<F> FromFn<F> {
    /// What the closure does ends with the process: at each start it is called again for everything that is live, with
    /// [`Touched`](crate::change::ChangeKind::Touched) where nothing changed meanwhile.
    #[must_use]
    pub fn in_memory(self) -> Self {
        Self { held: Some(Mutex::default()), ..self }
    }

    fn held(&self) -> Option<MutexGuard<'_, BTreeSet<Live>>> {
        self.held.as_ref().map(|held| held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<F, Fut, E> FromFn<F>
where
    F: Fn(Unit) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    /// The closure has no context to look at, so it is dropped where it waits.
    async fn call(&self, cx: &Context, unit: &Unit) -> Result<()> {
        let result = tokio::select! {
            biased;
            result = (self.f)(unit.clone()) => result,
            () = cx.cancelled() => {
                return Err(Error::new(ErrorKind::Cancelled, format!("deploy {}: the work was cancelled", unit.path)));
            }
        };
        result.map_err(|error| match error.into().downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::deploy(format!("deploy {}", unit.path)).caused_by(other),
        })
    }
}

impl<F, Fut, E> Deployer for FromFn<F>
where
    F: Fn(Unit) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    type Staged = ();
    type Live = Live;

    fn is_stageless(&self) -> bool {
        true
    }

    async fn stage(&self, _cx: &Context, _unit: &Unit, _old: Option<&Live>) -> Result<()> {
        Ok(())
    }

    async fn activate(&self, cx: &Context, unit: &Unit, _staged: &(), _old: Option<&Live>) -> Result<Live> {
        self.call(cx, unit).await?;
        let Some(mut held) = self.held() else { return Ok(Live::default()) };
        let live = Live { pickup: unit.pickup.clone(), path: unit.path.clone() };
        held.insert(live.clone());
        Ok(live)
    }

    async fn revert(&self, _cx: &Context, _unit: &Unit, _staged: &(), _old: Option<&Live>) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, cx: &Context, unit: &Unit, live: &Live) -> Result<()> {
        self.call(cx, unit).await?;
        if let Some(mut held) = self.held() {
            held.remove(live);
        }
        Ok(())
    }

    async fn observe(&self, _cx: &Context, live: &Live) -> Result<Observed> {
        let is_held = self.held().is_none_or(|held| held.contains(live));
        Ok(if is_held { Observed::Alive } else { Observed::Gone })
    }

    async fn observe_many(&self, _cx: &Context, live: &[Live]) -> Option<Vec<Result<Observed>>> {
        let held = self.held();
        let is_held = |live| held.as_ref().is_none_or(|held| held.contains(live));
        Some(live.iter().map(|live| Ok(if is_held(live) { Observed::Alive } else { Observed::Gone })).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;

    use super::*;
    use crate::deploy::dynamic::DynDeployer;
    use crate::deploy::testing::{Sandbox, removed};

    #[tokio::test]
    async fn the_closure_sees_what_goes_live_and_what_is_removed() {
        let (sandbox, seen) = (Sandbox::new(), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&seen);
        let deployer: Arc<dyn DynDeployer> = Arc::new(from_fn(move |unit: Unit| {
            log.lock().unwrap().push(format!("{} {}", unit.change.as_str(), unit.path));
            async { Ok::<(), String>(()) }
        }));
        let (cx, unit) = (sandbox.cx(), sandbox.file("a", b"x", 1));
        let staged = deployer.stage(&cx, &unit, None).await.unwrap();
        let live = deployer.activate(&cx, &unit, &staged, None).await.unwrap();
        deployer.remove(&cx, &removed("a"), &live).await.unwrap();
        assert_eq!(*seen.lock().unwrap(), ["added a", "removed a"]);
    }

    #[tokio::test]
    async fn our_own_errors_keep_their_kind() {
        let sandbox = Sandbox::new();
        let (cx, unit) = (sandbox.cx(), sandbox.file("a", b"x", 1));
        let ours = from_fn(|_| async { Err(Error::new(ErrorKind::NotFound, "find it").transient()) });
        let staged = DynDeployer::stage(&ours, &cx, &unit, None).await.unwrap();
        let error = DynDeployer::activate(&ours, &cx, &unit, &staged, None).await.unwrap_err();
        assert!(error.kind() == ErrorKind::NotFound && error.is_transient());
        let theirs = from_fn(|_| async { Err("bad syntax") });
        let error = DynDeployer::activate(&theirs, &cx, &unit, &staged, None).await.unwrap_err();
        assert_eq!(error.to_string(), "deploy a: bad syntax");
    }

    #[tokio::test]
    async fn a_closure_that_waits_is_given_up_with_its_work() {
        let (sandbox, cancel) = (Sandbox::new(), tokio_util::sync::CancellationToken::new());
        let (cx, unit) = (sandbox.cx().cancelled_by(&cancel), sandbox.file("a", b"x", 1));
        let waits = from_fn(|_| std::future::pending::<Result<(), Error>>());
        cancel.cancel();
        let error = DynDeployer::activate(&waits, &cx, &unit, &Value::Null, None).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Cancelled, "deploy a: the work was cancelled")
        );
    }

    #[tokio::test]
    async fn what_lives_in_memory_is_gone_in_another_process() {
        let (sandbox, call) = (Sandbox::new(), |_| async { Ok::<(), String>(()) });
        let (cx, unit) = (sandbox.cx(), sandbox.file("a", b"x", 1));
        for (deployer, later) in
            [(from_fn(call).in_memory(), from_fn(call).in_memory()), (from_fn(call), from_fn(call))]
        {
            let staged = DynDeployer::stage(&deployer, &cx, &unit, None).await.unwrap();
            let live = DynDeployer::activate(&deployer, &cx, &unit, &staged, None).await.unwrap();
            assert_eq!(DynDeployer::observe(&deployer, &cx, &live.to_string()).await.unwrap(), Observed::Alive);
            let expected = if later.held.is_some() { Observed::Gone } else { Observed::Alive };
            assert_eq!(DynDeployer::observe(&later, &cx, &live.to_string()).await.unwrap(), expected);
        }
    }
}
