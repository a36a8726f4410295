//! The socket file: bound for its owner only, found under any path, removed with the engine.
#![expect(clippy::disallowed_methods, reason = "this is the door to the socket's file")]

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use crate::error::{Error, ErrorKind, IoContext, Result};

/// The socket's name in the state directory.
pub(crate) const FILE_NAME: &str = "control.sock";

/// Where a socket is made before it takes its name: nobody else can reach it there.
const NURSERY: &str = "control.new";

/// The bytes of `sun_path`, with the zero at its end: 108 on Linux, 104 on the BSDs and macOS.
const ADDRESS_MAX: usize = if cfg!(target_os = "linux") { 108 } else { 104 };

/// A bound socket's file. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
}

impl Socket {
    /// Binds `<state_dir>/control.sock`, for the owner only from its first moment on. What a dead daemon left there is
    /// replaced; the caller holds the lock of the state directory, so no living one owns it.
    pub(crate) fn bind(state_dir: &Path) -> Result<(Self, UnixListener)> {
        let (nursery, path) = (state_dir.join(NURSERY), state_dir.join(FILE_NAME));
        let young = nursery.join(FILE_NAME);
        remove(&nursery).doing("remove", &nursery)?;
        fs::DirBuilder::new().mode(0o700).create(&nursery).doing("make", &nursery)?;
        let address = Address::of(&nursery).doing("open", &nursery)?;
        let listener = StdUnixListener::bind(&address.path).doing("bind the control socket", &path)?;
        fs::set_permissions(&young, fs::Permissions::from_mode(0o600)).doing("make private", &young)?;
        listener.set_nonblocking(true).doing("set up", &young)?;
        fs::rename(&young, &path).doing("bind the control socket", &path)?;
        let socket = Self { path };
        remove(&nursery).doing("remove", &nursery)?;
        let listener = UnixListener::from_std(listener).doing("listen on", &socket.path)?;
        Ok((socket, listener))
    }

    /// Connects to the daemon that owns `state_dir`.
    ///
    /// # Errors
    /// [`ErrorKind::NoDaemon`] if nothing listens there.
    pub(crate) async fn connect(state_dir: &Path) -> Result<UnixStream> {
        let path = state_dir.join(FILE_NAME);
        let connected = match Address::of(state_dir) {
            Ok(address) => UnixStream::connect(&address.path).await,
            Err(error) => Err(error),
        };
        connected.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => {
                Error::new(ErrorKind::NoDaemon, "find a running daemon: nothing listens on").at(path)
            }
            _ => Error::io("connect to", path, error),
        })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // Whatever is left is replaced at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes a nursery and a socket that never left it.
fn remove(nursery: &Path) -> io::Result<()> {
    for removed in [fs::remove_file(nursery.join(FILE_NAME)), fs::remove_dir(nursery)] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// A path for `bind` and `connect` that fits into a socket address.
struct Address {
    path: PathBuf,
    /// Keeps `path` valid.
    _directory: Option<fs::File>,
}

impl Address {
    /// The address of the socket in `directory`.
    fn of(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE_NAME);
        if path.as_os_str().len() < ADDRESS_MAX || !cfg!(target_os = "linux") {
            return Ok(Self { path, _directory: None });
        }
        // The same directory by a shorter name.
        let directory = fs::File::open(directory)?;
        let path = format!("/proc/self/fd/{}/{FILE_NAME}", std::os::fd::AsRawFd::as_raw_fd(&directory));
        Ok(Self { path: path.into(), _directory: Some(directory) })
    }
}

/// Whether the process at the other end belongs to our user, or to root.
pub(crate) fn is_allowed(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}
