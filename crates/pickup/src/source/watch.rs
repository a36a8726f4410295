//! The door to notify: one watcher for all pickups, one watch a directory, hints out.
//!
//! We own the recursion: every watch is non-recursive and stands before its directory is listed, so that nothing can
//! appear between the two. The event thread only looks up who is concerned and queues; it never waits and never reads
//! the disk.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{AccessKind, AccessMode, EventKindMask, ModifyKind, RenameMode};
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
    /// A name on the way to a root was made, removed or exchanged.
    Anchor { root: usize },
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
}

#[derive(Default)]
struct Routes {
    next: Subscriber,
    sinks: HashMap<Subscriber, Sink>,
    /// By the path notify knows. Ordered by component, so that everything below a path is one range.
    points: BTreeMap<PathBuf, Point>,
    /// The kernel has one watch an inode, whatever it is called.
    by_inode: HashMap<Inode, PathBuf>,
}

/// Device and inode number.
type Inode = (u64, u64);

struct Point {
    inode: Inode,
    targets: Vec<(Subscriber, Target)>,
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
                lock(&heard).broadcast(&Notice::Overflow);
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
        Self { notify, routes }
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
        let orphans = {
            let mut routes = lock(&self.routes);
            routes.sinks.remove(&subscriber);
            routes.drop_targets(subscriber, |_| true)
        };
        self.unwatch(&orphans);
    }

    /// Ends the subscriber's watches that lead to `root`.
    pub(crate) fn forget_root(&self, subscriber: Subscriber, root: usize) {
        let leads_there = |target: &Target| match target {
            Target::Directory(place) => place.root == root,
            Target::Anchor { root: anchored, .. } => *anchored == root,
        };
        let orphans = lock(&self.routes).drop_targets(subscriber, leads_there);
        self.unwatch(&orphans);
    }

    fn unwatch(&self, paths: &[PathBuf]) {
        let Ok(notify) = &self.notify else { return };
        for path in paths {
            // It may be gone already, and notify has forgotten it then.
            let _ = lock(notify).unwatch(path);
        }
    }

    /// Watches directories, and gives back those that could not be watched. A directory that is watched already is
    /// watched anew: the watch may have died with a former directory of that name.
    pub(crate) fn watch(&self, subscriber: Subscriber, wanted: &[(PathBuf, Target)]) -> Vec<(usize, Failure)> {
        let notify = match &self.notify {
            Ok(notify) => notify,
            Err(reason) => return (0..wanted.len()).map(|at| (at, Failure::Limit(reason.clone()))).collect(),
        };
        let mut failures = Vec::new();
        let mut batch: Vec<(usize, PathBuf)> = Vec::new();
        for (at, (path, target)) in wanted.iter().enumerate() {
            match inode(path) {
                // The route stands before the watch, so that its first event finds its way.
                Ok(inode) => batch.push((at, lock(&self.routes).add(path, inode, subscriber, target.clone()))),
                Err(failure) => failures.push((at, failure)),
            }
        }
        let mut start = 0;
        while start < batch.len() {
            let operations = batch[start..].iter().map(|(_, path)| PathOp::watch_non_recursive(path)).collect();
            let Err(error) = lock(notify).update_paths(operations) else { break };
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
    /// Adds a route and gives the path to watch: the one the inode is already watched under, if it still is.
    fn add(&mut self, path: &Path, inode_now: Inode, subscriber: Subscriber, target: Target) -> PathBuf {
        if let Some(stale) = self.points.get(path).filter(|point| point.inode != inode_now) {
            self.by_inode.remove(&stale.inode);
        }
        let known = self.by_inode.get(&inode_now).filter(|known| inode(known) == Ok(inode_now)).cloned();
        let path = known.unwrap_or_else(|| path.to_path_buf());
        self.by_inode.insert(inode_now, path.clone());
        let point = self.points.entry(path.clone()).or_insert(Point { inode: inode_now, targets: Vec::new() });
        point.inode = inode_now;
        if !point.targets.iter().any(|known| known.0 == subscriber && known.1 == target) {
            point.targets.push((subscriber, target));
        }
        path
    }

    fn remove(&mut self, path: &Path, subscriber: Subscriber, target: &Target) {
        let Some(point) = self.points.get_mut(path) else { return };
        point.targets.retain(|known| known.0 != subscriber || known.1 != *target);
        if point.targets.is_empty() {
            self.by_inode.remove(&point.inode);
            self.points.remove(path);
        }
    }

    /// Drops the subscriber's routes that `which` names; gives the paths nobody watches any more.
    fn drop_targets(&mut self, subscriber: Subscriber, which: impl Fn(&Target) -> bool) -> Vec<PathBuf> {
        for point in self.points.values_mut() {
            point.targets.retain(|(known, target)| *known != subscriber || !which(target));
        }
        let orphans: Vec<PathBuf> =
            self.points.iter().filter(|(_, point)| point.targets.is_empty()).map(|(path, _)| path.clone()).collect();
        for path in &orphans {
            if let Some(point) = self.points.remove(path) {
                self.by_inode.remove(&point.inode);
            }
        }
        orphans
    }

    fn broadcast(&self, notice: &Notice) {
        for sink in self.sinks.values() {
            sink(notice.clone());
        }
    }

    fn deliver(&self, event: &notify::Event) {
        if event.need_rescan() {
            return self.broadcast(&Notice::Overflow);
        }
        let hint = match event.kind {
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
        let Some(sink) = self.sinks.get(&subscriber) else { return };
        match (target, name) {
            (Target::Directory(place), Some(name)) => {
                let place = Place { root: place.root, path: place.path.join(name) };
                sink(Notice::Entry { place, hint });
            }
            (Target::Directory(place), None) => sink(Notice::Entry { place: place.clone(), hint }),
            // Attributes of a directory on the way say nothing about where the way leads.
            (Target::Anchor { .. }, _) if matches!(hint, Some(Hint::Written | Hint::Closed)) => {}
            (Target::Anchor { root, name: wanted }, Some(name)) if wanted == name => {
                sink(Notice::Anchor { root: *root })
            }
            (Target::Anchor { .. }, Some(_)) => {}
            (Target::Anchor { root, .. }, None) => sink(Notice::Anchor { root: *root }),
        }
    }
}
