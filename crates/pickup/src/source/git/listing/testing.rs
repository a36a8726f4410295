//! Repositories for tests, made object by object, so that they can hold what git would never write.

use std::collections::BTreeMap;
use std::path::Path;

use git2::{ObjectType, Oid, Repository, Signature, Time};

use super::Terms;
use crate::config::{GitAllow, Symlinks};
use crate::path::UnitPath;

/// What stands at a path.
#[derive(Clone, Copy)]
pub(in crate::source::git) enum Node<'a> {
    File(&'a str),
    Program(&'a str),
    Link(&'a str),
    Submodule,
    Tree(Oid),
}

/// A bare repository.
pub(in crate::source::git) struct Repo {
    pub directory: tempfile::TempDir,
    pub repository: Repository,
}

impl Repo {
    pub(in crate::source::git) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(directory.path().join("git")).unwrap();
        Self { directory, repository }
    }

    pub(in crate::source::git) fn git_dir(&self) -> &Path {
        self.repository.path()
    }

    /// A commit that holds `entries` by their paths.
    pub(in crate::source::git) fn commit(&self, entries: &[(&str, Node<'_>)]) -> Oid {
        let tree = self.tree(entries);
        self.commit_tree(tree)
    }

    pub(in crate::source::git) fn commit_tree(&self, tree: Oid) -> Oid {
        let author = Signature::new("Ann", "ann@example.invalid", &Time::new(1_700_000_000, 0)).unwrap();
        self.commit_as(tree, &author, "subject")
    }

    pub(in crate::source::git) fn commit_as(&self, tree: Oid, author: &Signature<'_>, message: &str) -> Oid {
        let text = format!(
            "tree {tree}\nauthor {0} <{1}> {2} +0000\ncommitter {0} <{1}> {2} +0000\n\n{message}",
            String::from_utf8_lossy(author.name_bytes()),
            String::from_utf8_lossy(author.email_bytes()),
            author.when().seconds()
        );
        self.write(ObjectType::Commit, text.as_bytes())
    }

    pub(in crate::source::git) fn tree(&self, entries: &[(&str, Node<'_>)]) -> Oid {
        let mut below: BTreeMap<&str, Vec<(&str, Node<'_>)>> = BTreeMap::new();
        let mut here = Vec::new();
        for (path, node) in entries {
            match path.split_once('/') {
                Some((first, rest)) => below.entry(first).or_default().push((rest, *node)),
                None => here.push(self.entry(path, *node)),
            }
        }
        for (name, entries) in below {
            here.push((0o040_000, name.as_bytes().to_vec(), self.tree(&entries)));
        }
        self.raw_tree(here)
    }

    /// A tree of modes, names and ids, whatever they are.
    pub(in crate::source::git) fn raw_tree(&self, mut entries: Vec<(u32, Vec<u8>, Oid)>) -> Oid {
        entries.sort_by_key(|(mode, name, _)| [name.as_slice(), if *mode == 0o040_000 { b"/" } else { b"" }].concat());
        let mut bytes = Vec::new();
        for (mode, name, oid) in entries {
            bytes.extend(format!("{mode:o} ").bytes());
            bytes.extend(name);
            bytes.push(0);
            bytes.extend(oid.as_bytes());
        }
        self.write(ObjectType::Tree, &bytes)
    }

    pub(in crate::source::git) fn blob(&self, content: &[u8]) -> Oid {
        self.write(ObjectType::Blob, content)
    }

    fn write(&self, kind: ObjectType, content: &[u8]) -> Oid {
        self.repository.odb().unwrap().write(kind, content).unwrap()
    }

    fn entry(&self, name: &str, node: Node<'_>) -> (u32, Vec<u8>, Oid) {
        let (mode, oid) = match node {
            Node::File(content) => (0o100_644, self.blob(content.as_bytes())),
            Node::Program(content) => (0o100_755, self.blob(content.as_bytes())),
            Node::Link(target) => (0o120_000, self.blob(target.as_bytes())),
            Node::Submodule => (0o160_000, Oid::from_str("1234567890123456789012345678901234567890").unwrap()),
            Node::Tree(oid) => (0o040_000, oid),
        };
        (mode, name.as_bytes().to_vec(), oid)
    }
}

/// The defaults.
pub(in crate::source::git) fn terms() -> Terms {
    Terms { subdir: None, symlinks: Symlinks::Inside, allow: [].into(), files_max: 100_000, size_max: 2 << 30 }
}

pub(in crate::source::git) fn allowing(what: GitAllow) -> Terms {
    Terms { allow: [what].into(), ..terms() }
}

pub(in crate::source::git) fn below(subdir: &str) -> Terms {
    Terms { subdir: UnitPath::new(subdir), ..terms() }
}
