//! `pickupd run --once`: deploy what is there, then say what it came to.

use pickup::{Engine, SyncOptions, SyncReport};

use crate::exit::FAILED;

/// Waits until everything is live or has failed for good; gives the exit code.
pub async fn once(engine: &Engine) -> u8 {
    let options = SyncOptions { until_final: true, ..SyncOptions::default() };
    let reports = match engine.sync(None, options).await {
        Ok(reports) => reports,
        Err(error) => {
            tracing::error!("cannot {error}");
            return FAILED;
        }
    };
    reports.iter().for_each(say);
    if reports.iter().all(SyncReport::is_success) { 0 } else { FAILED }
}

fn say(report: &SyncReport) {
    let SyncReport { name, deployed, failed, waiting, trouble } = report;
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
