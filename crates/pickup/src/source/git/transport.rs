//! What speaks to a remote: libgit2 over our own HTTP and the system's ssh, or the `git` program.
//!
//! Everything here runs in a [worker](super::worker), which is killed when it takes too long.

use std::fmt;

use git2::{Oid, Repository};

use self::credentials::Login;
use super::worker::{Access, Failure, FailureKind, Progress};
use crate::config::GitTransport;
use crate::config::url::{Scheme, redact};

mod cli;
pub(crate) mod credentials;
mod http;
mod libgit2;
mod ssh;

#[cfg(test)]
mod tests;

/// Told now and then how far a fetch has come.
pub(crate) type Report<'a> = &'a mut dyn FnMut(Progress);

/// One reference as the remote announced it; that of a peeled tag ends in `^{}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteRef {
    pub name: String,
    pub(crate) id: Oid,
    /// The full name of the reference that this one stands for.
    pub symref: Option<String>,
}

/// A remote that can be asked.
pub(crate) trait Transport {
    /// All references of the remote; asks each time.
    fn list(&mut self) -> Result<Vec<RemoteRef>, Failure>;

    /// Brings what `refspecs` name, and moves our references. A refspec that matches nothing is no error: look afterwards.
    /// At most `depth` commits of each, unless that is 0.
    fn fetch(&mut self, refspecs: &[String], depth: u32, report: Report<'_>) -> Result<(), Failure>;
}

/// What speaks to the remote of `access` for `repository`; nothing is sent yet.
///
/// # Errors
/// The address or a credential cannot be used.
pub(crate) fn open<'a>(access: &'a Access, repository: &'a Repository) -> Result<Box<dyn Transport + 'a>, Failure> {
    if let Err(problem) = access.url.check() {
        return Err(failed(access, FailureKind::Refused, format!("the address {problem}")));
    }
    let login = Login::read(access)?;
    Ok(match access.transport {
        GitTransport::Libgit2 => Box::new(libgit2::Libgit2::new(access, login, repository)?),
        GitTransport::Cli => Box::new(cli::Cli::new(access, login, repository)),
    })
}

/// That `access.url` cannot be fetched from, and why; without the secrets of the address.
pub(crate) fn failed(access: &Access, kind: FailureKind, why: impl fmt::Display) -> Failure {
    let message = redact(&format!("fetch from {}: {why}", access.url), &access.url);
    Failure { kind, message: one_line(&message) }
}

/// What is said where nobody answers, or nobody who speaks git.
const UNREACHABLE: [&str; 17] = [
    "returned error: 5",
    "is this a git repository",
    "could not resolve",
    "failed to resolve",
    "connect",
    "timed out",
    "timeout",
    "hung up",
    "early eof",
    "reset",
    "unreachable",
    "refused",
    "closed",
    "rpc failed",
    "unexpected",
    "invalid response",
    "eof",
];

/// What kind of failure the words of git, ssh or a server tell of, and what to do about it. Nothing says so in numbers.
fn judge(access: &Access, text: &str) -> Failure {
    // A repository may be called anything, also `timeout`.
    let url = access.url.without_secrets();
    let path = access.url.ssh_place().map_or_else(|| url.expose().to_owned(), |place| place.path);
    let lower = text.replace(url.expose(), "").replace(&path, "").to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    let over_ssh = access.url.scheme() == Some(Scheme::Ssh);
    let (kind, advice) =
        if has(&["host key verification failed", "remote host identification has changed", "no matching host key"]) {
            return ssh::unknown_host(access, text);
        } else if has(&["dubious ownership", "is not owned by current user"]) {
            (FailureKind::Refused, "; it belongs to another user: change its owner (chown), or run as that user")
        } else if has(&[
            "authentication failed",
            "could not read username",
            "could not read password",
            "terminal prompts disabled",
            "returned error: 401",
            "returned error: 403",
        ]) {
            (FailureKind::Authentication, "; see git_username and git_password_file")
        } else if over_ssh
            && has(&["permission denied", "too many authentication failures", "load key", "unprotected private key"])
        {
            (FailureKind::Authentication, "; see git_ssh_key")
        } else if has(&["certificate", "ssl ", "self-signed", "self signed"]) {
            (FailureKind::HostKey, "; an authority of your own goes into git_ca_file")
        } else if has(&["unknown object format", "object format", "mismatched algorithms"]) {
            (
                FailureKind::Unsupported,
                "; its ids are SHA-256, which pickup cannot read: only SHA-1 repositories can be followed",
            )
        } else if has(&["extensions.refstorage"]) {
            let advice = match access.url.is_local() {
                Some(_) => "; its references are in the reftable format: set git_transport = \"cli\"",
                None => "; its references are in the reftable format: run `git refs migrate --ref-format=files` there",
            };
            (FailureKind::Unsupported, advice)
        } else if has(&[
            "does not appear to be a git repository",
            "not found",
            "could not find repository",
            "does not exist",
            "not exported",
            "no such file or directory",
            "returned error: 404",
            "not a git repository",
        ]) {
            (FailureKind::NotFound, "")
        } else if has(&["returned error: 30"]) {
            (
                FailureKind::Unreachable,
                "; it redirects, and the git program would take our password along: set git_url to where it leads",
            )
        } else if has(&["out of memory", "cannot allocate"]) {
            (FailureKind::TooLarge, "; it needs more memory than a worker may have")
        } else if has(&UNREACHABLE) {
            (FailureKind::Unreachable, "")
        } else {
            (FailureKind::Other, "")
        };
    failed(access, kind, format!("{}{advice}", text.trim()))
}

/// `text` in one line, without control characters: it comes from others.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}
