//! Bringing a generation up, and back up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::instance::Instance;
use super::ready;
use super::record::Spec;
use super::service::Service;
use crate::deploy::Context;
use crate::error::Result;

/// What an instance that never served gets to finish: it may have accepted something all the same.
const FAILED_DRAIN_MAX: Duration = Duration::from_secs(5);

/// A context like `cx` that ends `timeout` from now: for what goes on after the phase.
pub(super) fn later(cx: &Context, timeout: Duration) -> Context {
    let later = Context::new(cx.scratch(), Instant::now().into_std(), timeout);
    later.at_home(cx.home().to_path_buf(), cx.reporter().clone())
}

impl Service {
    /// Starts `spec` and waits until it is ready; what fails is stopped again, and what it said goes to `cx`.
    pub(super) async fn bring_up(self: &Arc<Self>, spec: &Spec, cx: &Context) -> Result<Arc<Instance>> {
        if let Some(instance) = self.instance(spec.generation) {
            if instance.is_active.load(std::sync::atomic::Ordering::Relaxed) && !instance.is_stopping() {
                return Ok(instance);
            }
            // Of an attempt that was cut off: nobody knows how far it came.
            instance.stop(self.failed_drain()).await?;
        }
        let instance = self.launch(spec)?;
        if let Err(error) = ready::ready(&self.config, &instance, cx).await {
            if let Err(error) = instance.stop(self.failed_drain()).await {
                tracing::error!(pickup = self.pickup, generation = spec.generation, %error, "it cannot be stopped");
            }
            cx.output(&instance.tail());
            return Err(error);
        }
        self.route(&instance);
        instance.activated(false);
        Ok(instance)
    }

    pub(super) fn failed_drain(&self) -> Duration {
        self.config.drain_timeout.min(FAILED_DRAIN_MAX)
    }

    /// Makes sure that `spec` is what runs and is kept; gives whether it does.
    ///
    /// # Errors
    /// It does not run and cannot be started.
    pub(super) async fn ensure(self: &Arc<Self>, spec: &Spec, cx: &Context) -> Result<bool> {
        if !spec.is_empty() {
            if self.records.quarantined() == Some(spec.generation) {
                return Ok(false);
            }
            match self.instance(spec.generation) {
                Some(instance) if !instance.is_stopping() => {
                    self.listeners()?;
                    self.route(&instance);
                    instance.activated(true);
                }
                left => {
                    // An activation that was cut off asked it to finish: it will, and the next one takes its place.
                    if let Some(left) = left {
                        left.stop(self.config.drain_timeout).await?;
                    }
                    if !self.config.overlap {
                        self.stop_all(self.config.drain_timeout).await?;
                    }
                    drop(self.bring_up(spec, cx).await?);
                }
            }
        }
        if self.current() != Some(spec.generation) {
            self.keep(spec, cx).await;
        }
        Ok(true)
    }

    /// Keeps `spec` if it runs and nobody does yet.
    pub(super) async fn take_up(self: &Arc<Self>, spec: &Spec, cx: &Context) {
        if self.current().is_none() && self.instance(spec.generation).is_some() {
            self.keep(spec, cx).await;
        }
    }

    /// Everything but `spec` finishes, in the background; then its releases go.
    pub(super) fn drain_others(self: &Arc<Self>, spec: &Spec) {
        let (service, spec) = (self.clone(), spec.clone());
        // Counted now: what is started while they finish is none of theirs.
        let mut others = self.instances();
        others.retain(|instance| instance.spec.generation != spec.generation);
        self.in_background(async move {
            let drained = service.stop_these(others, service.config.drain_timeout).await;
            if let Err(error) = drained {
                tracing::error!(pickup = service.pickup, %error, "an old version cannot be stopped");
            }
            let cleaned = tokio::task::spawn_blocking(move || service.clean(&spec)).await;
            drop(cleaned);
        });
    }
}
