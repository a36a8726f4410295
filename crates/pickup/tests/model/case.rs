//! One run: what follows from its seed, the engine's lives, and what is done to it meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pickup::config::{
    CopyConfig, DeployerCommon, DeployerConfig, DeployerKind, ReleaseConfig, Settings, UnitKind, WatchMode,
};
use pickup::deploy::{Copy, Faulty, Release};
use pickup::{Config, Engine, ErrorKind, PickupConfig, Result, SyncOptions, SyncReport};

use crate::check;
use crate::faults::{Life, Rates, Violations};
use crate::payload::Completed;
use crate::random::Random;
use crate::world::World;

/// Longer than anything may take, on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(30);
const NAME: &str = "model";

/// What a seed decides.
#[derive(Debug)]
pub(crate) struct Shape {
    pub unit: UnitKind,
    /// In the order of `deploy_to`.
    pub deployers: Vec<&'static str>,
    pub watch: WatchMode,
    rates: Rates,
    /// How likely a crash is, in percent of the steps, and in calls of the journal's hook.
    pub crashes: bool,
    reloads: bool,
    rollbacks: bool,
    steps: usize,
}

impl Shape {
    fn new(random: &mut Random) -> Self {
        const SHAPES: [(UnitKind, &[&str]); 6] = [
            (UnitKind::File, &["one"]),
            (UnitKind::File, &["one", "two"]),
            (UnitKind::File, &["release"]),
            (UnitKind::File, &["one", "release"]),
            (UnitKind::Directory, &["one"]),
            (UnitKind::Tree, &["release"]),
        ];
        let (unit, deployers) = random.of(&SHAPES);
        let rates = Rates {
            phase: *random.of(&[0, 3, 10, 40]),
            revert: *random.of(&[0, 0, 0, 20]),
            hang: *random.of(&[0, 0, 20]),
            journal: *random.of(&[0, 0, 0, 5]),
            store: *random.of(&[0, 0, 0, 10]),
        };
        Self {
            unit: *unit,
            deployers: deployers.to_vec(),
            watch: *random.of(&[WatchMode::Auto, WatchMode::Auto, WatchMode::Auto, WatchMode::Poll]),
            rates,
            crashes: random.percent(50),
            reloads: random.percent(30),
            rollbacks: random.percent(30),
            steps: 10 + random.below(60),
        }
    }
}

impl Shape {
    /// Whether taking back may fail.
    pub(crate) fn may_stick(&self) -> bool {
        self.rates.revert > 0
    }
}

/// One run.
pub(crate) struct Case {
    pub seed: u64,
    pub base: PathBuf,
    pub shape: Shape,
    random: Random,
    completed: Arc<Completed>,
    pub violations: Violations,
    lives: u64,
    life: Option<Arc<Life>>,
    /// What was done, for whoever has to find out why it went wrong.
    pub log: Vec<String>,
}

impl Case {
    pub(crate) fn new(seed: u64, base: &Path) -> Self {
        let mut random = Random::new(seed);
        let shape = Shape::new(&mut random);
        let (completed, violations) = (Arc::default(), Violations::default());
        Self {
            seed,
            base: base.to_path_buf(),
            shape,
            random,
            completed,
            violations,
            lives: 0,
            life: None,
            log: Vec::new(),
        }
    }

    pub(crate) fn target(&self, deployer: &str) -> PathBuf {
        self.base.join(deployer)
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.base.join("state")
    }

    fn config(&self, deploy_to: Option<&[&str]>, timeout: Duration) -> Config {
        let state_dir = self.state_dir();
        let mut config = Config { settings: Settings { state_dir, ..Settings::default() }, ..Config::default() };
        let retry_backoff = Duration::from_millis(5);
        for name in ["one", "two", "release"] {
            let common = DeployerCommon { retry: 2, retry_backoff, timeout, ..DeployerCommon::default() };
            let kind = match name {
                "release" => DeployerKind::Release(self.release()),
                copy => DeployerKind::Copy(self.copy(copy)),
            };
            config = config.deployer(DeployerConfig { name: name.into(), kind, common });
        }
        let Some(deploy_to) = deploy_to else { return config };
        config.pickup(PickupConfig {
            unit: self.shape.unit,
            watch: self.shape.watch,
            quiet: Duration::from_millis(2),
            settle: Duration::from_millis(30),
            poll_interval: Duration::from_millis(20),
            deploy_to: deploy_to.iter().map(|name| (*name).into()).collect(),
            ..PickupConfig::new(NAME, self.base.join("in"))
        })
    }

    fn copy(&self, name: &str) -> CopyConfig {
        let into = self.target(name).display().to_string();
        CopyConfig { into, mode: None, owner: None, strip: 0, durable: false }
    }

    fn release(&self) -> ReleaseConfig {
        let into = self.target("release").display().to_string();
        ReleaseConfig { into, keep: 2, link: "current".into(), shared: Vec::new(), durable: false }
    }

    /// While faults may hang, a phase has to end soon; otherwise no machine may be too slow for it.
    fn timeout(&self) -> Duration {
        if self.shape.rates.hang > 0 { Duration::from_millis(150) } else { PATIENCE }
    }

    async fn start(&mut self, config: Config) -> (Engine, Arc<Life>) {
        self.lives += 1;
        let crash = self.shape.crashes.then(|| self.random.next() % 60 + 1);
        let seed = self.seed ^ (self.lives << 48);
        let (completed, violations) = (self.completed.clone(), self.violations.clone());
        let life = Arc::new(Life::new(seed, (self.shape.unit, self.shape.rates), crash, completed, violations));
        self.life = Some(life.clone());
        loop {
            let mut builder = Engine::builder(config.clone());
            for name in ["one", "two"] {
                let faults = life.clone();
                let decide = move |phase, unit: Option<&_>| faults.deployer(name, phase, unit);
                builder = builder.deployer(name, Faulty::new(Copy::new(self.copy(name)), decide));
            }
            let faults = life.clone();
            let release = Release::new(self.release()).expect("a release");
            let decide = move |phase, unit: Option<&_>| faults.deployer("release", phase, unit);
            builder = builder.deployer("release", Faulty::new(release, decide));
            let (journal, store) = (life.clone(), life.clone());
            let builder = builder
                .on_journal_write(move |write, is_done| journal.journal(write, is_done))
                .on_store_write(move |step| store.store(step));
            let started = builder.start().await;
            match started {
                Ok(engine) => return (engine, life),
                // A call that was given up may still hold the engine before.
                Err(error) if error.kind() == ErrorKind::Busy => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => panic!("start: {error}"),
            }
        }
    }

    /// Everything, from an empty directory to the verdict; gives what is wrong.
    pub(crate) async fn run(&mut self) -> Vec<String> {
        let standard = self.shape.deployers.clone();
        let writers = 1 + self.random.below(4);
        // Known: `copy` takes one for the other only if they are units of their own, and transactions of their own.
        // And what a crash leaves of a directory, empty, is in the way of a file of that name.
        let is_able = self.shape.unit != UnitKind::Directory && standard != ["one", "release"];
        let swaps_kinds = is_able && !self.shape.crashes;
        let (root, outside) = (self.base.join("in"), self.base.join("outside"));
        let mut world = World::new(root, outside, writers, swaps_kinds, self.completed.clone());
        for _ in 0..self.random.below(30) {
            world.step(&mut self.random);
        }
        let config = self.config(Some(&standard), self.timeout());
        let (mut engine, mut life) = self.start(config).await;
        for step in 0..self.shape.steps {
            let did = world.step(&mut self.random);
            self.log.push(format!("{step}: {did}"));
            if self.random.percent(30) {
                tokio::time::sleep(Duration::from_millis(self.random.next() % 15)).await;
            }
            if self.shape.crashes && self.random.percent(3) {
                life.die();
            }
            if life.is_dead() || self.random.percent(2) {
                self.log.push(format!("{step}: the engine stops, dead: {}", life.is_dead()));
                // With everything failing it can do no more than a dead process does.
                engine.shutdown().await;
                drop(engine);
                for _ in 0..self.random.below(10) {
                    world.step(&mut self.random);
                }
                let config = self.config(Some(&standard), self.timeout());
                (engine, life) = self.start(config).await;
            }
            self.act(step, &engine).await;
            if self.random.percent(20) {
                check::observe(self, &self.completed, false);
            }
        }
        world.finish(&mut self.random);
        life.calm();
        if life.is_dead() || self.random.percent(30) {
            self.log.push(format!("end: the engine stops, dead: {}", life.is_dead()));
            engine.shutdown().await;
            drop(engine);
            // A fault of its beginning would hang for as long as this deadline.
            let rates = Rates { phase: 0, revert: 0, hang: 0, journal: 0, store: 0 };
            let (stormy, crashes) = (self.shape.rates, self.shape.crashes);
            (self.shape.rates, self.shape.crashes) = (rates, false);
            let config = self.config(Some(&standard), PATIENCE);
            (engine, _) = self.start(config).await;
            (self.shape.rates, self.shape.crashes) = (stormy, crashes);
        }
        self.settle(&engine, &standard).await;
        check::observe(self, &self.completed, true);
        check::live(self);
        let ended = async {
            engine.shutdown().await;
            Ok::<(), pickup::Error>(())
        };
        self.within("shutdown", ended).await;
        check::records(self);
        self.violations.all()
    }

    /// What operators do.
    async fn act(&mut self, step: usize, engine: &Engine) {
        let options = SyncOptions { confirm_removals: self.random.percent(50), until_final: false };
        match self.random.below(40) {
            0 | 1 => {
                self.log.push(format!("{step}: sync"));
                self.within("sync", async { engine.sync(None, options).await.map(drop) }).await;
            }
            2 => {
                self.log.push(format!("{step}: retry"));
                self.within("retry", async { engine.retry(NAME, None).await }).await;
            }
            3 | 4 if self.shape.rollbacks => {
                self.log.push(format!("{step}: rollback"));
                self.within("rollback", async { engine.rollback(NAME, None).await }).await;
            }
            5..=7 if self.shape.rollbacks => {
                self.log.push(format!("{step}: release"));
                self.within("release", async { engine.release(NAME).await }).await;
            }
            8 | 9 if self.shape.reloads => {
                let other = [self.shape.deployers.as_slice(), &["one"], &["two"], &["two", "one"]];
                let chosen = (*self.random.of(&other)).to_vec();
                let deploy_to = (!self.random.percent(25)).then_some(chosen);
                self.log.push(format!("{step}: reload {deploy_to:?}"));
                let config = self.config(deploy_to.as_deref(), self.timeout());
                self.within("reload", async { engine.reload(config).await }).await;
            }
            _ => {}
        }
    }

    /// Waits for it. That it fails is said by what comes of it; that it never ends is said here.
    async fn within<T>(&mut self, what: &str, work: impl Future<Output = Result<T>>) -> Option<T> {
        // A dead engine answers nobody.
        let life = self.life.clone();
        let is_dead = async {
            while life.as_ref().is_none_or(|life| !life.is_dead()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let work = async {
            tokio::select! {
                done = work => done,
                () = is_dead => Err(pickup::Error::deploy("answer: the engine is dead")),
            }
        };
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                self.log.push(format!("{what}: {error}"));
                None
            }
            Err(_) => {
                self.violations.add(format!("{what} hangs"));
                None
            }
        }
    }

    /// No more faults, nobody writes: what an operator does who wants everything live.
    async fn settle(&mut self, engine: &Engine, standard: &[&str]) {
        if self.shape.reloads || self.shape.rates.hang > 0 {
            let config = self.config(Some(standard), PATIENCE);
            self.within("reload", async { engine.reload(config).await }).await;
        }
        self.within("release", async { engine.release(NAME).await }).await;
        let options = SyncOptions { confirm_removals: true, until_final: true };
        // What was begun under faults may fail yet.
        self.within("a sync", async { engine.sync(None, options).await }).await;
        self.within("retry", async { engine.retry(NAME, None).await }).await;
        let reports = self.within("the last sync", async { engine.sync(None, options).await }).await;
        if reports.is_none() {
            self.violations.add("the last sync fails");
        }
        for report in reports.unwrap_or_default() {
            let SyncReport { failed, waiting, trouble, .. } = &report;
            if !failed.is_empty() || !waiting.is_empty() || trouble.is_some() {
                self.violations.add(format!("the last sync says {report:?}"));
            }
        }
        if !self.violations.all().is_empty() {
            let status = tokio::time::timeout(PATIENCE, engine.status(None)).await;
            self.log.push(format!("{status:?}"));
        }
    }
}
