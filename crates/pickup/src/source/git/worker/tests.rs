//! Workers at work, in this process, on repositories on this disk.
#![expect(clippy::disallowed_methods, reason = "tests set up repositories")]

use std::path::{Path, PathBuf};

use git2::build::TreeUpdateBuilder;
use git2::{FileMode, ObjectType, Oid, Repository, RepositoryInitOptions, Signature};
use tempfile::TempDir;

use super::serve::answer;
use super::{Access, Check, Failure, Found, Reply, Request, Shape, Wanted};
use crate::config::GitTransport;
use crate::config::GitUrl;

mod advance;
mod clone;
mod mirror;
mod process;

/// A remote, and a directory for what is made of it.
struct World {
    directory: TempDir,
    remote: Repository,
    transport: GitTransport,
    size_max: u64,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut options = RepositoryInitOptions::new();
        options.bare(true).initial_head("main");
        let remote = Repository::init_opts(directory.path().join("remote.git"), &options).unwrap();
        Self { directory, remote, transport: GitTransport::Libgit2, size_max: 1 << 30 }
    }

    /// With a commit on `main`.
    fn with_a_commit() -> (Self, String) {
        let world = Self::new();
        let first = world.commit("main", &[("a.txt", Some("one\n")), ("sub/b.txt", Some("two\n"))]);
        (world, first)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Puts a commit on top of `branch`; gives its id.
    fn commit(&self, branch: &str, files: &[(&str, Option<&str>)]) -> String {
        let parent = self.remote.find_reference(&format!("refs/heads/{branch}")).ok();
        self.commit_on(branch, parent.and_then(|parent| parent.target()), files)
    }

    /// Points `branch` to a new commit whose parent is `parent`.
    fn commit_on(&self, branch: &str, parent: Option<Oid>, files: &[(&str, Option<&str>)]) -> String {
        let remote = &self.remote;
        let parent = parent.map(|id| remote.find_commit(id).unwrap());
        let base = match &parent {
            Some(parent) => parent.tree().unwrap(),
            None => remote.find_tree(remote.treebuilder(None).unwrap().write().unwrap()).unwrap(),
        };
        let mut update = TreeUpdateBuilder::new();
        for (path, content) in files {
            match content {
                Some(content) => update.upsert(*path, remote.blob(content.as_bytes()).unwrap(), FileMode::Blob),
                None => update.remove(*path),
            };
        }
        let tree = remote.find_tree(update.create_updated(remote, &base).unwrap()).unwrap();
        let who = who();
        let parents: Vec<_> = parent.iter().collect();
        let id = remote.commit(None, &who, &who, "a commit", &tree, &parents).unwrap();
        remote.reference(&format!("refs/heads/{branch}"), id, true, "").unwrap();
        id.to_string()
    }

    fn tag(&self, name: &str, commit: &str, is_annotated: bool) {
        let object = self.remote.find_object(Oid::from_str(commit).unwrap(), Some(ObjectType::Commit)).unwrap();
        match is_annotated {
            true => self.remote.tag(name, &object, &who(), "a tag", true).unwrap(),
            false => self.remote.tag_lightweight(name, &object, true).unwrap(),
        };
    }

    fn access(&self) -> Access {
        Access {
            url: GitUrl::new(self.remote.path().to_str().unwrap()),
            transport: self.transport,
            username: None,
            password_file: None,
            ssh_key: None,
            known_hosts: None,
            ca_file: None,
            proxy: None,
            size_max: self.size_max,
        }
    }

    fn request(&self, shape: Shape, repository: &Path, wanted: &[Option<&str>]) -> Check {
        let wanted = wanted.iter().map(|wanted| Wanted { reference: wanted.map(str::to_owned) }).collect();
        Check { access: self.access(), repository: repository.to_owned(), shape, depth: 0, wanted }
    }

    fn check(
        &self,
        shape: Shape,
        repository: &Path,
        wanted: &[Option<&str>],
    ) -> Result<(Vec<Found>, Option<String>), Failure> {
        match ask(&Request::Check(self.request(shape, repository, wanted)))? {
            Reply::Checked { found, renewed } => Ok((found, renewed)),
            other => panic!("{other:?}"),
        }
    }
}

fn who() -> Signature<'static> {
    Signature::now("Ann", "ann@example.invalid").unwrap()
}

fn ask(request: &Request) -> Result<Reply, Failure> {
    match answer(request, &mut |_| {}) {
        Reply::Failed(failure) => Err(failure),
        reply => Ok(reply),
    }
}

fn at(commit: &str, branch: Option<&str>, is_branch: bool) -> Found {
    Found::At { commit: commit.to_owned(), branch: branch.map(str::to_owned), is_branch }
}
