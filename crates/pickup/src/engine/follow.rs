//! Following the configuration file: it is read again when it changes.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Engine, Inner};
use crate::config::{Config, Surroundings};
use crate::source::watch::Target;

/// How long the file must stand still: an editor may write it in several steps.
const QUIET: Duration = Duration::from_millis(100);
/// How often the file is looked at where it cannot be watched.
const POLL: Duration = Duration::from_secs(5);

/// Reads `file` again whenever it changes, until `end`.
pub(super) async fn follow(engine: Weak<Inner>, end: CancellationToken, file: PathBuf, surroundings: Surroundings) {
    let changed = Arc::new(Notify::new());
    let is_watched = match engine.upgrade() {
        Some(engine) => watch(&engine, &file, changed.clone()),
        None => return,
    };
    let mut seen = read(&file);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            () = changed.notified() => {}
            () = tokio::time::sleep(POLL), if !is_watched => {}
        }
        tokio::time::sleep(QUIET).await;
        let text = read(&file);
        if text == seen {
            continue;
        }
        seen = text;
        let Some(engine) = engine.upgrade().map(Engine) else { return };
        match Config::load(&file, &surroundings) {
            Ok(config) => {
                if let Err(error) = engine.reload(config).await {
                    engine.reload_failed(&error);
                }
            }
            Err(error) => engine.reload_failed(&error),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "whether the configuration changed is told from its text")]
fn read(file: &Path) -> Option<Vec<u8>> {
    std::fs::read(file).ok()
}

/// Watches the name of the file in its directory, so that it may be exchanged as editors do.
fn watch(engine: &Inner, file: &Path, changed: Arc<Notify>) -> bool {
    let (Some(directory), Some(name)) = (file.parent(), file.file_name()) else { return false };
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let subscriber = engine.shared.watcher.subscribe(Arc::new(move |_| changed.notify_one()));
    let target = Target::Anchor { root: 0, name: name.to_os_string() };
    engine.shared.watcher.watch(subscriber, &[(directory.to_path_buf(), target)]).is_empty()
}
