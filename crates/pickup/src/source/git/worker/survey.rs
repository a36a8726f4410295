//! Asks many remotes at once where their references point: those for which a connection is all that it takes.
//!
//! Whatever is unusual is no answer: then the remote is asked once more in the ordinary way, which has words for it.
#![expect(clippy::disallowed_methods, reason = "this is a door to remotes; it runs in a worker and reads the clock")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use git2::Oid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{connect, recv, send, socket_with};

use super::ask::among;
use super::{Call, Found};
use crate::source::git::transport::RemoteRef;

/// How long all of them are waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many are spoken to at once: `git daemon` lets five wait at its door, and who is turned away waits a second.
const TALKS_MAX: usize = 4;

/// Answers that come so close together are read at once: waking up costs more than reading.
const PAUSE: Duration = Duration::from_millis(5);

/// A remote that announces more is asked by a worker of its own.
const ANSWER_MAX: usize = 16 << 20;

/// How much is read at once.
const READ: usize = 64 << 10;

/// Where each wanted reference is, for each call.
pub(super) fn survey(calls: &[Call]) -> Vec<Option<Vec<Found>>> {
    let until = Instant::now() + PATIENCE;
    let mut found = vec![None; calls.len()];
    let mut known = BTreeMap::new();
    let mut left = calls.iter().enumerate();
    let mut talks: Vec<(usize, Talk)> = Vec::new();
    let mut buffer = vec![0; READ];
    loop {
        let begin = |(at, call)| Some((at, Talk::begin(call, &mut known)?));
        let free = TALKS_MAX - talks.len();
        talks.extend(left.by_ref().filter_map(begin).take(free));
        if talks.is_empty() {
            return found;
        }
        std::thread::sleep(PAUSE);
        let Some(ready) = wait(&talks, until) else { return found };
        let mut ready = ready.into_iter();
        talks.retain_mut(|(at, talk)| match ready.next().unwrap_or(true).then(|| talk.go_on(&mut buffer)) {
            None | Some(Step::Waits) => true,
            Some(Step::Failed) => false,
            Some(Step::Answered) => {
                found[*at] = announced(&talk.answer).map(|refs| among(&refs, &calls[*at].wanted));
                false
            }
        });
    }
}

/// Waits until some of them can go on, and says which; `None` when it is too late.
fn wait(talks: &[(usize, Talk)], until: Instant) -> Option<Vec<bool>> {
    let left = until.saturating_duration_since(Instant::now());
    let mut polled: Vec<PollFd<'_>> = talks.iter().map(|(_, talk)| PollFd::new(&talk.to, talk.awaited())).collect();
    let timeout = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(0), tv_nsec: left.subsec_nanos().into() };
    match poll(&mut polled, Some(&timeout)) {
        Ok(1..) | Err(Errno::INTR) => Some(polled.iter().map(|polled| !polled.revents().is_empty()).collect()),
        Ok(0) | Err(_) => None,
    }
}

/// A conversation with one remote.
struct Talk {
    to: OwnedFd,
    /// Where else it may be reached.
    others: Vec<SocketAddr>,
    question: Vec<u8>,
    is_asked: bool,
    answer: Vec<u8>,
}

enum Step {
    Waits,
    Answered,
    Failed,
}

impl Talk {
    fn begin(call: &Call, known: &mut BTreeMap<(String, u16), Vec<SocketAddr>>) -> Option<Self> {
        let place = call.url.plain_place()?;
        let question = format!("git-upload-pack {}\0host={}\0", place.path, place.host);
        let question = format!("{:04x}{question}", question.len() + 4).into_bytes();
        let key = (place.host, place.port);
        let found = known.entry(key).or_insert_with_key(|(host, port)| {
            (host.as_str(), *port).to_socket_addrs().map(Iterator::collect).unwrap_or_default()
        });
        let mut others: Vec<SocketAddr> = found.iter().rev().copied().collect();
        let mut talk = Self { to: reach(&mut others)?, others, question, is_asked: false, answer: Vec::new() };
        // On this machine and near by the connection already stands.
        match talk.ask() {
            Step::Failed => None,
            Step::Waits | Step::Answered => Some(talk),
        }
    }

    fn awaited(&self) -> PollFlags {
        if self.is_asked { PollFlags::IN } else { PollFlags::OUT }
    }

    fn go_on(&mut self, buffer: &mut [u8]) -> Step {
        if self.is_asked { self.listen(buffer) } else { self.ask() }
    }

    fn ask(&mut self) -> Step {
        loop {
            match send(&self.to, &self.question, SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.is_asked = sent == self.question.len();
                    return if self.is_asked { Step::Waits } else { Step::Failed };
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN | Errno::NOTCONN) => return Step::Waits,
                Err(_) => match reach(&mut self.others) {
                    Some(to) => self.to = to,
                    None => return Step::Failed,
                },
            }
        }
    }

    fn listen(&mut self, buffer: &mut [u8]) -> Step {
        loop {
            match recv(&self.to, &mut *buffer, RecvFlags::empty()) {
                Ok((0, _)) => return Step::Failed,
                Ok((_, count)) => self.answer.extend_from_slice(&buffer[..count]),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Step::Waits,
                Err(_) => return Step::Failed,
            }
            if self.answer.len() > ANSWER_MAX {
                return Step::Failed;
            }
            if lines(&self.answer).last() == Some(Line::Flush) {
                // That we want nothing: else the server would log that we hung up.
                let _unheard = send(&self.to, b"0000", SendFlags::NOSIGNAL);
                return Step::Answered;
            }
        }
    }
}

/// Begins to connect to the last of `addresses` that can be connected to.
fn reach(addresses: &mut Vec<SocketAddr>) -> Option<OwnedFd> {
    while let Some(address) = addresses.pop() {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let Ok(socket) = socket_with(family, SocketType::STREAM, flags, None) else { continue };
        if matches!(connect(&socket, &address), Ok(()) | Err(Errno::INPROGRESS)) {
            return Some(socket);
        }
    }
    None
}

/// A packet line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    Text(&'a [u8]),
    /// The end of a list.
    Flush,
}

/// The lines at the beginning of `bytes` that are whole.
fn lines(mut bytes: &[u8]) -> impl Iterator<Item = Line<'_>> {
    std::iter::from_fn(move || {
        let (digits, rest) = bytes.split_first_chunk::<4>()?;
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let length = usize::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        let Some(length) = length.checked_sub(4) else {
            bytes = rest;
            return (length == 0).then_some(Line::Flush);
        };
        let (text, rest) = rest.split_at_checked(length)?;
        bytes = rest;
        Some(Line::Text(text))
    })
}

/// What a remote announced; `None` for anything but a list of references that is not empty.
fn announced(answer: &[u8]) -> Option<Vec<RemoteRef>> {
    let mut refs = Vec::new();
    let mut head = None;
    for line in lines(answer) {
        let Line::Text(line) = line else { break };
        let line = std::str::from_utf8(line).ok()?;
        let (line, abilities) = line.split_once('\0').unwrap_or((line, ""));
        if refs.is_empty() {
            let symref = |ability: &str| ability.strip_prefix("symref=HEAD:").map(str::to_owned);
            head = abilities.trim_end().split(' ').find_map(symref);
        }
        let (id, name) = line.trim_end_matches('\n').split_once(' ')?;
        let symref = if name == "HEAD" { head.take() } else { None };
        // The name is followed by `^{}` where nothing is announced but what the remote can do.
        let id = Oid::from_str(id).ok().filter(|known| id.len() == 40 && !known.is_zero())?;
        refs.push(RemoteRef { name: name.to_owned(), id, symref });
    }
    (!refs.is_empty()).then_some(refs)
}

#[cfg(test)]
mod tests;
