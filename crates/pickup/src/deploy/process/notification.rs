//! The service manager's side of `sd_notify`: a socket for each instance, and what comes over it.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType, UCred,
};
use tokio::io::unix::AsyncFd;

use super::spawn;
use crate::error::{Error, Result};

/// The longest datagram that is read.
const MESSAGE_MAX: usize = 4 << 10;

/// The socket on which one instance speaks.
#[derive(Debug)]
pub(super) struct Notify {
    socket: AsyncFd<OwnedFd>,
    name: String,
}

/// One thing that was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Ready,
    Stopping,
    Reloading,
    /// A sign of life.
    Alive,
    /// It knows that it is stuck.
    Trigger,
    Status(String),
    Extend(Duration),
    MainPid(i32),
}

/// The name of the socket in the abstract namespace: reachable for a program of another user, too, whom the state
/// directory is closed to.
fn name(token: &str) -> String {
    format!("pickup/{token}")
}

impl Notify {
    pub(super) fn open(token: &str) -> Result<Self> {
        let open = || -> std::io::Result<AsyncFd<OwnedFd>> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
            rustix::net::sockopt::set_socket_passcred(&socket, true)?;
            let address = SocketAddrUnix::new_abstract_name(name(token).as_bytes())?;
            spawn::bound(|| Ok(rustix::net::bind(&socket, &address)?))?;
            spawn::watched(socket)
        };
        let socket =
            open().map_err(|error| Error::deploy("open a notification socket").caused_by(error).transient())?;
        Ok(Self { socket, name: name(token) })
    }

    /// The value of `NOTIFY_SOCKET`: a program that is told it can be heard from its first instruction on.
    pub(super) fn variable(&self) -> String {
        format!("@{}", self.name)
    }

    /// Waits for something to be said by somebody whom `believes` believes.
    pub(super) async fn next(&self, believes: impl Fn(i32) -> bool) -> std::io::Result<Vec<Said>> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| Ok(receive(socket.get_ref())?)) {
                Ok(Ok((message, Some(sender)))) if believes(sender.pid.as_raw_nonzero().get()) => {
                    return Ok(parse(&message));
                }
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_would_block) => {}
            }
        }
    }

    /// What was said and not heard yet.
    pub(super) fn rest(&self, believes: impl Fn(i32) -> bool) -> Vec<Said> {
        let mut said = Vec::new();
        while let Ok((message, sender)) = receive(self.socket.get_ref()) {
            // Who has ended by now cannot be asked any more; what it said last counts.
            if sender.is_some_and(|sender| believes(sender.pid.as_raw_nonzero().get())) {
                said.extend(parse(&message));
            }
        }
        said
    }
}

fn receive(socket: &OwnedFd) -> rustix::io::Result<(Vec<u8>, Option<UCred>)> {
    let mut bytes = vec![0; MESSAGE_MAX];
    // Descriptors that come along (`FDSTORE=1`, `BARRIER=1`) are closed at once, which is what a barrier waits for.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4), ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags)?;
    let mut sender = None;
    for message in ancillary.drain() {
        match message {
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials),
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.for_each(drop),
            _ => {}
        }
    }
    bytes.truncate(received.bytes);
    Ok((bytes, sender))
}

fn parse(message: &[u8]) -> Vec<Said> {
    let text = String::from_utf8_lossy(message);
    let micros = |value: &str| value.parse().ok().map(Duration::from_micros);
    let said = text.lines().filter_map(|line| match line.split_once('=')? {
        ("READY", "1") => Some(Said::Ready),
        ("STOPPING", "1") => Some(Said::Stopping),
        ("RELOADING", "1") => Some(Said::Reloading),
        ("WATCHDOG", "1") => Some(Said::Alive),
        ("WATCHDOG", "trigger") => Some(Said::Trigger),
        ("STATUS", status) => Some(Said::Status(status.chars().take(200).collect())),
        ("EXTEND_TIMEOUT_USEC", value) => micros(value).map(Said::Extend),
        ("MAINPID", value) => value.parse().ok().map(Said::MainPid),
        _ => None,
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_passed_over() {
        let said = parse(b"READY=1\nX=2\nnoise\nSTATUS=up\nEXTEND_TIMEOUT_USEC=1500000\nMAINPID=7\nWATCHDOG=1\n");
        let extend = Said::Extend(Duration::from_millis(1500));
        assert_eq!(said, [Said::Ready, Said::Status("up".into()), extend, Said::MainPid(7), Said::Alive]);
        assert_eq!(parse(b"READY=0\nMAINPID=x\n\xff\xfe"), []);
        let said = parse(b"STOPPING=1\nRELOADING=1\nWATCHDOG=trigger\nWATCHDOG=2");
        assert_eq!(said, [Said::Stopping, Said::Reloading, Said::Trigger]);
        let long = format!("STATUS={}", "\u{e4}".repeat(300));
        assert_eq!(parse(long.as_bytes()), [Said::Status("\u{e4}".repeat(200))]);
    }

    /// What a program sends along with `BARRIER=1` or `FDSTORE=1` is closed as soon as it is heard.
    #[tokio::test]
    async fn descriptors_that_come_along_are_closed() {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
        let token = format!("test-barrier-{}", std::process::id());
        let notify = Notify::open(&token).unwrap();
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).unwrap();
        let address = SocketAddrUnix::new_abstract_name(name(&token).as_bytes()).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        let (ours, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let descriptors = [std::os::fd::AsFd::as_fd(&theirs)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        assert!(along.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let words = [std::io::IoSlice::new(b"BARRIER=1\nREADY=1")];
        rustix::net::sendmsg(&socket, &words, &mut along, SendFlags::empty()).unwrap();
        drop(theirs);
        assert_eq!(notify.next(|_| true).await.unwrap(), [Said::Ready]);
        // Nobody else has the other end: this is the end of it.
        assert_eq!(rustix::io::read(&ours, &mut [0_u8; 1]).unwrap(), 0);
    }

    #[tokio::test]
    async fn only_those_who_belong_to_it_are_heard() {
        let token = format!("test-{}", std::process::id());
        let notify = Notify::open(&token).unwrap();
        let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let address =
            <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name(&token));
        let address = address.unwrap();
        socket.send_to_addr(b"READY=1", &address).unwrap();
        socket.send_to_addr(b"STOPPING=1", &address).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(notify.next(|pid| pid == own).await.unwrap(), [Said::Ready]);
        socket.send_to_addr(b"RELOADING=1", &address).unwrap();
        let strangers = std::cell::Cell::new(1);
        let is_believed = |_| strangers.replace(0) == 0;
        assert_eq!(notify.next(is_believed).await.unwrap(), [Said::Reloading], "a stranger's word is passed over");
        socket.send_to_addr(b"STOPPING=1", &address).unwrap();
        assert_eq!(notify.rest(|_| false), []);
        assert_eq!(notify.rest(|pid| pid == own), []);
    }
}
