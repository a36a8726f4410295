//! Listeners of programs that must bind a port of their own: connections are carried to the newest one that is ready.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{IoContext, Result};

/// How long a connection is held while no instance is ready for it.
const HOLD_MAX: Duration = Duration::from_secs(60);

/// The ports of the instance that serves.
type Route = Option<(u64, BTreeMap<String, u16>)>;

/// Where connections go.
#[derive(Clone, Debug, Default)]
pub(super) struct Carriers {
    route: Arc<watch::Sender<Route>>,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

impl Listener {
    fn new(listener: OwnedFd) -> std::io::Result<Self> {
        rustix::io::ioctl_fionbio(&listener, true)?;
        let family = rustix::net::sockopt::socket_domain(&listener)?;
        if family == rustix::net::AddressFamily::UNIX {
            UnixListener::from_std(StdUnixListener::from(listener)).map(Self::Unix)
        } else {
            TcpListener::from_std(std::net::TcpListener::from(listener)).map(Self::Tcp)
        }
    }

    async fn accept(&self) -> std::io::Result<Box<dyn Connection>> {
        Ok(match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // What the program wrote at once goes out at once.
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(listener) => Box::new(listener.accept().await?.0),
        })
    }
}

impl Carriers {
    /// Connections that come now go to these ports.
    pub(super) fn route(&self, generation: u64, ports: &BTreeMap<String, u16>) {
        self.route.send_replace(Some((generation, ports.clone())));
    }

    /// Nothing is ready: connections wait.
    pub(super) fn hold(&self) {
        self.route.send_replace(None);
    }

    /// Carries connections of `listener`, until `cancel`.
    pub(super) fn carry(
        &self,
        name: &str,
        listener: OwnedFd,
        tasks: &TaskTracker,
        cancel: &CancellationToken,
    ) -> Result<()> {
        let listener = Listener::new(listener).doing("carry connections of", name)?;
        let (name, route, cancel, connections) = (name.to_owned(), self.route.clone(), cancel.clone(), tasks.clone());
        tasks.spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = cancel.cancelled() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok(client) => {
                        let (name, route, cancel) = (name.clone(), route.subscribe(), cancel.clone());
                        connections.spawn(async move {
                            tokio::select! {
                                () = cancel.cancelled() => {}
                                () = carry_one(client, &name, route) => {}
                            }
                        });
                    }
                    Err(error) => {
                        // Too many descriptors, most often: others must close theirs first.
                        tracing::warn!(listener = name, %error, "cannot accept");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
        });
        Ok(())
    }
}

async fn carry_one(mut client: Box<dyn Connection>, name: &str, mut route: watch::Receiver<Route>) {
    let found = tokio::time::timeout(HOLD_MAX, connect(name, &mut route)).await;
    if let Ok(Some(mut server)) = found {
        // Either side may end it as it likes.
        let _ended = copy_bidirectional(&mut client, &mut server).await;
    }
}

async fn connect(name: &str, route: &mut watch::Receiver<Route>) -> Option<TcpStream> {
    loop {
        let target = route.wait_for(Option::is_some).await.ok()?.clone();
        let port = target.and_then(|(_, ports)| ports.get(name).copied())?;
        if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            let _slower = server.set_nodelay(true);
            return Some(server);
        }
        // It ended just now; whoever comes next has another port.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
