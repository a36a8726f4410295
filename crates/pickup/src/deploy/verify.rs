//! The checks that must pass before the old version goes.
#![expect(clippy::disallowed_methods, reason = "this is the door to checks, whose attempts share a deadline")]

use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::config::VerifyCheck;
use crate::deploy::expand::Values;
use crate::deploy::program::{self, Program};
use crate::deploy::{Context, Unit};
use crate::error::{Error, Result};
use crate::tls;

/// The pause after the first attempt; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(20);

/// The longest pause between two attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long one connection attempt may take before it is made anew.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// Repeats each check until it passes; all of them together have `timeout`, and end before the phase does.
pub(crate) async fn verify(checks: &[VerifyCheck], timeout: Duration, cx: &Context, unit: &Unit) -> Result<()> {
    if checks.is_empty() {
        return Ok(());
    }
    let now = Instant::now();
    // What failed is worth more than that the phase ran out of time, so we end a little sooner than it.
    let remaining = cx.deadline().saturating_duration_since(now);
    let timeout = timeout.min(remaining - remaining / 16);
    let values = Values::new(unit, None);
    for check in checks {
        let result = tokio::select! {
            result = until_it_passes(check, &values, now + timeout, cx) => result,
            () = cx.cancelled() => Err("the work was cancelled".to_owned()),
        };
        if let Err(last) = result {
            let action = format!("verify {}: {} does not pass within {timeout:.0?}", unit.path, name(check, &values));
            return Err(Error::deploy(format!("{action}: {last}")));
        }
    }
    Ok(())
}

/// Repeats one check until it passes or `deadline` is over; fails with the last attempt's result.
pub(crate) async fn until_it_passes(
    check: &VerifyCheck,
    values: &Values,
    deadline: Instant,
    cx: &Context,
) -> std::result::Result<(), String> {
    let mut last = "no answer".to_owned();
    let mut pause = PAUSE_MIN;
    let before = cx.take_output();
    // What each of many attempts prints is the same: the last one's is enough.
    let mut printed = String::new();
    let attempts = async {
        loop {
            match attempt(check, values, deadline, cx).await {
                Ok(()) => return,
                Err(error) => last = error,
            }
            printed = cx.take_output();
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    };
    let result = tokio::time::timeout_at(deadline.into(), attempts).await;
    let cut_off = cx.take_output();
    cx.output(&before);
    cx.output(if cut_off.is_empty() { &printed } else { &cut_off });
    result.map_err(|_elapsed| last)
}

async fn attempt(
    check: &VerifyCheck,
    values: &Values,
    deadline: Instant,
    cx: &Context,
) -> std::result::Result<(), String> {
    match check {
        VerifyCheck::Tcp(address) => {
            let connect = TcpStream::connect(plain(values, address));
            match tokio::time::timeout(ATTEMPT_MAX, connect).await {
                Ok(Ok(_stream)) => Ok(()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_elapsed) => Err("no connection".into()),
            }
        }
        VerifyCheck::Http(url) => answers(&values.url(url)).await,
        VerifyCheck::Exec(argv) => {
            let argv = argv.iter().map(|argument| values.argument(argument)).collect();
            let program = Program { argv, ..Program::default() };
            match program.run(cx, deadline).await {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(program::describe(status)),
                Err(error) => Err(error.to_string()),
            }
        }
    }
}

/// Whether the server answers with 2xx. The body is not read.
async fn answers(url: &str) -> std::result::Result<(), String> {
    let client = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(ATTEMPT_MAX)
        .tls_backend_preconfigured(tls::stranger().map_err(|error| chain(&error))?)
        .build()
        .map_err(|error| chain(&error))?;
    let response = client.get(url).send().await.map_err(|error| chain(&error.without_url()))?;
    let status = response.status();
    if status.is_success() { Ok(()) } else { Err(format!("answered {status}")) }
}

/// An error with its causes: what an HTTP client says alone tells nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn plain(values: &Values, template: &str) -> String {
    values.argument(template).to_string_lossy().into_owned()
}

/// The check as it was configured, with its names filled in.
fn name(check: &VerifyCheck, values: &Values) -> String {
    match check {
        VerifyCheck::Tcp(address) => format!("tcp://{}", plain(values, address)),
        VerifyCheck::Http(url) => values.url(url),
        VerifyCheck::Exec(argv) => {
            let arguments: Vec<_> = argv.iter().map(|argument| plain(values, argument)).collect();
            format!("exec:{}", arguments.join(" "))
        }
    }
}

#[cfg(test)]
mod tests;
