//! A small HTTP server to be supervised: what it does is in the file `version` of the directory it runs in.
//!
//! The file holds words: the version's name first, then how it behaves: `crash` before it is ready, `never` get ready,
//! `die` in probation after it finished what it had, `vanish` in probation in the middle of everything, `deaf` to
//! SIGTERM, `fork` a worker that serves as well, `leave` all to that worker, `hang` without a sign of life, `loop` through
//! crashes once the file `$CRASH` is there, `chatty`.

use std::os::fd::{FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener as StdUnixListener};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::sleep;

/// A start takes a while, in which the old version serves.
const START: Duration = Duration::from_millis(100);

/// A request takes a while, so that versions change in the middle of some.
const WORK: Duration = Duration::from_millis(5);

type Failure = Box<dyn std::error::Error>;

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Connection: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Connection for T {}

impl Listener {
    async fn accept(&self) -> std::io::Result<Box<dyn Connection>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let text = std::fs::read_to_string("version")?;
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let name = words.first().cloned().unwrap_or_default();
    let has = |word: &str| words.iter().any(|known| known == word);
    let is_worker = std::env::args().any(|argument| argument == "worker");
    let port = std::env::args().find_map(|argument| argument.strip_prefix("--port=").map(str::to_owned));
    println!("version {name} starts");
    if (has("fork") || has("leave")) && !is_worker {
        // It inherits the listener and the group.
        let mut worker = std::process::Command::new(std::env::current_exe()?);
        let worker = worker.args(std::env::args().skip(1)).arg("worker").spawn()?;
        if has("leave") {
            say(&format!("MAINPID={}\nREADY=1", worker.id()));
            return Ok(());
        }
    }
    sleep(START).await;
    if has("crash") {
        println!("this version cannot start");
        std::process::exit(3);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    if has("never") {
        return never(&mut terminate).await;
    }
    let listener = match port {
        Some(port) => Listener::Tcp(TcpListener::bind(("127.0.0.1", port.parse()?)).await?),
        None => handed_over(is_worker)?,
    };
    if has("loop") && std::path::Path::new(&std::env::var("CRASH")?).exists() {
        std::process::exit(7);
    }
    if !is_worker {
        say("STATUS=up\nREADY=1");
        println!("ready for requests");
    }
    if has("chatty") {
        (0..5000).for_each(|at| println!("line {at}"));
    }
    if let Ok(micros) = std::env::var("WATCHDOG_USEC")
        && !has("hang")
    {
        // Well within what the protocol asks for.
        let beat = Duration::from_micros(micros.parse::<u64>()?) / 5;
        tokio::task::spawn(async move {
            loop {
                say("WATCHDOG=1");
                sleep(beat).await;
            }
        });
    }
    LocalSet::new().run_until(serve(listener, Rc::new(name), &words, terminate)).await;
    println!("done");
    if has("die") {
        std::process::exit(9);
    }
    Ok(())
}

async fn never(terminate: &mut tokio::signal::unix::Signal) -> Result<(), Failure> {
    println!("this version never gets ready");
    terminate.recv().await;
    Ok(())
}

/// The first listener, by the protocol of systemd.
fn handed_over(is_worker: bool) -> Result<Listener, Failure> {
    if !is_worker && std::env::var("LISTEN_PID")? != std::process::id().to_string() {
        return Err("LISTEN_PID names somebody else".into());
    }
    let names = std::env::var("LISTEN_FDNAMES")?;
    if std::env::var("LISTEN_FDS")? != names.split(':').count().to_string() {
        return Err("expected a name for each listener".into());
    }
    let at = names.split(':').position(|name| name == "http").ok_or("expected a listener named http")?;
    // SAFETY: the protocol hands the descriptors from 3 on over to us alone.
    let listener = unsafe { OwnedFd::from_raw_fd(3 + i32::try_from(at)?) };
    rustix::io::ioctl_fionbio(&listener, true)?;
    let family = rustix::net::sockopt::socket_domain(&listener)?;
    Ok(match family {
        rustix::net::AddressFamily::UNIX => Listener::Unix(UnixListener::from_std(StdUnixListener::from(listener))?),
        _ => Listener::Tcp(TcpListener::from_std(std::net::TcpListener::from(listener))?),
    })
}

fn say(state: &str) {
    let Ok(name) = std::env::var("NOTIFY_SOCKET") else { return };
    let address = SocketAddr::from_abstract_name(name.trim_start_matches('@')).expect("an abstract address");
    let socket = UnixDatagram::unbound().expect("a socket");
    // Nobody may be there for a moment: the daemon restarts.
    let _ = socket.send_to_addr(state.as_bytes(), &address);
}

/// Serves until it is asked to finish, and then until every connection is done.
async fn serve(listener: Listener, name: Rc<String>, words: &[String], mut terminate: tokio::signal::unix::Signal) {
    let has = |word: &str| words.iter().any(|known| known == word);
    let draining = Rc::new(watch::Sender::new(false));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok(stream) = accepted else { continue };
                if has("vanish") {
                    std::process::exit(9);
                }
                let (name, draining) = (name.clone(), draining.clone());
                connections.spawn_local(async move {
                    // A client may go whenever it likes.
                    let _ = answer(stream, &name, &draining).await;
                });
                if has("die") {
                    break;
                }
            }
            _ = terminate.recv(), if !has("deaf") => break,
            _ = connections.join_next(), if !connections.is_empty() => {}
        }
    }
    drop(listener);
    draining.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// Answers requests one after the other, until the client wants no more, or we do not.
async fn answer(mut stream: Box<dyn Connection>, name: &str, draining: &watch::Sender<bool>) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    loop {
        while !buffer.windows(4).any(|window| window == b"\r\n\r\n") {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let closes = String::from_utf8_lossy(&buffer).contains("Connection: close");
        buffer.clear();
        sleep(WORK).await;
        let closes = closes || *draining.borrow();
        let word = if closes { "close" } else { "keep-alive" };
        let length = name.len();
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: {word}\r\n\r\n{name}");
        stream.write_all(reply.as_bytes()).await?;
        if closes {
            return stream.shutdown().await;
        }
    }
}
