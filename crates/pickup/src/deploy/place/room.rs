//! What is in the way where a file is to go: another file where a directory has to be, or a directory at its place.

use rustix::fs::Dir;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::deploy::place::{Made, Parent, Root};
use crate::error::{IoContext, Result};
use crate::path::UnitPath;

/// Everything below a directory.
#[derive(Debug, Default)]
pub(crate) struct Below {
    /// The topmost first.
    directories: Vec<UnitPath>,
    /// What is no directory.
    pub(crate) others: Vec<UnitPath>,
}

impl Root {
    /// The file that lies where a directory on the way to `path` would have to be, if one does.
    pub(crate) fn in_the_way(&self, path: &UnitPath) -> Result<Option<UnitPath>> {
        let mut above: Vec<_> =
            std::iter::successors(path.parent(), UnitPath::parent).filter(|directory| !directory.is_root()).collect();
        above.reverse();
        for directory in above {
            let Some(parent) = self.parent(&directory)? else { return Ok(None) };
            match parent.look(directory.file_name().unwrap_or_default())? {
                Some(found) if found.is_directory() => {}
                Some(found) if found.is_file() => return Ok(Some(directory)),
                Some(_) | None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Opens the directory that holds `path`, or `None` if it is not there, be it because a file has its place.
    pub(crate) fn parent_if_any(&self, path: &UnitPath) -> Result<Option<Parent>> {
        match self.parent(path) {
            Err(error) if error.io_error().is_none() && self.in_the_way(path)?.is_some() => Ok(None),
            result => result,
        }
    }

    /// Everything below the directory at `path`; symlinks are not followed.
    pub(crate) fn below(&self, path: &UnitPath) -> Result<Below> {
        let mut below = Below::default();
        let mut open = vec![path.clone()];
        while let Some(directory) = open.pop() {
            let Some(inside) = self.parent(&directory.join("entry"))? else { continue };
            for entry in Dir::read_from(&inside.directory).doing("read the directory", inside.path())? {
                let entry = entry.doing("read the directory", inside.path())?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." {
                    continue;
                }
                match inside.look(name)? {
                    Some(found) if found.is_directory() => open.push(directory.join(name)),
                    Some(_) => below.others.push(directory.join(name)),
                    None => {}
                }
            }
            below.directories.push(directory);
        }
        Ok(below)
    }

    /// Removes the directory at `path` with all the directories in it, if there is nothing else in them: a crash may
    /// have left them, and whoever else made them misses nothing.
    pub(crate) fn clear(&self, path: &UnitPath, made: &Made) -> Result<()> {
        let below = self.below(path)?;
        if below.others.is_empty() { self.remove_empty(&below.directories, made) } else { Ok(()) }
    }
}
