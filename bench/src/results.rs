//! Results as files: the figures of a bench with where they come from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::figure::Table;
use crate::machine::Machine;
use crate::setting::Setting;

/// The versions that this program was built with.
const LOCK: &str = include_str!("../../Cargo.lock");

/// What a run of a bench leaves.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// The day.
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// Of everything that was measured.
    pub versions: BTreeMap<String, String>,
    /// How often everything was done.
    pub rounds: usize,
    /// What came of it.
    pub table: Table,
}

impl Results {
    /// Of `table`, which was measured just now.
    pub fn new(setting: &Setting, machine: Machine, table: Table) -> Self {
        let mut versions = BTreeMap::from([("pickup".to_owned(), pickup_version(setting))]);
        for library in ["notify", "notify-debouncer-full"] {
            versions.insert(library.into(), locked(library).unwrap_or_default().into());
        }
        for peer in setting.peers.all() {
            versions.insert(peer.name.into(), peer.version.clone());
        }
        // Only what the figures name.
        versions.retain(|name, _| {
            let is_subject = |subject: &str| subject.split([',', ' ']).any(|word| word == name);
            name == "pickup" || table.figures.iter().any(|figure| is_subject(&figure.subject))
        });
        let date = jiff::Zoned::now().date().to_string();
        Self { date, machine, versions, rounds: setting.rounds, table }
    }

    /// Writes `bench/results/<bench>.json`.
    pub fn save(&self, workspace: &Path) -> Result<()> {
        let path = directory(workspace).join(format!("{}.json", self.table.bench));
        std::fs::create_dir_all(directory(workspace))?;
        std::fs::write(&path, pretty(self)?).with_context(|| format!("write {}", path.display()))?;
        println!("written: {}", path.display());
        Ok(())
    }

    /// The results of `bench`, if there are any.
    pub fn load(workspace: &Path, bench: &str) -> Result<Option<Self>> {
        let path = directory(workspace).join(format!("{bench}.json"));
        if !path.exists() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path)?;
        serde_json::from_str(&text).map(Some).with_context(|| format!("read {}", path.display()))
    }
}

fn directory(workspace: &Path) -> PathBuf {
    workspace.join("bench/results")
}

/// JSON in which samples stand side by side: thousands of lines with a number each are nothing to look at.
fn pretty(results: &Results) -> Result<String> {
    let text = serde_json::to_string_pretty(results)?;
    let mut short = String::with_capacity(text.len());
    let is_number = |line: &str| line.trim().trim_end_matches(',').parse::<f64>().is_ok();
    let mut is_after_number = false;
    for line in text.lines() {
        let joins = is_number(line) || (is_after_number && line.trim_start().starts_with(']'));
        short.push_str(match (joins, is_after_number && is_number(line)) {
            (true, true) => " ",
            (true, false) => "",
            (false, _) => "\n",
        });
        short.push_str(if joins { line.trim_start() } else { line });
        is_after_number = is_number(line);
    }
    Ok(short.trim_start().to_owned() + "\n")
}

fn pickup_version(setting: &Setting) -> String {
    let said = Command::new(&setting.pickupd).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).trim().trim_start_matches("pickupd ").to_owned()
}

fn locked(name: &str) -> Option<&'static str> {
    let (_, rest) = LOCK.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    rest.split('"').next()
}
