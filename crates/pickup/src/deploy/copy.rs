//! `kind = "copy"`: every file goes live by one atomic rename in a plain directory.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::capture::CapturedFile;
use crate::change::Content;
use crate::config::CopyConfig;
use crate::deploy::lane::{self, Lanes, Stop};
use crate::deploy::place::{Made, Parent, Root};
use crate::deploy::{Context, Deployer, Observed, Unit, expand};
use crate::error::{Error, Result};
use crate::path::{self, UnitPath};

mod file;
pub(in crate::deploy) mod owner;

use file::{LiveFile, StagedFile, StaleFile};
use owner::Owner;

/// From this many files on, one sync of the whole file system is cheaper than one for each file.
const SYNC_ALL_FILES: usize = 32;

/// Copies each unit below a directory. The new version is written beside the old one and takes its place in one step;
/// the old one is kept until the change is committed. A tree is atomic file by file, not as a whole: for that there is
/// [`Release`](crate::deploy::Release).
#[derive(Debug)]
pub struct Copy {
    work: Arc<Work>,
    lanes: Lanes,
}

/// What the threads for blocking work share.
#[derive(Debug)]
struct Work {
    config: CopyConfig,
    made: Made,
    /// Directories in which something was written that no sync has put on disk yet.
    unsynced: Mutex<BTreeSet<PathBuf>>,
    /// Files whose removal was announced by a check and did not come yet: what is to take their place may be staged.
    leaving: Mutex<BTreeSet<PathBuf>>,
}

/// What was prepared beside the old version.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Staged {
    #[serde(with = "path::exact")]
    into: PathBuf,
    files: Vec<StagedFile>,
    /// Files of the old version that the new one does not have.
    stale: Vec<StaleFile>,
    /// The directories on the way that are ours.
    directories: Vec<UnitPath>,
}

/// What is live.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Live {
    #[serde(with = "path::exact")]
    into: PathBuf,
    files: Vec<LiveFile>,
    directories: Vec<UnitPath>,
}

impl Copy {
    /// Makes the deployer that the section describes.
    pub fn new(config: CopyConfig) -> Self {
        Self {
            work: Arc::new(Work {
                config,
                made: Made::default(),
                unsynced: Mutex::default(),
                leaving: Mutex::default(),
            }),
            lanes: Lanes::default(),
        }
    }
}

impl Deployer for Copy {
    type Staged = Staged;
    type Live = Live;

    async fn check(&self, cx: &Context, unit: &Unit, old: Option<&Live>) -> Result<()> {
        let (work, subject, old) = (Arc::clone(&self.work), unit.clone(), old.cloned());
        let is_small = lane::is_small(unit.content.as_ref());
        self.lanes.run(cx, unit, is_small, move |stop| work.check(&subject, old.as_ref(), stop)).await
    }

    async fn stage(&self, cx: &Context, unit: &Unit, old: Option<&Live>) -> Result<Staged> {
        let (work, subject, old) = (Arc::clone(&self.work), unit.clone(), old.cloned());
        let (is_small, is_flushed) = (lane::is_small(unit.content.as_ref()), cx.is_flushed());
        self.lanes.run(cx, unit, is_small, move |stop| work.stage(&subject, old.as_ref(), is_flushed, stop)).await
    }

    async fn activate(&self, cx: &Context, unit: &Unit, staged: &Staged, old: Option<&Live>) -> Result<Live> {
        let (work, staged, old) = (Arc::clone(&self.work), staged.clone(), old.cloned());
        let is_small = lane::is_few(staged.files.len() + staged.stale.len());
        let is_flushed = cx.is_flushed();
        self.lanes.run(cx, unit, is_small, move |stop| work.activate(staged, old, is_flushed, stop)).await
    }

    async fn revert(&self, cx: &Context, unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<()> {
        let (work, staged) = (Arc::clone(&self.work), staged.clone());
        let is_small = lane::is_few(staged.files.len() + staged.stale.len());
        self.lanes.run(cx, unit, is_small, move |_| work.revert(&staged)).await
    }

    async fn retire(&self, cx: &Context, unit: &Unit, staged: &Staged, old: Option<&Live>) -> Result<()> {
        let (work, staged, old) = (Arc::clone(&self.work), staged.clone(), old.cloned());
        let is_small = lane::is_few(staged.files.len() + staged.stale.len());
        self.lanes.run(cx, unit, is_small, move |_| work.retire(&staged, old.as_ref())).await
    }

    async fn sweep(&self, cx: &Context, unit: &Unit, staged: Option<&Staged>, old: Option<&Live>) -> Result<()> {
        let (work, subject, staged, old) = (Arc::clone(&self.work), unit.clone(), staged.cloned(), old.cloned());
        self.lanes.run(cx, unit, true, move |_| work.sweep(&subject, staged.as_ref(), old.as_ref())).await
    }

    /// Fails, and removes nothing, if somebody else changed what is live.
    async fn remove(&self, cx: &Context, unit: &Unit, live: &Live) -> Result<()> {
        let (work, live) = (Arc::clone(&self.work), live.clone());
        let (is_small, is_flushed) = (lane::is_few(live.files.len()), cx.is_flushed());
        self.lanes.run(cx, unit, is_small, move |_| work.remove(&live, is_flushed)).await
    }

    async fn flush(&self, _cx: &Context) -> Result<()> {
        let work = Arc::clone(&self.work);
        lane::off_thread(move || work.flush()).await
    }

    async fn observe(&self, _cx: &Context, live: &Live) -> Result<Observed> {
        self.recall(std::slice::from_ref(live));
        let live = live.clone();
        if lane::is_few(live.files.len()) { observe(&live) } else { lane::off_thread(move || observe(&live)).await }
    }

    async fn observe_many(&self, _cx: &Context, live: &[Live]) -> Option<Vec<Result<Observed>>> {
        if live.iter().any(|live| live.files.len() != 1) {
            return None;
        }
        self.recall(live);
        Some(observe_files(live))
    }
}

impl Copy {
    /// After a restart this is how the directories that are ours become known again.
    fn recall(&self, live: &[Live]) {
        let mut before: Option<&Live> = None;
        for live in live {
            if before.is_none_or(|before| (&before.into, &before.directories) != (&live.into, &live.directories)) {
                self.work.made.recall(&live.into, &live.directories);
            }
            before = Some(live);
        }
    }
}

impl Staged {
    /// The files of the old version that are in the way of the new one, and those that are not.
    fn clearing(&self) -> (Vec<&StaleFile>, Vec<&StaleFile>) {
        let places: BTreeSet<_> = self.files.iter().map(|file| &file.path).collect();
        let directories: BTreeSet<_> = self.directories.iter().collect();
        self.stale.iter().partition(|stale| {
            directories.contains(&stale.path) || above(&stale.path).any(|directory| places.contains(&directory))
        })
    }
}

impl Work {
    /// Where each file of the unit goes, below `into`.
    fn targets(&self, unit: &Unit) -> Result<Vec<(UnitPath, CapturedFile)>> {
        let files = match &unit.content {
            None => Vec::new(),
            Some(Content::File(file)) => vec![(self.target(&unit.path)?, file.clone())],
            Some(Content::Tree(files)) => files
                .iter()
                .map(|entry| Ok((self.target(&unit.path.join(entry.path.as_path()))?, entry.file.clone())))
                .collect::<Result<_>>()?,
        };
        let mut seen = BTreeSet::new();
        match files.iter().find(|(target, _)| !seen.insert(target)) {
            Some((target, _)) => Err(Error::deploy(format!("copy {}: two files would both be {target}", unit.path))),
            None => Ok(files),
        }
    }

    fn target(&self, path: &UnitPath) -> Result<UnitPath> {
        let strip = self.config.strip;
        let rest: PathBuf = path.as_path().iter().skip(strip).collect();
        let target = UnitPath::new(rest).filter(|rest| !rest.is_root());
        target.ok_or_else(|| Error::deploy(format!("copy {path}: nothing is left of its path with strip = {strip}")))
    }

    fn check(&self, unit: &Unit, old: Option<&Live>, stop: &Stop) -> Result<()> {
        if let (None, Some(old)) = (&unit.content, old) {
            self.leaving().extend(old.files.iter().map(|file| old.into.join(file.path.as_path())));
        }
        let targets = self.targets(unit)?;
        self.config.owner.as_deref().map(Owner::look_up).transpose()?;
        let Some(root) = Root::open(&self.into(unit)?)? else { return Ok(()) };
        let old = old.filter(|old| old.into == root.path());
        // What of the old version is in the way makes room for the new one.
        let files = || old.iter().flat_map(|old| &old.files).map(|file| &file.path).collect();
        let is_old = OnceCell::<BTreeSet<&UnitPath>>::new();
        let is_leaving = |path: &UnitPath| {
            is_old.get_or_init(files).contains(path) || self.leaving().contains(&root.path().join(path.as_path()))
        };
        for (target, _) in &targets {
            stop.check()?;
            file::check(&root, target, is_leaving)?;
        }
        Ok(())
    }

    fn leaving(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn into(&self, unit: &Unit) -> Result<PathBuf> {
        expand::directory(&self.config.into, &unit.pickup)
    }

    /// Puts on disk what many units left to it: one sync of the file system, where each would need several of its own.
    fn flush(&self) -> Result<()> {
        let unsynced = std::mem::take(&mut *self.unsynced.lock().unwrap_or_else(PoisonError::into_inner));
        for into in unsynced {
            if let Err(error) = Root::open(&into).and_then(|root| root.as_ref().map_or(Ok(()), sync_all)) {
                self.leave_unsynced(&into);
                return Err(error);
            }
        }
        Ok(())
    }

    fn leave_unsynced(&self, into: &Path) {
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        if !unsynced.contains(into) {
            unsynced.insert(into.to_path_buf());
        }
    }

    /// Puts the directories of `paths` on disk, or leaves that to the flush that follows.
    fn sync<'a>(&self, root: &Root, is_flushed: bool, paths: impl Iterator<Item = &'a UnitPath>) -> Result<()> {
        match (self.config.durable, is_flushed) {
            (false, _) => Ok(()),
            (true, true) => {
                self.leave_unsynced(root.path());
                Ok(())
            }
            (true, false) => sync_directories(root, paths),
        }
    }

    fn stage(&self, unit: &Unit, old: Option<&Live>, is_flushed: bool, stop: &Stop) -> Result<Staged> {
        let (into, targets) = (self.into(unit)?, self.targets(unit)?);
        let owner = self.config.owner.as_deref().map(Owner::look_up).transpose()?;
        if let Some(old) = old {
            self.made.recall(&old.into, &old.directories);
        }
        let root = Root::create(&into)?;
        let mut staged = Staged { into, files: Vec::new(), stale: Vec::new(), directories: Vec::new() };
        let sync_each = self.config.durable && !is_flushed && targets.len() < SYNC_ALL_FILES;
        for (target, captured) in &targets {
            let mode = self.config.mode.unwrap_or(captured.mode & 0o777);
            let settings = file::Settings { mode, owner, is_synced: sync_each };
            let tag = file::tag(unit, target);
            match stop.check().and_then(|()| file::stage(&root, target, &tag, captured, settings, &self.made, stop)) {
                Ok(file) => staged.files.push(file),
                Err(error) => {
                    self.note_directories(&root, &mut staged, Some(target));
                    // Best effort: what matters is why it failed.
                    let _undone = self.revert(&staged);
                    return Err(error);
                }
            }
        }
        self.note_directories(&root, &mut staged, None);
        if let Some(old) = old.filter(|old| old.into == staged.into) {
            let kept: BTreeSet<_> = targets.iter().map(|(target, _)| target).collect();
            let stale = old.files.iter().filter(|file| !kept.contains(&file.path));
            let place = |path: &UnitPath| above(path).find(|directory| kept.contains(directory));
            let aside =
                |live: &LiveFile| StaleFile::new(live, &file::tag(unit, &live.path), place(&live.path).as_ref());
            staged.stale = stale.map(aside).collect();
        }
        if self.config.durable && is_flushed {
            self.leave_unsynced(root.path());
        } else if self.config.durable && !sync_each {
            sync_all(&root)?;
        }
        Ok(staged)
    }

    fn note_directories(&self, root: &Root, staged: &mut Staged, also: Option<&UnitPath>) {
        let mut directories = self.made_above(root, staged.files.iter().map(|file| &file.path).chain(also));
        directories.extend(staged.files.iter().flat_map(StagedFile::missing_directories));
        staged.directories = directories.into_iter().collect();
    }

    /// Those of the directories above `paths` that are ours, as far as that is known by now.
    fn made_above<'a>(&self, root: &Root, paths: impl Iterator<Item = &'a UnitPath>) -> BTreeSet<UnitPath> {
        paths.flat_map(|path| self.made.above(root.path(), path)).collect()
    }

    fn activate(&self, staged: Staged, old: Option<Live>, is_flushed: bool, stop: &Stop) -> Result<Live> {
        let root = Root::create(&staged.into)?;
        self.made.recall(&staged.into, &staged.directories);
        // What makes room goes first, the rest only once the new version is there.
        let (clearing, stale) = staged.clearing();
        for file in clearing {
            file.set_aside(&root, stop)?;
        }
        for file in &staged.files {
            file.activate(&root, &self.made)?;
        }
        for file in stale {
            file.set_aside(&root, stop)?;
        }
        let paths = staged.files.iter().map(|file| &file.path).chain(staged.stale.iter().map(|file| &file.path));
        self.sync(&root, is_flushed, paths)?;
        let old_directories = old.filter(|old| old.into == staged.into).map(|old| old.directories);
        let mut directories: BTreeSet<_> =
            staged.directories.into_iter().chain(old_directories.unwrap_or_default()).collect();
        // Where a file is now, there is no directory any more.
        let is_file: BTreeSet<_> = staged.files.iter().map(|file| &file.path).collect();
        directories
            .retain(|directory| !is_file.contains(directory) && !above(directory).any(|up| is_file.contains(&up)));
        let files = staged.files.into_iter().map(StagedFile::into_live).collect();
        Ok(Live { into: staged.into, files, directories: directories.into_iter().collect() })
    }

    fn revert(&self, staged: &Staged) -> Result<()> {
        let Some(root) = Root::open(&staged.into)? else { return Ok(()) };
        // One file that cannot be taken back is no reason to leave the others.
        let files = first_error(staged.files.iter().rev().map(|file| file.revert(&root)));
        // A directory of the new version may be in the place of a file of the old one.
        root.remove_empty(&staged.directories, &self.made)?;
        let stale = first_error(staged.stale.iter().rev().map(|file| file.revert(&root, &self.made)));
        files.and(stale)?;
        let paths = staged.files.iter().map(|file| &file.path).chain(staged.stale.iter().map(|file| &file.path));
        self.sync(&root, false, paths)
    }

    fn retire(&self, staged: &Staged, old: Option<&Live>) -> Result<()> {
        if let Some(root) = Root::open(&staged.into)? {
            let stale = staged.stale.iter().map(|file| file.retire(&root));
            first_error(staged.files.iter().map(|file| file.retire(&root)).chain(stale))?;
        }
        let Some(old) = old else { return Ok(()) };
        if old.into != staged.into {
            // The configuration changed: what lies in the old place is nobody's any more.
            return self.remove(old, false);
        }
        match Root::open(&old.into)? {
            Some(root) => root.remove_empty(&old.directories, &self.made),
            None => Ok(()),
        }
    }

    /// The names of temporary files tell which change they are of, so that those of no other are touched.
    fn sweep(&self, unit: &Unit, staged: Option<&Staged>, old: Option<&Live>) -> Result<()> {
        let into = staged.map_or_else(|| self.into(unit), |staged| Ok(staged.into.clone()))?;
        let Some(root) = Root::open(&into)? else { return Ok(()) };
        let old = old.filter(|old| old.into == into);
        let former = old.iter().flat_map(|old| &old.files).map(|file| file.path.clone());
        let own = staged.iter().flat_map(|staged| &staged.files).map(|file| file.remove_own(&root));
        first_error(own)?;
        let mut paths: BTreeSet<UnitPath> = match staged {
            Some(Staged { files, stale, .. }) => {
                files.iter().map(|file| &file.path).chain(stale.iter().map(|file| &file.path)).cloned().collect()
            }
            None => self.targets(unit)?.into_iter().map(|(target, _)| target).collect(),
        };
        paths.extend(former);
        first_error(paths.iter().map(|path| file::sweep(&root, path, &file::tag(unit, path))))?;
        root.remove_empty(&self.made_above(&root, paths.iter()), &self.made)
    }

    fn remove(&self, live: &Live, is_flushed: bool) -> Result<()> {
        self.made.recall(&live.into, &live.directories);
        let Some(root) = Root::open(&live.into)? else { return Ok(()) };
        for file in &live.files {
            file.check_unchanged(&root)?;
        }
        for file in &live.files {
            file.remove(&root)?;
            self.leaving().remove(&live.into.join(file.path.as_path()));
        }
        let paths = || live.files.iter().map(|file| &file.path);
        self.sync(&root, is_flushed, paths())?;
        // Another file may have told of a directory since this one went live.
        let mut directories = self.made_above(&root, paths());
        directories.extend(live.directories.iter().cloned());
        root.remove_empty(&directories, &self.made)
    }
}

fn observe(live: &Live) -> Result<Observed> {
    let Some(root) = Root::open(&live.into)? else { return Ok(Observed::Gone) };
    let (mut missing, mut drifted) = (Vec::new(), Vec::new());
    for file in &live.files {
        match file.observe(&root)? {
            Observed::Alive => {}
            Observed::Drifted(reason) => drifted.push(reason),
            Observed::Gone => missing.push(&file.path),
        }
    }
    Ok(match (drifted.first(), missing.first()) {
        (Some(reason), _) => Observed::Drifted(reason.clone()),
        (None, Some(_)) if missing.len() == live.files.len() => Observed::Gone,
        (None, Some(path)) => Observed::Drifted(format!("{path} is gone")),
        (None, None) => Observed::Alive,
    })
}

/// The same for units of one file each. Neighbours mostly lie in one directory, which is opened once.
fn observe_files(live: &[Live]) -> Vec<Result<Observed>> {
    let mut root: Option<Root> = None;
    let mut open: Option<(&Path, Parent)> = None;
    let mut observed = Vec::with_capacity(live.len());
    for one in live {
        if root.as_ref().is_none_or(|root| root.path() != one.into) {
            open = None;
            root = Root::open(&one.into).ok().flatten();
        }
        let (Some(root), [file]) = (&root, one.files.as_slice()) else {
            observed.push(observe(one));
            continue;
        };
        let directory = file.path.as_path().parent().unwrap_or(Path::new(""));
        if open.as_ref().is_none_or(|(path, _)| *path != directory) {
            open = root.parent(&file.path).ok().flatten().map(|parent| (directory, parent));
        }
        observed.push(match &open {
            Some((_, parent)) => file.observe_in(parent),
            None => observe(one),
        });
    }
    observed
}

fn sync_all(root: &Root) -> Result<()> {
    crate::deploy::place::sync_all(root.as_directory()).map_err(|error| Error::io("put on disk", root.path(), error))
}

fn sync_directories<'a>(root: &Root, paths: impl Iterator<Item = &'a UnitPath>) -> Result<()> {
    let mut synced: BTreeSet<&Path> = BTreeSet::new();
    for path in paths {
        // A new directory is on disk only once its own parent is.
        let missing: Vec<_> = path.as_path().ancestors().skip(1).take_while(|above| synced.insert(above)).collect();
        for above in missing {
            let entry = UnitPath::new(above).unwrap_or_default().join("entry");
            if let Some(parent) = root.parent_if_any(&entry)? {
                parent.sync()?;
            }
        }
    }
    Ok(())
}

/// The directories on the way to `path`, the deepest first.
fn above(path: &UnitPath) -> impl Iterator<Item = UnitPath> {
    std::iter::successors(path.parent(), UnitPath::parent).filter(|directory| !directory.is_root())
}

/// Goes through all of them, whatever becomes of one.
fn first_error(results: impl Iterator<Item = Result<()>>) -> Result<()> {
    let errors: Vec<_> = results.filter_map(Result::err).collect();
    errors.into_iter().next().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
