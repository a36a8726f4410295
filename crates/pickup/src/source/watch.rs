//! The door to notify: one watcher for all pickups, one watch a directory, hints out.
//!
//! We own the recursion: every watch is non-recursive and stands before its directory is listed, so that nothing can
//! appear between the two. The event thread only looks up who is concerned and queues; it never waits and never reads
//! the disk.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, CreateKind, EventKindMask, ModifyKind, RenameMode};
use notify::{EventKind, PathOp, Watcher as _};

use crate::source::{Hint, Place};

#[cfg(test)]
mod tests;

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Something happened to an entry of a watched directory, or to the directory itself. No hint: it was removed, or
    /// renamed away.
    Entry { place: Place, hint: Option<Hint> },
    /// Something happened to a name on the way to a root. `is_exchanged`: it was made, removed or renamed, and whatever
    /// lies there now is another, even if it has the inode number of the former.
    Anchor { root: usize, is_exchanged: bool },
    /// Git did something in the repository that a root lies in.
    Repository { root: usize },
    /// The kernel's queue overflowed: anything may have happened.
    Overflow,
}

/// Where a subscriber's notices go. Called on the event thread: it must neither wait nor read the disk.
pub(crate) type Sink = Arc<dyn Fn(Notice) + Send + Sync>;

/// Whose watch it is.
pub(crate) type Subscriber = u64;

/// Why a directory is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// It is a root, or lies below one, and everything in it counts.
    Directory(Place),
    /// It lies on the way to a root, and only this name in it counts.
    Anchor { root: usize, name: OsString },
    /// It is where git works in the repository that a root lies in.
    Repository { root: usize },
}

impl Target {
    /// Whether what happened to `name`, or to the directory itself, concerns it. Asked before anything else: everybody's
    /// files may lie on the way to a root, and there is a target for each pickup.
    fn is_met_by(&self, name: Option<&OsStr>, hint: Option<Hint>) -> bool {
        match self {
            Self::Directory(_) | Self::Repository { .. } => true,
            // What is written on the way says nothing about where the way leads.
            Self::Anchor { .. } if matches!(hint, Some(Hint::Written | Hint::Closed)) => false,
            Self::Anchor { name: wanted, .. } => name.is_none_or(|name| name == wanted),
        }
    }
}

/// Why a directory could not be watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// A limit of the kernel is reached; says which, and how to raise it.
    Limit(String),
    /// It is not there, or not a directory.
    Gone,
    /// Anything else.
    Other(String),
}

/// One watcher for all pickups.
pub(crate) struct Watcher {
    notify: Result<Mutex<notify::RecommendedWatcher>, String>,
    routes: Arc<Mutex<Routes>>,
    /// Everything ends: watches go with the watcher.
    is_ending: AtomicBool,
}

#[derive(Default)]
struct Routes {
    next: Subscriber,
    sinks: HashMap<Subscriber, Sink>,
    /// By the path notify knows. Ordered by component, so that everything below a path is one range.
    points: BTreeMap<Arc<Path>, Point>,
    /// The kernel has one watch an inode, whatever it is called.
    by_inode: HashMap<Inode, Arc<Path>>,
    /// Where directories were renamed away from.
    left: Vec<PathBuf>,
}

/// Device and inode number.
type Inode = (u64, u64);

struct Point {
    inode: Inode,
    targets: Vec<(Subscriber, Target)>,
    /// The watch may be that of a directory that is not there any more, and notify would not set a second one.
    is_doubted: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watcher {
    /// Starts the event thread. Where the system gives us no watcher, every watch fails with the reason, and the caller
    /// polls.
    pub(crate) fn start() -> Self {
        let routes = Arc::new(Mutex::new(Routes::default()));
        // Creation, removal, renames, writes, attributes and close-after-write. Never OPEN: our own walks would flood
        // the queue with it.
        let mask = EventKindMask::CORE | EventKindMask::ACCESS_CLOSE;
        let config = notify::Config::default().with_event_kinds(mask).with_follow_symlinks(false);
        let heard = routes.clone();
        let handler = move |event: notify::Result<notify::Event>| match event {
            Ok(event) => lock(&heard).deliver(&event),
            Err(error) => {
                tracing::warn!(%error, "the watcher reports an error; everything is compared again");
                lock(&heard).overflowed();
            }
        };
        let notify =
            notify::RecommendedWatcher::new(handler, config).map(Mutex::new).map_err(|error| match &error.kind {
                notify::ErrorKind::Io(io) if io.raw_os_error() == Some(TOO_MANY_FILES) => format!(
                    "{error}: too many inotify instances or open files; raise fs.inotify.max_user_instances, \
                 e.g. `sysctl fs.inotify.max_user_instances=1024`, or `ulimit -n`"
                ),
                _ => error.to_string(),
            });
        Self { notify, routes, is_ending: AtomicBool::new(false) }
    }

    /// A subscriber's identity, for its watches.
    pub(crate) fn subscribe(&self, sink: Sink) -> Subscriber {
        let mut routes = lock(&self.routes);
        routes.next += 1;
        let subscriber = routes.next;
        routes.sinks.insert(subscriber, sink);
        subscriber
    }

    /// Ends every watch of the subscriber.
    pub(crate) fn unsubscribe(&self, subscriber: Subscriber) {
        self.unwatch(|routes| {
            routes.sinks.remove(&subscriber);
            routes.drop_targets(subscriber, |_| true)
        });
    }

    /// Ends the subscriber's watches that lead to `root`.
    pub(crate) fn forget_root(&self, subscriber: Subscriber, root: usize) {
        let leads_there = |target: &Target| match target {
            Target::Directory(place) => place.root == root,
            Target::Anchor { root: anchored, .. } | Target::Repository { root: anchored } => *anchored == root,
        };
        self.unwatch(|routes| routes.drop_targets(subscriber, leads_there));
    }

    /// Ends the watches of directories that were renamed to where nobody looks.
    pub(crate) fn forget_left(&self) {
        self.unwatch(Routes::drop_left);
    }

    /// From now on watches are only forgotten. The kernel drops them all at once with the watcher, where ending them one by
    /// one takes notify a time that grows with the square of their number.
    pub(crate) fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    fn unwatch(&self, orphans: impl FnOnce(&mut Routes) -> Vec<Arc<Path>>) {
        // Held first, as by `watch`: nobody may find a watch standing that is about to end.
        let notify = self.notify.as_ref().ok().map(lock);
        let paths = orphans(&mut lock(&self.routes));
        let Some(mut notify) = notify.filter(|_| !self.is_ending.load(Ordering::Relaxed)) else { return };
        for path in &paths {
            // It may be gone already, and notify has forgotten it then.
            let _ = notify.unwatch(path);
        }
    }

    /// Watches directories, and gives back those that could not be watched. A directory that is watched already is
    /// watched anew if its watch may have died with a former directory of that name.
    pub(crate) fn watch(&self, subscriber: Subscriber, wanted: &[(PathBuf, Target)]) -> Vec<(usize, Failure)> {
        let notify = match &self.notify {
            Ok(notify) => notify,
            Err(reason) => return (0..wanted.len()).map(|at| (at, Failure::Limit(reason.clone()))).collect(),
        };
        // Held to the end: nobody may list a directory while another takes away its doubted watch.
        let mut notify = lock(notify);
        let mut failures = Vec::new();
        let mut batch: Vec<(usize, Arc<Path>)> = Vec::new();
        for (at, (path, target)) in wanted.iter().enumerate() {
            match inode(path) {
                // The route stands before the watch, so that its first event finds its way.
                Ok(inode) => {
                    let (path, is_doubted) = lock(&self.routes).add(path, inode, subscriber, target.clone());
                    if is_doubted {
                        // It may be gone already, and notify has forgotten it then.
                        let _ = notify.unwatch(&path);
                    }
                    batch.push((at, path));
                }
                Err(failure) => failures.push((at, failure)),
            }
        }
        let mut start = 0;
        while start < batch.len() {
            let operations = batch[start..].iter().map(|(_, path)| PathOp::watch_non_recursive(&**path)).collect();
            let Err(error) = notify.update_paths(operations) else { break };
            let failed = batch.len() - error.remaining.len() - usize::from(error.origin.is_some());
            let failure = failure(&error.source);
            let is_limit = matches!(failure, Failure::Limit(_));
            let end = if is_limit { batch.len() } else { failed + 1 };
            for (at, path) in batch.get(failed..end).unwrap_or_default() {
                lock(&self.routes).remove(path, subscriber, &wanted[*at].1);
                failures.push((*at, failure.clone()));
            }
            start = end;
        }
        failures
    }
}

/// `EMFILE`, which `inotify_init` gives when the user has too many instances.
const TOO_MANY_FILES: i32 = 24;

fn failure(error: &notify::Error) -> Failure {
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => Failure::Limit(
            "the limit fs.inotify.max_user_watches is reached; raise it, e.g. \
             `sysctl fs.inotify.max_user_watches=1048576`"
                .into(),
        ),
        notify::ErrorKind::PathNotFound => Failure::Gone,
        notify::ErrorKind::Io(io) if io.kind() == std::io::ErrorKind::NotFound => Failure::Gone,
        _ => Failure::Other(error.to_string()),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the door to the disk's events")]
fn inode(path: &Path) -> Result<Inode, Failure> {
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Failure::Gone,
        _ => Failure::Other(error.to_string()),
    })?;
    if !metadata.is_dir() {
        return Err(Failure::Gone);
    }
    Ok(identity(&metadata, path))
}

#[cfg(unix)]
fn identity(metadata: &std::fs::Metadata, _path: &Path) -> Inode {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn identity(_metadata: &std::fs::Metadata, path: &Path) -> Inode {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    (0, hasher.finish())
}

impl Routes {
    /// Adds a route and gives the path to watch: the one the inode is already watched under, if it still is. Says also
    /// whether a watch that stands there is doubted.
    fn add(&mut self, path: &Path, inode_now: Inode, subscriber: Subscriber, target: Target) -> (Arc<Path>, bool) {
        let known = self.by_inode.get(&inode_now).filter(|known| inode(known) == Ok(inode_now)).cloned();
        // It has another name now, and what had this one is gone.
        if known.as_ref().is_some_and(|known| **known != *path)
            && let Some(stale) = self.points.get(path).filter(|point| point.inode != inode_now)
        {
            self.by_inode.remove(&stale.inode);
        }
        let path = known.unwrap_or_else(|| path.into());
        // Most have one: a second is room for four.
        let new = || Point { inode: inode_now, targets: Vec::with_capacity(1), is_doubted: false };
        let point = self.points.entry(path.clone()).or_insert_with(new);
        if point.inode != inode_now {
            self.by_inode.remove(&point.inode);
        }
        self.by_inode.insert(inode_now, path.clone());
        let is_doubted = std::mem::take(&mut point.is_doubted) || point.inode != inode_now;
        point.inode = inode_now;
        if !point.targets.iter().any(|known| known.0 == subscriber && known.1 == target) {
            point.targets.push((subscriber, target));
        }
        (path, is_doubted)
    }

    /// The paths at and below `path` that are watched.
    fn below(&self, path: &Path) -> Vec<Arc<Path>> {
        let from = (Bound::Included(path), Bound::Unbounded);
        let below = self.points.range::<Path, _>(from).map(|(known, _)| known);
        below.take_while(|known| known.starts_with(path)).cloned().collect()
    }

    /// A name was removed: so was all below it, and notify has forgotten it as well.
    fn removed(&mut self, path: &Path) {
        for gone in self.below(path) {
            self.drop_point(&gone);
        }
    }

    /// A name was renamed away: notify keeps the watches below it, which tell of another place now.
    fn left(&mut self, path: &Path) {
        let below = self.below(path);
        if below.is_empty() {
            return;
        }
        for moved in &below {
            self.points.entry(moved.clone()).and_modify(|point| point.is_doubted = true);
        }
        self.left.push(path.to_path_buf());
    }

    /// Drops the routes of directories that were renamed away and not made again; gives their paths.
    fn drop_left(&mut self) -> Vec<Arc<Path>> {
        let mut orphans = Vec::new();
        for path in std::mem::take(&mut self.left) {
            let is_orphan = |path: &Arc<Path>| {
                self.points.get(path).is_some_and(|point| point.is_doubted && inode(path) != Ok(point.inode))
            };
            let below: Vec<Arc<Path>> = self.below(&path).into_iter().filter(is_orphan).collect();
            below.iter().for_each(|path| self.drop_point(path));
            orphans.extend(below);
        }
        orphans
    }

    fn drop_point(&mut self, path: &Path) {
        let Some(point) = self.points.remove(path) else { return };
        if self.by_inode.get(&point.inode).is_some_and(|known| **known == *path) {
            self.by_inode.remove(&point.inode);
        }
    }

    fn remove(&mut self, path: &Path, subscriber: Subscriber, target: &Target) {
        let Some(point) = self.points.get_mut(path) else { return };
        point.targets.retain(|known| known.0 != subscriber || known.1 != *target);
        if point.targets.is_empty() {
            self.drop_point(path);
        }
    }

    /// Drops the subscriber's routes that `which` names; gives the paths nobody watches any more.
    fn drop_targets(&mut self, subscriber: Subscriber, which: impl Fn(&Target) -> bool) -> Vec<Arc<Path>> {
        for point in self.points.values_mut() {
            point.targets.retain(|(known, target)| *known != subscriber || !which(target));
        }
        let orphans: Vec<Arc<Path>> =
            self.points.iter().filter(|(_, point)| point.targets.is_empty()).map(|(path, _)| path.clone()).collect();
        orphans.iter().for_each(|path| self.drop_point(path));
        orphans
    }

    /// Everybody has to compare everything, and no watch is known to stand: the event that it died may be lost.
    fn overflowed(&mut self) {
        self.points.values_mut().for_each(|point| point.is_doubted = true);
        self.broadcast(&Notice::Overflow);
    }

    fn broadcast(&self, notice: &Notice) {
        for sink in self.sinks.values() {
            sink(notice.clone());
        }
    }

    fn deliver(&mut self, event: &notify::Event) {
        if event.need_rescan() {
            return self.overflowed();
        }
        let hint = match event.kind {
            // No hint about a directory follows: it is to be listed.
            EventKind::Create(CreateKind::Folder) => Some(Hint::Scan),
            EventKind::Create(_) => Some(Hint::Created),
            EventKind::Modify(ModifyKind::Data(_)) => Some(Hint::Written),
            EventKind::Modify(ModifyKind::Metadata(_)) => Some(Hint::Attributes),
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Hint::MovedIn),
            // Said once more, after From and To.
            EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => return,
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => None,
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Hint::Closed),
            EventKind::Access(_) => return,
            // Other platforms' watchers are less exact.
            EventKind::Modify(_) | EventKind::Any | EventKind::Other => Some(Hint::Scan),
        };
        for path in &event.paths {
            self.deliver_path(path, hint);
            match event.kind {
                EventKind::Remove(_) => self.removed(path),
                EventKind::Modify(ModifyKind::Name(RenameMode::From)) => self.left(path),
                EventKind::Any
                | EventKind::Access(_)
                | EventKind::Create(_)
                | EventKind::Modify(_)
                | EventKind::Other => {}
            }
        }
    }

    fn deliver_path(&self, path: &Path, hint: Option<Hint>) {
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
            && let Some(point) = self.points.get(parent)
        {
            for (subscriber, target) in &point.targets {
                self.send(*subscriber, target, Some(name), hint);
            }
        }
        // Something happened to a watched directory itself.
        if let Some(point) = self.points.get(path) {
            for (subscriber, target) in &point.targets {
                self.send(*subscriber, target, None, hint);
            }
        }
    }

    fn send(&self, subscriber: Subscriber, target: &Target, name: Option<&OsStr>, hint: Option<Hint>) {
        if !target.is_met_by(name, hint) {
            return;
        }
        let is_exchanged = !matches!(hint, Some(Hint::Attributes));
        let Some(sink) = self.sinks.get(&subscriber) else { return };
        match (target, name) {
            (Target::Directory(place), Some(name)) => {
                let place = Place { root: place.root, path: place.path.join(name) };
                sink(Notice::Entry { place, hint });
            }
            (Target::Directory(place), None) => sink(Notice::Entry { place: place.clone(), hint }),
            (Target::Repository { root }, _) => sink(Notice::Repository { root: *root }),
            (Target::Anchor { root, .. }, _) => sink(Notice::Anchor { root: *root, is_exchanged }),
        }
    }
}
