//! The module direction: one way from the disk to the app, and no foreign types on the way out.
#![expect(clippy::disallowed_methods, reason = "the test reads the source")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Every top-level module, lowest first: each may name those above it in this list, and itself.
const ORDER: &[&str] = &[
    "path", "error", "tls", "lease", "config", // What every stage stands on.
    "source", "settle", "capture", "change", "plan", "deploy", "journal", "event", // The stages.
    "control", "engine", // The door to the engine, which knows all of them.
    "fuzzing", "lib", // What fuzzers reach, and the list of names.
];

/// Libraries whose types stay behind a door, and the door.
const DOORS: &[(&str, &[&str])] = &[
    ("notify", &["source/watch"]),
    ("rusqlite", &["journal"]),
    ("reqwest", &["deploy/http", "deploy/verify", "source/git/transport"]),
    ("rustls", &["tls", "deploy/http/client", "deploy/verify", "source/git/transport"]),
    ("http_body", &["deploy/http/body"]),
    ("walkdir", &["source"]),
    ("git2", &["source/git"]),
    ("libloading", &["deploy/module/load"]),
    ("object", &["deploy/module/judge", "deploy/module/libraries"]),
    ("arc_swap", &["deploy/module/generations"]),
];

#[test]
fn each_stage_names_earlier_stages_only() {
    let rank = |module: &str| ORDER.iter().position(|known| *known == module);
    let mut wrong = Vec::new();
    for file in sources() {
        let own = rank(&file.module).unwrap_or_else(|| panic!("{} is in no place of ORDER", file.module));
        for (number, line) in file.code() {
            for named in modules_named(line) {
                let is_allowed = match (file.module.as_str(), named.as_str()) {
                    ("lib", _) | ("control", "engine") => true,
                    (_, named) => rank(named).is_some_and(|named| named <= own),
                };
                if !is_allowed {
                    wrong.push(format!("{}:{number}: {} names {named}", file.name, file.module));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nobody_but_the_doors_above_names_the_engine() {
    for file in sources().into_iter().filter(|file| !["engine", "control", "lib"].contains(&file.module.as_str())) {
        let names_it = |(_, line): &(usize, &str)| modules_named(line).iter().any(|named| named == "engine");
        assert_eq!(file.code().find(names_it), None, "{}", file.name);
    }
}

#[test]
fn foreign_libraries_stay_behind_their_doors() {
    let mut wrong = Vec::new();
    for file in sources() {
        for (library, doors) in DOORS {
            let is_door = doors.iter().any(|door| file.name.starts_with(door));
            for (number, line) in file.code().filter(|(_, line)| names_library(line, library)) {
                let is_public = line.trim_start().starts_with("pub ");
                if !is_door || is_public {
                    wrong.push(format!("{}:{number}: {}", file.name, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn foreign_types_are_in_no_public_signature() {
    let mut wrong = Vec::new();
    for file in sources() {
        let foreign: BTreeSet<&str> = file
            .code()
            .filter(|(_, line)| DOORS.iter().any(|(library, _)| line.starts_with(&format!("use {library}::"))))
            .flat_map(|(_, line)| words(line).skip(2))
            .filter(|word| word.starts_with(char::is_uppercase))
            .collect();
        for (number, line) in file.code().filter(|(_, line)| line.trim_start().starts_with("pub ")) {
            if words(line).any(|word| foreign.contains(word) && word != "EventKind") {
                wrong.push(format!("{}:{number}: {}", file.name, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_source_file_opens_with_its_job() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let directories = ["crates", "examples", "tests", "fuzz/fuzz_targets"].map(|directory| root.join(directory));
    let files: Vec<PathBuf> = directories.iter().flat_map(|directory| rust_files(directory)).collect();
    assert!(files.len() > 100, "{}", files.len());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // A test module says what it claims in the names of its tests; its parent has said its job.
        let is_tests_module = file.file_name().is_some_and(|name| name == "tests.rs");
        assert!(is_tests_module || text.starts_with("//! "), "{}", file.display());
    }
}

#[test]
fn the_eight_stages_are_told_by_one_grep() {
    let stages = sources().into_iter().filter_map(|file| {
        let (number, job) = file.text.lines().next()?.strip_prefix("//! Stage ")?.split_once(" of 8: ")?;
        let number: usize = number.parse().ok()?;
        assert!(job.ends_with("out."), "{}: {job}", file.name);
        Some((number, file.name))
    });
    let stages: std::collections::BTreeMap<usize, String> = stages.collect();
    let expected = ORDER
        .iter()
        .skip_while(|stage| **stage != "source")
        .take(8)
        .enumerate()
        .map(|(at, stage)| (at + 1, format!("{stage}.rs")));
    assert_eq!(stages, expected.collect());
}

/// One file of the library.
struct Source {
    /// Below `src/`.
    name: String,
    /// The top-level module it belongs to.
    module: String,
    text: String,
}

impl Source {
    /// Its numbered lines without comments, up to its inline tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines = self.text.lines().enumerate().map(|(at, line)| (at + 1, line));
        lines.take_while(|(_, line)| *line != "mod tests {").filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// The library's files, test modules left out.
fn sources() -> Vec<Source> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Vec::new();
    for path in rust_files(&src) {
        let below = path.strip_prefix(&src).unwrap();
        let is_test = below.iter().any(|part| part == "tests" || part == "tests.rs" || part == "testing.rs");
        if is_test {
            continue;
        }
        let module = below.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        let name = below.to_str().unwrap().replace('\\', "/");
        sources.push(Source { name, module, text: std::fs::read_to_string(&path).unwrap() });
    }
    assert!(sources.len() > 50, "{}", sources.len());
    sources
}

fn rust_files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The top-level modules of this crate in `crate::…` paths of one line.
fn modules_named(line: &str) -> Vec<String> {
    let after = line.split("crate::").skip(1);
    let names = after.flat_map(|rest| match rest.strip_prefix('{') {
        // `use crate::{change::Change, deploy::Unit};`
        Some(group) => group.split(',').map(first_word).collect::<Vec<_>>(),
        None => vec![first_word(rest)],
    });
    names.filter(|name| name.starts_with(char::is_lowercase)).map(str::to_owned).collect()
}

fn first_word(text: &str) -> &str {
    words(text).next().unwrap_or_default()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Whether the line names the library itself, not a module or value of ours of the same name.
fn names_library(line: &str, library: &str) -> bool {
    let path = format!("{library}::");
    line.match_indices(&path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':')
    })
}

/// Promise 9: whoever decides what is deployed, when and how needs one of these, and the daemon has none of them.
#[test]
fn the_daemon_has_nothing_to_decide_with() {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../pickupd/Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    for pipeline in ["notify", "walkdir", "ignore", "globset", "blake3", "rusqlite", "reqwest", "flate2", "toml"] {
        let is_named = manifest.lines().any(|line| line.split(['.', ' ', '=']).next() == Some(pipeline));
        assert!(!is_named, "pickupd depends on {pipeline}");
    }
}
