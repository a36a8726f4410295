//! What a git entry says about its remote and its commits.

use serde::{Deserialize, Serialize};

use super::Revision;

/// How a git entry stands towards the repository that it follows. Times are milliseconds since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitStatus {
    /// The address of the remote, without a password; `None` where only a working tree is looked at.
    pub remote: Option<String>,
    /// What is followed: `main`, `v1`, a commit's id, `HEAD`; or, where it is known, `branch main`, `tag v1`, `commit 0123…`.
    pub follows: String,
    /// Whether the remote is asked on a timer.
    pub auto_checkout: bool,
    /// The commit that the reference led to last.
    pub seen: Option<Revision>,
    /// The commit that is live.
    pub live: Option<Revision>,
    /// When the remote answered last.
    pub last_reached: Option<i64>,
    /// When the reference led to another commit last.
    pub last_moved: Option<i64>,
    /// When the remote is asked next, if it is by itself.
    pub next_check: Option<i64>,
    /// How far a check has come, while one runs.
    pub checking: Option<String>,
    /// Why the last check failed, if it did.
    pub problem: Option<GitProblem>,
    /// What is waited for: git is at work in the working tree, and how.
    pub waiting: Option<String>,
}

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GitProblem {
    /// When it failed last, in milliseconds since the Unix epoch.
    pub at: i64,
    /// What failed and why: a fragment that reads after "cannot", without secrets.
    pub cause: String,
    /// How often it failed in a row.
    pub attempts: u32,
}

impl GitStatus {
    /// What the records know where no engine runs: the commit that is live.
    pub(crate) fn recorded(live: Revision) -> Self {
        let follows = live.branch.clone().unwrap_or_else(|| format!("commit {}", live.commit));
        Self {
            remote: None,
            follows,
            auto_checkout: false,
            seen: None,
            live: Some(live),
            last_reached: None,
            last_moved: None,
            next_check: None,
            checking: None,
            problem: None,
            waiting: None,
        }
    }
}
