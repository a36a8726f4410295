//! What every bench gets: the daemon to run, a place to work in, how often, and how much.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::peers::Peers;

/// What every bench gets.
pub struct Setting {
    /// The daemon's program.
    pub pickupd: PathBuf,
    /// Where benches make their directories. All that is compared lies here, on one file system.
    pub scratch: PathBuf,
    /// How often everything is repeated, peers in turn.
    pub rounds: usize,
    /// Small sizes: a smoke test, no measurement.
    pub is_quick: bool,
    /// How long a soak takes, if it was said.
    pub minutes: Option<u64>,
    /// The programs we are compared with.
    pub peers: Peers,
    /// Parts of the names of the only subjects that are wanted; empty: all.
    pub only: Vec<String>,
}

impl Setting {
    /// A new directory below the scratch directory. It is removed when the value is dropped.
    pub fn directory(&self, name: &str) -> Result<TempDir> {
        let made = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(&self.scratch);
        made.with_context(|| format!("make a directory in {}", self.scratch.display()))
    }

    /// Whether the subject `name` is to be measured.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }

    /// `full`, or `quick` in a smoke test.
    pub fn size(&self, full: usize, quick: usize) -> usize {
        if self.is_quick { quick } else { full }
    }
}

/// The daemon's program: `given`, or the one beside this program, which is built first if this runs from a cargo target
/// directory, so that it is never older than the library that this program measures.
pub fn find_pickupd(given: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(path) = given {
        ensure!(path.is_file(), "there is no daemon at {}", path.display());
        return Ok(std::path::absolute(path)?);
    }
    let own = std::env::current_exe().context("find this program")?;
    let beside = own.parent().context("find the directory of this program")?;
    let beside = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
    let pickupd = beside.join("pickupd");
    let manifest = workspace().join("Cargo.toml");
    if manifest.is_file() && beside.parent().is_some_and(|target| target.join("CACHEDIR.TAG").exists()) {
        let mut build = Command::new("cargo");
        build.args(["build", "--quiet", "-p", "pickupd", "--manifest-path"]).arg(&manifest);
        build.env("CARGO_TARGET_DIR", beside.parent().unwrap_or(beside));
        if beside.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().context("run cargo")?;
        ensure!(status.success(), "cannot build pickupd: {status}");
    }
    ensure!(pickupd.is_file(), "there is no daemon at {}: name one by --pickupd", pickupd.display());
    Ok(pickupd)
}

/// The workspace this program was built from.
pub fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}
