//! The way in for a program: entries built in code instead of read from a text.

use std::path::{Path, PathBuf};

use super::surroundings::tidy;
use super::{
    Config, CopyConfig, DeployerCommon, DeployerConfig, DeployerKind, PickupConfig, Problem, Severity, Surroundings,
};
use crate::error::{Error, ErrorKind, Result};

impl Config {
    /// One entry, named after `directory`, that watches it and copies into `into`: what needs no file. It is checked as
    /// a file is.
    ///
    /// # Errors
    /// The two paths are at odds, such as one inside the other, or not UTF-8.
    pub fn directory(directory: &Path, into: &Path, surroundings: &Surroundings) -> Result<Self> {
        let refuse = |why: &str| {
            let action = format!("watch {} and copy into {}: {why}", directory.display(), into.display());
            Error::new(ErrorKind::Config, action)
        };
        let settled = surroundings.settled(None);
        let (from, into) = (tidy(&settled.base().join(directory)), tidy(&settled.base().join(into)));
        let into = into.to_str().ok_or_else(|| refuse("the target's path is not UTF-8"))?;
        from.to_str().ok_or_else(|| refuse("the directory's path is not UTF-8"))?;
        let last = from.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let name = if last.trim().is_empty() || last.contains(char::is_control) { "directory" } else { &last };
        let mut config = Self::embedded(surroundings);
        (config.pickups, config.deployers) = Default::default();
        let copy = CopyConfig { into: into.to_owned(), mode: None, owner: None, strip: 0, durable: true };
        let deployer = DeployerConfig {
            name: "default".into(),
            kind: DeployerKind::Copy(copy),
            common: DeployerCommon::default(),
        };
        let text = config.deployer(deployer).pickup(PickupConfig::new(name, from.clone())).to_toml();
        let listed = |problems: &[Problem]| {
            let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
            errors.map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ")
        };
        let mut config = Self::parse(&text, None, surroundings).map_err(|problems| refuse(&listed(&problems)))?;
        if config.has_errors() {
            return Err(refuse(&listed(&config.problems)));
        }
        // Their lines are those of a text that nobody wrote.
        config.problems.clear();
        Ok(config)
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_directory_needs_no_file_and_is_checked_like_one() {
        let surroundings = Surroundings::new("/base").state_dir("/state");
        let config = Config::directory(Path::new("in/drop $HOME"), Path::new("out"), &surroundings).unwrap();
        assert_eq!(config.settings.state_dir, Path::new("/state"));
        let pickup = PickupConfig::new("drop $HOME", "/base/in/drop $HOME");
        assert_eq!(config.pickups, [(pickup.name.clone(), pickup)].into());
        let DeployerKind::Copy(copy) = &config.deployers["default"].kind else { panic!("{config:?}") };
        assert_eq!(copy.into, "/base/out");
        let error = Config::directory(Path::new("in"), Path::new("in/out"), &surroundings).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        insta::assert_snapshot!(error, @"watch in and copy into in/out: /base/in would pick up what deployer `default` writes to /base/in/out");
    }

    #[test]
    fn a_fixed_state_directory_wins_over_the_file() {
        let surroundings = Surroundings::new("/base").state_dir("/state");
        let text = "[pickup]\nstate_dir = \"elsewhere\"\n";
        assert_eq!(Config::parse(text, None, &surroundings).unwrap().settings.state_dir, Path::new("/state"));
    }
}
