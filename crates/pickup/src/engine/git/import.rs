//! Bringing a commit into the content store, away from the thread that watches.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::super::inbox::Inbox;
use super::super::message::Message;
use super::super::shared::{Shared, file_name};
use crate::capture::{CapturedFile, Digest};
use crate::config::PickupConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::path::UnitPath;
use crate::source::git::import::{Import, Imported};
use crate::source::git::listing::Terms;
use crate::source::git::peek;
use crate::source::git::worker::{Reply, Request};
use crate::source::ignore::Rules;

/// What is to be brought in.
pub(super) struct Order {
    pub shared: Arc<Shared>,
    pub config: Arc<PickupConfig>,
    pub inbox: Arc<Inbox<Message>>,
    pub root: usize,
    /// Where the objects are.
    pub git_dir: PathBuf,
    pub terms: Terms,
    /// The commit that `known` reflects.
    pub from: Option<String>,
    pub to: String,
    pub branch: Option<String>,
    pub known: BTreeMap<UnitPath, Digest>,
    /// A commit that `to` must descend from.
    pub descends_from: Option<String>,
    pub timeout: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(in super::super) struct Delivery {
    pub root: usize,
    pub commit: String,
    pub result: Result<Imported<CapturedFile>>,
}

impl Order {
    /// Does it, and tells the pickup.
    pub(super) fn spawn(self) {
        let runtime = self.shared.runtime.clone();
        runtime.spawn_blocking(move || {
            let (inbox, root, commit) = (self.inbox.clone(), self.root, self.to.clone());
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run()));
            let result =
                result.unwrap_or_else(|_| Err(Error::new(ErrorKind::Git, "read the commit: a bug, please report it")));
            inbox.message(Message::Imported(Delivery { root, commit, result }));
        });
    }

    fn run(self) -> Result<Imported<CapturedFile>> {
        if let Some(old) = &self.descends_from {
            self.is_descendant(old)?;
        }
        let mut rules = Rules::new(&self.config)?;
        let scratch =
            self.shared.state_dir.join("work/.import").join(file_name(&self.config.name)).join(self.root.to_string());
        let _cleared = Scratch::new(scratch.clone())?;
        let mut export = |blobs: &[(String, PathBuf)]| self.export(blobs);
        let import = Import {
            git_dir: &self.git_dir,
            store: &self.shared.store,
            rules: &mut rules,
            root: self.root,
            terms: &self.terms,
            from: self.from.as_deref(),
            to: &self.to,
            branch: self.branch.clone(),
            known: &self.known,
            export: &mut export,
            scratch: &scratch,
            cancel: &self.shared.cancel,
        };
        import.run()
    }

    fn is_descendant(&self, old: &str) -> Result<()> {
        if peek::is_descendant(&self.git_dir, &self.to, old)? {
            return Ok(());
        }
        let branch = self.branch.as_deref().unwrap_or("HEAD");
        let action = format!(
            "follow {branch} to {}: it was rewritten, {} is not part of its history any more; set \
             git_fast_forward_only = false to follow it all the same",
            short(&self.to),
            short(old)
        );
        Err(Error::new(ErrorKind::Git, action))
    }

    /// Large blobs are written by a worker: it costs this process no memory.
    fn export(&self, blobs: &[(String, PathBuf)]) -> Result<()> {
        let request = Request::Export { repository: self.git_dir.clone(), blobs: blobs.to_vec() };
        let work = self.shared.git.worker.run(&request, self.timeout, &self.shared.cancel, |_| {});
        match self.shared.runtime.block_on(work) {
            Ok(Reply::Exported) => Ok(()),
            Ok(Reply::Failed(failure)) | Err(failure) => Err(Error::new(ErrorKind::Git, failure.message)),
            Ok(_) => Err(Error::new(ErrorKind::Git, "understand what the git worker answered")),
        }
    }
}

/// The first digits of a commit's id, for people.
pub(in super::super) fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// A directory that is empty, and goes in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(path: PathBuf) -> Result<Self> {
        let scratch = Self(path);
        scratch.clear();
        #[expect(clippy::disallowed_methods, reason = "the engine owns the scratch directories")]
        std::fs::create_dir_all(&scratch.0).map_err(|error| Error::io("make", &scratch.0, error))?;
        Ok(scratch)
    }

    fn clear(&self) {
        #[expect(clippy::disallowed_methods, reason = "the engine owns the scratch directories")]
        match std::fs::remove_dir_all(&self.0) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %self.0.display(), %error, "cannot remove a scratch directory"),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.clear();
    }
}
