//! git over http and https, below libgit2: TLS by rustls, with deadlines, proxies and certificate authorities of one's own.
//!
//! Two requests make a fetch: a GET of the references, which may be redirected, and a POST to where that ended. Answers
//! are streamed.

use std::error::Error as _;
use std::io::{self, Read, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream};
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use reqwest::{Proxy, StatusCode, Url, redirect};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::failed;
use super::libgit2::Context;
use crate::source::git::worker::{Access, Failure, FailureKind};
use crate::tls;

/// How long a connection may take to be made.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long nothing may come.
pub(super) const IO_TIMEOUT: Duration = Duration::from_secs(30);

/// As many as git follows would be twenty; five are more than any move of a repository leaves behind.
const REDIRECTS_MAX: usize = 5;

/// The user agent: some servers answer nobody whose name does not start with git.
const USER_AGENT: &str = concat!("git/2.0 (pickup ", env!("CARGO_PKG_VERSION"), ")");

const ADVERTISEMENT: &str = "/info/refs?service=git-upload-pack";

/// One connection to a remote, for libgit2.
pub(super) struct Http {
    client: Client,
    context: Context,
    /// Where the references were found.
    found: Mutex<Option<Base>>,
}

/// The address of a repository, and whether it may know who we are.
#[derive(Clone)]
struct Base {
    /// Without a slash at its end.
    address: String,
    is_trusted: bool,
}

impl Http {
    pub(super) fn new(context: Context) -> Result<Self, Failure> {
        let client = client(&context.access)?;
        Ok(Self { client, context, found: Mutex::new(None) })
    }

    /// Asks for the references, and follows where that leads.
    fn advertisement(&self) -> Result<Response, Failure> {
        let access = &self.context.access;
        let home = home(access)?;
        let mut url = format!("{}{ADVERTISEMENT}", home.as_str().trim_end_matches('/'));
        for _ in 0..=REDIRECTS_MAX {
            let to = Url::parse(&url).map_err(|e| failed(access, FailureKind::Unreachable, e))?;
            let is_trusted = is_same_host(&home, &to);
            let request = self.authorise(self.client.get(to.clone()), is_trusted);
            let response = request.header("Pragma", "no-cache").send().map_err(|e| unreachable(access, &e))?;
            if let Some(next) = redirected(access, &to, &response)? {
                url = next.to_string();
                continue;
            }
            self.check(&response, is_trusted, "application/x-git-upload-pack-advertisement")?;
            let Some(address) = url.strip_suffix(ADVERTISEMENT) else {
                let why = format!("it redirects to {}, which is no git service", shown(&to));
                return Err(failed(access, FailureKind::Unreachable, why));
            };
            let base = Base { address: address.to_owned(), is_trusted };
            *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(base);
            return Ok(response);
        }
        let why = format!("it redirects more than {REDIRECTS_MAX} times");
        Err(failed(access, FailureKind::Unreachable, why))
    }

    fn authorise(&self, request: RequestBuilder, is_trusted: bool) -> RequestBuilder {
        let login = &self.context.login;
        if !is_trusted || login.is_empty() {
            return request;
        }
        let mut value = match reqwest::header::HeaderValue::from_str(&format!("Basic {}", login.basic())) {
            Ok(value) => value,
            // Base64 is always a valid header.
            Err(_) => return request,
        };
        value.set_sensitive(true);
        request.header(AUTHORIZATION, value)
    }

    /// Whether `response` is what was asked for.
    fn check(&self, response: &Response, is_trusted: bool, content_type: &str) -> Result<(), Failure> {
        let access = &self.context.access;
        let status = response.status();
        let fail = |kind, why: String| Err(failed(access, kind, why));
        match status {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED => {
                return fail(FailureKind::Authentication, self.unauthorised(is_trusted).to_owned());
            }
            StatusCode::FORBIDDEN => {
                return fail(FailureKind::Authentication, "we may not read it (403 Forbidden)".into());
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                let why = "the proxy asks for a password: write http://user:password@host:port into git_proxy";
                return fail(FailureKind::Authentication, why.into());
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let private = if self.context.login.is_empty() {
                    "; a private repository looks the same without a password: see git_username and git_password_file"
                } else {
                    "; a repository that we may not see looks the same"
                };
                return fail(FailureKind::NotFound, format!("there is no such repository ({status}){private}"));
            }
            _ => return fail(FailureKind::Unreachable, format!("it answers {status}")),
        }
        let seen = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("none");
        if seen.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(content_type)) {
            return Ok(());
        }
        let why = format!("it answers, but not as a git service (content type {seen}): is the address right?");
        fail(FailureKind::Unreachable, why)
    }

    fn unauthorised(&self, is_trusted: bool) -> &'static str {
        match (self.context.login.is_empty(), is_trusted) {
            (true, _) => "it asks for a password: set git_username and git_password_file",
            (false, true) => "it does not accept git_username and the password",
            (false, false) => {
                "it redirects to another host, which is not told our password: set git_url to that address"
            }
        }
    }
}

impl SmartSubtransport for Http {
    fn action(&self, _: &str, service: Service) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        match service {
            Service::UploadPackLs => {
                let response = self.advertisement().map_err(|failure| self.context.fail(failure))?;
                Ok(Box::new(Answer { response, context: self.context.clone() }))
            }
            Service::UploadPack => {
                let found = self.found.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let base = found.ok_or_else(|| git2::Error::from_str("nothing was listed yet"))?;
                let http = Self { client: self.client.clone(), context: self.context.clone(), found: Mutex::new(None) };
                Ok(Box::new(Exchange { http, base, question: Vec::new(), answer: None }))
            }
            Service::ReceivePackLs | Service::ReceivePack => Err(git2::Error::from_str("nothing is ever pushed")),
        }
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// An answer, as it comes.
struct Answer {
    response: Response,
    context: Context,
}

impl Read for Answer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.response.read(buffer).map_err(|error| {
            let why = match error.kind() {
                io::ErrorKind::TimedOut => format!("nothing came for {} s", IO_TIMEOUT.as_secs()),
                _ => format!("it hung up in the middle: {}", deepest(&error)),
            };
            self.context.fail_io(failed(&self.context.access, FailureKind::Unreachable, why))
        })
    }
}

impl Write for Answer {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::other("nothing can be said while listening"))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One round of negotiation: what is written is sent when the answer is first read.
struct Exchange {
    http: Http,
    base: Base,
    question: Vec<u8>,
    answer: Option<Answer>,
}

impl Exchange {
    fn ask(&mut self) -> Result<Answer, Failure> {
        let (http, access) = (&self.http, &self.http.context.access);
        let request = http.client.post(format!("{}/git-upload-pack", self.base.address));
        let request = http
            .authorise(request, self.base.is_trusted)
            .header(CONTENT_TYPE, "application/x-git-upload-pack-request")
            .header(ACCEPT, "application/x-git-upload-pack-result")
            .body(std::mem::take(&mut self.question));
        let response = request.send().map_err(|e| unreachable(access, &e))?;
        http.check(&response, self.base.is_trusted, "application/x-git-upload-pack-result")?;
        Ok(Answer { response, context: http.context.clone() })
    }
}

impl Read for Exchange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let answer = match self.answer.take() {
            Some(answer) => answer,
            None => self.ask().map_err(|failure| self.http.context.fail_io(failure))?,
        };
        self.answer.insert(answer).read(buffer)
    }
}

impl Write for Exchange {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.question.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The address without user and password, which go into a header.
fn home(access: &Access) -> Result<Url, Failure> {
    Url::parse(access.url.without_userinfo().expose())
        .map_err(|e| failed(access, FailureKind::Unreachable, format!("the address is not valid: {e}")))
}

/// Where `response` sends us on, if it does.
fn redirected(access: &Access, from: &Url, response: &Response) -> Result<Option<Url>, Failure> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let fail = |why: String| Err(failed(access, FailureKind::Unreachable, why));
    let Ok(mut to) = from.join(location) else { return fail("it redirects to no valid address".into()) };
    if !matches!(to.scheme(), "http" | "https") {
        return fail(format!("it redirects to {}", shown(&to)));
    }
    if from.scheme() == "https" && to.scheme() == "http" {
        return fail(format!("it redirects from https to {}, which is not followed", shown(&to)));
    }
    // Whoever redirects us does not choose who we say we are.
    if to.set_username("").is_err() || to.set_password(None).is_err() {
        return fail("it redirects to no valid address".into());
    }
    Ok(Some(to))
}

/// Whether credentials for one are for the other: the same host and port, or the same host by https instead of http.
fn is_same_host(home: &Url, other: &Url) -> bool {
    let is_upgrade = home.scheme() == "http" && other.scheme() == "https";
    home.host_str() == other.host_str()
        && ((home.scheme() == other.scheme() && home.port_or_known_default() == other.port_or_known_default())
            || (is_upgrade && home.port().is_none() && other.port().is_none()))
}

/// `url` without what may be secret in it.
fn shown(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

fn client(access: &Access) -> Result<Client, Failure> {
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(IO_TIMEOUT)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .tls_backend_preconfigured(tls_config(access)?);
    if let Some(proxy) = &access.proxy {
        let proxy = Proxy::all(proxy).map_err(|e| {
            failed(access, FailureKind::Unreachable, format!("git_proxy is not valid: {}", deepest(&e.without_url())))
        })?;
        builder = builder.proxy(proxy);
    }
    builder.build().map_err(|e| failed(access, FailureKind::Other, deepest(&e)))
}

/// The certificates of the system, and those of `git_ca_file`; nothing of it is a setting of the whole process.
fn tls_config(access: &Access) -> Result<ClientConfig, Failure> {
    let extra = match &access.ca_file {
        Some(path) => authorities(path).map_err(|why| {
            failed(access, FailureKind::HostKey, format!("read git_ca_file {}: {why}", path.display()))
        })?,
        None => Vec::new(),
    };
    let mut config = tls::client(extra).map_err(|e| match access.ca_file {
        Some(_) => failed(access, FailureKind::HostKey, format!("use git_ca_file: {e}")),
        None => failed(access, FailureKind::Other, e),
    })?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|e| e.to_string())?.collect();
    match found {
        Ok(found) if found.is_empty() => Err("there is no certificate in it".into()),
        found => found.map_err(|e| e.to_string()),
    }
}

/// Why no answer came.
fn unreachable(access: &Access, error: &reqwest::Error) -> Failure {
    let text = deepest(error);
    if let Some(rustls::Error::InvalidCertificate(_)) = tls_error(error) {
        let why = format!(
            "its certificate is not trusted: {text}; if it is signed by an authority of your own, put that \
             authority's certificate into git_ca_file"
        );
        return failed(access, FailureKind::HostKey, why);
    }
    let why = if error.is_timeout() {
        match error.is_connect() {
            true => format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
            false => format!("nothing came for {} s", IO_TIMEOUT.as_secs()),
        }
    } else {
        text
    };
    let through = if access.proxy.is_some() && error.is_connect() { "through git_proxy: " } else { "" };
    failed(access, FailureKind::Unreachable, format!("{through}{why}"))
}

/// What TLS says, if it was TLS.
fn tls_error(error: &reqwest::Error) -> Option<rustls::Error> {
    let mut next = error.source();
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return Some(error.clone());
        }
        // What an `io::Error` was made of is not its source, but its source's source is.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// The words of the innermost error: those around it say only that there was one.
fn deepest(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(inner) = error.source() {
        error = inner;
    }
    error.to_string()
}
