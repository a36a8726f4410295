//! A repository that is kept open says what one that is opened anew would.

use std::fs;

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

/// What is known by one that was opened before, which must be what is found anew.
fn found(opened: &mut Opened, clone: &Path) -> Option<(String, Option<String>)> {
    let said = |here: AtRest| (here.commit, here.followed);
    let found = opened.at_rest(clone).map(said);
    assert_eq!(found, Opened::default().at_rest(clone).map(said));
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
    // git writes a file beside, and renames it.
    let settings = fs::read_to_string(clone.join(".git/config")).unwrap();
    let settings = settings + "[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/release\n";
    fs::write(clone.join(".git/config.lock"), settings).unwrap();
    fs::rename(clone.join(".git/config.lock"), clone.join(".git/config")).unwrap();
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
