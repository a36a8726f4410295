//! Stage 6 of 8: a plan in; applied, rolled back or stuck out.
//!
//! Authors write [`Deployer`], a typed trait with `async fn`; the engine keeps an object-safe twin of it, made by one
//! blanket implementation (the shape of OpenDAL's RFC 7740).

pub(crate) mod build;
mod closure;
pub mod conformance;
#[cfg(unix)]
mod copy;
pub(crate) mod dynamic;
#[cfg(unix)]
mod exec;
pub(crate) mod expand;
mod faulty;
#[cfg(unix)]
mod http;
#[cfg(unix)]
pub(crate) mod lane;
#[cfg(target_os = "linux")]
pub mod module;
#[cfg(unix)]
pub(crate) mod place;
#[cfg(target_os = "linux")]
pub(crate) mod process;
pub(crate) mod program;
#[cfg(unix)]
mod release;
pub(crate) mod report;
#[cfg(test)]
mod testing;
pub(crate) mod verify;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::error::Result;

pub use crate::plan::{Scope, Unit, Verdict};
pub use closure::{FromFn, from_fn};
#[cfg(unix)]
pub use copy::Copy;
#[cfg(unix)]
pub use exec::Exec;
pub use faulty::{Fault, Faulty, Phase};
#[cfg(unix)]
pub use http::Http;
#[cfg(target_os = "linux")]
pub use module::Module;
#[cfg(target_os = "linux")]
pub use process::Process;
#[cfg(unix)]
pub use release::Release;
pub use report::{Happening, Reporter};

/// A serialisable fact about a deployment: paths, digests, a pid with its start time, ports. Never a handle, because
/// recovery needs it after a crash.
pub trait Receipt: Serialize + DeserializeOwned + Send + Sync + 'static {}

impl<T: Serialize + DeserializeOwned + Send + Sync + 'static> Receipt for T {}

/// What became of something that was live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Observed {
    /// It is as it was deployed.
    Alive,
    /// Somebody changed it; says what.
    Drifted(String),
    /// It is not there any more.
    Gone,
}

/// What a deployer may use while it works: everything from outside comes through here, so that tests are deterministic.
#[derive(Clone, Debug)]
pub struct Context {
    common: Arc<Common>,
    deadline: Instant,
    output: Arc<Mutex<String>>,
}

/// What is the same for all phases of all units that a deployer works on together.
#[derive(Clone, Debug)]
struct Common {
    scratch: Arc<Path>,
    home: Arc<Path>,
    reporter: Reporter,
    /// `None` if the work is never given up.
    cancel: Option<CancellationToken>,
    is_flushed: bool,
}

/// How many bytes of a deployer's output go into a record.
pub(crate) const OUTPUT_MAX: usize = 16 << 10;

impl Context {
    /// Makes a context whose `scratch` directory the deployer may fill; `timeout` bounds the phase.
    pub fn new(scratch: impl Into<PathBuf>, now: Instant, timeout: Duration) -> Self {
        let scratch = scratch.into();
        let home = scratch.join("home").into();
        Self::in_places(scratch.into(), home, Reporter::default(), now, timeout)
    }

    /// The same, with a home and somebody who hears.
    pub(crate) fn in_places(
        scratch: Arc<Path>,
        home: Arc<Path>,
        reporter: Reporter,
        now: Instant,
        timeout: Duration,
    ) -> Self {
        let common = Common { scratch, home, reporter, cancel: None, is_flushed: false };
        Self { common: common.into(), deadline: now + timeout, output: Arc::default() }
    }

    /// That of another phase, which begins at `now`.
    #[must_use]
    pub(crate) fn renewed(&mut self, now: Instant, timeout: Duration) -> Self {
        // Mostly the phase before is over, and nobody has what it said.
        match Arc::get_mut(&mut self.output) {
            Some(said) => said.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner).clear(),
            None => self.output = Arc::default(),
        }
        Self { deadline: now + timeout, ..self.clone() }
    }

    /// The same context, for one of many units that are [flushed](Deployer::flush) together.
    #[must_use]
    pub(crate) fn flushed(mut self, is_flushed: bool) -> Self {
        Arc::make_mut(&mut self.common).is_flushed = is_flushed;
        self
    }

    /// Whether [`Deployer::flush`] follows before anything depends on this phase, so that making its own work durable
    /// is not this phase's business.
    pub fn is_flushed(&self) -> bool {
        self.common.is_flushed
    }

    /// The same context, with a home and somebody who hears.
    #[must_use]
    pub(crate) fn at_home(mut self, home: PathBuf, reporter: Reporter) -> Self {
        let common = Arc::make_mut(&mut self.common);
        (common.home, common.reporter) = (home.into(), reporter);
        self
    }

    /// The same context, cancelled together with `cancel`.
    #[must_use]
    pub(crate) fn cancelled_by(mut self, cancel: &CancellationToken) -> Self {
        Arc::make_mut(&mut self.common).cancel = Some(cancel.clone());
        self
    }

    /// A private directory for this deployer and generation, on the file system of the state directory. It may not
    /// exist yet; it is removed once the generation is retired.
    pub fn scratch(&self) -> &Path {
        &self.common.scratch
    }

    /// A private directory for this deployer and pickup that stays from generation to generation. It may not exist yet.
    pub fn home(&self) -> &Path {
        &self.common.home
    }

    /// Where to say what happens to something live after the phase that made it so.
    pub fn reporter(&self) -> &Reporter {
        &self.common.reporter
    }

    /// When this phase must be over.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Waits until the work is to be given up.
    pub async fn cancelled(&self) {
        match &self.common.cancel {
            Some(cancel) => cancel.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Whether the work is to be given up.
    pub fn is_cancelled(&self) -> bool {
        self.common.cancel.as_ref().is_some_and(CancellationToken::is_cancelled)
    }

    /// Adds to what is shown when the deployment fails, such as a program's output. Only the last 16 KiB are kept.
    pub fn output(&self, text: &str) {
        let mut output = self.output.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        output.push_str(text);
        if output.len() > OUTPUT_MAX {
            let mut from = output.len() - OUTPUT_MAX;
            while !output.is_char_boundary(from) {
                from += 1;
            }
            output.drain(..from);
        }
    }

    /// Takes what was added so far.
    pub(crate) fn take_output(&self) -> String {
        std::mem::take(&mut self.output.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

/// Why a deployer is let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The engine ends; it may start again soon.
    Engine,
    /// The entry goes, or it does not name this deployer any more.
    Entry,
    /// The entry goes on with a changed configuration, and another deployer of this name takes over: at once, or once a
    /// mistake in the configuration is mended.
    Exchange,
}

/// Makes captured units live somewhere.
///
/// The engine calls the phases in this order: [`check`](Self::check), [`stage`](Self::stage),
/// [`activate`](Self::activate), [`verify`](Self::verify), and [`retire`](Self::retire) once the whole transaction is
/// committed; [`revert`](Self::revert) instead of what is left, from any point. A unit that is removed goes through
/// [`check`](Self::check) and [`remove`](Self::remove); should a later step fail, the engine stages and activates the
/// previous content again.
///
/// Every phase is idempotent for the same receipt, because recovery repeats phases after a crash: `revert`, `retire`,
/// [`sweep`](Self::sweep) and `remove` succeed when there is nothing left to do. Each is dropped at its deadline.
pub trait Deployer: Send + Sync + 'static {
    /// What was prepared beside the old version.
    type Staged: Receipt;
    /// What is live.
    type Live: Receipt;

    /// What one call is about. Default: one unit.
    fn scope(&self) -> Scope {
        Scope::Unit
    }

    /// Whether this deployer takes the unit at all. Cheap and pure. Default: yes.
    fn accepts(&self, unit: &Unit) -> Verdict {
        let _ = unit;
        Verdict::Accepted
    }

    /// Judges the unit without side effects: this is the dry run. Default: nothing to object.
    fn check(&self, cx: &Context, unit: &Unit, old: Option<&Self::Live>) -> impl Future<Output = Result<()>> + Send {
        let _ = (cx, unit, old);
        async { Ok(()) }
    }

    /// Whether [`stage`](Self::stage) leaves nothing behind but its receipt, so that nothing need be known of it after a
    /// crash. Then the engine stages before it writes down what it is about to do, which saves a write. Default: no.
    fn is_stageless(&self) -> bool {
        false
    }

    /// Prepares the unit beside what is live; nobody sees it yet.
    fn stage(
        &self,
        cx: &Context,
        unit: &Unit,
        old: Option<&Self::Live>,
    ) -> impl Future<Output = Result<Self::Staged>> + Send;

    /// Makes what was staged live. The shortest step.
    fn activate(
        &self,
        cx: &Context,
        unit: &Unit,
        staged: &Self::Staged,
        old: Option<&Self::Live>,
    ) -> impl Future<Output = Result<Self::Live>> + Send;

    /// Proves that what is live works. Default: nothing to prove.
    fn verify(&self, cx: &Context, unit: &Unit, live: &Self::Live) -> impl Future<Output = Result<()>> + Send {
        let _ = (cx, unit, live);
        async { Ok(()) }
    }

    /// Takes back what was staged, whether it was activated or not: afterwards `old` is live again.
    fn revert(
        &self,
        cx: &Context,
        unit: &Unit,
        staged: &Self::Staged,
        old: Option<&Self::Live>,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Makes durable what phases with [`Context::is_flushed`] left to it. Of a change set with many units it is called
    /// once when all are staged, before any is activated, and again before what was activated or removed is recorded.
    /// Default: nothing is left to it.
    fn flush(&self, cx: &Context) -> impl Future<Output = Result<()>> + Send {
        let _ = cx;
        async { Ok(()) }
    }

    /// Lets go of what only a revert would have needed. Default: nothing.
    fn retire(
        &self,
        cx: &Context,
        unit: &Unit,
        staged: &Self::Staged,
        old: Option<&Self::Live>,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (cx, unit, staged, old);
        async { Ok(()) }
    }

    /// Removes what may lie about of a change that is over: its receipt was lost, or it could not be reverted or retired
    /// before a newer version of the unit went live, or the unit was removed. Nothing of any other change is touched,
    /// live or not. Default: nothing lies about.
    fn sweep(
        &self,
        cx: &Context,
        unit: &Unit,
        staged: Option<&Self::Staged>,
        old: Option<&Self::Live>,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = (cx, unit, staged, old);
        async { Ok(()) }
    }

    /// Takes what is live away. Default: nothing is taken away.
    fn remove(&self, cx: &Context, unit: &Unit, live: &Self::Live) -> impl Future<Output = Result<()>> + Send {
        let _ = (cx, unit, live);
        async { Ok(()) }
    }

    /// Looks whether what is live still is. Default: it is.
    fn observe(&self, cx: &Context, live: &Self::Live) -> impl Future<Output = Result<Observed>> + Send {
        let _ = (cx, live);
        async { Ok(Observed::Alive) }
    }

    /// The same of many that are live, in their order, where one look at all costs less than one at each: a start looks
    /// at everything. All of them share one deadline. Default: `None`, and [`observe`](Self::observe) is asked of each.
    fn observe_many(
        &self,
        cx: &Context,
        live: &[Self::Live],
    ) -> impl Future<Output = Option<Vec<Result<Observed>>>> + Send {
        let _ = (cx, live);
        async { None }
    }

    /// The last call: whatever runs here and not in what was deployed, such as a program, ends or is left to a
    /// successor. Default: there is nothing that runs.
    fn shutdown(&self, cx: &Context, ending: Ending) -> impl Future<Output = Result<()>> + Send {
        let _ = (cx, ending);
        async { Ok(()) }
    }
}
