//! A repository that somebody else pushes to.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::edit::Edit;
use super::{git, run};

/// A bare repository. Its branch is `main`, unless it says otherwise.
pub struct Upstream {
    path: PathBuf,
    /// Counts up, so that no two commits are the same one.
    clock: AtomicU64,
}

impl Upstream {
    /// Makes an empty repository `name` in `parent`, which is made too.
    pub fn new(parent: &Path, name: &str) -> Self {
        fs::create_dir_all(parent).expect("make a directory");
        run(parent, &format!("init --quiet --bare --initial-branch=main {name}"));
        Self { path: parent.join(name), clock: AtomicU64::new(1_700_000_000) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its address as a file.
    pub fn url(&self) -> String {
        format!("file://{}", self.path.display())
    }

    /// A commit to be made.
    pub fn edit(&self) -> Edit {
        Edit::new(&self.path, self.clock.fetch_add(1, Ordering::Relaxed))
    }

    /// Commits these files on top of `main`, and gives the commit's id.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        files.iter().fold(self.edit(), |edit, (path, content)| edit.file(path, content)).commit()
    }

    /// Replaces the newest commit of `main` by one with these files.
    pub fn amend(&self, files: &[(&str, &str)]) -> String {
        let edit = self.edit().after("refs/heads/main^");
        files.iter().fold(edit, |edit, (path, content)| edit.file(path, content)).commit()
    }

    /// Moves a branch to any commit, or makes it.
    pub fn branch(&self, name: &str, commit: &str) {
        self.git(&format!("update-ref refs/heads/{name} {commit}"));
    }

    pub fn delete_branch(&self, name: &str) {
        self.git(&format!("update-ref -d refs/heads/{name}"));
    }

    /// Makes a light tag, or moves it.
    pub fn tag(&self, name: &str, commit: &str) {
        self.git(&format!("tag --force {name} {commit}"));
    }

    /// Makes an annotated tag, or moves it.
    pub fn annotated_tag(&self, name: &str, commit: &str) {
        self.git(&format!("tag --force --annotate --message=tagged {name} {commit}"));
    }

    /// Where a branch or tag points.
    pub fn tip(&self, name: &str) -> String {
        self.git(&format!("rev-parse {name}^{{commit}}"))
    }

    /// Makes so many branches and as many light tags, all on this commit.
    pub fn many_references(&self, count: usize, commit: &str) {
        let lines =
            (0..count).map(|n| format!("create refs/heads/many/{n} {commit}\ncreate refs/tags/many-{n} {commit}\n"));
        fs::write(self.path.join("many"), lines.collect::<String>()).expect("write a file");
        let input = fs::File::open(self.path.join("many")).expect("open a file");
        let status = git(&self.path).args(["update-ref", "--stdin"]).stdin(input).status().expect("run git");
        assert!(status.success());
        self.git("pack-refs --all");
    }

    /// The repository is renamed.
    pub fn move_away(&self) {
        fs::rename(&self.path, self.path.with_extension("away")).expect("rename");
    }

    /// Commits to `main` while it is away.
    pub fn commit_away(&self, files: &[(&str, &str)]) -> String {
        let edit = Edit::new(&self.path.with_extension("away"), self.clock.fetch_add(1, Ordering::Relaxed));
        files.iter().fold(edit, |edit, (path, content)| edit.file(path, content)).commit()
    }

    /// The repository has its old name again.
    pub fn move_back(&self) {
        fs::rename(self.path.with_extension("away"), &self.path).expect("rename");
    }

    /// Runs git in it with the words of `line`.
    #[track_caller]
    pub fn git(&self, line: &str) -> String {
        run(&self.path, line)
    }
}
