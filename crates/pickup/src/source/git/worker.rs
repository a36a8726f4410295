//! What is asked of a git worker, and what it answers: one request and one reply, as lines of JSON.
//!
//! A worker is a process of its own, so that a peer that never answers, a pack that eats all memory or a bug in a C
//! library costs one check and not the daemon.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::GitTransport;
use crate::config::GitUrl;

mod advance;
mod ask;
mod check;
mod checkout;
mod export;
mod intent;
mod lock;
pub(crate) mod mirror;
mod process;
mod repack;
mod resolve;
mod serve;
mod standing;
#[cfg(target_os = "linux")]
mod survey;

#[cfg(all(test, unix))]
mod tests;

pub(crate) use self::intent::{intent_of, torn};
pub(crate) use self::mirror::{condemn, is_condemned};
pub use self::process::GitWorker;
pub use self::serve::serve_git_worker;
pub(crate) use self::standing::Standing;

/// How a remote is reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Access {
    pub url: GitUrl,
    pub transport: GitTransport,
    pub username: Option<String>,
    pub password_file: Option<PathBuf>,
    pub ssh_key: Option<PathBuf>,
    pub known_hosts: Option<PathBuf>,
    pub ca_file: Option<PathBuf>,
    pub proxy: Option<String>,
    /// How many bytes a fetch may bring.
    pub size_max: u64,
}

impl Access {
    /// Where to connect to, if a plain connection is all that it takes to ask.
    pub(crate) fn is_plain(&self) -> Option<String> {
        let has_none =
            [&self.password_file, &self.ssh_key, &self.known_hosts, &self.ca_file].iter().all(|it| it.is_none());
        let is_built_in = self.transport == GitTransport::Libgit2;
        let place = self.url.plain_place().filter(|_| cfg!(target_os = "linux") && is_built_in && has_none)?;
        (self.username.is_none() && self.proxy.is_none()).then(|| format!("{}:{}", place.host, place.port))
    }
}

/// Which kind of repository a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Shape {
    /// Bare, ours, a cache. Refs of the remote are kept under the same names.
    Mirror,
    /// A working tree, somebody's own. Refs of the remote are kept under `refs/remotes/origin/` and, for tags,
    /// `refs/tags/`.
    Clone,
}

/// One thing to be done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Ask the remote where references point, and fetch what is not there. A mirror that is missing or damaged is made
    /// anew beside and exchanged; so is a missing or empty clone.
    Check(Check),
    /// Ask the remote where references point, and touch no repository. Whoever was asked this may be asked again.
    Look { access: Access, wanted: Vec<Wanted> },
    /// Ask many remotes at once, none of which [needs more than a connection](Access::is_plain), and touch no repository.
    Survey { calls: Vec<Call> },
    /// Ask the remote of a clone where references point, and fetch nothing: what is found need not be in the clone, which
    /// is only read. `aside` must not exist; an empty repository is made there.
    Ask { check: Check, aside: PathBuf },
    /// Move the branch that is checked out in a clone forward to `to`, and the working tree with it: as
    /// `git merge --ff-only` would. Refused if a tracked file was edited, or the branch has commits of its own.
    Advance { repository: PathBuf, to: String },
    /// Write blobs to files, each of which must not exist.
    Export { repository: PathBuf, blobs: Vec<(String, PathBuf)> },
    /// Pack everything that can be reached in a mirror into one pack, and remove the rest.
    Repack { repository: PathBuf },
}

impl Request {
    /// Whether it leaves nothing behind, neither on disk nor in the process.
    fn is_look(&self) -> bool {
        matches!(self, Self::Look { .. } | Self::Survey { .. })
    }
}

/// One remote of a survey.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Call {
    pub url: GitUrl,
    pub wanted: Vec<Wanted>,
}

/// What to ask a remote.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Check {
    pub access: Access,
    pub repository: PathBuf,
    pub shape: Shape,
    /// How many commits are fetched; 0 for all.
    pub depth: u32,
    pub wanted: Vec<Wanted>,
}

/// A reference that is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// A branch, a tag, a full commit id, or a full name such as `refs/pull/7/head`; `None` for the remote's `HEAD`.
    pub reference: Option<String>,
}

/// Where a wanted reference is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Found {
    /// It leads to this commit, which is in the repository now.
    At {
        commit: String,
        /// The short name of the branch or tag; `None` for a commit id.
        branch: Option<String>,
        /// Whether it is a branch, which is expected to move forward only.
        is_branch: bool,
    },
    /// The remote has no such reference; says what it has instead.
    Missing { reason: String },
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub objects: u64,
    pub objects_total: u64,
    pub bytes: u64,
}

/// What came of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Of a check or a look: where each wanted reference is, in the order asked; and whether the repository had to be made
    /// anew because it was damaged, and why.
    Checked {
        found: Vec<Found>,
        renewed: Option<String>,
    },
    /// Where each wanted reference is, for each call; `None` where that is to be asked in another way, for whatever reason.
    Surveyed {
        found: Vec<Option<Vec<Found>>>,
    },
    Advanced,
    Exported,
    Repacked,
    Failed(Failure),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub kind: FailureKind,
    /// A lowercase fragment that reads after "cannot", with what to do next; without secrets.
    pub message: String,
}

/// What kind of failure it was: it decides when the next check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    /// The remote does not accept who we are.
    Authentication,
    /// The host is not who we expect: its key or certificate is unknown or another.
    HostKey,
    /// There is no such repository, or it may not be seen.
    NotFound,
    /// The remote cannot be reached, hangs up, or answers with nonsense.
    Unreachable,
    /// It took longer than it may.
    Timeout,
    /// It is larger than it may be.
    TooLarge,
    /// The built-in library cannot do what this repository needs.
    Unsupported,
    /// Something that is somebody's own is in the way, and stays: edits, commits, a foreign directory.
    Refused,
    /// Somebody else is at work in the repository.
    Busy,
    /// Anything else: the disk, a bug.
    Other,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl fmt::Display) -> Self {
        Self { kind, message: message.to_string() }
    }

    /// Somebody's own work is in the way.
    fn refused(message: impl fmt::Display) -> Self {
        Self::new(FailureKind::Refused, message)
    }

    /// The disk said no.
    fn io(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(FailureKind::Other, format_args!("{doing} {}: {error}", path.display()))
    }

    /// libgit2 could not do something in the repository at `path`; nothing of it concerns a remote.
    pub(super) fn local(path: &Path, error: &git2::Error) -> Self {
        use git2::{ErrorClass, ErrorCode};

        let (path, text) = (path.display(), error.message());
        let unsupported = |why: &str| Self::new(FailureKind::Unsupported, format_args!("use {path}: {why}"));
        match (error.code(), error.class()) {
            (ErrorCode::Owner, _) => Self::refused(format_args!(
                "use {path}: it belongs to another user; change its owner (chown -R), or run pickupd as that user"
            )),
            (ErrorCode::Locked, _) => Self::new(
                FailureKind::Busy,
                format_args!("use {path}: {text}; if no git command is running there, remove the lock file"),
            ),
            (_, ErrorClass::NoMemory) => Self::new(
                FailureKind::TooLarge,
                format_args!("use {path}: it needs more memory than a worker may have"),
            ),
            // The daemon reads with the same library, so `git_transport = "cli"` would help with none of these.
            _ if text.contains("refstorage") => unsupported(
                "its references are in the reftable format, which the built-in git library cannot read; run `git refs \
                 migrate --ref-format=files` there",
            ),
            _ if text.contains("object format") => {
                unsupported("its ids are SHA-256, which the built-in git library cannot read")
            }
            _ if text.contains("unsupported mandatory extension") => unsupported(
                "its index is split or sparse, which the built-in git library cannot read; run `git update-index \
                 --no-split-index` and `git sparse-checkout disable` there",
            ),
            _ if text.contains("partialclone") => {
                unsupported("it is a partial clone, which the built-in git library cannot complete; make a full clone")
            }
            _ => Self::new(FailureKind::Other, format_args!("use {path}: {text}")),
        }
    }
}
