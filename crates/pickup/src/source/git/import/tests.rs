use std::collections::HashSet;

use super::*;
use crate::capture::store::Store;
use crate::capture::{CapturedFile, Digest};
use crate::config::PickupConfig;
use crate::source::git::listing::testing::{Node, Repo, allowing, terms};
use crate::source::ignore::Judged;
use Node::{File, Link, Program};

/// A repository, a store, and what is known of the commit that was imported last.
struct Case {
    repo: Repo,
    store: Store,
    rules: Rules,
    terms: Terms,
    from: Option<String>,
    known: BTreeMap<UnitPath, Digest>,
    exported: Vec<usize>,
    export: fn(&Repo, &str, &Path) -> Result<()>,
    cancel: CancellationToken,
}

impl Case {
    fn new() -> Self {
        Self::with(&PickupConfig::new("test", "/in"))
    }

    fn with(config: &PickupConfig) -> Self {
        let repo = Repo::new();
        let store = Store::open(&repo.directory.path().join("store"), 1 << 30).unwrap();
        Self {
            repo,
            store,
            rules: Rules::new(config).unwrap(),
            terms: terms(),
            from: None,
            known: BTreeMap::new(),
            exported: Vec::new(),
            export: |repo, oid, path| {
                let oid = Oid::from_str(oid).unwrap();
                fs::write(path, repo.repository.find_blob(oid).unwrap().content()).unwrap();
                Ok(())
            },
            cancel: CancellationToken::new(),
        }
    }

    fn scratch(&self) -> PathBuf {
        self.repo.directory.path().join("scratch")
    }

    fn try_import(&mut self, to: Oid) -> Result<Imported<CapturedFile>> {
        let (repo, write, exported) = (&self.repo, self.export, &mut self.exported);
        let mut export = |blobs: &[(String, PathBuf)]| {
            exported.push(blobs.len());
            blobs.iter().try_for_each(|(oid, path)| write(repo, oid, path))
        };
        let scratch = self.repo.directory.path().join("scratch");
        Import {
            git_dir: self.repo.git_dir(),
            store: &self.store,
            rules: &mut self.rules,
            root: 0,
            terms: &self.terms,
            from: self.from.as_deref(),
            to: &to.to_string(),
            branch: Some("main".into()),
            known: &self.known,
            export: &mut export,
            scratch: &scratch,
            cancel: &self.cancel,
        }
        .run()
    }

    /// Imports, applies, and says what was different.
    fn import_oid(&mut self, to: Oid) -> Vec<String> {
        let imported = self.try_import(to).unwrap();
        let mut said = Vec::new();
        for (path, file) in imported.files {
            let content = file.read().unwrap();
            assert_eq!(*blake3::hash(&content).as_bytes(), file.digest.0);
            let content = String::from_utf8_lossy(&content[..content.len().min(20)]).into_owned();
            said.push(format!("{path}={content}{}", if file.mode == 0o755 { "*" } else { "" }));
            self.known.insert(path, file.digest);
        }
        for path in imported.removed {
            said.push(format!("-{path}"));
            assert!(self.known.remove(&path).is_some());
        }
        self.from = Some(to.to_string());
        said
    }

    fn import(&mut self, entries: &[(&str, Node<'_>)]) -> Vec<String> {
        let to = self.repo.commit(entries);
        self.import_oid(to)
    }

    fn refused(&mut self, entries: &[(&str, Node<'_>)]) -> Error {
        let to = self.repo.commit(entries);
        self.try_import(to).unwrap_err()
    }

    fn known(&self) -> Vec<String> {
        self.known.keys().map(ToString::to_string).collect()
    }

    /// How many bytes nobody has pinned.
    fn loose(&self) -> u64 {
        self.store.collect(|| Ok(HashSet::new())).unwrap()
    }
}

#[test]
fn the_first_import_brings_everything() {
    let mut case = Case::new();
    let said = case.import(&[("a", File("1")), ("d/run", Program("2")), ("l", Link("a"))]);
    assert_eq!(said, ["a=1", "d/run=2*", "l=1"]);
    assert_eq!(case.loose(), 0, "what was imported is pinned");
}

#[test]
fn the_next_import_brings_the_difference_alone() {
    let mut case = Case::new();
    case.import(&[("same", File("1")), ("changed", File("2")), ("gone", File("3")), ("old", File("4"))]);
    let next = [("same", File("1")), ("changed", File("2b")), ("new", File("5")), ("renamed", File("4"))];
    assert_eq!(case.import(&next), ["changed=2b", "new=5", "renamed=4", "-gone", "-old"]);
    assert_eq!(case.import(&next), Vec::<String>::new());
}

#[test]
fn a_changed_mode_is_a_change() {
    let mut case = Case::new();
    case.import(&[("run", File("1"))]);
    assert_eq!(case.import(&[("run", Program("1"))]), ["run=1*"]);
}

#[test]
fn a_link_that_leads_elsewhere_is_a_change_of_its_files() {
    let mut case = Case::new();
    let (one, two) = (("v1/x", File("1")), ("v2/x", File("2")));
    case.import(&[one, two, ("current", Link("v1"))]);
    assert_eq!(case.import(&[one, two, ("current", Link("v2"))]), ["current/x=2"]);
}

#[test]
fn a_file_that_becomes_a_directory_is_removed_and_added() {
    let mut case = Case::new();
    case.import(&[("a", File("1"))]);
    assert_eq!(case.import(&[("a/b", File("1"))]), ["a/b=1", "-a"]);
}

#[test]
fn a_commit_that_is_gone_counts_as_unknown() {
    let mut case = Case::new();
    let entries = [("a", File("1")), ("b", File("2"))];
    case.import(&entries);
    for gone in ["00000000000000000000000000000000000000aa", "no id", ""] {
        case.from = Some(gone.into());
        assert_eq!(case.import(&entries), ["a=1", "b=2"], "{gone}");
    }
    case.from = None;
    assert_eq!(case.import(&[("b", File("2"))]), ["b=2", "-a"]);
}

#[test]
fn a_file_that_is_not_known_is_imported_though_no_commit_changed_it() {
    let mut case = Case::new();
    let entries = [("a", File("1")), ("b", File("2"))];
    case.import(&entries);
    case.known.remove(&UnitPath::new("a").unwrap());
    assert_eq!(case.import(&entries), ["a=1"]);
}

#[test]
fn what_no_rule_takes_is_not_imported_and_was_removed_if_it_was_known() {
    let config = PickupConfig {
        patterns: vec!["*.py".into()],
        ignore: vec!["tests/".into()],
        ..PickupConfig::new("test", "/in")
    };
    let mut case = Case::with(&config);
    case.known.insert(UnitPath::new("tests/b.py").unwrap(), Digest([0; 32]));
    let entries = [("a.py", File("1")), ("tests/b.py", File("2")), ("c.txt", File("3"))];
    assert_eq!(case.import(&entries), ["a.py=1", "-tests/b.py"]);
    let to = case.repo.commit(&entries);
    assert_eq!(case.try_import(to).unwrap().listed, 3);
}

#[test]
fn a_pickupignore_of_the_commit_counts() {
    let mut case = Case::new();
    let files = [("a.log", File("1")), ("d/a.log", File("2")), ("d/x", File("3"))];
    let with = |rules: &[(&'static str, Node<'static>)]| [&files[..], rules].concat();
    case.import(&with(&[(".pickupignore", File("*.log\n"))]));
    assert_eq!(case.known(), ["d/x"]);
    case.import(&with(&[(".pickupignore", File("*.log\n")), ("d/.pickupignore", File("!a.log"))]));
    assert_eq!(case.known(), ["d/a.log", "d/x"]);
    case.import(&with(&[]));
    assert_eq!(case.known(), ["a.log", "d/a.log", "d/x"]);
    // As in a directory, a link brings no rules.
    case.import(&with(&[("rules", File("*")), (".pickupignore", Link("rules"))]));
    assert_eq!(case.known(), ["a.log", "d/a.log", "d/x", "rules"]);
}

#[test]
fn wrong_lines_of_a_pickupignore_are_told() {
    let mut case = Case::new();
    let to = case.repo.commit(&[("d/.pickupignore", File("ok\n[z-a]"))]);
    let problems = case.try_import(to).unwrap().problems;
    assert!(problems[0].starts_with("d/.pickupignore:2: "), "{problems:?}");
}

#[test]
fn a_failed_import_leaves_rules_and_pins_as_they_were() {
    let mut case = Case::new();
    case.import(&[(".pickupignore", File("*.log"))]);
    let judge = |case: &Case, path| case.rules.judge(0, &UnitPath::new(path).unwrap(), false);
    let pointer = format!("{}v1\noid sha256:1\nsize 1\n", String::from_utf8_lossy(LFS_POINTER));
    let entries = [("a", File("some bytes")), ("b", File("more bytes")), ("z", File(pointer.as_str()))];
    let error = case.refused(&entries);
    assert_eq!((error.kind(), error.is_transient()), (ErrorKind::Git, false));
    assert!(matches!(judge(&case, "x.log"), Judged::Ignored { .. }));
    assert_eq!(case.loose(), 20, "what was read before the error is loose");
}

#[test]
fn a_pointer_of_lfs_refuses_the_commit_unless_allowed() {
    let pointer = format!("{}v1\noid sha256:1\nsize 1\n", String::from_utf8_lossy(LFS_POINTER));
    let entries = [("big.bin", File(pointer.as_str())), ("x", File("1"))];
    let mut case = Case::new();
    let said = case.refused(&entries).to_string();
    for part in ["`big.bin` is a pointer of git LFS", "`git_allow = [\"lfs_pointers\"]`"] {
        assert!(said.contains(part), "{said}");
    }
    case.terms = allowing(GitAllow::LfsPointers);
    assert_eq!(case.import(&entries).len(), 2);
    // One that the rules leave alone harms nobody, and text about LFS is no pointer.
    let config = PickupConfig { ignore: vec!["*.bin".into()], ..PickupConfig::new("test", "/in") };
    let long = format!("{pointer}{}", "x".repeat(1024));
    assert_eq!(Case::with(&config).import(&[entries[0], ("long", File(&long))]).len(), 1);
}

#[test]
fn a_large_blob_is_exported_once_and_adopted() {
    let mut case = Case::new();
    let large = "x".repeat(HERE_MAX as usize + 1);
    let oid = case.repo.blob(large.as_bytes());
    fs::create_dir(case.scratch()).unwrap();
    fs::write(case.scratch().join(oid.to_string()), "left by a crash").unwrap();
    let short = "x".repeat(20);
    let said = case.import(&[("a", File(&large)), ("b", File(&large)), ("run", Program(&large)), ("s", File("1"))]);
    assert_eq!(said, [format!("a={short}"), format!("b={short}"), format!("run={short}*"), "s=1".into()]);
    assert_eq!(case.exported, [1]);
    assert_eq!(fs::read_dir(case.scratch()).unwrap().count(), 0);
    assert_eq!(case.loose(), 0);
    // Known content needs no room twice.
    case.from = None;
    case.import(&[("a", File(&large))]);
    assert_eq!(fs::read_dir(case.scratch()).unwrap().count(), 0);
}

#[test]
fn an_export_with_other_content_is_refused_and_leaves_nothing() {
    let large = "x".repeat(HERE_MAX as usize + 1);
    let mut case = Case::new();
    case.export = |_, _, path| {
        fs::write(path, "something else").unwrap();
        Ok(())
    };
    let error = case.refused(&[("a", File(&large)), ("s", File("12345"))]);
    assert!(error.is_transient() && error.to_string().contains("another content"), "{error}");
    assert_eq!(fs::read_dir(case.scratch()).unwrap().count(), 0);
    assert_eq!(case.loose(), 5);
    case.export = |_, _, _| Err(Error::new(ErrorKind::Timeout, "export"));
    assert_eq!(case.refused(&[("a", File(&large)), ("s", File("12345"))]).kind(), ErrorKind::Timeout);
    assert_eq!(case.loose(), 5);
}

#[test]
fn the_bytes_of_a_commit_are_bounded() {
    let config = PickupConfig { ignore: vec!["big".into()], ..PickupConfig::new("test", "/in") };
    let mut case = Case::with(&config);
    case.terms.size_max = 10;
    let same = ("a", File("12345"));
    // What no rule takes does not count.
    case.import(&[same, ("b", File("12345")), ("big", File("123456789"))]);
    for other in ["123456", "1234567890"] {
        // What was there before counts.
        let error = case.refused(&[same, ("b", File(other))]);
        assert!(error.to_string().contains("more than 10 bytes; raise `git_size_max`"), "{error}");
    }
}

#[test]
fn a_full_store_ends_the_import() {
    let mut case = Case::new();
    case.store = Store::open(&case.repo.directory.path().join("small"), 8).unwrap();
    let error = case.refused(&[("a", File("12345")), ("b", File("67890"))]);
    assert!(error.is_transient() && error.path() == Some(Path::new("b")), "{error}");
    let error = case.refused(&[("a", File("1234567890"))]);
    assert!(!error.is_transient(), "{error}");
    assert_eq!(case.loose(), 5);
}

#[test]
fn a_cancelled_import_ends() {
    let mut case = Case::new();
    case.cancel.cancel();
    assert_eq!(case.refused(&[("a", File("1"))]).kind(), ErrorKind::Cancelled);
}

#[test]
fn what_is_no_full_id_is_no_commit() {
    for text in ["", "abc", "main", "--upload-pack=x", "00000000000000000000000000000000000000zz"] {
        assert_eq!(id_of(text).unwrap_err().kind(), ErrorKind::Git, "{text}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
    /// Whatever the commits are and wherever it starts, what is known ends as what the commit holds.
    #[test]
    fn applied_imports_are_the_listing(
        commits in proptest::collection::vec(
            proptest::collection::btree_map("[ab](/[cd]){0,2}", ("[xyz]", proptest::bool::ANY), 0..6),
            1..5,
        ),
        forget in proptest::collection::vec(proptest::bool::ANY, 5),
    ) {
        let mut case = Case::new();
        for (commit, forget) in commits.iter().zip(forget) {
            // A path cannot be a file and a directory.
            let is_above = |path: &str| commit.keys().any(|other| other.starts_with(&format!("{path}/")));
            let files: Vec<_> = commit.iter().filter(|(path, _)| !is_above(path)).collect();
            let entries: Vec<(&str, Node<'_>)> = files
                .iter()
                .map(|(path, (text, run))| (path.as_str(), if *run { Program(text) } else { File(text) }))
                .collect();
            if forget {
                case.from = None;
            }
            case.import(&entries);
            let expected: BTreeMap<UnitPath, Digest> = files
                .iter()
                .map(|(path, (text, _))| (UnitPath::new(path).unwrap(), Digest(*blake3::hash(text.as_bytes()).as_bytes())))
                .collect();
            proptest::prop_assert_eq!(&case.known, &expected);
        }
    }
}
