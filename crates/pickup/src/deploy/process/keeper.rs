//! What happens when the program that serves ends by itself: it is started again, more and more slowly, and at last not.

use std::sync::Arc;
use std::time::Duration;

use super::instance::Instance;
use super::record::Spec;
use super::service::Service;
use super::{ready, start};
use crate::deploy::Context;

/// The wait before the first restart; it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(250);

/// The longest wait before a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Who lived for so long, or as long as its probation, starts with a clean slate.
const STABLE: Duration = Duration::from_secs(10);

impl Service {
    /// Makes `spec` the one that serves, for as long as its program can be kept alive.
    pub(super) async fn keep(self: &Arc<Self>, spec: &Spec, cx: &Context) {
        // Waited for: what it has just started must be among the instances before anybody counts them.
        self.dismiss_keeper().await;
        let (service, spec, cx) = (self.clone(), spec.clone(), cx.clone());
        let generation = spec.generation;
        let keeper = (!spec.is_empty()).then(|| self.tasks.spawn(keep(service, spec, cx)));
        self.set_current(Some(generation), keeper);
    }
}

async fn keep(service: Arc<Service>, spec: Spec, cx: Context) {
    let mut failures = 0;
    let mut running = service.instance(spec.generation);
    loop {
        let stable = service.config.probation.max(STABLE);
        let cause = match &running {
            Some(instance) => {
                let how = instance.ended().await;
                if instance.until.borrow().is_some() {
                    // We asked it to.
                    return;
                }
                if instance.born.elapsed() >= stable {
                    failures = 0;
                }
                how
            }
            None => "it is gone".to_owned(),
        };
        failures += 1;
        if failures > service.config.restart_max {
            return give_up(&service, &spec, &cause, running.as_deref());
        }
        let pause = (BACKOFF_MIN * 2_u32.saturating_pow(failures - 1)).min(BACKOFF_MAX);
        let (pickup, generation) = (&service.pickup, spec.generation);
        tracing::warn!(pickup, generation, cause, failures, pause_ms = pause.as_millis() as u64, "it is started again");
        service.carriers.hold();
        tokio::time::sleep(pause).await;
        let timeout = service.config.start_timeout + Duration::from_secs(2);
        let cx = start::later(&cx, timeout);
        running = match service.launch(&spec) {
            Ok(instance) => {
                match ready::ready(&service.config, &instance, &cx).await {
                    Ok(()) => {
                        service.route(&instance);
                        instance.activated(false);
                    }
                    Err(error) if instance.is_alive() => {
                        tracing::warn!(pickup, generation, %error, "it is not ready; it is stopped");
                        if let Err(error) = instance.stop(service.config.drain_timeout).await {
                            tracing::error!(pickup, generation, %error, "it cannot be stopped");
                        }
                        instance.until.send_replace(None);
                    }
                    // Its end is looked at above.
                    Err(_) => {}
                }
                Some(instance)
            }
            Err(error) => {
                tracing::warn!(pickup, generation, %error, "it cannot be started");
                None
            }
        };
    }
}

fn give_up(service: &Service, spec: &Spec, cause: &str, last: Option<&Instance>) {
    let times = service.config.restart_max;
    let mut cause = format!("it ended again and again, and {times} restarts did not help; the last time: {cause}");
    if let Some(line) = last.and_then(|last| last.tail().lines().last().map(str::to_owned)) {
        cause = format!("{cause}; it said: {}", line.chars().take(300).collect::<String>());
    }
    service.records.set_quarantined(Some(spec.generation));
    service.reporter.failed(spec.units.clone(), cause);
}
