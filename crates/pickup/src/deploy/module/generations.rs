//! The generations of each module: which one is current, which one a revert would need, and how one ends.

use std::any::Any;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwapOption, Guard};
use pickup_module::Interface;

use super::load::{Image, Instance};
use super::reason::{Reason, Refusal};
use crate::error::{Error, Result};

/// How many interfaces of one module may be in use.
const INTERFACES_MAX: usize = 8;

/// How often it is looked whether the calls in flight have ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(1);

/// The longest that interval gets.
const LOOK_INTERVAL_MAX: Duration = Duration::from_millis(100);

/// What is mapped into this process, by the directory its copies lie in. That belongs to the process, as the mapped code
/// does: whoever configures a deployer anew must not get a new allowance by it.
static LOADED: Mutex<BTreeMap<PathBuf, usize>> = Mutex::new(BTreeMap::new());

/// How many generations were loaded from below `directory`, by anybody in this process.
pub(super) fn loaded(directory: &Path) -> usize {
    LOADED.lock().unwrap_or_else(PoisonError::into_inner).get(directory).copied().unwrap_or_default()
}

/// Takes one of `most` places for a generation below `directory`; gives how many are taken now.
pub(super) fn take_place(directory: &Path, most: usize) -> std::result::Result<usize, Refusal> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let count = loaded.entry(directory.to_path_buf()).or_default();
    if *count >= most {
        return Err(full(*count));
    }
    *count += 1;
    Ok(*count)
}

/// Gives a place back: nothing was loaded after all.
pub(super) fn give_place_back(directory: &Path) {
    if let Some(count) = LOADED.lock().unwrap_or_else(PoisonError::into_inner).get_mut(directory) {
        *count = count.saturating_sub(1);
    }
}

/// The refusal of one generation too many.
pub(super) fn full(count: usize) -> Refusal {
    let text = format!(
        "{count} generations are loaded, and none can be unloaded: restart the program, or raise `max_generations`"
    );
    Refusal::new(Reason::MaxGenerations, text)
}

/// A loaded version of a module, and its instance.
#[derive(Debug)]
pub(super) struct Generation {
    number: u64,
    path: PathBuf,
    /// The form of the state it exports; 0 if there is none.
    state_schema: u32,
    image: Image,
    instance: Instance,
    /// The tables of the interfaces in use, looked up once.
    tables: [OnceLock<Option<Box<dyn Any + Send + Sync>>>; INTERFACES_MAX],
}

impl Generation {
    pub(super) fn new(number: u64, path: PathBuf, state_schema: u32, image: Image, instance: Instance) -> Self {
        Self { number, path, state_schema, image, instance, tables: Default::default() }
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    #[inline]
    pub(super) fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The table of the interface that has this place in [`Slot::require`].
    #[inline]
    pub(super) fn table<I: Interface>(&self, at: usize) -> Option<&'static I> {
        let table = self.tables.get(at)?.get_or_init(|| {
            let table: &'static I = self.image.interface::<I>()?;
            Some(Box::new(table))
        });
        table.as_ref()?.downcast_ref::<&'static I>().copied()
    }

    /// Ends the generation once nobody uses it any more; blocks until then.
    ///
    /// # Errors
    /// The module says that it did not end well. It is over all the same.
    pub(super) fn end(self: Arc<Self>, drain: Duration) -> std::result::Result<(), Refusal> {
        let (mut generation, mut pause, began) = (self, LOOK_INTERVAL, Instant::now());
        let mut is_said = false;
        let alone = loop {
            match Arc::try_unwrap(generation) {
                Ok(alone) => break alone,
                Err(shared) => generation = shared,
            }
            if began.elapsed() > drain && !is_said {
                let (path, generation) = (generation.path.display(), generation.number);
                tracing::warn!(%path, generation, "calls of an old generation go on: it is ended once they are over");
                is_said = true;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LOOK_INTERVAL_MAX);
        };
        let left = drain.saturating_sub(began.elapsed());
        alone.instance.end(u64::try_from(left.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The current generation while it is in use.
pub(super) type Current = Guard<Option<Arc<Generation>>>;

/// An interface that the embedder uses: each generation must offer it.
#[derive(Clone, Copy)]
struct Required {
    name: &'static str,
    version: u32,
    is_offered: fn(&Image) -> bool,
}

/// The place of one module. Handles point here, whatever is deployed.
#[derive(Default)]
pub(super) struct Slot {
    current: ArcSwapOption<Generation>,
    before: Mutex<Before>,
    required: Mutex<Vec<Required>>,
}

/// What a slot holds beside the current generation.
#[derive(Default)]
struct Before {
    /// The generation before, until it is retired.
    previous: Option<Arc<Generation>>,
}

impl Slot {
    fn before(&self) -> MutexGuard<'_, Before> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub(super) fn current(&self) -> Current {
        self.current.load()
    }

    pub(super) fn is_current(&self, path: &Path) -> bool {
        self.current().as_ref().is_some_and(|generation| generation.path == path)
    }

    /// The state that the current generation hands over, and its form.
    pub(super) fn state(&self) -> std::result::Result<Option<(u32, Vec<u8>)>, Refusal> {
        match self.current().as_ref() {
            Some(generation) if generation.state_schema != 0 => {
                Ok(Some((generation.state_schema, generation.instance.export_state()?)))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Makes `generation` the current one, unless `is_abandoned`; else gives it back.
    ///
    /// A generation that was still waiting to be retired is given to `ended`.
    pub(super) fn swap_in(
        &self,
        generation: Arc<Generation>,
        is_abandoned: &AtomicBool,
        ended: impl FnOnce(Arc<Generation>),
    ) -> std::result::Result<(), Arc<Generation>> {
        let mut before = self.before();
        if is_abandoned.load(Ordering::Acquire) {
            return Err(generation);
        }
        let previous = self.current.swap(Some(generation));
        if let Some(left) = std::mem::replace(&mut before.previous, previous) {
            ended(left);
        }
        Ok(())
    }

    /// Makes the generation before current again, if the one at `path` is; gives the latter.
    pub(super) fn swap_back(&self, path: &Path) -> Option<Arc<Generation>> {
        let mut before = self.before();
        if !self.is_current(path) {
            return None;
        }
        self.current.swap(before.previous.take())
    }

    /// Lets go of the generation before.
    pub(super) fn take_previous(&self) -> Option<Arc<Generation>> {
        self.before().previous.take()
    }

    /// Takes the generation at `path` out, if it is current: calls find nothing then.
    pub(super) fn take(&self, path: &Path) -> Option<Arc<Generation>> {
        let _before = self.before();
        if self.is_current(path) { self.current.swap(None) } else { None }
    }

    /// Takes everything out.
    pub(super) fn take_all(&self) -> impl Iterator<Item = Arc<Generation>> {
        let mut before = self.before();
        self.current.swap(None).into_iter().chain(before.previous.take())
    }

    /// Requires the interface of every generation to come; gives its place.
    pub(super) fn require<I: Interface>(&self) -> Result<usize> {
        let mut required = self.required.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &Required| known.name == I::NAME && known.version == I::VERSION;
        if let Some(at) = required.iter().position(same) {
            return Ok(at);
        }
        if required.len() == INTERFACES_MAX {
            let text = format!("use interface {}: {INTERFACES_MAX} of this module are in use already", I::NAME);
            return Err(Error::deploy(text));
        }
        let is_offered = |image: &Image| image.interface::<I>().is_some();
        required.push(Required { name: I::NAME, version: I::VERSION, is_offered });
        Ok(required.len() - 1)
    }

    /// Whether a module offers what the embedder uses.
    pub(super) fn suits(&self, image: &Image) -> std::result::Result<(), Refusal> {
        let required = self.required.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match required.iter().find(|required| !(required.is_offered)(image)) {
            None => Ok(()),
            Some(Required { name, version, .. }) => {
                let text =
                    format!("it does not offer version {version} of the interface `{name}`, which this program uses");
                Err(Refusal::new(Reason::Interface, text))
            }
        }
    }
}
