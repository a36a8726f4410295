//! One file's way into its place, and back.

use std::ffi::{OsStr, OsString};

use serde::{Deserialize, Serialize};

use crate::capture::{CapturedFile, Digest};
use crate::deploy::copy::owner::Owner;
use crate::deploy::lane::Stop;
use crate::deploy::place::{self, Found, Identity, Made, Parent, Root};
use crate::deploy::{Observed, Unit};
use crate::error::{Error, IoContext, Result};
use crate::path::UnitPath;

/// The longest name that the usual file systems take, less one byte for the `~` of a backup.
const NAME_MAX: usize = 254;

/// How often a directory that vanishes under our hands is made again.
const MAKE_ATTEMPTS: usize = 3;

/// How a deployed file is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) mode: u32,
    pub(super) owner: Option<Owner>,
    pub(super) is_synced: bool,
}

/// A new version beside its target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StagedFile {
    /// Below `into`.
    pub(super) path: UnitPath,
    /// The new version until it is activated, the old one after that.
    temporary: UnitPath,
    /// Where the new version waits while a file lies where its directory is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    waiting: Option<UnitPath>,
    identity: Identity,
    digest: Digest,
}

/// A file of the old version that the new one does not have.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct StaleFile {
    pub(super) path: UnitPath,
    temporary: UnitPath,
    identity: Identity,
}

/// A file that is live.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct LiveFile {
    pub(super) path: UnitPath,
    identity: Identity,
    digest: Digest,
}

/// What tells the temporary files of this change from those of every other.
pub(super) fn tag(unit: &Unit, target: &UnitPath) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(unit.pickup.as_bytes());
    hasher.update(&[0]);
    hasher.update(&unit.generation.to_le_bytes());
    hasher.update(target.as_path().as_os_str().as_encoded_bytes());
    Digest(*hasher.finalize().as_bytes()).short()
}

fn temporary(target: &UnitPath, tag: &str) -> UnitPath {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".pickup-{tag}"));
    if name.len() > NAME_MAX {
        name = format!(".pickup-{tag}").into();
    }
    target.parent().unwrap_or_default().join(name)
}

/// Removes what one change left beside `target`, or above it, where its files wait while another is in the way.
pub(super) fn sweep(root: &Root, target: &UnitPath, tag: &str) -> Result<()> {
    let temporary = temporary(target, tag);
    for directory in std::iter::successors(target.parent(), UnitPath::parent) {
        if let Some(parent) = root.parent_if_any(&directory.join(name(&temporary)))? {
            parent.unlink(name(&temporary))?;
            parent.unlink(&backup(&temporary))?;
        }
    }
    Ok(())
}

fn name(path: &UnitPath) -> &OsStr {
    path.file_name().unwrap_or_default()
}

fn backup(temporary: &UnitPath) -> OsString {
    let mut backup = name(temporary).to_owned();
    backup.push("~");
    backup
}

/// Whether a file may go to `target`, as far as can be seen without doing it; what is leaving is not in its way.
pub(super) fn check(root: &Root, target: &UnitPath, is_leaving: impl Fn(&UnitPath) -> bool) -> Result<()> {
    let parent = match root.parent(target) {
        Ok(Some(parent)) => parent,
        Ok(None) => return Ok(()),
        Err(error) => {
            return if root.in_the_way(target)?.is_some_and(|file| is_leaving(&file)) { Ok(()) } else { Err(error) };
        }
    };
    let found = parent.look(name(target))?;
    if found.is_some_and(|found| found.is_directory()) && root.below(target)?.others.iter().all(is_leaving) {
        return Ok(());
    }
    refuse_other_than_file(&parent, target, found)
}

fn refuse_other_than_file(parent: &Parent, target: &UnitPath, found: Option<Found>) -> Result<()> {
    match found.filter(|found| !found.is_file()) {
        Some(found) => {
            let place = parent.path().join(name(target));
            Err(Error::deploy(format!("replace {}, which is {}", place.display(), found.kind())))
        }
        None => Ok(()),
    }
}

/// Writes the new version beside its target.
pub(super) fn stage(
    root: &Root,
    target: &UnitPath,
    tag: &str,
    captured: &CapturedFile,
    settings: Settings,
    made: &Made,
    stop: &Stop,
) -> Result<StagedFile> {
    let temporary = temporary(target, tag);
    let (waiting, created) = match create(root, &temporary, made) {
        Err(error) if error.io_error().is_none() => {
            let Some(file) = root.in_the_way(&temporary)? else { return Err(error) };
            let waiting = file.parent().unwrap_or_default().join(name(&temporary));
            let created = create(root, &waiting, made);
            (Some(waiting), created)
        }
        created => (None, created),
    };
    let (parent, file) = created?;
    let path = parent.path().join(name(&temporary));
    let written = place::copy_captured(captured, &file, &path, stop).and_then(|()| {
        if let Some(owner) = settings.owner {
            owner.give(&file).doing("set the owner of", &path)?;
        }
        // After the owner, because a change of owner takes setuid bits away.
        place::set_mode(&file, settings.mode).doing("set the mode of", &path)?;
        if settings.is_synced {
            file.sync_data().doing("put on disk", &path)?;
        }
        place::identify(&file).doing("look at", &path)
    });
    match written {
        Ok(Found { identity, .. }) => {
            Ok(StagedFile { path: target.clone(), temporary, waiting, identity, digest: captured.digest })
        }
        Err(error) => {
            let _best_effort = parent.unlink(name(&temporary));
            Err(error)
        }
    }
}

fn create(root: &Root, temporary: &UnitPath, made: &Made) -> Result<(Parent, std::fs::File)> {
    let mut attempt = 1;
    loop {
        let parent = root.make_parent(temporary, made)?;
        // Left by a stage that was interrupted: nobody else uses this name.
        parent.unlink(name(temporary))?;
        match parent.create(name(temporary)) {
            Ok(file) => return Ok((parent, file)),
            // A removal found the directory empty after we had opened it.
            Err(error) if attempt < MAKE_ATTEMPTS && is_not_found(&error) => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

fn is_not_found(error: &Error) -> bool {
    error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

impl StagedFile {
    pub(super) fn into_live(self) -> LiveFile {
        LiveFile { path: self.path, identity: self.identity, digest: self.digest }
    }

    fn is_ours(&self, found: Option<Found>) -> bool {
        found.is_some_and(|found| found.identity.is_same_file(&self.identity))
    }

    /// The directories that are made only when the file is activated.
    pub(super) fn missing_directories(&self) -> impl Iterator<Item = UnitPath> {
        let beside = self.waiting.as_ref().map(|waiting| waiting.parent().unwrap_or_default());
        let above = std::iter::successors(self.path.parent(), UnitPath::parent);
        above.take_while(move |directory| beside.as_ref().is_some_and(|beside| directory != beside))
    }

    /// Opens the directory of the file, where its new version is then.
    fn approach(&self, root: &Root, made: &Made) -> Result<Option<Parent>> {
        let Some(waiting) = &self.waiting else { return root.parent(&self.path) };
        let parent = root.make_parent(&self.path, made)?;
        if let Some(from) = root.parent(waiting)?
            && self.is_ours(from.look(name(waiting))?)
        {
            from.rename_to(name(waiting), &parent, name(&self.temporary))?;
        }
        Ok(Some(parent))
    }

    /// Puts the new version in place; whatever file lay there is kept under the temporary name.
    pub(super) fn activate(&self, root: &Root, made: &Made) -> Result<()> {
        let Some(parent) = self.approach(root, made)? else { return Err(self.vanished(root)) };
        let (target, temporary) = (name(&self.path), name(&self.temporary));
        let mut found = parent.look(target)?;
        if self.is_ours(found) {
            return Ok(());
        }
        if !self.is_ours(parent.look(temporary)?) {
            return Err(self.vanished(root));
        }
        if found.is_some_and(|found| found.is_directory()) {
            root.clear(&self.path, made)?;
            found = parent.look(target)?;
        }
        if found.is_none() {
            if parent.rename_new(temporary, target)? {
                return Ok(());
            }
            // Somebody put a file there just now.
            found = parent.look(target)?;
        }
        refuse_other_than_file(&parent, &self.path, found)?;
        parent.exchange(temporary, target, &backup(&self.temporary))
    }

    fn vanished(&self, root: &Root) -> Error {
        let path = root.path().join(self.temporary.as_path());
        Error::deploy(format!("activate {}: somebody removed what was staged at", self.path)).at(path).transient()
    }

    /// Makes the old version live again, from any point: what lies under which name tells how far we came.
    pub(super) fn revert(&self, root: &Root) -> Result<()> {
        if let Some(waiting) = &self.waiting
            && let Some(parent) = root.parent_if_any(waiting)?
        {
            parent.unlink(name(waiting))?;
        }
        let Some(parent) = root.parent_if_any(&self.path)? else { return Ok(()) };
        let (target, temporary, backup) = (name(&self.path), name(&self.temporary), backup(&self.temporary));
        let live = parent.look(target)?;
        let beside = parent.look(temporary)?;
        let old = match (beside, parent.look(&backup)?) {
            (Some(found), _) if !self.is_ours(beside) && found.is_file() => Some(temporary),
            // Stopped half-way through the exchange by links: the new version is in place, the old one has this name.
            (None, Some(_)) => Some(backup.as_os_str()),
            (_, _) => None,
        };
        match old {
            Some(old) if self.is_ours(live) => parent.rename(old, target)?,
            Some(old) if !is_same_file(live, parent.look(old)?) => {
                if live.is_some() || !parent.rename_new(old, target)? {
                    let place = parent.path().join(target);
                    let kept = parent.path().join(old);
                    let action = format!("restore {}: somebody else changed it; its old version is", place.display());
                    return Err(Error::deploy(action).at(kept));
                }
            }
            None if self.is_ours(live) => parent.unlink(target)?,
            Some(_) | None => {}
        }
        parent.unlink(temporary)?;
        parent.unlink(&backup)
    }

    /// Removes the file that went live, if it still lies there as it was: a newer version replaced all it knew of.
    pub(super) fn remove_own(&self, root: &Root) -> Result<()> {
        let Some(parent) = root.parent_if_any(&self.path)? else { return Ok(()) };
        let found = parent.look(name(&self.path))?;
        if found.is_some_and(|found| found.identity == self.identity) {
            parent.unlink(name(&self.path))
        } else {
            Ok(())
        }
    }

    /// Lets go of the old version.
    pub(super) fn retire(&self, root: &Root) -> Result<()> {
        let Some(parent) = root.parent_if_any(&self.temporary)? else { return Ok(()) };
        parent.unlink(&backup(&self.temporary))?;
        parent.unlink(name(&self.temporary))
    }
}

fn is_same_file(one: Option<Found>, other: Option<Found>) -> bool {
    matches!((one, other), (Some(one), Some(other)) if one.identity.is_same_file(&other.identity))
}

impl StaleFile {
    /// `place` is where a file of the new version goes in place of the directory this one is in, if one does.
    pub(super) fn new(live: &LiveFile, tag: &str, place: Option<&UnitPath>) -> Self {
        let beside = temporary(&live.path, tag);
        let temporary = match place {
            // The directory has to be empty by then.
            Some(place) => place.parent().unwrap_or_default().join(name(&beside)),
            None => beside,
        };
        Self { path: live.path.clone(), temporary, identity: live.identity }
    }

    /// Takes the file out of sight, unless somebody else changed it.
    pub(super) fn set_aside(&self, root: &Root, stop: &Stop) -> Result<()> {
        let Some(parent) = root.parent_if_any(&self.path)? else { return Ok(()) };
        let Some(aside) = root.parent(&self.temporary)? else { return Ok(()) };
        match parent.look(name(&self.path))? {
            Some(found) if found.identity == self.identity => {
                parent.rename_to(name(&self.path), &aside, name(&self.temporary))
            }
            // It is, already: what lies there came after it.
            Some(_) if aside.look(name(&self.temporary))?.is_some() => Ok(()),
            Some(_) => {
                stop.output(&format!("left {}: somebody else changed it since it was deployed\n", self.path));
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn revert(&self, root: &Root, made: &Made) -> Result<()> {
        let Some(aside) = root.parent(&self.temporary)? else { return Ok(()) };
        let temporary = name(&self.temporary);
        if aside.look(temporary)?.is_none() {
            return Ok(());
        }
        let parent = root.make_parent(&self.path, made)?;
        if aside.rename_new_to(temporary, &parent, name(&self.path))? {
            return Ok(());
        }
        let action = format!("restore {}: somebody else put a file there; its old version is", self.path);
        Err(Error::deploy(action).at(aside.path().join(temporary)))
    }

    pub(super) fn retire(&self, root: &Root) -> Result<()> {
        match root.parent_if_any(&self.temporary)? {
            Some(parent) => parent.unlink(name(&self.temporary)),
            None => Ok(()),
        }
    }
}

impl LiveFile {
    /// Whether the file is as it was deployed: by its `stat`, and by its bytes only where that differs.
    pub(super) fn observe(&self, root: &Root) -> Result<Observed> {
        // A file where its directory was says that it is gone.
        let parent = match root.parent_if_any(&self.path) {
            Ok(Some(parent)) => parent,
            Ok(None) => return Ok(Observed::Gone),
            Err(error) if error.io_error().is_none() => return Ok(Observed::Drifted(format!("cannot {error}"))),
            Err(error) => return Err(error),
        };
        self.observe_in(&parent)
    }

    /// The same, below the directory that holds it.
    pub(super) fn observe_in(&self, parent: &Parent) -> Result<Observed> {
        let found = match parent.look(name(&self.path))? {
            None => return Ok(Observed::Gone),
            Some(found) => found,
        };
        if found.identity == self.identity {
            return Ok(Observed::Alive);
        }
        if !found.is_file() {
            return Ok(Observed::Drifted(format!("{} is {}", self.path, found.kind())));
        }
        let path = parent.path().join(name(&self.path));
        let digest = place::digest(&parent.read(name(&self.path))?).doing("read", path)?;
        let is_same = digest == self.digest;
        Ok(if is_same { Observed::Alive } else { Observed::Drifted(format!("{} has another content", self.path)) })
    }

    /// Whether a directory has its place: then the file is gone, and what took its place is no change of it.
    fn is_displaced(&self, root: &Root) -> Result<bool> {
        let found = match root.parent_if_any(&self.path)? {
            Some(parent) => parent.look(name(&self.path))?,
            None => None,
        };
        Ok(found.is_some_and(|found| found.is_directory()))
    }

    pub(super) fn check_unchanged(&self, root: &Root) -> Result<()> {
        match self.observe(root)? {
            Observed::Drifted(_) if self.is_displaced(root)? => Ok(()),
            Observed::Alive | Observed::Gone => Ok(()),
            Observed::Drifted(reason) => {
                let path = root.path().join(self.path.as_path());
                let action = format!("remove {}: {reason}", path.display());
                Err(Error::deploy(format!("{action}: it was changed by somebody else since it was deployed")))
            }
        }
    }

    pub(super) fn remove(&self, root: &Root) -> Result<()> {
        match root.parent_if_any(&self.path)? {
            Some(_) if self.is_displaced(root)? => Ok(()),
            Some(parent) => parent.unlink(name(&self.path)),
            None => Ok(()),
        }
    }
}
