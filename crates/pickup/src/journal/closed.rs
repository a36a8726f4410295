//! The mark of a journal that was closed in order. As long as nobody touched the file since, it is used before it is checked.
//!
//! A check reads all of the journal, and a start waits for that. What can damage a file that nobody writes to, a failing
//! disk, is found by a check some time after the start.
#![expect(clippy::disallowed_methods, reason = "this is the door to the journal's file")]

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::open::with_suffix;
use crate::source::Fingerprint;

/// So much older than it is a journal is made that is closed: each later write shows, also one in the same moment.
const BACKDATED: Duration = Duration::from_secs(1);

/// Takes the mark away; says whether there was one and the journal at `path` is still as it was then.
pub(super) fn take_mark(path: &Path) -> bool {
    let mark = mark(path);
    let noted = fs::read(&mark).ok().and_then(|noted| serde_json::from_slice::<Fingerprint>(&noted).ok());
    // One that stays would vouch for what is written from now on.
    let is_taken = fs::remove_file(&mark).is_ok();
    is_taken && noted.is_some() && noted == identity(path).ok() && !has_log(path)
}

/// Whether the next start is to check the journal in any case: known to all who have it open.
#[derive(Clone, Debug, Default)]
pub(crate) struct Doubt(Arc<Doubted>);

#[derive(Debug, Default)]
struct Doubted {
    is_raised: AtomicBool,
    raised: Notify,
}

impl Doubt {
    pub(crate) fn raise(&self) {
        self.0.is_raised.store(true, Ordering::Relaxed);
        self.0.raised.notify_one();
    }

    fn is_raised(&self) -> bool {
        self.0.is_raised.load(Ordering::Relaxed)
    }

    /// Waits until somebody raises it, or has.
    pub(crate) async fn raised(&self) {
        self.0.raised.notified().await;
    }
}

/// Marks the journal as closed in order when it is dropped: after the connection.
pub(super) struct Closing {
    pub path: PathBuf,
    /// Whether it was closed in order before, and is used without having been checked.
    pub is_unchecked: bool,
    pub doubt: Doubt,
}

impl Closing {
    fn mark(&self) -> io::Result<()> {
        if has_log(&self.path) {
            return Ok(()); // Somebody else reads: not all of it is in the file.
        }
        let file = File::open(&self.path)?;
        file.set_modified(file.metadata()?.modified()? - BACKDATED)?;
        drop(file);
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(mark(&self.path))?.write_all(&serde_json::to_vec(&identity(&self.path)?)?)
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if !self.doubt.is_raised() {
            // Without the mark the next start takes a little longer.
            let _unmarked = self.mark();
        }
    }
}

fn mark(path: &Path) -> PathBuf {
    path.with_extension("closed")
}

fn identity(path: &Path) -> io::Result<Fingerprint> {
    fs::symlink_metadata(path).map(|metadata| Fingerprint::of(&metadata))
}

/// Whether writes lie beside the journal that are not in it yet.
fn has_log(path: &Path) -> bool {
    !matches!(fs::symlink_metadata(with_suffix(path, "-wal")), Err(error) if error.kind() == io::ErrorKind::NotFound)
}
