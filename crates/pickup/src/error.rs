//! One public error: what was being done, to which path, and why it failed.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The result of everything in this crate that can stop the caller.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is, for programs that branch on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration cannot be used; the message names file, line and column.
    Config,
    /// The operating system refused an operation on a file or directory.
    Io,
    /// The journal cannot be opened, read or written.
    Journal,
    /// Another process owns the state directory.
    Busy,
    /// The state directory was written by a newer version of this program.
    NewerSchema,
    /// A deployer refused or failed; the old version is still live.
    Deploy,
    /// A deadline passed.
    Timeout,
    /// The work was cancelled by a shutdown.
    Cancelled,
    /// The name or generation that was asked for does not exist.
    NotFound,
    /// A peer on the control socket sent something that is no request.
    Protocol,
    /// No daemon listens on the control socket.
    NoDaemon,
    /// A git repository cannot be reached, read or followed.
    Git,
}

/// A failure, worded as a lowercase fragment that reads after "cannot".
///
/// `Display` gives the whole chain on one line: `read journal state/pickup.db: disk image is malformed`.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    action: String,
    path: Option<PathBuf>,
    is_transient: bool,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// Makes an error of `kind`; `action` says what could not be done.
    pub fn new(kind: ErrorKind, action: impl Into<String>) -> Self {
        Self { kind, action: action.into(), path: None, is_transient: false, source: None }
    }

    /// A deployer's own refusal or failure: the simplest way to fail from a custom deployer.
    pub fn deploy(action: impl Into<String>) -> Self {
        Self::new(ErrorKind::Deploy, action)
    }

    /// An operating system error met while doing `action` to `path`.
    pub fn io(action: impl Into<String>, path: impl Into<PathBuf>, source: io::Error) -> Self {
        // The environment is at fault, not the artifact: it is worth trying again for ever.
        Self { is_transient: true, ..Self::new(ErrorKind::Io, action).at(path).caused_by(source) }
    }

    /// Names the path concerned.
    #[must_use]
    pub fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Names the underlying error.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Marks the failure as one of the environment: it is retried with back-off until it heals, and never quarantined.
    #[must_use]
    pub fn transient(mut self) -> Self {
        self.is_transient = true;
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The path concerned, if there is one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// Whether the environment, not the artifact, is at fault.
    pub fn is_transient(&self) -> bool {
        self.is_transient
    }

    /// The operating system's error, if one is the cause.
    pub fn io_error(&self) -> Option<&io::Error> {
        self.source.as_deref()?.downcast_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.action)?;
        if let Some(path) = &self.path {
            write!(f, " {}", path.display())?;
        }
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            // Our own errors already print their chain.
            cause = if error.is::<Error>() { None } else { error.source() };
        }
        Ok(())
    }
}

/// For closures that deal with files, and give back what those say.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = error.io_error().map_or(std::io::ErrorKind::Other, Self::kind);
        Self::new(kind, error)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Adds what was being done, and to which path, to an [`io::Result`].
pub(crate) trait IoContext<T> {
    /// `std::fs::read(path).doing("read", path)`.
    fn doing(self, action: &str, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn doing(self, action: &str, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| Error::io(action, path, source.into()))
    }
}
