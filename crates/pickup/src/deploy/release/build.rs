//! One release: found on disk, or built from the captured files and what the previous release has already.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::capture::{CapturedFile, Digest};
use crate::change::Content;
use crate::config::ReleaseConfig;
use crate::deploy::Unit;
use crate::deploy::lane::Stop;
use crate::deploy::place::{self, Made, Parent, Root};
use crate::deploy::release::RELEASES;
use crate::deploy::release::manifest::{self, Entry, Manifest};
use crate::error::{Error, IoContext, Result};
use crate::path::UnitPath;

/// Where shared paths live, beside `releases/`.
pub(super) const SHARED: &str = "shared";

const STAGING: &str = ".staging-";

/// What builds the release of one unit.
pub(in crate::deploy) struct Builder<'a> {
    into: &'a Path,
    releases: Parent,
    config: &'a ReleaseConfig,
    shared: Vec<UnitPath>,
    files: Vec<(UnitPath, CapturedFile)>,
    digest: Digest,
    generation: u64,
    name: String,
    stop: &'a Stop,
}

/// A shared path as one below the release, if it is one.
pub(super) fn shared_path(path: &Path) -> Option<UnitPath> {
    UnitPath::new(path).filter(|path| !path.is_root())
}

impl<'a> Builder<'a> {
    pub(in crate::deploy) fn new(
        into: &'a Path,
        config: &'a ReleaseConfig,
        unit: &Unit,
        stop: &'a Stop,
    ) -> Result<Self> {
        let shared: Vec<_> = config.shared.iter().filter_map(|path| shared_path(path)).collect();
        let all = match &unit.content {
            Some(Content::Tree(files)) => files.iter().map(|entry| (entry.path.clone(), entry.file.clone())).collect(),
            Some(Content::File(file)) => vec![(unit.path.clone(), file.clone())],
            None => Vec::new(),
        };
        // What is shared belongs to all releases; the artifact's own copy would be hidden by the link.
        let (hidden, files): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(path, _)| shared.iter().any(|shared| path.starts_with(shared)));
        for (path, _) in &hidden {
            stop.output(&format!("left out {path}: it is shared between the releases\n"));
        }
        let digest = unit.digest().ok_or_else(|| Error::deploy("build a release of nothing"))?;
        let name = format!("{}-{}", unit.generation, digest.short());
        let releases = into.join(RELEASES);
        let gone = || Error::deploy("build a release: somebody removed").at(&releases).transient();
        let releases = Parent::open(&releases)?.ok_or_else(gone)?;
        Ok(Self { into, releases, config, shared, files, digest, generation: unit.generation, name, stop })
    }

    pub(in crate::deploy) fn name(&self) -> &str {
        &self.name
    }

    pub(in crate::deploy) fn digest(&self) -> Digest {
        self.digest
    }

    /// A release on disk with the same content, if one is untouched; the live one first, then the newest.
    pub(in crate::deploy) fn find_built(&self, live: Option<&str>) -> Result<Option<String>> {
        let suffix = format!("-{}", self.digest.short());
        let mut names = list(&self.releases)?;
        names.retain(|(_, name)| name.ends_with(&suffix));
        names.sort_by_key(|(generation, name)| (live == Some(name), *generation));
        let names = names.into_iter().rev().map(|(_, name)| name);
        for name in names {
            if let Some(manifest) = manifest::read(&self.releases, &name)
                && self.is_whole(&name, &manifest)?
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    fn is_whole(&self, name: &str, manifest: &Manifest) -> Result<bool> {
        if manifest.digest != self.digest || manifest.shared != self.shared || manifest.files.len() != self.files.len()
        {
            return Ok(false);
        }
        let Some(release) = self.releases.root(name.as_ref())? else { return Ok(false) };
        let mut files = manifest.files.iter().zip(&self.files);
        Ok(files.all(|(entry, (path, captured))| entry.path == *path && entry.holds(&release, captured)))
    }

    /// Builds the release out of sight and moves it to its name.
    pub(in crate::deploy) fn build(&self, live: Option<&str>) -> Result<String> {
        let staging = OsString::from(format!("{STAGING}{}", self.name));
        self.releases.remove_all(&staging)?;
        let built = self.fill(&staging, live).and_then(|manifest| {
            // A directory of that name is no release of ours that could be reused.
            delete_from(&self.releases, &self.name)?;
            manifest::write(&self.releases, &self.name, &manifest)?;
            self.releases.rename(&staging, self.name.as_ref())?;
            if self.config.durable { self.releases.sync() } else { Ok(()) }
        });
        if let Err(error) = built {
            let _best_effort = self.releases.remove_all(&staging);
            return Err(error);
        }
        Ok(self.name.clone())
    }

    fn fill(&self, staging: &OsStr, live: Option<&str>) -> Result<Manifest> {
        let root = self.releases.make_root(staging)?;
        let previous = self.previous(live)?;
        let mut entries = Vec::with_capacity(self.files.len());
        for (path, captured) in &self.files {
            self.stop.check()?;
            let linked = previous.as_ref().and_then(|previous| previous.link(&root, path, captured));
            entries.push(match linked {
                Some(entry) => entry,
                None => self.copy(&root, path, captured)?,
            });
        }
        for shared in &self.shared {
            self.share(&root, shared)?;
        }
        if self.config.durable {
            // One sync of the file system covers every file and directory of the release.
            place::sync_all(root.as_directory()).doing("put on disk", root.path())?;
        }
        let (digest, shared) = (self.digest, self.shared.clone());
        Ok(Manifest { generation: self.generation, digest, shared, files: entries })
    }

    fn copy(&self, root: &Root, path: &UnitPath, captured: &CapturedFile) -> Result<Entry> {
        let mode = manifest::mode(captured);
        let file = root.write(path, captured, mode, self.stop)?;
        let found = place::identify(&file).doing("look at", root.path().join(path.as_path()))?;
        Ok(Entry { path: path.clone(), digest: captured.digest, mode, identity: found.identity })
    }

    fn previous(&self, live: Option<&str>) -> Result<Option<Previous>> {
        let Some(live) = live else { return Ok(None) };
        let Some(manifest) = manifest::read(&self.releases, live) else { return Ok(None) };
        let Some(root) = self.releases.root(live.as_ref())? else { return Ok(None) };
        let files = manifest.files.into_iter().map(|entry| (entry.path.clone(), entry)).collect();
        Ok(Some(Previous { root, files }))
    }

    /// Puts a relative symlink into the release that leads to the shared path.
    fn share(&self, root: &Root, path: &UnitPath) -> Result<()> {
        let shared = self.into.join(SHARED).join(path.as_path());
        if std::fs::symlink_metadata(&shared).is_err() {
            std::fs::create_dir_all(&shared).doing("create the directory", &shared)?;
        }
        let parent = root.make_parent(path, &Made::default())?;
        // Up through the directories above it, the release itself, and `releases/`.
        let mut target: PathBuf = std::iter::repeat_n("..", path.as_path().iter().count() + 1).collect();
        target.push(SHARED);
        target.push(path.as_path());
        parent.symlink(&target, path.file_name().unwrap_or_default())
    }
}

/// The release whose unchanged files the new one shares.
struct Previous {
    root: Root,
    files: HashMap<UnitPath, Entry>,
}

impl Previous {
    /// Gives the previous release's file a second name in the new one, if it is the same and nobody touched it.
    fn link(&self, root: &Root, path: &UnitPath, captured: &CapturedFile) -> Option<Entry> {
        let entry = self.files.get(path).filter(|entry| entry.holds(&self.root, captured))?;
        let from = self.root.parent(path).ok().flatten()?;
        let to = root.make_parent(path, &Made::default()).ok()?;
        let name = path.file_name()?;
        // Where links run out, the file is copied.
        from.link(name, &to, name).ok()?;
        Some(entry.clone())
    }
}

/// The releases on disk, with the generations in their names.
fn list(releases: &Parent) -> Result<Vec<(u64, String)>> {
    let mut names = Vec::new();
    for name in releases.names()? {
        if let Ok(name) = name.into_string()
            && let Some(generation) = generation(&name)
            && releases.look(name.as_ref())?.is_some_and(|found| found.is_directory())
        {
            names.push((generation, name));
        }
    }
    Ok(names)
}

/// The generation in a name such as `7-0123456789ab`; any other name is not ours.
fn generation(name: &str) -> Option<u64> {
    let (generation, digest) = name.split_once('-')?;
    let is_digest = digest.len() == 12 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| generation.parse().ok()).flatten()
}

/// Removes all but the newest `keep` releases and the pinned ones, and what interrupted builds left.
pub(in crate::deploy) fn clean(releases: &Path, keep: usize, pinned: &[&str]) -> Result<()> {
    let Some(releases) = Parent::open(releases)? else { return Ok(()) };
    let mut names = list(&releases)?;
    names.sort();
    let newest = names.iter().map(|(generation, _)| *generation).max().unwrap_or(0);
    for (_, name) in names.iter().rev().skip(keep).filter(|(_, name)| !pinned.contains(&name.as_str())) {
        delete_from(&releases, name)?;
    }
    for name in releases.names()? {
        let staged = name.to_str().and_then(|name| name.strip_prefix(STAGING));
        let built = staged.map(|name| name.strip_suffix(".json").unwrap_or(name)).and_then(generation);
        if built.is_some_and(|generation| generation <= newest) {
            releases.remove_all(&name)?;
        }
    }
    Ok(())
}

/// Removes a release; its manifest first, so that a directory half removed is never reused.
pub(in crate::deploy) fn delete(releases: &Path, name: &str) -> Result<()> {
    Parent::open(releases)?.map_or(Ok(()), |releases| delete_from(&releases, name))
}

fn delete_from(releases: &Parent, name: &str) -> Result<()> {
    releases.unlink(manifest::file_name(name).as_ref())?;
    releases.remove_all(name.as_ref())
}
