//! Clients that ask without a pause, and count what is lost.

use std::io::{BufRead, BufReader, Error, Read, Result as IoResult, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::deploying::cost::wait_until;

/// How many ask at the same time.
pub const CLIENTS: usize = 32;

/// How many requests are answered between two redeploys, at least.
pub const BETWEEN: usize = 500;

/// How long a client that lost a request waits before it asks again.
pub const PAUSE: Duration = Duration::from_millis(5);

/// How long a client waits for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Tally>>,
    start: Instant,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub served: usize,
    pub lost: usize,
    /// From the first try of a request to its answer.
    pub longest: Duration,
    /// How long the clients were at work.
    pub span: Duration,
}

impl Load {
    /// Starts the clients; with `keep_alive`, each uses a connection for as long as the server lets it.
    pub fn start(address: SocketAddr, keep_alive: bool) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = |_| {
            let (stop, served) = (stop.clone(), served.clone());
            std::thread::spawn(move || ask_on(address, keep_alive, &stop, &served))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, served, clients, start: Instant::now() }
    }

    /// Waits until so many more requests are answered.
    pub fn wait_for(&self, more: usize) -> Result<()> {
        let enough = self.served.load(Ordering::Relaxed) + more;
        wait_until(PATIENCE, "the server to answer", || self.served.load(Ordering::Relaxed) >= enough).map(drop)
    }

    /// Stops them; says what came of it.
    pub fn stop(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally { span: self.start.elapsed(), ..Tally::default() };
        for client in self.clients {
            let tally = client.join().map_err(|_| anyhow!("a client panicked"))?;
            all.served += tally.served;
            all.lost += tally.lost;
            all.longest = all.longest.max(tally.longest);
        }
        Ok(all)
    }
}

fn ask_on(address: SocketAddr, keep_alive: bool, stop: &AtomicBool, served: &AtomicUsize) -> Tally {
    let (mut tally, mut connection) = (Tally::default(), None);
    let mut start = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if ask(address, keep_alive, &mut connection).is_ok() {
            tally.served += 1;
            served.fetch_add(1, Ordering::Relaxed);
            tally.longest = tally.longest.max(start.elapsed());
            start = Instant::now();
        } else {
            tally.lost += 1;
            connection = None;
            std::thread::sleep(PAUSE);
        }
    }
    tally
}

fn ask(address: SocketAddr, keep_alive: bool, connection: &mut Option<BufReader<TcpStream>>) -> IoResult<()> {
    let mut stream = match connection.take() {
        Some(stream) => stream,
        None => {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            BufReader::new(stream)
        }
    };
    let word = if keep_alive { "keep-alive" } else { "close" };
    // In one piece: a server may answer the first and close.
    let request = format!("GET / HTTP/1.1\r\nHost: x\r\nConnection: {word}\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes())?;
    let (mut length, mut closes, mut line) = (0, false, String::new());
    if stream.read_line(&mut line)? == 0 || !line.starts_with("HTTP/1.1 200") {
        return Err(Error::other("no answer"));
    }
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(Error::other("cut off"));
        }
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", value)) => length = value.parse().map_err(Error::other)?,
            Some(("Connection", value)) => closes = value == "close",
            Some(_) => {}
            None => break,
        }
    }
    stream.read_exact(&mut vec![0; length])?;
    if !closes {
        *connection = Some(stream);
    }
    Ok(())
}
