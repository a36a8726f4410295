//! Listing directories: at start, after an overflow, and when polling.
//!
//! A walk goes level by level and names the directories of a level before it lists them, so that the caller can watch them
//! first. What appears in between is then seen by the watch, by the listing, or by both, and never by neither.
#![expect(clippy::disallowed_methods, reason = "this is the door to listings of pickup directories")]

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

pub(crate) use self::name::Name;
use super::Fingerprint;
use super::ignore::{PICKUPIGNORE, Rules};
use crate::config::Symlinks;
use crate::path::UnitPath;

mod ahead;
mod entries;
mod name;
#[cfg(all(test, unix))]
mod tests;

/// Symlinked directories within symlinked directories. Each level can multiply the names to walk by all links there are.
const LINKED_MAX: usize = 4;

/// What a directory entry is, without following it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    File,
    Directory,
    Symlink,
    /// A FIFO, a socket, a device.
    Other,
}

/// One name in a directory.
#[derive(Debug)]
pub(crate) struct Entry {
    pub name: Name,
    pub kind: EntryKind,
    /// The identity of a regular file, from just after it was listed, if that was asked for.
    pub fingerprint: Option<Fingerprint>,
}

/// What one directory holds.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Sorted by name.
    pub entries: Vec<Entry>,
    /// What could not be listed, the directory itself or entries of it. With any error the listing is not complete.
    pub errors: Vec<(PathBuf, io::Error)>,
}

/// What is walked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tree<'a> {
    /// The real path of the pickup directory.
    pub root: &'a Path,
    /// Its index in `pickup_from`.
    pub index: usize,
    pub recursive: bool,
    pub symlinks: Symlinks,
    /// Whether there is anything to compare the identities of its files with: otherwise nobody asks for them.
    pub is_known: bool,
}

/// A name that a walk found.
#[derive(Debug)]
pub(crate) struct Listed {
    pub path: UnitPath,
    /// Whether it is a regular file, and no symlink to one.
    pub is_regular: bool,
    /// The identity of a regular file, from just after it was listed, if that was asked for.
    pub fingerprint: Option<Fingerprint>,
}

/// A name in a directory that is picked up, and is none itself.
#[derive(Debug)]
pub(crate) struct Found {
    pub name: Name,
    /// Whether it is a regular file, and no symlink to one.
    pub is_regular: bool,
    /// The identity of a regular file, from just after it was listed, if that was asked for.
    pub fingerprint: Option<Fingerprint>,
}

impl Found {
    /// The same by its path; `directory` is where it was found.
    pub(crate) fn listed(self, directory: &UnitPath) -> Listed {
        Listed { path: directory.join(self.name), is_regular: self.is_regular, fingerprint: self.fingerprint }
    }
}

/// Takes out of what a directory was found to hold, sorted by name, what is known to be as it was.
pub(crate) type Sift<'a> = &'a mut dyn FnMut(&UnitPath, &mut Vec<Found>);

/// What a walk found.
#[derive(Debug, Default)]
pub(crate) struct Walked {
    /// All that the rules take and that is no directory: files, but also what only a probe can refuse with a reason; less
    /// what was sifted out.
    pub files: Vec<Listed>,
    /// Those of `files` that are symlinks.
    pub links: Vec<UnitPath>,
    /// The directories that were listed to their end, the first one included.
    pub directories: Vec<UnitPath>,
    /// Names that the rules leave alone. What lies below an ignored directory is not counted.
    pub ignored_count: usize,
    /// What could not be listed, and why. What was known below these paths is not gone.
    pub unreadable: Vec<(UnitPath, String)>,
    /// What is wrong with the `.pickupignore` files that were met.
    pub problems: Vec<String>,
}

/// Walks the directory `start` of `tree`. `on_directories` is told each level's directories before they are listed; `sift`
/// spares those files that did not change from being made anything of.
///
/// A missing root is unreadable and not gone; any other directory that vanishes meanwhile is gone. The `.pickupignore`
/// files of the directories met are loaded into `rules`; those above `start` must be loaded already.
pub(crate) fn walk(
    tree: &Tree<'_>,
    start: &UnitPath,
    rules: &mut Rules,
    on_directories: &mut dyn FnMut(&[UnitPath]),
    sift: Sift<'_>,
) -> Walked {
    let mut walked = Walked::default();
    if !rules.takes(tree.index, start, true) {
        walked.ignored_count = 1;
        return walked;
    }
    let mut level = vec![start.clone()];
    while !level.is_empty() {
        let mut below = Vec::new();
        ahead::each_listing(tree, &level, on_directories, &mut |directory, listing| {
            take_in(tree, directory, listing, rules, &mut walked, &mut below, sift);
        });
        level = below;
    }
    walked
}

fn take_in(
    tree: &Tree<'_>,
    directory: &UnitPath,
    listing: Listing,
    rules: &mut Rules,
    walked: &mut Walked,
    below: &mut Vec<UnitPath>,
    sift: Sift<'_>,
) {
    let absolute = tree.root.join(directory.as_path());
    let mut is_listed = true;
    for (path, error) in listing.errors {
        is_listed &= path != absolute;
        let is_gone = is_gone(&error);
        if path != absolute && is_gone {
            continue; // An entry that vanished while its directory was listed.
        }
        if is_gone && !directory.is_root() {
            rules.forget_pickupignore(tree.index, directory);
            return;
        }
        let place = path.strip_prefix(tree.root).ok().and_then(UnitPath::new).unwrap_or_else(|| directory.clone());
        walked.unreadable.push((place, error.to_string()));
    }
    if !is_listed && listing.entries.is_empty() {
        return;
    }
    if listing.entries.iter().any(|entry| entry.kind == EntryKind::File && *entry.name == *PICKUPIGNORE) {
        walked.problems.extend(rules.load_pickupignore(tree.index, directory, &absolute).problems);
    } else if is_listed {
        rules.forget_pickupignore(tree.index, directory);
    }
    let mut found = Vec::with_capacity(listing.entries.len());
    // Paths are made of those only that something has to be done about.
    for entry in listing.entries {
        let is_directory = match entry.kind {
            EntryKind::Directory => true,
            EntryKind::Symlink => leads_to_directory(tree, &directory.as_path().join(&*entry.name)),
            EntryKind::File | EntryKind::Other => false,
        };
        if !rules.takes_entry(tree.index, directory, &entry.name, is_directory) {
            walked.ignored_count += 1;
        } else if !is_directory {
            if entry.kind == EntryKind::Symlink {
                walked.links.push(directory.join(&entry.name));
            }
            let is_regular = entry.kind == EntryKind::File;
            found.push(Found { name: entry.name, is_regular, fingerprint: entry.fingerprint });
        } else if tree.recursive {
            let path = directory.join(&entry.name);
            match entry.kind {
                EntryKind::Symlink => enter_link(tree, path, walked, below),
                EntryKind::Directory | EntryKind::File | EntryKind::Other => below.push(path),
            }
        }
    }
    sift(directory, &mut found);
    walked.files.extend(found.into_iter().map(|found| found.listed(directory)));
    if is_listed {
        walked.directories.push(directory.clone());
    }
}

/// Whether the symlink at `path` leads to a directory that the policy lets us enter. All other links are left to the probe,
/// which has the words for them.
fn leads_to_directory(tree: &Tree<'_>, path: &Path) -> bool {
    let absolute = tree.root.join(path);
    match tree.symlinks {
        Symlinks::Skip => false,
        Symlinks::Follow => absolute.is_dir(),
        Symlinks::Inside => {
            absolute.is_dir() && absolute.canonicalize().is_ok_and(|target| target.starts_with(tree.root))
        }
    }
}

/// Goes into the symlinked directory `path`, unless that leads in a circle.
fn enter_link(tree: &Tree<'_>, path: UnitPath, walked: &mut Walked, below: &mut Vec<UnitPath>) {
    let absolute = tree.root.join(path.as_path());
    let Ok(target) = absolute.metadata() else { return };
    // Every directory on the way here, down from the root, links followed.
    let above = absolute.ancestors().skip(1).take_while(|one| one.starts_with(tree.root));
    let mut linked = 1;
    for directory in above {
        if directory.metadata().is_ok_and(|seen| is_same(&seen, &target)) {
            walked.ignored_count += 1;
            return;
        }
        linked += usize::from(directory != tree.root && directory.is_symlink());
    }
    if linked > LINKED_MAX {
        let why = format!("more than {LINKED_MAX} symlinked directories lie within each other");
        walked.unreadable.push((path, why));
        return;
    }
    below.push(path);
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(unix)]
fn is_same(one: &Metadata, other: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

/// Without inode numbers only the limit on links within each other ends a circle.
#[cfg(not(unix))]
fn is_same(_one: &Metadata, _other: &Metadata) -> bool {
    false
}
