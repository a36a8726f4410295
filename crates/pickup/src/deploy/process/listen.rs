//! Listeners that belong to us: opened once, handed to every generation, taken back from one that outlived us.
#![expect(clippy::disallowed_methods, reason = "this is the door to listening sockets")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::proc;
use super::record::Record;
use super::spawn;
use crate::config::ListenAddress;
use crate::error::{Error, IoContext, Result};

/// How many connections may wait to be accepted: with few, those that come while one version takes over from another
/// are refused. The kernel bounds it by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// The open listeners, by name.
#[derive(Debug)]
pub(super) struct Listeners(BTreeMap<String, OwnedFd>);

impl Listeners {
    /// Opens them all; those that one of the `running` instances holds are taken from it.
    pub(super) fn open(addresses: &BTreeMap<String, ListenAddress>, running: &[Record]) -> Result<Self> {
        let mut open = BTreeMap::new();
        for (name, address) in addresses {
            let taken = running.iter().find_map(|record| taken_back(record, name));
            let listener = match taken.filter(|listener| is_at(listener, address)) {
                Some(listener) => listener,
                None => bind(address)?,
            };
            rustix::net::listen(&listener, BACKLOG).map_err(|error| cannot_listen(address, error.into()))?;
            open.insert(name.clone(), listener);
        }
        Ok(Self(open))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &OwnedFd)> {
        self.0.iter().map(|(name, listener)| (name.as_str(), listener))
    }

    /// The inodes of the sockets: by these they are known again.
    pub(super) fn inodes(&self) -> BTreeMap<String, u64> {
        let inode = |listener: &OwnedFd| rustix::fs::fstat(listener).map(|stat| stat.st_ino).unwrap_or(0);
        self.0.iter().map(|(name, listener)| (name.clone(), inode(listener))).collect()
    }
}

/// Our listener of this name, out of the hands of the instance that outlived us.
fn taken_back(record: &Record, name: &str) -> Option<OwnedFd> {
    let inode = *record.sockets.get(name)?;
    let pid = record.pid?;
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let number = proc::socket(pid, inode)?;
    match pidfd_getfd(&process, number, PidfdGetfdFlags::empty()) {
        Ok(listener) => Some(listener),
        Err(error) => {
            tracing::warn!(pid, listener = name, %error, "cannot take the listener back from the running program");
            None
        }
    }
}

/// Whether the socket listens there: the configuration may have changed since.
fn is_at(listener: &OwnedFd, address: &ListenAddress) -> bool {
    let Ok(listener) = listener.try_clone() else { return false };
    match address {
        ListenAddress::Tcp(address) => TcpListener::from(listener).local_addr().is_ok_and(|own| own == *address),
        ListenAddress::Unix(path) => UnixListener::from(listener)
            .local_addr()
            .is_ok_and(|own| own.as_pathname().is_some_and(|own| own.as_os_str() == path.as_str())),
    }
}

fn bind(address: &ListenAddress) -> Result<OwnedFd> {
    let bound = spawn::bound(|| match address {
        ListenAddress::Tcp(address) => TcpListener::bind(address).map(OwnedFd::from),
        ListenAddress::Unix(path) => bind_unix(path),
    });
    bound.map_err(|error| cannot_listen(address, error))
}

/// A socket that nobody listens on any more is in the way; one that somebody does is not ours to take.
fn bind_unix(path: &str) -> std::io::Result<OwnedFd> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && UnixStream::connect(path).is_err() => {
            std::fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        bound => bound,
    }
    .map(OwnedFd::from)
}

/// Removes the socket of a listener from the file system, if nobody listens on it.
pub(super) fn remove(address: &ListenAddress) {
    use std::os::unix::fs::FileTypeExt;
    let ListenAddress::Unix(path) = address else { return };
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let is_refused =
        || UnixStream::connect(path).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
    if is_socket
        && is_refused()
        && let Err(error) = std::fs::remove_file(path)
    {
        tracing::warn!(path, %error, "cannot remove the socket of a listener");
    }
}

fn cannot_listen(address: &ListenAddress, error: std::io::Error) -> Error {
    // Somebody else may let go of it.
    Error::deploy(format!("listen on {address}")).caused_by(error).transient()
}

/// Ports that are tried for programs that bind their own. Outgoing connections take theirs from higher ones unless the
/// system is set up otherwise, so none of these is gone by the time the program binds it.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A free port for a program that binds its own. It is free now; nobody can promise more without holding it.
pub(super) fn free_port() -> Result<u16> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    let start = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) as usize;
    let count = PORTS.len();
    let tried = (0..count.min(100)).find_map(|at| bind(PORTS.start + ((start % count + at) % count) as u16).ok());
    let bound = tried.map_or_else(|| bind(0), Ok);
    Ok(bound.doing("find a free port on", "127.0.0.1")?.port())
}

/// A copy of the listener for somebody else to hold.
pub(super) fn share(listener: impl AsFd) -> Result<OwnedFd> {
    listener.as_fd().try_clone_to_owned().doing("share", "a listener")
}
