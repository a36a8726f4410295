//! `git http-backend`, run for one request as the web servers run it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use super::git;

/// A request as it came.
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: String,
    /// The names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// `None` if there is none, or it makes no sense.
    pub fn read(stream: &mut (impl Read + Write)) -> Option<Self> {
        let mut reader = BufReader::new(stream);
        let line = line(&mut reader)?;
        let mut words = line.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?);
        // What is sent to a proxy names the server, too.
        let target = target.strip_prefix("http://").map_or(target, |rest| rest.find('/').map_or("/", |at| &rest[at..]));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let mut request = Self { method, path, query, headers: Vec::new(), body: Vec::new() };
        while let Some((name, value)) = self::line(&mut reader)?.split_once(':') {
            request.headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        if request.header("expect").is_some() {
            reader.get_mut().write_all(b"HTTP/1.1 100 Continue\r\n\r\n").ok()?;
        }
        if request.header("transfer-encoding") == Some("chunked") {
            request.body = chunks(&mut reader)?;
        } else if let Some(length) = request.header("content-length") {
            request.body = vec![0; length.parse().ok()?];
            reader.read_exact(&mut request.body).ok()?;
        }
        Some(request)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

fn line(reader: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let length = reader.read_line(&mut line).ok()?;
    (length > 0).then(|| line.trim_end().to_owned())
}

/// A body that comes in pieces, each after its length.
fn chunks(reader: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let length = usize::from_str_radix(&line(reader)?, 16).ok()?;
        let start = body.len();
        body.resize(start + length, 0);
        reader.read_exact(&mut body[start..]).ok()?;
        line(reader)?;
        if length == 0 {
            return Some(body);
        }
    }
}

/// What git answers: a status, headers, and a body that is read as it comes.
pub struct Answer {
    pub status: String,
    pub headers: Vec<String>,
    pub body: BufReader<Box<dyn Read>>,
    child: Child,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Answer {
    /// Runs git for the request on the repositories below `root`.
    pub fn of(request: &Request, root: &Path, user: Option<&str>) -> Self {
        let mut command = git(root);
        command.arg("http-backend").env("GIT_PROJECT_ROOT", root).env("GIT_HTTP_EXPORT_ALL", "1");
        command.env("REQUEST_METHOD", &request.method).env("PATH_INFO", &request.path);
        command.env("QUERY_STRING", &request.query).env("CONTENT_LENGTH", request.body.len().to_string());
        let passed = [
            ("content-type", "CONTENT_TYPE"),
            ("content-encoding", "HTTP_CONTENT_ENCODING"),
            ("git-protocol", "HTTP_GIT_PROTOCOL"),
        ];
        for (header, variable) in passed {
            if let Some(value) = request.header(header) {
                command.env(variable, value);
            }
        }
        if let Some(user) = user {
            command.env("REMOTE_USER", user);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("run git http-backend");
        let mut input = child.stdin.take().expect("its input");
        let body = request.body.clone();
        // It may answer before it has read everything, or not read it at all.
        let thread = std::thread::spawn(move || drop(input.write_all(&body)));
        let output: Box<dyn Read> = Box::new(child.stdout.take().expect("its output"));
        let mut answer = Self {
            status: "200 OK".into(),
            headers: Vec::new(),
            body: BufReader::new(output),
            child,
            thread: Some(thread),
        };
        answer.read_headers();
        answer
    }

    fn read_headers(&mut self) {
        while let Some(line) = line(&mut self.body).filter(|line| !line.is_empty()) {
            match line.strip_prefix("Status: ") {
                Some(status) => self.status = status.to_owned(),
                None => self.headers.push(line),
            }
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // It has ended, unless the answer was given up midway.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
