//! One who changes files without end, and knows what must be live when it stops.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Done;
use crate::deploying::random::Random;

/// How many names a writer uses.
const NAMES: usize = 100;

/// How long a file is at most.
const LENGTH: usize = 20_000;

/// What is to be live: the path below the pickup, and the content.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A writer, in a directory of its own below the pickup.
pub struct Writer {
    root: PathBuf,
    pickup: &'static str,
    number: usize,
    random: Random,
    files: Files,
    steps: usize,
}

impl Writer {
    /// Writer `number` of a pickup in `root`.
    pub fn new(root: &Path, pickup: &'static str, number: usize) -> Result<Self> {
        fs::create_dir_all(root.join(format!("w{number}"))).context("make a directory")?;
        let random = Random::new(number as u64 + 77);
        Ok(Self { root: root.into(), pickup, number, random, files: Files::new(), steps: 0 })
    }

    /// Changes something, rests, and so on.
    pub fn run(&mut self, rest: Duration, stop: &AtomicBool) -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            self.step().context("change a file")?;
            self.steps += 1;
            std::thread::sleep(rest);
        }
        Ok(())
    }

    /// What came of it.
    pub fn done(&mut self) -> Done {
        Done::new(self.pickup, std::mem::take(&mut self.files), self.steps)
    }

    fn step(&mut self) -> Result<()> {
        let name = self.name();
        let path = self.root.join(&name);
        match self.random.below(10) {
            // Written where it stands, as an editor or `cp` does.
            0..=4 => {
                let bytes = self.content();
                fs::write(&path, &bytes)?;
                self.files.insert(name, bytes);
            }
            // Written beside, then renamed into place.
            5 | 6 => {
                let bytes = self.content();
                let beside = path.with_extension("tmp");
                fs::write(&beside, &bytes)?;
                fs::rename(&beside, &path)?;
                self.files.insert(name, bytes);
            }
            // Renamed, over another file or not.
            7 => {
                let other = self.name();
                if other != name
                    && let Some(bytes) = self.files.remove(&name)
                {
                    fs::rename(&path, self.root.join(&other))?;
                    self.files.insert(other, bytes);
                }
            }
            _ => {
                if self.files.remove(&name).is_some() {
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(())
    }

    fn name(&mut self) -> String {
        format!("w{}/f{}", self.number, self.random.below(NAMES))
    }

    fn content(&mut self) -> Vec<u8> {
        let length = self.random.below(LENGTH);
        self.random.bytes(length)
    }
}

/// Every file below `directory`.
pub fn read(directory: &Path) -> Result<Files> {
    let (mut files, mut left) = (Files::new(), vec![directory.to_path_buf()]);
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("list {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(directory)?.to_string_lossy().into_owned();
                files.insert(name, fs::read(&path)?);
            }
        }
    }
    Ok(files)
}
