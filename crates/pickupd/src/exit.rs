//! Exit codes, and how a failure is reported.

use std::io::{self, Write};
use std::process::ExitCode;

use pickup::{Error, ErrorKind};

use crate::paint::Paint;

/// The work failed.
pub const FAILED: u8 = 1;
/// Wrong usage or configuration.
pub const USAGE: u8 = 2;
/// No daemon to talk to.
pub const NO_DAEMON: u8 = 3;

/// Why the program ends with something else than 0.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    /// Empty where everything has been said.
    message: String,
}

impl Failure {
    /// A mistake in what was typed or configured.
    pub fn usage(error: &Error) -> Self {
        Self { code: USAGE, message: format!("cannot {error}") }
    }

    /// One that is reported already.
    pub fn reported(code: u8) -> Self {
        Self { code, message: String::new() }
    }

    /// Says what went wrong, and gives the exit code.
    pub fn report(self, paint: Paint) -> ExitCode {
        if !self.message.is_empty() {
            // Where nobody can be told, the exit code is all there is.
            let _ = writeln!(io::stderr(), "{} {}", paint.bad("error:"), self.message);
        }
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Config | ErrorKind::NotFound => USAGE,
            ErrorKind::NoDaemon => NO_DAEMON,
            _ => FAILED,
        };
        let hint = match error.kind() {
            ErrorKind::NoDaemon => "; start one with `pickupd run`",
            _ => "",
        };
        Self { code, message: format!("cannot {error}{hint}") }
    }
}

/// Prints `text`. A reader that has seen enough, such as `head`, ends the program quietly.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::reported(0),
        _ => Failure { code: FAILED, message: format!("cannot write to standard output: {error}") },
    })
}

/// Prints `value` as JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|error| Failure { code: FAILED, message: format!("cannot write JSON: {error}") })?;
    print(&format!("{}\n", crate::paint::harmless(&text)))
}

/// 0, or 1 if the work failed.
pub fn code(is_success: bool) -> ExitCode {
    if is_success { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}
