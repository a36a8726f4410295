//! Many small packs become one: libgit2 makes a pack for each fetch, and never fewer.
#![expect(clippy::disallowed_methods, reason = "this is the door to the packs of mirrors")]

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid, Repository};

use super::lock::Lock;
use super::mirror::{open, remove, sweep};
use super::{Failure, FailureKind};

/// Where the new pack is made, below `objects`.
pub(super) const DIRECTORY: &str = "pickup-repack";

/// Packs all that references lead to, and removes the rest.
///
/// The new pack is whole on the disk, and read back by itself, before anything is removed; a crash in between leaves
/// objects twice.
pub(super) fn repack(path: &Path) -> Result<(), Failure> {
    let _lock = Lock::beside(path)?;
    sweep(path)?;
    let objects = path.join("objects");
    // Laid out like a directory of objects, so that it can be read like one.
    let making = objects.join(DIRECTORY);
    let packs = making.join("pack");
    std::fs::create_dir_all(&packs).map_err(|e| Failure::io("create the directory", &packs, &e))?;
    let repository = open(path)?;
    let roots = roots(&repository).map_err(|e| Failure::local(path, &e))?;
    let name = pack(&repository, &roots, &packs).map_err(|e| Failure::local(path, &e))?;
    drop(repository);
    let Some(name) = name else { return remove(&making) };
    verify(&making, &roots).map_err(|e| {
        Failure::new(FailureKind::Other, format_args!("read back the new pack of {}: {}", path.display(), e.message()))
    })?;
    put_in_place(&packs, &objects.join("pack"), &name)?;
    remove(&making)?;
    remove_others(&objects, &name)
}

/// What references point to.
fn roots(repository: &Repository) -> Result<BTreeSet<Oid>, git2::Error> {
    let targets = repository.references()?.map(|reference| reference?.resolve().map(|reference| reference.target()));
    Ok(targets.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

/// Writes the new pack; gives its name, or `None` if there is nothing to pack.
fn pack(repository: &Repository, roots: &BTreeSet<Oid>, into: &Path) -> Result<Option<String>, git2::Error> {
    let mut builder = repository.packbuilder()?;
    builder.set_threads(1);
    let mut walk = repository.revwalk()?;
    for &root in roots {
        let mut object = repository.find_object(root, None)?;
        // A tag may be of a tag.
        while let Some(tag) = object.as_tag() {
            builder.insert_object(tag.id(), None)?;
            object = tag.target()?;
        }
        match object.kind() {
            Some(ObjectType::Commit) => walk.push(object.id())?,
            _ => builder.insert_recursive(object.id(), None)?,
        }
    }
    builder.insert_walk(&mut walk)?;
    if builder.object_count() == 0 {
        return Ok(None);
    }
    builder.write(into, 0o600)?;
    Ok(builder.name()?.map(str::to_owned))
}

/// Whether the objects in the directory `making` alone have all `roots`.
fn verify(making: &Path, roots: &BTreeSet<Oid>) -> Result<(), git2::Error> {
    let objects = git2::Odb::new()?;
    objects.add_disk_alternate(&making.to_string_lossy())?;
    roots.iter().try_for_each(|&root| objects.read(root).map(drop))
}

/// Moves pack and index to the others, durably, the index last: without it, a pack is not looked at.
fn put_in_place(from: &Path, to: &Path, name: &str) -> Result<(), Failure> {
    for extension in ["pack", "idx"] {
        let file = format!("pack-{name}.{extension}");
        let (made, place) = (from.join(&file), to.join(&file));
        let moved = File::open(&made).and_then(|file| file.sync_all()).and_then(|()| std::fs::rename(&made, &place));
        moved.map_err(|e| Failure::io("put in place", &place, &e))?;
    }
    File::open(to).and_then(|directory| directory.sync_all()).map_err(|e| Failure::io("sync", to, &e))
}

/// Removes all packs but `name`, and all loose objects. The index goes first, so that nobody opens half a pack.
fn remove_others(objects: &Path, name: &str) -> Result<(), Failure> {
    let packs = objects.join("pack");
    let kept = format!("pack-{name}.");
    let mut files: Vec<PathBuf> = list(&packs)?;
    files.retain(|file| file.file_name().is_some_and(|name| !name.to_string_lossy().starts_with(&kept)));
    files.sort_by_key(|file| file.extension().is_none_or(|extension| extension != "idx"));
    let loose = list(objects)?.into_iter().filter(|path| {
        path.file_name()
            .is_some_and(|name| name.len() == 2 && name.as_encoded_bytes().iter().all(u8::is_ascii_hexdigit))
    });
    files.into_iter().chain(loose).try_for_each(|path| remove(&path))
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let entries = directory.read_dir().map_err(|e| Failure::io("list", directory, &e))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}
