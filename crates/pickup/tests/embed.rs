//! The engine as the program that embeds it sees it.
#![expect(clippy::disallowed_methods, reason = "the test arranges the disk and looks what came of it")]

use std::path::Path;
use std::time::Duration;

use pickup::config::{CopyConfig, DeployerCommon, DeployerConfig, DeployerKind};
use pickup::deploy::{Context, Deployer, Unit};
use pickup::{Config, Delivery, Engine, Error, EventKind, Events, PickupConfig, SyncOptions};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Watches `in` and copies into `out`, both below `base`.
fn config(name: &str, base: &Path) -> Config {
    let into = base.join("out").to_str().unwrap().to_owned();
    let kind = DeployerKind::Copy(CopyConfig { into, mode: None, owner: None, strip: 0, durable: false });
    let common = DeployerCommon { retry_backoff: Duration::from_millis(20), ..DeployerCommon::default() };
    Config::default()
        .state_dir(base.join("state"))
        .pickup(PickupConfig::new(name, base.join("in")))
        .deployer(DeployerConfig { name: "default".into(), kind, common })
}

async fn started(name: &str, base: &Path) -> (Engine, Events) {
    let builder = Engine::builder(config(name, base));
    let events = builder.subscribe();
    (builder.start().await.unwrap(), events)
}

/// Waits for an event; the panic names those that came instead.
async fn wait_for(events: &mut Events, wanted: impl Fn(&EventKind) -> bool) {
    let mut seen = Vec::new();
    let found = tokio::time::timeout(Duration::from_secs(20), async {
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

fn is_deployed(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Deployed { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_from_before_the_start_misses_nothing_and_sees_the_end() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("in")).unwrap();
    std::fs::write(base.path().join("in/a"), "x").unwrap();
    let (engine, mut events) = started("test", base.path()).await;
    let Some(Delivery::Event(first)) = events.next().await else { panic!("no event") };
    assert_eq!(first.sequence, 1);
    wait_for(&mut events, is_deployed).await;
    engine.shutdown().await;
    // `engine` is still there: the end of the events is that of the engine, not of its last handle.
    let end = tokio::time::timeout(Duration::from_secs(20), async { while events.next().await.is_some() {} });
    end.await.expect("the events end with the engine");
    assert!(engine.subscribe().next().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_counts_what_went_live_before_a_sync_was_asked_for() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("in")).unwrap();
    std::fs::write(base.path().join("in/a"), "x").unwrap();
    let (engine, mut events) = started("test", base.path()).await;
    wait_for(&mut events, is_deployed).await;
    let report = engine.sync(None, SyncOptions::default()).await.unwrap().remove(0);
    let status = engine.status(None).await.unwrap().remove(0);
    assert_eq!((report.deployed, status.deployed), (0, 1));
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_a_power_failure_tore_is_captured_again() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("in")).unwrap();
    std::fs::write(base.path().join("in/a"), "precious").unwrap();
    let (engine, mut events) = started("test", base.path()).await;
    wait_for(&mut events, is_deployed).await;
    engine.shutdown().await;
    drop(engine);
    // The right size, and zeros; both where it was first and where it goes when there is time.
    let digest = blake3::hash(b"precious").to_hex();
    let store = base.path().join("state/store");
    let stored = store.join(&digest[..2]).join(&digest[..]);
    let _ = std::fs::remove_file(&stored);
    std::fs::write(&stored, [0; 8]).unwrap();
    let recent = std::fs::metadata(store.join("recent")).unwrap().len();
    std::fs::write(store.join("recent"), vec![0; recent as usize]).unwrap();
    std::fs::remove_file(base.path().join("out/a")).unwrap();
    let (engine, mut events) = started("test", base.path()).await;
    wait_for(&mut events, is_deployed).await;
    assert_eq!(std::fs::read(base.path().join("out/a")).unwrap(), b"precious");
    engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_at_the_start_is_captured_once_it_is_watched() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("in")).unwrap();
    for name in ["a", "b", "c"] {
        std::fs::write(base.path().join("in").join(name), "old").unwrap();
    }
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    // The first capture waits; once nobody can tell it to go on, none does.
    let builder = Engine::builder(config("test", base.path())).on_store_write(move |_| {
        let _nobody = wait.lock().unwrap().recv();
        Ok(())
    });
    let mut events = builder.subscribe();
    let engine = builder.start().await.unwrap();
    wait_for(&mut events, |kind| matches!(kind, EventKind::Watching { files: 3, directories: 1, .. })).await;
    std::fs::write(base.path().join("in/b"), "new").unwrap();
    std::fs::remove_file(base.path().join("in/c")).unwrap();
    drop(go);
    let report = engine.sync(Some("test"), SyncOptions::default()).await.unwrap();
    assert_eq!(report[0].waiting, [], "{report:?}");
    assert_eq!(std::fs::read(base.path().join("out/a")).unwrap(), b"old");
    assert_eq!(std::fs::read(base.path().join("out/b")).unwrap(), b"new");
    assert!(!base.path().join("out/c").exists());
    engine.shutdown().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn every_thread_ends_with_the_engine() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("in")).unwrap();
    // A thread's name is cut after 15 bytes; the other tests in this process have engines of their own.
    let ours = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = tasks.flat_map(|task| std::fs::read_to_string(task.path().join("comm")));
        names.filter(|name| name.trim() == "pickup guest").count()
    };
    let (engine, mut events) = started("guest", base.path()).await;
    wait_for(&mut events, |kind| matches!(kind, EventKind::Watching { .. })).await;
    assert_eq!(ours(), 1);
    engine.shutdown().await;
    assert_eq!(ours(), 0);
}

/// Says what happens; its activation ends only by being given up.
struct Endless(UnboundedSender<&'static str>);

impl Deployer for Endless {
    type Staged = ();
    type Live = ();

    async fn stage(&self, _: &Context, _: &Unit, _: Option<&()>) -> pickup::Result<()> {
        Ok(())
    }

    async fn activate(&self, cx: &Context, _: &Unit, _: &(), _: Option<&()>) -> pickup::Result<()> {
        let _gone = self.0.send("activates");
        cx.cancelled().await;
        Err(Error::deploy("activate: the work was cancelled"))
    }

    async fn revert(&self, cx: &Context, _: &Unit, _: &(), _: Option<&()>) -> pickup::Result<()> {
        let _gone = self.0.send(if cx.is_cancelled() { "reverts in a hurry" } else { "reverts" });
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_is_taken_back_and_that_is_not_given_up() {
    let base = tempfile::tempdir().unwrap();
    std::fs::create_dir(base.path().join("in")).unwrap();
    std::fs::write(base.path().join("in/a"), "x").unwrap();
    let (send, mut said) = unbounded_channel();
    let mut config = config("test", base.path());
    config.deployers.clear();
    let engine = Engine::builder(config).deployer("default", Endless(send)).start().await.unwrap();
    assert_eq!(said.recv().await, Some("activates"));
    // Without a shutdown: nobody waits for the step in hand.
    drop(engine);
    assert_eq!(said.recv().await, Some("reverts"));
}
