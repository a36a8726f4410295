//! docs/git-sync-cases.md names tests; each of them exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_test_that_the_list_of_cases_names_exists() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(here.join("../../docs/git-sync-cases.md")).expect("read the list");
    let words = text.split('`').skip(1).step_by(2);
    let named: BTreeSet<&str> = words.filter(|word| word.contains("::")).collect();
    assert!(named.len() > 30, "{named:?}");
    for name in named {
        let (module, function) = name.rsplit_once("::").expect("a path");
        let file = here.join(module.replace("::", "/")).with_extension("rs");
        let source = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {}: {error}", file.display()));
        assert!(source.contains(&format!("#[test]\nfn {function}()")), "{name} does not exist");
    }
}

#[test]
fn every_case_of_the_list_has_a_test_or_a_reason() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(here.join("../../docs/git-sync-cases.md")).expect("read the list");
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    assert!(rows.len() > 50, "{} rows", rows.len());
    for row in rows {
        let ours = row.split('|').nth(2).unwrap_or_default().trim();
        assert!(ours.contains("::") || ours.len() > 20, "{row}");
    }
}
