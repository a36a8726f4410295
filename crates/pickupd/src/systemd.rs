//! What systemd is told, where it runs us: readiness, a status line, reloads, the end, and signs of life.

use std::collections::BTreeMap;
use std::time::Duration;

use pickup::{Engine, Events, PickupStatus};

/// How often the status line is made anew at most: a burst of changes is one.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The engine runs.
pub fn ready() {
    notify::ready();
}

/// The configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    notify::reloading();
}

/// The engine is about to end.
pub fn stopping() {
    notify::stopping();
}

/// Keeps the status line up to date until the engine ends.
pub async fn keep_status(engine: Engine, mut events: Events) {
    if !notify::is_heard() {
        return;
    }
    let mut told = String::new();
    loop {
        if let Ok(statuses) = engine.status(None).await {
            let summary = summary(&statuses);
            if summary != told {
                notify::status(&summary);
                told = summary;
            }
        }
        if events.next().await.is_none() {
            return;
        }
        tokio::time::sleep(STATUS_INTERVAL).await;
        // What happened meanwhile is in the next summary.
        while let Ok(Some(_)) = tokio::time::timeout(Duration::ZERO, events.next()).await {}
    }
}

/// Gives signs of life as long as the engine answers. Never returns.
pub async fn keep_alive(engine: Engine) {
    let Some(deadline) = notify::watchdog() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(deadline / 2);
    loop {
        ticks.tick().await;
        if tokio::time::timeout(deadline / 2, engine.status(None)).await.is_ok() {
            notify::alive();
        } else {
            tracing::error!("the engine does not answer; the watchdog is not told that all is well");
        }
    }
}

/// `3 entries: 2 live, 1 failed`.
fn summary(statuses: &[PickupStatus]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for status in statuses {
        *counts.entry(status.state.as_str()).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let entries = if statuses.len() == 1 { "entry" } else { "entries" };
    format!("{} {entries}: {}", statuses.len(), counts.join(", "))
}

#[cfg(target_os = "linux")]
mod notify {
    use std::time::Duration;

    use sd_notify::NotifyState;

    pub fn is_heard() -> bool {
        std::env::var_os("NOTIFY_SOCKET").is_some()
    }

    pub fn ready() {
        tell(&[NotifyState::Ready]);
    }

    pub fn reloading() {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "cannot read the monotonic clock"),
        }
    }

    pub fn stopping() {
        tell(&[NotifyState::Stopping]);
    }

    pub fn status(summary: &str) {
        tell(&[NotifyState::Status(summary)]);
    }

    pub fn watchdog() -> Option<Duration> {
        // Zero would be a deadline that nobody can keep.
        sd_notify::watchdog_enabled().filter(|deadline| *deadline >= Duration::from_millis(2))
    }

    pub fn alive() {
        tell(&[NotifyState::Watchdog]);
    }

    fn tell(state: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(state) {
            tracing::debug!(%error, "cannot tell the service manager");
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod notify {
    use std::time::Duration;

    pub fn is_heard() -> bool {
        false
    }

    pub fn ready() {}

    pub fn reloading() {}

    pub fn stopping() {}

    pub fn status(_summary: &str) {}

    pub fn watchdog() -> Option<Duration> {
        None
    }

    pub fn alive() {}
}
