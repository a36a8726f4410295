//! Deployers that an entry does not name any more and that left something: who began it ends it.

use std::sync::Arc;

use super::running::{Registered, bind, deployers_of};
use super::shared::{Bound, Shared};
use crate::config::{Config, DeployerKind, PickupConfig};
use crate::deploy::{Ending, Reporter};

/// Those of `pickup` that can still be had.
pub(super) fn bind_former(
    shared: &Shared,
    registered: &Registered,
    config: &Config,
    pickup: &PickupConfig,
    reporter: impl Fn(&str) -> Reporter,
) -> Vec<Bound> {
    let open = match shared.journal().open_deployers(&pickup.name) {
        Ok(open) => open,
        Err(error) => {
            tracing::warn!(pickup = pickup.name, %error, "cannot tell what former deployers left");
            return Vec::new();
        }
    };
    // What a program or a module left ends with it: the old version is not to run again.
    let runs = |name: &String| {
        let configured = config.deployers.get(name);
        configured.is_some_and(|found| matches!(found.kind, DeployerKind::Process(_) | DeployerKind::Module(_)))
    };
    let former = open.into_iter().filter(|name| !pickup.deploy_to.contains(name) && !runs(name));
    let bound = former.filter_map(|name| {
        let alone = PickupConfig { deploy_to: vec![name.clone()], ..pickup.clone() };
        match bind(shared, registered, &alone, &deployers_of(config, &alone), &reporter) {
            Ok(bound) => Some(bound),
            Err(error) => {
                tracing::warn!(pickup = pickup.name, deployer = name, %error, "what it left cannot be ended");
                None
            }
        }
    });
    bound.flatten().collect()
}

/// Tells former deployers that this was all: nothing of theirs is to run.
pub(super) async fn let_go(shared: &Shared, pickup: &str, deployers: &[Bound], enders: &Arc<[Bound]>) {
    let is_former = |bound: &&Bound| !deployers.iter().any(|named| named.name == bound.name);
    for bound in enders.iter().filter(is_former) {
        let cx = shared.context(pickup, 0, bound);
        if let Err(error) = bound.deployer.shutdown(&cx, Ending::Entry).await {
            tracing::error!(pickup, deployer = bound.name, %error, "cannot end what runs");
        }
    }
}
