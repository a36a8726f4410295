//! Each example is run as a user would run it: in an empty directory, fed with files, ended with an interrupt.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A running example and what it prints.
struct Example {
    child: Child,
    lines: Receiver<String>,
    directory: tempfile::TempDir,
}

impl Example {
    /// Starts the example on `in/`, once it watches.
    fn start(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("in")).unwrap();
        Self::start_in(name, directory)
    }

    fn start_in(name: &str, directory: tempfile::TempDir) -> Self {
        let mut command = Command::new(built(name));
        let mut child = command.arg("in").current_dir(directory.path()).stdout(Stdio::piped()).spawn().unwrap();
        let printed = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in printed.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { child, lines, directory }
    }

    fn put(&self, name: &str, content: &str) {
        std::fs::write(self.directory.path().join("in").join(name), content).unwrap();
    }

    fn put_built(&self, name: &str, library: &str) {
        let beside = self.directory.path().join(name);
        std::fs::copy(built(library), &beside).unwrap();
        std::fs::rename(beside, self.directory.path().join("in").join(name)).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.directory.path().join("in").join(name)).unwrap();
    }

    /// Waits until a line holds `text`; the panic shows the lines that came instead.
    fn prints(&self, text: &str) {
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(30)) {
            if line.contains(text) {
                return;
            }
            seen.push(line);
        }
        panic!("no line with {text:?} among {seen:#?}");
    }

    /// Interrupts it, and gives back its directory once it has ended well.
    fn end(mut self) -> tempfile::TempDir {
        let interrupted = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(interrupted.success());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
        std::mem::replace(&mut self.directory, tempfile::tempdir().unwrap())
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // Only of use when the test failed; it has ended otherwise.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `cargo test` builds the examples beside the tests.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let example = target.join("examples").join(name);
    assert!(example.exists(), "build it first: cargo build -p pickup-examples --examples");
    example
}

#[test]
fn embed_loads_what_is_dropped_in_and_loads_it_again_after_a_restart() {
    let example = Example::start("embed");
    example.prints("Watching");
    example.put("a.plugin", "hello");
    example.prints("load a.plugin (5 bytes)");
    example.prints("Deployed");
    let directory = example.end();
    let example = Example::start_in("embed", directory);
    example.prints("load a.plugin (5 bytes)");
    example.prints("Deployed");
    example.remove("a.plugin");
    example.prints("unload a.plugin");
    example.end();
}

#[test]
fn custom_deployer_keeps_the_old_rules_when_the_new_ones_are_wrong() {
    let example = Example::start("custom_deployer");
    example.put("a.rule", "limit = 10");
    example.prints("the limit of a.rule is 10");
    example.prints("added a.rule");
    example.put("a.rule", "limit = many");
    example.prints("the old rules stay: rules: read a.rule: expected `limit = <number>`");
    example.put("a.rule", "limit = 20");
    example.prints("the limit of a.rule is 20");
    example.prints("modified a.rule");
    let directory = example.end();
    let example = Example::start_in("custom_deployer", directory);
    example.prints("the limit of a.rule is 20");
    example.end();
}

#[cfg(target_os = "linux")]
#[test]
fn modules_calls_whichever_version_is_live() {
    let example = Example::start("modules");
    example.prints("no greeter is loaded");
    example.put_built("greeter.so", "libgreeter.so");
    example.prints("generation 1: good day, world");
    example.put("greeter.so", "no library");
    example.prints("the old version stays: modules: load it: format: it is no ELF file");
    example.remove("greeter.so");
    example.prints("no greeter is loaded");
    example.end();
}
