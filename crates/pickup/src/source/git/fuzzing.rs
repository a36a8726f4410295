//! For fuzzers: repositories in memory that hold what git would never write.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use git2::{ObjectType, Odb, Oid, Repository};
use tokio_util::sync::CancellationToken;

use super::import::{Contents, Import, Imported};
use super::listing::{self, Listing, Terms};
use crate::PickupConfig;
use crate::config::{GitAllow, Symlinks};
use crate::error::{Error, ErrorKind, Result};
use crate::path::UnitPath;
use crate::source::ignore::Rules;

/// More objects than this say nothing new.
const OBJECTS_MAX: usize = 64;

/// Two commits by their description. What they hold is listed or refused, and the second one imported after the first
/// brings what it brings alone.
pub fn commits(bytes: &[u8]) {
    let mut input = Input(bytes);
    let terms = input.terms();
    let odb = Odb::new().expect("an object database");
    odb.add_new_mempack_backend(1000).expect("a database in memory");
    let repository = Repository::from_odb(odb).expect("a repository in memory");
    let commits = input.build(&repository);
    let mut known = Kept::new();
    let mut from = None;
    for commit in commits {
        if let Ok(listing) = listing::list(&repository, commit, &terms) {
            check_listing(&listing, &terms);
        }
        // A commit that is refused changes nothing.
        let Some(brought) = import(&repository, &terms, from.as_deref(), commit, &known) else { continue };
        apply(&mut known, brought);
        let alone = import(&repository, &terms, None, commit, &Kept::new()).expect("what was let in once");
        let mut fresh = Kept::new();
        apply(&mut fresh, alone);
        assert_eq!(known, fresh, "what a commit brings does not depend on what was there");
        from = Some(commit.to_string());
    }
}

/// What must hold of everything that is let in.
fn check_listing(listing: &Listing, terms: &Terms) {
    assert!(listing.files.len() + listing.refused.len() <= terms.files_max);
    let mut directories = BTreeSet::new();
    for (path, entry) in &listing.files {
        assert!(matches!(entry.mode, 0o644 | 0o755), "{:o}", entry.mode);
        check_path(path);
        let above = std::iter::successors(path.parent(), UnitPath::parent);
        directories.extend(above);
    }
    for (path, why) in &listing.refused {
        check_path(path);
        assert!(!why.is_empty() && !why.contains(char::is_control), "{why:?}");
    }
    let both = listing.files.keys().find(|path| directories.contains(path));
    assert_eq!(both, None, "a file and a directory");
}

fn check_path(path: &UnitPath) {
    let text = path.as_path().as_os_str().as_encoded_bytes();
    assert!(!path.is_root() && text.len() <= 4096 && !text.contains(&0), "{path:?}");
    for name in text.split(|byte| *byte == b'/') {
        assert!(!name.is_empty() && name.len() <= 255 && name != b"." && name != b"..", "{path:?}");
        assert!(!name.eq_ignore_ascii_case(b".git") && !name.eq_ignore_ascii_case(b"git~1"), "{path:?}");
    }
}

/// Content and mode by path.
type Kept = BTreeMap<UnitPath, (Vec<u8>, u32)>;

fn apply(known: &mut Kept, imported: Imported<(Vec<u8>, u32)>) {
    for path in imported.removed {
        known.remove(&path);
    }
    known.extend(imported.files);
}

fn import(
    repository: &Repository,
    terms: &Terms,
    from: Option<&str>,
    to: Oid,
    known: &Kept,
) -> Option<Imported<(Vec<u8>, u32)>> {
    let store = Memory::default();
    let mut rules = Rules::new(&PickupConfig::new("fuzz", "/in")).expect("the default rules");
    let nothing = |_: &[(String, PathBuf)]| Err(Error::new(ErrorKind::Git, "export: no blob is that large"));
    let import = Import {
        git_dir: Path::new("/nowhere"),
        store: &store,
        rules: &mut rules,
        root: 0,
        terms,
        from,
        to: &to.to_string(),
        branch: None,
        known,
        export: &mut { nothing },
        scratch: Path::new("/nowhere"),
        cancel: &CancellationToken::new(),
    };
    let imported = import.run_on(repository).ok();
    let files = imported.as_ref().map_or(0, |imported| imported.files.len());
    assert_eq!(store.pinned.get(), files, "what is not handed over is given back");
    if let Some(Imported { revision, .. }) = &imported {
        let is_plain = |text: &String| !text.contains(char::is_control);
        assert!(is_plain(&revision.author) && is_plain(&revision.subject), "{revision:?}");
    }
    imported
}

/// Counts pins.
#[derive(Default)]
struct Memory {
    pinned: Cell<usize>,
}

impl Memory {
    fn pin(&self, content: &[u8], mode: u32) -> (Vec<u8>, u32) {
        self.pinned.set(self.pinned.get() + 1);
        (content.to_vec(), mode)
    }
}

impl Contents for Memory {
    type File = (Vec<u8>, u32);

    fn put(&self, _: &Path, content: &[u8], mode: u32) -> Result<Self::File> {
        Ok(self.pin(content, mode))
    }

    fn adopt(&self, _: &Path, _: &Path, _: u32) -> Result<Self::File> {
        Err(Error::new(ErrorKind::Git, "adopt: nothing was exported"))
    }

    fn share(&self, file: &Self::File, mode: u32) -> Self::File {
        self.pin(&file.0, mode)
    }

    fn unpin(&self, _: &Self::File) {
        self.pinned.set(self.pinned.get() - 1);
    }
}

/// The description that is still to be read. Where it ends, everything is zero.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// As many bytes as the next one says.
    fn text(&mut self) -> &'a [u8] {
        let length = self.byte();
        self.take(length.into())
    }

    fn terms(&mut self) -> Terms {
        let flags = self.byte();
        let allow = [GitAllow::Submodules, GitAllow::CaseCollisions, GitAllow::LfsPointers];
        let allow = allow.into_iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1).map(|(_, what)| what);
        Terms {
            subdir: (flags & 8 != 0).then(|| UnitPath::root().join("d")),
            symlinks: if flags & 16 == 0 { Symlinks::Inside } else { Symlinks::Skip },
            allow: allow.collect(),
            files_max: if flags & 32 == 0 { 10_000 } else { 3 },
            size_max: if flags & 64 == 0 { 1 << 30 } else { 10 },
        }
    }

    /// Makes the objects, each of which may name those before it, and gives commits of the last two trees.
    fn build(&mut self, repository: &Repository) -> Vec<Oid> {
        let odb = repository.odb().expect("the object database");
        let mut objects = vec![Oid::ZERO_SHA1];
        let (mut trees, mut message) = (Vec::new(), b"subject".as_slice());
        while !self.0.is_empty() && objects.len() < OBJECTS_MAX {
            let (kind, content) = match self.byte() % 4 {
                0 => (ObjectType::Blob, self.text().to_vec()),
                1 => (ObjectType::Tree, self.tree(&objects)),
                2 => {
                    let length = usize::from(self.byte()) << 4;
                    (ObjectType::Tree, self.take(length).to_vec())
                }
                _ => {
                    message = self.text();
                    continue;
                }
            };
            let Ok(oid) = odb.write(kind, &content) else { continue };
            objects.push(oid);
            if kind == ObjectType::Tree {
                trees.push(oid);
            }
        }
        let start = trees.len().saturating_sub(2);
        let commits = trees[start..].iter().filter_map(|tree| {
            let head = format!("tree {tree}\nauthor A <a> 1 +0000\ncommitter A <a> 1 +0000\n\n");
            odb.write(ObjectType::Commit, &[head.as_bytes(), message].concat()).ok()
        });
        commits.collect()
    }

    /// A tree as git writes it, with names in any order.
    fn tree(&mut self, objects: &[Oid]) -> Vec<u8> {
        const MODES: [&str; 8] = ["100644", "100755", "40000", "120000", "160000", "100664", "0", "777777"];
        let mut tree = Vec::new();
        for _ in 0..self.byte() % 16 {
            let mode = MODES[usize::from(self.byte()) % MODES.len()];
            let (name, object) = (self.text(), usize::from(self.byte()) % objects.len());
            tree.extend_from_slice(mode.as_bytes());
            tree.push(b' ');
            tree.extend_from_slice(name);
            tree.push(0);
            tree.extend_from_slice(objects[object].as_bytes());
        }
        tree
    }
}
