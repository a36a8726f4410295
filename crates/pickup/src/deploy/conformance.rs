//! A suite that any deployer runs against itself: does it keep what the engine relies on?
//!
//! A [`Subject`] says how to make the deployer over a place of its own, and what the world sees of it there. [`run`] then
//! takes it through every [`Case`]: phases repeated, reverts from any point, crashes between phases, cancellation,
//! futures dropped half-way. It answers with a [`Report`], and never panics.
//!
//! ```
//! use pickup::deploy::conformance::{Ability, Subject, Version, run};
//! use pickup::deploy::{Unit, from_fn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! # let directory = std::env::temp_dir().join(format!("pickup-conformance-{}", std::process::id()));
//! let subject = Subject::new(
//!     &directory,
//!     |place| {
//!         let live = place.join("live");
//!         from_fn(move |unit: Unit| {
//!             let live = live.clone();
//!             async move {
//!                 match unit.file() {
//!                     Some(file) => std::fs::copy(file.path()?, live).map(drop),
//!                     None => std::fs::remove_file(live),
//!                 }
//!             }
//!         })
//!     },
//!     async |_, place| std::fs::read(place.join("live")).ok(),
//! )
//! .versions(Version::file("a.txt", "one"), Version::file("a.txt", "two"))
//! .without(Ability::Undo, "a closure never sees the old version again")
//! .without(Ability::Observe, "a closure is not asked what is live");
//! let report = run(&subject).await;
//! // A second removal finds no file, and this closure fails there: it is not idempotent yet.
//! assert_eq!(report.failures().count(), 3, "{report}");
//! # std::fs::remove_dir_all(directory).unwrap();
//! # }
//! ```

mod bench;
mod case;
mod cases;
mod life;
mod look;
mod report;
mod version;

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::deploy::Deployer;

pub use case::{Ability, Case};
pub use report::{Entry, Failure, Finding, Report};
pub use version::{PICKUP, Version};

use bench::Bench;
use life::Living;

/// How long a cancelled phase may go on, unless the subject says otherwise.
const PATIENCE: Duration = Duration::from_secs(30);

type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A look at a deployer's place from outside, or an act there.
trait Outside<D, T> {
    fn look<'a>(&'a self, deployer: &'a D, place: &'a Path) -> Local<'a, T>;
}

impl<D, T, F: AsyncFn(&D, &Path) -> T> Outside<D, T> for F {
    fn look<'a>(&'a self, deployer: &'a D, place: &'a Path) -> Local<'a, T> {
        Box::pin(self(deployer, place))
    }
}

/// A deployer under test, and what the suite must know to judge it.
pub struct Subject<D> {
    make: Box<dyn Fn(&Path) -> D>,
    serving: Box<dyn Outside<D, Option<Vec<u8>>>>,
    take_away: Option<Box<dyn Outside<D, ()>>>,
    settings: Settings,
}

/// What does not depend on the type of the deployer.
struct Settings {
    directory: PathBuf,
    old: Version,
    new: Version,
    failing: Option<Version>,
    slow: Option<Version>,
    lacks: BTreeMap<Ability, String>,
    patience: Duration,
}

impl<D: Deployer> Subject<D> {
    /// A deployer that `make` makes over a place, which is an empty directory of its own for each case, and made again
    /// over the same place as after a restart. Places lie below `directory`; those of failed cases stay for a look.
    ///
    /// `serving` says what the world sees live in the place, from outside: the bytes that [`Version::serves`] says. It is
    /// given the deployer for those that are themselves the world, such as one that keeps a table in memory.
    pub fn new(
        directory: impl Into<PathBuf>,
        make: impl Fn(&Path) -> D + 'static,
        serving: impl AsyncFn(&D, &Path) -> Option<Vec<u8>> + 'static,
    ) -> Self {
        let settings = Settings {
            directory: directory.into(),
            old: Version::file("app.txt", "one"),
            new: Version::file("app.txt", "two"),
            failing: None,
            slow: None,
            lacks: BTreeMap::new(),
            patience: PATIENCE,
        };
        Self { make: Box::new(make), serving: Box::new(serving), take_away: None, settings }
    }

    /// What is deployed: two versions of one unit, both good, that serve different bytes. Default: `app.txt`, which is
    /// `one`, then `two`.
    #[must_use]
    pub fn versions(mut self, old: Version, new: Version) -> Self {
        (self.settings.old, self.settings.new) = (old, new);
        self
    }

    /// A version of the unit that fails in whichever phase before it is committed. Default: none, and what is to hold
    /// then is not applicable.
    #[must_use]
    pub fn failing(mut self, version: Version) -> Self {
        self.settings.failing = Some(version);
        self
    }

    /// A version of the unit whose activation does not end by itself, so that there is something to cancel. Default:
    /// the new version.
    #[must_use]
    pub fn slow(mut self, version: Version) -> Self {
        self.settings.slow = Some(version);
        self
    }

    /// How what is live is taken away behind the deployer's back. Default: not at all, and what is to hold then is not
    /// applicable.
    #[must_use]
    pub fn taken_away_by(mut self, take_away: impl AsyncFn(&D, &Path) + 'static) -> Self {
        self.take_away = Some(Box::new(take_away));
        self
    }

    /// Declares what this deployer is not able to do, and why. The cases that need it are not run; the report names them
    /// with the reason.
    #[must_use]
    pub fn without(mut self, ability: Ability, reason: impl Into<String>) -> Self {
        self.settings.lacks.insert(ability, reason.into());
        self
    }

    /// How long a cancelled phase may go on; any other phase gets four times as long. Default: 30 s.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.settings.patience = patience;
        self
    }
}

/// A [`Subject`] of any type.
trait AnySubject {
    fn settings(&self) -> &Settings;
    fn make(&self, place: &Path) -> Arc<dyn Living>;
    fn serving<'a>(&'a self, deployer: &'a dyn Living, place: &'a Path) -> Local<'a, Option<Vec<u8>>>;
    fn can_take_away(&self) -> bool;
    fn take_away<'a>(&'a self, deployer: &'a dyn Living, place: &'a Path) -> Local<'a, ()>;
}

impl<D: Deployer> AnySubject for Subject<D> {
    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn make(&self, place: &Path) -> Arc<dyn Living> {
        Arc::new((self.make)(place))
    }

    fn serving<'a>(&'a self, deployer: &'a dyn Living, place: &'a Path) -> Local<'a, Option<Vec<u8>>> {
        match (deployer as &dyn Any).downcast_ref::<D>() {
            Some(deployer) => self.serving.look(deployer, place),
            None => Box::pin(async { None }),
        }
    }

    fn can_take_away(&self) -> bool {
        self.take_away.is_some()
    }

    fn take_away<'a>(&'a self, deployer: &'a dyn Living, place: &'a Path) -> Local<'a, ()> {
        match ((deployer as &dyn Any).downcast_ref::<D>(), &self.take_away) {
            (Some(deployer), Some(take_away)) => take_away.look(deployer, place),
            (_, _) => Box::pin(async {}),
        }
    }
}

/// Takes the deployer through every [`Case`], one after the other.
///
/// Needs a tokio runtime with time enabled. Each life of the deployer has a runtime of its own, which ends with it, as a
/// process does.
pub async fn run<D: Deployer>(subject: &Subject<D>) -> Report {
    run_any(subject).await
}

async fn run_any(subject: &dyn AnySubject) -> Report {
    let mut entries = Vec::new();
    for case in Case::ALL {
        let finding = match not_applicable(subject, *case) {
            Some(reason) => Finding::NotApplicable(reason),
            None => judge(subject, *case).await,
        };
        entries.push(Entry { case: *case, finding });
    }
    Report { entries }
}

/// Why the case is not run, if it is not.
fn not_applicable(subject: &dyn AnySubject, case: Case) -> Option<String> {
    let settings = subject.settings();
    let lacking = case.needs().iter().find_map(|ability| settings.lacks.get(ability));
    match case {
        _ if lacking.is_some() => lacking.cloned(),
        Case::FailureLeavesTheOld if settings.failing.is_none() => Some("the subject has no failing version".into()),
        Case::TakenAwayIsNoticed if !subject.can_take_away() => {
            Some("the subject does not say how something is taken away".into())
        }
        _ => None,
    }
}

async fn judge(subject: &dyn AnySubject, case: Case) -> Finding {
    let mut bench = Bench::new(subject, case);
    let mut result = bench.renew().await;
    if result.is_ok() {
        result = cases::run(case, &mut bench).await;
    }
    bench.end(result.is_ok()).await;
    match result {
        Ok(()) => Finding::Passed,
        Err(failure) => Finding::Failed(failure),
    }
}

#[cfg(all(test, unix))]
mod tests;
