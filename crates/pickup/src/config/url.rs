//! The address of a repository, which never shows a password.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[cfg(test)]
mod tests;

/// What stands in a text where a secret was.
const HIDDEN: &str = "***";

/// Where `git daemon` listens.
const GIT_PORT: u16 = 9418;

/// Secrets shorter than this are not searched for in texts: they would be found everywhere.
const SECRET_LENGTH_MIN: usize = 4;

/// The address of a git repository: `https://`, `http://`, `ssh://`, `git://`, `file://`, `user@host:path` or a path.
///
/// `Display` and `Debug` leave out the user's password, a query, and a user that is a token: a user of http(s) without
/// a password.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GitUrl(String);

/// How a repository is spoken to, or that it is a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    Https,
    Http,
    Ssh,
    Git,
    /// `file://`, or a plain path.
    Local,
}

/// Who an address says we are, percent-decoded.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Userinfo {
    pub user: Option<String>,
    pub password: Option<String>,
}

/// What an address consists of.
#[derive(Clone, Copy)]
enum Form<'a> {
    /// `scheme://userinfo@host:port/rest`; `host` has the port, `rest` its first slash.
    Url {
        scheme: &'a str,
        userinfo: Option<&'a str>,
        host: &'a str,
        rest: &'a str,
    },
    /// `user@host:path`
    Scp {
        user: Option<&'a str>,
        host: &'a str,
        path: &'a str,
    },
    Path(&'a str),
}

/// How `git://` is spoken, where the address has nothing in it that could be meant in two ways.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlainPlace {
    pub host: String,
    pub port: u16,
    /// With its first slash.
    pub path: String,
}

/// How ssh is told where to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SshPlace {
    pub user: Option<String>,
    pub host: String,
    pub port: Option<String>,
    pub path: String,
}

impl GitUrl {
    /// An address as somebody wrote it.
    pub fn new(url: impl Into<String>) -> Self {
        Self(url.into())
    }

    /// All of it, password included: not for people's eyes.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether it can be used at all; if not, why: a fragment that reads after the address.
    ///
    /// # Errors
    /// A scheme that git would run a program for, or that is unknown; no host; whatever looks like an option; control
    /// characters.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.0.is_empty() {
            return Err("is empty");
        }
        if self.0.chars().any(char::is_control) {
            return Err("has a control character in it");
        }
        match self.form() {
            Form::Path(path) if path.starts_with('-') => Err("starts with a dash; write ./ before it"),
            // `ext::` and `fd::` have git run programs; `foo::` any helper called git-remote-foo.
            Form::Path(_) if self.0.contains("::") && !self.0.contains('/') => Err("names a remote helper"),
            Form::Path(_) => Ok(()),
            Form::Scp { path, .. } if path.starts_with(':') => Err("names a remote helper, which are not supported"),
            Form::Scp { user, host, path } => {
                check_host(user, host)?;
                if path.is_empty() { Err("has no path") } else { Ok(()) }
            }
            Form::Url { scheme, userinfo, host, rest } => check_url(scheme, userinfo, host, rest),
        }
    }

    /// What speaks to it; `None` for an unknown scheme.
    pub(crate) fn scheme(&self) -> Option<Scheme> {
        match self.form() {
            Form::Path(_) => Some(Scheme::Local),
            Form::Scp { .. } => Some(Scheme::Ssh),
            Form::Url { scheme, .. } => scheme_of(scheme),
        }
    }

    /// The path, if it is a repository on this machine. A relative one stays so.
    pub fn is_local(&self) -> Option<PathBuf> {
        match self.form() {
            Form::Path(path) => Some(PathBuf::from(path)),
            Form::Url { scheme, rest, .. } if scheme_of(scheme) == Some(Scheme::Local) => {
                Some(PathBuf::from(decode(rest)))
            }
            Form::Url { .. } | Form::Scp { .. } => None,
        }
    }

    /// Who the address says we are.
    pub(crate) fn userinfo(&self) -> Userinfo {
        match self.form() {
            Form::Url { userinfo: Some(info), .. } => {
                let (user, password) = split_userinfo(info);
                let user = Some(decode(user)).filter(|user| !user.is_empty());
                Userinfo { user, password: password.map(decode) }
            }
            Form::Scp { user: Some(user), .. } => Userinfo { user: Some(user.to_owned()), password: None },
            Form::Url { .. } | Form::Scp { .. } | Form::Path(_) => Userinfo::default(),
        }
    }

    /// The same address without user and password.
    pub fn without_userinfo(&self) -> Self {
        match self.form() {
            Form::Url { scheme, host, rest, userinfo: Some(_) } => Self(format!("{scheme}://{host}{rest}")),
            Form::Scp { user: Some(_), host, path } => Self(format!("{host}:{path}")),
            Form::Url { .. } | Form::Scp { .. } | Form::Path(_) => self.clone(),
        }
    }

    /// The same address as it may be written into a configuration: ssh needs the user, nothing needs a password.
    pub(crate) fn without_secrets(&self) -> Self {
        match self.form() {
            Form::Url { scheme, host, rest, userinfo: Some(info) } if scheme_of(scheme) == Some(Scheme::Ssh) => {
                Self(format!("{scheme}://{}@{host}{rest}", split_userinfo(info).0))
            }
            Form::Url { .. } => self.without_userinfo(),
            Form::Scp { .. } | Form::Path(_) => self.clone(),
        }
    }

    /// The address in a form that two spellings of one repository share: no user, no `.git`, no slash at the end, the
    /// host in lower case, `host:path` as `ssh://host/path`.
    pub(crate) fn normalised(&self) -> String {
        let trim = |path: &str| {
            let path = path.trim_end_matches('/');
            path.strip_suffix(".git").unwrap_or(path).trim_end_matches('/').to_owned()
        };
        match self.form() {
            Form::Path(path) => format!("file://{}", trim(path)),
            Form::Scp { host, path, .. } => {
                format!("ssh://{}/{}", host.to_ascii_lowercase(), trim(path).trim_start_matches('/'))
            }
            Form::Url { scheme, host, rest, .. } => {
                let (scheme, host) = (scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
                let default = match scheme_of(&scheme) {
                    Some(Scheme::Https) => ":443",
                    Some(Scheme::Http) => ":80",
                    Some(Scheme::Ssh) => ":22",
                    Some(Scheme::Git) => ":9418",
                    Some(Scheme::Local) | None => ":",
                };
                format!("{scheme}://{}{}", host.strip_suffix(default).unwrap_or(&host), trim(rest))
            }
        }
    }

    /// Where ssh is to go, if it is ssh that goes there.
    pub(crate) fn ssh_place(&self) -> Option<SshPlace> {
        let user = self.userinfo().user;
        match self.form() {
            Form::Scp { host, path, .. } => {
                Some(SshPlace { user, host: unbracket(host).to_owned(), port: None, path: path.to_owned() })
            }
            Form::Url { scheme, host, rest, .. } if scheme_of(scheme) == Some(Scheme::Ssh) => {
                let (host, port) = split_port(host);
                let path = decode(rest);
                // `ssh://host/~user/x` is below that user's home, as git has it.
                let path = if path.starts_with("/~") { path[1..].to_owned() } else { path };
                Some(SshPlace { user, host: unbracket(host).to_owned(), port: port.map(str::to_owned), path })
            }
            Form::Url { .. } | Form::Path(_) => None,
        }
    }

    /// Where `git://` is to go; `None` for an address with escapes, a user, a home directory or an address in brackets.
    pub(crate) fn plain_place(&self) -> Option<PlainPlace> {
        let Form::Url { scheme, userinfo: None, host, rest } = self.form() else { return None };
        let (host, port) = split_port(host);
        let is_plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/".contains(&b));
        let path = rest.strip_prefix('/').filter(|path| !path.is_empty())?;
        let is_git = scheme_of(scheme) == Some(Scheme::Git) && self.check().is_ok() && is_plain(host) && is_plain(path);
        let port = port.map_or(Some(GIT_PORT), |port| port.parse().ok())?;
        is_git.then(|| PlainPlace { host: host.to_owned(), port, path: rest.to_owned() })
    }

    fn form(&self) -> Form<'_> {
        let text = self.0.as_str();
        if let Some((scheme, after)) = text.split_once("://")
            && !scheme.is_empty()
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        {
            let end = after.find(['/', '?', '#']).unwrap_or(after.len());
            let (authority, rest) = after.split_at(end);
            return match authority.rsplit_once('@') {
                Some((info, host)) => Form::Url { scheme, userinfo: Some(info), host, rest },
                None => Form::Url { scheme, userinfo: None, host: authority, rest },
            };
        }
        let before_slash = &text[..text.find('/').unwrap_or(text.len())];
        // `[::1]:path` has colons in its host.
        let from = before_slash.rfind(']').unwrap_or(0);
        match before_slash[from..].find(':') {
            Some(colon) if colon + from > 0 && !is_drive(text, colon + from) => {
                let (place, path) = (&text[..colon + from], &text[colon + from + 1..]);
                match place.rsplit_once('@') {
                    Some((user, host)) => Form::Scp { user: Some(user), host, path },
                    None => Form::Scp { user: None, host: place, path },
                }
            }
            _ => Form::Path(text),
        }
    }
}

/// Whether the colon is that of a drive, `C:`.
fn is_drive(text: &str, colon: usize) -> bool {
    cfg!(windows) && colon == 1 && text.as_bytes()[0].is_ascii_alphabetic()
}

fn scheme_of(scheme: &str) -> Option<Scheme> {
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Some(Scheme::Https),
        "http" => Some(Scheme::Http),
        "ssh" | "git+ssh" | "ssh+git" => Some(Scheme::Ssh),
        "git" => Some(Scheme::Git),
        "file" => Some(Scheme::Local),
        _ => None,
    }
}

fn check_url(scheme: &str, userinfo: Option<&str>, host: &str, rest: &str) -> Result<(), &'static str> {
    let Some(scheme) = scheme_of(scheme) else {
        return Err("has a scheme that is not supported: it must be https, http, ssh, git, file, or user@host:path");
    };
    if scheme == Scheme::Local {
        return match host {
            "" | "localhost" if rest.len() > 1 => Ok(()),
            "" | "localhost" => Err("has no path"),
            _ => Err("has a host, which file:// must not have; write file:/// and the path"),
        };
    }
    check_host(userinfo, host)?;
    let (name, port) = split_port(host);
    if name.is_empty() {
        return Err("has no host");
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err()) {
        return Err("has a port that is no number; a password with / or # in it must be percent-encoded");
    }
    if rest.trim_matches('/').is_empty() {
        return Err("has no path");
    }
    Ok(())
}

/// ssh would take a host that starts with a dash for an option.
fn check_host(user: Option<&str>, host: &str) -> Result<(), &'static str> {
    if host.is_empty() {
        return Err("has no host");
    }
    if host.starts_with('-') || user.is_some_and(|user| decode(user).starts_with('-')) {
        return Err("has a host or user that starts with a dash, which a program would take for an option");
    }
    if host.contains(char::is_whitespace) { Err("has a space in its host") } else { Ok(()) }
}

fn split_userinfo(info: &str) -> (&str, Option<&str>) {
    match info.split_once(':') {
        Some((user, password)) => (user, Some(password)),
        None => (info, None),
    }
}

fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

fn unbracket(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Undoes percent-encoding; what is no valid escape stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

impl fmt::Display for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.form() {
            Form::Path(path) => f.write_str(path),
            Form::Scp { user: Some(user), host, path } => write!(f, "{}@{host}:{path}", split_userinfo(user).0),
            Form::Scp { user: None, host, path } => write!(f, "{host}:{path}"),
            Form::Url { scheme, userinfo, host, rest } => {
                // A password with a slash in it ends what looks like the host.
                if userinfo.is_none()
                    && split_port(host).1.is_some_and(|port| port.parse::<u16>().is_err())
                    && let Some((_, after)) = rest.rsplit_once('@')
                {
                    return write!(f, "{scheme}://{HIDDEN}@{after}");
                }
                write!(f, "{scheme}://")?;
                if let Some(info) = userinfo {
                    write!(f, "{}@", shown_user(scheme, info))?;
                }
                match rest.split_once('?') {
                    Some((path, _)) => write!(f, "{host}{path}?{HIDDEN}"),
                    None => write!(f, "{host}{rest}"),
                }
            }
        }
    }
}

/// The user, unless it is a token: those are written as a user without a password, or with one of two that mean nothing.
fn shown_user<'a>(scheme: &str, info: &'a str) -> &'a str {
    let is_http = matches!(scheme_of(scheme), Some(Scheme::Http | Scheme::Https) | None);
    match split_userinfo(info) {
        (_, None | Some("" | "x-oauth-basic")) if is_http => HIDDEN,
        (user, _) => user,
    }
}

impl fmt::Debug for GitUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GitUrl({self})")
    }
}

impl fmt::Debug for Userinfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Userinfo({HIDDEN})")
    }
}

/// `text` without what must not be seen: the secrets of `url`, and of any other address in it.
pub(crate) fn redact(text: &str, url: &GitUrl) -> String {
    let mut text = text.replace(url.expose(), &url.to_string());
    if let Form::Url { userinfo: Some(info), scheme, .. } = url.form() {
        let (user, password) = split_userinfo(info);
        let mut secrets = vec![password.map(str::to_owned), password.map(decode)];
        if shown_user(scheme, info) == HIDDEN {
            secrets.extend([Some(user.to_owned()), Some(decode(user))]);
        }
        for secret in secrets.into_iter().flatten() {
            text = hide(&text, &secret);
        }
    }
    scrub_addresses(&text)
}

/// `text` without `secret`.
pub(crate) fn hide(text: &str, secret: &str) -> String {
    if secret.len() < SECRET_LENGTH_MIN { text.to_owned() } else { text.replace(secret, HIDDEN) }
}

/// Hides the password in whatever looks like `scheme://user:password@`.
fn scrub_addresses(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c == '/' || c.is_whitespace() || "'\"<>".contains(c)).unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(at) => {
                let user = after[..at].split(':').next().unwrap_or_default();
                out.push_str(if after[..at].contains(':') { user } else { &after[..at] });
                &after[at..]
            }
            None => after,
        };
    }
    out.push_str(rest);
    out
}
