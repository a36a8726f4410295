//! Following the configuration file: it is read again when it changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use super::{Engine, Inner};
use crate::config::{Config, Surroundings};
use crate::error::Result;
use crate::path::UnitPath;
use crate::source::Place;
use crate::source::watch::{Notice, Target, Watcher};

/// How long the file must stand still: an editor may write it in several steps.
const QUIET: Duration = Duration::from_millis(100);
/// How often the file is looked at where it cannot be watched.
const POLL: Duration = Duration::from_secs(5);

/// Asks for the file to be read again now.
pub(super) type Reread = oneshot::Sender<Result<()>>;

/// A configuration file that is followed.
pub(super) struct Followed {
    file: PathBuf,
    surroundings: Surroundings,
    asked: mpsc::Receiver<Reread>,
    changed: Arc<Notify>,
    is_watched: bool,
    /// What was in the file when it was read last.
    seen: Option<Vec<u8>>,
}

impl Followed {
    /// A file to be followed, and where to ask for it to be read. It is watched from now on.
    pub(super) fn new(shared: &Shared, file: PathBuf, surroundings: Surroundings) -> (mpsc::Sender<Reread>, Self) {
        let (ask, asked) = mpsc::channel(1);
        let changed = Arc::new(Notify::new());
        let is_watched = watch(&shared.watcher, &file, changed.clone());
        let seen = read(&file);
        (ask, Self { file, surroundings, asked, changed, is_watched, seen })
    }

    /// Reads the file again whenever it changes or somebody asks, until `end`.
    pub(super) async fn follow(mut self, engine: Weak<Inner>, end: CancellationToken) {
        loop {
            let asked = tokio::select! {
                () = end.cancelled() => return,
                Some(reply) = self.asked.recv() => Some(reply),
                () = self.changed.notified() => None,
                () = tokio::time::sleep(POLL), if !self.is_watched => None,
            };
            if asked.is_none() {
                tokio::time::sleep(QUIET).await;
            }
            let text = read(&self.file);
            if text == self.seen && asked.is_none() {
                continue;
            }
            self.seen = text;
            let Some(engine) = engine.upgrade().map(Engine) else { return };
            let exchanged = self.exchange(&engine).await;
            if let Err(error) = &exchanged {
                engine.reload_failed(error);
            }
            // A caller that gave up waiting is no error.
            let _ = asked.map(|reply| reply.send(exchanged));
        }
    }

    async fn exchange(&self, engine: &Engine) -> Result<()> {
        engine.reload(Config::load(&self.file, &self.surroundings)?).await
    }
}

#[expect(clippy::disallowed_methods, reason = "whether the configuration changed is told from its text")]
fn read(file: &Path) -> Option<Vec<u8>> {
    std::fs::read(file).ok()
}

/// Watches the name of the file in its directory, so that it may be exchanged as editors do.
fn watch(watcher: &Watcher, file: &Path, changed: Arc<Notify>) -> bool {
    let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else { return false };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let name = name.to_os_string();
    let subscriber = watcher.subscribe(Arc::new(move |notice| match notice {
        // It is not only exchanged: some editors write into the file that is there.
        Notice::Entry { place, .. } if place.path.file_name().is_some_and(|entry| entry != name) => {}
        Notice::Entry { .. } | Notice::Anchor { .. } | Notice::Repository { .. } | Notice::Overflow => {
            changed.notify_one();
        }
    }));
    let target = Target::Directory(Place { root: 0, path: UnitPath::root() });
    watcher.watch(subscriber, &[(directory.to_path_buf(), target)]).is_empty()
}
