//! A repository that is kept open says what one that is opened anew would.

use std::fs;
use std::time::Duration;

use git2::{RepositoryInitOptions, Signature};
use tempfile::TempDir;

use super::*;

fn repository(path: &Path) -> Repository {
    Repository::init_opts(path, RepositoryInitOptions::new().initial_head("main")).unwrap()
}

/// A commit on the branch that is checked out.
fn commit(repository: &Repository, message: &str) -> String {
    let signature = Signature::now("test", "test@example.invalid").unwrap();
    let tree = repository.find_tree(repository.treebuilder(None).unwrap().write().unwrap()).unwrap();
    let parent = repository.head().ok().and_then(|head| head.peel_to_commit().ok());
    let parents: Vec<_> = parent.iter().collect();
    repository.commit(Some("HEAD"), &signature, &signature, message, &tree, &parents).unwrap().to_string()
}

/// A time at which everything that was written now is old.
fn later() -> SystemTime {
    SystemTime::now() + Duration::from_secs(3600)
}

fn said(here: AtRest) -> (String, Option<String>) {
    (here.commit, here.followed)
}

/// What is known by one that was opened before, which must be what is found anew.
fn found(opened: &mut Opened, clone: &Path) -> Option<(String, Option<String>)> {
    let found = opened.at_rest(clone, later()).map(said);
    assert_eq!(found, Opened::default().at_rest(clone, later()).map(said));
    assert_eq!(found, opened.at_rest(clone, later()).map(said), "asked again");
    found
}

#[test]
fn a_clone_that_is_kept_open_is_seen_as_it_is_now() {
    let directory = TempDir::new().unwrap();
    let clone = &directory.path().join("clone");
    let opened = &mut Opened::default();
    assert_eq!(found(opened, clone), None);
    let one = repository(clone);
    assert_eq!(found(opened, clone), None, "no commit yet");
    let main = || Some("main".to_owned());
    for message in ["first", "second"] {
        let id = commit(&one, message);
        assert_eq!(found(opened, clone), Some((id, main())));
    }
    let id = head(clone).unwrap();
    // As `git pack-refs --all` leaves it.
    fs::write(
        clone.join(".git/packed-refs"),
        format!("# pack-refs with: peeled fully-peeled sorted\n{id} refs/heads/main\n"),
    )
    .unwrap();
    fs::remove_file(clone.join(".git/refs/heads/main")).unwrap();
    assert_eq!(found(opened, clone), Some((id.clone(), main())));
    let third = commit(&one, "third");
    assert_eq!(found(opened, clone), Some((third.clone(), main())));
    let settings = fs::read_to_string(clone.join(".git/config")).unwrap();
    let settings = settings + "[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/release\n";
    exchange(&clone.join(".git/config"), &settings);
    assert_eq!(found(opened, clone), Some((third.clone(), Some("release".into()))));
    one.reference("refs/heads/dev", Oid::from_str(&id).unwrap(), false, "test").unwrap();
    one.set_head("refs/heads/dev").unwrap();
    assert_eq!(found(opened, clone), Some((id, Some("dev".into()))));
    one.set_head_detached(Oid::from_str(&third).unwrap()).unwrap();
    assert_eq!(found(opened, clone), Some((third, None)));
}

#[test]
fn a_clone_that_was_exchanged_is_opened_anew() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| directory.path().join(name);
    let (clone, other) = (path("clone"), path("other"));
    let first = commit(&repository(&clone), "first");
    let second = commit(&repository(&other), "second");
    let opened = &mut Opened::default();
    assert_eq!(found(opened, &clone).unwrap().0, first);
    fs::rename(&clone, path("away")).unwrap();
    assert_eq!(found(opened, &clone), None);
    fs::rename(&other, &clone).unwrap();
    assert_eq!(found(opened, &clone).unwrap().0, second);
    // A working tree whose repository is elsewhere.
    fs::rename(clone.join(".git"), path("elsewhere.git")).unwrap();
    for (place, id) in [("away/.git", &first), ("elsewhere.git", &second)] {
        fs::write(clone.join(".git"), format!("gitdir: {}\n", path(place).display())).unwrap();
        assert_eq!(&found(opened, &clone).unwrap().0, id);
    }
}

/// As git does: a file is written beside, and renamed.
fn exchange(path: &Path, content: &str) {
    let lock = path.with_extension("lock");
    fs::write(&lock, content).unwrap();
    fs::rename(lock, path).unwrap();
}

/// Whether the next look at `now` takes the last one's word. As a sign, what is remembered is made a lie.
#[cfg(target_os = "linux")]
fn is_remembered(opened: &mut Opened, clone: &Path, now: SystemTime) -> bool {
    opened.at_rest(clone, now).unwrap();
    opened.head.as_mut().unwrap().0.commit = "remembered".into();
    let is_remembered = opened.at_rest(clone, now).unwrap().commit == "remembered";
    opened.head = None;
    is_remembered
}

#[cfg(target_os = "linux")]
#[test]
fn what_says_where_a_clone_is_is_read_once_unless_it_is_new_or_changes() {
    let directory = TempDir::new().unwrap();
    let clone = &directory.path().join("clone");
    let opened = &mut Opened::default();
    let one = repository(clone);
    let first = commit(&one, "first");
    assert!(is_remembered(opened, clone, later()));
    assert!(!is_remembered(opened, clone, SystemTime::now()), "it may be written once more in the same tick");
    assert!(!is_remembered(opened, clone, SystemTime::UNIX_EPOCH), "the clock was set back");
    let git = |name: &str| clone.join(".git").join(name);
    // Each of these is noticed by what it does to the files; none of them leaves another commit checked out.
    let moved = |opened: &mut Opened, change: &dyn Fn()| {
        opened.at_rest(clone, later()).unwrap();
        opened.head.as_mut().unwrap().0.commit = "remembered".into();
        change();
        assert_eq!(opened.at_rest(clone, later()).unwrap().commit, first);
    };
    moved(opened, &|| exchange(&git("HEAD"), "ref: refs/heads/main\n"));
    moved(opened, &|| exchange(&git("refs/heads/main"), &format!("{first}\n")));
    moved(opened, &|| fs::write(git("pickup-intent"), r#"{"is_working":false,"moving":null}"#).unwrap());
    let packed = format!("# pack-refs with: peeled fully-peeled sorted\n{first} refs/heads/main\n");
    moved(opened, &|| {
        fs::write(git("packed-refs"), &packed).unwrap();
        fs::remove_file(git("refs/heads/main")).unwrap();
    });
    moved(opened, &|| exchange(&git("packed-refs"), &packed));
    assert!(is_remembered(opened, clone, later()));
    // A pull of ours that is cut off.
    let torn = format!(r#"{{"is_working":true,"moving":{{"from":"{first}","to":"{first}"}}}}"#);
    opened.at_rest(clone, later()).unwrap();
    fs::write(git("pickup-intent"), torn).unwrap();
    assert!(opened.at_rest(clone, later()).is_none());
}
