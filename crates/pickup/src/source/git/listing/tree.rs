//! Trees: finding them, and what their entries are.

use git2::{Oid, Repository, Tree};

use super::{refuse, short, unreadable};
use crate::error::{Error, ErrorKind, Result};
use crate::path::UnitPath;

/// Bytes of one tree: a million names. A tree is read whole, and a few compressed bytes can claim to be gigabytes.
const TREE_MAX: usize = 64 << 20;

/// What an entry of a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File { mode: u32 },
    Directory,
    Link,
    Submodule,
}

impl Kind {
    /// What `mode` stands for, if anything.
    pub(super) fn of(mode: i32) -> Option<Self> {
        match mode & 0o170_000 {
            // Old versions of git wrote more modes than these two.
            0o100_000 => Some(Self::File { mode: if mode & 0o100 == 0 { 0o644 } else { 0o755 } }),
            0o040_000 => Some(Self::Directory),
            0o120_000 => Some(Self::Link),
            0o160_000 => Some(Self::Submodule),
            _ => None,
        }
    }
}

/// The tree of the directory `subdir` of `commit`.
pub(super) fn root(repository: &Repository, commit: Oid, subdir: Option<&UnitPath>) -> Result<Oid> {
    let found = repository.find_commit(commit).map_err(|e| unreadable(commit, "itself", e))?;
    let mut at = found.tree_id();
    let Some(subdir) = subdir else { return Ok(at) };
    let mut walked = UnitPath::root();
    for name in subdir.as_path() {
        let tree = find(repository, commit, at, &walked)?;
        walked = walked.join(name);
        let entry = tree.get_name_bytes(name.as_encoded_bytes());
        let instead = match entry.as_ref().map(|entry| (Kind::of(entry.filemode_raw()), entry.id())) {
            Some((Some(Kind::Directory), oid)) => {
                at = oid;
                continue;
            }
            None => String::new(),
            Some((Some(Kind::File { .. }), _)) => format!(": `{walked}` is a file"),
            Some((Some(Kind::Link), _)) => format!(": `{walked}` is a symlink; name the directory that it leads to"),
            Some((Some(Kind::Submodule), _)) => format!(": `{walked}` is a submodule"),
            Some((None, _)) => format!(": `{walked}` is of an unknown kind"),
        };
        let action = format!("list what is to be deployed: commit {} has no directory `{subdir}`", short(commit));
        return Err(Error::new(ErrorKind::Git, action + &instead));
    }
    Ok(at)
}

/// The tree `oid`, which shows at `path`.
pub(super) fn find<'a>(repository: &'a Repository, commit: Oid, oid: Oid, path: &UnitPath) -> Result<Tree<'a>> {
    let failed = |e| unreadable(commit, &format!("directory `{path}`"), e);
    let (size, _) = repository.odb().and_then(|odb| odb.read_header(oid)).map_err(failed)?;
    if size > TREE_MAX {
        return Err(refuse(commit, format!("the directory `{path}` has too many names")));
    }
    repository.find_tree(oid).map_err(failed)
}
