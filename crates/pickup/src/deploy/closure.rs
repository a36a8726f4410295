//! The deployer in one line: a closure that takes each unit.

use std::future::Future;

use crate::deploy::{Context, Deployer, Unit};
use crate::error::{Error, Result};

/// Makes a deployer of an async closure, for the program that embeds this crate.
///
/// It is called once for each unit that goes live, and once for each that is removed: then [`Unit::change`] is
/// [`Removed`](crate::change::ChangeKind::Removed) and there is no content.
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
pub fn from_fn<F, Fut, E>(f: F) -> impl Deployer
where
    F: Fn(Unit) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    Closure(f)
}

struct Closure<F>(F);

impl<F, Fut, E> Closure<F>
where
    F: Fn(Unit) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    async fn call(&self, unit: &Unit) -> Result<()> {
        let result = (self.0)(unit.clone()).await;
        result.map_err(|error| match error.into().downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::deploy(format!("deploy {}", unit.path)).caused_by(other),
        })
    }
}

impl<F, Fut, E> Deployer for Closure<F>
where
    F: Fn(Unit) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
{
    type Staged = ();
    type Live = ();

    async fn stage(&self, _cx: &Context, _unit: &Unit, _old: Option<&()>) -> Result<()> {
        Ok(())
    }

    async fn activate(&self, _cx: &Context, unit: &Unit, _staged: &(), _old: Option<&()>) -> Result<()> {
        self.call(unit).await
    }

    async fn revert(&self, _cx: &Context, _unit: &Unit, _staged: &(), _old: Option<&()>) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, _cx: &Context, unit: &Unit, _live: &()) -> Result<()> {
        self.call(unit).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::deploy::dynamic::DynDeployer;
    use crate::deploy::testing::{Sandbox, removed};
    use crate::error::ErrorKind;

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
}
