use std::fs;
use std::os::unix::fs::symlink;

use super::entries::list;
use super::*;
use crate::config::PickupConfig;

/// A pickup directory with files, each written with its own name.
struct Case {
    directory: tempfile::TempDir,
    root: PathBuf,
    config: PickupConfig,
}

impl Case {
    fn new(files: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap().join("in");
        fs::create_dir(&root).unwrap();
        let config = PickupConfig::new("test", &root);
        let case = Self { directory, root, config };
        files.iter().for_each(|file| case.file(file, file));
        case
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn link(&self, to: impl AsRef<Path>, path: &str) {
        symlink(to, self.root.join(path)).unwrap();
    }

    /// Whether anything is known makes no difference but for the identities.
    fn walk(&self) -> Walked {
        let [known, new] = [true, false].map(|is_known| self.walk_tree("", is_known, &mut |_| {}));
        let names = |walked: &Walked| {
            let files = walked.files.iter().map(|file| (file.path.clone(), file.is_regular)).collect::<Vec<_>>();
            format!("{files:?} {:?} {:?} {:?}", walked.links, walked.directories, walked.unreadable)
        };
        assert_eq!(names(&known), names(&new));
        assert!(known.files.iter().all(|file| file.fingerprint.is_some() == file.is_regular));
        assert!(new.files.iter().all(|file| file.fingerprint.is_none()));
        known
    }

    fn walk_from(&self, start: &str, on_directories: &mut dyn FnMut(&[UnitPath])) -> Walked {
        self.walk_tree(start, true, on_directories)
    }

    fn walk_tree(&self, start: &str, is_known: bool, on_directories: &mut dyn FnMut(&[UnitPath])) -> Walked {
        let tree = Tree {
            root: &self.root,
            index: 0,
            recursive: self.config.recursive,
            symlinks: self.config.symlinks,
            is_known,
        };
        let mut rules = Rules::new(&self.config).unwrap();
        walk(&tree, &UnitPath::new(start).unwrap(), &mut rules, on_directories, &mut |_, _| {})
    }
}

fn texts(paths: &[UnitPath]) -> Vec<String> {
    paths.iter().map(ToString::to_string).collect()
}

fn files(walked: &Walked) -> Vec<String> {
    walked.files.iter().map(|listed| listed.path.to_string()).collect()
}

#[test]
fn a_listing_is_sorted_and_tells_kinds() {
    let case = Case::new(&["b", "a", "d/x"]);
    case.link("nowhere", "c");
    let listing = list(&case.root, true);
    let found: Vec<_> = listing.entries.iter().map(|entry| (entry.name.to_str().unwrap(), entry.kind)).collect();
    use EntryKind::{Directory, File, Symlink};
    assert_eq!(found, [("a", File), ("b", File), ("c", Symlink), ("d", Directory)]);
    assert!(listing.errors.is_empty());
    assert_eq!(list(&case.root.join("missing"), true).errors.len(), 1);
    for entry in &listing.entries {
        let found = case.root.join(&*entry.name).symlink_metadata().unwrap();
        assert_eq!(entry.fingerprint, found.is_file().then(|| Fingerprint::of(&found)), "{entry:?}");
    }
    assert!(list(&case.root, false).entries.iter().all(|entry| entry.fingerprint.is_none()));
}

#[test]
fn many_directories_are_watched_before_they_are_listed_and_taken_in_order() {
    let case = Case::new(&[]);
    // More than are listed ahead.
    let names: Vec<String> = (0..2100).map(|number| format!("d{number:04}")).collect();
    names.iter().for_each(|name| fs::create_dir(case.root.join(name)).unwrap());
    let walked = case.walk_from("", &mut |directories| {
        for directory in directories {
            fs::write(case.root.join(directory.as_path()).join("late"), "").unwrap();
        }
    });
    let found: Vec<String> = names.iter().map(|name| format!("{name}/late")).collect();
    assert_eq!(files(&walked)[1..], found);
    assert_eq!(texts(&walked.directories)[1..], names);
}

#[test]
#[should_panic(expected = "no more")]
fn a_walk_that_panics_leaves_no_thread_waiting() {
    let case = Case::new(&[]);
    (0..100).for_each(|number| fs::create_dir(case.root.join(number.to_string())).unwrap());
    let mut levels = 0;
    case.walk_from("", &mut |_| {
        levels += 1;
        assert!(levels < 2, "no more");
    });
}

#[test]
fn each_level_is_named_before_it_is_listed() {
    let case = Case::new(&["a/b/c/x", "d/y", "z"]);
    let mut levels = Vec::new();
    let walked = case.walk_from("", &mut |directories| {
        levels.push(texts(directories));
        // What is created between the watch and the listing is found by the listing.
        for directory in directories {
            fs::write(case.root.join(directory.as_path()).join("late"), "").unwrap();
        }
    });
    assert_eq!(levels, [vec!["."], vec!["a", "d"], vec!["a/b"], vec!["a/b/c"]]);
    assert_eq!(files(&walked), ["late", "z", "a/late", "d/late", "d/y", "a/b/late", "a/b/c/late", "a/b/c/x"]);
    assert_eq!(texts(&walked.directories), [".", "a", "d", "a/b", "a/b/c"]);
}

#[test]
fn ignored_directories_are_neither_watched_nor_listed() {
    let case = Case::new(&[".git/config", "a/__pycache__/x.pyc", "a/b.py", "c.part"]);
    let mut named = Vec::new();
    let walked = case.walk_from("", &mut |directories| named.extend(texts(directories)));
    assert_eq!(named, [".", "a"]);
    assert_eq!(files(&walked), ["a/b.py"]);
    assert_eq!(walked.ignored_count, 3);
}

#[test]
fn a_pickupignore_counts_from_the_moment_it_is_met() {
    let case = Case::new(&["a/x.log", "a/b/y.log", "a/b/keep", "z.log"]);
    case.file("a/.pickupignore", "*.log\n{bad\n");
    let walked = case.walk();
    assert_eq!(files(&walked), ["z.log", "a/b/keep"]);
    assert_eq!(walked.problems.len(), 1);
}

#[test]
fn without_recursion_only_the_directory_itself_is_listed() {
    let mut case = Case::new(&["a/x", "z"]);
    case.config.recursive = false;
    let walked = case.walk();
    assert_eq!((files(&walked), texts(&walked.directories)), (vec!["z".into()], vec![".".into()]));
}

#[test]
fn a_walk_may_begin_below_the_root() {
    let case = Case::new(&["a/b/x", "a/y", "z", ".git/config"]);
    assert_eq!(files(&case.walk_from("a/b", &mut |_| {})), ["a/b/x"]);
    assert!(case.walk_from(".git", &mut |_| panic!("it is ignored")).files.is_empty());
}

#[test]
fn a_missing_root_is_unreadable_and_a_missing_directory_is_gone() {
    let case = Case::new(&["a/x"]);
    assert!(case.walk_from("gone", &mut |_| {}).unreadable.is_empty());
    fs::remove_dir_all(&case.root).unwrap();
    let walked = case.walk();
    assert_eq!(walked.unreadable.len(), 1);
    assert!(walked.unreadable[0].0.is_root() && walked.directories.is_empty());
}

#[test]
fn a_directory_that_vanishes_in_the_middle_does_not_stop_the_walk() {
    let case = Case::new(&["a/x", "b/y"]);
    let walked = case.walk_from("", &mut |directories| {
        if directories.len() == 2 {
            fs::remove_dir_all(case.root.join("a")).unwrap();
        }
    });
    assert_eq!(files(&walked), ["b/y"]);
    assert!(walked.unreadable.is_empty());
}

#[test]
fn an_unreadable_directory_is_recorded_and_the_walk_goes_on() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::new(&["a/x", "b/y"]);
    fs::set_permissions(case.root.join("a"), fs::Permissions::from_mode(0o000)).unwrap();
    let may_read = fs::read_dir(case.root.join("a")).is_ok();
    let walked = case.walk();
    fs::set_permissions(case.root.join("a"), fs::Permissions::from_mode(0o700)).unwrap();
    // Root may read everything; a circle of links that is too long for the kernel fails for root as well.
    if !may_read {
        assert_eq!(files(&walked), ["b/y"]);
        assert_eq!(walked.unreadable[0].0.to_string(), "a");
    }
}

#[test]
fn symlinked_directories_inside_are_walked_under_their_own_names() {
    let mut case = Case::new(&["releases/1/x"]);
    case.link("releases/1", "current");
    assert_eq!(files(&case.walk()), ["current/x", "releases/1/x"]);
    case.config.symlinks = Symlinks::Skip;
    assert_eq!(files(&case.walk()), ["current", "releases/1/x"], "the probe refuses the link itself");
}

#[test]
fn symlinked_directories_outside_are_left_to_the_probe_unless_all_are_followed() {
    let mut case = Case::new(&["x"]);
    let outside = case.directory.path().join("out");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("y"), "").unwrap();
    case.link(&outside, "link");
    assert_eq!(files(&case.walk()), ["link", "x"]);
    case.config.symlinks = Symlinks::Follow;
    assert_eq!(files(&case.walk()), ["x", "link/y"]);
}

#[test]
fn circles_of_symlinks_end() {
    let case = Case::new(&["a/x", "b/y"]);
    case.link("../b", "a/to-b");
    case.link("../a", "b/to-a");
    case.link("..", "a/up");
    case.link("self", "self");
    let walked = case.walk();
    assert_eq!(files(&walked), ["self", "a/x", "b/y", "a/to-b/y", "b/to-a/x"]);
    assert_eq!(walked.ignored_count, 5 - 1, "a/up, a/to-b/to-a, b/to-a/to-b, b/to-a/up");
}

#[test]
fn many_links_to_each_other_do_not_multiply_without_end() {
    let case = Case::new(&[]);
    let names: Vec<String> = (0..6).map(|number| format!("d{number}")).collect();
    for name in &names {
        fs::create_dir(case.root.join(name)).unwrap();
        names
            .iter()
            .filter(|other| *other != name)
            .for_each(|other| case.link(format!("../{other}"), &format!("{name}/{other}")));
    }
    let walked = case.walk();
    assert!(!walked.unreadable.is_empty() && walked.directories.len() < 3000, "{}", walked.directories.len());
}

#[test]
fn config_map_files_are_found_through_their_links() {
    let case = Case::new(&["..2026_01_02/app.conf"]);
    case.link("..2026_01_02", "..data");
    case.link("..data/app.conf", "app.conf");
    assert_eq!(files(&case.walk()), ["app.conf"]);
}
