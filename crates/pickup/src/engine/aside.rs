//! A rehearsal's own place: it reads the journal and the content store of a state directory, and writes beside them only.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::git::Repositories;
use super::shared::{Clock, Shared};
use crate::capture::store::Store;
use crate::error::{Error, Result};
use crate::event::Publisher;
use crate::journal::Journal;
use crate::source::git::worker::GitWorker;
use crate::source::watch::Watcher;

/// Where rehearsals take place, below the state directory: the content store may share blocks with what lies there.
const PLACES: &str = "work/.plan";

/// What a rehearsal takes over from the engine that it is about.
#[derive(Clone)]
pub(super) struct Real {
    pub state_dir: PathBuf,
    pub store_max: u64,
    pub git_worker: GitWorker,
    pub module_probe: Option<Vec<OsString>>,
    pub clock: Clock,
    pub runtime: tokio::runtime::Handle,
    pub cancel: CancellationToken,
}

/// A directory for one rehearsal. It goes with this, and so do the directories that were made on the way to it.
pub(super) struct Aside {
    path: PathBuf,
    /// The deepest first.
    made: Vec<PathBuf>,
}

impl Aside {
    /// Makes one.
    ///
    /// # Errors
    /// The state directory cannot be written.
    #[expect(clippy::disallowed_methods, reason = "a rehearsal owns the place it takes place in")]
    pub(super) fn new(state_dir: &Path) -> Result<Self> {
        let places = state_dir.join(PLACES);
        let made = places.ancestors().take_while(|path| path.symlink_metadata().is_err()).map(Path::to_path_buf);
        let made = made.collect();
        let mut builder = std::fs::DirBuilder::new();
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.recursive(true).create(&places).map_err(|error| Error::io("make", &places, error))?;
        builder.recursive(false);
        let mut aside = Self { path: places.clone(), made };
        for number in 0_u32.. {
            let path = places.join(format!("{}-{number}", std::process::id()));
            match builder.create(&path) {
                Ok(()) => {
                    aside.path = path;
                    break;
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io("make", path, error)),
            }
        }
        Ok(aside)
    }

    /// What a pickup that rehearses works with: the journal as it is, and nothing that anybody else sees.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub(super) fn shared(&self, real: Real) -> Result<Arc<Shared>> {
        let journal = match Journal::open_read_only(&real.state_dir)? {
            Some(journal) => journal,
            // Nobody ever opens it again.
            None => Journal::open(&self.path, None, 0)?.0.unmarked(),
        };
        let store = Store::open(&self.path.join("store"), real.store_max)?.on_top_of(&real.state_dir.join("store"))?;
        Ok(Arc::new(Shared {
            state_dir: self.path.clone(),
            real_dir: real.state_dir,
            doubt: journal.doubt().clone(),
            journal: Mutex::new(journal.stored(store.place())),
            store,
            watcher: Watcher::start(),
            events: Publisher::new(),
            git: Repositories::new(real.git_worker),
            clock: real.clock,
            runtime: real.runtime,
            cancel: real.cancel.child_token(),
            module_probe: real.module_probe,
            places: Mutex::default(),
            next_sweep: Mutex::default(),
        }))
    }
}

impl Drop for Aside {
    #[expect(clippy::disallowed_methods, reason = "a rehearsal owns the place it takes place in")]
    fn drop(&mut self) {
        // The next start removes what stays.
        let _ = std::fs::remove_dir_all(&self.path);
        if let Some(places) = self.path.parent() {
            let _ = std::fs::remove_dir(places);
        }
        for path in &self.made {
            // Unless somebody else put something there meanwhile.
            let _ = std::fs::remove_dir(path);
        }
    }
}

/// Removes what rehearsals left behind that were killed.
#[expect(clippy::disallowed_methods, reason = "the engine owns the state directory")]
pub(super) fn sweep(state_dir: &Path) {
    let places = state_dir.join(PLACES);
    match std::fs::remove_dir_all(&places) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(path = %places.display(), %error, "cannot remove what a plan left behind"),
    }
}
