//! Links that take the place of files and directories between a look and a deed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::sandbox::Sandbox;

const SECRET: &str = "the secret of somebody else";

/// Exchanges pairs of names with each other, over and over, until it is dropped; then everything is as it was.
struct Swapping {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Swapping {
    fn new(pairs: Vec<(PathBuf, PathBuf)>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let exchange = |(one, other): &(PathBuf, PathBuf)| {
            renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("exchange two names");
        };
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                pairs.iter().for_each(exchange);
                std::thread::yield_now();
                pairs.iter().for_each(exchange);
                std::thread::yield_now();
            }
        });
        Self { is_over, thread: Some(thread) }
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the swapping thread");
        }
    }
}

/// Every file below `directory` that holds the secret; files that come and go meanwhile are passed over.
fn betrayals(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(betrayals(&path));
        } else if fs::read(&path).is_ok_and(|content| String::from_utf8_lossy(&content).contains(SECRET)) {
            found.push(path);
        }
    }
    found
}

#[test]
fn a_link_that_takes_the_place_of_a_file_or_directory_is_never_followed_out() {
    let sandbox = Sandbox::new()
        .file("outside/f", SECRET)
        .file("outside/d/f", SECRET)
        .file("in/f", "harmless")
        .file("in/d/f", "harmless")
        .directory("aside");
    sandbox.symlink(sandbox.path("outside/f"), "aside/f");
    sandbox.symlink(sandbox.path("outside/d"), "aside/d");
    let daemon = sandbox.daemon();
    let pair = |name: &str| (sandbox.path("in").join(name), sandbox.path("aside").join(name));
    let swapping = Swapping::new(vec![pair("f"), pair("d")]);
    for round in 0..15 {
        // Something to do for the daemon, at names that may be anything by now.
        sandbox.write(format!("in/other{round}"), "other");
        daemon.sync();
        assert_eq!(betrayals(&sandbox.path("deployed")), Vec::<PathBuf>::new());
        assert_eq!(betrayals(&sandbox.path(".pickup")), Vec::<PathBuf>::new(), "not even captured");
    }
    drop(swapping);
    sandbox.write("in/f", "harmless again");
    sandbox.write("in/d/f", "harmless again");
    daemon.wait_until("both at the end", |_| {
        ["f", "d/f"].iter().all(|name| sandbox.read(format!("deployed/p/{name}")).as_deref() == Some("harmless again"))
    });
    assert_eq!(betrayals(&sandbox.path(".pickup")), Vec::<PathBuf>::new());
}

/// Runs with a directory below the target that is exchanged for a link out of it, and says what came to lie outside.
fn written_outside(sandbox: &Sandbox, target: &str) -> usize {
    let sandbox_path = |path: &str| sandbox.path(path);
    let daemon = sandbox.daemon();
    daemon.wait_deployed("d/f", 1);
    sandbox.make("outside");
    sandbox.make("aside");
    sandbox.symlink(sandbox.path("outside"), "aside/d");
    let swapping = Swapping::new(vec![(sandbox_path(target), sandbox_path("aside/d"))]);
    for round in 0..15 {
        sandbox.write("in/d/f", format!("round {round}"));
        sandbox.write(format!("in/d/new{round}"), "new");
        daemon.sync();
    }
    drop(swapping);
    sandbox.tree("outside").len()
}

#[test]
fn a_link_that_takes_the_place_of_a_target_directory_is_never_written_through() {
    let sandbox = Sandbox::new().file("in/d/f", "one");
    assert_eq!(written_outside(&sandbox, "deployed/p/d"), 0);
}

#[test]
fn a_hard_link_is_a_file_like_any_other_and_stays_untouched() {
    let sandbox = Sandbox::new().keys("delete_after_pickup = true").file("elsewhere/f", "one");
    let daemon = sandbox.daemon();
    fs::hard_link(sandbox.path("elsewhere/f"), sandbox.path("in/f")).expect("make a hard link");
    daemon.wait_deployed("f", 1);
    daemon.sync();
    assert!(!sandbox.path("in/f").exists());
    assert_eq!(sandbox.read("elsewhere/f").as_deref(), Some("one"));
    assert_eq!(fs::metadata(sandbox.path("elsewhere/f")).map(|found| found.permissions().readonly()).ok(), Some(false));
    fs::write(sandbox.path("elsewhere/f"), "two").expect("write");
    assert_eq!(sandbox.read("deployed/p/f").as_deref(), Some("one"), "what is live shares nothing with it");
}
