use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use super::*;
use crate::path::UnitPath;

/// A pickup directory and something outside it.
struct Case {
    _directory: tempfile::TempDir,
    root: PathBuf,
    outside: PathBuf,
    probe: Probe,
}

impl Case {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        let (root, outside) = (top.join("in"), top.join("out"));
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "s").unwrap();
        fs::write(root.join("a.txt"), "hello").unwrap();
        Self { _directory: directory, root, outside, probe: Probe::on_this_thread().unwrap() }
    }

    fn look_as(&self, path: &str, symlinks: Symlinks, known: Option<&Fingerprint>) -> Sight {
        let place = Place { root: 0, path: UnitPath::new(path).unwrap() };
        self.probe.look(&self.root, &place, symlinks, Hint::Scan, Before { known, ..Before::default() }).0
    }

    fn look(&self, path: &str) -> Sight {
        self.look_as(path, Symlinks::Inside, None)
    }
}

fn refusal(sight: Sight) -> String {
    let Sight::Refused(why) = sight else { panic!("not refused: {sight:?}") };
    why
}

#[test]
fn a_finished_file_is_seen_with_its_fingerprint() {
    let case = Case::new();
    let Sight::File { fingerprint, hint, writer, shape } = case.look("a.txt") else { panic!() };
    let metadata = fs::metadata(case.root.join("a.txt")).unwrap();
    assert_eq!(fingerprint, Fingerprint::of(&metadata));
    assert_eq!((fingerprint.size, hint, shape), (5, Hint::Scan, Shape::Whole));
    if cfg!(target_os = "linux") {
        assert_eq!(writer, Writer::Nobody);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_that_is_open_for_writing_has_a_writer_and_no_judged_shape() {
    let case = Case::new();
    let _writer = File::create(case.root.join("half.zip")).unwrap();
    let sight = case.look("half.zip");
    assert!(matches!(sight, Sight::File { writer: Writer::Somebody, shape: Shape::Whole, .. }), "{sight:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_small_file_that_nobody_writes_to_comes_with_its_bytes() {
    let case = Case::new();
    let place = |path| Place { root: 0, path: UnitPath::new(path).unwrap() };
    let read = |path, known: Option<&Fingerprint>| {
        let before = Before { known, ..Before::default() };
        let (sight, read) = case.probe.look(&case.root, &place(path), Symlinks::Inside, Hint::Scan, before);
        let Sight::File { fingerprint, .. } = sight else { panic!("{sight:?}") };
        let content_of = |read: Read| {
            assert!(read.file.is_none(), "it was held, and nobody waits any more");
            read.content
        };
        (fingerprint, read.map(content_of))
    };
    let (fingerprint, content) = read("a.txt", None);
    assert_eq!(content.as_deref(), Some(&b"hello"[..]));
    assert_eq!(read("a.txt", Some(&fingerprint)), (fingerprint, None));
    fs::write(case.root.join("empty"), "").unwrap();
    assert_eq!(read("empty", None).1.as_deref(), Some(&b""[..]));
    fs::write(case.root.join("large"), vec![1; READ_MAX as usize + 1]).unwrap();
    assert_eq!(read("large", None).1, None);
    let _writer = File::options().append(true).open(case.root.join("a.txt")).unwrap();
    assert_eq!(read("a.txt", None), (fingerprint, None));
}

#[test]
fn what_took_the_place_of_what_was_listed_is_what_is_seen() {
    let case = Case::new();
    let Sight::File { fingerprint: listed, .. } = case.look("a.txt") else { panic!() };
    let directory = Opened::open_real(&case.root).unwrap();
    let look = || {
        let place = Place { root: 0, path: UnitPath::new("a.txt").unwrap() };
        let glimpses =
            [(Some(&listed), None), (None, None), (Some(&listed), Some(&directory)), (None, Some(&directory))];
        let sights = glimpses.map(|(fingerprint, directory)| {
            let glimpse = Glimpse { fingerprint, directory, is_taken: true, is_new: false };
            let before = Before { glimpse: Some(glimpse), ..Before::default() };
            case.probe.look(&case.root, &place, Symlinks::Inside, Hint::Scan, before).0
        });
        let [first, ..] = &sights;
        assert!(sights.iter().all(|sight| sight == first), "{sights:?}");
        first.clone()
    };
    assert!(matches!(look(), Sight::File { fingerprint, .. } if fingerprint == listed));
    fs::write(case.root.join("b.txt"), "another").unwrap();
    fs::rename(case.root.join("b.txt"), case.root.join("a.txt")).unwrap();
    assert!(matches!(look(), Sight::File { fingerprint, .. } if fingerprint.size == 7));
    fs::remove_file(case.root.join("a.txt")).unwrap();
    assert_eq!(look(), Sight::Gone);
    symlink("../out/secret", case.root.join("a.txt")).unwrap();
    assert!(matches!(look(), Sight::Refused(_)));
    fs::remove_file(case.root.join("a.txt")).unwrap();
    fs::create_dir(case.root.join("a.txt")).unwrap();
    assert_eq!(look(), Sight::Gone);
}

#[test]
fn a_half_archive_is_partial_unless_it_was_judged_before() {
    let case = Case::new();
    fs::write(case.root.join("half.zip"), "PK\x03\x04").unwrap();
    let Sight::File { fingerprint, shape, .. } = case.look("half.zip") else { panic!() };
    assert!(matches!(shape, Shape::Partial(_)));
    let again = case.look_as("half.zip", Symlinks::Inside, Some(&fingerprint));
    assert!(matches!(again, Sight::File { shape: Shape::Whole, .. }));
}

#[test]
fn missing_names_and_directories_are_gone() {
    let case = Case::new();
    for path in ["missing", "a.txt/below", "sub", "no/such/dir"] {
        assert_eq!(case.look(path), Sight::Gone, "{path}");
    }
}

#[test]
fn what_is_no_file_is_refused_by_name() {
    let case = Case::new();
    rustix::fs::mkfifoat(rustix::fs::CWD, case.root.join("fifo"), 0o600.into()).unwrap();
    let _socket = UnixListener::bind(case.root.join("socket")).unwrap();
    assert_eq!(refusal(case.look("fifo")), "a FIFO, not a file");
    assert_eq!(refusal(case.look("socket")), "a socket, not a file");
    symlink("fifo", case.root.join("to-fifo")).unwrap();
    assert_eq!(refusal(case.look("to-fifo")), "a FIFO, not a file");
    symlink("/dev/null", case.root.join("null")).unwrap();
    assert_eq!(refusal(case.look_as("null", Symlinks::Follow, None)), "a device, not a file");
}

#[test]
fn a_symlink_that_stays_inside_is_followed() {
    let case = Case::new();
    symlink("../a.txt", case.root.join("sub/link")).unwrap();
    symlink("sub", case.root.join("dir")).unwrap();
    for path in ["sub/link", "dir/link"] {
        let sight = case.look(path);
        assert!(matches!(sight, Sight::File { fingerprint: Fingerprint { size: 5, .. }, .. }), "{path} {sight:?}");
    }
}

#[test]
fn a_symlink_that_leads_out_is_refused_unless_all_are_followed() {
    let case = Case::new();
    symlink(case.outside.join("secret"), case.root.join("link")).unwrap();
    symlink(&case.outside, case.root.join("dir")).unwrap();
    for path in ["link", "dir/secret"] {
        assert!(refusal(case.look(path)).starts_with("a symlink that leads out of the pickup directory: "), "{path}");
        let followed = case.look_as(path, Symlinks::Follow, None);
        assert!(matches!(followed, Sight::File { .. }), "{path} {followed:?}");
        assert!(refusal(case.look_as(path, Symlinks::Skip, None)).contains("`skip`"), "{path}");
    }
}

#[test]
fn a_sibling_that_shares_the_prefix_is_outside() {
    let case = Case::new();
    let sibling = case.root.with_file_name("in-other");
    fs::create_dir(&sibling).unwrap();
    fs::write(sibling.join("x"), "x").unwrap();
    symlink(sibling.join("x"), case.root.join("link")).unwrap();
    refusal(case.look("link"));
}

#[test]
fn dangling_and_circular_symlinks_are_refused() {
    let case = Case::new();
    symlink("nowhere", case.root.join("dangling")).unwrap();
    symlink("loop", case.root.join("loop")).unwrap();
    assert_eq!(refusal(case.look("dangling")), "a symlink that leads nowhere: nowhere");
    assert_eq!(refusal(case.look("loop")), "a symlink that leads to itself");
}

#[test]
fn a_name_that_is_too_long_or_holds_a_nul_is_unreadable() {
    let case = Case::new();
    assert!(matches!(case.look(&"x".repeat(300)), Sight::Unreadable(_)));
    assert!(matches!(case.look("a\0b"), Sight::Unreadable(_)));
}

#[test]
fn a_file_we_may_not_read_is_unreadable_and_not_gone() {
    let case = Case::new();
    fs::set_permissions(case.root.join("a.txt"), fs::Permissions::from_mode(0o000)).unwrap();
    // Root may read everything; for everybody else this is the case that counts.
    if File::open(case.root.join("a.txt")).is_err() {
        assert!(matches!(case.look("a.txt"), Sight::Unreadable(_)));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn no_symlink_on_the_way_is_followed_by_the_open_itself() {
    let case = Case::new();
    symlink(&case.outside, case.root.join("dir")).unwrap();
    let error = open_real(&case.root.join("dir/secret")).unwrap_err();
    assert!(is_loop(&error), "{error}");
}

#[test]
fn asking_for_a_writer_waits_for_nobody() {
    let case = Case::new();
    let fifo = case.root.join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    // Nobody has the other end open.
    assert_eq!(case.probe.writer(&fifo), Writer::Unknown);
    symlink(&case.outside, case.root.join("link")).unwrap();
    assert_eq!(case.probe.writer(&case.root.join("link")), Writer::Unknown);
}

#[test]
fn what_was_judged_to_be_incomplete_is_not_read_again_until_it_changes() {
    let case = Case::new();
    let place = Place { root: 0, path: UnitPath::new("a.gz").unwrap() };
    fs::write(case.root.join("a.gz"), "no gzip").unwrap();
    let judged = Fingerprint::of(&fs::metadata(case.root.join("a.gz")).unwrap());
    let look = || {
        let before = Before { partial: Some((&judged, "as it was judged")), ..Before::default() };
        let (sight, read) = case.probe.look(&case.root, &place, Symlinks::Inside, Hint::Scan, before);
        let Sight::File { shape: Shape::Partial(why), .. } = sight else { panic!("{sight:?}") };
        (why, read.is_some())
    };
    assert_eq!(look(), ("as it was judged".to_owned(), false));
    fs::write(case.root.join("a.gz"), "no gzip either").unwrap();
    assert!(look().0.starts_with("gzip: "), "{:?}", look());
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_there_is_not_gone_because_its_directory_was_made_anew() {
    let case = Case::new();
    let directory = Opened::open_real(&case.root.join("sub")).unwrap();
    fs::remove_dir_all(case.root.join("sub")).unwrap();
    fs::create_dir(case.root.join("sub")).unwrap();
    fs::write(case.root.join("sub/x"), "x").unwrap();
    let place = Place { root: 0, path: UnitPath::new("sub/x").unwrap() };
    let glimpse = Glimpse { fingerprint: None, directory: Some(&directory), is_taken: true, is_new: false };
    let before = Before { glimpse: Some(glimpse), ..Before::default() };
    let sight = case.probe.look(&case.root, &place, Symlinks::Inside, Hint::Scan, before).0;
    assert!(matches!(sight, Sight::File { .. }), "{sight:?}");
}
