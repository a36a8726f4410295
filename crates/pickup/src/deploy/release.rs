//! `kind = "release"`: immutable release directories, one of them live behind a symlink.
#![expect(clippy::disallowed_methods, reason = "this is a door: it builds releases on disk")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::capture::Digest;
use crate::config::ReleaseConfig;
use crate::deploy::lane::{self, Lanes, Stop};
use crate::deploy::place::Parent;
use crate::deploy::{Context, Deployer, Observed, Scope, Unit, expand};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::path;

pub(in crate::deploy) mod build;
mod link;
mod manifest;

use build::Builder;

/// Builds each generation in a directory of its own, then points a symlink at it in one step.
#[derive(Debug)]
pub struct Release {
    work: Arc<Work>,
    lanes: Lanes,
}

#[derive(Debug)]
struct Work {
    config: ReleaseConfig,
}

/// A release that was built and is not live yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Staged {
    #[serde(with = "path::exact")]
    into: PathBuf,
    /// The name of the directory below `releases/`.
    name: String,
    digest: Digest,
    /// What the link held before, if there was one.
    previous: Option<Target>,
    /// Whether a revert removes the directory: not if it was there before.
    is_new: bool,
}

/// What is live.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Live {
    #[serde(with = "path::exact")]
    into: PathBuf,
    name: String,
    digest: Digest,
    previous: Option<Target>,
}

/// What a symlink holds, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Target(#[serde(with = "path::exact")] PathBuf);

impl Target {
    fn to_release(name: &str) -> Self {
        Self(Path::new(RELEASES).join(name))
    }

    /// The release it leads to, if it leads to one of ours.
    fn release(&self) -> Option<&str> {
        self.0.strip_prefix(RELEASES).ok().and_then(Path::to_str)
    }
}

pub(in crate::deploy) const RELEASES: &str = "releases";

impl Release {
    /// Makes the deployer that the section describes.
    ///
    /// # Errors
    /// If the link's name is more than a name, or a shared path leaves the release.
    pub fn new(config: ReleaseConfig) -> Result<Self> {
        let link = config.link.as_str();
        if !expand::is_one_component(link) || [RELEASES, build::SHARED].contains(&link) {
            return Err(Error::new(ErrorKind::Config, format!("name the link {link:?}")));
        }
        if let Some(bad) = config.shared.iter().find(|shared| build::shared_path(shared).is_none()) {
            let action = format!("share {}: it is no path below the release", bad.display());
            return Err(Error::new(ErrorKind::Config, action));
        }
        Ok(Self { work: Arc::new(Work { config }), lanes: Lanes::default() })
    }
}

impl Deployer for Release {
    type Staged = Staged;
    type Live = Live;

    fn scope(&self) -> Scope {
        Scope::Pickup
    }

    async fn check(&self, cx: &Context, unit: &Unit, _old: Option<&Live>) -> Result<()> {
        let (work, subject) = (Arc::clone(&self.work), unit.clone());
        self.lanes.run(cx, unit, true, move |_| work.check(&subject)).await
    }

    async fn stage(&self, cx: &Context, unit: &Unit, _old: Option<&Live>) -> Result<Staged> {
        let (work, subject) = (Arc::clone(&self.work), unit.clone());
        let is_small = lane::is_small(unit.content.as_ref());
        self.lanes.run(cx, unit, is_small, move |stop| work.stage(&subject, stop)).await
    }

    async fn activate(&self, cx: &Context, unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<Live> {
        let (work, staged, generation) = (Arc::clone(&self.work), staged.clone(), unit.generation);
        self.lanes.run(cx, unit, true, move |_| work.activate(staged, generation)).await
    }

    async fn revert(&self, cx: &Context, unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<()> {
        let (work, staged, generation) = (Arc::clone(&self.work), staged.clone(), unit.generation);
        self.lanes.run(cx, unit, false, move |_| work.revert(&staged, generation)).await
    }

    /// Keeps the newest releases, the live one, and the one that was live before.
    async fn retire(&self, cx: &Context, unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<()> {
        let (work, staged) = (Arc::clone(&self.work), staged.clone());
        self.lanes.run(cx, unit, false, move |_| work.retire(&staged)).await
    }

    /// Takes the link away, and the release it led to.
    async fn remove(&self, cx: &Context, unit: &Unit, live: &Live) -> Result<()> {
        let (work, live) = (Arc::clone(&self.work), live.clone());
        self.lanes.run(cx, unit, false, move |_| work.remove(&live)).await
    }

    async fn observe(&self, _cx: &Context, live: &Live) -> Result<Observed> {
        self.work.observe(live)
    }
}

impl Work {
    fn check(&self, unit: &Unit) -> Result<()> {
        let into = self.into(unit)?;
        link::read(&into, &self.config.link)?;
        match std::fs::metadata(&into) {
            Ok(found) if !found.is_dir() => {
                Err(Error::deploy(format!("put releases below {}: no directory", into.display())))
            }
            Ok(_) => Parent::open(&into.join(RELEASES)).map(drop),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("look at", into, error)),
        }
    }

    fn into(&self, unit: &Unit) -> Result<PathBuf> {
        expand::directory(&self.config.into, &unit.pickup)
    }

    fn stage(&self, unit: &Unit, stop: &Stop) -> Result<Staged> {
        let into = self.into(unit)?;
        let releases = into.join(RELEASES);
        std::fs::create_dir_all(&releases).doing("create the directory", &releases)?;
        let previous = link::read(&into, &self.config.link)?;
        let builder = Builder::new(&into, &self.config, unit, stop)?;
        let live = previous.as_ref().and_then(Target::release);
        let (name, is_new) = match builder.find_built(live)? {
            Some(name) => (name, false),
            None => (builder.build(live)?, true),
        };
        // Built by an attempt that was interrupted: it is still ours to take back.
        let is_ours = name == builder.name() && live != Some(&name);
        let digest = builder.digest();
        Ok(Staged { into, digest, previous, is_new: is_new || is_ours, name })
    }

    fn activate(&self, staged: Staged, generation: u64) -> Result<Live> {
        let directory = staged.into.join(RELEASES).join(&staged.name);
        if !directory.is_dir() {
            return Err(Error::deploy("go live: somebody removed").at(directory).transient());
        }
        link::point(&staged.into, &self.config, &Target::to_release(&staged.name), generation)?;
        Ok(Live { into: staged.into, name: staged.name, digest: staged.digest, previous: staged.previous })
    }

    fn revert(&self, staged: &Staged, generation: u64) -> Result<()> {
        let into = &staged.into;
        let target = Target::to_release(&staged.name);
        if link::read(into, &self.config.link)?.as_ref() == Some(&target) {
            match &staged.previous {
                Some(previous) if *previous == target => {}
                Some(previous) => link::point(into, &self.config, previous, generation)?,
                None => link::remove(into, &self.config)?,
            }
        }
        if staged.is_new && staged.previous.as_ref() != Some(&target) {
            build::delete(&into.join(RELEASES), &staged.name)?;
        }
        Ok(())
    }

    fn retire(&self, staged: &Staged) -> Result<()> {
        let live = link::read(&staged.into, &self.config.link)?;
        let pinned = [live.as_ref(), staged.previous.as_ref()];
        let mut pinned: Vec<_> = pinned.into_iter().flatten().filter_map(Target::release).collect();
        pinned.push(&staged.name);
        build::clean(&staged.into.join(RELEASES), self.config.keep.max(1), &pinned)
    }

    fn remove(&self, live: &Live) -> Result<()> {
        match link::read(&live.into, &self.config.link)? {
            Some(target) if target == Target::to_release(&live.name) => link::remove(&live.into, &self.config)?,
            Some(target) => {
                let link = live.into.join(&self.config.link);
                let action = format!("remove {}: it leads to {}", link.display(), target.0.display());
                return Err(Error::deploy(format!("{action}: somebody else changed it since it was deployed")));
            }
            None => {}
        }
        build::delete(&live.into.join(RELEASES), &live.name)
    }

    fn observe(&self, live: &Live) -> Result<Observed> {
        let link = &self.config.link;
        let target = match link::read(&live.into, link) {
            Ok(Some(target)) => target,
            Ok(None) => return Ok(Observed::Gone),
            Err(error) if error.kind() == ErrorKind::Deploy => {
                return Ok(Observed::Drifted(format!("{link} is no symlink")));
            }
            Err(error) => return Err(error),
        };
        if target != Target::to_release(&live.name) {
            return Ok(Observed::Drifted(format!("{link} leads to {}", target.0.display())));
        }
        let is_there = live.into.join(RELEASES).join(&live.name).is_dir();
        Ok(if is_there { Observed::Alive } else { Observed::Gone })
    }
}

#[cfg(test)]
mod tests;
