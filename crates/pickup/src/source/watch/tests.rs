//! The real watcher, on real directories.
#![expect(clippy::disallowed_methods, reason = "a watcher needs a directory")]

use std::fs;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::*;
use crate::path::UnitPath;

struct Heard {
    watcher: Watcher,
    subscriber: Subscriber,
    notices: Receiver<Notice>,
}

impl Heard {
    fn start() -> Self {
        let watcher = Watcher::start();
        let (sender, notices) = channel();
        let sender = Mutex::new(sender);
        let subscriber = watcher.subscribe(Arc::new(move |notice| {
            let _ = lock(&sender).send(notice);
        }));
        Self { watcher, subscriber, notices }
    }

    fn directory(&self, path: &Path, below: &str) {
        let target = Target::Directory(place(below));
        assert_eq!(self.watcher.watch(self.subscriber, &[(path.to_path_buf(), target)]), []);
    }

    /// Waits until a notice comes that satisfies the claim; everything heard until then is in the failure.
    fn wait_for(&self, claim: impl Fn(&Notice) -> bool) {
        let mut heard = Vec::new();
        while let Ok(notice) = self.notices.recv_timeout(Duration::from_secs(10)) {
            if claim(&notice) {
                return;
            }
            heard.push(notice);
        }
        panic!("it never came; heard {heard:#?}");
    }
}

fn place(path: &str) -> Place {
    Place { root: 0, path: UnitPath::new(path).unwrap() }
}

fn entry(path: &str, hint: Option<Hint>) -> impl Fn(&Notice) -> bool {
    let wanted = Notice::Entry { place: place(path), hint };
    move |notice| *notice == wanted
}

#[test]
fn a_watched_directory_tells_what_happens_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let heard = Heard::start();
    heard.directory(directory.path(), "sub");
    fs::write(directory.path().join("a"), "x").unwrap();
    heard.wait_for(entry("sub/a", Some(Hint::Created)));
    heard.wait_for(entry("sub/a", Some(Hint::Closed)));
    fs::rename(directory.path().join("a"), directory.path().join("b")).unwrap();
    heard.wait_for(entry("sub/a", None));
    heard.wait_for(entry("sub/b", Some(Hint::MovedIn)));
    fs::remove_file(directory.path().join("b")).unwrap();
    heard.wait_for(entry("sub/b", None));
}

#[test]
fn one_directory_under_two_names_tells_both() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().join("real");
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, directory.path().join("link")).unwrap();
    let heard = Heard::start();
    heard.directory(&real, "real");
    heard.directory(&directory.path().join("link"), "link");
    fs::write(real.join("a"), "x").unwrap();
    heard.wait_for(entry("real/a", Some(Hint::Closed)));
    heard.wait_for(entry("link/a", Some(Hint::Closed)));
}

#[test]
fn a_directory_made_again_can_be_watched_again() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("inner");
    let heard = Heard::start();
    heard.directory(directory.path(), "");
    for round in 0..20 {
        fs::create_dir(&inner).unwrap();
        heard.wait_for(entry("inner", Some(Hint::Scan)));
        heard.directory(&inner, "inner");
        let name = format!("{round}");
        fs::write(inner.join(&name), "x").unwrap();
        heard.wait_for(entry(&format!("inner/{name}"), Some(Hint::Closed)));
        fs::remove_dir_all(&inner).unwrap();
        heard.wait_for(entry("inner", None));
    }
}

#[test]
fn an_anchor_tells_of_its_name_only() {
    let directory = tempfile::tempdir().unwrap();
    let heard = Heard::start();
    let target = Target::Anchor { root: 3, name: "wanted".into() };
    assert_eq!(heard.watcher.watch(heard.subscriber, &[(directory.path().to_path_buf(), target)]), []);
    fs::create_dir(directory.path().join("other")).unwrap();
    fs::create_dir(directory.path().join("wanted")).unwrap();
    assert_eq!(heard.notices.recv_timeout(Duration::from_secs(10)), Ok(Notice::Anchor { root: 3, is_exchanged: true }));
}

#[test]
fn a_directory_exchanged_with_another_is_watched_to_its_depth() {
    let directory = tempfile::tempdir().unwrap();
    let path = |below: &str| directory.path().join(below);
    fs::create_dir_all(path("tree/in/deep")).unwrap();
    fs::create_dir_all(path("other/deep")).unwrap();
    let heard = Heard::start();
    let watch = || {
        for below in ["", "in", "in/deep"] {
            heard.directory(&path("tree").join(below), below);
        }
    };
    watch();
    fs::rename(path("tree/in"), path("former")).unwrap();
    heard.wait_for(entry("in", None));
    fs::rename(path("other"), path("tree/in")).unwrap();
    heard.wait_for(entry("in", Some(Hint::MovedIn)));
    watch();
    fs::write(path("tree/in/deep/a"), "x").unwrap();
    heard.wait_for(entry("in/deep/a", Some(Hint::Closed)));
}

#[test]
fn a_directory_that_was_renamed_away_is_forgotten_with_all_below() {
    let directory = tempfile::tempdir().unwrap();
    let path = |below: &str| directory.path().join(below);
    fs::create_dir_all(path("tree/in/deep")).unwrap();
    let heard = Heard::start();
    for below in ["", "in", "in/deep"] {
        heard.directory(&path("tree").join(below), below);
    }
    fs::rename(path("tree/in"), path("former")).unwrap();
    heard.wait_for(entry("in", None));
    heard.watcher.forget_left();
    fs::write(path("former/deep/a"), "x").unwrap();
    fs::write(path("tree/end"), "x").unwrap();
    heard.wait_for(|notice| {
        assert!(!entry("in/deep/a", Some(Hint::Closed))(notice), "it is not below the root any more");
        entry("end", Some(Hint::Closed))(notice)
    });
    assert_eq!(lock(&heard.watcher.routes).points.len(), 1);
}

#[test]
fn what_cannot_be_watched_is_given_back_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let heard = Heard::start();
    let target = || Target::Directory(place(""));
    let wanted = [(directory.path().join("none"), target()), (directory.path().to_path_buf(), target())];
    assert_eq!(heard.watcher.watch(heard.subscriber, &wanted), [(0, Failure::Gone)]);
    fs::write(directory.path().join("a"), "x").unwrap();
    heard.wait_for(entry("a", Some(Hint::Closed)));
}

#[test]
fn after_the_end_of_a_subscription_nothing_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (Heard::start(), Heard::start());
    first.directory(directory.path(), "");
    second.directory(directory.path(), "");
    first.watcher.unsubscribe(first.subscriber);
    fs::write(directory.path().join("a"), "x").unwrap();
    second.wait_for(entry("a", Some(Hint::Closed)));
    assert_eq!(first.notices.try_iter().count(), 0);
}
