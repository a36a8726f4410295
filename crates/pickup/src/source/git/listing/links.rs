//! Where a symlink in a commit leads, followed through trees and never through a file system.

use git2::Oid;

use super::names::native;
use super::tree::{self, Kind};
use super::{Walk, unreadable};
use crate::error::Result;
use crate::path::UnitPath;

/// Links on the way to one target, as Linux has it.
const HOPS_MAX: usize = 40;
/// Bytes of a link's target: what Linux takes for a path.
const TARGET_MAX: usize = 4096;

/// Where a link leads.
pub(super) enum Target {
    File {
        oid: Oid,
        mode: u32,
    },
    Directory {
        tree: Oid,
        /// Below the listed directory.
        real: UnitPath,
    },
    /// Nowhere that may be deployed, and why.
    Refused(String),
}

/// Where following has arrived.
struct Place {
    /// The directories on the way down from the listed one, each with its name; without it.
    inside: Vec<(Vec<u8>, Oid)>,
    /// Names that are still to be gone through, the next one last.
    ahead: Vec<Vec<u8>>,
}

impl Walk<'_> {
    /// Follows the link whose blob is `link` from the directory `from`, which is a real one below the listed one.
    pub(super) fn resolve(&self, from: &UnitPath, link: Oid) -> Result<Target> {
        let mut place = Place { inside: self.descend(from)?, ahead: Vec::new() };
        let first = match self.target_of(link)? {
            Ok(target) => target,
            Err(why) => return Ok(Target::Refused(why)),
        };
        let shown = String::from_utf8_lossy(&first).escape_debug().to_string();
        let refused = |why: &str| Ok(Target::Refused(format!("a symlink that leads {why}: {shown}")));
        place.read(&first);
        let mut hops = 1;
        while let Some(name) = place.ahead.pop() {
            if name == b".." {
                if place.inside.pop().is_none() {
                    return refused("out of the directory that is deployed");
                }
                continue;
            }
            let Some((kind, oid)) = self.look_up(&place, &name)? else { return refused("nowhere") };
            match kind {
                Kind::Directory => place.inside.push((name, oid)),
                Kind::File { mode } if place.ahead.is_empty() => return Ok(Target::File { oid, mode }),
                Kind::File { .. } => return refused("nowhere"),
                Kind::Submodule => return refused("into a submodule"),
                Kind::Link if hops == HOPS_MAX => return refused("to itself, or through too many others"),
                Kind::Link => {
                    hops += 1;
                    match self.target_of(oid)? {
                        Ok(target) => place.read(&target),
                        Err(_) => return refused("to one that cannot be followed"),
                    }
                }
            }
        }
        let tree = place.inside.last().map_or(self.root, |(_, tree)| *tree);
        let names = place.inside.iter().map(|(name, _)| native(name));
        let real = names.collect::<Option<std::path::PathBuf>>().and_then(UnitPath::new);
        real.map_or_else(|| refused("nowhere"), |real| Ok(Target::Directory { tree, real }))
    }

    /// The directories on the way down to `path`.
    fn descend(&self, path: &UnitPath) -> Result<Vec<(Vec<u8>, Oid)>> {
        let mut place = Place { inside: Vec::new(), ahead: Vec::new() };
        for name in path.as_path() {
            let name = name.as_encoded_bytes();
            // It was listed, so it is there.
            if let Some((Kind::Directory, oid)) = self.look_up(&place, name)? {
                place.inside.push((name.to_vec(), oid));
            }
        }
        Ok(place.inside)
    }

    fn look_up(&self, place: &Place, name: &[u8]) -> Result<Option<(Kind, Oid)>> {
        let at = place.inside.last().map_or(self.root, |(_, tree)| *tree);
        let tree = tree::find(self.repository, self.commit, at, &UnitPath::root())?;
        let entry = tree.get_name_bytes(name);
        Ok(entry.and_then(|entry| Some((Kind::of(entry.filemode_raw())?, entry.id()))))
    }

    /// The text of a link, or why it cannot be followed.
    fn target_of(&self, link: Oid) -> Result<Result<Vec<u8>, String>> {
        let failed = |e| unreadable(self.commit, "a symlink", e);
        let odb = self.repository.odb().map_err(failed)?;
        let (size, _) = odb.read_header(link).map_err(failed)?;
        if size > TARGET_MAX {
            return Ok(Err(format!("a symlink whose target is longer than {TARGET_MAX} bytes")));
        }
        let target = odb.read(link).map_err(failed)?.data().to_vec();
        Ok(match target.as_slice() {
            b"" => Err("a symlink without a target".into()),
            [b'/', ..] => {
                let shown = String::from_utf8_lossy(&target).escape_debug().to_string();
                Err(format!("a symlink that leads to an absolute path: {shown}"))
            }
            // Not even a lookup takes such a name.
            text if text.contains(&0) => Err("a symlink whose target is no path".into()),
            _ => Ok(target),
        })
    }
}

impl Place {
    /// Puts the names of a link's target before those that are still ahead.
    fn read(&mut self, target: &[u8]) {
        let names = target.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."));
        self.ahead.extend(names.rev().map(<[u8]>::to_vec));
    }
}
