//! The answering end of the control socket.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Engine, Inner, PlanOptions, SyncOptions};
use crate::control::{
    ExactPath, HISTORY_MAX, Lines, REQUEST_MAX, Request, Response, Socket, invalid, is_allowed, send,
};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Delivery;

/// More connections than this at once are turned away: a program that forgets to close them must not use us up.
const CONNECTIONS_MAX: usize = 32;
/// How long a peer may take to send its request, and to take an answer.
const PEER_PATIENCE: Duration = Duration::from_secs(10);
/// How often a connection that waits for its answer is looked at: its peer may have gone.
const GONE_INTERVAL: Duration = Duration::from_secs(1);
/// How long accepting pauses when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a shutdown waits for the last answers to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The control socket of an engine, once it is open.
#[derive(Default)]
pub(super) struct Control {
    socket: Mutex<Option<Socket>>,
    connections: TaskTracker,
    /// Cancelled when no more events will come.
    closing: CancellationToken,
}

impl Drop for Control {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl Control {
    /// Waits until the last events and answers are written, and removes the socket.
    pub(super) async fn close(&self) {
        self.closing.cancel();
        self.connections.close();
        // A peer that does not read is not waited for.
        let _ = timeout(LAST_WORDS, self.connections.wait()).await;
        self.socket.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Engine {
    /// Answers on `<state_dir>/control.sock` (for the engine's own user and root) until the engine ends: see
    /// [`control`](crate::control). Doing so twice is doing so once.
    ///
    /// # Errors
    /// The socket cannot be bound.
    pub fn serve_control(&self) -> Result<()> {
        let Control { socket, connections, closing } = &self.0.control;
        let mut socket = socket.lock().unwrap_or_else(PoisonError::into_inner);
        if socket.is_some() {
            return Ok(());
        }
        let runtime = self.0.shared.runtime.clone();
        let _inside = runtime.enter();
        let (bound, listener) = Socket::bind(&self.0.shared.state_dir)?;
        *socket = Some(bound);
        let door = Door {
            engine: Arc::downgrade(&self.0),
            end: self.0.end.clone(),
            closing: closing.clone(),
            connections: connections.clone(),
        };
        runtime.spawn(door.serve(listener));
        Ok(())
    }
}

/// What the tasks behind the socket share. They do not keep the engine alive.
#[derive(Clone)]
struct Door {
    engine: Weak<Inner>,
    /// Cancelled when the engine begins to end: nothing more may be asked.
    end: CancellationToken,
    /// Cancelled when it has ended: nothing more will be said.
    closing: CancellationToken,
    connections: TaskTracker,
}

impl Door {
    /// Accepts connections until the engine ends.
    async fn serve(self, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let accepted = tokio::select! {
                () = self.end.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match (is_allowed(&stream), places.clone().try_acquire_owned()) {
                (true, Ok(place)) => {
                    let door = self.clone();
                    self.connections.spawn(async move {
                        door.converse(stream).await;
                        drop(place);
                    });
                }
                (true, Err(_)) => {
                    let action = format!("answer: {CONNECTIONS_MAX} connections are open; close some, or try again");
                    self.turn_away(stream, Error::new(ErrorKind::Busy, action));
                }
                (false, _) => {
                    self.turn_away(stream, invalid("answer this user: ask as the daemon's user, or as root"));
                }
            }
        }
    }

    /// One request and its answer.
    async fn converse(&self, stream: UnixStream) {
        let (reader, mut writer) = stream.into_split();
        let request = tokio::select! {
            () = self.end.cancelled() => return,
            request = receive(reader) => request,
        };
        let Some(request) = request.transpose() else { return };
        let answer = match request {
            Ok(Request::Events {}) => return self.stream_events(&mut writer).await,
            Ok(request) => tokio::select! {
                answer = self.answer(request) => answer,
                () = gone(&writer) => return,
            },
            Err(error) => Err(error),
        };
        let answer = answer.unwrap_or_else(|error| Response::from_error(&error));
        // A peer that went away, or does not read, gets no answer.
        let _ = timeout(PEER_PATIENCE, send(&mut writer, &answer)).await;
    }

    /// Says why a connection is not served. The answer is short enough for an empty socket buffer.
    fn turn_away(&self, mut stream: UnixStream, error: Error) {
        self.connections.spawn(async move {
            // A peer that does not take it is not waited for.
            let _ = timeout(LAST_WORDS, send(&mut stream, &Response::from_error(&error))).await;
        });
    }

    fn engine(&self) -> Result<Engine> {
        self.engine.upgrade().map(Engine).ok_or_else(super::stopping)
    }

    async fn answer(&self, request: Request) -> Result<Response> {
        let engine = self.engine()?;
        Ok(match request {
            Request::Status { name } => Response::Status(engine.status(name.as_deref()).await?),
            Request::Why { path } => Response::Why(engine.why(&path).await),
            Request::History { name, limit } => {
                let read = move || engine.history(name.as_deref(), limit.min(HISTORY_MAX));
                Response::History(tokio::task::spawn_blocking(read).await.map_err(|_| super::stopping())??)
            }
            Request::Sync { name, confirm_removals, until_final } => {
                let options = SyncOptions { confirm_removals, until_final };
                Response::Sync(engine.sync(name.as_deref(), options).await?)
            }
            Request::Plan { name, confirm_removals } => {
                Response::Plan(engine.plan(name.as_deref(), PlanOptions { confirm_removals }).await?)
            }
            Request::Rollback { name, to } => Response::RolledBack { generation: engine.rollback(&name, to).await? },
            Request::Release { name } => {
                engine.release(&name).await?;
                Response::Released {}
            }
            Request::Retry { name, path } => {
                let path = path.map(|ExactPath(path)| path);
                Response::Retried { units: engine.retry(&name, path.as_deref()).await? }
            }
            Request::Reload {} => {
                engine.reread().await?;
                Response::Reloaded {}
            }
            Request::Events {} => return Err(invalid("answer `events` with one line")),
        })
    }

    /// Sends events until the engine ends or the peer goes.
    async fn stream_events(&self, writer: &mut OwnedWriteHalf) {
        // The engine itself is let go of: a subscriber must not keep it alive.
        let Ok(mut events) = self.engine().map(|engine| engine.subscribe()) else { return };
        if send(writer, &Response::Subscribed {}).await.is_err() {
            return;
        }
        loop {
            let delivery = tokio::select! {
                biased;
                delivery = events.next() => delivery,
                // Last, so that what was said before is sent.
                () = self.closing.cancelled() => return,
                () = gone(writer) => return,
            };
            let Some(delivery) = delivery else { return };
            let line = line(delivery);
            let sent = tokio::select! {
                sent = send(writer, &line) => sent,
                () = self.closing.cancelled() => return,
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

/// The request, if the peer sends one.
async fn receive(reader: OwnedReadHalf) -> Result<Option<Request>> {
    let late = || invalid(&format!("wait longer than {} s for a request", PEER_PATIENCE.as_secs()));
    let line = timeout(PEER_PATIENCE, Lines::new(reader, REQUEST_MAX).next()).await.map_err(|_| late())??;
    line.map(|line| Request::from_json(&line)).transpose()
}

/// Returns once the peer has closed its end for good; one that only sends no more still listens.
async fn gone(writer: &OwnedWriteHalf) {
    loop {
        let readiness = writer.ready(Interest::WRITABLE).await;
        if readiness.is_err() || readiness.is_ok_and(|readiness| readiness.is_write_closed()) {
            return;
        }
        tokio::time::sleep(GONE_INTERVAL).await;
    }
}

fn line(delivery: Delivery) -> Response {
    match delivery {
        Delivery::Event(event) => Response::Event(event),
        Delivery::Lagged(missed) => Response::Lagged { missed },
    }
}
