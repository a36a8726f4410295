//! The signals a daemon is steered with.

use std::future::Future;

use pickup::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The exit code of a program that a second SIGINT ends: 128 + 2.
pub const AT_ONCE: u8 = 130;

/// SIGTERM and SIGINT.
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    pub fn listen() -> Result<Self, Error> {
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Waits for either; gives its name.
    pub async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }

    /// Carries out `last`, unless a second signal asks to end at once: then `None`.
    pub async fn unless_asked<T>(&mut self, last: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = last => Some(done),
            _ = self.asked() => None,
        }
    }
}

/// SIGHUP.
pub struct Hangup(Signal);

impl Hangup {
    pub fn listen() -> Result<Self, Error> {
        listen(SignalKind::hangup()).map(Self)
    }

    pub async fn asked(&mut self) {
        self.0.recv().await;
    }
}

fn listen(kind: SignalKind) -> Result<Signal, Error> {
    signal(kind).map_err(|error| Error::new(pickup::ErrorKind::Io, "listen for signals").caused_by(error))
}
