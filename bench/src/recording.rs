//! The README's recording: the real daemon on a terminal of our own, and what a user types beside it, as an SVG.
//!
//! Nothing is made up but the pauses: each command runs when it is shown, and its lines appear when they were printed.

mod svg;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::num::NonZeroU16;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

const COLUMNS: NonZeroU16 = NonZeroU16::new(118).unwrap();

/// More than any recording has: nothing scrolls.
const ROWS: NonZeroU16 = NonZeroU16::new(200).unwrap();

/// How long a line is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a viewer gets to read what a command gave.
const READING: Duration = Duration::from_millis(1800);

/// How long the silence is that ends what a command prints.
const SILENCE: Duration = Duration::from_millis(150);

const CONFIGURATION: &str = r#"[hot-deploy.user.site]
pickup_from = "incoming"
deploy_to = ["app"]

[deployer.app]
kind = "copy"
into = "live"
verify = ["exec:sh -n live/report.sh"]
verify_timeout = "500ms"
retry_backoff = "1m"
"#;

/// One thing that a user types, and what it shows.
struct Step {
    shown: &'static str,
    argv: &'static [&'static str],
    /// What the daemon says in the end, if it does.
    until: Option<&'static str>,
}

const STEPS: &[Step] = &[
    Step { shown: "cp report.sh incoming/", argv: &["cp", "report.sh", "incoming/"], until: Some("generation=1") },
    Step {
        shown: "cp half/data.gz incoming/          # an upload breaks off",
        argv: &["cp", "half/data.gz", "incoming/"],
        until: None,
    },
    Step {
        shown: "pickupd why incoming/data.gz",
        argv: &["pickupd", "why", "--config", "pickup.conf", "incoming/data.gz"],
        until: None,
    },
    Step {
        shown: "cp data.gz incoming/               # and comes again",
        argv: &["cp", "data.gz", "incoming/"],
        until: Some("generation=2"),
    },
    Step {
        shown: "cp broken/report.sh incoming/      # a version that does not pass its check",
        argv: &["cp", "broken/report.sh", "incoming/"],
        until: Some("Syntax error"),
    },
    Step {
        shown: "sh live/report.sh                  # the old one serves",
        argv: &["sh", "live/report.sh"],
        until: None,
    },
    Step { shown: "pickupd status", argv: &["pickupd", "status", "--config", "pickup.conf"], until: None },
];

/// Records a session with the daemon at `pickupd`, and writes the picture to `to`.
///
/// # Errors
/// The daemon does not do what the session shows.
pub fn run(pickupd: &Path, to: &Path) -> Result<()> {
    let directory = tempfile::tempdir()?;
    prepare(directory.path())?;
    let mut session = Session::open(pickupd, directory.path())?;
    session.type_in("pickupd run --config pickup.conf &");
    let daemon = session.start(&["pickupd", "run", "--config", "pickup.conf"])?;
    let daemon = Daemon(daemon);
    session.hear(Some("watching"))?;
    for step in STEPS {
        session.type_in(step.shown);
        let status = session.start(step.argv)?.wait()?;
        session.hear(step.until).with_context(|| format!("after `{}`, which ended with {status}", step.shown))?;
    }
    drop(daemon);
    fs::write(to, svg::draw(&session.take(), COLUMNS.get()))?;
    Ok(())
}

/// What the session starts with.
fn prepare(directory: &Path) -> Result<()> {
    for name in ["incoming", "half", "broken", "live"] {
        fs::create_dir(directory.join(name))?;
    }
    fs::write(directory.join("pickup.conf"), CONFIGURATION)?;
    fs::write(directory.join("report.sh"), "echo \"report: all is well\"\n")?;
    fs::write(directory.join("broken/report.sh"), "echo \"report: all is\n")?;
    let mut whole = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    for number in 0..5000 {
        writeln!(whole, "{number}")?;
    }
    let whole = whole.finish()?;
    fs::write(directory.join("half/data.gz"), whole.get(..whole.len() / 2).unwrap_or_default())?;
    fs::write(directory.join("data.gz"), whole)?;
    Ok(())
}

/// The daemon, asked to end when the session is over.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _gone = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ended = self.0.wait();
    }
}

/// A terminal, and when each of its lines came.
struct Session {
    directory: PathBuf,
    pickupd: PathBuf,
    terminal: OwnedFd,
    printed: Receiver<Vec<u8>>,
    screen: vt100::Parser,
    /// How long a viewer has been looking.
    shown_for: Duration,
    /// When each line is shown, from the first.
    appears: Vec<Appearance>,
}

/// When a line is shown.
#[derive(Clone, Copy, Debug)]
pub struct Appearance {
    /// Since the start.
    pub at: Duration,
    /// It is typed by a user, letter by letter.
    pub is_typed: bool,
}

/// A line of the terminal, and when it is shown.
pub struct Line {
    /// Its cells, with their colours.
    pub cells: Vec<vt100::Cell>,
    /// When it is shown.
    pub appears: Appearance,
}

impl Session {
    fn open(pickupd: &Path, directory: &Path) -> Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let terminal = rustix::fs::open(
            name.as_c_str(),
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        tcsetwinsize(&terminal, Winsize { ws_row: ROWS.get(), ws_col: COLUMNS.get(), ws_xpixel: 0, ws_ypixel: 0 })?;
        let (send, printed) = channel();
        let mut master = File::from(master);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = master.read(&mut bytes) {
                if send.send(bytes.get(..count).unwrap_or_default().to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            directory: directory.to_path_buf(),
            pickupd: pickupd.canonicalize().with_context(|| format!("find {}", pickupd.display()))?,
            terminal,
            printed,
            screen: vt100::Parser::new(ROWS, COLUMNS, 0),
            shown_for: Duration::from_millis(400),
            appears: Vec::new(),
        })
    }

    /// Shows a command as if a user typed it.
    fn type_in(&mut self, shown: &str) {
        self.screen.process(format!("\x1b[1;32m$\x1b[0m {shown}\r\n").as_bytes());
        self.stamp(true);
        self.shown_for += svg::LETTER * u32::try_from(shown.len()).unwrap_or(0) + Duration::from_millis(250);
    }

    /// Starts a program with the terminal as its output.
    fn start(&self, argv: &[&str]) -> Result<Child> {
        let (name, arguments) = argv.split_first().context("a command")?;
        let program = if *name == "pickupd" { self.pickupd.as_os_str() } else { name.as_ref() };
        let output = || self.terminal.as_fd().try_clone_to_owned().map(Stdio::from);
        let mut command = Command::new(program);
        command.args(arguments).current_dir(&self.directory).env("TERM", "xterm-256color").env_remove("NO_COLOR");
        command.stdin(Stdio::null()).stdout(output()?).stderr(output()?);
        command.spawn().with_context(|| format!("start {name}"))
    }

    /// Takes what is printed, until a line says `until`, and then until nothing more comes.
    fn hear(&mut self, until: Option<&str>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let from = self.appears.len();
        let mut last = Instant::now();
        loop {
            match self.printed.recv_timeout(SILENCE) {
                Ok(bytes) => {
                    self.shown_for += last.elapsed().min(Duration::from_millis(500));
                    last = Instant::now();
                    self.screen.process(&bytes);
                    self.stamp(false);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let seen = self.texts().skip(from).any(|line| until.is_none_or(|until| line.contains(until)));
                    if seen || until.is_none() {
                        break;
                    }
                    if Instant::now() > deadline {
                        let lines: Vec<String> = self.texts().skip(from).filter(|line| !line.is_empty()).collect();
                        bail!("no line says {until:?}, but: {lines:#?}");
                    }
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the terminal is gone"),
            }
        }
        self.shown_for += READING;
        Ok(())
    }

    /// Notes when the lines above the cursor were shown first.
    fn stamp(&mut self, is_typed: bool) {
        let complete = usize::from(self.screen.screen().cursor_position().0);
        while self.appears.len() < complete {
            self.appears.push(Appearance { at: self.shown_for, is_typed });
        }
    }

    fn texts(&self) -> impl Iterator<Item = String> + '_ {
        self.screen.screen().rows(0, COLUMNS.get())
    }

    fn take(self) -> Vec<Line> {
        let screen = self.screen.screen();
        let cells = |row: usize| {
            let row = u16::try_from(row).unwrap_or(u16::MAX);
            (0..COLUMNS.get()).filter_map(|column| screen.cell(row, column).cloned()).collect()
        };
        self.appears.iter().enumerate().map(|(row, appears)| Line { cells: cells(row), appears: *appears }).collect()
    }
}
