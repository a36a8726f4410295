use super::testing::{Node, Repo, allowing, below, terms};
use super::*;
use Node::{File, Link, Program, Submodule};

impl Repo {
    fn list(&self, entries: &[(&str, Node<'_>)], terms: &Terms) -> Result<Listing> {
        list(&self.repository, self.commit(entries), terms)
    }

    /// The content that shows at each path.
    fn contents(&self, listing: &Listing) -> Vec<(String, String)> {
        let content = |oid| String::from_utf8(self.repository.find_blob(oid).unwrap().content().to_vec()).unwrap();
        listing.files.iter().map(|(path, entry)| (path.to_string(), content(entry.oid))).collect()
    }
}

/// Checks what a commit of `entries` holds: `path=content` for each file, and `path: reason` for each refusal.
fn check(entries: &[(&str, Node<'_>)], expected: &[&str]) {
    check_with(&terms(), entries, expected);
}

fn check_with(terms: &Terms, entries: &[(&str, Node<'_>)], expected: &[&str]) {
    let repo = Repo::new();
    let listing = repo.list(entries, terms).unwrap();
    let files = repo.contents(&listing).into_iter().map(|(path, content)| format!("{path}={content}"));
    let refused = listing.refused.iter().map(|(path, why)| format!("{path}: {why}"));
    assert_eq!(files.chain(refused).collect::<Vec<_>>(), expected);
}

fn error(entries: &[(&str, Node<'_>)], terms: &Terms) -> String {
    let repo = Repo::new();
    let error = repo.list(entries, terms).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Git);
    assert!(!error.is_transient(), "a commit that is refused stays refused");
    let commit = short(repo.commit(entries));
    error.to_string().replace(&commit, "C")
}

#[test]
fn nested_directories_are_listed_by_component() {
    let entries = [("a/b/c", File("1")), ("a-b", File("2")), ("a/x", File("3")), ("z", File("4"))];
    check(&entries, &["a/b/c=1", "a/x=3", "a-b=2", "z=4"]);
    let repo = Repo::new();
    let paths: Vec<UnitPath> = repo.list(&entries, &terms()).unwrap().files.into_keys().collect();
    assert!(paths.is_sorted());
}

#[test]
fn modes_are_normalised() {
    let repo = Repo::new();
    let blob = repo.blob(b"x");
    let entry = |mode: u32, name: &str| (mode, name.as_bytes().to_vec(), blob);
    let tree = repo.raw_tree(vec![entry(0o100_644, "a"), entry(0o100_664, "b"), entry(0o100_755, "c")]);
    let listing = list(&repo.repository, repo.commit_tree(tree), &terms()).unwrap();
    assert_eq!(listing.files.values().map(|entry| entry.mode).collect::<Vec<_>>(), [0o644, 0o644, 0o755]);
    let odd = repo.raw_tree(vec![entry(0o010_644, "fifo")]);
    let error = list(&repo.repository, repo.commit_tree(odd), &terms()).unwrap_err().to_string();
    assert!(error.contains("`fifo` is of an unknown kind, mode 10644"), "{error}");
}

#[test]
fn paths_are_below_the_subdirectory() {
    let entries = [("site/www/index", File("1")), ("site/www/css/x", File("2")), ("other", File("3"))];
    check_with(&below("site/www"), &entries, &["css/x=2", "index=1"]);
}

#[test]
fn a_subdirectory_that_is_not_there_is_an_error_and_no_empty_listing() {
    let entries = [("file", File("1")), ("d/l", Link("x")), ("d/s", Submodule)];
    let said = |subdir| error(&entries, &below(subdir));
    let start = "list what is to be deployed: commit C has no directory";
    assert_eq!(said("x"), format!("{start} `x`"));
    assert_eq!(said("d/x/y"), format!("{start} `d/x/y`"));
    assert_eq!(said("file"), format!("{start} `file`: `file` is a file"));
    assert_eq!(said("file/x"), format!("{start} `file/x`: `file` is a file"));
    assert_eq!(said("d/l"), format!("{start} `d/l`: `d/l` is a symlink; name the directory that it leads to"));
    assert_eq!(said("d/s/x"), format!("{start} `d/s/x`: `d/s` is a submodule"));
}

#[test]
fn a_link_to_a_file_is_that_file() {
    let entries = [("bin/run", Program("p")), ("run", Link("bin/run")), ("bin/again", Link("../bin/./run"))];
    check(&entries, &["bin/again=p", "bin/run=p", "run=p"]);
    let repo = Repo::new();
    let listing = repo.list(&entries, &terms()).unwrap();
    assert!(listing.files.values().all(|entry| entry.mode == 0o755));
    assert_eq!(listing.files.values().map(|entry| entry.is_link).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn a_link_to_a_directory_holds_its_files() {
    let entries = [("real/a/x", File("1")), ("real/y", File("2")), ("d/link", Link("../real"))];
    check(&entries, &["d/link/a/x=1", "d/link/y=2", "real/a/x=1", "real/y=2"]);
}

#[test]
fn links_lead_through_links() {
    let entries = [
        ("v1/x", File("1")),
        ("current", Link("v1")),
        ("a", Link("current/x")),
        ("b", Link("a")),
        ("d/up", Link("../current/../v1/x")),
    ];
    check(&entries, &["a=1", "b=1", "current/x=1", "d/up=1", "v1/x=1"]);
}

#[test]
fn a_link_in_a_linked_directory_leads_from_where_it_really_is() {
    let entries = [("deep/real/x", Link("../file")), ("deep/file", File("1")), ("l", Link("deep/real"))];
    check(&entries, &["deep/file=1", "deep/real/x=1", "l/x=1"]);
}

#[test]
fn a_link_that_leads_out_is_refused_alone() {
    let entries = [
        ("d/deep/x", File("1")),
        ("absolute", Link("/etc/passwd")),
        ("up", Link("..")),
        ("d/far", Link("../../etc")),
        ("d/there-and-back", Link("../../d/deep/x")),
        ("linked", Link("d/deep")),
        ("through", Link("linked/../../../x")),
    ];
    check(
        &entries,
        &[
            "d/deep/x=1",
            "linked/x=1",
            "absolute: a symlink that leads to an absolute path: /etc/passwd",
            "d/far: a symlink that leads out of the directory that is deployed: ../../etc",
            "d/there-and-back: a symlink that leads out of the directory that is deployed: ../../d/deep/x",
            "through: a symlink that leads out of the directory that is deployed: linked/../../../x",
            "up: a symlink that leads out of the directory that is deployed: ..",
        ],
    );
}

#[test]
fn a_link_out_of_the_subdirectory_is_refused() {
    let entries = [("sub/l", Link("../secret")), ("sub/x", File("1")), ("secret", File("2"))];
    check_with(
        &below("sub"),
        &entries,
        &["x=1", "l: a symlink that leads out of the directory that is deployed: ../secret"],
    );
}

#[test]
fn a_link_that_leads_nowhere_is_refused() {
    let entries = [
        ("file", File("1")),
        ("sub", Submodule),
        ("a", Link("missing")),
        ("b", Link("file/x")),
        ("c", Link("sub/x")),
        ("d", Link("")),
        ("e", Link("x\0y")),
        ("f", Link("a")),
    ];
    check_with(
        &allowing(GitAllow::Submodules),
        &entries,
        &[
            "file=1",
            "a: a symlink that leads nowhere: missing",
            "b: a symlink that leads nowhere: file/x",
            "c: a symlink that leads into a submodule: sub/x",
            "d: a symlink without a target",
            "e: a symlink whose target is no path",
            "f: a symlink that leads nowhere: a",
            "sub: a submodule, whose files are in another repository",
        ],
    );
}

#[test]
fn links_that_lead_in_a_circle_are_cut() {
    let entries =
        [("a", Link("b")), ("b", Link("a")), ("d/x", File("1")), ("d/self", Link(".")), ("d/top", Link("../d"))];
    let circle = "a symlink that leads to a directory that it lies in";
    check(
        &entries,
        &[
            "d/x=1",
            "a: a symlink that leads to itself, or through too many others: b",
            "b: a symlink that leads to itself, or through too many others: a",
            &format!("d/self: {circle}"),
            &format!("d/top: {circle}"),
        ],
    );
}

#[test]
fn directories_that_link_to_each_other_end() {
    let entries = [("a/x", File("1")), ("a/to-b", Link("../b")), ("b/y", File("2")), ("b/to-a", Link("../a"))];
    let circle = "a symlink that leads to a directory that it lies in";
    check(
        &entries,
        &[
            "a/to-b/y=2",
            "a/x=1",
            "b/to-a/x=1",
            "b/y=2",
            &format!("a/to-b/to-a: {circle}"),
            &format!("b/to-a/to-b: {circle}"),
        ],
    );
}

/// Each level of such links would multiply the files.
#[test]
fn directories_linked_within_each_other_are_bounded() {
    let mut entries = vec![("5/x".to_owned(), File("1"))];
    let targets: Vec<String> = (0..6).map(|level| format!("../{}", level + 1)).collect();
    entries.extend((0..5).map(|level| (format!("{level}/l"), Link(&targets[level]))));
    let entries: Vec<(&str, Node<'_>)> = entries.iter().map(|(path, node)| (path.as_str(), *node)).collect();
    let listing = Repo::new().list(&entries, &terms()).unwrap();
    let refused: Vec<String> = listing.refused.iter().map(|(path, why)| format!("{path}: {why}")).collect();
    assert_eq!(refused, ["0/l/l/l/l/l: more than 4 symlinked directories lie within each other"]);
    assert!(listing.files.contains_key(&UnitPath::new("1/l/l/l/l/x").unwrap()));
}

#[test]
fn a_link_of_more_than_a_path_is_refused() {
    let target = "x/".repeat(2049);
    check(&[("l", Link(&target))], &["l: a symlink whose target is longer than 4096 bytes"]);
}

#[test]
fn where_links_are_skipped_each_is_refused() {
    let terms = Terms { symlinks: Symlinks::Skip, ..terms() };
    check_with(&terms, &[("x", File("1")), ("l", Link("x"))], &["x=1", "l: a symlink, and `symlinks` is `skip`"]);
    check_with(
        &Terms { symlinks: Symlinks::Follow, ..terms },
        &[("x", File("1")), ("l", Link("x")), ("out", Link("/etc"))],
        &["l=1", "x=1", "out: a symlink that leads to an absolute path: /etc"],
    );
}

#[test]
fn every_spelling_of_dot_git_refuses_the_commit() {
    let spellings = [
        ".git",
        ".GIT",
        ".Git",
        ".git.",
        ".git ",
        ".git. .",
        "git~1",
        "GIT~1",
        ".g\u{200c}it",
        "\u{feff}.git",
        ".git\u{206f}",
        ".git:x",
        ".git::$INDEX_ALLOCATION",
        "a\\.git",
        ".git\\config",
    ];
    for name in spellings {
        let path = format!("d/{name}");
        let nested = format!("{path}/config");
        for entries in [[(path.as_str(), File("x"))], [(nested.as_str(), File("x"))], [(path.as_str(), Link("x"))]] {
            let said = error(&entries, &terms());
            assert!(said.starts_with("deploy commit C: `d/") && said.contains("`.git`"), "{name}: {said}");
        }
    }
}

#[test]
fn names_that_only_look_like_git_are_taken() {
    let names = [".gitignore", ".gitattributes", ".github/x", "x.git", "git", "git~2", ".git-x", "a\\x2dgit", "...git"];
    let entries: Vec<(&str, Node<'_>)> = names.iter().map(|name| (*name, File("1"))).collect();
    assert_eq!(Repo::new().list(&entries, &terms()).unwrap().files.len(), names.len());
}

#[test]
fn names_that_are_none_refuse_the_commit() {
    let repo = Repo::new();
    let blob = repo.blob(b"x");
    for name in [".", "..", "a/b", "../x"] {
        let tree = repo.raw_tree(vec![(0o100_644, name.as_bytes().to_vec(), blob)]);
        let error = list(&repo.repository, repo.commit_tree(tree), &terms()).unwrap_err().to_string();
        assert!(error.contains("the commit was not made by git, and can do harm"), "{name}: {error}");
    }
    let long = "x".repeat(256);
    assert!(error(&[(&long, File("1"))], &terms()).contains("more than 255 bytes"));
    let longest = "x".repeat(255);
    assert_eq!(repo.list(&[(&longest, File("1"))], &terms()).unwrap().files.len(), 1);
}

/// What libgit2 itself makes of a tree with an empty name does not matter, as long as it is not deployed.
#[test]
fn an_empty_name_is_refused() {
    let repo = Repo::new();
    let tree = repo.raw_tree(vec![(0o100_644, Vec::new(), repo.blob(b"x"))]);
    assert!(list(&repo.repository, repo.commit_tree(tree), &terms()).is_err());
}

#[test]
fn a_name_that_is_not_utf_8_is_kept() {
    use std::os::unix::ffi::OsStrExt;
    let repo = Repo::new();
    let tree = repo.raw_tree(vec![(0o100_644, b"a\xff".to_vec(), repo.blob(b"x"))]);
    let listing = list(&repo.repository, repo.commit_tree(tree), &terms()).unwrap();
    assert_eq!(listing.files.keys().next().unwrap().as_path().as_os_str().as_bytes(), b"a\xff");
}

#[test]
fn names_that_differ_by_case_refuse_the_commit_unless_allowed() {
    let collisions: [&[(&str, Node<'_>)]; 4] = [
        &[("Readme", File("1")), ("README", File("2"))],
        &[("d/A/x", File("1")), ("d/a/y", File("2"))],
        &[("ä", File("1")), ("Ä", File("2"))],
        &[("x", Link("y")), ("X", File("1"))],
    ];
    for entries in collisions {
        let said = error(entries, &terms());
        assert!(said.contains("`git_allow = [\"case_collisions\"]`"), "{said}");
    }
    check_with(&allowing(GitAllow::CaseCollisions), collisions[0], &["README=2", "Readme=1"]);
    check(&[("a/x", File("1")), ("b/X", File("2"))], &["a/x=1", "b/X=2"]);
}

#[test]
fn one_name_twice_is_refused_even_where_case_may_collide() {
    let repo = Repo::new();
    let (blob, tree) = (repo.blob(b"x"), repo.tree(&[("y", File("1"))]));
    let twice = repo.raw_tree(vec![(0o100_644, b"a".to_vec(), blob), (0o040_000, b"a".to_vec(), tree)]);
    let error = list(&repo.repository, repo.commit_tree(twice), &allowing(GitAllow::CaseCollisions)).unwrap_err();
    assert!(error.to_string().ends_with("`a` is there twice"), "{error}");
}

#[test]
fn a_submodule_refuses_the_commit_unless_allowed() {
    let entries = [("lib", Submodule), ("x", File("1"))];
    let said = error(&entries, &terms());
    assert!(said.starts_with("deploy commit C: `lib` is a submodule") && said.contains("\"submodules\""), "{said}");
    check_with(
        &allowing(GitAllow::Submodules),
        &entries,
        &["x=1", "lib: a submodule, whose files are in another repository"],
    );
}

#[test]
fn what_lies_outside_the_subdirectory_refuses_nothing() {
    let entries = [("lib", Submodule), ("A", File("1")), ("a", File("1")), ("site/x", File("1"))];
    check_with(&below("site"), &entries, &["x=1"]);
}

#[test]
fn the_number_of_files_is_bounded() {
    let entries = [("a", File("1")), ("b", File("1")), ("d/c", File("1"))];
    let up_to = |files_max| Terms { files_max, ..terms() };
    assert_eq!(Repo::new().list(&entries, &up_to(3)).unwrap().files.len(), 3);
    let said = error(&entries, &up_to(2));
    assert!(said.contains("more than 2 files; raise `git_files_max`, or name"), "{said}");
    let links = [("a", Link("x")), ("b", Link("x")), ("c", Link("x"))];
    assert!(error(&links, &up_to(2)).contains("more than 2 files"));
}

/// Ten levels of ten names for the same tree: a few hundred bytes that hold ten thousand million directories.
#[test]
fn directories_without_files_are_bounded() {
    let repo = Repo::new();
    let mut tree = repo.raw_tree(Vec::new());
    for _ in 0..10 {
        tree = repo.raw_tree((0..10).map(|at| (0o040_000, vec![b'a' + at], tree)).collect());
    }
    let terms = Terms { files_max: 10, ..terms() };
    let error = list(&repo.repository, repo.commit_tree(tree), &terms).unwrap_err().to_string();
    assert!(error.contains("more than 10000 directories"), "{error}");
}

#[test]
fn depth_is_bounded() {
    let path = |depth: usize| "d/".repeat(depth) + "x";
    let repo = Repo::new();
    assert_eq!(repo.list(&[(&path(DEPTH_MAX - 1), File("1"))], &terms()).unwrap().files.len(), 1);
    assert!(error(&[(&path(DEPTH_MAX), File("1"))], &terms()).ends_with("lies too deep"));
    let long = format!("{}/", "x".repeat(250)).repeat(17) + "x";
    assert!(error(&[(&long, File("1"))], &terms()).ends_with("lies too deep"));
}

#[test]
fn a_missing_object_is_transient_and_names_its_place() {
    let repo = Repo::new();
    let gone = Oid::from_str("00000000000000000000000000000000000000aa").unwrap();
    let tree = repo.tree(&[("d", Node::Tree(gone))]);
    let error = list(&repo.repository, repo.commit_tree(tree), &terms()).unwrap_err();
    assert!(error.is_transient());
    assert!(error.to_string().contains("directory `d`") && error.to_string().contains("partial clone"), "{error}");
    assert!(list(&repo.repository, gone, &terms()).unwrap_err().is_transient());
}

#[test]
fn a_revision_is_bounded_and_clean() {
    use git2::{Signature, Time};
    let repo = Repo::new();
    let author = Signature::new("Ann\u{7} O\u{202e}x", "a@example.invalid", &Time::new(1_700_000_000, 0)).unwrap();
    let message = format!("\u{1b}[31mred {}\n\nbody", "x".repeat(500));
    let commit = repo.commit_as(repo.tree(&[]), &author, &message);
    let revision = revision(&repo.repository, commit, Some("main".into())).unwrap();
    assert_eq!((revision.author.as_str(), revision.committed_at), ("Ann Ox", 1_700_000_000_000));
    assert_eq!(revision.subject.chars().count(), TEXT_MAX);
    assert!(revision.subject.starts_with("[31mred xxx"), "{}", revision.subject);
    assert_eq!((revision.branch.as_deref(), revision.previous), (Some("main"), None));
    assert_eq!(revision.commit, commit.to_string());
}
