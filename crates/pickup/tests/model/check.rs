//! The model: what must be live is what lies in the pickup directory, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pickup::config::UnitKind;
use pickup::{Outcome, Records};

use crate::case::Case;
use crate::payload::{Completed, versions};
use crate::world::{GROUPS, files, is_ignored};

type Tree = BTreeMap<PathBuf, (Vec<u8>, u32)>;

/// What lies below `directory`, links followed, by path.
fn tree(directory: &Path, take: impl Fn(&str) -> bool) -> Tree {
    let mut tree = Tree::new();
    for path in files(directory) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if take(&name) && metadata.is_file() {
            let below = path.strip_prefix(directory).expect("below").to_path_buf();
            tree.insert(below, (fs::read(&path).unwrap_or_default(), metadata.mode() & 0o777));
        }
    }
    tree
}

/// Whether the name is one that somebody asked for: what waits beside it is not live yet.
fn is_live(name: &str) -> bool {
    !name.contains(".pickup-")
}

/// At any time, and when all `is_over`: what can be seen of a target is whole.
pub(crate) fn observe(case: &Case, completed: &Completed, is_over: bool) {
    for deployer in ["one", "two", "release"] {
        let mut target = case.target(deployer);
        if deployer == "release" {
            let Ok(current) = fs::read_link(target.join("current")) else { continue };
            target = target.join(current);
        }
        // What cannot be taken back yet is mixed with what was there before, until either is live as a whole.
        let may_be_mixed = deployer != "release" && case.shape.may_stick() && !is_over;
        if case.shape.unit != UnitKind::File && !may_be_mixed {
            one_version(case, deployer, &target);
        }
        for (path, (content, _)) in tree(&target, is_live) {
            // A release that was left may be removed while it is read.
            if !content.is_empty() && !completed.has(&content) {
                case.violations.add(format!("{deployer}: {} is live, and nobody wrote that", path.display()));
            }
        }
    }
}

/// A directory that is only ever exchanged as a whole never has files of two versions in it; but for the moment in which
/// `copy` exchanges them one by one, and the other version of each waits beside it.
fn one_version(case: &Case, deployer: &str, target: &Path) {
    for group in GROUPS {
        // Held open: another version may take its name while it is read.
        let Ok(held) = fs::File::open(target.join(group)) else { continue };
        let same = PathBuf::from(format!("/proc/self/fd/{}/.", held.as_raw_fd()));
        // A version that was left may be removed while it is read, and what is half removed is of one version, too.
        let found = tree(&same, is_live);
        let is_exchanging = deployer != "release" && files(&same).iter().any(|path| !is_live(&path.to_string_lossy()));
        let versions = versions(found.values().map(|(content, _)| content.as_slice()));
        // What is the same before and after the listing was so while it was listed.
        if versions.len() > 1 && !is_exchanging && tree(&same, is_live) == found {
            case.violations.add(format!("{deployer}: {group} is live mixed of the versions {versions:?}"));
        }
    }
}

/// At the end: exactly what was written last.
pub(crate) fn live(case: &Case) {
    let wanted = tree(&case.base.join("in"), |name| !is_ignored(name));
    for deployer in &case.shape.deployers {
        let target = case.target(deployer);
        let found =
            if *deployer == "release" { tree(&target.join("current"), |_| true) } else { tree(&target, |_| true) };
        for (path, (content, mode)) in &wanted {
            match found.get(path) {
                None => case.violations.add(format!("{deployer}: {} is not live", path.display())),
                Some((other, _)) if other != content => {
                    case.violations.add(format!("{deployer}: {} is live in another version", path.display()));
                }
                Some((_, other)) if other != mode => {
                    case.violations.add(format!("{deployer}: {} has the mode {other:o}, not {mode:o}", path.display()));
                }
                Some(_) => {}
            }
        }
        for path in found.keys().filter(|path| !wanted.contains_key(*path)) {
            case.violations.add(format!("{deployer}: {} is live, and should not be there", path.display()));
        }
        // A crash between making a directory and saying so leaves it, empty; so does a stop where it could not be swept.
        let is_forgotten = case.shape.crashes || case.violations.failed_to_sweep();
        if *deployer != "release" && !is_forgotten && !case.shape.may_stick() {
            for directory in empty_directories(&target) {
                case.violations.add(format!("{deployer}: the empty directory {} stays", directory.display()));
            }
        }
    }
}

/// Directories below `directory` that hold nothing.
fn empty_directories(directory: &Path) -> Vec<PathBuf> {
    let mut empty = Vec::new();
    let entries: Vec<PathBuf> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    for path in entries.iter().filter(|path| path.is_dir() && !path.is_symlink()) {
        if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none()) {
            empty.push(path.clone());
        }
        empty.extend(empty_directories(path));
    }
    empty
}

/// Once the engine has stopped: the journal says the same as the disk, and nothing is left half done.
pub(crate) fn records(case: &Case) {
    let state = case.state_dir();
    for leftover in ["work", "store/tmp"] {
        for path in files(&state.join(leftover)) {
            case.violations.add(format!("left over: {}", path.display()));
        }
    }
    let open = |deployment: &&pickup::Deployment| deployment.outcome == Outcome::Open;
    match Records::open(&state).and_then(|records| records.history(None, 10_000)) {
        Err(error) => case.violations.add(format!("read the records: {error}")),
        Ok(history) => {
            if let Some(open) = history.iter().find(open) {
                case.violations.add(format!("still open: {open:?}"));
            }
        }
    }
    if let Err(error) = journal(case) {
        case.violations.add(format!("read the journal: {error}"));
    }
}

fn journal(case: &Case) -> rusqlite::Result<()> {
    let journal = rusqlite::Connection::open(case.state_dir().join("journal.db"))?;
    let steps: i64 = journal.query_row("SELECT count(*) FROM step", [], |row| row.get(0))?;
    if steps > 0 {
        case.violations.add(format!("{steps} steps of transactions that never ended"));
    }
    let failures: i64 = journal.query_row("SELECT count(*) FROM quarantine", [], |row| row.get(0))?;
    if failures > 0 {
        case.violations.add(format!("{failures} units are in quarantine"));
    }
    let wanted = tree(&case.base.join("in"), |name| !is_ignored(name));
    let units: usize = match case.shape.unit {
        UnitKind::File => wanted.len(),
        UnitKind::Directory => {
            let first = wanted.keys().filter_map(|path| path.iter().next());
            first.collect::<BTreeSet<_>>().len()
        }
        UnitKind::Tree => usize::from(!wanted.is_empty()),
    };
    for deployer in &case.shape.deployers {
        let count = "SELECT count(*) FROM live WHERE deployer = ?1";
        let live: u32 = journal.query_row(count, [deployer], |row| row.get(0))?;
        let live = live as usize;
        // One receipt for all of it.
        let expected = if *deployer == "release" { live.min(1) } else { units };
        if live != expected {
            case.violations.add(format!("the journal knows {live} live units of {deployer}, and there are {expected}"));
        }
    }
    Ok(())
}
