//! Who is compared: how each watcher is started, and what a line of its output says.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use super::library::{DEBOUNCE, Library};
use super::watcher::{Source, Watcher};
use crate::daemon::{Daemon, HEAD};
use crate::peers;
use crate::process::{Printed, Process, Said};
use crate::setting::Setting;

/// The hidden subcommand under which this program is a watcher.
pub const WATCH: &str = "watch";

/// A watcher that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A library in this process: the closure is entered.
    InProcess(Library),
    /// A library in a process of its own, which prints a line.
    Child(Library),
    /// Our daemon, copying what it picks up.
    Copying,
    /// Our daemon, running a program.
    Executing {
        /// `quiet = 0` instead of the default.
        is_eager: bool,
    },
    /// `inotifywait -m -r`.
    Inotifywait,
    /// watchexec, which prints events.
    Watchexec,
    /// watchexec, which runs the program that our daemon runs.
    WatchexecExecuting,
    /// watchman with a subscription.
    Watchman,
    /// entr in the loop of its manual, since it ends when a file is new.
    Entr,
    /// `fswatch -r`.
    Fswatch,
}

impl Subject {
    /// The name in tables.
    pub fn name(self) -> String {
        let library = |library| match library {
            Library::Raw => "raw inotify".to_owned(),
            Library::Notify => "notify".into(),
            Library::Debouncer => format!("notify-debouncer-full, {} ms", DEBOUNCE.as_millis()),
            Library::Pickup { is_eager: false } => "pickup, closure".into(),
            Library::Pickup { is_eager: true } => "pickup, closure, quiet = 0".into(),
        };
        match self {
            Self::InProcess(Library::Raw) => "raw inotify, in process".into(),
            Self::InProcess(which) | Self::Child(which) => library(which),
            Self::Copying => "pickupd, copy".into(),
            Self::Executing { is_eager: false } => "pickupd, exec".into(),
            Self::Executing { is_eager: true } => "pickupd, exec, quiet = 0".into(),
            Self::Inotifywait => "inotifywait".into(),
            Self::Watchexec => "watchexec".into(),
            Self::WatchexecExecuting => "watchexec, exec".into(),
            Self::Watchman => "watchman".into(),
            Self::Entr => "entr".into(),
            Self::Fswatch => "fswatch".into(),
        }
    }

    /// The program it needs, if it is none of ours.
    pub fn program(self) -> Option<&'static str> {
        match self {
            Self::InProcess(_) | Self::Child(_) | Self::Copying | Self::Executing { .. } => None,
            Self::Inotifywait => Some("inotifywait"),
            Self::Watchexec | Self::WatchexecExecuting => Some("watchexec"),
            Self::Watchman => Some("watchman"),
            Self::Entr => Some("entr"),
            Self::Fswatch => Some("fswatch"),
        }
    }

    /// Why it cannot be measured here, if so.
    pub fn missing(self, setting: &Setting) -> Option<String> {
        let program = self.program().filter(|program| setting.peers.get(program).is_none())?;
        Some(format!("not here: {}", peers::hint(program)))
    }

    /// A line that says that it watches, if it says so.
    pub fn ready_line(self) -> Option<&'static str> {
        match self {
            Self::Child(_) => Some(READY),
            Self::Copying => Some("\"watching\""),
            Self::Inotifywait => Some("Watches established"),
            Self::Entr => Some(CHANGED),
            // What watchman says first depends on whether it had finished its listing when it was asked.
            Self::InProcess(_)
            | Self::Executing { .. }
            | Self::Watchman
            | Self::Watchexec
            | Self::WatchexecExecuting
            | Self::Fswatch => None,
        }
    }

    /// Starts it on `place/in`, and returns at once.
    pub fn spawn(self, setting: &Setting, place: &Path) -> Result<Watcher> {
        let root = place.join("in");
        let source = match self {
            Self::InProcess(library) => in_process(library, &root, &place.join("state"))?,
            Self::Child(library) => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args([WATCH, library.word()]).arg(&root).arg(place.join("state"));
                Source::Process(Process::spawn(command, false)?)
            }
            Self::Copying => {
                let copy = "[deployer.copy]\nkind = \"copy\"\ninto = \"deployed\"\n";
                let config =
                    format!("{HEAD}\n[hot-deploy.user.p]\npickup_from = \"in\"\ndeploy_to = [\"copy\"]\n\n{copy}");
                Source::Daemon(Daemon::spawn(setting, place, &config)?)
            }
            Self::Executing { is_eager } => {
                let pipe = Fifo::make(place)?;
                let quiet = if is_eager { "quiet = \"0s\"\n" } else { "" };
                let command = serde_json::to_string(&pipe.telling("\"$PICKUP_UNIT\""))?;
                let entry = format!("[hot-deploy.user.p]\npickup_from = \"in\"\ndeploy_to = [\"run\"]\n{quiet}");
                let config = format!("{HEAD}\n{entry}\n[deployer.run]\nkind = \"exec\"\ncommand = {command}\n");
                Source::Telling(Daemon::spawn(setting, place, &config)?.into_process(), pipe.hear()?)
            }
            Self::Inotifywait
            | Self::Watchexec
            | Self::Fswatch
            | Self::Entr
            | Self::Watchman
            | Self::WatchexecExecuting => self.spawn_program(setting, place, &root)?,
        };
        Ok(Watcher::new(self, root, source))
    }

    fn spawn_program(self, setting: &Setting, place: &Path, root: &Path) -> Result<Source> {
        let program = &setting.peers.need(self.program().context("a program")?)?.program;
        let mut command = Command::new(program);
        match self {
            Self::Inotifywait => {
                command.args(["-m", "-r", "-e", "close_write", "-e", "moved_to", "--format", "%w%f"]).arg(root);
                return Ok(Source::Process(Process::spawn(command, true)?));
            }
            Self::Fswatch => {
                command.args(["-r", "--event", "Created", "--event", "Updated", "--event", "Renamed"]).arg(root);
            }
            Self::Watchexec => {
                command.args(["--only-emit-events", "--emit-events-to=json-stdio", "--project-origin"]).arg(root);
                command.arg("-w").arg(root);
            }
            Self::WatchexecExecuting => {
                let pipe = Fifo::make(place)?;
                command
                    .args(["--postpone", "--shell=none", "--project-origin"])
                    .arg(root)
                    .arg("-w")
                    .arg(root)
                    .arg("--");
                command.args(pipe.telling(CHANGED));
                return Ok(Source::Telling(Process::spawn(command, false)?, pipe.hear()?));
            }
            Self::Watchman => return spawn_watchman(program, place, root),
            Self::Entr => {
                // Watches the files that are there and their directories, and ends when there is a new one.
                command = Command::new("sh");
                let script = format!("while :; do find \"$1\" | \"$0\" -n -d echo {CHANGED}; sleep 0.1; done");
                command.arg("-c").arg(script).arg(program).arg(root);
            }
            Self::InProcess(_) | Self::Child(_) | Self::Copying | Self::Executing { .. } => {}
        }
        Ok(Source::Process(Process::spawn(command, false)?))
    }

    /// The paths below the watched directory that a line of its output reports. `batch` is what those reported that came
    /// with it.
    pub fn names(self, root: &Path, text: &str, batch: &mut HashSet<String>) -> Vec<String> {
        let below =
            |path: &str| Path::new(path).strip_prefix(root).ok().map(|path| path.to_string_lossy().into_owned());
        match self {
            Self::InProcess(_) | Self::Child(_) | Self::Inotifywait | Self::Fswatch => {
                below(text).into_iter().collect()
            }
            Self::Executing { .. } | Self::Entr | Self::WatchexecExecuting => vec![text.to_owned()],
            Self::Copying => {
                // Nothing else has this form; parsing every line would cost more than the daemon's work.
                let Some((_, rest)) = text.split_once("\"message\":\"deployed\"") else { return Vec::new() };
                let unit = rest.split_once("\"unit\":\"").and_then(|(_, unit)| unit.split_once('"'));
                unit.map(|(unit, _)| unit.to_owned()).into_iter().collect()
            }
            Self::Watchexec => {
                let event: Value = serde_json::from_str(text).unwrap_or_default();
                let tags = event["tags"].as_array().into_iter().flatten();
                let paths = tags.filter_map(|tag| below(tag["absolute"].as_str()?));
                paths.filter(|path| batch.insert(path.clone())).collect()
            }
            Self::Watchman => {
                let answer: Value = serde_json::from_str(text).unwrap_or_default();
                let files = answer["files"].as_array().into_iter().flatten();
                files.filter_map(|file| Some(file.as_str()?.to_owned())).collect()
            }
        }
    }
}

/// What a watcher of ours prints when it watches.
const READY: &str = "ready";

/// What is said where no file is named.
pub const CHANGED: &str = "changed";

fn in_process(library: Library, root: &Path, state: &Path) -> Result<Source> {
    let (said, heard) = std::sync::mpsc::channel();
    let report = move |path: &Path| {
        let at = std::time::Instant::now();
        let _ = said.send(Said { at, text: path.to_string_lossy().into_owned() });
    };
    Ok(Source::InProcess { _watching: library.start(root, state, Arc::new(report))?, lines: Printed::new(heard) })
}

fn spawn_watchman(program: &Path, place: &Path, root: &Path) -> Result<Source> {
    let socket = place.join("watchman.sock");
    let with_socket = || {
        let mut command = Command::new(program);
        command.arg("--sockname").arg(&socket);
        command
    };
    let mut server = with_socket();
    server.args(["--foreground", "--no-save-state", "--logfile"]).arg(place.join("watchman.log"));
    let server = Process::spawn(server, false)?;
    let listens = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while !socket.exists() && std::time::Instant::now() < listens {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let ask = serde_json::json!(["subscribe", root, "bench", { "fields": ["name"], "expression": ["type", "f"] }]);
    let question = place.join("watchman.json");
    std::fs::write(&question, format!("{ask}\n"))?;
    let mut client = with_socket();
    client.args(["--no-spawn", "--no-pretty", "-j", "-p"]);
    let client = Process::spawn_fed(client, Stdio::from(File::open(question)?), false)?;
    Ok(Source::Served { server, client })
}

/// A pipe with a name, into which the programs that watchers run tell that they run.
pub struct Fifo(PathBuf);

impl Fifo {
    fn make(place: &Path) -> Result<Self> {
        let path = place.join("told");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).context("make a pipe")?;
        Ok(Self(path))
    }

    /// A command that tells `what`.
    fn telling(&self, what: &str) -> [String; 3] {
        ["/bin/sh".into(), "-c".into(), format!("echo {what} > '{}'", self.0.display())]
    }

    fn hear(&self) -> Result<Told> {
        // For writing, too: it never ends by itself.
        let file = File::options().read(true).write(true).open(&self.0)?;
        let (said, lines) = std::sync::mpsc::channel();
        crate::process::hear(file.try_clone()?, said);
        Ok(Told { lines: Printed::new(lines), file })
    }
}

/// What comes out of a [`Fifo`].
pub struct Told {
    pub lines: Printed,
    file: File,
}

impl Drop for Told {
    fn drop(&mut self) {
        // The thread that hears ends with the first line that nobody wants.
        let (_, nobody) = std::sync::mpsc::channel();
        self.lines = Printed::new(nobody);
        let _ = self.file.write_all(b"\n");
    }
}

/// This program as a watcher: prints a line when it watches, and one for each report.
pub fn watch(arguments: Vec<OsString>) -> Result<()> {
    let [word, directory, state] = <[OsString; 3]>::try_from(arguments).ok().context("which, directory, state")?;
    let library = word.to_str().and_then(Library::from_word).context("no such watcher")?;
    let lines = Arc::new(Lines::default());
    let reported = lines.clone();
    std::thread::spawn(move || lines.pass_on());
    let report = move |path: &Path| reported.add(path);
    let _watching = library.start(Path::new(&directory), Path::new(&state), Arc::new(report))?;
    println!("{READY}");
    loop {
        std::thread::park();
    }
}

/// How soon after others a line waits for more: to wake the reader for each of thousands costs more than most watchers do.
const TOGETHER: Duration = Duration::from_millis(1);

/// What is to be printed: a line alone at once, and one of many with the others.
#[derive(Default)]
struct Lines {
    waiting: Mutex<Waiting>,
    is_any: Condvar,
}

#[derive(Default)]
struct Waiting {
    text: String,
    last: Option<Instant>,
}

impl Lines {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, path: &Path) {
        let mut waiting = self.waiting();
        let is_first = waiting.text.is_empty();
        // Infallible for a `String`.
        let _ = writeln!(waiting.text, "{}", path.display());
        if !is_first {
            return;
        }
        if waiting.last.is_none_or(|last| last.elapsed() > TOGETHER) {
            waiting.print();
        } else {
            self.is_any.notify_one();
        }
    }

    /// Prints what waits, for good.
    fn pass_on(&self) {
        loop {
            let is_none = |waiting: &mut Waiting| waiting.text.is_empty();
            drop(self.is_any.wait_while(self.waiting(), is_none).unwrap_or_else(PoisonError::into_inner));
            std::thread::sleep(TOGETHER);
            self.waiting().print();
        }
    }
}

impl Waiting {
    fn print(&mut self) {
        // The reader may have gone.
        let _ = std::io::stdout().lock().write_all(self.text.as_bytes());
        self.text.clear();
        self.last = Some(Instant::now());
    }
}
