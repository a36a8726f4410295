//! What `git_url` may be: its text in, an address in full out.

use super::GitUrl;
use super::problem::shorten;
use super::surroundings::Surroundings;
use super::verify::authority;

/// How a repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Http,
    Https,
    Ssh,
    /// The `git://` protocol, which knows no users.
    Git,
    /// A path of this machine, or `file://`.
    Local,
}

const EXPECTED: &str = "expected `https://`, `http://`, `ssh://`, `git://` or `file://`, `user@host:path` or a path";

/// The address that `text` means: a path is made absolute as `pickup_from` is, everything else stays as it stands.
pub(crate) fn read(text: &str, surroundings: &Surroundings) -> Result<GitUrl, String> {
    if text.trim().is_empty() {
        return Err("expected the address of a repository, found an empty string".into());
    }
    if text.starts_with('-') {
        return Err("starts with `-`, which git would take for an option".into());
    }
    if text.contains(char::is_control) {
        return Err("holds a control character".into());
    }
    let in_full = |text: &str| match surroundings.path(text)?.to_str() {
        Some(path) => Ok(path.to_owned()),
        None => Err(format!("`{}` does not lead to a path in UTF-8", shorten(text))),
    };
    if let Some(path) = without_prefix(text, "file://") {
        return Ok(GitUrl::new(format!("file://{}", in_full(path)?)));
    }
    if reach(text) == Reach::Local && !text.contains("://") {
        return Ok(GitUrl::new(in_full(text)?));
    }
    check(text).map(|()| GitUrl::new(text))
}

/// The text that [`read`] reads as `url`: nothing in it expands.
pub(crate) fn write(url: &GitUrl) -> String {
    let url = url.expose();
    if reach(url) == Reach::Local { url.replace('$', "$$") } else { url.to_owned() }
}

/// How `url`, which [`read`] accepted, is reached.
pub(crate) fn reach(url: &str) -> Reach {
    let scheme = url.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    match scheme.as_deref() {
        Some("https") => Reach::Https,
        Some("http") => Reach::Http,
        Some("ssh") => Reach::Ssh,
        Some("git") => Reach::Git,
        Some(_) => Reach::Local,
        None if scp(url).is_some() => Reach::Ssh,
        None => Reach::Local,
    }
}

/// Whether the address holds a password.
pub(crate) fn has_password(url: &str) -> bool {
    let authority = url.split_once("://").map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let user = authority.and_then(|authority| authority.rsplit_once('@')).map(|(user, _)| user);
    user.is_some_and(|user| user.contains(':'))
}

/// Host and path of `user@host:path`: there is a colon, and no slash before it.
fn scp(text: &str) -> Option<(&str, &str)> {
    let start = text.split_once('@').filter(|(user, _)| !user.contains(':')).map_or(0, |(user, _)| user.len() + 1);
    // The colons of `[::1]` are its own.
    let bracket = text.get(start..).filter(|rest| rest.starts_with('[')).and_then(|rest| rest.find(']'));
    let from = bracket.map_or(0, |bracket| start + bracket);
    let colon = text.get(from..)?.find(':')? + from;
    let (host, path) = (text.get(..colon)?, text.get(colon + 1..)?);
    (!host.contains('/')).then_some((host, path))
}

/// An address that is no path.
fn check(text: &str) -> Result<(), String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return scp(text).map_or_else(|| Err(EXPECTED.into()), |(host, path)| check_scp(host, path));
    };
    let is_known = matches!(scheme.to_ascii_lowercase().as_str(), "https" | "http" | "ssh" | "git");
    if !is_known {
        return Err(format!("{EXPECTED}, found `{}://`", shorten(scheme)));
    }
    if text.contains(char::is_whitespace) {
        return Err("holds a blank; write `%20`".into());
    }
    let (server, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = server.rsplit_once('@').unwrap_or(("", server));
    // These become arguments of the `ssh` program.
    if host.starts_with('-') || user.starts_with('-') || path.starts_with('-') {
        return Err("a part starts with `-`, which a program would take for an option".into());
    }
    check_host(host)?;
    if path.trim_matches('/').is_empty() { Err("names a server and no repository on it".into()) } else { Ok(()) }
}

fn check_scp(host: &str, path: &str) -> Result<(), String> {
    if path.starts_with(':') {
        // `ext::sh -c …` would have git run a program of anybody's choice.
        return Err(format!("{EXPECTED}, found `{}::`", shorten(host)));
    }
    let (user, host) = host.rsplit_once('@').unwrap_or(("", host));
    if host.starts_with('-') || user.starts_with('-') || path.starts_with('-') {
        return Err("a part starts with `-`, which a program would take for an option".into());
    }
    if user.contains(char::is_whitespace) {
        return Err(format!("{EXPECTED}, found a user with a blank"));
    }
    check_host(host)?;
    if path.is_empty() { Err("names a server and no repository on it".into()) } else { Ok(()) }
}

fn check_host(host: &str) -> Result<(), String> {
    let expected = |_| format!("expected a server as `host` or `host:port`, found `{}`", shorten(host));
    authority(host, false).map_err(expected)
}

/// What follows `prefix`, in whichever case it is written.
fn without_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}
