//! The object-safe twin of [`Deployer`], with the guards that hold for every phase: a deadline, and no panic.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;

use serde_json::Value;
use tokio::task::unconstrained;
use tokio::time::sleep_until;

use crate::deploy::{Context, Deployer, Ending, Observed, Receipt, Scope, Unit, Verdict};
use crate::error::{Error, ErrorKind, Result};

/// What a phase of a [`DynDeployer`] returns.
pub(crate) type Phase<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// A [`Deployer`] of any type, with its receipts as JSON: what the engine holds. The phases are those of [`Deployer`].
pub(crate) trait DynDeployer: Send + Sync + 'static {
    fn scope(&self) -> Scope;
    fn accepts(&self, unit: &Unit) -> Verdict;
    fn is_stageless(&self) -> bool;
    fn check<'a>(&'a self, cx: &'a Context, unit: &'a Unit, old: Option<&'a Value>) -> Phase<'a, ()>;
    fn stage<'a>(&'a self, cx: &'a Context, unit: &'a Unit, old: Option<&'a Value>) -> Phase<'a, Value>;
    fn activate<'a>(
        &'a self,
        cx: &'a Context,
        unit: &'a Unit,
        staged: &'a Value,
        old: Option<&'a Value>,
    ) -> Phase<'a, Value>;
    fn verify<'a>(&'a self, cx: &'a Context, unit: &'a Unit, live: &'a Value) -> Phase<'a, ()>;
    fn revert<'a>(
        &'a self,
        cx: &'a Context,
        unit: &'a Unit,
        staged: &'a Value,
        old: Option<&'a Value>,
    ) -> Phase<'a, ()>;
    fn retire<'a>(
        &'a self,
        cx: &'a Context,
        unit: &'a Unit,
        staged: &'a Value,
        old: Option<&'a Value>,
    ) -> Phase<'a, ()>;
    fn sweep<'a>(
        &'a self,
        cx: &'a Context,
        unit: &'a Unit,
        staged: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> Phase<'a, ()>;
    fn remove<'a>(&'a self, cx: &'a Context, unit: &'a Unit, live: &'a Value) -> Phase<'a, ()>;
    fn flush<'a>(&'a self, cx: &'a Context) -> Phase<'a, ()>;
    /// `live` is the receipt's JSON: at a start there is one for each file that is live.
    fn observe<'a>(&'a self, cx: &'a Context, live: &'a str) -> Phase<'a, Observed>;
    /// The same for many at once; `None` if it has to be asked of each.
    fn observe_many<'a>(&'a self, cx: &'a Context, live: &'a [&'a str]) -> Phase<'a, Option<Vec<Result<Observed>>>>;
    fn shutdown<'a>(&'a self, cx: &'a Context, ending: Ending) -> Phase<'a, ()>;
}

impl<D: Deployer> DynDeployer for D {
    fn scope(&self) -> Scope {
        Deployer::scope(self)
    }

    fn is_stageless(&self) -> bool {
        Deployer::is_stageless(self)
    }

    fn accepts(&self, unit: &Unit) -> Verdict {
        catch_unwind(AssertUnwindSafe(|| Deployer::accepts(self, unit))).unwrap_or_else(|panic| {
            let action = format!("{} panicked: {}", name::<D>(), panic_text(panic.as_ref()));
            Verdict::Refused(action)
        })
    }

    fn check<'a>(&'a self, cx: &'a Context, unit: &'a Unit, old: Option<&'a Value>) -> Phase<'a, ()> {
        guarded::<D, _>("check", cx, async move {
            let old = old.map(read::<D, D::Live>).transpose()?;
            Deployer::check(self, cx, unit, old.as_ref()).await
        })
    }

    fn stage<'a>(&'a self, cx: &'a Context, unit: &'a Unit, old: Option<&'a Value>) -> Phase<'a, Value> {
        guarded::<D, _>("stage", cx, async move {
            let old = old.map(read::<D, D::Live>).transpose()?;
            write::<D, _>(&Deployer::stage(self, cx, unit, old.as_ref()).await?)
        })
    }

    fn activate<'a>(
        &'a self,
        cx: &'a Context,
        unit: &'a Unit,
        staged: &'a Value,
        old: Option<&'a Value>,
    ) -> Phase<'a, Value> {
        guarded::<D, _>("activate", cx, async move {
            let staged = read::<D, D::Staged>(staged)?;
            let old = old.map(read::<D, D::Live>).transpose()?;
            write::<D, _>(&Deployer::activate(self, cx, unit, &staged, old.as_ref()).await?)
        })
    }

    fn verify<'a>(&'a self, cx: &'a Context, unit: &'a Unit, live: &'a Value) -> Phase<'a, ()> {
        guarded::<D, _>("verify", cx, async move {
            let live = read::<D, D::Live>(live)?;
            Deployer::verify(self, cx, unit, &live).await
        })
    }

    fn revert<'a>(
        &'a self,
        cx: &'a Context,
        unit: &'a Unit,
        staged: &'a Value,
        old: Option<&'a Value>,
    ) -> Phase<'a, ()> {
        guarded::<D, _>("revert", cx, async move {
            let staged = read::<D, D::Staged>(staged)?;
            let old = old.map(read::<D, D::Live>).transpose()?;
            Deployer::revert(self, cx, unit, &staged, old.as_ref()).await
        })
    }

    fn retire<'a>(
        &'a self,
        cx: &'a Context,
        unit: &'a Unit,
        staged: &'a Value,
        old: Option<&'a Value>,
    ) -> Phase<'a, ()> {
        guarded::<D, _>("retire", cx, async move {
            let staged = read::<D, D::Staged>(staged)?;
            let old = old.map(read::<D, D::Live>).transpose()?;
            Deployer::retire(self, cx, unit, &staged, old.as_ref()).await
        })
    }

    fn sweep<'a>(
        &'a self,
        cx: &'a Context,
        unit: &'a Unit,
        staged: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> Phase<'a, ()> {
        guarded::<D, _>("sweep", cx, async move {
            let staged = staged.map(read::<D, D::Staged>).transpose()?;
            let old = old.map(read::<D, D::Live>).transpose()?;
            Deployer::sweep(self, cx, unit, staged.as_ref(), old.as_ref()).await
        })
    }

    fn remove<'a>(&'a self, cx: &'a Context, unit: &'a Unit, live: &'a Value) -> Phase<'a, ()> {
        guarded::<D, _>("remove", cx, async move {
            let live = read::<D, D::Live>(live)?;
            Deployer::remove(self, cx, unit, &live).await
        })
    }

    fn observe<'a>(&'a self, cx: &'a Context, live: &'a str) -> Phase<'a, Observed> {
        guarded::<D, _>("observe", cx, async move {
            let live: D::Live = serde_json::from_str(live).map_err(not_understood::<D>)?;
            Deployer::observe(self, cx, &live).await
        })
    }

    fn observe_many<'a>(&'a self, cx: &'a Context, live: &'a [&'a str]) -> Phase<'a, Option<Vec<Result<Observed>>>> {
        guarded::<D, _>("observe", cx, async move {
            let read = |live: &&str| serde_json::from_str(live).map_err(not_understood::<D>);
            let live = live.iter().map(read).collect::<Result<Vec<D::Live>>>()?;
            Ok(Deployer::observe_many(self, cx, &live).await)
        })
    }

    fn flush<'a>(&'a self, cx: &'a Context) -> Phase<'a, ()> {
        guarded::<D, _>("flush", cx, Deployer::flush(self, cx))
    }

    fn shutdown<'a>(&'a self, cx: &'a Context, ending: Ending) -> Phase<'a, ()> {
        guarded::<D, _>("end", cx, Deployer::shutdown(self, cx, ending))
    }
}

/// The deployer as the author knows it: the name of its type.
fn name<D>() -> &'static str {
    std::any::type_name::<D>()
}

fn read<D, R: Receipt>(value: &Value) -> Result<R> {
    R::deserialize(value).map_err(not_understood::<D>)
}

fn not_understood<D>(source: serde_json::Error) -> Error {
    Error::deploy(format!("understand a receipt of {}", name::<D>())).caused_by(source)
}

fn write<D, R: Receipt>(receipt: &R) -> Result<Value> {
    serde_json::to_value(receipt)
        .map_err(|source| Error::deploy(format!("write a receipt of {}", name::<D>())).caused_by(source))
}

/// Bounds a phase by its deadline and turns a panic into an error: neither may take the engine along. Much is done without
/// waiting for anything, and then no timer is made.
fn guarded<'a, D, T: 'a>(
    phase: &'static str,
    cx: &'a Context,
    work: impl Future<Output = Result<T>> + Send + 'a,
) -> Phase<'a, T> {
    Box::pin(async move {
        let mut work = pin!(work);
        let mut timer = None;
        let ended = poll_fn(|task| {
            // After a panic it is not polled again, so broken state in it is never seen.
            match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(task))) {
                Ok(Poll::Ready(result)) => return Poll::Ready(Ended::Done(result)),
                Ok(Poll::Pending) => {}
                Err(panic) => return Poll::Ready(Ended::Panicked(panic)),
            }
            // Also work that never rests, and leaves nothing of what tokio lets one task do at a time, has its deadline.
            let timer = timer.get_or_insert_with(|| Box::pin(unconstrained(sleep_until(cx.deadline().into()))));
            timer.as_mut().poll(task).map(|()| Ended::OutOfTime)
        });
        match ended.await {
            Ended::Done(result) => result,
            Ended::Panicked(panic) => {
                let panic = panic_text(panic.as_ref());
                Err(Error::deploy(format!("{phase} it: {} panicked: {panic}", name::<D>())))
            }
            Ended::OutOfTime => {
                Err(Error::new(ErrorKind::Timeout, format!("{phase} it: {} ran out of time", name::<D>())))
            }
        }
    })
}

/// How a phase ended.
enum Ended<T> {
    Done(Result<T>),
    Panicked(Box<dyn Any + Send>),
    OutOfTime,
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests;
