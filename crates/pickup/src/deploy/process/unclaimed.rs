//! Programs that run while nobody is configured for them any more: asked to finish, killed if they do not, and said.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::record::{Record, Records};
use super::service::Service;
use super::{listen, record};
use crate::config::ProcessConfig;
use crate::deploy::{Context, Happening, Reporter};
use crate::error::Result;

/// How long finishing may take at most: nothing else starts meanwhile.
const DRAIN_MAX: Duration = Duration::from_secs(15);

/// Stops what an earlier run of ours left running from `home`, the directory of a deployer and pickup. `reporter` makes
/// somebody to tell, for the name of a pickup and of its deployer.
///
/// # Errors
/// The records cannot be read, or something does not go.
pub(crate) async fn stop(home: &Path, reporter: impl Fn(&str, &str) -> Reporter + Send) -> Result<()> {
    let Some(records) = Records::existing(home) else { return Ok(()) };
    // Read before the dead are forgotten: their sockets may lie about as well.
    let written = records.written()?;
    let Some(Record { spec, deployer, finish, .. }) = written.last() else { return Ok(()) };
    let deployer = if deployer.is_empty() { record::name_of(home) } else { deployer.clone() };
    let reporter = reporter(&spec.pickup, &deployer);
    // The section is gone; what it said about the end was recorded with the program.
    let config = ProcessConfig {
        drain_signal: finish.signal,
        drain_timeout: finish.timeout.min(DRAIN_MAX),
        ..ProcessConfig::new(Vec::new())
    };
    let drain = config.drain_timeout;
    let now = tokio::time::Instant::now().into_std();
    let cx = Context::new(home, now, drain).at_home(home.to_path_buf(), reporter);
    let service = Service::open(&Arc::new(config), &deployer, &spec.pickup, &cx)?;
    for instance in service.instances() {
        instance.say(Happening::Unclaimed { pid: instance.main() });
    }
    let stopped = service.stop_all(drain).await;
    service.leave().await;
    let addresses: BTreeSet<_> = written.iter().flat_map(|record| record.addresses.values()).collect();
    addresses.into_iter().for_each(listen::remove);
    stopped
}
