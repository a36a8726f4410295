//! Repositories that are followed: one source for each remote and access, whoever wants something of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;

mod aside;
mod checks;
mod clone;
pub(super) mod commits;
pub(super) mod import;
pub(super) mod source;
mod status;
mod take_in;

use self::source::{Following, Source, Wish};
use super::inbox::Inbox;
use super::message::Message;
use super::shared::{Shared, file_name};
use crate::config::GitUrl;
use crate::config::{GitConfig, PickupConfig};
use crate::source::git::worker::{Access, GitWorker, Shape, Standing};

/// How many remotes are asked at once.
const CHECKS_MAX: usize = 8;

/// Everything that is followed by one engine.
pub(super) struct Repositories {
    pub worker: GitWorker,
    /// For looks.
    standing: Arc<Standing>,
    permits: Semaphore,
    sources: Mutex<Vec<Arc<Source>>>,
    /// Git directories of clones that are being pulled by us.
    pulled: Mutex<BTreeSet<PathBuf>>,
}

impl Repositories {
    pub(super) fn new(worker: GitWorker) -> Self {
        Self {
            standing: Standing::new(worker.clone()),
            worker,
            permits: Semaphore::new(CHECKS_MAX),
            sources: Mutex::default(),
            pulled: Mutex::default(),
        }
    }

    /// Whether the working tree of this git directory is being moved forward by us.
    pub(super) fn is_pulled(&self, git_dir: &Path) -> bool {
        self.pulled.lock().unwrap_or_else(PoisonError::into_inner).contains(git_dir)
    }

    /// Says that it is, until the guard goes.
    fn pull(&self, git_dir: PathBuf) -> Pull<'_> {
        self.pulled.lock().unwrap_or_else(PoisonError::into_inner).insert(git_dir.clone());
        Pull(self, git_dir)
    }

    /// Joins those who follow the remote of an entry, and starts to ask it if nobody did.
    pub(super) fn follow(
        shared: &Arc<Shared>,
        pickup: &PickupConfig,
        git: &GitConfig,
        inbox: &Arc<Inbox<Message>>,
    ) -> Following {
        let repository = repository(shared, pickup, git);
        let shape = if pickup.pickup_from.is_empty() { Shape::Mirror } else { Shape::Clone };
        let wish = Wish::new(pickup, git, inbox.clone());
        let mut sources = shared.git.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.retain(|source| !source.is_over());
        let access = access(git);
        let depth = git.depth;
        let known = sources.iter().find(|source| source.is_for(&access, &repository, depth)).cloned();
        if let Some(following) = known.and_then(|source| source.join(shared, wish.clone())) {
            return following;
        }
        let source = Arc::new(Source::new(access, repository, shape, depth));
        sources.push(source.clone());
        source.start(shared, wish)
    }
}

/// Ends with the pull.
struct Pull<'a>(&'a Repositories, PathBuf);

impl Drop for Pull<'_> {
    fn drop(&mut self) {
        self.0.pulled.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

/// Where the repository of an entry is: its own clone, or the mirror that all entries of the same access share.
pub(super) fn repository(shared: &Shared, pickup: &PickupConfig, git: &GitConfig) -> PathBuf {
    match pickup.pickup_from.first() {
        Some(directory) => directory.clone(),
        None => {
            let access = format!("{:?} {:?} {}", git.url.as_ref().map(GitUrl::expose), access(git), git.depth);
            let id = &blake3::hash(access.as_bytes()).to_hex()[..16];
            shared.state_dir.join("git").join(file_name(id)).join("mirror.git")
        }
    }
}

fn access(git: &GitConfig) -> Access {
    Access {
        url: git.url.clone().unwrap_or_else(|| GitUrl::new("")),
        transport: git.transport,
        username: git.username.clone(),
        password_file: git.password_file.clone(),
        ssh_key: git.ssh_key.clone(),
        known_hosts: git.known_hosts.clone(),
        ca_file: git.ca_file.clone(),
        proxy: git.proxy.clone(),
        size_max: git.size_max,
    }
}
