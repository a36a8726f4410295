//! The way in for a program: entries built in code instead of read from a text.

use std::path::PathBuf;

use super::{Config, DeployerConfig, PickupConfig};

impl Config {
    /// The same configuration with one more entry; one of the same name is replaced.
    ///
    /// Nothing is checked against the other entries here, as it is when a file is read.
    #[must_use]
    pub fn pickup(mut self, pickup: PickupConfig) -> Self {
        self.pickups.insert(pickup.name.clone(), pickup);
        self
    }

    /// The same configuration with one more deployer; one of the same name is replaced. A deployer of your own is
    /// registered with [`Builder::deployer`](crate::Builder::deployer) instead.
    #[must_use]
    pub fn deployer(mut self, deployer: DeployerConfig) -> Self {
        self.deployers.insert(deployer.name.clone(), deployer);
        self
    }

    /// The same configuration with journal and content store in this directory. Default: `.pickup`.
    #[must_use]
    pub fn state_dir(mut self, state_dir: impl Into<PathBuf>) -> Self {
        self.settings.state_dir = state_dir.into();
        self
    }
}

impl PickupConfig {
    /// The same entry with these deployers, in order. Default: `default`.
    #[must_use]
    pub fn deploy_to(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.deploy_to = names.into_iter().map(Into::into).collect();
        self
    }
}
