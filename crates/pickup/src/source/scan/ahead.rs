//! Listing the directories of one level on all processors: others are ahead of whoever takes the listings in, in order.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;

use super::entries::list;
use super::{Listing, Tree};
use crate::path::UnitPath;

/// So many directories are watched at once, and then listed; with fewer, nobody is asked for help.
const AT_ONCE: usize = 1024;

/// How many listings may wait for being taken in: they are held in memory.
const AHEAD_MAX: usize = 2 * AT_ONCE;

/// Fewer directories than this are listed sooner than a thread starts.
const WORTH_HELP: usize = 64;

/// More threads than this wait for each other in the kernel.
const THREADS_MAX: usize = 4;

/// Lists `directories` of `tree`. `stand_watch` is told of each before it is listed, `take` is given the
/// listings in order.
pub(super) fn each_listing(
    tree: &Tree<'_>,
    directories: &[UnitPath],
    stand_watch: &mut dyn FnMut(&[UnitPath]),
    take: &mut dyn FnMut(&UnitPath, Listing),
) {
    // To ask for the processors takes as long as to list a small directory.
    let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
    let helpers = if directories.len() < WORTH_HELP { 0 } else { processors().min(THREADS_MAX) - 1 };
    let level = Level { tree, directories, progress: Mutex::default(), changed: Condvar::new() };
    std::thread::scope(|scope| {
        // However this ends, nobody waits for more.
        let _end = End(&level);
        for _ in 0..helpers {
            // Without help it is slower, and nothing else.
            let _refused = Builder::new().name("listing".into()).spawn_scoped(scope, || level.help()).err();
        }
        let mut watched = 0;
        for (at, directory) in directories.iter().enumerate() {
            while watched < directories.len() && watched <= at + AT_ONCE {
                let next = directories.len().min(watched + AT_ONCE);
                stand_watch(&directories[watched..next]);
                watched = next;
                level.allow(watched);
            }
            take(directory, level.take(at));
        }
    });
}

/// The directories of one level.
struct Level<'a> {
    tree: &'a Tree<'a>,
    directories: &'a [UnitPath],
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// How many may be listed.
    allowed: usize,
    /// The first that nobody lists or has listed.
    next: usize,
    /// How many were taken in.
    taken: usize,
    /// What was listed ahead.
    listed: BTreeMap<usize, Listing>,
    /// Those who wait for a change.
    waiting: usize,
    /// Whether nothing is wanted any more, or a thread is gone that may have had something in hand.
    is_over: bool,
}

impl Progress {
    /// The next to be listed, if one may be.
    fn claim(&mut self) -> Option<usize> {
        let next = self.next;
        if next >= self.allowed.min(self.taken + AHEAD_MAX) {
            return None;
        }
        self.next += 1;
        Some(next)
    }
}

impl<'a> Level<'a> {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'b>(&self, mut progress: MutexGuard<'b, Progress>) -> MutexGuard<'b, Progress> {
        progress.waiting += 1;
        let mut progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        progress.waiting -= 1;
        progress
    }

    /// Says so to those who wait.
    fn change(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.progress();
        change(&mut progress);
        if progress.waiting > 0 {
            self.changed.notify_all();
        }
    }

    fn allow(&self, allowed: usize) {
        self.change(|progress| progress.allowed = allowed);
    }

    fn list(&self, at: usize) -> Listing {
        list(&self.tree.root.join(self.directories[at].as_path()), self.tree.is_known)
    }

    /// Lists what may be listed, until it is over.
    fn help(&self) {
        let _end = End(self);
        let mut progress = self.progress();
        while !progress.is_over {
            let Some(at) = progress.claim() else {
                progress = self.wait(progress);
                continue;
            };
            drop(progress);
            let listing = self.list(at);
            self.change(|progress| drop(progress.listed.insert(at, listing)));
            progress = self.progress();
        }
    }

    /// The listing number `at`; while another makes it, what comes after it is listed.
    fn take(&self, at: usize) -> Listing {
        let mut progress = self.progress();
        let listing = loop {
            if let Some(listing) = progress.listed.remove(&at) {
                break listing;
            }
            match progress.claim() {
                Some(next) => {
                    drop(progress);
                    let listing = self.list(next);
                    progress = self.progress();
                    progress.listed.insert(next, listing);
                }
                None if progress.is_over => {
                    drop(progress);
                    let listing = self.list(at);
                    progress = self.progress();
                    break listing;
                }
                None => progress = self.wait(progress),
            }
        };
        drop(progress);
        self.change(|progress| progress.taken = at + 1);
        listing
    }
}

/// Ends the listing of a level, also by a panic.
struct End<'a, 'b>(&'a Level<'b>);

impl Drop for End<'_, '_> {
    fn drop(&mut self) {
        self.0.change(|progress| progress.is_over = true);
    }
}
