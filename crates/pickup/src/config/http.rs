//! `kind = "http"`: what its section holds, read from it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::problem::shorten;
use super::reader::{Reader, text};
use super::verify;

/// What expands in an address. More would be of no use there, or not be known when a unit is removed.
const NAMES: [&str; 5] = ["pickup", "unit", "stem", "generation", "digest"];

/// Headers that say what only we can know.
const OURS: [&str; 8] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "idempotency-key",
    "repr-digest",
    "transfer-encoding",
    "upgrade",
];

/// `kind = "http"`.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where a file is sent. `{pickup}`, `{unit}`, `{stem}`, `{generation}` and `{digest}` expand, percent-encoded.
    pub url: String,
    /// Where its removal is asked for, on the same server. Default: `url`.
    pub remove_url: Option<String>,
    /// The method for what was added or modified. Default: `PUT`.
    pub method: String,
    /// The method for what was removed. Default: `DELETE`.
    pub remove_method: String,
    /// Additional headers. Default: none.
    pub headers: BTreeMap<String, String>,
    /// Texts of which the reply to a file must hold one, besides a status of 2xx. Default: none, any reply will do.
    pub expect: Vec<String>,
    /// The same for the reply to a removal. Default: none, any reply will do.
    pub remove_expect: Vec<String>,
    /// The user for basic authentication. Default: none.
    pub username: Option<String>,
    /// The file whose first line is the password, read again for each request. Default: none.
    pub password_file: Option<PathBuf>,
    /// The file whose first line is the bearer token, read again for each request. Default: none.
    pub bearer_file: Option<PathBuf>,
    /// Certificate authorities (PEM) trusted besides the system's. Default: none.
    pub ca_file: Option<PathBuf>,
}

impl HttpConfig {
    /// A section with nothing but an address.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            remove_url: None,
            method: "PUT".into(),
            remove_method: "DELETE".into(),
            headers: BTreeMap::new(),
            expect: Vec::new(),
            remove_expect: Vec::new(),
            username: None,
            password_file: None,
            bearer_file: None,
            ca_file: None,
        }
    }
}

/// Without the values of headers, which may be secret.
impl fmt::Debug for HttpConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConfig")
            .field("url", &self.url)
            .field("remove_url", &self.remove_url)
            .field("method", &self.method)
            .field("remove_method", &self.remove_method)
            .field("headers", &self.headers.keys())
            .field("expect", &self.expect)
            .field("remove_expect", &self.remove_expect)
            .field("username", &self.username)
            .field("password_file", &self.password_file)
            .field("bearer_file", &self.bearer_file)
            .field("ca_file", &self.ca_file)
            .finish()
    }
}

/// Reads the keys of this kind.
pub(super) fn read(reader: &mut Reader<'_>) -> HttpConfig {
    if reader.value("url").is_none() {
        reader.error("url", "is missing: where are files to be sent?");
    }
    let default = HttpConfig::new(reader.read("url", |data| url(text(data)?)).unwrap_or_default());
    let config = HttpConfig {
        remove_url: reader.read("remove_url", |data| url(text(data)?)),
        method: reader
            .read("method", |data| method(text(data)?, &["GET", "HEAD", "CONNECT", "TRACE"]))
            .unwrap_or(default.method),
        remove_method: reader
            .read("remove_method", |data| method(text(data)?, &["HEAD", "CONNECT", "TRACE"]))
            .unwrap_or(default.remove_method),
        headers: headers(reader),
        expect: reader.checked_list("expect", expected).unwrap_or_default(),
        remove_expect: reader.checked_list("remove_expect", expected).unwrap_or_default(),
        username: reader.read("username", |data| username(text(data)?)),
        password_file: reader.path("password_file"),
        bearer_file: reader.path("bearer_file"),
        ca_file: reader.path("ca_file"),
        url: default.url,
    };
    check(reader, &config);
    config
}

/// What keys must not say about each other.
fn check(reader: &mut Reader<'_>, config: &HttpConfig) {
    if let Some(remove_url) = &config.remove_url
        && !config.url.is_empty()
        && !origin(remove_url).eq_ignore_ascii_case(origin(&config.url))
    {
        reader.error("remove_url", "names another server than `url`");
    }
    match (&config.username, &config.password_file) {
        (Some(_), None) => reader.error("username", "needs `password_file`"),
        (None, Some(_)) => reader.error("password_file", "needs `username`"),
        (Some(_), Some(_)) | (None, None) => {}
    }
    if config.bearer_file.is_some() && config.username.is_some() {
        reader.error("bearer_file", "and `username` exclude each other");
    }
    if !config.url.starts_with("http://") {
        return;
    }
    if config.ca_file.is_some() {
        reader.warning("ca_file", "is of no use with `http://`");
    }
    let has_secret = config.password_file.is_some() || config.bearer_file.is_some();
    if has_secret && !is_loopback(origin(&config.url)) {
        reader.warning("url", "the secret goes over the network for all to read: use `https://`");
    }
}

/// Scheme, host and port.
fn origin(url: &str) -> &str {
    let after = url.find("://").map_or(0, |at| at + 3);
    let end = url[after..].find(['/', '?']).map_or(url.len(), |at| after + at);
    &url[..end]
}

fn is_loopback(origin: &str) -> bool {
    let host = origin.trim_start_matches("http://");
    let host = host.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).map_or(host, |(host, _)| host);
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let Some(rest) = rest else {
        return Err(format!("expected `http://…` or `https://…`, found `{}`", shorten(text)));
    };
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err("a URL holds no blanks and no `\\`; write `%20`".into());
    }
    if text.contains('#') {
        return Err("what follows `#` is never sent; write `%23`".into());
    }
    let host = rest.split(['/', '?']).next().unwrap_or_default();
    if host.contains('@') {
        return Err("holds a user: write `username` and `password_file` instead".into());
    }
    if host.contains(['{', '}']) {
        return Err("the server cannot depend on what is deployed".into());
    }
    verify::authority(host, false)?;
    for braced in rest.split('{').skip(1) {
        let name = braced.split_once('}').map_or(braced, |(name, _)| name);
        if !NAMES.contains(&name) {
            let known = NAMES.map(|name| format!("`{{{name}}}`")).join(", ");
            return Err(format!("`{{{}}}` does not expand here, only {known}", shorten(name)));
        }
    }
    Ok(text.to_owned())
}

fn method(text: &str, refused: &[&str]) -> Result<String, String> {
    let is_method = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_uppercase());
    if is_method && !refused.contains(&text) {
        Ok(text.to_owned())
    } else {
        Err(format!("expected a method such as `PUT`, found `{}`", shorten(text)))
    }
}

fn expected(text: &str) -> Result<(), String> {
    if text.is_empty() { Err("names no text".into()) } else { Ok(()) }
}

fn username(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains(|c: char| c == ':' || c.is_control()) {
        return Err(format!("expected a user without `:`, found `{}`", shorten(text)));
    }
    Ok(text.to_owned())
}

fn headers(reader: &mut Reader<'_>) -> BTreeMap<String, String> {
    let headers = reader.pairs("headers");
    for (name, value) in &headers {
        let lower = name.to_ascii_lowercase();
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if !name.bytes().all(is_token) {
            reader.error("headers", format!("`{}` is no header's name", shorten(name)));
        } else if matches!(lower.as_str(), "authorization" | "proxy-authorization") {
            reader
                .error("headers", format!("`{name}`: write `bearer_file`, or `username` and `password_file`, instead"));
        } else if OURS.contains(&lower.as_str()) {
            reader.error("headers", format!("`{name}` is set for each request"));
        } else if !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            reader.error("headers", format!("`{name}`: expected ASCII without line breaks"));
        }
    }
    headers
}
