use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier};
use std::time::SystemTime;

use super::intake::IN_MEMORY_MAX;
use super::*;
use crate::source::Fingerprint;
use crate::source::probe::Read;

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

    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn try_capture(&self, path: &Path) -> Result<Captured> {
        let seen = Fingerprint::of(&fs::metadata(path).unwrap());
        self.store.capture(path, &seen, false)
    }

    fn capture(&self, path: &Path) -> CapturedFile {
        match self.try_capture(path).unwrap() {
            Captured::File(file) => file,
            other => panic!("{other:?}"),
        }
    }

    fn put(&self, name: &str, content: &[u8]) -> CapturedFile {
        self.capture(&self.file(name, content))
    }

    fn temps(&self) -> usize {
        fs::read_dir(self.store.temp_dir()).unwrap().count()
    }
}

/// Larger than what is captured through memory.
fn large(byte: u8) -> Vec<u8> {
    vec![byte; IN_MEMORY_MAX as usize + 1000]
}

fn digest(content: &[u8]) -> Digest {
    Digest(*blake3::hash(content).as_bytes())
}

#[test]
fn captured_bytes_are_stored_under_their_digest() {
    let case = Case::new(1 << 30);
    for content in [b"".to_vec(), b"hello".to_vec(), large(1)] {
        let file = case.put("a", &content);
        assert_eq!((file.digest, file.size), (digest(&content), content.len() as u64));
        for _ in 0..2 {
            assert_eq!(file.read().unwrap(), content);
            let path = file.path().unwrap();
            assert_eq!((&path, fs::read(&path).unwrap()), (&case.store.path(&file.digest), content.clone()));
        }
        assert!(case.store.contains(&file.digest));
        case.store.verify(&file.digest).unwrap();
    }
    assert_eq!(case.store.used(), 5 + IN_MEMORY_MAX + 1000);
    assert_eq!(case.temps(), 0);
}

#[cfg(unix)]
#[test]
fn the_store_is_private_and_its_files_are_read_only() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::new(1 << 30);
    let path = case.file("a", b"x");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
    let file = case.capture(&path);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(file.mode, 0o4755);
    assert_eq!(mode(&file.path().unwrap()), 0o444);
    assert_eq!(mode(&case.store.shelf.dir), 0o700);
    assert_eq!(mode(file.path().unwrap().parent().unwrap()), 0o700);
}

#[test]
fn the_same_bytes_are_stored_once() {
    let case = Case::new(1 << 30);
    for content in [b"same".to_vec(), large(2)] {
        let before = case.store.used();
        let (one, two) = (case.put("a", &content), case.put("b", &content));
        assert_eq!(one.path().unwrap(), two.path().unwrap());
        assert_eq!(case.store.used() - before, content.len() as u64);
    }
    assert_eq!(case.temps(), 0);
}

#[test]
fn what_was_read_already_is_stored_unless_the_file_changed_since() {
    let case = Case::new(1 << 30);
    let path = case.file("a", b"one");
    let read = Read { content: b"one".to_vec(), file: Some(File::open(&path).unwrap()) };
    let seen = Fingerprint::of(&fs::metadata(&path).unwrap());
    let Captured::File(file) = case.store.capture_read(&path, &seen, &read).unwrap() else { panic!() };
    assert_eq!((file.read().unwrap(), file.digest), (b"one".to_vec(), digest(b"one")));
    case.store.unpin(&file.digest);
    case.file("a", b"longer");
    // A file that was just written is looked at once more.
    let now = Fingerprint { mtime: i64::MAX, ..seen };
    assert_eq!(case.store.capture_read(&path, &now, &read).unwrap(), Captured::Moved);
    assert!(case.store.state().pinned.is_empty());
    assert_eq!(case.temps(), 0);
}

#[test]
fn a_file_that_was_just_written_is_looked_at_once_more_when_its_bytes_are_stored() {
    let hour = std::time::Duration::from_secs(3600);
    for (age, is_seen) in [(std::time::Duration::ZERO, true), (hour, false)] {
        let case = Case::new(1 << 30);
        let path = case.file("a", b"one");
        let file = File::options().append(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
        let seen = Fingerprint::of(&file.metadata().unwrap());
        let write_more = move |step| if step == StoreWrite::Rename { (&file).write_all(b" more") } else { Ok(()) };
        let store = case.store.with_hook(Some(Hook::new(write_more)));
        let captured = store.capture(&path, &seen, false).unwrap();
        assert_eq!(captured == Captured::Moved, is_seen, "{captured:?}");
        assert_eq!(store.state().pinned.is_empty(), is_seen);
    }
}

#[test]
fn a_file_that_is_not_the_expected_one_has_moved() {
    let case = Case::new(1 << 30);
    let path = case.file("a", b"one");
    let seen = Fingerprint::of(&fs::metadata(&path).unwrap());
    fs::remove_file(&path).unwrap();
    assert_eq!(case.store.capture(&path, &seen, false).unwrap(), Captured::Gone);
    case.file("b", b"keeps the inode number from being used again");
    case.file("a", b"one");
    assert_eq!(case.store.capture(&path, &seen, false).unwrap(), Captured::Moved);
    assert_eq!(case.store.capture(&path.join("below"), &seen, false).unwrap(), Captured::Gone);
    assert_eq!((case.store.used(), case.temps()), (0, 0));
}

#[cfg(unix)]
#[test]
fn a_symlink_is_captured_only_where_it_may_be_followed() {
    let case = Case::new(1 << 30);
    let path = case.file("a", b"one");
    let seen = Fingerprint::of(&fs::metadata(&path).unwrap());
    let link = case.directory.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(case.store.capture(&link, &seen, false).unwrap(), Captured::Moved);
    assert!(matches!(case.store.capture(&link, &seen, true).unwrap(), Captured::File(_)));
}

#[test]
fn a_file_that_is_being_written_is_captured_as_seen_or_not_at_all() {
    let case = Case::new(1 << 30);
    let length = large(0).len();
    let path = case.file("a", &large(0));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1_u8.. {
                fs::write(&path, vec![round; length]).unwrap();
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        for _ in 0..200 {
            if let Captured::File(file) = case.try_capture(&path).unwrap() {
                let stored = file.read().unwrap();
                assert_eq!(digest(&stored), file.digest, "what is stored is what was hashed");
                assert_eq!(stored.len() as u64, file.size);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(case.temps(), 0);
}

#[test]
fn what_can_never_fit_names_store_max_and_is_not_tried_again() {
    let case = Case::new(100);
    for content in [vec![1; 101], large(1)] {
        let error = case.try_capture(&case.file("a", &content)).unwrap_err();
        assert!(error.to_string().contains("with a `store_max` of 100 bytes"), "{error}");
        assert!(!error.is_transient());
    }
    assert_eq!((case.store.used(), case.temps()), (0, 0));
}

/// What is to be kept: nothing.
fn nothing() -> crate::error::Result<HashSet<crate::capture::Digest>> {
    Ok(HashSet::new())
}

#[test]
fn a_full_store_refuses_until_something_was_collected() {
    let size = large(0).len() as u64;
    let case = Case::new(size + 10);
    let first = case.put("a", &large(1));
    let path = case.file("b", &large(2));
    let error = case.try_capture(&path).unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("`store_max`"), "{error}");
    assert_eq!(case.put("same", &large(1)), first, "what is stored already needs no room");
    assert_eq!(case.put("small", b"0123456789").size, 10);
    assert!(case.try_capture(&case.file("c", b"x")).is_err());
    assert_eq!(case.temps(), 0);

    case.store.unpin(&first.digest);
    let list_then_unpin = || {
        case.store.unpin(&first.digest);
        Ok(HashSet::new())
    };
    assert_eq!(case.store.collect(list_then_unpin).unwrap(), 0, "the list may be older than a reference");
    assert_eq!(case.store.collect(nothing).unwrap(), size);
    assert_eq!(case.store.used(), 10);
    case.capture(&path);
}

#[test]
fn collecting_spares_what_is_kept_or_pinned() {
    let case = Case::new(1 << 30);
    let (kept, pinned, twice, loose) =
        (case.put("a", b"k"), case.put("b", b"pp"), case.put("c", b"ttt"), case.put("d", b"lost"));
    case.put("e", b"ttt");
    for file in [&kept, &twice, &loose] {
        case.store.unpin(&file.digest);
    }
    let keep = HashSet::from([kept.digest]);
    assert_eq!(case.store.collect(|| Ok(keep)).unwrap(), 4);
    assert!([&kept, &pinned, &twice].iter().all(|file| case.store.contains(&file.digest)));
    assert!(!case.store.contains(&loose.digest));
    assert_eq!(case.store.used(), 1 + 2 + 3);
}

#[test]
fn a_store_that_is_opened_again_knows_what_it_holds_and_sweeps_temporaries() {
    let case = Case::new(1 << 30);
    let file = case.put("a", b"hello");
    case.store.write_out().unwrap();
    fs::write(case.store.temp_dir().join("7"), "half").unwrap();
    let again = Store::open(&case.store.shelf.dir, 1 << 30).unwrap();
    assert_eq!((again.used(), case.temps()), (5, 0));
    assert!(again.contains(&file.digest));
    assert_eq!(again.collect(nothing).unwrap(), 5);
}

#[test]
fn damaged_content_is_noticed_and_can_be_captured_again() {
    let case = Case::new(1 << 30);
    let content = b"precious";
    let file = case.put("a", content);
    // As after a power failure: the right size, and zeros. The file is read-only, so it is replaced.
    let damage = || {
        fs::remove_file(file.path().unwrap()).unwrap();
        fs::write(file.path().unwrap(), [0; 8]).unwrap();
    };
    damage();
    let error = case.store.verify(&file.digest).unwrap_err();
    assert!(error.to_string().contains("the content store is damaged") && error.is_transient(), "{error}");
    assert_eq!(case.put("a", content), file);
    damage();
    assert!(case.store.verify(&file.digest).is_err());
    assert!(!case.store.contains(&file.digest) && case.store.used() == 0);
}

#[test]
fn torn_content_of_another_size_is_replaced() {
    let case = Case::new(1 << 30);
    let file = case.put("a", b"precious");
    fs::remove_file(file.path().unwrap()).unwrap();
    fs::write(file.path().unwrap(), b"pre").unwrap();
    let again = Store::open(&case.store.shelf.dir, 1 << 30).unwrap();
    let path = case.directory.path().join("a");
    let seen = Fingerprint::of(&fs::metadata(&path).unwrap());
    assert_eq!(again.capture(&path, &seen, false).unwrap(), Captured::File(file.clone()));
    again.verify(&file.digest).unwrap();
    again.put_away_some().unwrap();
    again.verify(&file.digest).unwrap();
    assert_eq!(again.used(), 8);
}

#[test]
fn captures_on_several_threads_and_collections_agree() {
    let case = Case::new(1 << 30);
    std::thread::scope(|scope| {
        for thread in 0..3_u8 {
            let case = &case;
            scope.spawn(move || {
                for round in 0..60_u8 {
                    let file = case.put(&format!("{thread}"), &[round % 7; 100]);
                    assert!(case.store.contains(&file.digest));
                    case.store.unpin(&file.digest);
                }
            });
        }
        for _ in 0..50 {
            case.store.collect(nothing).unwrap();
        }
    });
    case.store.collect(nothing).unwrap();
    assert_eq!((case.store.used(), case.temps()), (0, 0));
}

#[test]
fn a_store_that_cannot_be_written_is_a_transient_error_without_a_trace() {
    let case = Case::new(1 << 30);
    fs::remove_dir(case.store.temp_dir()).unwrap();
    let error = case.try_capture(&case.file("a", &large(3))).unwrap_err();
    assert!(error.is_transient() && error.io_error().is_some(), "{error}");
    assert_eq!(case.store.used(), 0);
}

#[test]
fn half_of_a_small_file_that_a_crash_left_is_thrown_away_at_the_next_start() {
    let case = Case::new(1 << 30);
    let (torn, whole, other) = (case.put("a", b"torn"), case.put("b", b"whole"), case.put("c", b"of nobody"));
    [&torn, &whole, &other].iter().for_each(|file| drop(file.path().unwrap()));
    let tear = |file: &CapturedFile| {
        fs::remove_file(file.path().unwrap()).unwrap();
        fs::write(file.path().unwrap(), "to").unwrap();
    };
    tear(&torn);
    let known = HashMap::from([(torn.digest, 4), (whole.digest, 5)]);
    // The first store was not closed.
    let again = Store::open(&case.store.shelf.dir, 1 << 30).unwrap();
    let mut expected = [whole.digest, other.digest];
    expected.sort_unstable();
    assert_eq!(again.stored(|digest| known.get(digest).copied()).unwrap(), expected);
    assert!(!torn.named().exists());
    assert_eq!(again.used(), 5 + 9);
    drop(again);
    // After one that was, known files are not looked at.
    tear(&whole);
    let again = Store::open(&case.store.shelf.dir, 1 << 30).unwrap();
    assert_eq!(again.stored(|digest| known.get(digest).copied()).unwrap(), expected);
}

#[test]
fn a_small_file_that_cannot_be_written_leaves_no_trace_and_spares_what_has_its_name() {
    let case = Case::new(1 << 30);
    let there = case.put("there", b"there");
    case.store.unpin(&there.digest);
    there.path().unwrap();
    for failing in [StoreWrite::Create, StoreWrite::Write, StoreWrite::Rename] {
        let fail = move |step| if step == failing { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) };
        let broken = Store::open(&case.store.shelf.dir, 1 << 30).unwrap().with_hook(Some(Hook::new(fail)));
        for content in ["new", "there"] {
            let path = case.file("a", content.as_bytes());
            let seen = Fingerprint::of(&fs::metadata(&path).unwrap());
            let is_known = content == "there";
            assert_eq!(broken.capture(&path, &seen, false).is_ok(), is_known, "{failing:?} {content}");
        }
        assert_eq!(broken.used(), 5, "{failing:?}");
        assert_eq!(there.read().unwrap(), b"there");
    }
}

#[test]
fn what_others_do_to_a_small_file_while_it_is_written_harms_nobody() {
    let content = b"contended";
    let actions: [fn(&Store, &Path, &Digest); 3] = [
        |store, path, _| {
            let seen = Fingerprint::of(&fs::metadata(path).unwrap());
            assert!(matches!(store.capture(path, &seen, false).unwrap(), Captured::File(_)));
        },
        |store, _, _| assert_eq!(store.collect(nothing).unwrap(), 0),
        // Half of it is there, which looks like damage until it is looked at in its turn.
        |store, _, digest| store.verify(digest).unwrap(),
    ];
    for action in actions {
        let case = Case::new(1 << 30);
        let (path, digest) = (case.file("a", content), digest(content));
        let (written, waited) = (Barrier::new(2), AtomicBool::new(false));
        let (written, waited) = (Arc::new(written), Arc::new(waited));
        let hook = Hook::new({
            let (written, waited) = (written.clone(), waited.clone());
            move |step| {
                // The file is there, and nothing or all of it is in it.
                if step == StoreWrite::Write && !waited.swap(true, Ordering::Relaxed) {
                    written.wait();
                }
                Ok(())
            }
        });
        let store = Store::open(&case.store.shelf.dir, 1 << 30).unwrap().with_hook(Some(hook));
        let file = std::thread::scope(|scope| {
            scope.spawn(|| {
                written.wait();
                action(&store, &path, &digest);
            });
            let seen = Fingerprint::of(&fs::metadata(&path).unwrap());
            let Captured::File(file) = store.capture(&path, &seen, false).unwrap() else { panic!() };
            file
        });
        assert_eq!(file.read().unwrap(), content);
        assert_eq!((store.used(), case.temps()), (9, 0));
    }
}

impl Store {
    fn used(&self) -> u64 {
        self.count().unwrap();
        self.state().used
    }
}
