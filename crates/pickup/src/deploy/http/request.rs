//! One request, repeated until it works, is refused or time is up.
#![expect(clippy::disallowed_methods, reason = "this is the door to the network, whose attempts share a deadline")]

use std::error::Error as _;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Body, Client, Method, Response, StatusCode, Url};

use super::answer::{Meaning, meaning, retry_after};
use super::body::FileBody;
use super::client::Clients;
use super::secret::Secret;
use super::{Live, cancelled};
use crate::config::HttpConfig;
use crate::deploy::{Context, OUTPUT_MAX};
use crate::error::{Error, Result};

/// How often it is tried in one phase; the engine tries phases again.
const ATTEMPTS_MAX: u32 = 5;

/// The pause after the first attempt; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(200);

/// As many as nobody needs.
const REDIRECTS_MAX: u32 = 5;

/// What a request is for. Each is a request of its own to a server that remembers keys.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Deploy,
    Revert,
    Remove,
}

impl Purpose {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Revert => "revert",
            Self::Remove => "remove",
        }
    }
}

/// What is asked of the server.
pub(super) struct Request<'a> {
    /// Set once the server may have done something.
    pub(super) reached: &'a AtomicBool,
    pub(super) method: &'a str,
    pub(super) url: &'a str,
    pub(super) content: Option<&'a Live>,
    /// The same for each attempt.
    pub(super) key: String,
    /// Texts of which the reply must hold one, if there are any.
    pub(super) expect: &'a [String],
    pub(super) gone_is_fine: bool,
}

/// What one attempt came to.
enum Attempt {
    Done,
    Again { error: Error, after: Option<Duration> },
    Failed(Error),
}

/// The address that `url` is.
pub(super) fn address(url: &str) -> Result<Url> {
    Url::parse(url).map_err(|error| Error::deploy(format!("use the address {url}")).caused_by(error))
}

impl Request<'_> {
    /// Repeats it until it works, is refused, or the phase is nearly over.
    pub(super) async fn send(&self, cx: &Context, config: &HttpConfig, clients: &Clients) -> Result<()> {
        // What failed is worth more than that the phase ran out of time, so we end a little sooner than it.
        let remaining = cx.deadline().saturating_duration_since(Instant::now());
        let deadline = Instant::now() + (remaining - remaining / 16);
        let mut last = None;
        let attempts = self.attempts(cx, config, clients, deadline, &mut last);
        let ended = tokio::select! {
            ended = tokio::time::timeout_at(deadline.into(), attempts) => ended,
            () = cx.cancelled() => {
                self.reached.store(true, Ordering::Relaxed);
                return Err(cancelled());
            }
        };
        match ended {
            Ok(result) => result,
            Err(_elapsed) => {
                self.reached.store(true, Ordering::Relaxed);
                Err(last.unwrap_or_else(|| {
                    let shown = shown(self.url);
                    Error::deploy(format!("{} {shown}: no answer within {remaining:.0?}", self.method))
                }))
            }
        }
    }

    async fn attempts(
        &self,
        cx: &Context,
        config: &HttpConfig,
        clients: &Clients,
        deadline: Instant,
        last: &mut Option<Error>,
    ) -> Result<()> {
        let mut pause = PAUSE_MIN;
        for attempt in 1.. {
            let (error, after) = match self.attempt(cx, config, clients).await? {
                Attempt::Done => return Ok(()),
                Attempt::Failed(error) => return Err(error),
                Attempt::Again { error, after } => (error, after),
            };
            let wait = after.unwrap_or(pause).max(PAUSE_MIN);
            if attempt == ATTEMPTS_MAX || wait >= deadline.saturating_duration_since(Instant::now()) {
                return Err(error);
            }
            *last = Some(error);
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
        Ok(())
    }

    /// One attempt, redirects included.
    async fn attempt(&self, cx: &Context, config: &HttpConfig, clients: &Clients) -> Result<Attempt> {
        let secret = Secret::read(config)?;
        let client = clients.client(config)?;
        let own = address(&config.url.replace(['{', '}'], ""))?;
        let mut url = address(self.url)?;
        for _ in 0..=REDIRECTS_MAX {
            // Where something went earlier may be another server than the one whose secret this is.
            let secret = secret.as_ref().filter(|_| is_same_host(&own, &url));
            let response = match self.ask(&client, config, &url, secret).await? {
                Ok(response) => response,
                Err(error) => return Ok(self.unanswered(&url, &error)),
            };
            if !matches!(response.status().as_u16(), 401 | 403 | 407) {
                self.reached.store(true, Ordering::Relaxed);
            }
            let (status, after) = (response.status(), header(&response, RETRY_AFTER));
            let location = header(&response, LOCATION);
            let reply = read(response, secret).await;
            cx.output(&format!("{} {}: {status}\n{reply}\n", self.method, shown(url.as_str())));
            match meaning(status.as_u16(), self.gone_is_fine) {
                Meaning::Done => return Ok(self.judge(&url, status, &reply)),
                Meaning::Elsewhere => match self.elsewhere(&url, status, location.as_deref()) {
                    Ok(next) => url = next,
                    Err(error) => return Ok(Attempt::Failed(error)),
                },
                Meaning::Later { is_transient } => {
                    let after = after.and_then(|after| retry_after(&after, SystemTime::now()));
                    let error = self.refused(&url, status, &reply, is_transient);
                    return Ok(Attempt::Again { error, after });
                }
                Meaning::Refused { is_transient } => {
                    return Ok(Attempt::Failed(self.refused(&url, status, &reply, is_transient)));
                }
            }
        }
        Ok(Attempt::Failed(self.error(&url, format!("it redirects more than {REDIRECTS_MAX} times"))))
    }

    /// Sends it once.
    async fn ask(
        &self,
        client: &Client,
        config: &HttpConfig,
        url: &Url,
        secret: Option<&Secret>,
    ) -> Result<reqwest::Result<Response>> {
        let invalid = |name: &str| Error::deploy(format!("send the header {name}: it holds what no header may hold"));
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let parsed = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value));
            let (Ok(key), Ok(mut value)) = parsed else { return Err(invalid(name)) };
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        if let Some(secret) = secret {
            let mut value = HeaderValue::from_str(secret.header()).map_err(|_| invalid("authorization"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let method = Method::from_bytes(self.method.as_bytes()).map_err(|_| invalid("method"))?;
        let request = client.request(method, url.clone()).header("idempotency-key", format!("\"{}\"", self.key));
        let request = match self.content {
            Some(content) => {
                if !headers.contains_key(CONTENT_TYPE) {
                    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                }
                let body = Body::wrap(FileBody::open(&content.stored, content.size)?);
                request.header("repr-digest", format!("sha-256=:{}:", content.sha256)).body(body)
            }
            None => {
                headers.remove(CONTENT_TYPE);
                request
            }
        };
        Ok(request.headers(headers).send().await)
    }

    /// A 2xx, but some servers say in words that they failed.
    fn judge(&self, url: &Url, status: StatusCode, reply: &str) -> Attempt {
        let is_expected = self.expect.is_empty()
            || (self.gone_is_fine && !status.is_success())
            || self.expect.iter().any(|text| reply.contains(text));
        if is_expected {
            return Attempt::Done;
        }
        let why = format!("the reply holds nothing of what is expected: {}", first_line(reply));
        Attempt::Failed(self.error(url, why))
    }

    fn refused(&self, url: &Url, status: StatusCode, reply: &str, is_transient: bool) -> Error {
        let line = first_line(reply);
        let colon = if line.is_empty() { "" } else { ": " };
        let error = self.error(url, format!("it answers {status}{colon}{line}"));
        if is_transient { error.transient() } else { error }
    }

    /// No answer came. What the server may have carried out is asked for again only if twice is the same as once.
    fn unanswered(&self, url: &Url, error: &reqwest::Error) -> Attempt {
        if !error.is_connect() {
            self.reached.store(true, Ordering::Relaxed);
        }
        let text = deepest(error);
        if error.is_connect() && text.contains("certificate") {
            let why = format!("its certificate is not trusted: {text}; see `ca_file`");
            return Attempt::Failed(self.error(url, why).transient());
        }
        let failed = self.error(url, text).transient();
        let is_idempotent = matches!(self.method, "PUT" | "DELETE" | "GET" | "OPTIONS");
        if error.is_connect() || is_idempotent {
            Attempt::Again { error: failed, after: None }
        } else {
            Attempt::Failed(failed)
        }
    }

    /// Where it is to be sent instead.
    fn elsewhere(&self, from: &Url, status: StatusCode, location: Option<&str>) -> Result<Url> {
        // Whoever answers a POST with one of these means "ask there with GET".
        if self.method == "POST" && matches!(status.as_u16(), 301 | 302) {
            return Err(self.error(from, format!("it answers {status} to a POST, which is not sent twice")));
        }
        let to = location.and_then(|location| from.join(location).ok());
        let Some(mut to) = to else { return Err(self.error(from, "it redirects to no valid address".into())) };
        let is_clean = to.set_username("").is_ok() && to.set_password(None).is_ok();
        if !is_clean || !is_same_host(from, &to) {
            let why = format!("it redirects to {}, another server, which is sent nothing", shown(to.as_str()));
            return Err(self.error(from, why));
        }
        Ok(to)
    }

    fn error(&self, url: &Url, why: String) -> Error {
        Error::deploy(format!("{} {}: {why}", self.method, shown(url.as_str())))
    }
}

fn header(response: &Response, name: HeaderName) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// The beginning of the reply as text. A reply that breaks off is as good as its beginning.
async fn read(mut response: Response, secret: Option<&Secret>) -> String {
    let mut bytes = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > OUTPUT_MAX / 2 {
            bytes.truncate(OUTPUT_MAX / 2);
            break;
        }
    }
    let text: String =
        String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control() || "\n\t".contains(*c)).collect();
    let text = text.trim_end();
    secret.map_or_else(|| text.to_owned(), |secret| secret.redact(text))
}

fn first_line(reply: &str) -> String {
    const LENGTH_MAX: usize = 200;
    reply.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().chars().take(LENGTH_MAX).collect()
}

/// Whether what is for one server is for the other: the same host and port, or the same host by https instead of http.
fn is_same_host(home: &Url, other: &Url) -> bool {
    let is_upgrade = home.scheme() == "http" && other.scheme() == "https";
    home.host_str() == other.host_str()
        && ((home.scheme() == other.scheme() && home.port_or_known_default() == other.port_or_known_default())
            || (is_upgrade && home.port().is_none() && other.port().is_none()))
}

/// An address without its query, which may hold what is not for everybody.
fn shown(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

/// The words of the innermost error: those around it say only that there was one.
fn deepest(error: &reqwest::Error) -> String {
    let mut innermost = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        innermost = error.to_string();
        // What an `io::Error` was made of is not its source, but its source's source is.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    innermost
}
