//! `kind = "module"`: a shared library, loaded into this process behind the contract of `pickup-module`.
//!
//! Judged from its bytes, loaded once in a process that may die of it, copied to a path of its own, loaded, and proved to
//! be what was judged. Its instance is made beside the old one and swapped in with one atomic write; the old one ends once
//! the last call on it has. No library is ever unloaded.
#![expect(clippy::disallowed_methods, reason = "this is a door: it reads captured modules and waits for their calls")]

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::capture::{CapturedFile, Digest};
use crate::config::ModuleConfig;
use crate::deploy::lane::{Lanes, Stop};
use crate::deploy::{Context, Deployer, Observed, Unit, Verdict};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::path::{self, UnitPath};

mod copies;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod generations;
mod handle;
mod judge;
mod libraries;
mod load;
mod probe;
mod reason;
#[cfg(test)]
mod testing;

pub use handle::{CallError, InUse, InterfaceHandle, ModuleHandle};
pub use pickup_module::Interface;
pub use probe::serve_probe;
pub use reason::{Reason, Refusal};

use copies::Copies;
use generations::{Generation, Slot};
use judge::Judged;
use libraries::Libraries;
use load::{Host, Image};

/// How long the generations of a deployer that is dropped may take to end.
const END_MAX: Duration = Duration::from_secs(5);

/// How often an instance that does not work yet is asked again.
const HEALTH_INTERVAL: Duration = Duration::from_millis(50);

/// Loads shared libraries into this process.
///
/// Dropping it ends what is live of them, and waits for that up to five seconds; the code itself stays mapped.
#[derive(Debug)]
pub struct Module {
    work: Arc<Work>,
    lanes: Lanes,
}

/// A copy that was judged and is not loaded yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Staged {
    /// Below the directory of the copies, which may be elsewhere tomorrow.
    #[serde(with = "path::exact")]
    path: PathBuf,
    digest: Digest,
    name: String,
    version: String,
}

/// What is live, in the process that loaded it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Live {
    pickup: String,
    unit: UnitPath,
    #[serde(with = "path::exact")]
    path: PathBuf,
    digest: Digest,
    generation: u64,
    name: String,
    version: String,
}

struct Work {
    config: ModuleConfig,
    directory: PathBuf,
    probe: Option<Vec<OsString>>,
    libraries: OnceLock<Libraries>,
    copies: OnceLock<Copies>,
    making_copies: Mutex<()>,
    slots: Mutex<HashMap<(String, UnitPath), Arc<Slot>>>,
    /// The paths that something was loaded from.
    loaded: Mutex<HashSet<PathBuf>>,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("config", &self.config).field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Module {
    /// Makes the deployer that the section describes. Copies of modules lie below `directory`, which is absolute; `probe`
    /// is the program that loads a module for a test, with its arguments: one that calls [`serve_probe`].
    ///
    /// # Errors
    /// `config` asks for a probe and there is none, or for no generation at all.
    pub fn new(config: ModuleConfig, directory: impl Into<PathBuf>, probe: Option<Vec<OsString>>) -> Result<Self> {
        let invalid = |text: &str| Err(Error::new(ErrorKind::Config, text));
        let directory = directory.into();
        if !directory.is_absolute() {
            return invalid("keep copies of modules in a directory whose path is relative");
        }
        let probe = probe.filter(|_| config.probe);
        if config.probe && probe.as_ref().is_none_or(Vec::is_empty) {
            return invalid("probe modules: this program names no probe process; set `probe` to false to do without");
        }
        if config.max_generations == 0 {
            return invalid("load modules: `max_generations` is 0");
        }
        let work = Work {
            config,
            directory,
            probe,
            libraries: OnceLock::new(),
            copies: OnceLock::new(),
            making_copies: Mutex::default(),
            slots: Mutex::default(),
            loaded: Mutex::default(),
        };
        Ok(Self { work: Arc::new(work), lanes: Lanes::default() })
    }

    /// A handle to the module that is picked up as `unit` by the entry `pickup`, whether it is there yet or not.
    ///
    /// # Errors
    /// `unit` is no path below a pickup directory.
    pub fn handle(&self, pickup: &str, unit: impl AsRef<Path>) -> Result<ModuleHandle> {
        let path = unit.as_ref();
        let unit = UnitPath::new(path).filter(|unit| !unit.is_root());
        let unit = unit.ok_or_else(|| Error::new(ErrorKind::NotFound, "find a module at").at(path))?;
        Ok(ModuleHandle::new(self.work.slot(pickup, &unit)))
    }

    /// How many generations are loaded in this process; each counts against `max_generations` until the process ends.
    pub fn loaded(&self) -> usize {
        generations::loaded(&self.work.directory)
    }

    /// Asks the module until it says that it works, or time is up.
    async fn becomes_healthy(&self, cx: &Context, unit: &Unit, live: &Live) -> Result<()> {
        let slot = self.work.slot(&live.pickup, &live.unit);
        let soft = cx.deadline() - remaining(cx) / 8;
        loop {
            let (asked, path) = (Arc::clone(&slot), live.path.clone());
            let is_healthy = apart(unit, move || {
                let current = asked.current();
                let current = current.as_ref().filter(|generation| generation.path() == path);
                let current = current.ok_or_else(|| Error::deploy("ask it whether it works: it is not live"))?;
                current.instance().health().map_err(refused)
            });
            if is_healthy.await? {
                return Ok(());
            }
            if Instant::now() + HEALTH_INTERVAL > soft {
                return Err(refused(Refusal::new(Reason::Health, "it did not become healthy in time")));
            }
            tokio::time::sleep(HEALTH_INTERVAL).await;
        }
    }
}

impl Deployer for Module {
    type Staged = Staged;
    type Live = Live;

    fn accepts(&self, unit: &Unit) -> Verdict {
        let is_library = unit.path.as_path().extension().is_some_and(|extension| extension == "so");
        match (unit.file(), is_library) {
            (Some(_), true) => Verdict::Accepted,
            (Some(_), false) => Verdict::Refused("its name does not end in .so".into()),
            (None, _) => Verdict::Refused("a module is one file".into()),
        }
    }

    async fn check(&self, cx: &Context, unit: &Unit, _old: Option<&Live>) -> Result<()> {
        if unit.content.is_none() {
            return Ok(());
        }
        let (work, subject) = (Arc::clone(&self.work), unit.clone());
        self.lanes.run(cx, unit, false, move |_| work.judged(&subject).map(drop)).await
    }

    async fn stage(&self, cx: &Context, unit: &Unit, _old: Option<&Live>) -> Result<Staged> {
        let (work, subject) = (Arc::clone(&self.work), unit.clone());
        let (staged, judged) = self.lanes.run(cx, unit, false, move |stop| work.stage(&subject, stop)).await?;
        if let Some(argv) = &self.work.probe {
            let probed = probe::probe(cx, argv, &self.work.directory.join(&staged.path), &judged.descriptor).await;
            if probed.is_err() {
                self.work.discard(&staged.path)?;
            }
            probed?;
        }
        Ok(staged)
    }

    async fn activate(&self, cx: &Context, unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<Live> {
        let live = Live {
            pickup: unit.pickup.clone(),
            unit: unit.path.clone(),
            path: staged.path.clone(),
            digest: staged.digest,
            generation: unit.generation,
            name: staged.name.clone(),
            version: staged.version.clone(),
        };
        let slot = self.work.slot(&unit.pickup, &unit.path);
        if slot.is_current(&staged.path) {
            return Ok(live);
        }
        let attempt = Attempt::default();
        let (work, new, is_abandoned) = (Arc::clone(&self.work), live.clone(), Arc::clone(&attempt.is_abandoned));
        let drain = remaining(cx);
        let done = tokio::select! {
            biased;
            done = apart(unit, move || work.go_live(&slot, &new, &is_abandoned, drain)) => done,
            () = cx.cancelled() => Err(cancelled()),
        };
        drop(attempt);
        done?;
        Ok(live)
    }

    async fn verify(&self, cx: &Context, unit: &Unit, live: &Live) -> Result<()> {
        tokio::select! {
            biased;
            healthy = self.becomes_healthy(cx, unit, live) => healthy,
            () = cx.cancelled() => Err(cancelled()),
        }
    }

    async fn revert(&self, cx: &Context, unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<()> {
        let slot = self.work.slot(&unit.pickup, &unit.path);
        if let Some(reverted) = slot.swap_back(&staged.path) {
            end(cx, unit, reverted).await?;
        }
        self.work.discard(&staged.path)
    }

    /// Ends the generation before, once the last call on it has.
    async fn retire(&self, cx: &Context, unit: &Unit, _staged: &Staged, _old: Option<&Live>) -> Result<()> {
        match self.work.slot(&unit.pickup, &unit.path).take_previous() {
            Some(previous) => end(cx, unit, previous).await,
            None => Ok(()),
        }
    }

    async fn remove(&self, cx: &Context, unit: &Unit, live: &Live) -> Result<()> {
        match self.work.slot(&live.pickup, &live.unit).take(&live.path) {
            Some(generation) => end(cx, unit, generation).await,
            None => Ok(()),
        }
    }

    /// A process that has just begun has loaded nothing, so everything is loaded into it again.
    async fn observe(&self, _cx: &Context, live: &Live) -> Result<Observed> {
        let slot = self.work.slot(&live.pickup, &live.unit);
        let current = slot.current();
        Ok(match current.as_ref() {
            Some(generation) if generation.path() == live.path => Observed::Alive,
            Some(generation) => {
                Observed::Drifted(format!("generation {} is live in this process", generation.number()))
            }
            None => Observed::Gone,
        })
    }
}

impl Work {
    fn slot(&self, pickup: &str, unit: &UnitPath) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry((pickup.to_owned(), unit.clone())).or_default())
    }

    fn loaded(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn copies(&self) -> Result<&Copies> {
        let _turn = self.making_copies.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copies) = self.copies.get() {
            return Ok(copies);
        }
        let copies = Copies::below(&self.directory)?;
        Ok(self.copies.get_or_init(|| copies))
    }

    /// The bytes of a module that nothing speaks against, and what they say.
    fn judged(&self, unit: &Unit) -> Result<(Vec<u8>, Judged)> {
        let file = unit.file().ok_or_else(|| Error::deploy("load it: a module is one file"))?;
        if file.size > judge::SIZE_MAX {
            let text = format!("it has {} bytes, more than the {} that a module may have", file.size, judge::SIZE_MAX);
            return Err(refused(Refusal::new(Reason::TooLarge, text)));
        }
        if file.mode & 0o002 != 0 {
            let text = "everybody may write to it, and its code would run as this user: chmod o-w";
            return Err(refused(Refusal::new(Reason::Writable, text)));
        }
        let bytes = file.read()?;
        let libraries = self.libraries.get_or_init(Libraries::of_system);
        let judged = judge::judge(&bytes, &self.config.allow_needed, libraries).map_err(refused)?;
        Ok((bytes, judged))
    }

    /// Judges the module and lays out the copy that may be loaded: of the very bytes that were judged.
    fn stage(&self, unit: &Unit, stop: &Stop) -> Result<(Staged, Judged)> {
        let (count, most) = (generations::loaded(&self.directory), self.config.max_generations);
        if count >= most {
            return Err(refused(generations::full(count)));
        }
        let (bytes, judged) = self.judged(unit)?;
        let digest = Digest::of(&bytes);
        if unit.digest() != Some(digest) {
            let stored = unit.file().map(CapturedFile::named).unwrap_or_default();
            return Err(Error::deploy("load it: the stored content is damaged").at(stored).transient());
        }
        stop.check()?;
        let copies = self.copies()?;
        let loaded = self.loaded();
        let path = copies.path(unit, digest, |path| loaded.contains(path));
        drop(loaded);
        copies.write(&path, &bytes)?;
        let staged = Staged { path, digest, name: judged.name.clone(), version: judged.version.clone() };
        Ok((staged, judged))
    }

    /// Removes the copy at `path`, unless it was loaded: then debuggers and backtraces want it.
    fn discard(&self, path: &Path) -> Result<()> {
        match self.copies.get() {
            Some(copies) if !self.loaded().contains(path) => copies.remove(path),
            Some(_) | None => Ok(()),
        }
    }

    /// Loads the copy, makes an instance beside the current one, and swaps it in.
    fn go_live(&self, slot: &Slot, new: &Live, is_abandoned: &AtomicBool, drain: Duration) -> Result<()> {
        let (path, generation, most) = (&new.path, new.generation, self.config.max_generations);
        let full = self.directory.join(path);
        let bytes = std::fs::read(&full).doing("read", &full)?;
        if Digest::of(&bytes) != new.digest {
            return Err(refused(Refusal::new(Reason::Identity, "somebody changed the copy that was judged")));
        }
        let judged = judge::descriptor(&bytes).map_err(refused)?;
        if self.loaded().insert(path.clone()) {
            let count = generations::take_place(&self.directory, most).map_err(|refusal| {
                self.loaded().remove(path);
                refused(refusal)
            })?;
            let (unit, name, version) = (new.unit.as_path().display(), &new.name, &new.version);
            let threads = judged.has_threads;
            tracing::info!(%unit, name, version, generation, threads, loaded = count, most, "loading a module, for good");
        }
        let image = Image::load(&full, &judged.descriptor).map_err(|refusal| {
            if refusal.reason() == Reason::Load && self.loaded().remove(path) {
                generations::give_place_back(&self.directory);
            }
            refused(refusal)
        })?;
        slot.suits(&image).map_err(refused)?;
        let handoff = slot.state().map_err(refused)?;
        let host = Host::leaked(&new.pickup, &new.unit.as_path().display().to_string(), generation);
        let handoff = handoff.as_ref().map(|(schema, state)| (*schema, state.as_slice()));
        let instance = image.activate(host, self.config.config.as_bytes(), handoff).map_err(refused)?;
        let new = Arc::new(Generation::new(generation, path.clone(), judged.state_schema, image, instance));
        let swapped = slot.swap_in(new, is_abandoned, |left| end_unseen(left, drain));
        swapped.map_err(|unwanted| {
            end_unseen(unwanted, drain);
            Error::new(ErrorKind::Timeout, "make it live in time")
        })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let slots = self.slots.get_mut().unwrap_or_else(PoisonError::into_inner);
        let left: Vec<_> = slots.values().flat_map(|slot| slot.take_all().collect::<Vec<_>>()).collect();
        let (ended, has_ended) = mpsc::channel();
        let count = left.len();
        for generation in left {
            let ended = ended.clone();
            let work = move || {
                say(generation.end(END_MAX));
                let _nobody_waits = ended.send(());
            };
            let _spawned = std::thread::Builder::new().name("module ends".into()).spawn(work);
        }
        drop(ended);
        let deadline = Instant::now() + END_MAX;
        for _ in 0..count {
            // A module that does not end is left behind: the process is about to end anyway, or keeps it as it is.
            if has_ended.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_err() {
                tracing::warn!("a module does not end");
                break;
            }
        }
    }
}

/// An activation that is given up when this is dropped before it is done: what comes of it then is ended at once.
#[derive(Default)]
struct Attempt {
    is_abandoned: Arc<AtomicBool>,
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.is_abandoned.store(true, Ordering::Release);
    }
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "finish: the work was cancelled")
}

fn refused(refusal: Refusal) -> Error {
    let error = Error::deploy("load it");
    // Only a new process, or another configuration, can load more.
    let error = if refusal.reason() == Reason::MaxGenerations { error.transient() } else { error };
    error.caused_by(refusal)
}

fn remaining(cx: &Context) -> Duration {
    cx.deadline().saturating_duration_since(Instant::now())
}

/// Ends a generation that nobody calls any more, and waits for it; a little less than there is time.
async fn end(cx: &Context, unit: &Unit, generation: Arc<Generation>) -> Result<()> {
    let drain = remaining(cx) * 3 / 4;
    apart(unit, move || generation.end(drain).map_err(refused)).await
}

/// Ends a generation on a thread of its own; what comes of it is logged.
fn end_unseen(generation: Arc<Generation>, drain: Duration) {
    let work = move || say(generation.end(drain));
    let _spawned = std::thread::Builder::new().name("module ends".into()).spawn(work);
}

fn say(ended: std::result::Result<(), Refusal>) {
    if let Err(error) = ended {
        tracing::warn!(%error, "an old generation of a module did not end well");
    }
}

/// Calls into a module on a thread of its own: one that never comes back costs that thread, and holds up nobody else.
async fn apart<T: Send + 'static>(unit: &Unit, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (sender, receiver) = oneshot::channel();
    let work = move || {
        let _nobody_waits = sender.send(work());
    };
    let name = format!("module {}", unit.path);
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|error| Error::new(ErrorKind::Io, "start a thread").caused_by(error).transient())?;
    receiver.await.unwrap_or_else(|_| Err(Error::deploy("call it: the thread ended early")))
}

#[cfg(test)]
mod tests;
