//! A port on loopback, and a thread for each connection to it.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a test waits for a connection before it fails.
const CAP: Duration = Duration::from_secs(30);

/// Accepts connections until it is dropped; then it ends those that are open.
pub struct Listener {
    port: u16,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_over: bool,
    connections: usize,
    open: Vec<TcpStream>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// Calls `serve` with each connection, in a thread of its own.
    pub fn new(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
        let port = listener.local_addr().expect("the address of a port").port();
        let shared = Arc::new(Shared::default());
        let thread = std::thread::spawn({
            let (shared, serve) = (shared.clone(), Arc::new(serve));
            move || accept(&listener, &shared, &serve)
        });
        Self { port, shared, thread: Some(thread) }
    }

    /// As inetd does it: a process for each connection, which is its standard input and output.
    pub fn inetd(command: impl Fn() -> Command + Send + Sync + 'static) -> Self {
        Self::new(move |stream| {
            let output = stream.try_clone().expect("a second handle");
            let mut command = command();
            command.stdin(OwnedFd::from(stream)).stdout(OwnedFd::from(output)).stderr(Stdio::null()).process_group(0);
            let mut child = command.spawn().expect("start a server");
            // It ends when the connection does; what it started must not outlive it.
            let group = Pid::from_child(&child);
            child.wait().expect("wait for a server");
            let _ = kill_process_group(group, Signal::KILL);
        })
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// Waits until there were so many.
    #[track_caller]
    pub fn wait_connections(&self, count: usize) {
        let is_less = |state: &mut State| state.connections < count;
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), CAP, is_less);
        let seen = waited.unwrap_or_else(PoisonError::into_inner).0.connections;
        assert!(seen >= count, "waited for {count} connections, saw {seen}");
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let open = {
            let mut state = self.shared.lock();
            state.is_over = true;
            std::mem::take(&mut state.open)
        };
        for stream in open {
            // It may have ended.
            let _ = stream.shutdown(Shutdown::Both);
        }
        // This is what `accept` waits for.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            // Its panic is the test's own only if the test has none.
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a server panicked");
        }
    }
}

fn accept<S: Fn(TcpStream) + Send + Sync + 'static>(listener: &TcpListener, shared: &Shared, serve: &Arc<S>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    while let Ok((stream, _)) = listener.accept() {
        {
            let mut state = shared.lock();
            if state.is_over {
                break;
            }
            state.connections += 1;
            shared.changed.notify_all();
            let Ok(second) = stream.try_clone() else { continue };
            // Those that the other side closed are of no interest any more, and would keep it from seeing ours.
            state.open.retain(is_open);
            state.open.push(second);
        }
        let serve = serve.clone();
        threads.push(std::thread::spawn(move || {
            let end = stream.try_clone();
            serve(stream);
            if let Ok(end) = end {
                let _ = end.shutdown(Shutdown::Both);
            }
        }));
    }
    for thread in threads {
        thread.join().expect("a connection");
    }
}

fn is_open(stream: &TcpStream) -> bool {
    let is_unblocked = stream.set_nonblocking(true).is_ok();
    let peeked = stream.peek(&mut [0]);
    // The mode is shared with the handle that serves, which expects to wait.
    let _ = stream.set_nonblocking(false);
    is_unblocked && !matches!(peeked, Ok(0)) && !peeked.is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock)
}
