//! Watchers that are libraries: a plain inotify loop, which is the floor, notify, its debouncer, and pickup.

use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecursiveMode, Watcher as _};
use notify_debouncer_full::{DebounceEventResult, new_debouncer};
use pickup::deploy::{Unit, from_fn};
use pickup::{Config, Delivery, Engine, PickupConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

/// The timeout of the debouncer. Its documentation's example has two seconds; what is deployed by hand waits for less.
pub const DEBOUNCE: Duration = Duration::from_millis(100);

/// A watcher that is a library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Library {
    /// An inotify loop that does what any correct one must: lists a new directory after watching it, and everything after
    /// an overflow.
    Raw,
    /// notify, recursive. It reports at close and rename, which is what its best user would do.
    Notify,
    /// notify-debouncer-full with [`DEBOUNCE`].
    Debouncer,
    /// Our engine with a closure for a deployer.
    Pickup {
        /// `quiet = 0` instead of the default.
        is_eager: bool,
    },
}

/// Takes the path of a file that is known to have changed.
pub type Report = Arc<dyn Fn(&Path) + Send + Sync>;

impl Library {
    /// The word by which a child process is told which one it is.
    pub fn word(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Notify => "notify",
            Self::Debouncer => "debouncer",
            Self::Pickup { is_eager: false } => "pickup",
            Self::Pickup { is_eager: true } => "pickup-eager",
        }
    }

    /// The other way round.
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [
            Self::Raw,
            Self::Notify,
            Self::Debouncer,
            Self::Pickup { is_eager: false },
            Self::Pickup { is_eager: true },
        ];
        all.into_iter().find(|library| library.word() == word)
    }

    /// Watches `directory` until the value it gives is dropped. It watches when this returns. `state` is where it may keep
    /// what it likes.
    pub fn start(self, directory: &Path, state: &Path, report: Report) -> Result<Box<dyn Any>> {
        match self {
            Self::Raw => Ok(Box::new(RawLoop::start(directory, report)?)),
            Self::Notify => {
                let handler = move |event: notify::Result<notify::Event>| {
                    for path in event.iter().filter(|event| is_done(event.kind)).flat_map(|event| event.paths.last()) {
                        report(path);
                    }
                };
                let mut watcher = notify::recommended_watcher(handler)?;
                watcher.watch(directory, RecursiveMode::Recursive)?;
                Ok(Box::new(watcher))
            }
            Self::Debouncer => {
                let handler = move |batch: DebounceEventResult| {
                    let events = batch.unwrap_or_default();
                    for path in events.iter().filter(|event| is_change(event.kind)).flat_map(|event| event.paths.last())
                    {
                        report(path);
                    }
                };
                let mut debouncer = new_debouncer(DEBOUNCE, None, handler)?;
                debouncer.watch(directory, RecursiveMode::Recursive)?;
                Ok(Box::new(debouncer))
            }
            Self::Pickup { is_eager } => start_pickup(is_eager, directory, state, report),
        }
    }
}

fn is_done(kind: EventKind) -> bool {
    let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
    kind == closed || kind == EventKind::Modify(ModifyKind::Name(RenameMode::To))
}

fn is_change(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Metadata(_)))
}

fn start_pickup(is_eager: bool, directory: &Path, state: &Path, report: Report) -> Result<Box<dyn Any>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let mut pickup = PickupConfig::new("bench", directory);
    if is_eager {
        pickup.quiet = Duration::ZERO;
    }
    let config = Config::default().state_dir(state).pickup(pickup);
    let root = directory.to_path_buf();
    let deployer = from_fn(move |unit: Unit| {
        report(&root.join(unit.path.as_path()));
        async { Ok::<(), pickup::Error>(()) }
    });
    let builder = Engine::builder(config).deployer("default", deployer);
    let mut events = builder.subscribe();
    let engine = runtime.block_on(async {
        let engine = builder.start().await?;
        while let Some(delivery) = events.next().await {
            if matches!(delivery, Delivery::Event(pickup::Event { kind: pickup::EventKind::Watching { .. }, .. })) {
                return Ok(engine);
            }
        }
        bail!("the engine has stopped")
    })?;
    Ok(Box::new(Embedded { runtime, engine }))
}

struct Embedded {
    runtime: tokio::runtime::Runtime,
    engine: Engine,
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.runtime.block_on(self.engine.shutdown());
    }
}

/// The thread of the inotify loop.
struct RawLoop {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl RawLoop {
    fn start(directory: &Path, report: Report) -> Result<Self> {
        let mut raw = Raw {
            inotify: inotify::init(CreateFlags::CLOEXEC)?,
            directories: HashMap::new(),
            reported: HashSet::new(),
            root: directory.to_path_buf(),
            report,
        };
        // What is there already is known, and nothing to report.
        raw.take_in(directory.to_path_buf(), false).context("watch")?;
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let is_over = is_over.clone();
            move || raw.run(&is_over)
        });
        Ok(Self { is_over, thread: Some(thread) })
    }
}

impl Drop for RawLoop {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Raw {
    inotify: OwnedFd,
    directories: HashMap<i32, PathBuf>,
    reported: HashSet<PathBuf>,
    root: PathBuf,
    report: Report,
}

impl Raw {
    fn run(mut self, is_over: &AtomicBool) {
        let mut buffer = [MaybeUninit::uninit(); 1 << 16];
        let Ok(inotify) = self.inotify.try_clone() else { return };
        let mut reader = Reader::new(&inotify, &mut buffer);
        // So that the end is noticed; it wakes three times a second.
        let pause = Timespec { tv_sec: 0, tv_nsec: 300_000_000 };
        while !is_over.load(Ordering::Relaxed) {
            if reader.is_buffer_empty() {
                let mut readable = [PollFd::new(&inotify, PollFlags::IN)];
                if !matches!(poll(&mut readable, Some(&pause)), Ok(1..)) {
                    continue;
                }
            }
            let Ok(event) = reader.next() else { return };
            let flags = event.events();
            if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
                let _ = self.take_in(self.root.clone(), true);
                continue;
            }
            let (Some(directory), Some(name)) = (self.directories.get(&event.wd()), event.file_name()) else {
                continue;
            };
            let path = directory.join(OsStr::from_bytes(name.to_bytes()));
            if !flags.contains(ReadFlags::ISDIR) {
                if flags.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO) {
                    (self.report)(&path);
                    self.reported.insert(path);
                }
            } else if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                // It may be gone already.
                let _ = self.take_in(path, true);
            }
        }
    }

    /// Watches a directory and all below, and reports the files in them that were not reported yet.
    fn take_in(&mut self, top: PathBuf, reports: bool) -> Result<()> {
        let mask = WatchFlags::CLOSE_WRITE | WatchFlags::MOVED_TO | WatchFlags::CREATE | WatchFlags::ONLYDIR;
        let mut open = vec![top];
        while let Some(directory) = open.pop() {
            let watch = inotify::add_watch(&self.inotify, &directory, mask)?;
            for entry in std::fs::read_dir(&directory)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    open.push(entry.path());
                } else if self.reported.insert(entry.path()) && reports {
                    (self.report)(&entry.path());
                }
            }
            self.directories.insert(watch, directory);
        }
        Ok(())
    }
}
