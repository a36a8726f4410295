//! A module is loaded once in a process that may die of it, before it is loaded into this one.
//!
//! That process is the host's own program, started once more with an argument that makes it call [`serve_probe`]. It
//! reads one line and answers one; what the module prints meanwhile goes to the failure record.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::load::Image;
use super::reason::{Reason, Refusal};
use crate::deploy::Context;
use crate::deploy::program::{self, Program};
use crate::error::{Error, ErrorKind, Result};
use crate::path;

/// How long a probe may take.
const TIME_MAX: Duration = Duration::from_secs(10);

/// How much of its standard output is read.
const OUTPUT_MAX: usize = 1 << 20;

/// How long the line may be that asks.
const REQUEST_MAX: u64 = 1 << 20;

/// What its answer begins with: after it comes the token of the request, which no module has reason to print.
const MARK: &str = "pickup-module-probe";

#[derive(Debug, Serialize, Deserialize)]
struct Request {
    #[serde(with = "path::exact")]
    path: PathBuf,
    descriptor: Vec<u8>,
    token: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    refusal: Option<Refusal>,
}

/// Loads the copy at `path` in a process of its own, which `argv` starts.
///
/// # Errors
/// The module is refused, with its [`Refusal`] as the source; or the probe could not be started.
pub(super) async fn probe(cx: &Context, argv: &[OsString], path: &Path, descriptor: &[u8]) -> Result<()> {
    let token = blake3::hash(&[path.as_os_str().as_encoded_bytes(), descriptor].concat()).to_hex()[..32].to_owned();
    let request = Request { path: path.to_path_buf(), descriptor: descriptor.to_vec(), token: token.clone() };
    let mut line = serde_json::to_vec(&request).map_err(|error| Error::deploy("ask the probe").caused_by(error))?;
    line.push(b'\n');
    let printed = Arc::new(Mutex::new(Vec::new()));
    let program = Program {
        argv: argv.to_vec(),
        stdin: Some(line),
        stdout: Some(program::Kept { bytes: Arc::clone(&printed), most: OUTPUT_MAX }),
        ..Program::default()
    };
    let deadline = cx.deadline().min(now() + TIME_MAX);
    let ended = program.run(cx, deadline).await;
    let printed = std::mem::take(&mut *printed.lock().unwrap_or_else(PoisonError::into_inner));
    let (answer, rest) = answer(&printed, &token);
    cx.output(&rest);
    let died = |how: &str| Err(refused(Reason::Probe, format!("the process that loaded it for a test {how}")));
    match (ended, answer) {
        (Ok(status), Some(answer)) if status.success() => match answer.refusal {
            None => Ok(()),
            Some(refusal) => Err(wrapped(refusal)),
        },
        // An answer is not enough: its destructors ran after it.
        (Ok(status), Some(_)) => died(&format!("did not end well: {}", program::describe(status))),
        (Ok(status), None) if status.success() => died("ended without a word: the module called `exit`"),
        (Ok(status), None) => died(&format!("did not survive it: {}", program::describe(status))),
        (Err(error), _) if error.kind() == ErrorKind::Timeout => died("did not come to an end in time"),
        (Err(error), _) => Err(error),
    }
}

#[expect(clippy::disallowed_methods, reason = "this is a door: a program gets a deadline of its own")]
fn now() -> Instant {
    Instant::now()
}

fn refused(reason: Reason, text: String) -> Error {
    wrapped(Refusal::new(reason, text))
}

fn wrapped(refusal: Refusal) -> Error {
    Error::deploy("load it").caused_by(refusal)
}

/// The probe's answer among what was printed, and the rest of that.
fn answer(printed: &[u8], token: &str) -> (Option<Answer>, String) {
    let printed = String::from_utf8_lossy(printed);
    let mark = format!("{MARK} {token} ");
    let (answers, rest): (Vec<&str>, Vec<&str>) =
        printed.split_inclusive('\n').partition(|line| line.starts_with(&mark));
    let answer = answers.last().and_then(|line| serde_json::from_str(&line[mark.len()..]).ok());
    (answer, rest.concat())
}

/// Serves one probe: reads a request from `input`, loads what it names, and writes the answer to `output`. This is all
/// that the program does which an engine starts as its probe: `pickupd module-probe` is nothing else.
///
/// # Errors
/// There is no request, or nobody takes the answer.
pub fn serve_probe(input: impl BufRead, mut output: impl Write) -> std::io::Result<()> {
    let mut line = String::new();
    input.take(REQUEST_MAX).read_line(&mut line)?;
    let Request { path, descriptor, token } = serde_json::from_str(&line)?;
    modest();
    let judged = Image::load(&path, &descriptor).and_then(|image| image.self_test());
    let answer = serde_json::to_string(&Answer { refusal: judged.err() })?;
    // What the module printed need not end with a line.
    writeln!(output, "\n{MARK} {token} {answer}")?;
    output.flush()
}

/// Takes from this process what a module being tested does not need.
fn modest() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let most = |most| Rlimit { current: Some(most), maximum: Some(most) };
    // No dump of memory for a module that crashes, and no end of a loop but this, should our parent be killed.
    for (resource, limit) in [(Resource::Core, 0), (Resource::Cpu, TIME_MAX.as_secs())] {
        if let Err(error) = setrlimit(resource, most(limit)) {
            tracing::debug!(%error, "a limit of the probe cannot be set");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_told_from_what_the_module_prints() {
        let printed = b"hello\npickup-module-probe wrong {\"refusal\":null}\nno line\
            \npickup-module-probe 1234 {\"refusal\":{\"reason\":\"load\",\"text\":\"no\"}}\nbye";
        let (found, rest) = answer(printed, "1234");
        assert_eq!(found.unwrap().refusal, Some(Refusal::new(Reason::Load, "no")));
        assert_eq!(rest, "hello\npickup-module-probe wrong {\"refusal\":null}\nno line\nbye");
        assert!(answer(b"", "1234").0.is_none());
    }
}
