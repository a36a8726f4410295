//! Clients that ask without a pause, and count what is lost.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many ask at the same time.
pub const CLIENTS: usize = 32;

/// How long a client waits for one answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<Served>,
    clients: Vec<JoinHandle<Tally>>,
}

/// How many requests were answered, and word of each.
#[derive(Default)]
struct Served {
    count: Mutex<usize>,
    more: Condvar,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    pub served: usize,
    pub lost: Vec<String>,
    pub longest: Duration,
    /// The versions that answered, in the order in which they were first seen.
    pub versions: Vec<String>,
}

impl Load {
    /// Starts the clients; with `keep_alive`, each uses a connection for as long as the server lets it.
    pub fn start(address: SocketAddr, keep_alive: bool) -> Self {
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(Served::default()));
        let client = |_| {
            let (stop, served) = (stop.clone(), served.clone());
            std::thread::spawn(move || ask_on(address, keep_alive, &stop, &served))
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, served, clients }
    }

    /// Waits until so many more requests are answered.
    pub fn wait_for(&self, more: usize) {
        let count = self.served.count.lock().expect("the count");
        let (enough, cap) = (*count + more, Duration::from_secs(30));
        let waited = self.served.more.wait_timeout_while(count, cap, |count| *count < enough).expect("the count");
        assert!(!waited.1.timed_out(), "nothing answers");
    }

    /// Stops them; says what came of it.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in self.clients {
            let tally = client.join().expect("a client");
            all.served += tally.served;
            all.lost.extend(tally.lost);
            all.longest = all.longest.max(tally.longest);
            for version in tally.versions {
                if !all.versions.contains(&version) {
                    all.versions.push(version);
                }
            }
        }
        all
    }
}

fn ask_on(address: SocketAddr, keep_alive: bool, stop: &AtomicBool, served: &Served) -> Tally {
    let (mut tally, mut connection) = (Tally::default(), None);
    while !stop.load(Ordering::Relaxed) {
        let start = Instant::now();
        let was_open = connection.is_some();
        match ask(address, keep_alive, &mut connection) {
            Ok(version) => {
                tally.served += 1;
                *served.count.lock().expect("the count") += 1;
                served.more.notify_one();
                if !tally.versions.contains(&version) {
                    tally.versions.push(version);
                }
            }
            Err(error) => {
                tally.lost.push(format!("{error} (connection {})", if was_open { "kept" } else { "new" }));
                connection = None;
            }
        }
        tally.longest = tally.longest.max(start.elapsed());
    }
    tally
}

/// Asks once; gives what was answered.
pub fn ask_once(address: SocketAddr) -> std::io::Result<String> {
    ask(address, false, &mut None)
}

fn ask(
    address: SocketAddr,
    keep_alive: bool,
    connection: &mut Option<BufReader<TcpStream>>,
) -> std::io::Result<String> {
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
    write!(stream.get_mut(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: {word}\r\n\r\n")?;
    let (mut length, mut closes, mut line) = (0, false, String::new());
    let unexpected = |line: &str| std::io::Error::other(format!("unexpected answer {line:?}"));
    if stream.read_line(&mut line)? == 0 || !line.starts_with("HTTP/1.1 200") {
        return Err(unexpected(&line));
    }
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 {
            return Err(unexpected("cut off"));
        }
        match line.trim_end().split_once(": ") {
            Some(("Content-Length", value)) => length = value.parse().map_err(std::io::Error::other)?,
            Some(("Connection", value)) => closes = value == "close",
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    if !closes {
        *connection = Some(stream);
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}
