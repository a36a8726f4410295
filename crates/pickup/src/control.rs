//! The control socket: one request a connection, one JSON object a line each way.
//!
//! A request names the version of the protocol and a command: `{"version":1,"command":"status","name":"my.code"}`. The
//! answer is one line named after what it holds, `{"status":[…]}`, or `{"error":{"kind":"not_found","message":"…"}}`.
//! `events` answers `{"subscribed":{}}` and then one line for each event until either side goes. The server is in
//! `engine/control.rs`, [`Client`] is the other end.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

mod client;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod line;
mod socket;
#[cfg(test)]
mod tests;

pub use self::client::{Client, EventStream};
pub(crate) use self::line::{Lines, send};
pub(crate) use self::socket::{Socket, is_allowed};
use crate::error::{Error, ErrorKind, Result};
use crate::path::exact;
use crate::{Deployment, Event, Explanation, PickupStatus, PlanReport, SyncReport};

/// The version of the protocol that this program speaks.
pub const VERSION: u64 = 1;

/// The most bytes that a request may have: none of ours comes near.
pub(crate) const REQUEST_MAX: usize = 64 * 1024;

/// The most deployments that one answer holds.
pub const HISTORY_MAX: usize = 1000;

/// Where the control socket of the engine that owns `state_dir` is.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join(socket::FILE_NAME)
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Request {
    Status {
        #[serde(default)]
        name: Option<String>,
    },
    Why {
        #[serde(with = "exact")]
        path: PathBuf,
    },
    History {
        #[serde(default)]
        name: Option<String>,
        limit: usize,
    },
    Sync {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        confirm_removals: bool,
        #[serde(default)]
        until_final: bool,
    },
    Plan {
        #[serde(default)]
        name: Option<String>,
        #[serde(default)]
        confirm_removals: bool,
    },
    Rollback {
        name: String,
        #[serde(default)]
        to: Option<u64>,
    },
    Release {
        name: String,
    },
    Retry {
        name: String,
        #[serde(default)]
        path: Option<ExactPath>,
    },
    Reload {},
    Events {},
}

/// A path that need not be UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExactPath(#[serde(with = "exact")] pub PathBuf);

/// What is answered. Each is a JSON object with one key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Response {
    Error { kind: ErrorKind, message: String },
    Status(Vec<PickupStatus>),
    Why(Vec<Explanation>),
    History(Vec<Deployment>),
    Sync(Vec<SyncReport>),
    Plan(Vec<PlanReport>),
    RolledBack { generation: u64 },
    Released {},
    Retried { units: usize },
    Reloaded {},
    Subscribed {},
    Event(Event),
    Lagged { missed: u64 },
}

impl Request {
    /// The request as it is sent.
    pub(crate) fn to_json(&self) -> Result<Value> {
        let mut value = serde_json::to_value(self).map_err(|error| invalid("write the request").caused_by(error))?;
        if let Value::Object(fields) = &mut value {
            fields.insert("version".into(), VERSION.into());
        }
        Ok(value)
    }

    /// The request in `line`.
    ///
    /// # Errors
    /// It is no request, or one of another version.
    pub(crate) fn from_json(line: &[u8]) -> Result<Self> {
        let mut value: Value =
            serde_json::from_slice(line).map_err(|error| invalid("read the request").caused_by(error))?;
        let Value::Object(fields) = &mut value else {
            return Err(invalid("read the request: it is no JSON object"));
        };
        match fields.remove("version") {
            Some(version) if version == VERSION => {}
            Some(version) => {
                let action = format!("answer version {version} of the protocol: this daemon speaks {VERSION}");
                return Err(invalid(&action));
            }
            None => return Err(invalid(&format!("read the request: it names no version (`\"version\":{VERSION}`)"))),
        }
        serde_json::from_value(value).map_err(|error| invalid("read the request").caused_by(error))
    }
}

impl Response {
    /// What went wrong, or `None` if nothing did.
    pub(crate) fn from_error(error: &Error) -> Self {
        Self::Error { kind: error.kind(), message: error.to_string() }
    }
}

/// Something that does not belong on the socket.
pub(crate) fn invalid(action: &str) -> Error {
    Error::new(ErrorKind::Protocol, action)
}
