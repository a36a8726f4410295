//! Git repositories as a source: commits in, listings and captured files out.
//!
//! A *mirror* is a bare repository of ours in the state directory, a cache that may be thrown away; a *clone* is a working
//! tree, usually somebody else's, that is never reset. Objects are read in this process; whatever speaks to a remote does
//! so in a [worker](worker) that can be killed.

use serde::{Deserialize, Serialize};

pub(crate) mod barrier;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
pub(crate) mod import;
pub(crate) mod listing;
pub(crate) mod peek;
pub(crate) mod seed;
mod status;
pub(crate) mod transport;
pub(crate) mod worker;

pub use self::status::{GitProblem, GitStatus};
pub use self::worker::{GitWorker, serve_git_worker};

/// A commit that was deployed, or is about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its full id, 40 hexadecimal digits.
    pub commit: String,
    /// The branch or tag that led to it; `None` for a commit that was asked for by its id, and for a detached `HEAD`.
    pub branch: Option<String>,
    /// The author's name.
    pub author: String,
    /// The first line of its message, at most 200 characters, without control characters.
    pub subject: String,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub committed_at: i64,
    /// The id of the commit that was live before, if one was.
    pub previous: Option<String>,
}
