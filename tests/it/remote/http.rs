//! A web server for git: `git http-backend` behind HTTP, with passwords, redirects and faults that are switched on and off.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::cgi::{Answer, Request};
use super::listener::Listener;
use super::tls;

/// How long a test waits for a request before it fails.
const CAP: Duration = Duration::from_secs(30);

/// What is wrong with the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Requests are read, and never answered.
    Silent,
    /// The answer comes at a byte a second.
    Drip,
    /// The connection ends after so many bytes of a pack.
    DiesInPack(usize),
    /// Every answer is an error with this number.
    Status(u16),
    /// Every answer is a page for people.
    Html,
}

/// Serves every repository below a directory.
pub struct HttpServer {
    shared: Arc<Shared>,
    scheme: &'static str,
    // After the faults are lifted: connections may wait for that.
    listener: Option<Listener>,
}

struct Shared {
    root: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    login: Option<(String, String)>,
    fault: Option<Fault>,
    /// Requests below the first are sent to the second.
    redirect: Option<(String, String)>,
    requests: BTreeMap<String, usize>,
    /// The `Authorization` headers that came.
    credentials: Vec<String>,
}

impl HttpServer {
    pub fn new(root: &Path) -> Self {
        let shared = Arc::new(Shared { root: root.to_path_buf(), state: Mutex::default(), changed: Condvar::new() });
        let listener = Listener::new({
            let shared = shared.clone();
            move |mut stream| {
                shared.serve(&mut stream);
            }
        });
        Self { shared, scheme: "http", listener: Some(listener) }
    }

    /// The same over TLS; with the file of the authority that vouches for it, which it writes to `authority`.
    pub fn encrypted(root: &Path, authority: &Path) -> Self {
        let configuration = tls::server(authority);
        let mut server = Self::new(root);
        let shared = server.shared.clone();
        server.scheme = "https";
        server.listener = Some(Listener::new(move |stream| {
            let Ok(connection) = rustls::ServerConnection::new(configuration.clone()) else { return };
            let mut stream = rustls::StreamOwned::new(connection, stream);
            if shared.serve(&mut stream) {
                stream.conn.send_close_notify();
                // Whoever asked may have gone.
                let _ = stream.flush();
            }
        }));
        server
    }

    pub fn port(&self) -> u16 {
        self.listener.as_ref().map_or(0, Listener::port)
    }

    /// The address of the repository `name`.
    pub fn url(&self, name: &str) -> String {
        format!("{}://127.0.0.1:{}/{name}", self.scheme, self.port())
    }

    /// The same with a user and a password in it.
    pub fn url_with(&self, user: &str, password: &str, name: &str) -> String {
        format!("{}://{user}:{password}@127.0.0.1:{}/{name}", self.scheme, self.port())
    }

    /// From now on, only this user with this password may read.
    pub fn login(&self, user: &str, password: &str) {
        self.change(|state| state.login = Some((user.into(), password.into())));
    }

    /// Something is wrong from now on, also with the answers that are being given.
    pub fn break_down(&self, fault: Fault) {
        self.change(|state| state.fault = Some(fault));
    }

    /// Everything works again. Answers that were held back come at once.
    pub fn heal(&self) {
        self.change(|state| state.fault = None);
    }

    /// Sends requests below `from`, a path, to `to`, a whole address.
    pub fn redirect(&self, from: &str, to: &str) {
        self.change(|state| state.redirect = Some((from.into(), to.into())));
    }

    /// How many requests there were.
    pub fn requests(&self) -> usize {
        self.shared.lock().requests.values().sum()
    }

    /// Waits until there were so many requests.
    #[track_caller]
    pub fn wait_requests(&self, count: usize) {
        let is_less = |state: &mut State| state.requests.values().sum::<usize>() < count;
        let waited = self.shared.changed.wait_timeout_while(self.shared.lock(), CAP, is_less);
        let state = waited.unwrap_or_else(PoisonError::into_inner).0;
        assert!(state.requests.values().sum::<usize>() >= count, "waited for {count} requests: {:?}", state.requests);
    }

    /// How many requests there were, by method and path.
    pub fn requests_by_path(&self) -> BTreeMap<String, usize> {
        self.shared.lock().requests.clone()
    }

    /// How many packs were asked for.
    pub fn packs(&self) -> usize {
        let by_path = self.requests_by_path();
        by_path.iter().filter(|(path, _)| path.ends_with("/git-upload-pack")).map(|(_, count)| count).sum()
    }

    /// The `Authorization` headers that came so far.
    pub fn credentials(&self) -> Vec<String> {
        self.shared.lock().credentials.clone()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.heal();
        self.listener = None;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether the answer was given whole.
    fn serve(&self, stream: &mut (impl Read + Write)) -> bool {
        let Some(request) = Request::read(stream) else { return false };
        let mut state = self.lock();
        *state.requests.entry(format!("{} {}", request.method, request.path)).or_default() += 1;
        let authorization = request.header("authorization");
        state.credentials.extend(authorization.map(ToOwned::to_owned));
        self.changed.notify_all();
        let is_silent = |state: &mut State| state.fault == Some(Fault::Silent);
        let state = self.changed.wait_while(state, is_silent).unwrap_or_else(PoisonError::into_inner);
        let refusal = refusal(&state, &request);
        let user = state.login.as_ref().map(|(user, _)| user.clone());
        drop(state);
        // Whoever asked may have gone.
        let given = match refusal {
            Some(refusal) => stream.write_all(refusal.as_bytes()).map(|()| true),
            None => self.pass_on(&request, user.as_deref(), stream),
        };
        given.unwrap_or_default()
    }

    fn pass_on(&self, request: &Request, user: Option<&str>, stream: &mut impl Write) -> std::io::Result<bool> {
        let mut answer = Answer::of(request, &self.root, user);
        let head =
            format!("HTTP/1.1 {}\r\n{}\r\nConnection: close\r\n\r\n", answer.status, answer.headers.join("\r\n"));
        self.give(head.as_bytes(), stream)?;
        let mut given = 0;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = answer.body.read(&mut buffer)?;
            let fault = self.lock().fault;
            let end = match fault {
                Some(Fault::DiesInPack(end)) if request.path.ends_with("/git-upload-pack") => end.saturating_sub(given),
                _ => usize::MAX,
            };
            self.give(&buffer[..read.min(end)], stream)?;
            given += read;
            if read == 0 || read > end {
                return Ok(read == 0);
            }
        }
    }

    /// Writes all of it, or bit by bit for as long as that is the fault.
    fn give(&self, bytes: &[u8], stream: &mut impl Write) -> std::io::Result<()> {
        for (at, byte) in bytes.iter().enumerate() {
            let state = self.lock();
            if state.fault != Some(Fault::Drip) {
                drop(state);
                return stream.write_all(&bytes[at..]);
            }
            // The time always runs out, unless the fault is lifted.
            let waited = self.changed.wait_timeout(state, Duration::from_secs(1));
            drop(waited);
            stream.write_all(&[*byte])?;
            stream.flush()?;
        }
        Ok(())
    }
}

/// The answer to a request that does not get as far as git.
fn refusal(state: &State, request: &Request) -> Option<String> {
    let page = "<!DOCTYPE html>\n<html><body>Please log in.</body></html>\n";
    let answer = |status: &str, header: &str| {
        let length = page.len();
        Some(format!(
            "HTTP/1.1 {status}\r\n{header}Content-Type: text/html\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
        ))
    };
    match state.fault {
        Some(Fault::Status(number)) => return answer(&format!("{number} Broken"), ""),
        Some(Fault::Html) => return answer("200 OK", ""),
        Some(Fault::Silent | Fault::Drip | Fault::DiesInPack(_)) | None => {}
    }
    if let Some((from, to)) = &state.redirect
        && let Some(rest) = request.path.strip_prefix(from.as_str())
    {
        let query = if request.query.is_empty() { String::new() } else { format!("?{}", request.query) };
        return answer("301 Moved Permanently", &format!("Location: {to}{rest}{query}\r\n"));
    }
    let (user, password) = state.login.as_ref()?;
    let expected = format!("Basic {}", base64(format!("{user}:{password}").as_bytes()));
    if request.header("authorization") == Some(&expected) {
        return None;
    }
    answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"git\"\r\n")
}

/// The encoding that basic authentication uses (RFC 4648).
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, at| bits << 8 | u32::from(three.get(at).copied().unwrap_or_default()));
        for digit in 0..4 {
            let is_padding = digit > three.len();
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if is_padding { '=' } else { DIGITS[value as usize] as char });
        }
    }
    text
}
