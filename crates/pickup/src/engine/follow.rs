//! Following the configuration file: it is read again when it changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use super::{Engine, Inner};
use crate::config::{Config, Surroundings};
use crate::error::{Error, ErrorKind, Result};
use crate::path::UnitPath;
use crate::source::Place;
use crate::source::watch::{Notice, Target, Watcher};

/// How long the file must stand still: an editor may write it in several steps.
const QUIET: Duration = Duration::from_millis(100);
/// How long a file that does not stand still is left alone.
const UNQUIET_MAX: Duration = Duration::from_secs(2);
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
    /// What was in the file when it was read last; nothing if it could not be.
    seen: Option<String>,
}

impl Followed {
    /// A file to be followed, and where to ask for it to be read. It is watched from now on.
    pub(super) fn new(shared: &Shared, file: PathBuf, surroundings: Surroundings) -> (mpsc::Sender<Reread>, Self) {
        let (ask, asked) = mpsc::channel(1);
        let changed = Arc::new(Notify::new());
        let is_watched = watch(&shared.watcher, &file, changed.clone());
        let seen = Config::read(&file).ok();
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
                self.stands_still().await;
            }
            let text = self.read().await;
            let before = std::mem::replace(&mut self.seen, text.as_ref().ok().cloned());
            if self.seen == before && asked.is_none() {
                continue;
            }
            let Some(engine) = engine.upgrade().map(Engine) else { return };
            let exchanged = match text {
                Ok(text) => self.exchange(&engine, &text).await,
                Err(error) => Err(error),
            };
            if let Err(error) = &exchanged {
                engine.reload_failed(error);
            }
            // A caller that gave up waiting is no error.
            let _ = asked.map(|reply| reply.send(exchanged));
        }
    }

    async fn stands_still(&self) {
        let end = Instant::now() + UNQUIET_MAX;
        while Instant::now() < end && timeout(QUIET, self.changed.notified()).await.is_ok() {}
    }

    async fn read(&self) -> Result<String> {
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || Config::read(&file)).await;
        read.map_err(|error| Error::new(ErrorKind::Cancelled, "read the configuration").caused_by(error))?
    }

    async fn exchange(&self, engine: &Engine, text: &str) -> Result<()> {
        // A disk that is full, or a tool that failed, leaves nothing of a file; it is no order to end everything.
        if text.trim().is_empty() {
            let action = "use configuration that is empty (a comment is enough to mean it):";
            return Err(Error::new(ErrorKind::Config, action).at(&self.file));
        }
        engine.reload(Config::of_file(text, &self.file, &self.surroundings)?).await
    }
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
