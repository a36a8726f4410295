//! `pickupd run --once`: deploy what is there, then say what it came to.

use std::collections::HashMap;

use pickup::{Engine, PickupStatus, Result, SyncOptions, SyncReport};

use crate::exit::FAILED;

/// Waits until everything is live or has failed for good; gives the exit code.
pub async fn once(engine: &Engine) -> u8 {
    let options = SyncOptions { until_final: true, ..SyncOptions::default() };
    let (reports, statuses) = match sync(engine, options).await {
        Ok(done) => done,
        Err(error) => {
            tracing::error!("cannot {error}");
            return FAILED;
        }
    };
    let deployed: HashMap<&str, u64> = statuses.iter().map(|status| (status.name.as_str(), status.deployed)).collect();
    for report in &reports {
        say(report, deployed.get(report.name.as_str()).copied().unwrap_or_default());
    }
    if reports.iter().all(SyncReport::is_success) { 0 } else { FAILED }
}

/// What a sync came to, and the status after it: some may have been live before it was asked for.
async fn sync(engine: &Engine, options: SyncOptions) -> Result<(Vec<SyncReport>, Vec<PickupStatus>)> {
    Ok((engine.sync(None, options).await?, engine.status(None).await?))
}

fn say(report: &SyncReport, deployed: u64) {
    let SyncReport { name, failed, waiting, trouble, .. } = report;
    for noted in waiting {
        tracing::warn!(pickup = name, unit = %noted.path, reason = noted.reason, "not deployed");
    }
    let (failed, waiting) = (failed.len(), waiting.len());
    match trouble {
        Some(trouble) => tracing::error!(pickup = name, deployed, failed, waiting, trouble, "not done"),
        None if failed > 0 => tracing::error!(pickup = name, deployed, failed, waiting, "not done"),
        None => tracing::info!(pickup = name, deployed, waiting, "done"),
    }
}
