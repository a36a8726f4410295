//! What a deployer says between its phases: what happens to that which is live.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::path::UnitPath;

/// Something that happened to an instance of a running program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "happening", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Happening {
    /// It was found running from an earlier run of ours, and nobody is configured for it any more: it is stopped.
    Unclaimed {
        /// Its process.
        pid: i32,
    },
    /// It was started.
    Started {
        /// Its process.
        pid: i32,
    },
    /// It says that it is ready, and all its ports answer.
    Activated {
        /// Its process.
        pid: i32,
        /// From its start, in milliseconds; zero where it was found running.
        took: u64,
    },
    /// How it is, every 15 seconds unless configured otherwise.
    Health {
        /// Its process.
        pid: i32,
        /// What its processes hold in memory, in bytes.
        memory: u64,
        /// How many processors they kept busy since the last time.
        load: f64,
        /// How many processes there are.
        processes: usize,
    },
    /// It was asked to finish.
    Stopping {
        /// Its process.
        pid: i32,
    },
    /// It ended.
    Stopped {
        /// Its process.
        pid: i32,
        /// How: `exit status 0`, `killed by signal 9`.
        how: String,
        /// Whether it was asked to.
        was_asked: bool,
    },
}

/// What the engine hears.
pub(crate) enum Report {
    /// Something happened to an instance of `generation`.
    Instance { generation: u64, happening: Happening },
    /// What was live is not any more, and its deployer gives up on it.
    Failed { units: Vec<UnitPath>, cause: String },
}

/// Says what happens to something live, for as long as its deployer lives. Cheap to clone.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(Report) + Send + Sync>);

impl Reporter {
    pub(crate) fn new(hear: impl Fn(Report) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    /// Says that something happened to an instance of `generation`.
    pub fn instance(&self, generation: u64, happening: Happening) {
        (self.0)(Report::Instance { generation, happening });
    }

    /// Says that these units are live no more and will not be by themselves: they show as failed, and are deployed again
    /// after a retry, a touch, or a change.
    pub fn failed(&self, units: Vec<UnitPath>, cause: impl Into<String>) {
        (self.0)(Report::Failed { units, cause: cause.into() });
    }
}

impl Default for Reporter {
    /// One that nobody hears.
    fn default() -> Self {
        Self::new(drop)
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}
