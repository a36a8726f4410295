//! What goes wrong while the engine works: deployers, journal and store that fail, and a process that dies.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pickup::capture::CapturedFile;
use pickup::change::{ChangeKind, Content, TreeFile};
use pickup::config::UnitKind;
use pickup::deploy::{Fault, Phase, Unit};
use pickup::{Error, Result};

use crate::payload::{Completed, versions};
use crate::random::Random;
use crate::world::GROUPS;

/// How likely each kind of fault is, in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    pub phase: u64,
    /// Of taking back: what fails here is stuck.
    pub revert: u64,
    /// Of those of a phase, how many hang until the deadline.
    pub hang: u64,
    pub journal: u64,
    pub store: u64,
}

/// What was seen that must never be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Violations {
    seen: Arc<Mutex<Vec<String>>>,
    /// Whether sweeping failed: until it is tried again the engine knows of what was staged and never recorded, and
    /// the next engine does not.
    failed_to_sweep: Arc<AtomicBool>,
}

impl Violations {
    pub(crate) fn add(&self, what: impl Into<String>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(what.into());
    }

    pub(crate) fn failed_to_sweep(&self) -> bool {
        self.failed_to_sweep.load(Ordering::SeqCst)
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One life of the engine, from a start to a stop or a crash.
#[derive(Debug)]
pub(crate) struct Life {
    seed: u64,
    rates: Rates,
    unit: UnitKind,
    /// Set with the crash: from then on nothing is done any more, as far as that is in our hands.
    is_dead: AtomicBool,
    is_calm: AtomicBool,
    /// How many calls of the journal's hook are left until the crash.
    until_crash: AtomicU64,
    calls: AtomicU64,
    completed: Arc<Completed>,
    violations: Violations,
}

impl Life {
    pub(crate) fn new(
        seed: u64,
        (unit, rates): (UnitKind, Rates),
        crash: Option<u64>,
        completed: Arc<Completed>,
        violations: Violations,
    ) -> Self {
        Self {
            seed,
            rates,
            unit,
            is_dead: AtomicBool::new(false),
            is_calm: AtomicBool::new(false),
            until_crash: AtomicU64::new(crash.unwrap_or(u64::MAX)),
            calls: AtomicU64::new(0),
            completed,
            violations,
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::SeqCst)
    }

    pub(crate) fn die(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
    }

    /// No more faults from here on.
    pub(crate) fn calm(&self) {
        self.is_calm.store(true, Ordering::SeqCst);
        self.until_crash.store(u64::MAX, Ordering::SeqCst);
    }

    /// Chance that follows from the seed and from what it is about, whichever thread asks first.
    fn chance(&self, about: &[u8]) -> Random {
        let digest = blake3::hash(&[&self.seed.to_le_bytes(), about].concat());
        Random::new(u64::from_le_bytes(*digest.as_bytes().first_chunk().expect("32 bytes")))
    }

    pub(crate) fn journal(&self, write: &str, is_done: bool) -> Result<()> {
        let broken = || Err(Error::deploy("write to a journal whose disk is gone").transient());
        if self.is_dead() {
            return broken();
        }
        if self.until_crash.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.die();
            return broken();
        }
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let mut chance = self.chance(format!("journal {write} {is_done} {call}").as_bytes());
        let fails = !self.is_calm.load(Ordering::SeqCst) && chance.percent(self.rates.journal);
        if fails { broken() } else { Ok(()) }
    }

    pub(crate) fn store(&self, step: &str) -> io::Result<()> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let mut chance = self.chance(format!("store {step} {call}").as_bytes());
        let fails = !self.is_calm.load(Ordering::SeqCst) && chance.percent(self.rates.store);
        if self.is_dead() || fails {
            // ENOSPC and EIO.
            return Err(io::Error::from_raw_os_error(*chance.of(&[28, 5])));
        }
        Ok(())
    }

    pub(crate) fn deployer(&self, name: &str, phase: Phase, unit: Option<&Unit>) -> Option<Fault> {
        if let Some(unit) = unit {
            self.judge(phase, unit);
        }
        let error = || Error::deploy(format!("{phase:?}: the model wants it to fail"));
        if self.is_dead() {
            return Some(Fault::Fail(error()));
        }
        if self.is_calm.load(Ordering::SeqCst) {
            return None;
        }
        let about = unit.map(|unit| format!("{} {}", unit.path, unit.generation)).unwrap_or_default();
        let mut chance = self.chance(format!("{name} {phase:?} {about}").as_bytes());
        let rate = match phase {
            Phase::Revert => self.rates.revert,
            _ => self.rates.phase,
        };
        if !chance.percent(rate) {
            return None;
        }
        self.violations.failed_to_sweep.fetch_or(phase == Phase::Sweep, Ordering::SeqCst);
        if chance.percent(self.rates.hang) {
            return Some(Fault::Hang);
        }
        Some(match chance.below(8) {
            0..=2 => Fault::Fail(error()),
            3 => Fault::Fail(error().transient()),
            4 | 5 => Fault::FailAfter(error()),
            6 => Fault::Delay(Duration::from_millis(chance.next() % 20)),
            _ => Fault::Panic,
        })
    }

    /// What a deployer is given is whole, and as somebody wrote it.
    fn judge(&self, phase: Phase, unit: &Unit) {
        if !matches!(phase, Phase::Stage | Phase::Activate) || unit.change == ChangeKind::Removed {
            return;
        }
        match &unit.content {
            None => {}
            Some(Content::File(file)) => self.read(&unit.path.to_string(), file),
            Some(Content::Tree(files)) => {
                for entry in files.iter() {
                    self.read(&format!("{}/{}", unit.path, entry.path), &entry.file);
                }
                // A tree that is put together from units of one file each.
                if self.unit == UnitKind::File {
                    return;
                }
                for group in GROUPS {
                    let is_inside =
                        |entry: &&TreeFile| unit.path.join(entry.path.as_path()).as_path().starts_with(group);
                    let contents: Vec<_> =
                        files.iter().filter(is_inside).filter_map(|entry| entry.file.read().ok()).collect();
                    let versions = versions(contents.iter().map(Vec::as_slice));
                    if versions.len() > 1 {
                        self.violations.add(format!("{phase:?} of {group} mixed of the versions {versions:?}"));
                    }
                }
            }
        }
    }

    fn read(&self, named: &str, file: &CapturedFile) {
        let Ok(content) = file.read() else { return };
        if content.len() as u64 != file.size || !self.completed.has(&content) {
            let start = String::from_utf8_lossy(&content[..content.len().min(60)]).into_owned();
            self.violations.add(format!("{named}: nobody wrote these {} bytes: {start:?}", content.len()));
        }
    }
}
