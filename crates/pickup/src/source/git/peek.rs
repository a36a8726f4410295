//! Looks at repositories on this machine, in this process: no network, no writing, no waiting.
#![expect(clippy::disallowed_methods, reason = "this is a door to repositories")]

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use git2::{ErrorCode, Oid, Repository};

use super::worker::{self, Failure, FailureKind, Found, Wanted};
use crate::error::{Error, ErrorKind, Result as Fallible};

mod stamps;

use self::stamps::Stamps;

/// A repository on this machine, kept open between looks. libgit2 looks again at what it read of references and settings.
#[derive(Default)]
pub(crate) struct Opened {
    repository: Option<(Repository, Identity)>,
    /// Where its `HEAD` was at the last look, and the files that say so.
    head: Option<(Head, Stamps)>,
}

/// Where the `HEAD` of a clone is in which nothing of ours is under way.
struct Head {
    /// The full name of the branch, if one is checked out.
    branch: Option<String>,
    commit: String,
}

/// Tells apart directories of one name.
type Identity = (u64, u64);

impl Opened {
    /// Whether each wanted reference of the remote at `path`, which this is, still is where it was, and so is the head of
    /// the `clone` that follows it. A remote that cannot be read is not still.
    pub(crate) fn is_still(&mut self, path: &Path, clone: Option<&Path>, wanted: &[Wanted], last: &[Found]) -> bool {
        let Some(repository) = self.open(path) else { return false };
        let is_still = |(wanted, last): (&Wanted, &Found)| match last {
            Found::At { commit, .. } => {
                wanted.reference.as_ref() == Some(commit) || resolve(repository, wanted).as_ref() == Some(commit)
            }
            Found::Missing { .. } => false,
        };
        let at = match last.first() {
            Some(Found::At { commit, .. }) => Some(commit),
            Some(Found::Missing { .. }) | None => None,
        };
        wanted.iter().zip(last).all(is_still) && clone.is_none_or(|clone| head(clone).as_ref() == at)
    }

    /// What is checked out in the `clone` that this is; `None` if there is nothing, or a pull of ours was cut off there.
    pub(crate) fn at_rest(&mut self, clone: &Path, now: SystemTime) -> Option<AtRest> {
        self.open(clone)?;
        let (repository, _) = self.repository.as_ref()?;
        if !self.head.as_ref().is_some_and(|(_, stamps)| stamps.hold()) {
            self.head = head_at_rest(repository, now);
        }
        let (Head { branch, commit }, _) = self.head.as_ref()?;
        let followed = branch.as_ref().and_then(|branch| followed(repository, branch));
        Some(AtRest { followed, commit: commit.clone() })
    }

    fn open(&mut self, path: &Path) -> Option<&Repository> {
        let now = identity(path);
        if now.is_none() || self.repository.as_ref().map(|(_, known)| *known) != now {
            *self = Self::default();
            self.repository = Some((Repository::open(path).ok()?, now.unwrap_or_default()));
        }
        self.repository.as_ref().map(|(repository, _)| repository)
    }
}

/// Where `HEAD` is, and the files that say so; `None` if a pull of ours was cut off.
fn head_at_rest(repository: &Repository, now: SystemTime) -> Option<(Head, Stamps)> {
    let (own, common) = (repository.path(), repository.commondir());
    let mut stamps = Stamps::default();
    stamps.add(worker::intent_of(own), now);
    if worker::torn(own).is_some() {
        return None;
    }
    stamps.add(own.join("HEAD"), now);
    let head = repository.find_reference("HEAD").ok()?;
    let Some(branch) = head.symbolic_target().ok()? else {
        return Some((Head { branch: None, commit: head.target()?.to_string() }, stamps));
    };
    if !stamps.add(common.join(branch), now) {
        stamps.add(common.join("packed-refs"), now);
    }
    let commit = repository.find_reference(branch).ok()?.target()?.to_string();
    Some((Head { branch: Some(branch.to_owned()), commit }, stamps))
}

/// Of the directory that a repository is in; `None` where another one could be meant without our seeing it.
#[cfg(unix)]
fn identity(path: &Path) -> Option<Identity> {
    use std::os::unix::fs::MetadataExt;
    let metadata = match path.join(".git").symlink_metadata() {
        // A file may name another place at any time.
        Ok(inside) if !inside.is_dir() => return None,
        Ok(inside) => inside,
        Err(_) => path.metadata().ok()?,
    };
    Some((metadata.dev(), metadata.ino()))
}

/// Nothing tells them apart: each look opens them anew.
#[cfg(not(unix))]
fn identity(_path: &Path) -> Option<Identity> {
    None
}

fn resolve(repository: &Repository, wanted: &Wanted) -> Option<String> {
    let found = match &wanted.reference {
        None => repository.head(),
        Some(name) if name.starts_with("refs/") => repository.find_reference(name),
        Some(name) => repository
            .find_reference(&format!("refs/heads/{name}"))
            .or_else(|_| repository.find_reference(&format!("refs/tags/{name}"))),
    };
    let found = found.ok()?;
    // A branch leads to a commit, and needs no object to be read for it.
    if found.is_branch() {
        return found.target().map(|commit| commit.to_string());
    }
    Some(found.peel_to_commit().ok()?.id().to_string())
}

/// The branch at the remote that the branch checked out in a clone follows: what a `git pull` there would ask for.
pub(crate) fn checked_out(clone: &Path) -> Result<Option<String>, Failure> {
    let repository = match Repository::open(clone) {
        Ok(repository) => repository,
        // It is about to be made.
        Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
        Err(error) => return Err(other(format!("open {}: {}", clone.display(), error.message()))),
    };
    if repository.head_detached().unwrap_or(false) {
        let message =
            format!("follow {}: no branch is checked out there; check one out, or set git_ref", clone.display());
        return Err(Failure { kind: FailureKind::Refused, message });
    }
    let head = repository.find_reference("HEAD").ok();
    let branch = head.as_ref().and_then(|head| head.symbolic_target().ok().flatten());
    Ok(branch.and_then(|branch| followed(&repository, branch)))
}

/// The branch at the remote that a branch follows.
fn followed(repository: &Repository, branch: &str) -> Option<String> {
    let upstream = repository.config().ok().and_then(|config| {
        let key = format!("branch.{}.merge", branch.strip_prefix("refs/heads/")?);
        config.get_string(&key).ok()
    });
    upstream.as_deref().unwrap_or(branch).strip_prefix("refs/heads/").map(str::to_owned)
}

/// A clone in which nothing of ours is under way.
pub(crate) struct AtRest {
    /// The branch at the remote that the one checked out follows, if one is.
    pub followed: Option<String>,
    /// The commit that is checked out.
    pub commit: String,
}

/// The commit that is checked out.
pub(crate) fn head(clone: &Path) -> Option<String> {
    Some(Repository::open(clone).ok()?.head().ok()?.target()?.to_string())
}

pub(crate) fn git_dir(clone: &Path) -> Result<PathBuf, Failure> {
    let opened = Repository::open(clone);
    let repository = opened.map_err(|error| other(format!("open {}: {}", clone.display(), error.message())))?;
    Ok(repository.path().to_path_buf())
}

/// The commit that a pull of ours was to lead to, when it was cut off: until it is finished the working tree is half of it.
pub(crate) fn cut_off(clone: &Path) -> Option<String> {
    let repository = Repository::open(clone).ok()?;
    let torn = worker::torn(repository.path())?;
    let head = repository.head().ok()?.target()?.to_string();
    (torn.from == head).then_some(torn.to)
}

/// Whether `new` has `old` in its history, which must be complete.
pub(crate) fn is_descendant(git_dir: &Path, new: &str, old: &str) -> Fallible<bool> {
    let broken = |error: git2::Error| Error::new(ErrorKind::Git, "read").at(git_dir).caused_by(error).transient();
    let repository = Repository::open(git_dir).map_err(broken)?;
    let (new, old) = (Oid::from_str(new).map_err(broken)?, Oid::from_str(old).map_err(broken)?);
    // A commit that is not there is no ancestor.
    Ok(repository.graph_descendant_of(new, old).unwrap_or(false))
}

/// Whether the commit is in a repository, with the tree at its top.
pub(crate) fn has_commit(repository: &Path, commit: &str) -> bool {
    let Ok(repository) = Repository::open(repository) else { return false };
    let found = Oid::from_str(commit).and_then(|commit| repository.find_commit(commit)?.tree().map(drop));
    found.is_ok()
}

/// Whether there is a mirror of which nobody said that it is damaged.
pub(crate) fn is_mirror(path: &Path) -> bool {
    path.join("HEAD").is_file() && !worker::is_condemned(path)
}

/// How many packs a mirror has.
pub(crate) fn packs(mirror: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(mirror.join("objects/pack")) else { return 0 };
    entries.flatten().filter(|entry| entry.path().extension().is_some_and(|ending| ending == "pack")).count()
}

fn other(message: String) -> Failure {
    Failure { kind: FailureKind::Other, message }
}

#[cfg(test)]
mod tests;
