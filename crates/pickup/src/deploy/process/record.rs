//! What is known of each instance after a crash of ours: a file, written before the program runs.
#![expect(clippy::disallowed_methods, reason = "this is the door to the records of instances")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::proc;
use crate::capture::Digest;
use crate::config::{DrainSignal, ListenAddress, ProcessConfig};
use crate::error::{Error, IoContext, Result};
use crate::path::{self, UnitPath};

/// What is to run: enough to start it again, whoever asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) pickup: String,
    pub(super) generation: u64,
    pub(super) digest: Digest,
    /// The release it runs in; empty where the pickup is, and nothing runs.
    #[serde(with = "path::exact")]
    pub(super) release: PathBuf,
    /// The units it went live with: those that fail with it.
    pub(super) units: Vec<UnitPath>,
}

impl Spec {
    /// Whether there is nothing to run.
    pub(super) fn is_empty(&self) -> bool {
        self.release.as_os_str().is_empty()
    }
}

/// One instance. Not made durable: what it tells of does not outlive a crash of the machine either.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) spec: Spec,
    /// In the program's environment, so that it and its children are known wherever they go.
    pub(super) token: String,
    pub(super) boot: String,
    /// The process, once it is there.
    pub(super) pid: Option<i32>,
    /// When that one started: its number may be given out again.
    pub(super) started: Option<u64>,
    /// The ports it was told to bind.
    pub(super) ports: BTreeMap<String, u16>,
    /// The inodes of the listeners it was handed: they are taken back from it after a crash.
    pub(super) sockets: BTreeMap<String, u64>,
    /// Where those listen.
    #[serde(default)]
    pub(super) addresses: BTreeMap<String, ListenAddress>,
    /// The deployer, by name: its section may be gone by the time that somebody asks.
    #[serde(default)]
    pub(super) deployer: String,
    /// How it is asked to finish, for the same reason.
    #[serde(default)]
    pub(super) finish: Finish,
}

/// How a program is asked to finish.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Finish {
    pub(super) signal: DrainSignal,
    pub(super) timeout: Duration,
}

impl Finish {
    pub(super) fn of(config: &ProcessConfig) -> Self {
        Self { signal: config.drain_signal, timeout: config.drain_timeout }
    }
}

impl Default for Finish {
    fn default() -> Self {
        Self::of(&ProcessConfig::new(Vec::new()))
    }
}

/// The name that a home directory stands for, as near as it can be told.
pub(super) fn name_of(home: &Path) -> String {
    home.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The records of one deployer and pickup.
#[derive(Clone, Debug)]
pub(super) struct Records {
    directory: PathBuf,
}

impl Records {
    /// The records in `home`, if there are any.
    pub(super) fn existing(home: &Path) -> Option<Self> {
        let directory = home.join("instances");
        directory.is_dir().then_some(Self { directory })
    }

    pub(super) fn open(home: &Path) -> Result<Self> {
        let directory = home.join("instances");
        fs::create_dir_all(&directory).doing("create the directory", &directory)?;
        Ok(Self { directory })
    }

    fn path(&self, token: &str, kind: &str) -> PathBuf {
        self.directory.join(format!("{token}.{kind}"))
    }

    pub(super) fn output(&self, token: &str) -> PathBuf {
        self.path(token, "out")
    }

    pub(super) fn write(&self, record: &Record) -> Result<()> {
        let path = self.path(&record.token, "json");
        let bytes =
            serde_json::to_vec(record).map_err(|error| Error::deploy("write the record").at(&path).caused_by(error))?;
        let temporary = self.path(&record.token, "new");
        fs::write(&temporary, bytes).doing("write", &temporary)?;
        fs::rename(&temporary, &path).doing("move into place", &path)
    }

    /// The file that the new process writes its own number to, before it is anything else.
    pub(super) fn pid_file(&self, token: &str) -> Result<File> {
        let path = self.path(token, "pid");
        File::create(&path).doing("create", path)
    }

    /// How far its output was read.
    pub(super) fn read_to(&self, token: &str) -> u64 {
        fs::read_to_string(self.path(token, "read")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    pub(super) fn set_read_to(&self, token: &str, offset: u64) {
        // Should it fail, lines are repeated after a crash.
        let _ = fs::write(self.path(token, "read"), offset.to_string());
    }

    pub(super) fn remove(&self, token: &str) {
        for kind in ["json", "new", "pid", "out", "read"] {
            let _gone = fs::remove_file(self.path(token, kind));
        }
    }

    /// The tokens of all records, and the records that can be read.
    fn all(&self) -> Result<Vec<(String, Option<Record>)>> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory).doing("list", &self.directory)?.flatten() {
            let name = entry.file_name();
            let Some((token, "json")) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
            let record = fs::read(entry.path()).ok().and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok());
            all.push((token.to_owned(), record));
        }
        Ok(all)
    }

    /// Every record, oldest generation first.
    pub(super) fn written(&self) -> Result<Vec<Record>> {
        let mut written: Vec<Record> = self.all()?.into_iter().filter_map(|(_, record)| record).collect();
        written.sort_by_key(|record| record.spec.generation);
        Ok(written)
    }

    /// The instances that still run; what is left of others is removed.
    pub(super) fn recall(&self) -> Result<Vec<(Record, i32)>> {
        let boot = proc::boot();
        let mut alive = Vec::new();
        for (token, record) in self.all()? {
            match record.and_then(|record| self.living(record, &boot)) {
                Some(found) => alive.push(found),
                None => self.remove(&token),
            }
        }
        Ok(alive)
    }

    fn living(&self, record: Record, boot: &str) -> Option<(Record, i32)> {
        let written = || fs::read_to_string(self.path(&record.token, "pid")).ok()?.parse().ok();
        let pid = record.pid.or_else(written)?;
        let stat = proc::stat(pid).filter(|stat| record.boot == boot && !stat.is_zombie);
        let is_it = match (stat, record.started) {
            (Some(stat), Some(started)) => stat.started == started,
            // We ended before we could look: then its environment says who it is, or it has not come so far yet.
            (Some(_), None) => proc::has_token(pid, &record.token),
            (None, _) => false,
        };
        // Where the first process is gone, others of the instance may be left.
        let left = || proc::members(pid, &record.token).into_iter().map(|(pid, _)| pid);
        let heir = || left().find(|pid| proc::has_token(*pid, &record.token));
        let pid = if is_it {
            Some(pid)
        } else if record.boot == boot {
            heir()
        } else {
            None
        }?;
        Some((record, pid))
    }

    fn quarantine(&self) -> PathBuf {
        self.directory.join("quarantined")
    }

    /// The generation that is not started any more.
    pub(super) fn quarantined(&self) -> Option<u64> {
        fs::read_to_string(self.quarantine()).ok()?.trim().parse().ok()
    }

    pub(super) fn set_quarantined(&self, generation: Option<u64>) {
        let _best_effort = match generation {
            Some(generation) => fs::write(self.quarantine(), generation.to_string()),
            None => fs::remove_file(self.quarantine()),
        };
    }
}
