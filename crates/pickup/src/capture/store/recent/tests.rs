use std::fs;

use super::*;
use crate::capture::store::small::BRIEF_MAX;
use crate::capture::store::{Hook, Store, StoreWrite};
use crate::capture::{CapturedFile, stored_path};

struct Case {
    directory: tempfile::TempDir,
}

impl Case {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn dir(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    fn open(&self) -> Store {
        Store::open(&self.dir(), 1 << 30).unwrap()
    }

    fn recent(&self) -> Vec<u8> {
        fs::read(self.dir().join(FILE_NAME)).unwrap()
    }
}

fn reopened(case: &Case) -> Recent {
    Unread::open(&case.dir()).unwrap().read().unwrap()
}

fn put(store: &Store, content: &[u8]) -> CapturedFile {
    let file = store.put(Path::new("a"), content, 0o644).unwrap();
    store.write_out().unwrap();
    file
}

fn used(store: &Store) -> u64 {
    store.stored(|_| None).unwrap();
    store.state().used
}

#[test]
fn what_is_captured_gets_a_file_of_its_own_when_it_is_put_away() {
    let case = Case::new();
    let store = case.open();
    let contents: [&[u8]; 3] = [b"", b"one", b"other"];
    let files = contents.map(|content| put(&store, content));
    assert_eq!(put(&store, b"one"), files[1], "the same again");
    assert_eq!(store.stored(|_| None).unwrap().len(), 3);
    for (file, content) in files.iter().zip(contents) {
        assert!(!file.named().exists() && store.contains(&file.digest));
        assert_eq!(file.read().unwrap(), content);
    }
    assert_eq!(used(&store), 8);
    assert!(!store.put_away_some().unwrap() && !store.has_recent());
    for (file, content) in files.iter().zip(contents) {
        assert_eq!(fs::read(file.named()).unwrap(), content);
        assert_eq!(file.read().unwrap(), content);
    }
    assert_eq!((used(&store), case.recent()), (8, Vec::new()));
    // The file begins anew.
    put(&store, b"next");
    assert_eq!(case.recent().len(), HEAD_LENGTH + 4);
}

#[test]
fn many_are_written_at_once_and_can_be_read_before_and_after() {
    let case = Case::new();
    let store = case.open();
    let contents: Vec<Vec<u8>> = (0..40_u8).map(|at| vec![at; usize::from(at) * 200]).collect();
    let keep = |content: &Vec<u8>| store.put(Path::new("a"), content, 0o644).unwrap();
    let files: Vec<CapturedFile> = contents.iter().map(keep).collect();
    let are_whole = || files.iter().zip(&contents).all(|(file, content)| file.read().unwrap() == *content);
    let written = case.recent().len();
    assert!((HEAD_LENGTH..=2 * UNWRITTEN_MAX).contains(&written) && are_whole(), "{written}");
    store.write_out().unwrap();
    let all: usize = contents.iter().map(|content| HEAD_LENGTH + content.len()).sum();
    assert!(case.recent().len() == all && are_whole());
    let named = files.last().unwrap().path().unwrap();
    assert_eq!(fs::read(named).unwrap(), contents[39]);
    while store.put_away_some().unwrap() {}
    assert!(case.recent().is_empty() && are_whole());
}

#[test]
fn what_cannot_be_written_stays_in_memory_and_is_written_later() {
    let case = Case::new();
    let store = case.open();
    fs::create_dir(case.dir().join(FILE_NAME)).unwrap();
    let keep = |content: &[u8]| store.put(Path::new("a"), content, 0o644);
    let one = keep(b"one").unwrap();
    assert!(store.write_out().unwrap_err().is_transient());
    let large = [7; BRIEF_MAX];
    let kept: Vec<_> = (0..8).map(|at| keep(&[&large[1..], &[at]].concat())).collect();
    assert!(kept.iter().any(Result::is_err), "there is an end to it");
    let kept: Vec<CapturedFile> = kept.into_iter().filter_map(Result::ok).collect();
    assert!(kept.iter().all(|file| file.read().unwrap().len() == BRIEF_MAX));
    assert_eq!(used(&store), 3 + (kept.len() * BRIEF_MAX) as u64);
    fs::remove_dir(case.dir().join(FILE_NAME)).unwrap();
    store.write_out().unwrap();
    assert_eq!(one.read().unwrap(), b"one");
    std::mem::forget(store);
    let again = case.open();
    assert!(kept.iter().chain([&one]).all(|file| again.contains(&file.digest)));
}

#[test]
fn what_a_crash_left_is_there_after_it() {
    let case = Case::new();
    let store = case.open();
    let files = [b"one".as_slice(), b"other"].map(|content| put(&store, content));
    files[1].path().unwrap();
    // Nobody closes it.
    std::mem::forget(store);
    let store = case.open();
    for (file, content) in files.iter().zip([b"one".as_slice(), b"other"]) {
        let file = store.file(file.digest, file.size, file.mode);
        assert!(store.contains(&file.digest));
        assert_eq!(file.read().unwrap(), content);
        store.verify(&file.digest).unwrap();
    }
    // One of them is there twice, which is counted until it is seen.
    assert_eq!(used(&store), 8 + 5);
    while store.put_away_some().unwrap() {}
    assert_eq!(used(&store), 8);
}

#[test]
fn whoever_asks_while_much_is_being_read_waits_for_it() {
    let case = Case::new();
    let store = case.open();
    let content = |at: u32| at.to_le_bytes().repeat(500);
    let files: Vec<CapturedFile> = (0..200).map(|at| put(&store, &content(at))).collect();
    std::mem::forget(store);
    assert!(Unread::open(&case.dir()).unwrap().is_long());
    let store = case.open();
    for (file, at) in files.iter().zip(0..) {
        assert!(store.contains(&file.digest));
        assert_eq!(store.file(file.digest, file.size, file.mode).read().unwrap(), content(at));
    }
    put(&store, b"new");
    std::mem::forget(store);
    assert!(files.iter().all(|file| case.open().contains(&file.digest)));
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_no_regular_file_is_an_error_and_nobody_waits_for_it() {
    let case = Case::new();
    drop(case.open());
    rustix::fs::mkfifoat(rustix::fs::CWD, case.dir().join(FILE_NAME), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let error = Store::open(&case.dir(), 1 << 30).unwrap_err().to_string();
    assert!(error.contains("is not a regular file"), "{error}");
}

#[test]
fn of_what_a_crash_cut_off_the_whole_records_are_left_and_new_ones_follow_them() {
    let contents = [b"first".as_slice(), b"", b"and the third"];
    let case = Case::new();
    let store = case.open();
    let digests = contents.map(|content| put(&store, content).digest);
    let all = case.recent();
    drop(store);
    let ends = contents.iter().scan(0, |end, content| {
        *end += HEAD_LENGTH + content.len();
        Some(*end)
    });
    let ends: Vec<usize> = ends.collect();
    for cut in 0..=all.len() {
        // Behind the end lies what was there before, as after a file that became shorter.
        for rest in [b"".as_slice(), &[0; 100], &all[HEAD_LENGTH + 2..]] {
            fs::write(case.dir().join(FILE_NAME), [&all[..cut], rest].concat()).unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let mut recent = reopened(&case);
            let found = digests.map(|digest| recent.length(&digest).is_some());
            assert!(found[..whole].iter().all(|found| *found), "{cut}");
            let new = Digest(*blake3::hash(b"new").as_bytes());
            recent.add(&new, b"new").unwrap();
            recent.write_out().unwrap();
            let again = reopened(&case);
            assert_eq!(again.read(&new).unwrap().unwrap(), b"new", "{cut}");
            for (digest, content) in digests.iter().zip(contents).take(whole) {
                assert_eq!(again.read(digest).unwrap().unwrap(), content, "{cut}");
            }
        }
    }
}

#[test]
fn damage_is_noticed_and_the_content_can_be_captured_again() {
    let case = Case::new();
    let store = case.open();
    let file = put(&store, b"precious");
    let damage = || {
        let mut bytes = case.recent();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(case.dir().join(FILE_NAME), bytes).unwrap();
    };
    store.unpin(&file.digest);
    damage();
    assert!(file.read().is_err());
    let error = store.verify(&file.digest).unwrap_err();
    assert!(error.to_string().contains("the content store is damaged") && error.is_transient(), "{error}");
    assert_eq!(error.path(), Some(file.named().as_path()));
    assert!(!store.contains(&file.digest));
    assert_eq!(used(&store), 0);
    assert_eq!(put(&store, b"precious").read().unwrap(), b"precious");
    // The next start reads up to it.
    damage();
    drop(store);
    assert!(!case.open().has_recent());
}

#[test]
fn a_collection_spares_what_is_kept_or_pinned() {
    let case = Case::new();
    let store = case.open();
    let [kept, pinned, loose] = [b"k".as_slice(), b"pp", b"ttt"].map(|content| put(&store, content));
    [&kept, &loose].iter().for_each(|file| store.unpin(&file.digest));
    let keep = std::collections::HashSet::from([kept.digest]);
    assert_eq!(store.collect(|| Ok(keep)).unwrap(), 3);
    assert!(store.contains(&kept.digest) && store.contains(&pinned.digest) && !store.contains(&loose.digest));
    assert_eq!(used(&store), 3);
    assert!(loose.read().is_err());
}

#[test]
fn what_cannot_be_put_away_stays_where_it_is_until_it_can() {
    for failing in [StoreWrite::Create, StoreWrite::Write, StoreWrite::Rename] {
        let case = Case::new();
        let file = put(&case.open(), b"content");
        let is_broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
        let fail = is_broken.clone();
        let hook = move |step| {
            let fails = step == failing && fail.load(std::sync::atomic::Ordering::Relaxed);
            if fails { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        };
        let store = case.open().with_hook(Some(Hook::new(hook)));
        let file = store.file(file.digest, file.size, file.mode);
        assert!(store.put_away_some().is_err() && file.path().is_err(), "{failing:?}");
        assert!(store.has_recent() && !file.named().exists());
        assert_eq!((file.read().unwrap(), used(&store)), (b"content".to_vec(), 7));
        is_broken.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(!store.put_away_some().unwrap());
        assert_eq!((fs::read(file.named()).unwrap(), used(&store)), (b"content".to_vec(), 7));
    }
}

#[test]
fn content_that_has_a_file_already_is_counted_once_and_half_of_it_replaced() {
    let case = Case::new();
    let store = case.open();
    let file = put(&store, b"content");
    let path = file.path().unwrap();
    store.unpin(&file.digest);
    // Whether it has a file is not looked at when it comes again.
    put(&store, b"content");
    assert!(store.has_recent());
    assert!(!store.put_away_some().unwrap());
    assert_eq!(used(&store), 7);
    // A power failure left half.
    store.unpin(&file.digest);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "con").unwrap();
    let store = case.open();
    assert_eq!(used(&store), 3);
    put(&store, b"content");
    store.put_away_some().unwrap();
    assert_eq!((fs::read(&path).unwrap(), used(&store)), (b"content".to_vec(), 7));
}

#[test]
fn when_it_is_full_contents_get_files_of_their_own_at_once() {
    let case = Case::new();
    let store = case.open();
    let size = BRIEF_MAX;
    let fitting = LENGTH_MAX as usize / (size + HEAD_LENGTH);
    let content = |number: usize| {
        let mut content = number.to_le_bytes().to_vec();
        content.resize(size, 0);
        content
    };
    let last = (0..fitting + 2).map(|number| put(&store, &content(number))).last().unwrap();
    assert_eq!(fs::read(last.named()).unwrap(), content(fitting + 1));
    assert_eq!(store.state().recent.lengths().len(), fitting);
    assert_eq!(used(&store), (size * (fitting + 2)) as u64);
}

#[test]
fn a_captured_file_outlives_its_store() {
    let case = Case::new();
    let store = case.open();
    let file = put(&store, b"content");
    drop(store);
    assert_eq!(file.read().unwrap(), b"content");
    // Another engine of this process: what was recent has a file of its own, and the file of the recent ones begins anew.
    let next = case.open();
    next.put_away_some().unwrap();
    put(&next, b"another");
    assert_eq!(file.read().unwrap(), b"content");
    assert_eq!(fs::read(file.path().unwrap()).unwrap(), b"content");
}

#[test]
fn what_a_captured_file_does_after_its_store_is_gone_harms_no_other_store() {
    let case = Case::new();
    let store = case.open();
    let file = put(&store, b"content");
    drop(store);
    let next = case.open();
    let another = put(&next, b"another");
    file.path().unwrap();
    assert_eq!(another.read().unwrap(), b"another");
    drop(next);
    assert!(case.open().contains(&another.digest));
}

#[test]
fn a_damaged_file_is_replaced_by_what_was_captured_since() {
    let case = Case::new();
    let store = case.open();
    let file = put(&store, b"content");
    let path = file.path().unwrap();
    store.unpin(&file.digest);
    // The right size, and zeros.
    fs::remove_file(&path).unwrap();
    fs::write(&path, [0; 7]).unwrap();
    put(&store, b"content");
    assert_eq!(fs::read(file.path().unwrap()).unwrap(), b"content");
    assert_eq!(used(&store), 7);
}

#[test]
fn one_that_cannot_be_put_away_is_in_nobodys_way() {
    let case = Case::new();
    let store = case.open();
    let files: Vec<CapturedFile> = (0..20_u8).map(|byte| put(&store, &[byte])).collect();
    for file in &files[..10] {
        fs::create_dir(file.named()).unwrap();
    }
    assert!(store.put_away_some().is_err());
    for file in &files[10..] {
        assert!(file.named().is_file());
    }
    for file in &files[..10] {
        fs::remove_dir(file.named()).unwrap();
    }
    assert!(!store.put_away_some().unwrap());
}

#[test]
fn a_full_store_gives_up_what_it_has_twice() {
    let case = Case::new();
    let store = Store::open(&case.dir(), 12).unwrap();
    let file = put(&store, b"known");
    file.path().unwrap();
    // Nobody gives it a file once more while something else is waited for.
    store.unpin(&file.digest);
    put(&store, b"known");
    let try_put = || store.put(Path::new("b"), b"other", 0o644);
    assert!(try_put().is_err(), "counted twice");
    assert_eq!(store.collect(|| Ok(std::collections::HashSet::new())).unwrap(), 5);
    assert!(try_put().is_ok());
    assert_eq!(used(&store), 10);
    assert_eq!(file.read().unwrap(), b"known");
}

#[test]
fn a_store_on_top_of_another_has_what_is_recent_there_and_leaves_it_alone() {
    let case = Case::new();
    let below = case.open();
    let file = put(&below, b"content");
    let before = case.recent();
    let top = Store::open(&case.directory.path().join("top"), 1 << 30).unwrap().on_top_of(&case.dir()).unwrap();
    let on_top = top.file(file.digest, file.size, file.mode);
    assert!(top.contains(&file.digest));
    assert_eq!(on_top.read().unwrap(), b"content");
    assert_eq!(fs::read(on_top.path().unwrap()).unwrap(), b"content");
    assert_eq!(on_top.named(), stored_path(&case.directory.path().join("top"), &file.digest));
    assert_eq!(case.recent(), before);
    assert!(!file.named().exists());
}

#[test]
fn whoever_does_what_at_the_same_time_the_count_is_right() {
    let case = Case::new();
    let store = case.open();
    let contents: Vec<Vec<u8>> = (0..40_u8).map(|byte| vec![byte; usize::from(byte) * 7 + 1]).collect();
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (store, contents) = (&store, &contents);
            scope.spawn(move || {
                for turn in 0..150 {
                    let content = &contents[(turn * (2 * thread + 3) + thread) % contents.len()];
                    let file = put(store, content);
                    match (turn + thread) % 7 {
                        0 => drop(store.put_away_some().unwrap()),
                        1 => assert_eq!(&fs::read(file.path().unwrap()).unwrap(), content),
                        2 => drop(store.collect(|| Ok(std::collections::HashSet::from([file.digest]))).unwrap()),
                        3 => store.verify(&file.digest).unwrap(),
                        4 => drop(store.stored(|_| None).unwrap()),
                        _ => {}
                    }
                    assert_eq!(&file.read().unwrap(), content);
                    store.unpin(&file.digest);
                }
            });
        }
    });
    while store.put_away_some().unwrap() {}
    let counted = used(&store);
    drop(store);
    assert_eq!(counted, used(&case.open()));
}

#[test]
fn a_store_that_ends_late_writes_over_nothing_of_the_next() {
    let case = Case::new();
    let late = case.open();
    let _waits = late.put(Path::new("a"), b"waits", 0o644).unwrap();
    let next = case.open();
    let relied_on = put(&next, b"relied on");
    drop(late);
    std::mem::forget(next);
    let again = case.open();
    assert!(again.contains(&relied_on.digest), "lost");
}
