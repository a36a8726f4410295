//! The server that is redeployed: this program, started as its own child.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixDatagram};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::sleep;

/// How long the server takes to start.
pub const START: Duration = Duration::from_millis(100);

/// How long a request takes.
pub const WORK: Duration = Duration::from_millis(5);

/// How many connections wait for it at most.
pub const BACKLOG: i32 = 4096;

/// What it prints once it takes connections.
pub const READY: &str = "ready";

/// The first descriptor that is handed over by systemd's protocol.
const FIRST: RawFd = 3;

/// Serves until SIGTERM, and finishes what it accepted. `--bind=ADDRESS`, `--share=ADDRESS` (with SO_REUSEPORT), `--inherit=DESCRIPTOR`;
/// else the listener is the one that systemd's protocol hands over. What it answers is in the file `version`.
pub fn serve(arguments: Vec<OsString>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
    let argument = arguments.first().and_then(|argument| argument.to_str()).unwrap_or_default().to_owned();
    LocalSet::new().block_on(&runtime, run(argument))
}

async fn run(argument: String) -> Result<()> {
    let version = std::fs::read_to_string("version").context("read the version")?;
    let terminate = signal(SignalKind::terminate())?;
    sleep(START).await;
    let listener = match argument.split_once('=') {
        Some(("--bind", address)) => bound(address.parse()?, false)?,
        Some(("--share", address)) => bound(address.parse()?, true)?,
        Some(("--inherit", number)) => inherited(number.parse()?)?,
        _ => inherited(FIRST)?,
    };
    println!("{READY}");
    notify()?;
    answer_all(listener, version.trim().into(), terminate).await;
    Ok(())
}

fn bound(address: SocketAddr, is_shared: bool) -> Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(is_shared)?;
    socket.bind(address).with_context(|| format!("bind {address}"))?;
    Ok(socket.listen(BACKLOG.unsigned_abs())?)
}

fn inherited(number: RawFd) -> Result<TcpListener> {
    // SAFETY: whoever started us opened this descriptor for us alone, and nothing here has touched it.
    let listener = std::net::TcpListener::from(unsafe { OwnedFd::from_raw_fd(number) });
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener)?)
}

/// Tells a supervisor, if there is one.
fn notify() -> Result<()> {
    let Ok(name) = std::env::var("NOTIFY_SOCKET") else { return Ok(()) };
    let address = UnixAddr::from_abstract_name(name.trim_start_matches('@'))?;
    UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address).context("tell the supervisor")?;
    Ok(())
}

async fn answer_all(listener: TcpListener, version: Rc<str>, mut terminate: Signal) {
    let draining = Rc::new(watch::Sender::new(false));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let (version, draining) = (version.clone(), draining.clone());
                connections.spawn_local(async move {
                    // A client may go whenever it likes.
                    let _ = answer(stream, &version, &draining).await;
                });
            }
            _ = terminate.recv() => break,
            _ = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    draining.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// Answers requests one after the other, until the client wants no more, or we do not.
async fn answer(mut stream: TcpStream, version: &str, draining: &watch::Sender<bool>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = Vec::new();
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let wants_close = String::from_utf8_lossy(&request).contains("Connection: close");
        request.clear();
        sleep(WORK).await;
        let closes = wants_close || *draining.borrow();
        let word = if closes { "close" } else { "keep-alive" };
        let length = version.len();
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {word}\r\n\r\n{version}");
        stream.write_all(reply.as_bytes()).await?;
        if closes {
            return stream.shutdown().await;
        }
    }
}
