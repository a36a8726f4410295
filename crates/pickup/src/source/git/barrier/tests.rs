use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// A clone with one commit that holds `file` and `sub/x`.
struct Case {
    directory: tempfile::TempDir,
    work: PathBuf,
}

impl Case {
    fn new() -> Self {
        let case = Self::init(&[]);
        case.write("file", "0");
        case.write("sub/x", "0");
        case.commit("first");
        case
    }

    fn init(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let work = directory.path().canonicalize().unwrap().join("work");
        let case = Self { directory, work };
        fs::create_dir(&case.work).unwrap();
        case.git(&[&["init", "-q", "-b", "main"], options].concat());
        case
    }

    fn git(&self, arguments: &[&str]) -> String {
        let (is_success, output) = git(&self.work, arguments);
        assert!(is_success, "git {arguments:?}: {output}");
        output
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.work.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "-A"]);
        self.git(&["commit", "-q", "-m", message]);
    }

    fn clone(&self) -> Clone {
        Clone::find(&self.work).unwrap().unwrap()
    }

    fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }

    fn git_file(&self, name: &str) -> PathBuf {
        self.work.join(".git").join(name)
    }
}

fn git(directory: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("git");
    command.args(arguments).current_dir(directory);
    for name in ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"] {
        command.env(name, "/dev/null");
    }
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Ann").env(format!("GIT_{role}_EMAIL"), "ann@example.invalid");
    }
    let output = command.env("GIT_EDITOR", "true").output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

/// Long after whatever git did.
fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(10)
}

fn rest(clone: &mut Clone, now: SystemTime) -> Rest {
    clone.rest(now, &mut |_| Writer::Unknown).unwrap()
}

fn at(commit: &str) -> Rest {
    Rest::At { commit: Some(commit.to_owned()), branch: Some("main".into()) }
}

fn reason(rest: Rest) -> String {
    match rest {
        Rest::Busy { reason, again_in } => {
            assert!(again_in > Duration::ZERO && again_in <= AGAIN_IN_PROGRESS);
            reason
        }
        Rest::At { .. } => panic!("{rest:?}"),
    }
}

#[test]
fn a_clone_at_rest_says_commit_and_branch() {
    let case = Case::new();
    let mut clone = case.clone();
    assert_eq!(rest(&mut clone, later()), at(&case.head()));
    assert_eq!(clone.git_dir(), case.git_file("").as_path());
    case.git(&["checkout", "-q", "--detach"]);
    assert_eq!(rest(&mut clone, later()), Rest::At { commit: Some(case.head()), branch: None });
    case.git(&["checkout", "-q", "-b", "feature/x"]);
    assert_eq!(rest(&mut clone, later()), Rest::At { commit: Some(case.head()), branch: Some("feature/x".into()) });
}

#[test]
fn before_the_first_commit_there_is_none() {
    let case = Case::init(&[]);
    assert_eq!(rest(&mut case.clone(), later()), Rest::At { commit: None, branch: Some("main".into()) });
}

#[test]
fn a_clone_is_found_from_a_directory_in_it() {
    let case = Case::new();
    let clone = Clone::find(&case.work.join("sub")).unwrap().unwrap();
    assert_eq!(clone.prefix(), UnitPath::new("sub"));
    let x = UnitPath::new("x").unwrap();
    assert!(clone.is_clean(&x));
    assert_eq!(case.clone().prefix(), None);
}

#[test]
fn what_is_no_clone_is_none() {
    let case = Case::new();
    for inside in ["", "refs/heads"] {
        assert!(Clone::find(&case.git_file(inside)).unwrap().is_none(), "{inside}");
    }
    let plain = tempfile::tempdir().unwrap();
    assert!(Clone::find(&plain.path().canonicalize().unwrap()).unwrap().is_none());
    git(plain.path(), &["init", "-q", "--bare", "bare.git"]);
    assert!(Clone::find(&plain.path().canonicalize().unwrap().join("bare.git")).unwrap().is_none());
    case.git(&["config", "core.worktree", plain.path().to_str().unwrap()]);
    assert!(Clone::find(&case.work).unwrap().is_none());
}

#[test]
fn another_working_tree_has_its_own_head_and_locks() {
    let case = Case::new();
    case.git(&["worktree", "add", "-q", "-b", "other", "../other"]);
    let other = case.work.with_file_name("other");
    let mut clone = Clone::find(&other).unwrap().unwrap();
    assert_eq!(clone.git_dir(), case.git_file("worktrees/other"));
    let head = Rest::At { commit: Some(case.head()), branch: Some("other".into()) };
    assert_eq!(rest(&mut clone, later()), head);
    fs::write(case.git_file("index.lock"), "").unwrap();
    assert_eq!(rest(&mut clone, later()), head);
    fs::write(case.git_file("worktrees/other/index.lock"), "").unwrap();
    assert!(reason(rest(&mut clone, later())).contains("worktrees/other/index.lock"));
    assert!(clone.watched().contains(&case.git_file("worktrees/other")));
    assert!(clone.watched().contains(&case.git_file("refs/heads")));
}

#[test]
fn a_lock_is_work() {
    let case = Case::new();
    let mut clone = case.clone();
    for name in ["index.lock", "HEAD.lock", "refs/heads/main.lock"] {
        let lock = case.git_file(name);
        fs::write(&lock, "").unwrap();
        assert!(reason(rest(&mut clone, SystemTime::now())).contains(name));
        fs::remove_file(&lock).unwrap();
        assert_eq!(rest(&mut clone, later()), at(&case.head()));
    }
}

#[test]
fn a_lock_that_a_crash_left_does_not_count_for_ever() {
    let case = Case::new();
    let mut clone = case.clone();
    let lock = case.git_file("index.lock");
    fs::write(&lock, "").unwrap();
    let mut after = |seconds, writer| {
        let rest = clone.rest(modified(&lock) + Duration::from_secs(seconds), &mut |_| writer).unwrap();
        matches!(rest, Rest::At { .. })
    };
    assert!(!after(60, Writer::Nobody));
    assert!(after(61, Writer::Nobody));
    // A checkout of a huge tree takes its time; and who cannot ask must not guess.
    assert!(!after(61, Writer::Somebody));
    assert!(!after(61, Writer::Unknown));
    assert!(reason(rest(&mut clone, later() + LOCK_STALE)).contains("if no git runs there, remove that file"));
}

#[test]
fn what_was_begun_is_named_and_how_it_ends() {
    let conflict: &[&str] = &["merge", "cherry-pick", "rebase", "revert", "am"];
    for what in conflict {
        let case = Case::new();
        case.git(&["checkout", "-q", "-b", "other"]);
        case.write("file", "other");
        case.commit("other");
        case.git(&["checkout", "-q", "main"]);
        case.write("file", "main");
        case.commit("main");
        fs::write(case.directory.path().join("patch"), case.git(&["format-patch", "-1", "--stdout", "other"])).unwrap();
        let arguments: &[&str] = match *what {
            "revert" => &["revert", "--no-edit", "HEAD~"],
            "am" => &["am", "-q", "../patch"],
            name => &[name, "other"],
        };
        let mut clone = case.clone();
        assert!(matches!(rest(&mut clone, later()), Rest::At { .. }));
        assert!(!git(&case.work, arguments).0, "{what} meets a conflict");
        let said = reason(rest(&mut clone, later()));
        assert!(said.contains(&format!("`git {what} --abort`")), "{what}: {said}");
        case.git(&[what, "--abort"]);
        assert_eq!(rest(&mut clone, later()), at(&case.head()));
    }
}

#[test]
fn an_index_that_was_just_written_may_be_ahead_of_head() {
    let case = Case::new();
    case.write("file", "1");
    case.commit("second");
    let second = case.head();
    case.git(&["reset", "-q", "--hard", "HEAD~"]);
    let first = case.head();
    let mut clone = case.clone();
    assert_eq!(rest(&mut clone, later()), at(&first));

    // As a pull does: files and index, and HEAD after that.
    case.git(&["read-tree", "-u", "-m", "HEAD", &second]);
    let written = modified(&case.git_file("index"));
    assert!(reason(rest(&mut clone, written)).contains("about to move HEAD"));
    let almost = rest(&mut clone, written + Duration::from_millis(499));
    assert_eq!(almost, busy("git has just written its index, and may be about to move HEAD", Duration::from_millis(1)));
    case.git(&["update-ref", "HEAD", &second]);
    assert_eq!(rest(&mut clone, written), at(&second));

    // Only an index: `git add`, or a pull that was killed.
    case.write("file", "2");
    case.git(&["add", "file"]);
    let written = modified(&case.git_file("index"));
    assert!(matches!(rest(&mut clone, written), Rest::Busy { .. }));
    assert_eq!(rest(&mut clone, written + HEAD_LAG), at(&second));
}

/// Two moves since the last look: the first one must not pass for the end of the second.
#[test]
fn an_older_move_of_head_does_not_vouch_for_a_newer_index() {
    let case = Case::new();
    let mut clone = case.clone();
    rest(&mut clone, later());
    case.write("file", "1");
    case.commit("second");
    case.write("file", "2");
    case.git(&["add", "file"]);
    let index = case.git_file("index");
    let moved = modified(&case.git_file("logs/HEAD"));
    fs::File::options().write(true).open(&index).unwrap().set_modified(moved + Duration::from_millis(20)).unwrap();
    assert!(matches!(rest(&mut clone, moved + Duration::from_millis(30)), Rest::Busy { .. }));
}

#[test]
fn an_index_from_the_future_does_not_hold_for_ever() {
    let case = Case::new();
    let mut clone = case.clone();
    let now = modified(&case.git_file("index"));
    let index = fs::File::options().write(true).open(case.git_file("index")).unwrap();
    index.set_modified(now + Duration::from_secs(3600)).unwrap();
    assert!(matches!(rest(&mut clone, now), Rest::Busy { .. }));
    assert!(matches!(rest(&mut clone, now + HEAD_LAG), Rest::At { .. }));
}

/// What git really does, again and again, with somebody who asks all the time.
#[test]
fn while_git_pulls_new_files_are_never_said_to_be_the_old_commit() {
    const PULLS: usize = 20;
    let upstream = Case::new();
    let mut commits = vec![upstream.head()];
    for round in 1..=PULLS {
        (0..30).for_each(|at| upstream.write(&format!("many/{at}"), &round.to_string()));
        upstream.write("file", &round.to_string());
        upstream.commit("next");
        commits.push(upstream.head());
    }
    upstream.git(&["checkout", "-q", "--detach", &commits[0]]);
    upstream.git(&["branch", "-f", "main", &commits[0]]);
    let work = upstream.work.with_file_name("clone");
    git(upstream.directory.path(), &["clone", "-q", "-b", "main", "work", "clone"]);
    let is_done = AtomicBool::new(false);
    let mut clone = Clone::find(&work).unwrap().unwrap();
    assert_eq!(rest(&mut clone, later()), at(&commits[0]));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for commit in &commits[1..] {
                upstream.git(&["branch", "-f", "main", commit]);
                let (is_success, output) = git(&work, &["pull", "-q"]);
                assert!(is_success, "{output}");
            }
            is_done.store(true, Ordering::Release);
        });
        let mut seen = std::collections::BTreeSet::new();
        while !is_done.load(Ordering::Acquire) {
            // Git unlinks a file before it writes it anew.
            let there = fs::read_to_string(work.join("file")).ok().and_then(|text| text.parse::<usize>().ok());
            let Rest::At { commit, .. } = rest(&mut clone, SystemTime::now()) else { continue };
            let said = commits.iter().position(|one| Some(one) == commit.as_ref()).unwrap();
            assert!(there.is_none_or(|there| said >= there), "file of commit {there:?}, HEAD of {said}");
            seen.insert(said);
        }
        assert!(seen.len() > 1, "it is at rest between pulls: {seen:?}");
        assert_eq!(rest(&mut clone, later()), at(commits.last().unwrap()));
    });
}

#[test]
fn clean_is_what_git_status_says() {
    let case = Case::new();
    case.write(".gitignore", "*.log\n");
    case.write("text", "a\n");
    case.write(".gitattributes", "text eol=crlf\n");
    case.commit("attributes");
    fs::remove_file(case.work.join("text")).unwrap();
    case.git(&["checkout", "-q", "text"]);
    assert_eq!(fs::read(case.work.join("text")).unwrap(), b"a\r\n");
    let clone = case.clone();
    let judged = |name: &str| {
        let path = UnitPath::new(name).unwrap();
        clone.is_clean(&path)
    };
    assert!(judged("file"));
    assert!(judged("text"), "line ends are not an edit");
    assert!(!judged("sub"), "a directory is no file");
    assert!(!judged("missing"));
    case.write("file", "edited");
    assert!(!judged("file"));
    case.git(&["add", "file"]);
    assert!(!judged("file"), "staged is not committed");
    case.write("new", "1");
    case.write("x.log", "1");
    assert!(!judged("new") && !judged("x.log"));
    fs::remove_file(case.work.join("sub/x")).unwrap();
    assert!(!judged("sub/x"));
}

#[test]
fn watched_directories_exist_and_hold_no_objects() {
    let case = Case::new();
    case.git(&["checkout", "-q", "-b", "feature/x"]);
    let watched = case.clone().watched();
    let expected = ["", "logs", "refs/heads", "refs/heads/feature"].map(|name| case.git_file(name));
    assert_eq!(watched, expected.map(|path| path.components().collect::<PathBuf>()));
    let bare = Case::init(&[]);
    assert!(bare.clone().watched().iter().all(|directory| directory.is_dir()));
}

#[test]
fn a_repository_of_somebody_else_is_an_error_that_names_the_fix() {
    let case = Case::new();
    let error = if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&case.work, Some(12345), None).unwrap();
        Clone::find(&case.work).unwrap_err()
    } else {
        // Only root can give a directory away; the words are libgit2's.
        let words = format!("repository path '{}/' is not owned by current user", case.work.display());
        cannot_open(&case.work, git2::Error::new(ErrorCode::Owner, git2::ErrorClass::Config, words))
    };
    let fix = format!("git config --global --add safe.directory {}`", case.work.display());
    assert!(error.to_string().contains(&fix), "{error}");
}

#[test]
fn repositories_that_cannot_be_read_name_the_way_out() {
    let says = |case: &Case, way_out: &str| {
        let error = Clone::find(&case.work).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Git);
        assert!(error.to_string().contains(way_out), "{error}");
    };
    says(&Case::init(&["--object-format=sha256"]), "use one with SHA-1 ids");
    says(&Case::init(&["--ref-format=reftable"]), "`git refs migrate --ref-format=files`");
    let case = Case::new();
    case.git(&["update-index", "--split-index"]);
    says(&case, "`git update-index --no-split-index`");
    case.git(&["update-index", "--no-split-index"]);
    let mut clone = case.clone();
    rest(&mut clone, later());
    case.git(&["update-index", "--split-index"]);
    assert!(clone.rest(later(), &mut |_| Writer::Unknown).is_err(), "also when it becomes one later");
    let case = Case::new();
    case.git(&["sparse-checkout", "set", "--cone", "--sparse-index", "other"]);
    says(&case, "`git sparse-checkout reapply --no-sparse-index`");
}
