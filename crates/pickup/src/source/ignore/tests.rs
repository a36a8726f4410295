use std::fs;

use super::*;

fn rules(change: impl FnOnce(&mut PickupConfig)) -> Rules {
    let mut config = PickupConfig::new("test", "/nowhere");
    change(&mut config);
    Rules::new(&config).unwrap()
}

fn path(text: &str) -> UnitPath {
    UnitPath::new(text).unwrap()
}

fn ignored(rule: &str, from: &str) -> Judged {
    Judged::Ignored { rule: rule.into(), from: from.into() }
}

#[test]
fn temporaries_of_editors_and_transfers_are_ignored() {
    let rules = rules(|_| {});
    for name in [
        ".app.jar.Xy12ab",
        ".app.jar.abcdef",
        ".bashrc.Q8cD1z",
        "sedA1b2C3",
        "a.filepart",
        "a.part",
        "a.crdownload",
        ".a.py.swp",
        "4913",
        "a.py~",
        "#a.py#",
        ".#a.py",
        "a.py___jb_tmp___",
        ".goutputstream-ABCDEF",
        ".~lock.report.odt#",
        "~$report.docx",
        ".nfs000000000123456700000001",
        ".DS_Store",
        "..data",
        "..data_tmp",
        "..2026_01_02_03_04_05.678",
        ".git",
        "a.pyc",
        ".pickupignore",
        ".pickup-sync-1",
        ".app.jar.pickup-7",
    ] {
        for place in [name.to_owned(), format!("sub/dir/{name}")] {
            let judged = rules.judge(0, &path(&place), false);
            assert!(matches!(judged, Judged::Ignored { .. }), "{place}: {judged:?}");
            assert!(!rules.takes(0, path(&place), false), "{place}");
        }
    }
}

#[test]
fn ordinary_files_are_taken() {
    let rules = rules(|_| {});
    for name in [
        "app.jar",
        "Cargo.lock",
        "yarn.lock",
        ".bashrc",
        ".config",
        ".eslintrc.config",
        ".env",
        ".htaccess",
        ".gitignore",
        ".gitattributes",
        "sedentary",
        "sed.conf",
        "partial",
        "a.download.zip",
        "4913.txt",
        ".nfsmount.conf",
        "git",
        "x.tmpl",
        "template",
    ] {
        assert_eq!(rules.judge(0, &path(name), false), Judged::Taken, "{name}");
        assert!(rules.takes(0, path(name), false), "{name}");
    }
    assert_eq!(rules.judge(0, &path("4913"), true), Judged::Taken);
}

#[test]
fn what_lies_below_an_ignored_directory_is_ignored_by_its_rule() {
    let rules = rules(|config| config.ignore = vec!["!important.txt".into()]);
    assert_eq!(rules.judge(0, &path(".git/important.txt"), false), ignored(".git", "built-in list"));
    assert_eq!(rules.judge(0, &path("a/__pycache__/b/c.txt"), false), ignored("__pycache__/", "built-in list"));
}

#[test]
fn the_ignore_key_overrules_files_and_files_overrule_the_built_in_list() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(PICKUPIGNORE), "# mine\n!*.part\n*.log\n").unwrap();
    let mut rules = rules(|config| config.ignore = vec!["!keep.log".into(), "secret/".into()]);
    assert!(rules.load_pickupignore(0, &UnitPath::root(), directory.path()).changed);
    assert_eq!(rules.judge(0, &path("a.part"), false), Judged::Taken);
    assert_eq!(rules.judge(0, &path("b/a.log"), false), ignored("*.log", ".pickupignore:3"));
    assert_eq!(rules.judge(0, &path("keep.log"), false), Judged::Taken);
    assert_eq!(rules.judge(0, &path("secret/x"), false), ignored("secret/", "`ignore` key"));
    assert_eq!(rules.judge(0, &path("secret"), false), Judged::Taken, "only a directory is meant");
    assert!(matches!(rules.judge(1, &path("a.part"), false), Judged::Ignored { .. }), "another root has its own files");
}

#[test]
fn a_deeper_pickupignore_speaks_for_its_directory_and_wins_there() {
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("sub");
    fs::create_dir(&below).unwrap();
    fs::write(directory.path().join(PICKUPIGNORE), "*.log\n").unwrap();
    fs::write(below.join(PICKUPIGNORE), "!*.log\n/top.txt\n").unwrap();
    let mut rules = rules(|_| {});
    rules.load_pickupignore(0, &UnitPath::root(), directory.path());
    rules.load_pickupignore(0, &path("sub"), &below);
    assert_eq!(rules.judge(0, &path("sub/a.log"), false), Judged::Taken);
    assert_eq!(rules.judge(0, &path("sub/top.txt"), false), ignored("/top.txt", "sub/.pickupignore:2"));
    assert_eq!(rules.judge(0, &path("sub/deep/top.txt"), false), Judged::Taken);
    assert_eq!(rules.judge(0, &path("other/a.log"), false), ignored("*.log", ".pickupignore:1"));
    assert!(rules.forget_pickupignore(0, &path("sub")));
    assert_eq!(rules.judge(0, &path("sub/a.log"), false), ignored("*.log", ".pickupignore:1"));
}

#[test]
fn a_pickupignore_is_read_again_and_forgotten_with_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(PICKUPIGNORE);
    let mut rules = rules(|_| {});
    assert_eq!(rules.load_pickupignore(0, &UnitPath::root(), directory.path()), Loaded::default());
    fs::write(&file, "*.a").unwrap();
    assert!(rules.load_pickupignore(0, &UnitPath::root(), directory.path()).changed);
    assert!(!rules.load_pickupignore(0, &UnitPath::root(), directory.path()).changed);
    assert!(!rules.takes(0, path("d/x.a"), false));
    fs::write(&file, "*.b").unwrap();
    assert!(rules.load_pickupignore(0, &UnitPath::root(), directory.path()).changed);
    assert!(rules.takes(0, path("d/x.a"), false));
    fs::remove_file(&file).unwrap();
    assert!(rules.load_pickupignore(0, &UnitPath::root(), directory.path()).changed);
    assert!(rules.takes(0, path("d/x.b"), false));
}

#[test]
fn a_pickupignore_without_end_leaves_the_former_rules() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(PICKUPIGNORE);
    let mut rules = rules(|_| {});
    fs::write(&file, "*.a").unwrap();
    rules.load_pickupignore(0, &UnitPath::root(), directory.path());
    fs::write(&file, vec![b'x'; PICKUPIGNORE_MAX as usize + 1]).unwrap();
    let loaded = rules.load_pickupignore(0, &UnitPath::root(), directory.path());
    assert!(!loaded.changed && loaded.problems[0].contains("longer than"), "{loaded:?}");
    assert!(!rules.takes(0, path("x.a"), false));
}

#[test]
fn a_bad_line_is_named_and_the_others_count() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(PICKUPIGNORE), b"*.a\r\n{x\n\xff\n*.b\n").unwrap();
    let mut rules = rules(|_| {});
    let loaded = rules.load_pickupignore(0, &UnitPath::root(), directory.path());
    assert!(loaded.problems[0].starts_with(".pickupignore:2: "), "{loaded:?}");
    assert!(loaded.problems[1].starts_with(".pickupignore:3: "), "{loaded:?}");
    assert!(!rules.takes(0, path("x.a"), false) && !rules.takes(0, path("x.b"), false));
}

#[cfg(unix)]
#[test]
fn a_pickupignore_that_is_a_symlink_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join(PICKUPIGNORE)).unwrap();
    let loaded = rules(|_| {}).load_pickupignore(0, &UnitPath::root(), directory.path());
    assert_eq!(loaded.problems.len(), 1);
}

#[test]
fn patterns_match_the_name_or_with_a_slash_the_path() {
    let rules =
        rules(|config| config.patterns = ["*.py", "conf/*.toml", "**/x/*.js", "/top.txt"].map(Into::into).into());
    for taken in ["a.py", "b/c/a.py", "conf/a.toml", "x/a.js", "b/x/a.js", "top.txt"] {
        assert_eq!(rules.judge(0, &path(taken), false), Judged::Taken, "{taken}");
    }
    for left in ["a.txt", "a.toml", "conf/b/a.toml", "b/conf/a.toml", "b/a.js", "b/top.txt"] {
        let Judged::NotMatched { patterns } = rules.judge(0, &path(left), false) else { panic!("{left}") };
        assert_eq!(patterns.len(), 4);
    }
    assert_eq!(rules.judge(0, &path("any"), true), Judged::Taken, "directories are looked into");
}

#[test]
fn a_pattern_that_asks_for_a_directory_unit_takes_all_that_is_in_it() {
    let rules = rules(|config| {
        config.unit = UnitKind::Directory;
        config.patterns = vec!["*.war".into()];
    });
    assert!(rules.takes(0, path("app.war/WEB-INF/web.xml"), false));
    assert!(!rules.takes(0, path("other/WEB-INF/web.xml"), false));
}

#[test]
fn without_recursion_directories_are_too_deep() {
    let rules = rules(|config| config.recursive = false);
    assert_eq!(rules.judge(0, &path("a.py"), false), Judged::Taken);
    assert_eq!(rules.judge(0, &path("d/a.py"), false), Judged::TooDeep);
    assert_eq!(rules.judge(0, &path("d"), true), Judged::TooDeep);
    assert_eq!(rules.judge(0, &UnitPath::root(), true), Judged::Taken);
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf_8_are_judged_too() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let rules = rules(|config| config.patterns = vec!["*.py".into()]);
    let name = |bytes| UnitPath::root().join(OsStr::from_bytes(bytes));
    assert_eq!(rules.judge(0, &name(b"\xff\xfe.py"), false), Judged::Taken);
    assert!(matches!(rules.judge(0, &name(b"\xff.part"), false), Judged::Ignored { .. }));
    assert!(matches!(rules.judge(0, &name(b"\xff.js"), false), Judged::NotMatched { .. }));
}

#[test]
fn a_pattern_that_cannot_be_compiled_is_named() {
    let mut config = PickupConfig::new("test", "/nowhere");
    config.patterns = vec!["{a".into()];
    let error = Rules::new(&config).unwrap_err().to_string();
    assert!(error.starts_with("use `{a` in `patterns` of test: "), "{error}");
}
