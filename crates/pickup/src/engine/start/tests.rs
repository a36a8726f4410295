//! A journal that was closed in order and then damaged: told of, and set aside by the next start.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::config::UnitKind;
use crate::deploy::{Context, Deployer, Unit, from_fn};
use crate::engine::PlanOptions;
use crate::event::{Delivery, EventKind, Events};
use crate::source::Fingerprint;
use crate::{Config, Engine, PickupConfig, SyncOptions};

const PAGE: usize = 4096;

/// In a test that passes nobody waits for this.
const CAP: Duration = Duration::from_secs(60);

/// A state directory with a journal, and what is deployed.
struct Case {
    directory: tempfile::TempDir,
    deployed: Arc<Mutex<BTreeSet<String>>>,
}

impl Case {
    /// `in/a` was deployed, the journal was closed in order, and the disk lost the first page of this table or index.
    async fn without(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let case = Self { directory, deployed: Arc::default() };
        case.add("a");
        let (engine, _) = case.started(CAP).await;
        engine.sync(None, SyncOptions::default()).await.unwrap();
        case.end(engine).await;
        assert!(case.path("state/journal.closed").exists());
        let page = pages(&case.path("state/journal.db")).into_iter().find(|page| page.1 == name).unwrap().0;
        let mut bytes = fs::read(case.path("state/journal.db")).unwrap();
        bytes[(page as usize - 1) * PAGE..][..PAGE].fill(0xa5);
        fs::write(case.path("state/journal.db"), bytes).unwrap();
        // Nobody wrote to the file, as far as can be told.
        let identity = Fingerprint::of(&fs::symlink_metadata(case.path("state/journal.db")).unwrap());
        fs::write(case.path("state/journal.closed"), serde_json::to_vec(&identity).unwrap()).unwrap();
        case.deployed.lock().unwrap().clear();
        case
    }

    /// Adds a unit, about which there is something in each table.
    fn add(&self, name: &str) {
        let unit = self.path("in").join(name);
        fs::create_dir_all(&unit).unwrap();
        fs::write(unit.join("file"), name).unwrap();
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.directory.path().canonicalize().unwrap().join(path)
    }

    async fn started(&self, check_pause: Duration) -> (Engine, Events) {
        let pickup = PickupConfig::new("p", self.path("in"));
        let (deploy_to, unit) = (vec!["mine".into()], UnitKind::Directory);
        let pickup = PickupConfig { deploy_to, unit, settle: Duration::from_millis(1), ..pickup };
        let deployed = self.deployed.clone();
        let deployer = from_fn(move |unit: Unit| {
            deployed.lock().unwrap().insert(unit.path.to_string());
            std::future::ready(Ok::<(), std::io::Error>(()))
        });
        let config = Config::default().state_dir(self.path("state")).pickup(pickup);
        let mut builder = Engine::builder(config).deployer("mine", deployer);
        builder.check_pause = check_pause;
        let events = builder.subscribe();
        (builder.start().await.unwrap(), events)
    }

    /// Ends it, and waits until nobody has the journal open.
    async fn end(&self, engine: Engine) {
        engine.shutdown().await;
        drop(engine);
        let log = self.path("state/journal.db-wal");
        let closed = async {
            while log.exists() {
                tokio::task::yield_now().await;
            }
        };
        timeout(CAP, closed).await.unwrap();
    }
}

/// The first page of each table and index.
fn pages(journal: &Path) -> Vec<(u32, String)> {
    let journal = Connection::open(journal).unwrap();
    let mut list = journal.prepare("SELECT rootpage, name FROM sqlite_schema WHERE rootpage > 1").unwrap();
    let rows = list.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// What is said next of the journal, and of no pickup.
async fn trouble(events: &mut Events) -> String {
    let said = async {
        loop {
            match events.next().await.unwrap() {
                Delivery::Event(event) if event.pickup.is_empty() => match &event.kind {
                    EventKind::Troubled { cause } => return cause.clone(),
                    other => panic!("{other:?}"),
                },
                _ => {}
            }
        }
    };
    timeout(CAP, said).await.unwrap()
}

#[tokio::test]
async fn damage_that_nobody_meets_is_found_some_time_after_the_start() {
    for name in ["step", "change", "brief"] {
        let case = Case::without(name).await;
        let (engine, mut events) = case.started(Duration::ZERO).await;
        let said = trouble(&mut events).await;
        let state = case.path("state");
        assert!(said.starts_with(&format!("the journal in {} is damaged (Tree ", state.display())), "{said}");
        case.end(engine).await;
        assert!(!state.join("journal.closed").exists(), "{name}: the next start checks it");
    }
}

#[tokio::test]
async fn damage_that_somebody_meets_is_told_of_at_once_and_the_next_start_heals_it() {
    let intact = tempfile::tempdir().unwrap();
    drop(crate::journal::Journal::open(intact.path(), None, 0).unwrap());
    // A deployment of trees is not brief.
    for (_, name) in pages(&intact.path().join("journal.db")).into_iter().filter(|(_, name)| name != "brief") {
        let case = Case::without(&name).await;
        case.add("b");
        let (engine, mut events) = case.started(CAP * 1000).await;
        let said = trouble(&mut events).await;
        assert!(said.contains("Restart to go on"), "{name}: {said}");
        case.end(engine).await;
        case.deployed.lock().unwrap().clear();
        let (engine, mut events) = case.started(CAP * 1000).await;
        let said = trouble(&mut events).await;
        assert!(said.contains("is set aside as"), "{name}: {said}");
        engine.sync(None, SyncOptions::default()).await.unwrap();
        assert_eq!(*case.deployed.lock().unwrap(), ["a", "b"].map(str::to_owned).into(), "{name}");
        case.end(engine).await;
    }
}

#[tokio::test]
async fn what_is_deployed_is_on_the_disk_before() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    fs::create_dir(base.join("in")).unwrap();
    fs::write(base.join("in/a"), "content").unwrap();
    let (recent, seen) = (base.join("state/store/recent"), Arc::new(Mutex::new(Vec::new())));
    let deployer = from_fn({
        let seen = seen.clone();
        move |_: Unit| {
            let stored = fs::read(&recent).unwrap_or_default();
            seen.lock().unwrap().push(stored.ends_with(b"content"));
            std::future::ready(Ok::<(), std::io::Error>(()))
        }
    });
    let pickup = PickupConfig { deploy_to: vec!["mine".into()], ..PickupConfig::new("p", base.join("in")) };
    let config = Config::default().state_dir(base.join("state")).pickup(pickup);
    let engine = Engine::builder(config).deployer("mine", deployer).start().await.unwrap();
    engine.sync(None, SyncOptions::default()).await.unwrap();
    engine.shutdown().await;
    assert_eq!(*seen.lock().unwrap(), [true]);
}

/// Reads each file when it is asked for its judgement, and takes its time to activate `a`.
struct Slow {
    begun: Semaphore,
    go: Semaphore,
}

impl Deployer for Arc<Slow> {
    type Staged = ();
    type Live = ();

    async fn check(&self, _: &Context, unit: &Unit, _: Option<&()>) -> crate::Result<()> {
        unit.file().map_or(Ok(()), |file| file.read().map(drop))
    }

    async fn stage(&self, _: &Context, _: &Unit, _: Option<&()>) -> crate::Result<()> {
        Ok(())
    }

    async fn activate(&self, _: &Context, unit: &Unit, _: &(), _: Option<&()>) -> crate::Result<()> {
        if unit.path.as_path() == Path::new("a") {
            self.begun.add_permits(1);
            self.go.acquire().await.unwrap().forget();
        }
        Ok(())
    }

    async fn revert(&self, _: &Context, _: &Unit, _: &(), _: Option<&()>) -> crate::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_reads_what_was_captured_while_a_deployer_is_slow() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    fs::create_dir(base.join("in")).unwrap();
    fs::write(base.join("in/a"), "a").unwrap();
    let pickup = PickupConfig { deploy_to: vec!["mine".into()], ..PickupConfig::new("p", base.join("in")) };
    let config = Config::default().state_dir(base.join("state")).pickup(pickup);
    let slow = Arc::new(Slow { begun: Semaphore::new(0), go: Semaphore::new(0) });
    let engine = Engine::builder(config).deployer("mine", slow.clone()).start().await.unwrap();
    timeout(CAP, slow.begun.acquire()).await.unwrap().unwrap().forget();
    fs::write(base.join("b"), "b").unwrap();
    // Long ago: whoever plans need not look at it once more.
    let file = fs::File::options().write(true).open(base.join("b")).unwrap();
    file.set_modified(std::time::SystemTime::now() - CAP).unwrap();
    drop(file);
    fs::rename(base.join("b"), base.join("in/b")).unwrap();
    let captured = async {
        while engine.status(None).await.unwrap()[0].files < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(CAP, captured).await.unwrap();
    let report = engine.plan(None, PlanOptions::default()).await.unwrap();
    slow.go.add_permits(1);
    engine.shutdown().await;
    let report = format!("{report:?}");
    assert!(report.contains("objection: None") && !report.contains("objection: Some"), "{report}");
}
