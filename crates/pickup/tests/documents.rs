//! Documents that would otherwise fall behind the code: the reference of keys, the list of dependencies.
#![expect(clippy::disallowed_methods, reason = "the test reads the documents")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use pickup::config::{KEYS, Key, KeySection};

const START: &str = "<!-- Made from `config::KEYS`: UPDATE_DOCS=1 cargo test -p pickup --test documents -->\n";
const END: &str = "<!-- End of what is made from `config::KEYS` -->\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn the_reference_of_keys_is_current() {
    let path = root().join("docs/configuration.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(START).expect("the start of the reference");
    let (_, after) = rest.split_once(END).expect("the end of the reference");
    let current = format!("{before}{START}{}{END}{after}", reference());
    if text != current && std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &current).unwrap();
    } else {
        assert!(
            text == current,
            "docs/configuration.md is not current: UPDATE_DOCS=1 cargo test -p pickup --test documents"
        );
    }
}

fn reference() -> String {
    let mut text = String::new();
    for (section, keys) in KEYS {
        let _ = write!(text, "\n### {}\n\n| key | default | meaning |\n|---|---|---|\n", heading(*section));
        for Key { name, default, doc } in *keys {
            let default = if default.is_empty() { "–".to_owned() } else { format!("`{default}`") };
            let _ = writeln!(text, "| `{name}` | {default} | {} |", doc.replace('|', "\\|"));
        }
    }
    text.push('\n');
    text
}

fn heading(section: KeySection) -> &'static str {
    match section {
        KeySection::Settings => "`[pickup]`",
        KeySection::Entry => "`[hot-deploy.user.<name>]`",
        KeySection::Git => "git keys of `[hot-deploy.user.<name>]`",
        KeySection::Deployer => "`[deployer.<name>]`, every kind",
        KeySection::Copy => "`kind = \"copy\"`",
        KeySection::Release => "`kind = \"release\"`",
        KeySection::Exec => "`kind = \"exec\"`",
        KeySection::Process => "`kind = \"process\"`",
        KeySection::Module => "`kind = \"module\"`",
        KeySection::Http => "`kind = \"http\"`",
    }
}

#[test]
fn every_direct_dependency_has_its_reason() {
    let text = std::fs::read_to_string(root().join("docs/dependencies.md")).unwrap();
    let mut reasons = BTreeMap::new();
    for row in text.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (name, reason) = row.split_once("` | ").unwrap_or_else(|| panic!("a reason for {row}"));
        assert!(reasons.insert(name, reason).is_none(), "{name} stands twice");
        assert!(reason.len() > 15, "{name}: {reason}");
    }
    let listed: BTreeSet<String> = reasons.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(listed, direct_dependencies());
}

/// The names of all dependencies in the workspace's manifests, our own crates left out.
fn direct_dependencies() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut manifests = 0;
    for directory in ["bench", "crates/pickup", "crates/pickupd", "crates/pickup-module", "examples", "tests/it"] {
        let Ok(text) = std::fs::read_to_string(root().join(directory).join("Cargo.toml")) else { continue };
        manifests += 1;
        let manifest: toml::Table = text.parse().unwrap();
        let targets = manifest.get("target").and_then(toml::Value::as_table).into_iter().flatten();
        let tables = std::iter::once(&manifest).chain(targets.filter_map(|(_, target)| target.as_table()));
        for table in tables {
            for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
                let found = table.get(kind).and_then(toml::Value::as_table).into_iter().flatten();
                names.extend(found.map(|(name, _)| name.clone()));
            }
        }
    }
    assert!(manifests >= 4, "{manifests}");
    names.retain(|name| !name.starts_with("pickup"));
    names
}

#[test]
fn every_test_that_the_architecture_names_exists() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let promises = text.split("\n## ").find(|part| part.starts_with("Promises")).expect("the promises");
    let is_test = |word: &&str| {
        word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    };
    let named: BTreeSet<&str> = promises.split('`').skip(1).step_by(2).filter(is_test).collect();
    assert!(named.len() > 30, "{named:?}");
    let mut code = String::new();
    for directory in ["crates", "tests"] {
        read_all(&root().join(directory), &mut code);
    }
    let missing: Vec<_> = named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn read_all(directory: &Path, code: &mut String) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, code);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            code.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}
