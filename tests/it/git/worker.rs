//! The worker, `pickupd git-worker`, asked as the daemon asks it: a line of JSON in, lines of JSON out.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::program;
use crate::remote::{Sshd, Upstream, run};

mod clone;
mod http;
mod refs;
mod size;
mod ssh;
mod trouble;

/// How long a worker may take before the test fails.
const CAP: Duration = Duration::from_secs(60);

/// A directory for one test, with workers asked in it.
struct Bench {
    directory: TempDir,
    path: OsString,
    agent: Option<PathBuf>,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("pickup-it-").tempdir().expect("a temporary directory");
        let path = std::env::var_os("PATH").expect("where programs are");
        Self { directory, path, agent: None }
    }

    fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Where the repositories are that are served.
    fn served(&self) -> PathBuf {
        self.path("served")
    }

    /// The repository `a.git`, with one commit that holds the file `a`.
    fn upstream(&self) -> (Upstream, String) {
        let upstream = Upstream::new(&self.served(), "a.git");
        let commit = upstream.commit(&[("a", "one")]);
        (upstream, commit)
    }

    /// A server, the `ssh` of which the workers use from now on.
    fn sshd(&mut self) -> Sshd {
        let server = Sshd::new(&self.path("sshd"));
        self.path = server.path_variable();
        server
    }

    /// Writes a file with something secret in it.
    fn secret(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("write a secret");
        path
    }

    /// A check of `main` into the mirror `mirror.git`.
    fn check(&self, url: &str) -> Check<'_> {
        let access = json!({
            "url": url, "transport": "libgit2", "username": null, "password_file": null, "ssh_key": null,
            "known_hosts": null, "ca_file": null, "proxy": null, "size_max": 2_u64 << 30,
        });
        let repository = self.path("mirror.git");
        let request =
            json!({ "access": access, "repository": repository, "shape": "Mirror", "depth": 0, "wanted": [] });
        Check { bench: self, request }.wants(&[Some("main")])
    }

    /// Asks a worker, and waits for its end.
    #[track_caller]
    fn ask(&self, request: &Value) -> Answer {
        self.start(request).end()
    }

    /// Asks a worker, and does not wait.
    fn start(&self, request: &Value) -> Asked {
        let mut command = Command::new(program());
        command.arg("git-worker").current_dir(self.directory.path()).process_group(0);
        command.env_clear().env("PATH", &self.path).env("HOME", self.directory.path());
        if let Some(agent) = &self.agent {
            command.env("SSH_AUTH_SOCK", agent);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start a worker");
        let mut input = child.stdin.take().expect("its input");
        writeln!(input, "{request}").expect("write a request");
        let (sender, said) = channel();
        let mut errors = child.stderr.take().expect("its errors");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let lines = sender.clone();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // The test may have failed meanwhile.
                let _ = lines.send(Said::Line(line));
            }
        });
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = errors.read_to_string(&mut text);
            let _ = sender.send(Said::Errors(text));
        });
        Asked { child, input: Some(input), said }
    }

    /// Every file below `path` that holds `text`, in its content or its name.
    fn holding(&self, path: &str, text: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.path(path)];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory).into_iter().flatten() {
                let path = entry.expect("list a directory").path();
                if path.is_dir() {
                    open.push(path);
                    continue;
                }
                let content = fs::read(&path).unwrap_or_default();
                let is_in = text.is_empty() || content.windows(text.len()).any(|bytes| bytes == text.as_bytes());
                if is_in || path.display().to_string().contains(text) {
                    found.push(path);
                }
            }
        }
        found
    }

    /// The content of `file` in a commit of the mirror.
    #[track_caller]
    fn mirrored(&self, commit: &str, file: &str) -> String {
        run(&self.path("mirror.git"), &format!("cat-file blob {commit}:{file}"))
    }

    /// Fails unless git finds nothing wrong with the mirror, nor a leftover in it.
    #[track_caller]
    fn assert_sound(&self) {
        let mirror = self.path("mirror.git");
        run(&mirror, "fsck --full --strict --no-dangling");
        assert_eq!(self.leftovers(), Vec::<PathBuf>::new());
    }

    /// Files of the mirror that a crash left: locks and unfinished packs.
    fn leftovers(&self) -> Vec<PathBuf> {
        let is_left = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.ends_with(".lock") || name.starts_with("pack_git2_") || name.starts_with("tmp_")
        };
        self.holding("mirror.git", "").into_iter().filter(is_left).collect()
    }
}

/// Does the same with the library and with the git program.
fn both(test: impl Fn(&'static str)) {
    for transport in ["libgit2", "cli"] {
        println!("with {transport}");
        test(transport);
    }
}

/// A check to be asked for.
#[must_use]
struct Check<'b> {
    bench: &'b Bench,
    request: Value,
}

impl Check<'_> {
    /// Sets a part of the access.
    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.request["access"][key] = value.into();
        self
    }

    fn with_file(self, key: &str, path: &Path) -> Self {
        self.with(key, path.to_str().expect("a path in text"))
    }

    fn by(self, transport: &str) -> Self {
        self.with("transport", transport)
    }

    fn wants(mut self, references: &[Option<&str>]) -> Self {
        self.request["wanted"] = references.iter().map(|reference| json!({ "reference": reference })).collect();
        self
    }

    fn depth(mut self, depth: u32) -> Self {
        self.request["depth"] = depth.into();
        self
    }

    /// Into a working tree at this path.
    fn clone_at(mut self, path: &str) -> Self {
        self.request["shape"] = "Clone".into();
        self.into_repository(path)
    }

    fn into_repository(mut self, path: &str) -> Self {
        self.request["repository"] = self.bench.path(path).to_str().expect("a path in text").into();
        self
    }

    fn request(&self) -> Value {
        json!({ "Check": self.request })
    }

    #[track_caller]
    fn ask(self) -> Answer {
        self.bench.ask(&self.request())
    }
}

enum Said {
    Line(String),
    Errors(String),
}

/// A worker at work.
struct Asked {
    child: Child,
    input: Option<ChildStdin>,
    said: Receiver<Said>,
}

impl Asked {
    /// Closes its input: that is how it learns that the daemon is gone.
    fn hang_up(&mut self) {
        self.input = None;
    }

    /// SIGKILL for it and all it started.
    fn kill(&self) {
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
    }

    /// The command lines of it and of all it started.
    fn command_lines(&self) -> Vec<String> {
        let group = self.child.id().to_string();
        let processes = fs::read_dir("/proc").expect("list the processes");
        let mut lines = Vec::new();
        for process in processes.map_while(Result::ok) {
            // pid (name) state parent group …
            let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
            let fields = stat.rsplit(") ").next().unwrap_or_default();
            if fields.split(' ').nth(2) == Some(&group) {
                let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
                lines.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
        lines
    }

    /// Waits for its end, with its input open.
    #[track_caller]
    fn end(mut self) -> Answer {
        let mut lines = Vec::new();
        let mut errors = String::new();
        loop {
            match self.said.recv_timeout(CAP) {
                Ok(Said::Line(line)) => lines.push(line),
                Ok(Said::Errors(text)) => errors = text,
                // Both pipes are closed.
                Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => break,
                Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                    self.kill();
                    panic!("the worker does not end; it said: {lines:#?} {errors}");
                }
            }
        }
        let peak = wait(&mut self.child);
        let parsed = lines.iter().map(|line| serde_json::from_str(line));
        let parsed: Vec<Value> = parsed.collect::<Result<_, _>>().unwrap_or_else(|error| panic!("{error}: {lines:#?}"));
        let mut replies = parsed.into_iter().filter_map(reply);
        let reply = replies.next().unwrap_or_default();
        assert!(replies.next().is_none(), "more than one reply: {lines:#?}");
        Answer { reply, output: format!("{}\n{errors}", lines.join("\n")), peak }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // It may have ended.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Waits for a process, and gives the most memory that it, or a process it waited for, had at once: in KiB.
fn wait(child: &mut Child) -> u64 {
    let pid = i32::try_from(child.id()).expect("a process number");
    let mut status = 0;
    // SAFETY: `rusage` is plain numbers, for which zeroes are a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both are ours to write to; the process is a child that nobody has waited for.
    let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert_eq!(waited, pid, "{}", std::io::Error::last_os_error());
    u64::try_from(usage.ru_maxrss).expect("an amount of memory")
}

/// The reply in a line; `None` if it says how far the work has come.
fn reply(mut line: Value) -> Option<Value> {
    line.get_mut("Reply").map(Value::take)
}

/// What a worker answered.
struct Answer {
    /// Null if it gave none.
    reply: Value,
    /// All it printed.
    output: String,
    /// The most memory it had, in KiB.
    peak: u64,
}

impl Answer {
    /// Fails unless it is a reply to a check; gives what was found.
    #[track_caller]
    fn found(&self) -> &Vec<Value> {
        self.reply["Checked"]["found"].as_array().unwrap_or_else(|| panic!("no check: {}", self.output))
    }

    /// Fails unless one reference was asked for and is there; gives its commit.
    #[track_caller]
    fn commit(&self) -> &str {
        self.commits()[0]
    }

    /// Fails unless every reference that was asked for is there; gives their commits.
    #[track_caller]
    fn commits(&self) -> Vec<&str> {
        let commit = |found: &'_ Value| found["At"]["commit"].as_str().map(str::len);
        assert!(self.found().iter().all(|found| commit(found) == Some(40)), "{}", self.output);
        self.found().iter().filter_map(|found| found["At"]["commit"].as_str()).collect()
    }

    /// The short name of the branch or tag that was found, and whether it is a branch.
    #[track_caller]
    fn branch(&self) -> (Option<&str>, bool) {
        let at = &self.found()[0]["At"];
        (at["branch"].as_str(), at["is_branch"].as_bool().expect("a branch or not"))
    }

    /// Why the mirror had to be made anew, if it had.
    #[track_caller]
    fn renewed(&self) -> Option<&str> {
        self.found();
        self.reply["Checked"]["renewed"].as_str()
    }

    /// Fails unless it failed in this way; gives the message.
    #[track_caller]
    fn failed(&self, kind: &str) -> &str {
        assert_eq!(self.reply["Failed"]["kind"], kind, "{}", self.output);
        self.reply["Failed"]["message"].as_str().expect("a message")
    }

    /// Fails if it printed something that nobody may see.
    #[track_caller]
    fn silent_about(&self, secret: &str) -> &Self {
        assert!(!self.output.contains(secret), "{}", self.output);
        self
    }
}
