//! One who pushes commits to a repository that is followed.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;

use super::{Done, PUSHED, succeed};
use crate::deploying::random::Random;
use crate::deploying::soak::writer::Files;

/// How many names there are in the repository.
const NAMES: usize = 30;

fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null());
    command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "bench").env(format!("GIT_{role}_EMAIL"), "bench@example.invalid");
    }
    command
}

/// Makes the repository `upstream.git` with a first commit, and a clone of it.
pub fn prepare(ground: &Path) -> Result<()> {
    succeed(git(ground).args(["init", "-q", "--bare", "--initial-branch=main", "upstream.git"]))?;
    succeed(git(ground).args(["clone", "-q", "upstream.git", "work"]).stderr(Stdio::null()))?;
    fs::write(ground.join("work/first"), "first")?;
    commit(&ground.join("work"))
}

fn commit(work: &Path) -> Result<()> {
    succeed(git(work).args(["add", "--all"]))?;
    succeed(git(work).args(["commit", "-q", "--allow-empty", "-m", "a change"]))?;
    succeed(git(work).args(["push", "-q", "origin", "HEAD:main"]))
}

/// Changes some files, pushes, rests, and so on.
pub fn run(ground: &Path, rest: Duration, stop: &AtomicBool) -> Result<Done> {
    let (work, mut random) = (ground.join("work"), Random::new(7));
    let mut files = Files::from([("first".to_owned(), b"first".to_vec())]);
    let mut steps = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..=random.below(5) {
            let name = format!("f{}", random.below(NAMES));
            if random.below(4) == 0 && files.remove(&name).is_some() {
                fs::remove_file(work.join(&name))?;
            } else {
                let length = random.below(5000);
                let bytes = random.bytes(length);
                fs::write(work.join(&name), &bytes)?;
                files.insert(name, bytes);
            }
        }
        commit(&work)?;
        steps += 1;
        std::thread::sleep(rest);
    }
    Ok(Done::new(PUSHED, files, steps))
}
