//! The asking end: what `pickupd status` and its like do, for any program.

use std::path::{Path, PathBuf};

use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::{ExactPath, Lines, Request, Response, Socket, invalid, send};
use crate::error::{Error, ErrorKind, Result};
use crate::{Delivery, Deployment, Explanation, PickupStatus, PlanOptions, PlanReport, SyncOptions, SyncReport};

/// The most bytes of an answer: far more than [`HISTORY_MAX`](super::HISTORY_MAX) deployments take.
const ANSWER_MAX: usize = 256 << 20;

/// A daemon that can be asked. Each request opens a connection of its own.
///
/// Errors of the daemon come back with their kind and message; [`ErrorKind::NoDaemon`] means that nothing listens (any
/// more), [`ErrorKind::Protocol`] that the other end does not speak as this program does.
#[derive(Clone, Debug)]
pub struct Client {
    state_dir: PathBuf,
}

impl Client {
    /// Finds the daemon that owns `state_dir`.
    ///
    /// # Errors
    /// [`ErrorKind::NoDaemon`] if there is none, [`ErrorKind::Io`] if it cannot be reached: it may run as another user.
    pub async fn connect(state_dir: &Path) -> Result<Self> {
        Socket::connect(state_dir).await?;
        Ok(Self { state_dir: state_dir.to_path_buf() })
    }

    /// As [`Engine::status`](crate::Engine::status).
    ///
    /// # Errors
    /// No pickup has that name.
    pub async fn status(&self, name: Option<&str>) -> Result<Vec<PickupStatus>> {
        match self.ask(&Request::Status { name: name.map(Into::into) }).await? {
            Response::Status(statuses) => Ok(statuses),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Engine::why`](crate::Engine::why).
    ///
    /// # Errors
    /// The daemon went away.
    pub async fn why(&self, path: &Path) -> Result<Vec<Explanation>> {
        match self.ask(&Request::Why { path: path.into() }).await? {
            Response::Why(explanations) => Ok(explanations),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Engine::history`](crate::Engine::history), at most [`HISTORY_MAX`](super::HISTORY_MAX) deployments.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub async fn history(&self, name: Option<&str>, limit: usize) -> Result<Vec<Deployment>> {
        match self.ask(&Request::History { name: name.map(Into::into), limit }).await? {
            Response::History(deployments) => Ok(deployments),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Engine::sync`](crate::Engine::sync).
    ///
    /// # Errors
    /// No pickup has that name, or the daemon is stopping.
    pub async fn sync(&self, name: Option<&str>, options: SyncOptions) -> Result<Vec<SyncReport>> {
        let SyncOptions { confirm_removals, until_final } = options;
        match self.ask(&Request::Sync { name: name.map(Into::into), confirm_removals, until_final }).await? {
            Response::Sync(reports) => Ok(reports),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Engine::plan`](crate::Engine::plan).
    ///
    /// # Errors
    /// No pickup has that name, or the daemon is stopping.
    pub async fn plan(&self, name: Option<&str>, options: PlanOptions) -> Result<Vec<PlanReport>> {
        let PlanOptions { confirm_removals } = options;
        match self.ask(&Request::Plan { name: name.map(Into::into), confirm_removals }).await? {
            Response::Plan(reports) => Ok(reports),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Engine::rollback`](crate::Engine::rollback).
    ///
    /// # Errors
    /// No such pickup or generation, or a deployer failed; then what was live stays.
    pub async fn rollback(&self, name: &str, to: Option<u64>) -> Result<u64> {
        match self.ask(&Request::Rollback { name: name.into(), to }).await? {
            Response::RolledBack { generation } => Ok(generation),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Engine::release`](crate::Engine::release).
    ///
    /// # Errors
    /// No such pickup, or it is not held.
    pub async fn release(&self, name: &str) -> Result<()> {
        match self.ask(&Request::Release { name: name.into() }).await? {
            Response::Released {} => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Engine::retry`](crate::Engine::retry).
    ///
    /// # Errors
    /// No pickup has that name.
    pub async fn retry(&self, name: &str, path: Option<&Path>) -> Result<usize> {
        let path = path.map(|path| ExactPath(path.into()));
        match self.ask(&Request::Retry { name: name.into(), path }).await? {
            Response::Retried { units } => Ok(units),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Engine::reread`](crate::Engine::reread).
    ///
    /// # Errors
    /// The configuration cannot be used; then the running one stays.
    pub async fn reload(&self) -> Result<()> {
        match self.ask(&Request::Reload {}).await? {
            Response::Reloaded {} => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// As [`Engine::subscribe`](crate::Engine::subscribe): everything that happens after this returns.
    ///
    /// # Errors
    /// The daemon went away.
    pub async fn events(&self) -> Result<EventStream> {
        let mut connection = Connection::open(&self.state_dir).await?;
        match connection.ask(&Request::Events {}).await? {
            Response::Subscribed {} => Ok(EventStream(connection)),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&self, request: &Request) -> Result<Response> {
        Connection::open(&self.state_dir).await?.ask(request).await
    }
}

/// A daemon's events, as they happen.
#[derive(Debug)]
pub struct EventStream(Connection);

impl EventStream {
    /// Waits for the next event; `None` once the daemon has stopped.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn next(&mut self) -> Result<Option<Delivery>> {
        match self.0.answer().await? {
            None => Ok(None),
            Some(Response::Event(event)) => Ok(Some(Delivery::Event(event))),
            Some(Response::Lagged { missed }) => Ok(Some(Delivery::Lagged(missed))),
            Some(other) => Err(unexpected(&other)),
        }
    }
}

struct Connection {
    lines: Lines<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    async fn open(state_dir: &Path) -> Result<Self> {
        let stream: UnixStream = Socket::connect(state_dir).await?;
        let (reader, writer) = stream.into_split();
        Ok(Self { lines: Lines::new(reader, ANSWER_MAX), writer })
    }

    async fn ask(&mut self, request: &Request) -> Result<Response> {
        let sent = send(&mut self.writer, &request.to_json()?).await;
        // A daemon that turns us away says why without reading, so the answer counts for more than a failed write.
        let answer = self.answer().await;
        match (answer, sent) {
            (Ok(Some(answer)), _) => Ok(answer),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(_)) if error.kind() != ErrorKind::Io => Err(error),
            (Ok(None) | Err(_), Err(error)) => Err(error),
            (Ok(None), Ok(())) => Err(Error::new(ErrorKind::NoDaemon, "get an answer: the daemon hung up")),
        }
    }

    /// The next answer; the daemon's errors are ours.
    async fn answer(&mut self) -> Result<Option<Response>> {
        let Some(line) = self.lines.next().await? else { return Ok(None) };
        match serde_json::from_slice(&line).map_err(|error| invalid("understand the daemon").caused_by(error))? {
            Response::Error { kind, message } => Err(Error::new(kind, message)),
            answer => Ok(Some(answer)),
        }
    }
}

fn unexpected(answer: &Response) -> Error {
    let answer = serde_json::to_string(answer).unwrap_or_default();
    let start: String = answer.chars().take(100).collect();
    invalid(&format!("understand the daemon: it answered another question: {start}"))
}
