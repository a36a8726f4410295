//! What all pickups of one engine share: the journal, the content store, the watcher, the deployers, the clock.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use super::git::Repositories;
use crate::capture::store::Store;
use crate::change::Content;
use crate::config::DeployerCommon;
use crate::deploy::dynamic::DynDeployer;
use crate::deploy::{Context, Reporter};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{EventKind, Publisher};
use crate::journal::{Doubt, Journal};
use crate::source::watch::Watcher;

/// How long a store that is full is left alone after a sweep, at least.
const SWEEP_PAUSE: Duration = Duration::from_secs(1);
/// How many places of deployers are remembered.
const PLACES_MAX: usize = 8;

/// Where the engine's time comes from.
#[derive(Clone)]
pub(super) struct Clock {
    pub now: Arc<dyn Fn() -> Instant + Send + Sync>,
    pub wall: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the engine is where the clock is read")]
    pub(super) fn system() -> Self {
        Self { now: Arc::new(Instant::now), wall: Arc::new(SystemTime::now) }
    }
}

/// A deployer under the name it has in `deploy_to`.
#[derive(Clone)]
pub(super) struct Bound {
    pub name: String,
    pub deployer: Arc<dyn DynDeployer>,
    pub common: DeployerCommon,
    /// Changes when the deployer would put things elsewhere or otherwise: then everything is deployed again.
    pub config_digest: String,
    /// Where it says what happens between its phases.
    pub reporter: Reporter,
}

/// Where a deployer keeps what is its own, for one generation and for good.
pub(super) struct Places {
    pickup: String,
    generation: u64,
    deployer: String,
    scratch: Arc<Path>,
    home: Arc<Path>,
}

pub(super) struct Shared {
    /// Where everything is written.
    pub state_dir: PathBuf,
    /// Where deployers keep what is their own: the state directory, and in a rehearsal that of the real engine.
    pub real_dir: PathBuf,
    pub journal: Mutex<Journal>,
    /// Whether the journal is damaged, as far as anybody knows.
    pub doubt: Doubt,
    pub store: Store,
    pub watcher: Watcher,
    pub events: Publisher,
    pub git: Repositories,
    pub clock: Clock,
    pub runtime: tokio::runtime::Handle,
    /// Cancelled when the step in hand has to be given up.
    pub cancel: CancellationToken,
    /// The program that loads modules for a test.
    pub module_probe: Option<Vec<OsString>>,
    /// The places of the deployers that were asked about last.
    pub places: Mutex<Vec<Places>>,
    /// Before this, a full store is not swept again.
    pub next_sweep: Mutex<Option<Instant>>,
}

impl Shared {
    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal once more, for reading much of it beside whoever writes.
    pub(super) fn reader(&self) -> Result<Journal> {
        let reader = Journal::open_read_only(&self.state_dir)?;
        let gone = || Error::new(ErrorKind::Journal, "read journal: it is gone from").at(&self.state_dir);
        Ok(reader.ok_or_else(gone)?.doubted_by(self.doubt.clone()).stored(self.store.place()))
    }

    pub(super) fn now(&self) -> Instant {
        (self.clock.now)()
    }

    /// Milliseconds since the Unix epoch.
    pub(super) fn now_ms(&self) -> i64 {
        let since = (self.clock.wall)().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }

    pub(super) fn publish(&self, pickup: &str, kind: EventKind) {
        self.events.publish(self.now_ms(), pickup, || kind);
    }

    /// The same where it costs something to say what happened, and mostly nobody hears.
    pub(super) fn publish_with(&self, pickup: &str, kind: impl FnOnce() -> EventKind) {
        self.events.publish(self.now_ms(), pickup, kind);
    }

    /// What a phase of `deployer` may use while it works on `generation` of `pickup`.
    pub(super) fn context(&self, pickup: &str, generation: u64, deployer: &Bound) -> Context {
        self.context_of(pickup, generation, deployer, deployer.common.timeout)
    }

    /// The same, for a phase that may take `timeout`.
    pub(super) fn context_of(&self, pickup: &str, generation: u64, deployer: &Bound, timeout: Duration) -> Context {
        self.uncancelled(pickup, generation, deployer, timeout).cancelled_by(&self.cancel)
    }

    /// What a phase may use that ends what another one began: that is not given up, whoever is in a hurry.
    pub(super) fn context_to_end(&self, pickup: &str, generation: u64, deployer: &Bound) -> Context {
        self.uncancelled(pickup, generation, deployer, deployer.common.timeout)
    }

    fn uncancelled(&self, pickup: &str, generation: u64, deployer: &Bound, timeout: Duration) -> Context {
        let (scratch, home) = self.places(pickup, generation, &deployer.name);
        Context::in_places(scratch, home, deployer.reporter.clone(), self.now(), timeout)
    }

    /// Scratch directory and home of `deployer`. Each phase of each unit asks for them, so they are not put together anew
    /// each time.
    fn places(&self, pickup: &str, generation: u64, deployer: &str) -> (Arc<Path>, Arc<Path>) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it =
            |known: &&Places| known.generation == generation && known.deployer == deployer && known.pickup == pickup;
        if let Some(known) = places.iter().find(is_it) {
            return (known.scratch.clone(), known.home.clone());
        }
        let name = file_name(deployer);
        let scratch: Arc<Path> = self.scratch(pickup, generation).join(&name).into();
        let home: Arc<Path> = self.homes(pickup).join(name).into();
        if places.len() == PLACES_MAX {
            places.clear();
        }
        let (pickup, deployer) = (pickup.to_owned(), deployer.to_owned());
        places.push(Places { pickup, generation, deployer, scratch: scratch.clone(), home: home.clone() });
        (scratch, home)
    }

    /// The directory with the homes of the deployers of `pickup`.
    pub(super) fn homes(&self, pickup: &str) -> PathBuf {
        self.real_dir.join("deployers").join(file_name(pickup))
    }

    fn scratch(&self, pickup: &str, generation: u64) -> PathBuf {
        self.state_dir.join("work").join(file_name(pickup)).join(generation.to_string())
    }

    /// Prunes the history, if asked to, and removes from the content store what nothing refers to.
    pub(super) fn sweep(&self, keep_history: Option<Duration>) -> Result<u64> {
        if let Some(keep) = keep_history {
            let keep_after = self.now_ms().saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX));
            let mut journal = self.journal();
            for pickup in journal.pickups()? {
                journal.prune(&pickup, keep_after)?;
            }
        }
        // All of the history is read: nobody is to wait for that.
        self.store.collect(|| self.reader()?.referenced())
    }

    /// Sweeps the store because it is full. It may be full for long, and of what is needed: so at most a tenth of the
    /// time goes into this, and who comes in between learns that nothing was freed.
    pub(super) fn make_room(&self) -> u64 {
        let Ok(mut next) = self.next_sweep.try_lock() else { return 0 };
        let start = self.now();
        if next.is_some_and(|next| start < next) {
            return 0;
        }
        let freed = self.sweep(None).unwrap_or(0);
        let end = self.now();
        *next = Some(end + (9 * end.saturating_duration_since(start)).max(SWEEP_PAUSE));
        freed
    }

    /// Lets go of one capture of each file in `content`: the journal refers to them now.
    pub(super) fn unpin(&self, content: &Content) {
        content.files().for_each(|file| self.store.unpin(&file.digest));
    }

    /// Makes sure that the store still has every file of `content`.
    pub(super) fn check_stored(&self, content: &Content) -> Result<()> {
        match content.files().find(|file| !self.store.contains(&file.digest)) {
            None => Ok(()),
            Some(file) => {
                Err(Error::new(ErrorKind::NotFound, "find the content that was live then in").at(file.named()))
            }
        }
    }

    /// A deployer that could not use stored content may have met what a power failure tore: that is thrown away.
    pub(super) fn doubt_stored(&self, error: &Error) {
        let digest = error.path().and_then(|path| path.file_name()?.to_str()?.parse().ok());
        if let Some(digest) = digest
            && error.path() == Some(self.store.path(&digest).as_path())
            && let Err(error) = self.store.verify(&digest)
        {
            tracing::warn!(%error, "stored content is captured again");
        }
    }

    /// Removes the scratch directories of a generation that is done with.
    #[expect(clippy::disallowed_methods, reason = "the engine owns the scratch directories")]
    pub(super) fn sweep_scratch(&self, pickup: &str, generation: u64) {
        let scratch = self.scratch(pickup, generation);
        match std::fs::remove_dir_all(&scratch) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %scratch.display(), %error, "cannot remove a scratch directory"),
        }
    }
}

/// A name from a configuration, as a file name: whatever is not plainly one is percent-encoded.
pub(super) fn file_name(name: &str) -> String {
    let mut encoded = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => encoded.push(char::from(byte)),
            b'.' if !encoded.is_empty() => encoded.push('.'),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    // Longer names than a file may have are told apart by their digest.
    if encoded.len() > 100 {
        let digest = blake3::hash(name.as_bytes()).to_hex();
        encoded.truncate(80);
        encoded.push_str(&digest[..16]);
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pickups_name_never_leaves_its_directory() {
        for (name, expected) in [("a.b", "a.b"), ("..", "%2E."), ("a/../b", "a%2F..%2Fb"), ("", ""), ("ä", "%C3%A4")] {
            assert_eq!(file_name(name), expected);
        }
        assert!(file_name(&"x".repeat(500)).len() <= 100);
    }
}
