//! Every step of store, journal and deployer fails in turn: the last good version serves, the user is told, and once the
//! fault is gone all of it heals without a restart.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "the test arranges the disk and looks what came of it")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pickup::config::{CopyConfig, DeployerCommon, DeployerConfig, DeployerKind};
use pickup::deploy::{Copy, Fault, Faulty, Phase, Unit, from_fn};
use pickup::{Config, Delivery, Engine, Error, EventKind, Events, Outcome, PickupConfig, PickupStatus, SyncOptions};

/// Whether the fault is on.
#[derive(Clone, Debug, Default)]
struct Switch(Arc<AtomicBool>);

impl Switch {
    fn set(&self, is_on: bool) {
        self.0.store(is_on, Ordering::SeqCst);
    }

    fn is_on(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// What fails.
#[derive(Clone, Copy, Debug)]
enum Broken {
    /// This step of the store, with this error number.
    Store(&'static str, i32),
    /// This write of the journal.
    Journal(&'static str),
    /// The answer to this write, which is done.
    JournalAnswer(&'static str),
    /// This phase of the deployer.
    Phase(Phase, fn() -> Fault),
}

fn copy(base: &Path) -> CopyConfig {
    CopyConfig { into: base.join("out").display().to_string(), mode: None, owner: None, strip: 0, durable: false }
}

async fn started(base: &Path, broken: Broken, switch: &Switch) -> (Engine, Events) {
    let common = DeployerCommon {
        retry: 0,
        retry_backoff: Duration::from_millis(20),
        timeout: Duration::from_secs(5),
        ..DeployerCommon::default()
    };
    let kind = DeployerKind::Copy(copy(base));
    let config = Config::default()
        .state_dir(base.join("state"))
        .pickup(PickupConfig::new("p", base.join("in")))
        .deployer(DeployerConfig { name: "default".into(), kind, common });
    let seen = switch.clone();
    let deployer = Faulty::new(Copy::new(copy(base)), move |phase, _unit| match broken {
        Broken::Phase(wanted, fault) if wanted == phase && seen.is_on() => Some(fault()),
        Broken::Phase(..) | Broken::Store(..) | Broken::Journal(_) | Broken::JournalAnswer(_) => None,
    });
    let (at_store, at_journal) = (switch.clone(), switch.clone());
    let builder = Engine::builder(config)
        .deployer("default", deployer)
        .on_store_write(move |step| match broken {
            Broken::Store(wanted, number) if wanted == step && at_store.is_on() => {
                Err(std::io::Error::from_raw_os_error(number))
            }
            Broken::Store(..) | Broken::Journal(_) | Broken::JournalAnswer(_) | Broken::Phase(..) => Ok(()),
        })
        .on_journal_write(move |write, is_done| match broken {
            Broken::Journal(wanted) if wanted == write && !is_done && at_journal.is_on() => {
                Err(Error::deploy(format!("write `{write}` to the journal: the test's disk is full")).transient())
            }
            Broken::JournalAnswer(wanted) if wanted == write && is_done && at_journal.is_on() => {
                Err(Error::deploy(format!("hear that `{write}` is in the journal: the test's disk is full"))
                    .transient())
            }
            Broken::Store(..) | Broken::Journal(_) | Broken::JournalAnswer(_) | Broken::Phase(..) => Ok(()),
        });
    let events = builder.subscribe();
    (builder.start().await.unwrap(), events)
}

/// Waits until the status is as wanted; the panic shows the last one.
async fn status(engine: &Engine, wanted: impl Fn(&PickupStatus) -> bool) -> PickupStatus {
    let mut last = None;
    let found = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            let status = engine.status(Some("p")).await.unwrap().remove(0);
            if wanted(&status) {
                return status;
            }
            last = Some(status);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("never as wanted: {last:#?}"))
}

async fn wait_for(events: &mut Events, wanted: impl Fn(&EventKind) -> bool) {
    let mut seen = Vec::new();
    let found = tokio::time::timeout(Duration::from_secs(60), async {
        while let Some(Delivery::Event(event)) = events.next().await {
            if wanted(&event.kind) {
                return;
            }
            seen.push(event.kind);
        }
        std::future::pending().await
    });
    if found.await.is_err() {
        panic!("no such event among {seen:#?}");
    }
}

/// Breaks it, changes a file, and looks that the old version serves and `why` is said; then mends it and looks that the
/// new one is live, and nothing is left.
async fn heals(broken: Broken, said: &str) {
    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    std::fs::create_dir(base.join("in")).unwrap();
    std::fs::write(base.join("in/a"), "one").unwrap();
    let switch = Switch::default();
    let (engine, mut events) = started(&base, broken, &switch).await;
    wait_for(&mut events, |kind| matches!(kind, EventKind::Deployed { .. })).await;
    let options = SyncOptions { until_final: true, ..SyncOptions::default() };
    engine.sync(None, options).await.unwrap();
    switch.set(true);
    std::fs::write(base.join("in/a"), "two, and longer").unwrap();
    let status_now = status(&engine, |status| status.trouble.is_some() || !status.failed.is_empty()).await;
    let told = format!("{:?} {:?}", status_now.trouble, status_now.failed);
    assert!(told.contains(said), "{broken:?}: {told}");
    wait_for(&mut events, |kind| match kind {
        EventKind::Troubled { cause } | EventKind::RolledBack { cause, .. } => cause.contains(said),
        _ => false,
    })
    .await;
    // Where only the end of it cannot be recorded, the new version is live already, and is whole.
    let live = std::fs::read_to_string(base.join("out/a")).unwrap();
    let is_live = matches!(broken, Broken::Journal("retire" | "finish"));
    assert_eq!(live, if is_live { "two, and longer" } else { "one" }, "{broken:?}");
    switch.set(false);
    let is_quarantined = status_now.failed.iter().any(|failed| failed.retry_at.is_none());
    if is_quarantined {
        assert_eq!(engine.retry("p", None).await.unwrap(), 1);
    }
    status(&engine, |status| status.trouble.is_none() && status.failed.is_empty() && status.pending.is_empty()).await;
    engine.sync(None, options).await.unwrap();
    assert_eq!(std::fs::read_to_string(base.join("out/a")).unwrap(), "two, and longer", "{broken:?}");
    let history = engine.history(None, 100).unwrap();
    assert!(history.iter().all(|deployment| deployment.outcome != Outcome::Open), "{broken:?}: {history:#?}");
    engine.shutdown().await;
    let left: Vec<_> = std::fs::read_dir(base.join("out")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["a"], "{broken:?}");
    assert_eq!(std::fs::read_dir(base.join("state/store/tmp")).unwrap().count(), 0, "{broken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_written_keeps_the_old_version_and_heals() {
    for (step, number, said) in [
        ("create", libc::ENOSPC, "No space left on device"),
        ("write", libc::ENOSPC, "No space left on device"),
        ("rename", libc::EIO, "Input/output error"),
    ] {
        heals(Broken::Store(step, number), said).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_cannot_be_written_keeps_the_old_version_and_heals() {
    for write in ["intend", "stage", "commit"] {
        heals(Broken::Journal(write), "the test's disk is full").await;
    }
    for write in ["intend", "stage"] {
        heals(Broken::JournalAnswer(write), "the test's disk is full").await;
    }
}

/// One version after the other, with this fault on from the second on until all is asked to be tried again.
async fn goes_on(broken: Broken) {
    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    std::fs::create_dir(base.join("in")).unwrap();
    std::fs::write(base.join("in/a"), "one").unwrap();
    let switch = Switch::default();
    let (engine, _events) = started(&base, broken, &switch).await;
    let options = SyncOptions { until_final: true, ..SyncOptions::default() };
    engine.sync(None, options).await.unwrap();
    switch.set(true);
    for (name, content) in [("a", "two"), ("b", "new")] {
        std::fs::write(base.join("in").join(name), content).unwrap();
        let report = engine.sync(None, options).await.unwrap().remove(0);
        assert!(report.is_success(), "{broken:?}: {report:?}");
        assert_eq!(std::fs::read_to_string(base.join("out").join(name)).unwrap(), content, "{broken:?}");
    }
    switch.set(false);
    engine.retry("p", None).await.unwrap();
    engine.sync(None, options).await.unwrap();
    let history = engine.history(None, 100).unwrap();
    assert!(history.iter().all(|deployment| deployment.outcome == Outcome::Applied), "{broken:?}: {history:#?}");
    engine.shutdown().await;
    let mut left: Vec<_> =
        std::fs::read_dir(base.join("out")).unwrap().flatten().map(|entry| entry.file_name()).collect();
    left.sort();
    assert_eq!(left, ["a", "b"], "{broken:?}");
    assert_eq!(std::fs::read_dir(base.join("state/work/p")).map_or(0, Iterator::count), 0, "{broken:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_written_counts_whatever_was_answered() {
    goes_on(Broken::JournalAnswer("commit")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_let_go_of_holds_nothing_up_and_is_tried_again() {
    goes_on(Broken::Phase(Phase::Retire, || Fault::Fail(Error::deploy("let go of it")))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_cannot_be_recorded_is_recorded_without_a_restart() {
    for write in ["retire", "finish"] {
        heals(Broken::Journal(write), "record the end of a deployment").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployer_that_fails_in_any_phase_keeps_the_old_version_and_heals() {
    let fail = || Fault::Fail(Error::deploy("do what the test does not want"));
    for phase in [Phase::Check, Phase::Stage, Phase::Activate, Phase::Verify] {
        heals(Broken::Phase(phase, fail), "what the test does not want").await;
    }
    let fail_late = || Fault::FailAfter(Error::deploy("do what the test does not want"));
    for phase in [Phase::Activate, Phase::Verify] {
        heals(Broken::Phase(phase, fail_late), "what the test does not want").await;
    }
    heals(Broken::Phase(Phase::Verify, || Fault::Panic), "panicked").await;
    heals(Broken::Phase(Phase::Activate, || Fault::Hang), "ran out of time").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_a_version_that_is_taken_back_is_over() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    std::fs::create_dir(base.join("in")).unwrap();
    std::fs::write(base.join("in/a"), "one").unwrap();
    let switch = Switch::default();
    let broken = Broken::Phase(Phase::Verify, || Fault::Fail(Error::deploy("start")));
    let (engine, mut events) = started(&base, broken, &switch).await;
    wait_for(&mut events, |kind| matches!(kind, EventKind::Deployed { .. })).await;
    switch.set(true);
    std::fs::write(base.join("in/a"), "bad").unwrap();
    status(&engine, |status| !status.failed.is_empty()).await;
    std::fs::write(base.join("in/a"), "one").unwrap();
    status(&engine, |status| status.failed.is_empty()).await;
    let report = engine.sync(None, SyncOptions::default()).await.unwrap().remove(0);
    assert!(report.is_success(), "{report:?}");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_that_fails_half_way_leaves_what_is_on_disk_live() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    std::fs::create_dir(base.join("in")).unwrap();
    let options = SyncOptions { until_final: true, ..SyncOptions::default() };
    let switch = Switch::default();
    let broken = Broken::Phase(Phase::Remove, || Fault::Fail(Error::deploy("take it away")));
    std::fs::write(base.join("in/a"), "one").unwrap();
    let (engine, _events) = started(&base, broken, &switch).await;
    engine.sync(None, options).await.unwrap();
    std::fs::write(base.join("in/a"), "two").unwrap();
    std::fs::write(base.join("in/b"), "new").unwrap();
    engine.sync(None, options).await.unwrap();
    // Back to where `b` was not: `a` goes back, and `b` cannot be taken away.
    switch.set(true);
    let first = engine.history(None, 10).unwrap().last().unwrap().generation;
    engine.rollback("p", Some(first)).await.unwrap_err();
    switch.set(false);
    let report = engine.sync(None, options).await.unwrap().remove(0);
    assert!(report.is_success() && report.waiting.is_empty(), "{report:?}");
    for (name, wanted) in [("a", "two"), ("b", "new")] {
        assert_eq!(std::fs::read_to_string(base.join("out").join(name)).unwrap(), wanted);
    }
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_a_rollback_is_told_that_the_disk_is_full() {
    let base = tempfile::tempdir().unwrap();
    let base = base.path().canonicalize().unwrap();
    std::fs::create_dir(base.join("in")).unwrap();
    let (switch, asked) = (Switch::default(), AtomicUsize::new(0));
    let is_full = switch.clone();
    // There is room for what is captured in memory, and none when that is to be written.
    let at_store = move |step: &str| match step {
        "write" if is_full.is_on() && asked.fetch_add(1, Ordering::SeqCst) > 0 => {
            Err(std::io::Error::from_raw_os_error(28))
        }
        _ => Ok(()),
    };
    let config = Config::default().state_dir(base.join("state")).pickup(PickupConfig::new("p", base.join("in")));
    let deployer = from_fn(|_unit: Unit| async { Ok::<(), Error>(()) });
    let engine = Engine::builder(config).deployer("default", deployer).on_store_write(at_store).start().await.unwrap();
    for content in ["one", "two"] {
        std::fs::write(base.join("in/a"), content).unwrap();
        engine.sync(None, SyncOptions::default()).await.unwrap();
    }
    let last = engine.history(None, 10).unwrap().first().unwrap().generation;
    engine.rollback("p", None).await.unwrap();
    switch.set(true);
    std::fs::write(base.join("in/b"), "while it is held").unwrap();
    engine.sync(None, SyncOptions::default()).await.unwrap();
    let error = engine.rollback("p", Some(last)).await.unwrap_err().to_string();
    assert!(error.contains("os error 28"), "{error}");
    switch.set(false);
    assert_eq!(engine.rollback("p", Some(last)).await.unwrap(), last);
    engine.shutdown().await;
}
