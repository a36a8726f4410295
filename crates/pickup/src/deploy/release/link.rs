//! The symlink to the live release: read, pointed elsewhere in one step, removed.

use std::fs::File;
use std::io::ErrorKind as Io;
use std::path::Path;

use crate::config::ReleaseConfig;
use crate::deploy::release::Target;
use crate::error::{Error, IoContext, Result};

/// What the link holds, or `None` if there is none. Anything but a symlink is refused: it is not ours.
pub(super) fn read(into: &Path, link: &str) -> Result<Option<Target>> {
    let path = into.join(link);
    match std::fs::read_link(&path) {
        Ok(target) => Ok(Some(Target(target))),
        Err(error) if error.kind() == Io::NotFound => Ok(None),
        Err(error) if error.kind() == Io::InvalidInput => {
            Err(Error::deploy(format!("replace {}, which is no symlink", path.display())))
        }
        Err(error) => Err(Error::io("read the link", path, error)),
    }
}

/// Points the link at `target`; nobody finds it missing in between.
pub(super) fn point(into: &Path, config: &ReleaseConfig, target: &Target, generation: u64) -> Result<()> {
    if read(into, &config.link)?.as_ref() == Some(target) {
        return sync(into, config);
    }
    let temporary = into.join(format!(".pickup-link-{generation}"));
    remove_file(&temporary)?;
    std::os::unix::fs::symlink(&target.0, &temporary).doing("create the link", &temporary)?;
    let link = into.join(&config.link);
    if let Err(error) = std::fs::rename(&temporary, &link) {
        let _best_effort = remove_file(&temporary);
        return Err(Error::io("move into place", link, error));
    }
    sync(into, config)
}

/// Removes the link; one that is not there is fine.
pub(super) fn remove(into: &Path, config: &ReleaseConfig) -> Result<()> {
    remove_file(&into.join(&config.link))?;
    sync(into, config)
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != Io::NotFound => Err(Error::io("remove", path, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync(into: &Path, config: &ReleaseConfig) -> Result<()> {
    if !config.durable {
        return Ok(());
    }
    File::open(into).and_then(|directory| directory.sync_all()).doing("put on disk", into)
}
