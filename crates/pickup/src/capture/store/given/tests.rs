use std::collections::HashSet;
use std::fs;
use std::path::PathBuf;

use super::*;

struct Case {
    directory: tempfile::TempDir,
    store: Store,
}

impl Case {
    fn new(max: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store"), max).unwrap();
        Self { directory, store }
    }

    fn file(&self, content: &str) -> PathBuf {
        let path = self.directory.path().join("given");
        fs::write(&path, content).unwrap();
        path
    }

    /// How many bytes nobody has pinned.
    fn loose(&self) -> u64 {
        self.store.collect(|| Ok(HashSet::new())).unwrap()
    }

    fn has_no_temporaries(&self) -> bool {
        fs::read_dir(self.store.temp_dir()).unwrap().count() == 0
    }
}

#[test]
fn given_bytes_are_stored_and_pinned() {
    let case = Case::new(100);
    let file = case.store.put(Path::new("a"), b"hello", 0o755).unwrap();
    assert_eq!((file.size, file.mode, file.read().unwrap()), (5, 0o755, b"hello".to_vec()));
    case.store.verify(&file.digest).unwrap();
    assert_eq!(case.loose(), 0);
    case.store.unpin(&file.digest);
    assert_eq!(case.loose(), 5);
}

#[test]
fn a_given_file_is_moved_into_the_store() {
    let case = Case::new(100);
    let path = case.file("hello");
    let file = case.store.adopt(Path::new("a"), &path, 0o644).unwrap();
    assert!(!path.exists() && case.has_no_temporaries());
    assert_eq!(file.read().unwrap(), b"hello");
    assert!(fs::metadata(file.path().unwrap()).unwrap().permissions().readonly());
    case.store.verify(&file.digest).unwrap();
    // A second one is thrown away, because the content is there.
    let again = case.store.adopt(Path::new("b"), &case.file("hello"), 0o644).unwrap();
    assert_eq!(again.digest, file.digest);
    assert!(!path.exists() && case.has_no_temporaries());
}

#[test]
fn what_is_shared_is_pinned_as_often() {
    let case = Case::new(100);
    let file = case.store.put(Path::new("a"), b"hello", 0o644).unwrap();
    let shared = case.store.share(&file, 0o755);
    assert_eq!((shared.digest, shared.mode), (file.digest, 0o755));
    case.store.unpin(&file.digest);
    assert_eq!(case.loose(), 0);
    case.store.unpin(&file.digest);
    assert_eq!(case.loose(), 5);
}

#[test]
fn what_has_no_room_leaves_no_trace() {
    let case = Case::new(8);
    case.store.put(Path::new("a"), b"hello", 0o644).unwrap();
    let path = case.file("world");
    for (error, is_transient) in [
        (case.store.put(Path::new("b"), b"world", 0o644).unwrap_err(), true),
        (case.store.adopt(Path::new("b"), &path, 0o644).unwrap_err(), true),
        (case.store.put(Path::new("b"), b"more than 8", 0o644).unwrap_err(), false),
        (case.store.adopt(Path::new("b"), &case.file("more than 8"), 0o644).unwrap_err(), false),
    ] {
        assert_eq!((error.path(), error.is_transient()), (Some(Path::new("b")), is_transient), "{error}");
    }
    assert!(!path.exists() && case.has_no_temporaries());
    assert_eq!(case.store.put(Path::new("c"), b"abc", 0o644).unwrap().size, 3, "the room was given back");
}

#[cfg(unix)]
#[test]
fn a_symlink_is_not_adopted() {
    let case = Case::new(100);
    let link = case.directory.path().join("link");
    std::os::unix::fs::symlink(case.file("hello"), &link).unwrap();
    assert!(case.store.adopt(Path::new("a"), &link, 0o644).is_err());
    assert!(case.store.adopt(Path::new("a"), case.directory.path(), 0o644).is_err());
    assert!(case.directory.path().exists());
}
