//! The daemon under measure: started on a configuration, heard, asked and stopped.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};

use crate::process::Process;
use crate::setting::Setting;

/// What a configuration begins with: the log is JSON, so that it can be read here. More keys of `[pickup]` may follow.
pub const HEAD: &str = "[pickup]\nlog_format = \"json\"\n";

/// How long a daemon may take until it watches.
const START_CAP: Duration = Duration::from_secs(600);

/// One line of the daemon's log.
#[derive(Clone, Debug)]
pub struct Said {
    /// The message: `watching`, `deployed`, `removed` …
    pub message: String,
    /// The fields beside the message: `unit`, `pickup` …
    pub fields: Map<String, Value>,
}

/// A running daemon. It is killed when the value is dropped.
pub struct Daemon {
    process: Process,
    program: PathBuf,
    directory: PathBuf,
}

impl Daemon {
    /// Writes `config`, which begins with [`HEAD`], as `pickup.conf` into `directory`, starts the daemon there, and returns
    /// without waiting for anything. The state lies in `.pickup` there unless the configuration says otherwise.
    pub fn spawn(setting: &Setting, directory: &Path, config: &str) -> Result<Self> {
        ensure!(config.starts_with(HEAD), "the configuration must begin with daemon::HEAD");
        std::fs::write(directory.join("pickup.conf"), config).context("write pickup.conf")?;
        let mut command = Command::new(&setting.pickupd);
        command.args(["run", "--config", "pickup.conf"]).current_dir(directory);
        clean(&mut command);
        let process = Process::spawn(command, true)?;
        Ok(Self { process, program: setting.pickupd.clone(), directory: directory.to_path_buf() })
    }

    /// As [`spawn`](Self::spawn), and waits until `entries` pickups watch.
    pub fn start(setting: &Setting, directory: &Path, config: &str, entries: usize) -> Result<Self> {
        let daemon = Self::spawn(setting, directory, config)?;
        for _ in 0..entries {
            daemon.wait_for(START_CAP, "the daemon to watch", |said| said.message == "watching")?;
        }
        Ok(daemon)
    }

    /// The next line of its log; `None` if there is none until `deadline`.
    ///
    /// # Errors
    /// It ended.
    pub fn said(&self, deadline: Instant) -> Result<Option<Said>> {
        Ok(self.process.line(deadline)?.map(|line| parse(&line.text)))
    }

    /// Reads its log until a line `is_it`.
    ///
    /// # Errors
    /// It ended, or there is no such line within `cap`.
    pub fn wait_for(&self, cap: Duration, what: &str, is_it: impl Fn(&Said) -> bool) -> Result<Said> {
        let line = self.process.wait_for(cap, what, |text| is_it(&parse(text)))?;
        Ok(parse(&line.text))
    }

    /// Runs `pickupd ARGUMENTS` on its configuration, such as `sync`, which is a barrier.
    ///
    /// # Errors
    /// It does not exit with 0.
    pub fn ask(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.program);
        command.args(arguments).args(["--config", "pickup.conf"]).current_dir(&self.directory);
        clean(&mut command);
        let output = command.output().context("run pickupd")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "pickupd {arguments:?}: {}: {errors}", output.status);
        Ok(output)
    }

    /// The process: its number, its signals.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The process alone.
    pub fn into_process(self) -> Process {
        self.process
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not exit with 0.
    pub fn stop(self) -> Result<()> {
        let status = self.process.stop()?;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }
}

fn clean(command: &mut Command) {
    command.env("NO_COLOR", "1").env_remove("RUST_LOG").env_remove("STATE_DIRECTORY").env_remove("NOTIFY_SOCKET");
}

fn parse(text: &str) -> Said {
    let line = serde_json::from_str::<Map<String, Value>>(text).unwrap_or_default();
    let mut fields = match line.get("fields") {
        Some(Value::Object(fields)) => fields.clone(),
        _ => Map::new(),
    };
    let message = match fields.remove("message") {
        Some(Value::String(message)) => message,
        _ => text.to_owned(),
    };
    Said { message, fields }
}
