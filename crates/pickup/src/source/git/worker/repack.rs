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
/// The new pack is whole on the disk, and read back, before anything is removed; a crash in between leaves objects twice.
pub(super) fn repack(path: &Path) -> Result<(), Failure> {
    let _lock = Lock::beside(path)?;
    sweep(path)?;
    let objects = path.join("objects");
    let making = objects.join(DIRECTORY);
    std::fs::create_dir(&making).map_err(|e| Failure::io("create the directory", &making, &e))?;
    let Some(name) = pack(path, &making)? else { return remove(&making) };
    let kept = put_in_place(&making, &objects.join("pack"), &name)?;
    remove(&making)?;
    verify(path, &kept)?;
    remove_others(&objects, &name)
}

/// Writes the new pack; gives its name, or `None` if there is nothing to pack.
fn pack(path: &Path, into: &Path) -> Result<Option<String>, Failure> {
    let repository = open(path)?;
    let work = || -> Result<Option<String>, git2::Error> {
        let mut builder = repository.packbuilder()?;
        builder.set_threads(1);
        let mut walk = repository.revwalk()?;
        for reference in repository.references()? {
            let mut object = reference?.resolve()?.peel(ObjectType::Any)?;
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
    };
    work().map_err(|e| Failure::local(path, &e))
}

/// Moves pack and index to the others, durably, the index last: without it, a pack is not looked at.
fn put_in_place(from: &Path, to: &Path, name: &str) -> Result<PathBuf, Failure> {
    for extension in ["pack", "idx"] {
        let file = format!("pack-{name}.{extension}");
        let (made, place) = (from.join(&file), to.join(&file));
        let moved = File::open(&made).and_then(|file| file.sync_all()).and_then(|()| std::fs::rename(&made, &place));
        moved.map_err(|e| Failure::io("put in place", &place, &e))?;
    }
    File::open(to).and_then(|directory| directory.sync_all()).map_err(|e| Failure::io("sync", to, &e))?;
    Ok(to.join(format!("pack-{name}.pack")))
}

/// Whether the new pack, read anew, has what all references lead to.
fn verify(path: &Path, pack: &Path) -> Result<(), Failure> {
    let fail = |why: String| Failure::new(FailureKind::Other, format_args!("repack {}: {why}", path.display()));
    let repository = Repository::open_bare(path).map_err(|e| Failure::local(path, &e))?;
    let alone = git2::Odb::new().map_err(|e| Failure::local(path, &e))?;
    let directory = pack.parent().and_then(Path::parent).unwrap_or(path);
    alone.add_disk_alternate(&directory.to_string_lossy()).map_err(|e| Failure::local(path, &e))?;
    let targets: BTreeSet<Oid> = repository
        .references()
        .and_then(|references| {
            references.map(|r| r.and_then(|r| r.resolve()).map(|r| r.target())).collect::<Result<Vec<_>, _>>()
        })
        .map_err(|e| Failure::local(path, &e))?
        .into_iter()
        .flatten()
        .collect();
    match targets.into_iter().find(|&id| alone.read(id).is_err()) {
        Some(id) => Err(fail(format!("the new pack lacks {id}"))),
        None => Ok(()),
    }
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
