//! Servers that are none: one never answers, one gives a byte a second.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::listener::Listener;

/// Accepts connections, reads what comes, and never answers.
pub struct BlackHole {
    listener: Listener,
}

impl BlackHole {
    pub fn new() -> Self {
        Self { listener: Listener::new(swallow) }
    }

    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.listener.connections()
    }

    /// Waits until there were so many.
    #[track_caller]
    pub fn wait_connections(&self, count: usize) {
        self.listener.wait_connections(count);
    }
}

/// Answers a byte a second, whatever it is asked.
pub struct Drip {
    listener: Listener,
}

impl Drip {
    pub fn new() -> Self {
        Self { listener: Listener::new(drip) }
    }

    pub fn port(&self) -> u16 {
        self.listener.port()
    }
}

fn swallow(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).is_ok_and(|read| read > 0) {}
}

fn drip(mut stream: TcpStream) {
    // A read that runs out of time is the pace; the end of the connection ends it at once.
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("a time to wait");
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(_) if stream.write_all(b"H").is_err() => return,
            Err(_) => {}
        }
    }
}
