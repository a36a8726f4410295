//! The address of a repository, which never shows a password.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The address of a git repository: `https://`, `http://`, `ssh://`, `git://`, `file://`, `user@host:path` or a path.
///
/// `Display` and `Debug` leave out the user's password.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GitUrl(String);

impl GitUrl {
    /// An address as somebody wrote it.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// All of it, password included: not for people's eyes.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GitUrl({self})")
    }
}
