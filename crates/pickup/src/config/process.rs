//! `kind = "process"`: what its section holds, read from it and written back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::document::Data;
use super::problem::shorten;
use super::reader::Reader;
use super::{VerifyCheck, deployer, verify};

/// `kind = "process"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessConfig {
    /// The program and its arguments; no shell. `{pickup}`, `{generation}`, `{path}`, `{fd:name}` and `{port:name}`
    /// expand. A program with a `/` in it is relative to the release.
    pub command: Vec<String>,
    /// The directory that holds `releases/`, absolute; `{pickup}` expands. Default: in the state directory.
    pub into: Option<String>,
    /// Listeners that are kept open over every restart, by the name the program knows them by. Default: none.
    pub listen: BTreeMap<String, ListenAddress>,
    /// How the program says that it is ready. Default: it lived for one second.
    pub ready: Ready,
    /// How long it may take to be ready. Default: 30 s.
    pub start_timeout: Duration,
    /// How long it must live beside the old version before that one goes. Default: 5 s.
    pub probation: Duration,
    /// The signal that asks a program to finish. Default: SIGTERM.
    pub drain_signal: DrainSignal,
    /// How long it may take to finish, before its process group is killed. Default: 30 s.
    pub drain_timeout: Duration,
    /// Whether old and new run side by side. Default: true.
    pub overlap: bool,
    /// Additions to the environment. Default: none.
    pub env: BTreeMap<String, String>,
    /// `user` or `user:group` that it runs as. Default: as we do.
    pub user: Option<String>,
    /// Resource limits, both the soft and the hard one. Default: ours.
    pub limits: BTreeMap<Limit, u64>,
    /// How often in a row a program that ends by itself is started again, before it is quarantined. Default: 5.
    pub restart_max: u32,
    /// How long it may go without a sign of life (`WATCHDOG=1`). Default: it need not give any.
    pub watchdog: Option<Duration>,
    /// How often it is said how it is. Default: 15 s.
    pub health_interval: Duration,
    /// Whether it runs on when the daemon ends. Default: false.
    pub keep_running: bool,
}

impl ProcessConfig {
    /// A section with nothing but a command.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            into: None,
            listen: BTreeMap::new(),
            ready: Ready::After(Duration::from_secs(1)),
            start_timeout: Duration::from_secs(30),
            probation: Duration::from_secs(5),
            drain_signal: DrainSignal::Term,
            drain_timeout: Duration::from_secs(30),
            overlap: true,
            env: BTreeMap::new(),
            user: None,
            limits: BTreeMap::new(),
            restart_max: 5,
            watchdog: None,
            health_interval: Duration::from_secs(15),
            keep_running: false,
        }
    }

    /// Listeners that the program does not know: it binds a port of its own, and we carry connections to it.
    pub(crate) fn carried(&self) -> BTreeSet<&str> {
        let texts = self.command.iter().chain(self.env.values());
        texts.flat_map(|text| named(text, "port")).filter(|name| self.listen.contains_key(*name)).collect()
    }

    /// The longest that one phase takes when everything goes as slowly as it may.
    pub(crate) fn phase_max(&self) -> Duration {
        let start = if self.overlap { self.start_timeout } else { self.start_timeout + self.drain_timeout };
        start.max(self.probation).max(self.drain_timeout) + Duration::from_secs(5)
    }
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenAddress {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The path of a socket; `{pickup}` expands.
    Unix(String),
}

impl ListenAddress {
    /// Whether not both can be listened on.
    pub(crate) fn clashes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => {
                let any = one.ip().is_unspecified() || other.ip().is_unspecified();
                one.port() == other.port() && (any || one.ip() == other.ip())
            }
            (Self::Unix(one), Self::Unix(other)) => one == other,
            (Self::Tcp(_), Self::Unix(_)) | (Self::Unix(_), Self::Tcp(_)) => false,
        }
    }

    /// The address as it is for one entry.
    pub(crate) fn of(&self, pickup: &str) -> Self {
        match self {
            Self::Tcp(address) => Self::Tcp(*address),
            Self::Unix(path) => Self::Unix(path.replace("{pickup}", pickup)),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// How a program says that it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// `READY=1` on `NOTIFY_SOCKET`.
    Notify,
    /// A check passes; `{port:name}` expands in it.
    Check(VerifyCheck),
    /// This text is in a line of its output.
    Line(String),
    /// It lived for so long.
    After(Duration),
}

/// The signal that asks a program to finish what it has and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DrainSignal {
    /// SIGTERM.
    Term,
    /// SIGINT.
    Int,
    /// SIGQUIT.
    Quit,
    /// SIGHUP.
    Hup,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
    /// SIGWINCH.
    Winch,
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Address space, in bytes.
    As,
    /// Core dumps, in bytes.
    Core,
    /// Processor time, in seconds.
    Cpu,
    /// Data segment, in bytes.
    Data,
    /// File size, in bytes.
    Fsize,
    /// Locked memory, in bytes.
    Memlock,
    /// Open files.
    Nofile,
    /// Processes of the user.
    Nproc,
    /// Stack, in bytes.
    Stack,
}

pub(super) const SIGNALS: &[(&str, DrainSignal)] = &[
    ("TERM", DrainSignal::Term),
    ("INT", DrainSignal::Int),
    ("QUIT", DrainSignal::Quit),
    ("HUP", DrainSignal::Hup),
    ("USR1", DrainSignal::Usr1),
    ("USR2", DrainSignal::Usr2),
    ("WINCH", DrainSignal::Winch),
];

pub(super) const LIMITS: &[(&str, Limit)] = &[
    ("as", Limit::As),
    ("core", Limit::Core),
    ("cpu", Limit::Cpu),
    ("data", Limit::Data),
    ("fsize", Limit::Fsize),
    ("memlock", Limit::Memlock),
    ("nofile", Limit::Nofile),
    ("nproc", Limit::Nproc),
    ("stack", Limit::Stack),
];

/// The names in `{kind:name}` within `text`.
pub(crate) fn named<'a>(text: &'a str, kind: &str) -> Vec<&'a str> {
    let open = format!("{{{kind}:");
    let after = text.split(open.as_str()).skip(1);
    after.filter_map(|rest| rest.split_once('}').map(|(name, _)| name)).collect()
}

/// Reads the keys of this kind.
pub(super) fn read(reader: &mut Reader<'_>) -> ProcessConfig {
    if reader.value("command").is_none() {
        reader.error("command", "is missing: which program is to be run?");
    }
    let default = ProcessConfig::new(deployer::command(reader, "command").unwrap_or_default());
    let config = ProcessConfig {
        into: reader.value("into").is_some().then(|| deployer::into(reader)),
        listen: listen(reader),
        ready: reader.read("ready", |data| ready(super::reader::text(data)?)).unwrap_or(default.ready),
        start_timeout: reader.interval("start_timeout", default.start_timeout),
        probation: reader.duration("probation", default.probation),
        drain_signal: reader.choice("drain_signal", default.drain_signal, SIGNALS),
        drain_timeout: reader.duration("drain_timeout", default.drain_timeout),
        overlap: reader.boolean("overlap", default.overlap),
        env: reader.pairs("env"),
        user: reader.read("user", |data| user(super::reader::text(data)?)),
        limits: limits(reader),
        restart_max: reader.number("restart_max", default.restart_max, 0, 1000),
        watchdog: reader.value("watchdog").is_some().then(|| reader.interval("watchdog", Duration::MAX)),
        health_interval: reader.interval("health_interval", default.health_interval),
        keep_running: reader.boolean("keep_running", default.keep_running),
        command: default.command,
    };
    check(reader, &config);
    config
}

/// What keys must not say about each other.
fn check(reader: &mut Reader<'_>, config: &ProcessConfig) {
    let ready = match &config.ready {
        Ready::Check(check) => verify::write(check),
        Ready::Notify | Ready::Line(_) | Ready::After(_) => String::new(),
    };
    let texts =
        config.command.iter().map(|text| ("command", text)).chain(config.env.values().map(|text| ("env", text)));
    for (key, text) in texts.chain([("ready", &ready)]) {
        for kind in ["fd", "port"] {
            for name in named(text, kind).into_iter().filter(|name| !config.listen.contains_key(*name)) {
                reader.error(key, format!("`{{{kind}:{}}}` is no name in `listen`", shorten(name)));
            }
        }
    }
    let carried = config.carried();
    for name in config.command.iter().chain(config.env.values()).flat_map(|text| named(text, "fd")) {
        if carried.contains(name) {
            reader.error("command", format!("`{{fd:{name}}}` and `{{port:{name}}}` exclude each other"));
        }
    }
    if config.user.is_some() && config.into.is_none() {
        reader.error("user", "needs `into`: the state directory is closed to other users");
    }
    let Ready::Check(VerifyCheck::Tcp(_) | VerifyCheck::Http(_)) = &config.ready else { return };
    let authority = ready.split("://").nth(1).and_then(|rest| rest.split(['/', '?', '#']).next()).unwrap_or_default();
    let port = authority.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
    let is_shared = config.listen.iter().any(|(name, address)| match address {
        ListenAddress::Tcp(address) => Some(address.port()) == port && !carried.contains(name.as_str()),
        ListenAddress::Unix(_) => false,
    });
    if is_shared && config.overlap {
        let message = "the old version would answer on a listener that both have: use `notify`, `line:`, `exec:`, or \
                       `{port:name}`";
        reader.error("ready", message);
    }
}

fn listen(reader: &mut Reader<'_>) -> BTreeMap<String, ListenAddress> {
    let mut listen = BTreeMap::new();
    for (name, written) in reader.pairs("listen") {
        // Names are separated by colons in `LISTEN_FDNAMES`.
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
            reader.error("listen", format!("`{}` is no listener's name", shorten(&name)));
        }
        match address(&written) {
            Ok(address) => {
                listen.insert(name, address);
            }
            Err(message) => reader.error("listen", message),
        }
    }
    listen
}

fn address(text: &str) -> Result<ListenAddress, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        return match path.starts_with('/') {
            true => Ok(ListenAddress::Unix(path.to_owned())),
            false => Err(format!("expected `unix:` and an absolute path, found `{}`", shorten(text))),
        };
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => Ok(ListenAddress::Tcp(address)),
        _ => Err(format!(
            "expected an address such as `127.0.0.1:8080` or `unix:/run/app.sock`, found `{}`",
            shorten(text)
        )),
    }
}

fn ready(text: &str) -> Result<Ready, String> {
    if text == "notify" {
        return Ok(Ready::Notify);
    }
    if let Some(line) = text.strip_prefix("line:") {
        return if line.is_empty() { Err("`line:` names no text".into()) } else { Ok(Ready::Line(line.to_owned())) };
    }
    if let Some(after) = text.strip_prefix("after:") {
        let after = humantime::parse_duration(after.trim());
        return after.map(Ready::After).map_err(|_| format!("expected `after:1s`, found `{}`", shorten(text)));
    }
    let is_check = ["tcp://", "http://", "https://", "exec:"].iter().any(|scheme| text.starts_with(scheme));
    if !is_check {
        let expected = "expected `notify`, `tcp://host:port`, `http://…`, `exec:…`, `line:…` or `after:1s`";
        return Err(format!("{expected}, found `{}`", shorten(text)));
    }
    if text.starts_with("exec:") {
        return verify::check(text).map(Ready::Check);
    }
    // What stands for a port is judged as if it were one.
    let filled =
        named(text, "port").iter().fold(text.to_owned(), |text, name| text.replace(&format!("{{port:{name}}}"), "1"));
    verify::check(&filled).map(|check| {
        Ready::Check(match check {
            VerifyCheck::Tcp(_) => VerifyCheck::Tcp(text.trim_start_matches("tcp://").to_owned()),
            VerifyCheck::Http(_) => VerifyCheck::Http(text.to_owned()),
            VerifyCheck::Exec(argv) => VerifyCheck::Exec(argv),
        })
    })
}

/// The text that [`ready`] reads as `ready`.
pub(super) fn write_ready(ready: &Ready) -> String {
    match ready {
        Ready::Notify => "notify".into(),
        Ready::Check(check) => verify::write(check),
        Ready::Line(line) => format!("line:{line}"),
        Ready::After(after) => format!("after:{}", humantime::format_duration(*after)),
    }
}

fn user(text: &str) -> Result<String, String> {
    if text.starts_with(':') { Err("expected `user` or `user:group`".into()) } else { deployer::owner(text) }
}

fn limits(reader: &mut Reader<'_>) -> BTreeMap<Limit, u64> {
    let mut limits = BTreeMap::new();
    for (name, written) in numbers(reader) {
        let names: Vec<_> = LIMITS.iter().map(|(name, _)| *name).collect();
        let limit = LIMITS.iter().find(|(known, _)| *known == name).map(|(_, limit)| *limit);
        let value = written.parse().ok().or_else(|| written.parse().ok().map(|size: bytesize::ByteSize| size.as_u64()));
        match (limit, value) {
            (Some(limit), Some(value)) => {
                limits.insert(limit, value);
            }
            (None, _) => {
                let message = format!("expected one of `{}`, found `{}`", names.join("`, `"), shorten(&name));
                reader.error("limits", message);
            }
            (Some(_), None) => {
                reader.error("limits", format!("`{name}`: expected a number or a size, found `{}`", shorten(&written)));
            }
        }
    }
    limits
}

/// Names with numbers or sizes: a table, or a list of `name=value`.
fn numbers(reader: &mut Reader<'_>) -> Vec<(String, String)> {
    let Some(value) = reader.value("limits") else { return Vec::new() };
    let Data::Table(entries) = &value.data else { return reader.pairs("limits").into_iter().collect() };
    let mut numbers = Vec::new();
    for entry in entries {
        match &entry.value.data {
            Data::Integer(digits, 10) => numbers.push((entry.key.clone(), digits.clone())),
            Data::Text(text) => numbers.push((entry.key.clone(), text.clone())),
            other => reader.error("limits", format!("`{}`: expected a number, found {}", entry.key, other.describe())),
        }
    }
    numbers
}
