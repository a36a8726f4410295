//! From one commit to the next: what was added, changed and removed, with contents in the content store.
//!
//! The difference is complete: whoever applies it to what is known has what the new commit holds and the rules take, whatever
//! was known before.
#![expect(clippy::disallowed_methods, reason = "this is the door to the files that large blobs are exported to")]

use std::collections::hash_map::{Entry as Slot, HashMap};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use git2::{ObjectType, Odb, Oid, Repository, RepositoryOpenFlags};
use tokio_util::sync::CancellationToken;

use super::Revision;
use super::listing::{self, Entry, Listing, Terms, refuse, short, unreadable};
use crate::config::GitAllow;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::path::UnitPath;
use crate::source::ignore::{Former, PICKUPIGNORE, Rules};

#[cfg(all(test, unix))]
mod tests;

/// Blobs up to this size are read here. Larger ones are exported by somebody whose memory is not ours, because libgit2
/// cannot read a blob piece by piece.
const HERE_MAX: u64 = 16 << 20;
/// Bytes of all `.pickupignore` files together: they are kept in memory.
const RULES_MAX: u64 = 16 << 20;
/// Pointer files of git LFS are shorter than this: its specification.
const LFS_POINTER_MAX: u64 = 1024;
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Writes blobs, named by their ids, to files that do not exist.
pub(crate) type Export<'a> = &'a mut dyn FnMut(&[(String, PathBuf)]) -> Result<()>;

/// Where contents are kept. The content store is a later stage, so what is asked of it is said here.
pub(crate) trait Contents {
    /// Content that is kept, as the file that has it.
    type File;

    /// Keeps bytes and pins them; `named` is what errors call them.
    fn put(&self, named: &Path, content: &[u8], mode: u32) -> Result<Self::File>;

    /// Keeps the bytes of the file at `path`, which is gone afterwards, and pins them.
    fn adopt(&self, named: &Path, path: &Path, mode: u32) -> Result<Self::File>;

    /// Pins once more what is pinned, for another file of that mode.
    fn share(&self, file: &Self::File, mode: u32) -> Self::File;

    /// Takes one pin back.
    fn unpin(&self, file: &Self::File);
}

/// One import, under way.
pub(crate) struct Import<'a, S: Contents, D> {
    /// The repository's own directory: a mirror, or the `.git` of a clone.
    pub git_dir: &'a Path,
    pub store: &'a S,
    /// Its `.pickupignore` files become those of the commit, unless the import fails.
    pub rules: &'a mut Rules,
    /// Index into `pickup_from`.
    pub root: usize,
    pub terms: &'a Terms,
    /// The commit whose listing `known` reflects.
    pub from: Option<&'a str>,
    /// The commit that is imported.
    pub to: &'a str,
    pub branch: Option<String>,
    pub known: &'a BTreeMap<UnitPath, D>,
    /// Writes the large blobs.
    pub export: Export<'a>,
    /// A directory of ours, made if missing, best on the content store's file system.
    pub scratch: &'a Path,
    pub cancel: &'a CancellationToken,
}

/// What an import brought.
#[derive(Debug)]
pub(crate) struct Imported<F> {
    pub revision: Revision,
    /// Added and changed, in the order of their paths; each is pinned.
    pub files: Vec<(UnitPath, F)>,
    pub removed: Vec<UnitPath>,
    /// What the commit holds and is never deployed, and why.
    pub refused: BTreeMap<UnitPath, String>,
    /// How many files the commit holds, those that no rule takes included.
    pub listed: usize,
    /// What is wrong with its `.pickupignore` files.
    pub problems: Vec<String>,
}

/// What is different.
struct Brought<F> {
    files: Vec<(UnitPath, F)>,
    removed: Vec<UnitPath>,
}

/// A blob, and the files that have it.
struct Wanted<'a> {
    oid: Oid,
    size: u64,
    files: Vec<(&'a UnitPath, u32)>,
}

/// What is pinned so far; given back unless the import succeeds.
struct Pinned<'a, S: Contents> {
    store: &'a S,
    files: Vec<(UnitPath, S::File)>,
}

impl<S: Contents> Drop for Pinned<'_, S> {
    fn drop(&mut self) {
        self.files.iter().for_each(|(_, file)| self.store.unpin(file));
    }
}

impl<S: Contents, D> Import<'_, S, D> {
    /// Lists both commits and brings in what is new.
    ///
    /// # Errors
    /// Not transient: the commit is not to be deployed; the message says why, and the way out. Transient: the repository, the
    /// disk or the content store failed. Nothing stays pinned, and the rules are as before.
    pub(crate) fn run(self) -> Result<Imported<S::File>> {
        let repository = open(self.git_dir)?;
        self.run_on(&repository)
    }

    /// [`run`](Self::run) on what `git_dir` holds.
    pub(super) fn run_on(mut self, repository: &Repository) -> Result<Imported<S::File>> {
        let commit = id_of(self.to)?;
        let revision = listing::revision(repository, commit, self.branch.take())?;
        let found = listing::list(repository, commit, self.terms)?;
        let odb = repository.odb().map_err(|e| unreadable(commit, "objects", e))?;
        let before = if self.from == Some(self.to) { found.clone() } else { self.listing_before(repository) };
        let (former, problems) = self.exchange_rules(&odb, commit, &found)?;
        match self.bring(&odb, commit, &found, &before) {
            Ok(Brought { files, removed }) => {
                Ok(Imported { revision, files, removed, listed: found.files.len(), refused: found.refused, problems })
            }
            Err(error) => {
                self.rules.restore_pickupignores(self.root, former);
                Err(error)
            }
        }
    }

    /// The listing that `known` reflects. Nothing if it cannot be had: then everything is read again, which is slow and right.
    fn listing_before(&self, repository: &Repository) -> Listing {
        let commit = self.from.and_then(|from| id_of(from).ok());
        commit.and_then(|commit| listing::list(repository, commit, self.terms).ok()).unwrap_or_default()
    }

    /// Makes the commit's `.pickupignore` files count, the links among them left out, as in a directory.
    fn exchange_rules(&mut self, odb: &Odb<'_>, commit: Oid, found: &Listing) -> Result<(Former, Vec<String>)> {
        let mut texts = BTreeMap::new();
        let mut total = 0;
        for (path, entry) in &found.files {
            if entry.is_link || path.file_name().is_none_or(|name| name != PICKUPIGNORE) {
                continue;
            }
            let failed = |e| unreadable(commit, &format!("`{path}`"), e);
            let (size, _) = odb.read_header(entry.oid).map_err(failed)?;
            total += size as u64;
            if Rules::is_too_long(size as u64) || total > RULES_MAX {
                // Rules that do not count would deploy what was to be left alone.
                return Err(refuse(commit, format!("`{path}` is too long to be read; shorten it")));
            }
            let text = odb.read(entry.oid).map_err(failed)?.data().to_vec();
            texts.insert(path.parent().unwrap_or_default(), text);
        }
        Ok(self.rules.exchange_pickupignores(self.root, texts))
    }

    fn bring(&mut self, odb: &Odb<'_>, commit: Oid, found: &Listing, before: &Listing) -> Result<Brought<S::File>> {
        let taken: BTreeMap<&UnitPath, &Entry> =
            found.files.iter().filter(|(path, _)| self.rules.takes(self.root, path, false)).collect();
        // What went from a working tree may be unknown already.
        let former = before.files.keys().filter(|path| self.rules.takes(self.root, path, false));
        let removed: BTreeSet<UnitPath> =
            self.known.keys().chain(former).filter(|path| !taken.contains_key(path)).cloned().collect();
        let is_new = |path: &UnitPath, entry: &Entry| {
            let is_same = |old: &Entry| (old.oid, old.mode) == (entry.oid, entry.mode);
            !(self.known.contains_key(path) && before.files.get(path).is_some_and(is_same))
        };
        let mut new =
            taken.iter().map(|(path, entry)| (*path, *entry)).filter(|(path, entry)| is_new(path, entry)).peekable();
        if new.peek().is_some() {
            self.check_size(odb, commit, &taken)?;
        }
        let wanted = self.wanted(odb, commit, new)?;
        let (here, elsewhere): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|wanted| wanted.size <= HERE_MAX);
        let mut pinned = Pinned { store: self.store, files: Vec::new() };
        for wanted in &here {
            self.read(odb, commit, wanted, &mut pinned)?;
        }
        self.export(commit, &elsewhere, &mut pinned)?;
        let mut files = std::mem::take(&mut pinned.files);
        files.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(Brought { files, removed: removed.into_iter().collect() })
    }

    /// Bounds what the files hold together, those that are known already included: looking up 100,000 sizes in a
    /// pack took 0.08 s, unoptimised.
    fn check_size(&self, odb: &Odb<'_>, commit: Oid, taken: &BTreeMap<&UnitPath, &Entry>) -> Result<()> {
        let max = self.terms.size_max;
        let mut total = 0_u64;
        for (path, entry) in taken {
            total = total.saturating_add(size_of(odb, commit, path, entry)?);
            if total > max {
                let hint = "raise `git_size_max`, leave files out with `ignore`, or name the directory to deploy in \
                            `git_subdir`";
                return Err(refuse(commit, format!("its files hold more than {max} bytes; {hint}")));
            }
        }
        Ok(())
    }

    /// Each blob that is to be read, once, with its size; in the order of paths.
    fn wanted<'b>(
        &self,
        odb: &Odb<'_>,
        commit: Oid,
        new: impl Iterator<Item = (&'b UnitPath, &'b Entry)>,
    ) -> Result<Vec<Wanted<'b>>> {
        let mut wanted: Vec<Wanted<'_>> = Vec::new();
        let mut places = HashMap::new();
        for (path, entry) in new {
            let at = match places.entry(entry.oid) {
                Slot::Occupied(place) => *place.get(),
                Slot::Vacant(place) => {
                    self.check_cancelled(commit)?;
                    wanted.push(Wanted { oid: entry.oid, size: size_of(odb, commit, path, entry)?, files: Vec::new() });
                    *place.insert(wanted.len() - 1)
                }
            };
            wanted[at].files.push((path, entry.mode));
        }
        Ok(wanted)
    }

    /// Reads a blob into the content store, once for each file that has it.
    fn read(&self, odb: &Odb<'_>, commit: Oid, wanted: &Wanted<'_>, pinned: &mut Pinned<'_, S>) -> Result<()> {
        self.check_cancelled(commit)?;
        let Some((path, _)) = wanted.files.first() else { return Ok(()) };
        // libgit2 compares the content with the id.
        let blob = odb.read(wanted.oid).map_err(|e| unreadable(commit, &format!("`{path}`"), e))?;
        if wanted.size < LFS_POINTER_MAX
            && blob.data().starts_with(LFS_POINTER)
            && !self.terms.allow.contains(&GitAllow::LfsPointers)
        {
            let what = "is a pointer of git LFS, and the file itself is not in the repository; pickup does not fetch it: keep \
                        the file in git itself, leave the path out with `ignore`, or set `git_allow = [\"lfs_pointers\"]` to \
                        deploy the pointer as it is";
            return Err(refuse(commit, format!("`{path}` {what}")));
        }
        self.keep(wanted, pinned, |path, mode| self.store.put(path.as_path(), blob.data(), mode))
    }

    /// Lets the large blobs be written to files, and takes these into the content store.
    fn export(&mut self, commit: Oid, large: &[Wanted<'_>], pinned: &mut Pinned<'_, S>) -> Result<()> {
        if large.is_empty() {
            return Ok(());
        }
        self.check_cancelled(commit)?;
        let exports: Vec<(String, PathBuf)> =
            large.iter().map(|wanted| (wanted.oid.to_string(), self.scratch.join(wanted.oid.to_string()))).collect();
        make_scratch(self.scratch)?;
        let swept = Swept(&exports);
        swept.now();
        (self.export)(&exports)?;
        for (wanted, (_, file)) in large.iter().zip(&exports) {
            self.check_cancelled(commit)?;
            let found = Oid::hash_file(ObjectType::Blob, file)
                .map_err(|e| Error::new(ErrorKind::Git, "read an exported blob").at(file).caused_by(e).transient())?;
            if found != wanted.oid {
                let action = format!("use blob {}: what was exported has another content:", wanted.oid);
                return Err(Error::new(ErrorKind::Git, action).at(file).transient());
            }
            self.keep(wanted, pinned, |path, mode| self.store.adopt(path.as_path(), file, mode))?;
        }
        Ok(())
    }

    /// Keeps the content for the first file that has it, and shares it with the others.
    fn keep(
        &self,
        wanted: &Wanted<'_>,
        pinned: &mut Pinned<'_, S>,
        first: impl FnOnce(&UnitPath, u32) -> Result<S::File>,
    ) -> Result<()> {
        let Some(((path, mode), others)) = wanted.files.split_first() else { return Ok(()) };
        let kept = first(path, *mode)?;
        let shared: Vec<_> =
            others.iter().map(|(path, mode)| ((*path).clone(), self.store.share(&kept, *mode))).collect();
        pinned.files.push(((*path).clone(), kept));
        pinned.files.extend(shared);
        Ok(())
    }

    fn check_cancelled(&self, commit: Oid) -> Result<()> {
        if self.cancel.is_cancelled() {
            let action = format!("finish reading commit {}: the work was cancelled", short(commit));
            return Err(Error::new(ErrorKind::Cancelled, action));
        }
        Ok(())
    }
}

/// Exported files, which are gone in the end, whatever the end.
struct Swept<'a>(&'a [(String, PathBuf)]);

impl Swept<'_> {
    fn now(&self) {
        for (_, path) in self.0 {
            // Nothing is there, as a rule. What cannot be removed shows when it is to be written.
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Swept<'_> {
    fn drop(&mut self) {
        self.now();
    }
}

fn make_scratch(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt;
        builder.mode(0o700);
    }
    builder.create(path).doing("make directory", path)
}

fn size_of(odb: &Odb<'_>, commit: Oid, path: &UnitPath, entry: &Entry) -> Result<u64> {
    match odb.read_header(entry.oid) {
        Ok((size, ObjectType::Blob)) => Ok(size as u64),
        Ok((_, kind)) => Err(refuse(commit, format!("`{path}` is no file, but a {kind}: the commit is damaged"))),
        Err(e) => Err(unreadable(commit, &format!("`{path}`"), e)),
    }
}

/// Opens the repository that lies right in `git_dir`.
fn open(git_dir: &Path) -> Result<Repository> {
    let flags = RepositoryOpenFlags::NO_SEARCH | RepositoryOpenFlags::NO_DOTGIT;
    let none: [&Path; 0] = [];
    Repository::open_ext(git_dir, flags, none).map_err(|e| super::barrier::cannot_open(git_dir, e))
}

fn id_of(text: &str) -> Result<Oid> {
    // libgit2 takes the first digits for an id whose other digits are zero.
    let is_full = text.len() == 40;
    let no_id = || Error::new(ErrorKind::Git, format!("read commit `{}`: no full id", text.escape_debug()));
    Oid::from_str(text).ok().filter(|_| is_full).ok_or_else(no_id)
}
