//! A small server that keeps what it is sent, and answers as it is told.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::remote::{Listener, Request, tls};

pub struct Server {
    state: Arc<Mutex<State>>,
    scheme: &'static str,
    listener: Listener,
}

#[derive(Default)]
struct State {
    content: BTreeMap<String, Vec<u8>>,
    /// The status of the next answers, and of how many.
    answer: Option<(String, usize)>,
    login: Option<String>,
    stall: Option<(Sender<String>, Receiver<()>)>,
    requests: Vec<Request>,
}

impl Server {
    pub fn new() -> Self {
        let state = Arc::<Mutex<State>>::default();
        let listener = Listener::new({
            let state = state.clone();
            move |mut stream| serve(&state, &mut stream)
        });
        Self { state, scheme: "http", listener }
    }

    /// The same over TLS; with the file of the authority that vouches for it, which it writes to `authority`.
    pub fn encrypted(authority: &Path) -> Self {
        let configuration = tls::server(authority);
        let state = Arc::<Mutex<State>>::default();
        let listener = Listener::new({
            let state = state.clone();
            move |stream| {
                let Ok(connection) = rustls::ServerConnection::new(configuration.clone()) else { return };
                let mut stream = rustls::StreamOwned::new(connection, stream);
                serve(&state, &mut stream);
                stream.conn.send_close_notify();
                // Whoever asked may have gone.
                let _ = stream.flush();
            }
        });
        Self { state, scheme: "https", listener }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.listener.port())
    }

    /// The next answers are this status line, which may have headers after it, and a reply of two lines.
    pub fn answer(&self, status: &str, times: usize) {
        lock(&self.state).answer = Some((status.to_owned(), times));
    }

    /// From now on, requests must say this.
    pub fn login(&self, authorization: &str) {
        lock(&self.state).login = Some(authorization.to_owned());
    }

    /// The next request is read to the end of its head, which is given, and no further until the other end is dropped.
    pub fn stall(&self) -> (Receiver<String>, Sender<()>) {
        let ((head, heard), (gate, opened)) = (channel(), channel());
        lock(&self.state).stall = Some((head, opened));
        (heard, gate)
    }

    /// What is at a path.
    pub fn holds(&self, path: &str) -> Option<Vec<u8>> {
        lock(&self.state).content.get(path).cloned()
    }

    /// Methods and paths of what was asked.
    pub fn requests(&self) -> Vec<String> {
        let line = |request: &Request| format!("{} {}", request.method, request.path);
        lock(&self.state).requests.iter().map(line).collect()
    }

    /// This header of all requests that have it.
    pub fn headers(&self, name: &str) -> Vec<String> {
        lock(&self.state).requests.iter().filter_map(|request| request.header(name).map(str::to_owned)).collect()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(state: &Mutex<State>, stream: &mut (impl Read + Write)) {
    let stall = lock(state).stall.take();
    if let Some((heard, gate)) = stall {
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|length| length == 1) {
            head.push(byte[0]);
        }
        // The test may be over.
        let _ = heard.send(String::from_utf8_lossy(&head).into_owned());
        let _ = gate.recv();
        return;
    }
    let Some(mut request) = Request::read(stream) else { return };
    let mut state = lock(state);
    let body = std::mem::take(&mut request.body);
    let (status, reply) = state.respond(&request, body);
    state.requests.push(request);
    drop(state);
    let length = reply.len();
    let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{reply}");
    // Whoever asked may have gone.
    let _ = stream.write_all(answer.as_bytes());
}

impl State {
    fn respond(&mut self, request: &Request, body: Vec<u8>) -> (String, &'static str) {
        if let Some((status, times)) = self.answer.as_mut().filter(|(_, times)| *times > 0) {
            *times -= 1;
            return (status.clone(), "this is the reply\nand this its second line\n");
        }
        if self.login.is_some() && request.header("authorization") != self.login.as_deref() {
            return ("401 Unauthorized".to_owned(), "");
        }
        let known = self.content.contains_key(&request.path);
        let status = match (request.method.as_str(), known) {
            ("PUT", true) => "204 No Content",
            ("PUT", false) => "201 Created",
            ("DELETE", true) => "200 OK",
            ("DELETE", false) => "404 Not Found",
            _ => "405 Method Not Allowed",
        };
        match request.method.as_str() {
            "PUT" => drop(self.content.insert(request.path.clone(), body)),
            _ => drop(self.content.remove(&request.path)),
        }
        (status.to_owned(), "")
    }
}
