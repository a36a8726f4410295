//! A directory of its own for each test, and the real daemon running in it.
//!
//! Nothing here sleeps: a test waits for what the daemon says, and fails with everything that was said if it never does.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::program::program;

/// Watches `in`, and copies into `deployed/p`. Not durable: no test pulls the plug, and many write thousands of files.
pub const COPY: &str = r#"
[pickup]
log_format = "json"

[hot-deploy.user.p]
pickup_from = "in"
deploy_to = ["copy"]

[deployer.copy]
kind = "copy"
into = "deployed/{pickup}"
durable = false
"#;

/// A temporary directory with a configuration in it. It is removed when the test ends.
pub struct Sandbox {
    directory: TempDir,
}

impl Sandbox {
    /// An empty directory but for `in`, and the configuration [`COPY`].
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("pickup-it-").tempdir().expect("a temporary directory");
        Self { directory }.config(COPY).directory("in")
    }

    /// Replaces the configuration.
    pub fn config(self, text: &str) -> Self {
        self.write("pickup.conf", text);
        self
    }

    /// [`COPY`] with more keys in the entry, one a line.
    pub fn keys(self, keys: &str) -> Self {
        self.config(&COPY.replace("deploy_to", &format!("{keys}\ndeploy_to")))
    }

    /// Makes a file, and the directories on the way to it.
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.write(path, content);
        self
    }

    /// Makes a directory, and those on the way to it.
    pub fn directory(self, path: &str) -> Self {
        self.make(path);
        self
    }

    /// The absolute path of `path` below the sandbox.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(path)
    }

    /// As [`file`](Self::file), while the daemon runs: created or truncated, written, closed.
    pub fn write(&self, path: impl AsRef<Path>, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("make the directories on the way");
        fs::write(&path, content).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
    }

    /// Makes a program for `exec`: a shell script.
    pub fn script(self, path: &str, text: &str) -> Self {
        use std::io::Write;
        let mut options = fs::File::options();
        let mut file =
            options.create(true).truncate(true).write(true).mode(0o755).open(self.path(path)).expect("make a script");
        write!(file, "#!/bin/sh\n{text}\n").expect("write a script");
        drop(file);
        self
    }

    pub fn make(&self, path: &str) {
        fs::create_dir_all(self.path(path)).expect("make a directory");
    }

    pub fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("rename");
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.path(path)).expect("remove a file");
    }

    pub fn remove_all(&self, path: &str) {
        fs::remove_dir_all(self.path(path)).expect("remove a directory");
    }

    pub fn symlink(&self, target: impl AsRef<Path>, path: &str) {
        std::os::unix::fs::symlink(target, self.path(path)).expect("make a symlink");
    }

    pub fn chmod(&self, path: &str, mode: u32) {
        fs::set_permissions(self.path(path), Permissions::from_mode(mode)).expect("change the mode");
    }

    /// The mode of a file, without its kind.
    pub fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.path(path)).expect("look at a file").permissions().mode() & 0o7777
    }

    /// The content of a file as text, or `None` if it is not there.
    pub fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        fs::read(self.path(path)).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Every file below `path`, and what is in it; names as the log shows them.
    pub fn tree(&self, path: &str) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let top = self.path(path);
        let mut open = vec![top.clone()];
        while let Some(directory) = open.pop() {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for entry in entries {
                let entry = entry.expect("list a directory");
                if entry.file_type().expect("the type of an entry").is_dir() {
                    open.push(entry.path());
                    continue;
                }
                let name = entry.path().strip_prefix(&top).expect("a path below").display().to_string();
                let content = fs::read(entry.path()).expect("read a file");
                found.insert(name, String::from_utf8_lossy(&content).into_owned());
            }
        }
        found
    }

    /// The daemon is to say more.
    pub fn log_debug(&self) {
        let text = self.read("pickup.conf").expect("a configuration");
        assert!(text.contains("log_format"), "{text}");
        self.write("pickup.conf", text.replace("log_format", "log = \"debug\"\nlog_format"));
    }

    /// What is deployed by the configuration [`COPY`].
    pub fn deployed(&self) -> BTreeMap<String, String> {
        self.tree("deployed/p")
    }

    /// Runs a program in the sandbox, and expects it to work.
    pub fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, name: &str, arguments: I) -> Output {
        let output = Command::new(name).args(arguments).current_dir(self.directory.path()).output();
        let output = output.unwrap_or_else(|error| panic!("cannot run {name}: {error}"));
        assert!(output.status.success(), "{name} failed: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// Runs a line of shell in the sandbox, and expects it to work.
    pub fn shell(&self, line: &str) {
        self.run("sh", ["-ec", line]);
    }

    /// Runs `pickupd` with these arguments beside the daemon, and expects it to work.
    #[track_caller]
    pub fn ask<const N: usize>(&self, arguments: [&str; N]) -> Output {
        let output = self.try_ask(arguments);
        assert!(output.status.success(), "pickupd {arguments:?}: {output:?}");
        output
    }

    /// Runs `pickupd` with these arguments to its end.
    pub fn try_ask<const N: usize>(&self, arguments: [&str; N]) -> Output {
        self.run_pickupd(&arguments)
    }

    /// As [`try_ask`](Self::try_ask), for any number of arguments.
    pub fn run_pickupd(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program());
        command.args(arguments).current_dir(self.directory.path()).env_remove("STATE_DIRECTORY");
        command.output().expect("run pickupd")
    }

    /// Starts the daemon, and waits until it watches.
    pub fn daemon(&self) -> Daemon {
        self.daemon_by(Command::new(program()))
    }

    /// Starts the daemon as `command`, which ends in the daemon's own program, and waits until it watches.
    pub fn daemon_by(&self, command: Command) -> Daemon {
        let daemon = self.start(command);
        daemon.wait_for(|line| line.message == "ready");
        daemon.sync();
        daemon
    }

    /// Starts the daemon and does not wait.
    pub fn start(&self, mut command: Command) -> Daemon {
        command.current_dir(self.directory.path());
        Daemon::spawn(command, self.directory.path())
    }
}
