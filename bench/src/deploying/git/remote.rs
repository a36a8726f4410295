//! The repositories that are followed, and their server.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::free_port;
use crate::deploying::cost::wait_until;
use crate::deploying::random::Random;

/// The name of the large one.
const LARGE: &str = "large.git";

/// How many files the large one has.
const LARGE_FILES: usize = 1000;

/// Repositories served by `git daemon`, which ends with this.
pub struct Remote {
    root: PathBuf,
    port: u16,
    count: usize,
    log: PathBuf,
    server: Child,
    pushes: Cell<usize>,
    large_bytes: Cell<u64>,
}

impl Remote {
    /// Makes `count` small repositories below `root`, and serves them.
    pub fn new(root: &Path, count: usize) -> Result<Self> {
        fs::create_dir_all(root)?;
        for number in 0..count {
            make(&root.join(format!("{number}.git")), [("content", format!("{number}").into_bytes())].into_iter())?;
        }
        let (port, log) = (free_port()?, root.join("log"));
        let mut command = git(root);
        command.args([
            "daemon",
            "--reuseaddr",
            "--export-all",
            "--verbose",
            "--log-destination=stderr",
            "--listen=127.0.0.1",
        ]);
        command
            .arg(format!("--port={port}"))
            .arg(format!("--base-path={}", root.display()))
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let server = command.spawn().context("start git daemon")?;
        let remote =
            Self { root: root.into(), port, count, log, server, pushes: Cell::new(0), large_bytes: Cell::new(0) };
        let is_up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        wait_until(Duration::from_secs(10), "git daemon", is_up)?;
        Ok(remote)
    }

    /// How many small ones there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The address of a small one.
    pub fn url(&self, number: usize) -> String {
        format!("git://127.0.0.1:{}/{number}.git", self.port)
    }

    /// The address of the large one.
    pub fn large(&self) -> String {
        format!("git://127.0.0.1:{}/{LARGE}", self.port)
    }

    /// How often anything was asked for so far.
    pub fn asked(&self) -> Result<usize> {
        let log = fs::read(&self.log).context("read the log of git daemon")?;
        Ok(String::from_utf8_lossy(&log).lines().filter(|line| line.contains("Request upload-pack")).count())
    }

    /// Makes the large one: half of it compresses.
    pub fn make_large(&self, megabytes: usize) -> Result<()> {
        let length = (megabytes << 20) / LARGE_FILES;
        let mut random = Random::new(1);
        let files = (0..LARGE_FILES).map(|number| {
            let mut bytes = random.bytes(length / 2);
            bytes.resize(length, b' ');
            (format!("{}/{number}", number / 100), bytes)
        });
        self.large_bytes.set((length * LARGE_FILES) as u64);
        make(&self.root.join(LARGE), files)
    }

    /// Fails unless everything that the large one holds is in `directory`.
    pub fn is_large(&self, directory: &Path) -> Result<()> {
        let mut sum = 0;
        for part in fs::read_dir(directory)?.flatten().filter(|part| part.path().is_dir()) {
            for file in fs::read_dir(part.path())? {
                sum += file?.metadata()?.len();
            }
        }
        ensure!(sum == self.large_bytes.get(), "{} holds {sum} bytes", directory.display());
        Ok(())
    }

    /// Pushes new content to a small one, and gives it.
    pub fn push(&self, number: usize) -> Result<String> {
        let count = self.pushes.get() + 1;
        self.pushes.set(count);
        let (work, content) = (self.root.join(format!("work-{number}")), format!("push {count}"));
        if !work.exists() {
            succeed(git(&self.root).args(["clone", "-q"]).arg(format!("{number}.git")).arg(&work))?;
        }
        fs::write(work.join("content"), &content)?;
        succeed(git(&work).args(["commit", "-q", "-a", "-m", "a change"]))?;
        succeed(git(&work).args(["push", "-q", "origin", "main"]))?;
        Ok(content)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        // It may have ended by itself. By SIGKILL, git would leave its daemon behind.
        let _ = kill_process(Pid::from_child(&self.server), Signal::TERM);
        let _ = self.server.wait();
    }
}

/// git in a directory, without anybody's configuration.
fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "bench").env(format!("GIT_{role}_EMAIL"), "bench@example.invalid");
    }
    command.stdin(Stdio::null());
    command
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.stdout(Stdio::null()).status().context("run git")?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// A bare repository with one commit of these files.
fn make(path: &Path, files: impl Iterator<Item = (impl AsRef<str>, Vec<u8>)>) -> Result<()> {
    fs::create_dir_all(path)?;
    succeed(git(path).args(["init", "-q", "--bare", "--initial-branch=main"]))?;
    let mut import = git(path).args(["fast-import", "--quiet"]).stdin(Stdio::piped()).spawn().context("run git")?;
    let mut input = import.stdin.take().context("no input")?;
    write!(input, "commit refs/heads/main\ncommitter bench <bench@example.invalid> 1700000000 +0000\ndata 1\nx\n")?;
    for (name, bytes) in files {
        write!(input, "M 100644 inline {}\ndata {}\n", name.as_ref(), bytes.len())?;
        input.write_all(&bytes)?;
        writeln!(input)?;
    }
    drop(input);
    ensure!(import.wait()?.success(), "git fast-import failed");
    Ok(())
}
