//! Mirrors: bare repositories of ours, which are made anew whenever something is wrong with them.
#![expect(clippy::disallowed_methods, reason = "this is the door to mirrors")]

use std::io;
use std::path::Path;

use git2::{ErrorCode, Repository, RepositoryInitOptions};
use walkdir::{DirEntry, WalkDir};

use super::lock::{Lock, beside};
use super::{Check, Failure, FailureKind, Reply, check};
use crate::source::git::transport::Report;

/// How a mirror is configured. No loose objects, which are many small files; and nothing that takes much memory where
/// packs are made.
const SETTINGS: [(&str, &str); 5] = [
    ("fetch.unpackLimit", "1"),
    ("core.bigFileThreshold", "16m"),
    ("pack.windowMemory", "64m"),
    ("pack.deltaCacheSize", "64m"),
    ("core.logAllRefUpdates", "false"),
];

/// What is wrong with a mirror.
enum Damage {
    /// There is none.
    Missing,
    Broken(String),
}

pub(super) fn check(check: &Check, report: Report<'_>) -> Result<Reply, Failure> {
    let path = &check.repository;
    let _lock = Lock::beside(path)?;
    sweep(path)?;
    let damage = match open_whole(path)? {
        Ok(repository) => match check::follow(check, &repository, report) {
            Ok(found) => return Ok(Reply::Checked { found, renewed: None }),
            // Neither the remote nor its size: what can only be seen by using it, such as an empty reference.
            Err(Failure { kind: FailureKind::Other, message }) => Damage::Broken(message),
            Err(failure) => return Err(failure),
        },
        Err(damage) => damage,
    };
    let (new, old) = (beside(path, "new"), beside(path, "old"));
    remove(&new)?;
    let found = {
        let repository = make(&new).map_err(|e| Failure::local(&new, &e))?;
        check::follow(check, &repository, report)?
    };
    // Whoever has the old one open keeps it until then; a crash in between leaves none, which is made anew.
    remove(&old)?;
    move_away(path, &old)?;
    std::fs::rename(&new, path).map_err(|e| Failure::io("put in place the mirror", path, &e))?;
    remove(&old)?;
    remove(&mark(path))?;
    let renewed = match damage {
        Damage::Missing => None,
        Damage::Broken(why) => Some(why),
    };
    Ok(Reply::Checked { found, renewed })
}

/// Marks a mirror as damaged, because of what was seen where it was read: the next check makes it anew.
///
/// # Errors
/// The mark cannot be written.
pub(crate) fn condemn(repository: &Path, why: &str) -> io::Result<()> {
    std::fs::write(mark(repository), why)
}

/// Whether somebody did.
pub(crate) fn is_condemned(repository: &Path) -> bool {
    mark(repository).exists()
}

fn mark(repository: &Path) -> std::path::PathBuf {
    beside(repository, "damaged")
}

/// Opens a mirror whose references all lead to commits that can be read.
pub(super) fn open(path: &Path) -> Result<Repository, Failure> {
    match open_whole(path)? {
        Ok(repository) => Ok(repository),
        Err(Damage::Missing) => Err(Failure::io("open the mirror", path, &io::ErrorKind::NotFound.into())),
        Err(Damage::Broken(why)) => {
            Err(Failure::new(FailureKind::Other, format_args!("open the mirror {}: {why}", path.display())))
        }
    }
}

fn open_whole(path: &Path) -> Result<Result<Repository, Damage>, Failure> {
    if path.symlink_metadata().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
        return Ok(Err(Damage::Missing));
    }
    if let Ok(why) = std::fs::read_to_string(mark(path)) {
        return Ok(Err(Damage::Broken(why)));
    }
    match Repository::open_bare(path).and_then(|repository| verify(&repository).map(|()| repository)) {
        Ok(repository) => Ok(Ok(repository)),
        Err(e) if e.code() == ErrorCode::Owner => Err(Failure::local(path, &e)),
        Err(e) => Ok(Err(Damage::Broken(e.message().to_owned()))),
    }
}

fn verify(repository: &Repository) -> Result<(), git2::Error> {
    repository.find_reference("HEAD")?;
    for reference in repository.references()? {
        let object = reference?.resolve()?.peel(git2::ObjectType::Any)?;
        if let Ok(commit) = object.peel_to_commit() {
            commit.tree()?;
        }
    }
    Ok(())
}

pub(super) fn make(path: &Path) -> Result<Repository, git2::Error> {
    let mut options = RepositoryInitOptions::new();
    options.bare(true).mkpath(true).no_reinit(true).external_template(false);
    let repository = Repository::init_opts(path, &options)?;
    let mut config = repository.config()?;
    for (key, value) in SETTINGS {
        config.set_str(key, value)?;
    }
    Ok(repository)
}

/// Removes what a worker that was killed left behind. Only under the lock: then nobody else's is among it.
pub(super) fn sweep(path: &Path) -> Result<(), Failure> {
    remove(&beside(path, "new"))?;
    let leftovers = WalkDir::new(path).follow_links(false).into_iter().filter_entry(|entry| !is_store(entry)).flatten();
    for entry in leftovers.filter(is_leftover) {
        remove(entry.path())?;
    }
    Ok(())
}

/// A directory of loose objects; temporary files are not made there.
fn is_store(entry: &DirEntry) -> bool {
    let name = entry.file_name().as_encoded_bytes();
    entry.file_type().is_dir() && name.len() == 2 && name.iter().all(u8::is_ascii_hexdigit) && entry.depth() == 2
}

fn is_leftover(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    let in_objects = entry.path().components().any(|part| part.as_os_str() == "objects");
    match entry.file_type().is_dir() {
        true => name.starts_with("tmp_objdir-") || name == super::repack::DIRECTORY,
        false if in_objects => {
            ["pack_git2_", "tmp_"].iter().any(|prefix| name.starts_with(prefix)) || name.ends_with(".lock")
        }
        // No reference may be called `x.lock`, so this is none.
        false => name.ends_with(".lock"),
    }
}

fn move_away(path: &Path, to: &Path) -> Result<(), Failure> {
    match std::fs::rename(path, to) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::io("move away the damaged mirror", path, &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a file or a directory with all in it, if there is one.
pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    let is_directory = match path.symlink_metadata() {
        Ok(metadata) => metadata.is_dir(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Failure::io("look at", path, &e)),
    };
    let done = if is_directory { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match done {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::io("remove", path, &e)),
        Ok(()) | Err(_) => Ok(()),
    }
}
