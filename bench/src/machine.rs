//! The machine that figures come from.

use std::path::Path;

use serde::{Deserialize, Serialize};

/// The machine that figures come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The model of the processor.
    pub processor: String,
    /// How many of them.
    pub cores: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// The kernel's release.
    pub kernel: String,
    /// The type of the file system on which all was done.
    pub file_system: String,
    /// How many processes wanted to run in the minute before: more than a few tenths, and others were at work.
    pub load: f64,
}

impl Machine {
    /// This one, working in `scratch`.
    pub fn look(scratch: &Path) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let meminfo = read("/proc/meminfo");
        let total = meminfo.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
        let load = read("/proc/loadavg").split_whitespace().next().and_then(|word| word.parse().ok());
        Self {
            processor: model.map_or("unknown", |(_, model)| model).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            memory: total.unwrap_or(0) * 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(&read("/proc/self/mountinfo"), scratch),
            load: load.unwrap_or(0.0),
        }
    }
}

/// The type of the file system whose mount point is the longest beginning of `path`.
fn file_system(mounts: &str, path: &Path) -> String {
    let mount = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?.to_owned();
        Some((point, after.split(' ').next()?.to_owned()))
    };
    let above = mounts.lines().filter_map(mount).filter(|(point, _)| path.starts_with(point));
    above.max_by_key(|(point, _)| point.len()).map_or("unknown".into(), |(_, kind)| kind)
}
