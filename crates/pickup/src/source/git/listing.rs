//! What a commit holds that may be deployed: every file below one directory of it, links resolved, every name checked.
//!
//! A commit is somebody else's input. What endangers whoever deploys it refuses the commit as a whole; a link that leads
//! nowhere or out is refused by itself. Trees alone are read here: the sizes of blobs are the business of an import, which
//! knows those that matter.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use git2::{Oid, Repository};

use super::Revision;
use crate::config::{GitAllow, Symlinks};
use crate::error::{Error, ErrorKind, Result};
use crate::path::UnitPath;

mod links;
mod names;
#[cfg(all(test, unix))]
pub(super) mod testing;
#[cfg(all(test, unix))]
mod tests;
mod tree;

use links::Target;
use names::Names;
use tree::Kind;

/// Directories within each other. Deep Java trees have about 30.
const DEPTH_MAX: usize = 128;
/// Bytes of a path below the listed directory: what Linux takes.
const PATH_MAX: usize = 4096;
/// A commit may hold as many directories as files, and this many at least. Git itself keeps no directory without files, so
/// that more of them is a tree that was made to be walked for ever.
const DIRECTORIES_MIN: usize = 10_000;
/// Symlinked directories within symlinked directories, as in directories on disk.
const LINKED_MAX: usize = 4;
/// Characters of a name or a subject that are kept.
const TEXT_MAX: usize = 200;

/// What is listed, and what is let in.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// The directory that is deployed; `None` for all of the commit.
    pub subdir: Option<UnitPath>,
    pub symlinks: Symlinks,
    pub allow: BTreeSet<GitAllow>,
    pub files_max: usize,
    /// Bytes that the files of a commit may hold, as far as the rules take them; an import checks it.
    pub size_max: u64,
}

/// One file of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The blob.
    pub(crate) oid: Oid,
    /// `0o644`, or `0o755` if it may be executed.
    pub mode: u32,
    /// Whether its own name is a symlink to that file.
    pub is_link: bool,
}

/// What a commit holds, by paths below the listed directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub files: BTreeMap<UnitPath, Entry>,
    /// What is left out, and why.
    pub refused: BTreeMap<UnitPath, String>,
}

/// Lists the directory `terms.subdir` of `commit`.
///
/// # Errors
/// Not transient: the commit has no such directory, or holds what is not let in; the message names the path and the way
/// out. Transient: an object is missing or cannot be read.
pub(crate) fn list(repository: &Repository, commit: Oid, terms: &Terms) -> Result<Listing> {
    let root = tree::root(repository, commit, terms.subdir.as_ref())?;
    let mut walk = Walk { repository, commit, root, terms, files: Vec::new(), listing: Listing::default(), entered: 0 };
    let start =
        Directory { tree: root, path: UnitPath::root(), real: UnitPath::root(), depth: 0, linked: 0, above: None };
    let mut ahead = vec![Rc::new(start)];
    while let Some(directory) = ahead.pop() {
        walk.enter(&directory, &mut ahead)?;
    }
    // Sorted and built at once, which is quicker than one by one.
    let files = walk.files.into_iter().collect();
    Ok(Listing { files, ..walk.listing })
}

/// What is told of `commit`.
///
/// # Errors
/// The repository has no such commit, or it cannot be read.
pub(crate) fn revision(repository: &Repository, commit: Oid, branch: Option<String>) -> Result<Revision> {
    let found = repository.find_commit(commit).map_err(|e| unreadable(commit, "itself", e))?;
    Ok(Revision {
        commit: commit.to_string(),
        branch,
        author: clean(&String::from_utf8_lossy(found.author().name_bytes())),
        subject: clean(&String::from_utf8_lossy(found.summary_bytes().unwrap_or_default())),
        committed_at: found.time().seconds().saturating_mul(1000),
        previous: None,
    })
}

/// Text of somebody else's for a terminal and a log: bounded, without control characters and those that turn the direction
/// of writing.
fn clean(text: &str) -> String {
    let is_plain = |c: &char| !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.trim().chars().filter(is_plain).take(TEXT_MAX).collect()
}

/// A directory that is to be listed.
#[derive(Debug)]
struct Directory {
    tree: Oid,
    /// Where it shows.
    path: UnitPath,
    /// Where it is: another place if a link led here.
    real: UnitPath,
    depth: usize,
    /// How many links led here.
    linked: usize,
    /// The one that it shows in.
    above: Option<Rc<Self>>,
}

impl Directory {
    fn is_within(&self, real: &UnitPath) -> bool {
        self.real == *real || self.above.as_ref().is_some_and(|above| above.is_within(real))
    }
}

struct Walk<'a> {
    repository: &'a Repository,
    commit: Oid,
    /// The tree of the listed directory.
    root: Oid,
    terms: &'a Terms,
    files: Vec<(UnitPath, Entry)>,
    /// Its `refused`; the files come last.
    listing: Listing,
    /// How many directories.
    entered: usize,
}

impl Walk<'_> {
    fn enter(&mut self, directory: &Rc<Directory>, ahead: &mut Vec<Rc<Directory>>) -> Result<()> {
        self.entered += 1;
        let directories_max = self.terms.files_max.max(DIRECTORIES_MIN);
        if self.entered > directories_max {
            return Err(self.refuse_all(format!("it holds more than {directories_max} directories")));
        }
        let tree = tree::find(self.repository, self.commit, directory.tree, &directory.path)?;
        let mut names = Names::new(self.terms.allow.contains(&GitAllow::CaseCollisions));
        for entry in tree.iter() {
            let name = entry.name_bytes();
            let why = |why: String| {
                let place = String::from_utf8_lossy(name);
                let place = if directory.path.is_root() { place.into() } else { format!("{}/{place}", directory.path) };
                self.refuse_all(format!("`{}` {why}", place.escape_debug()))
            };
            let path = directory.path.join(names.add(name).map_err(why)?);
            if directory.depth >= DEPTH_MAX || path.as_path().as_os_str().len() > PATH_MAX {
                return Err(why("lies too deep".into()));
            }
            match Kind::of(entry.filemode_raw()) {
                Some(Kind::File { mode }) => self.add(path, Entry { oid: entry.id(), mode, is_link: false })?,
                Some(Kind::Directory) => {
                    let real = directory.real.join(path.file_name().unwrap_or_default());
                    ahead.push(self.below(directory, entry.id(), path, real, 0));
                }
                Some(Kind::Link) => self.follow(directory, path, entry.id(), ahead)?,
                Some(Kind::Submodule) if self.terms.allow.contains(&GitAllow::Submodules) => {
                    self.leave_out(path, "a submodule, whose files are in another repository".into())?;
                }
                Some(Kind::Submodule) => {
                    let hint = "is a submodule, whose files are in another repository; to deploy the rest without it, set \
                                `git_allow = [\"submodules\"]`";
                    return Err(why(hint.into()));
                }
                None => return Err(why(format!("is of an unknown kind, mode {:o}", entry.filemode_raw()))),
            }
        }
        Ok(())
    }

    fn below(&self, above: &Rc<Directory>, tree: Oid, path: UnitPath, real: UnitPath, links: usize) -> Rc<Directory> {
        let (depth, linked) = (above.depth + 1, above.linked + links);
        Rc::new(Directory { tree, path, real, depth, linked, above: Some(Rc::clone(above)) })
    }

    /// Goes where the link at `path` leads.
    fn follow(
        &mut self,
        directory: &Rc<Directory>,
        path: UnitPath,
        link: Oid,
        ahead: &mut Vec<Rc<Directory>>,
    ) -> Result<()> {
        let target = match self.terms.symlinks {
            Symlinks::Skip => Target::Refused("a symlink, and `symlinks` is `skip`".into()),
            // A commit has no outside that could be followed to.
            Symlinks::Inside | Symlinks::Follow => self.resolve(&directory.real, link)?,
        };
        match target {
            Target::File { oid, mode } => self.add(path, Entry { oid, mode, is_link: true }),
            Target::Directory { real, .. } if directory.is_within(&real) => {
                self.leave_out(path, "a symlink that leads to a directory that it lies in".into())
            }
            Target::Directory { .. } if directory.linked >= LINKED_MAX => {
                self.leave_out(path, format!("more than {LINKED_MAX} symlinked directories lie within each other"))
            }
            Target::Directory { tree, real } => {
                ahead.push(self.below(directory, tree, path, real, 1));
                Ok(())
            }
            Target::Refused(why) => self.leave_out(path, why),
        }
    }

    fn add(&mut self, path: UnitPath, entry: Entry) -> Result<()> {
        self.files.push((path, entry));
        self.check_count()
    }

    fn leave_out(&mut self, path: UnitPath, why: String) -> Result<()> {
        self.listing.refused.insert(path, why);
        self.check_count()
    }

    fn check_count(&self) -> Result<()> {
        let max = self.terms.files_max;
        if self.files.len() + self.listing.refused.len() <= max {
            return Ok(());
        }
        let hint = "raise `git_files_max`, or name the directory to deploy in `git_subdir`";
        Err(self.refuse_all(format!("it holds more than {max} files; {hint}")))
    }

    fn refuse_all(&self, why: impl AsRef<str>) -> Error {
        refuse(self.commit, why)
    }
}

/// The error that a whole commit is refused with.
pub(super) fn refuse(commit: Oid, why: impl AsRef<str>) -> Error {
    Error::new(ErrorKind::Git, format!("deploy commit {}: {}", short(commit), why.as_ref()))
}

/// The error that a part of the repository cannot be read with. Transient: the disk is at fault, or a repository that is not
/// complete, and both can be mended.
pub(super) fn unreadable(commit: Oid, what: &str, cause: git2::Error) -> Error {
    let missing = match cause.code() {
        git2::ErrorCode::NotFound => {
            "; the repository is damaged, or a partial clone: `git fetch --refetch` completes it"
        }
        _ => "",
    };
    let action = format!("read {what} of commit {}{missing}", short(commit));
    Error::new(ErrorKind::Git, action).caused_by(cause).transient()
}

/// The first digits of an id, for people.
pub(super) fn short(commit: Oid) -> String {
    let mut text = commit.to_string();
    text.truncate(7);
    text
}
