//! The `git` program as the transport: for what libgit2 cannot do. It asks nobody, runs no hooks, and reads nobody's
//! configuration but that of the repository.
#![expect(clippy::disallowed_methods, reason = "this is the door to the git program")]

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use git2::{Oid, Repository};

use super::credentials::Login;
use super::libgit2::too_large;
use super::ssh::{not_started, options, overhear, quoted};
use super::{RemoteRef, Report, Transport, failed, judge};
use crate::config::GitUrl;
use crate::config::url::Scheme;
use crate::source::git::worker::{Access, Failure, FailureKind, Progress};

/// A list of references that is longer is no list of references.
const LIST_MAX: u64 = 256 << 20;

/// How often a fetch is looked at: whether it ended, and how much it has brought.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What git and ssh need of our environment.
const INHERITED: [&str; 4] = ["PATH", "HOME", "SSH_AUTH_SOCK", "TMPDIR"];

/// A remote, as the program sees it.
pub(super) struct Cli<'a> {
    access: &'a Access,
    login: Login,
    directory: PathBuf,
}

impl<'a> Cli<'a> {
    pub(super) fn new(access: &'a Access, login: Login, repository: &Repository) -> Self {
        Self { access, login, directory: repository.commondir().to_owned() }
    }

    /// `git`, with all that keeps it from asking, waiting and running what others wrote.
    fn command(&self) -> Command {
        let mut command = Command::new("git");
        command.env_clear();
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "true").env("SSH_ASKPASS", "true");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null").env("LC_ALL", "C");
        command.env("GIT_ALLOW_PROTOCOL", "http:https:ssh:git:file").env("GIT_PROTOCOL_FROM_USER", "0");
        command.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_NO_LAZY_FETCH", "1");
        command.env("GIT_SSH_COMMAND", self.ssh()).env("GIT_SSH_VARIANT", "ssh");
        let settings = self.settings();
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (at, (key, value)) in settings.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{at}"), key).env(format!("GIT_CONFIG_VALUE_{at}"), value);
        }
        command.current_dir(&self.directory).arg("--git-dir").arg(&self.directory);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// What git is configured with: in its environment, since everybody on the machine can read arguments.
    fn settings(&self) -> Vec<(String, OsString)> {
        let is_known = matches!(self.access.url.scheme(), Some(Scheme::Http | Scheme::Https)) && !self.login.is_empty();
        let mut settings: Vec<(String, OsString)> = [
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("credential.helper", ""),
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            // A header goes along to wherever a redirect leads, and ours holds the password.
            ("http.followRedirects", if is_known { "false" } else { "initial" }),
            ("http.lowSpeedLimit", "1"),
            ("http.lowSpeedTime", "30"),
            ("http.proxy", self.access.proxy.as_deref().unwrap_or("")),
        ]
        .map(|(key, value)| (key.to_owned(), value.into()))
        .into();
        if let Some(path) = &self.access.ca_file {
            settings.push(("http.sslCAInfo".into(), path.into()));
        }
        if is_known {
            let key = format!("http.{}.extraHeader", origin(&self.access.url));
            settings.push((key, format!("Authorization: Basic {}", self.login.basic()).into()));
        }
        settings
    }

    fn ssh(&self) -> OsString {
        let mut command = OsString::from("ssh");
        let user = match (&self.access.username, self.access.url.userinfo().user) {
            (Some(user), None) => vec!["-l".into(), user.into()],
            _ => Vec::new(),
        };
        for word in options(self.access).into_iter().chain(user) {
            command.push(" ");
            match word.to_str() {
                Some(word) => command.push(quoted(word)),
                None => command.push(word),
            }
        }
        command
    }

    /// The address, without what went elsewhere.
    fn address(&self) -> String {
        self.access.url.without_secrets().expose().to_owned()
    }

    fn start(&self, command: &mut Command) -> Result<Child, Failure> {
        command.spawn().map_err(|e| not_started(self.access, "git", "git", &e))
    }

    /// What it means that git ended as it did, having said `words`.
    fn judge(&self, status: ExitStatus, words: &str) -> Result<(), Failure> {
        if status.success() {
            return Ok(());
        }
        let lines: Vec<&str> = words.lines().map(str::trim).filter(|line| !is_chatter(line)).collect();
        let said = lines[lines.len().saturating_sub(4)..].join("; ");
        let said = if said.is_empty() { format!("git ended with {status}") } else { self.login.redact(&said) };
        // Of a changed host key, the warning stands at the beginning.
        let words = if words.contains("IDENTIFICATION HAS CHANGED") { words } else { &said };
        Err(judge(self.access, words))
    }
}

impl Transport for Cli<'_> {
    fn list(&mut self) -> Result<Vec<RemoteRef>, Failure> {
        let mut command = self.command();
        command.args(["ls-remote", "--symref", "--", &self.address()]).stdout(Stdio::piped());
        let mut child = self.start(&mut command)?;
        let words = child.stderr.take().map(|from| std::thread::spawn(move || overhear(from)));
        let mut text = Vec::new();
        if let Some(from) = child.stdout.take() {
            let _unreadable = from.take(LIST_MAX).read_to_end(&mut text);
        }
        let status = child.wait().map_err(|e| failed(self.access, FailureKind::Other, e))?;
        let words = words.and_then(|words| words.join().ok()).unwrap_or_default();
        self.judge(status, &words)?;
        parse_list(&String::from_utf8_lossy(&text)).ok_or_else(|| {
            failed(self.access, FailureKind::Unsupported, "its ids are not SHA-1, or git answered nonsense")
        })
    }

    fn fetch(&mut self, refspecs: &[String], depth: u32, report: Report<'_>) -> Result<(), Failure> {
        let mut command = self.command();
        command.args(["fetch", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--no-recurse-submodules"]);
        command.args(["--no-prune", "--quiet", "--force", "--update-head-ok"]);
        if depth > 0 && self.access.url.is_local().is_none() {
            command.arg(format!("--depth={depth}"));
        }
        command.arg("--").arg(self.address()).args(refspecs).stdout(Stdio::null());
        let before = size(&self.directory);
        let mut child = self.start(&mut command)?;
        let words = child.stderr.take().map(|from| std::thread::spawn(move || overhear(from)));
        let status = loop {
            if let Some(status) = child.try_wait().map_err(|e| failed(self.access, FailureKind::Other, e))? {
                break status;
            }
            let bytes = size(&self.directory).saturating_sub(before);
            report(Progress { objects: 0, objects_total: 0, bytes });
            if bytes > self.access.size_max {
                let _ended = child.kill();
                let _status = child.wait();
                return Err(too_large(self.access));
            }
            std::thread::sleep(LOOK_INTERVAL);
        };
        let words = words.and_then(|words| words.join().ok()).unwrap_or_default();
        self.judge(status, &words)
    }
}

/// What git says whatever the matter is.
fn is_chatter(line: &str) -> bool {
    const CHATTER: [&str; 3] = [
        "fatal: Could not read from remote repository.",
        "Please make sure you have the correct access rights",
        "and the repository exists.",
    ];
    line.is_empty() || CHATTER.contains(&line)
}

/// The scheme, host and port of an address: what a credential is for.
fn origin(url: &GitUrl) -> String {
    let url = url.without_userinfo();
    let text = url.expose();
    let host = text.find("://").map_or(0, |at| at + 3);
    let end = text[host..].find('/').map_or(text.len(), |at| host + at);
    format!("{}/", &text[..end])
}

/// How many bytes of packs there are, finished or not.
fn size(directory: &Path) -> u64 {
    let Ok(entries) = directory.join("objects/pack").read_dir() else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// The lines of `git ls-remote --symref`.
fn parse_list(text: &str) -> Option<Vec<RemoteRef>> {
    let mut refs: Vec<RemoteRef> = Vec::new();
    let mut symrefs = Vec::new();
    for line in text.lines() {
        let (value, name) = line.split_once('\t')?;
        match value.strip_prefix("ref: ") {
            Some(target) => symrefs.push((name, target)),
            None => {
                let id = Oid::from_str(value).ok().filter(|_| value.len() == 40)?;
                refs.push(RemoteRef { name: name.to_owned(), id, symref: None });
            }
        }
    }
    for (name, target) in symrefs {
        for found in refs.iter_mut().filter(|found| found.name == name) {
            found.symref = Some(target.to_owned());
        }
    }
    Some(refs)
}

#[test]
fn lists_are_read() {
    let id = "0123456789012345678901234567890123456789";
    let refs = parse_list(&format!("ref: refs/heads/main\tHEAD\n{id}\tHEAD\n{id}\trefs/heads/main\n")).unwrap();
    assert_eq!(refs[0].symref.as_deref(), Some("refs/heads/main"));
    assert_eq!((refs[1].name.as_str(), &refs[1].symref), ("refs/heads/main", &None));
    assert_eq!(parse_list("nonsense"), None);
    assert_eq!(origin(&GitUrl::new("https://u:p@host:8/x/y")), "https://host:8/");
}
