//! git over ssh, below libgit2: the system's `ssh` program, so that its configuration, agent, hashed host keys and
//! jump hosts work as its user knows them.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};

use super::http::CONNECT_TIMEOUT;
use super::libgit2::Context;
use super::{failed, judge};
use crate::config::url::SshPlace;
use crate::source::git::worker::{Access, Failure, FailureKind};

/// How much of what a program says is kept.
pub(super) const WORDS_MAX: u64 = 8 << 10;

/// One connection to a remote, for libgit2.
pub(super) struct Ssh {
    context: Context,
}

impl Ssh {
    pub(super) fn new(context: Context) -> Self {
        Self { context }
    }

    fn connect(&self) -> Result<Session, Failure> {
        let access = &self.context.access;
        let place = access.url.ssh_place();
        let place = place.ok_or_else(|| failed(access, FailureKind::Other, "no place for ssh"))?;
        let mut command = Command::new("ssh");
        command.args(options(access)).args(destination(access, &place));
        command.arg(format!("git-upload-pack {}", quoted(&place.path)));
        // No protocol v2: libgit2 does not speak it.
        command.env_remove("GIT_PROTOCOL").env("LC_ALL", "C");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| not_started(access, "ssh", "openssh-client", &e))?;
        let words = child.stderr.take().map(|from| std::thread::spawn(move || overhear(from)));
        Ok(Session { to: child.stdin.take(), from: child.stdout.take(), words, child, context: self.context.clone() })
    }
}

/// What keeps ssh from asking anybody, and from trusting a host it does not know.
pub(super) fn options(access: &Access) -> Vec<OsString> {
    let mut options: Vec<OsString> = Vec::new();
    let mut option = |text: OsString| options.extend([OsString::from("-o"), text]);
    for text in ["BatchMode=yes", "StrictHostKeyChecking=yes", "ServerAliveInterval=15", "ServerAliveCountMax=2"] {
        option(text.into());
    }
    option(format!("ConnectTimeout={}", CONNECT_TIMEOUT.as_secs()).into());
    if let Some(path) = &access.known_hosts {
        option(with_path("UserKnownHostsFile=", path));
        option("GlobalKnownHostsFile=none".into());
    }
    if let Some(path) = &access.ssh_key {
        option("IdentitiesOnly=yes".into());
        options.extend([OsString::from("-i"), path.into()]);
    }
    options
}

/// `name="path"`: without the quotes ssh splits at spaces.
fn with_path(name: &str, path: &std::path::Path) -> OsString {
    let mut text = OsString::from(name);
    text.push("\"");
    text.push(path);
    text.push("\"");
    text
}

fn destination(access: &Access, place: &SshPlace) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    if let Some(port) = &place.port {
        words.extend(["-p".into(), port.into()]);
    }
    words.push("--".into());
    words.push(match place.user.as_ref().or(access.username.as_ref()) {
        Some(user) => format!("{user}@{}", place.host).into(),
        None => place.host.clone().into(),
    });
    words
}

/// `path` as one word for a POSIX shell.
pub(super) fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}

impl SmartSubtransport for Ssh {
    fn action(&self, _: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        match service {
            Service::UploadPackLs => {
                self.connect().map(|session| Box::new(session) as _).map_err(|failure| self.context.fail(failure))
            }
            // libgit2 goes on with the stream it has.
            Service::UploadPack | Service::ReceivePackLs | Service::ReceivePack => {
                Err(git2::Error::from_str("nothing is ever pushed"))
            }
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// A running ssh.
struct Session {
    child: Child,
    to: Option<ChildStdin>,
    from: Option<ChildStdout>,
    words: Option<JoinHandle<String>>,
    context: Context,
}

impl Session {
    /// What ssh said, once it has ended; `None` if it was content.
    fn complaint(&mut self) -> Option<Failure> {
        self.to = None;
        let status = self.child.wait().ok()?;
        let words = self.words.take()?.join().unwrap_or_default();
        if status.success() {
            return None;
        }
        Some(understand(&self.context.access, &words))
    }
}

impl Read for Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(from) = &mut self.from else { return Ok(0) };
        match from.read(buffer)? {
            0 if !buffer.is_empty() => match self.complaint() {
                Some(failure) => Err(self.context.fail_io(failure)),
                None => Ok(0),
            },
            count => Ok(count),
        }
    }
}

impl Write for Session {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(to) = &mut self.to else { return Err(io::ErrorKind::BrokenPipe.into()) };
        match to.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => match self.complaint() {
                Some(failure) => Err(self.context.fail_io(failure)),
                None => Err(error),
            },
            done => done,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.to = None;
        // It may have ended by itself; either way it is reaped.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// Reads all, keeps the beginning.
pub(super) fn overhear(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let _unreadable = from.by_ref().take(WORDS_MAX).read_to_end(&mut kept);
    let _unreadable = io::copy(&mut from, &mut io::sink());
    String::from_utf8_lossy(&kept).into_owned()
}

/// What ssh's complaint means.
fn understand(access: &Access, words: &str) -> Failure {
    // Greetings and warnings come first; the last lines say why it ended.
    let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let is_host_key = words.contains("Host key verification failed") || words.contains("IDENTIFICATION HAS CHANGED");
    let text = match lines.as_slice() {
        [] => "ssh ended without a word".to_owned(),
        _ if is_host_key => words.to_owned(),
        lines => lines[lines.len().saturating_sub(4)..].join("; "),
    };
    match judge(access, &text) {
        Failure { kind: FailureKind::Other, message } => Failure { kind: FailureKind::Unreachable, message },
        failure => failure,
    }
}

/// The host's key is not the one we know, or we know none.
pub(super) fn unknown_host(access: &Access, words: &str) -> Failure {
    let place = access.url.ssh_place();
    let host = match &place {
        Some(SshPlace { host, port: Some(port), .. }) => format!("-p {port} {host}"),
        Some(SshPlace { host, .. }) => host.clone(),
        None => "HOST".to_owned(),
    };
    let file = match &access.known_hosts {
        Some(path) => format!("git_known_hosts ({})", path.display()),
        None => "git_known_hosts or ~/.ssh/known_hosts".to_owned(),
    };
    let why = if words.contains("IDENTIFICATION HAS CHANGED") {
        format!(
            "the host's key is another than the one in {file}: if its owner confirms that it was changed, replace it"
        )
    } else {
        format!(
            "the host's key is not in {file}: get it with `ssh-keyscan {host}`, compare it with what its owner says, and add it"
        )
    };
    failed(access, FailureKind::HostKey, why)
}

/// That a program cannot be run.
pub(super) fn not_started(access: &Access, program: &str, package: &str, error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::NotFound {
        let why = format!("the program {program} is needed and not installed: install {package}");
        return failed(access, FailureKind::Unsupported, why);
    }
    failed(access, FailureKind::Other, format!("run {program}: {error}"))
}
