use super::*;
use crate::deploy::testing::Sandbox;

fn root(sandbox: &Sandbox) -> Root {
    Root::create(&sandbox.path("into")).unwrap()
}

fn path(text: &str) -> UnitPath {
    UnitPath::new(text).unwrap()
}

fn directory(sandbox: &Sandbox) -> Parent {
    root(sandbox).parent(&path("x")).unwrap().unwrap()
}

#[test]
fn a_copy_of_any_length_is_exact() {
    let sandbox = Sandbox::new();
    let (root, stop) = (root(&sandbox), Stop::new(&sandbox.cx()));
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
        let bytes: Vec<_> = (0..length).map(|at| (at % 251) as u8).collect();
        let target = path(&format!("a/{length}"));
        root.write(&target, &sandbox.store(&bytes, 0o640), 0o640, &stop).unwrap();
        assert_eq!(std::fs::read(sandbox.path("into").join(target.as_path())).unwrap(), bytes);
    }
}

#[test]
fn a_damaged_store_is_not_deployed() {
    let sandbox = Sandbox::new();
    let (root, stop) = (root(&sandbox), Stop::new(&sandbox.cx()));
    let file = sandbox.store(b"good", 0o644);
    for (name, bytes) in [("a", &b"evil"[..]), ("b", b"goo"), ("c", b"good and more")] {
        std::fs::write(file.path().unwrap(), bytes).unwrap();
        let error = root.write(&path(name), &file, 0o644, &stop).unwrap_err();
        assert!(error.to_string().contains("content store is damaged"), "{error}");
    }
    std::fs::remove_file(file.path().unwrap()).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", file.path().unwrap()).unwrap();
    assert!(root.write(&path("d"), &file, 0o644, &stop).unwrap_err().io_error().is_some());
}

#[test]
fn a_copy_is_given_up_when_cancelled() {
    let sandbox = Sandbox::new();
    let cancel = tokio_util::sync::CancellationToken::new();
    let stop = Stop::new(&sandbox.cx().cancelled_by(&cancel));
    cancel.cancel();
    let error = root(&sandbox).write(&path("a"), &sandbox.store(b"x", 0o644), 0o644, &stop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

#[test]
fn a_symlink_on_the_way_is_not_followed() {
    let sandbox = Sandbox::new();
    let root = root(&sandbox);
    std::fs::create_dir(sandbox.path("outside")).unwrap();
    std::os::unix::fs::symlink(sandbox.path("outside"), sandbox.path("into/a")).unwrap();
    for result in [root.parent(&path("a/x")).map(drop), root.make_parent(&path("a/b/x"), &Made::default()).map(drop)] {
        let text = result.unwrap_err().to_string();
        assert!(text.ends_with("into/a, which is a symlink"), "{text}");
    }
    assert!(sandbox.listing("outside").is_empty());
}

#[test]
fn the_target_itself_may_be_a_symlink() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("real")).unwrap();
    std::os::unix::fs::symlink("real", sandbox.path("into")).unwrap();
    root(&sandbox).write(&path("a"), &sandbox.store(b"x", 0o644), 0o644, &Stop::new(&sandbox.cx())).unwrap();
    assert_eq!(sandbox.read("real/a"), "x");
}

#[test]
fn exchanging_keeps_both_files() {
    let sandbox = Sandbox::new();
    let directory = directory(&sandbox);
    for by_links in [false, true] {
        std::fs::write(sandbox.path("into/new"), "new").unwrap();
        std::fs::write(sandbox.path("into/x"), "old").unwrap();
        // Left by a crash.
        std::fs::write(sandbox.path("into/backup"), "stale").unwrap();
        let names = ["new", "x", "backup"].map(OsStr::new);
        if by_links {
            directory.exchange_by_links(names[0], names[1], names[2]).unwrap();
            assert_eq!(sandbox.listing("into"), ["new", "x"]);
        } else {
            directory.exchange(names[0], names[1], names[2]).unwrap();
        }
        assert_eq!((sandbox.read("into/x"), sandbox.read("into/new")), ("new".into(), "old".into()));
    }
}

#[test]
fn a_new_name_never_replaces_a_file() {
    let sandbox = Sandbox::new();
    let directory = directory(&sandbox);
    std::fs::write(sandbox.path("into/new"), "new").unwrap();
    std::fs::write(sandbox.path("into/x"), "theirs").unwrap();
    let (new, target) = (OsStr::new("new"), OsStr::new("x"));
    assert!(!directory.rename_new(new, target).unwrap());
    assert_eq!(directory.rename_new_by_link(new, &directory, target), Err(Errno::EXIST));
    assert_eq!(sandbox.read("into/x"), "theirs");
    std::fs::remove_file(sandbox.path("into/x")).unwrap();
    directory.rename_new_by_link(new, &directory, target).unwrap();
    assert_eq!(sandbox.listing("into"), ["x"]);
}

#[test]
fn only_directories_that_were_made_are_removed() {
    let sandbox = Sandbox::new();
    let (root, made) = (root(&sandbox), Made::default());
    std::fs::create_dir(sandbox.path("into/theirs")).unwrap();
    root.make_parent(&path("theirs/ours/deep/x"), &made).unwrap();
    let ours = made.above(root.path(), &path("theirs/ours/deep/x"));
    assert_eq!(ours, [path("theirs/ours"), path("theirs/ours/deep")]);
    for _ in 0..2 {
        root.remove_empty(&ours, &made).unwrap();
        assert_eq!(sandbox.listing("into"), ["theirs/"]);
    }
}
