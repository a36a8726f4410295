//! One commit to be made, put together bit by bit and made by one `git fast-import`, without a working tree.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::git;

/// What a commit is to hold.
#[must_use]
pub struct Edit {
    repository: PathBuf,
    at: u64,
    branch: String,
    /// What it follows; `None` for what the branch holds already.
    parent: Option<String>,
    author: String,
    message: String,
    changes: Vec<u8>,
    big: Option<(String, u64)>,
}

impl Edit {
    pub(super) fn new(repository: &Path, at: u64) -> Self {
        Self {
            repository: repository.to_path_buf(),
            at,
            branch: "main".into(),
            parent: None,
            author: "An Author".into(),
            message: "a change".into(),
            changes: Vec::new(),
            big: None,
        }
    }

    /// On this branch in place of `main`.
    pub fn on(mut self, branch: &str) -> Self {
        self.branch = branch.into();
        self
    }

    /// On top of this commit, whatever the branch holds: it is rewritten.
    pub fn after(mut self, commit: &str) -> Self {
        self.parent = Some(commit.into());
        self
    }

    /// On top of nothing: a history of its own.
    pub fn orphan(self) -> Self {
        self.after("")
    }

    pub fn author(mut self, name: &str) -> Self {
        self.author = name.into();
        self
    }

    pub fn message(mut self, message: &str) -> Self {
        self.message = message.into();
        self
    }

    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry("100644", path, content.as_ref())
    }

    pub fn executable(self, path: &str, content: &str) -> Self {
        self.entry("100755", path, content.as_bytes())
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry("120000", path, target.as_bytes())
    }

    /// A submodule at some commit.
    pub fn gitlink(mut self, path: &str) -> Self {
        self.changes.extend(format!("M 160000 {} {path}\n", "1".repeat(40)).bytes());
        self
    }

    /// A file of so many bytes that do not compress.
    pub fn big(mut self, path: &str, bytes: u64) -> Self {
        self.big = Some((path.into(), bytes));
        self
    }

    pub fn remove(mut self, path: &str) -> Self {
        self.changes.extend(format!("D {path}\n").bytes());
        self
    }

    pub fn rename(mut self, from: &str, to: &str) -> Self {
        self.changes.extend(format!("R {from} {to}\n").bytes());
        self
    }

    /// Makes the commit, moves the branch to it, and gives its id.
    #[track_caller]
    pub fn commit(self) -> String {
        let reference = format!("refs/heads/{}", self.branch);
        let mut command = git(&self.repository);
        command.args(["-c", "core.bigFileThreshold=1m", "fast-import", "--quiet", "--force", "--cat-blob-fd=1"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run git");
        let mut input = child.stdin.take().expect("its input");
        let (at, author) = (self.at, &self.author);
        let mut write = |text: &[u8]| input.write_all(text).expect("write to git");
        // A commit that follows nothing is one of a branch that is not there.
        let parent = self.parent.clone().unwrap_or_else(|| format!("{reference}^0"));
        let has_parent = !parent.is_empty() && self.has(&parent);
        write(format!("reset {reference}\n").as_bytes());
        if has_parent {
            write(format!("from {}\n", self.id(&parent)).as_bytes());
        }
        write(format!("\ncommit {reference}\nmark :1\nauthor {author} <author@example.org> {at} +0000\n").as_bytes());
        write(format!("committer A Committer <committer@example.org> {at} +0000\n").as_bytes());
        write(format!("data {}\n{}\n", self.message.len(), self.message).as_bytes());
        write(&self.changes);
        if let Some((path, bytes)) = &self.big {
            write(format!("M 100644 inline {path}\ndata {bytes}\n").as_bytes());
            noise(*bytes, &mut write);
            write(b"\n");
        }
        write(b"get-mark :1\n");
        drop(input);
        let mut id = String::new();
        child.stdout.take().expect("its output").read_to_string(&mut id).expect("text");
        assert!(child.wait().expect("wait for git").success(), "git fast-import failed");
        id.trim().to_owned()
    }

    fn entry(mut self, mode: &str, path: &str, content: &[u8]) -> Self {
        self.changes.extend(format!("M {mode} inline {path}\ndata {}\n", content.len()).bytes());
        self.changes.extend(content);
        self.changes.push(b'\n');
        self
    }

    fn has(&self, revision: &str) -> bool {
        let mut command = git(&self.repository);
        command.args(["rev-parse", "--quiet", "--verify", revision]).stdout(Stdio::null());
        command.status().expect("run git").success()
    }

    fn id(&self, revision: &str) -> String {
        super::run(&self.repository, &format!("rev-parse --verify {revision}"))
    }
}

/// Writes bytes that look like chance and are the same each time (xorshift64).
fn noise(bytes: u64, write: &mut impl FnMut(&[u8])) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut left = bytes;
    let mut buffer = Vec::with_capacity(1 << 16);
    while left > 0 {
        buffer.clear();
        while buffer.len() < 1 << 16 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            buffer.extend(state.to_le_bytes());
        }
        let length = left.min(buffer.len() as u64);
        write(&buffer[..usize::try_from(length).expect("a length")]);
        left -= length;
    }
}
