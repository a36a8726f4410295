//! Programs whose entry or deployer is gone from the configuration: stopped before anything starts that may want their
//! place.
//!
//! An entry with a mistake in it is still an entry: what it runs goes on until the mistake is mended or the entry is gone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::running::Registered;
use super::shared::{Shared, file_name};
use crate::config::{Config, DeployerKind};
use crate::deploy::Reporter;
use crate::deploy::process::unclaimed;
use crate::deploy::report::Report;
use crate::event::EventKind;

/// Stops what runs and belongs to nobody in `config`; blocks until it is gone.
pub(super) fn stop(shared: &Arc<Shared>, registered: &Registered, config: &Config) {
    let broken = config.broken_pickups();
    let is_broken = |home: &Path| broken.iter().any(|name| home.starts_with(shared.homes(name)));
    let claimed: BTreeSet<PathBuf> = claimed(shared, registered, config).collect();
    let homes = directories(&shared.state_dir.join("deployers")).flat_map(|pickup| directories(&pickup));
    let unclaimed: Vec<PathBuf> = homes.filter(|home| !claimed.contains(home) && !is_broken(home)).collect();
    if unclaimed.is_empty() {
        return;
    }
    let stop = async {
        // All at once: each has its own deadline.
        let stopping: Vec<_> = unclaimed.into_iter().map(|home| tokio::spawn(stop_one(shared.clone(), home))).collect();
        for stopped in stopping {
            // A panic in one is no reason to leave the others.
            let _panicked = stopped.await;
        }
    };
    shared.runtime.block_on(stop);
}

async fn stop_one(shared: Arc<Shared>, home: PathBuf) {
    let reporter = |pickup: &str, deployer: &str| reporter(&shared, pickup, deployer);
    if let Err(error) = unclaimed::stop(&home, reporter).await {
        tracing::error!(home = %home.display(), %error, "a program that no entry runs any more cannot be stopped");
    }
}

fn reporter(shared: &Arc<Shared>, pickup: &str, deployer: &str) -> Reporter {
    let (shared, pickup, deployer) = (Arc::downgrade(shared), pickup.to_owned(), deployer.to_owned());
    Reporter::new(move |report| match (report, shared.upgrade()) {
        (Report::Instance { generation, happening }, Some(shared)) => {
            let deployer = deployer.clone();
            shared.publish(&pickup, EventKind::Instance { deployer, generation, happening });
        }
        // There is no unit left to fail.
        (Report::Failed { .. }, _) | (_, None) => {}
    })
}

/// The homes of deployers that run programs, or may.
fn claimed<'a>(
    shared: &'a Shared,
    registered: &'a Registered,
    config: &'a Config,
) -> impl Iterator<Item = PathBuf> + use<'a> {
    let runs = |name: &String| {
        let configured = config.deployers.get(name);
        registered.contains_key(name)
            || configured.is_some_and(|deployer| matches!(deployer.kind, DeployerKind::Process(_)))
    };
    let enabled = config.pickups.values().filter(|pickup| pickup.enabled);
    enabled.flat_map(move |pickup| {
        let deployers = pickup.deploy_to.iter().filter(move |name| runs(name));
        deployers.map(|deployer| shared.homes(&pickup.name).join(file_name(deployer)))
    })
}

#[expect(clippy::disallowed_methods, reason = "the engine owns the state directory")]
fn directories(path: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}
