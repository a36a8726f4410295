//! Whether an instance is ready to serve, and whether it lives through its probation.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::command;
use super::instance::Instance;
use crate::config::{ProcessConfig, Ready, VerifyCheck};
use crate::deploy::expand::Values;
use crate::deploy::{Context, verify};
use crate::error::{Error, ErrorKind, Result};

/// Waits until the instance is ready.
///
/// # Errors
/// It ended, or it was not ready in time.
pub(super) async fn ready(config: &ProcessConfig, instance: &Instance, cx: &Context) -> Result<()> {
    let start = Instant::now();
    // What failed is worth more than that the phase ran out of time.
    let latest = Instant::from_std(cx.deadline()).checked_sub(Duration::from_secs(1)).unwrap_or(start);
    let configured = start + config.start_timeout;
    let waits = async {
        said_so(config, instance, cx).await;
        answering(instance).await;
    };
    tokio::pin!(waits);
    loop {
        let extended = instance.life.borrow().extended;
        let deadline = extended.map_or(configured, |extended| extended.max(configured)).min(latest);
        tokio::select! {
            // One that was ready and ended at once ended in its probation.
            biased;
            () = &mut waits => return Ok(()),
            how = instance.ended() => {
                return Err(Error::deploy(format!("start process {}: {how} before it was ready", instance.leader)));
            }
            () = cx.cancelled() => return Err(Error::new(ErrorKind::Cancelled, "start it: the work was cancelled")),
            () = tokio::time::sleep_until(deadline) => {
                let moved = instance.life.borrow().extended != extended;
                if !moved {
                    return Err(late(config, instance, start.elapsed()));
                }
            }
        }
    }
}

fn late(config: &ProcessConfig, instance: &Instance, waited: Duration) -> Error {
    let what = match &config.ready {
        Ready::Notify => "it did not say `READY=1`".to_owned(),
        Ready::Line(line) => format!("it did not print a line with {line:?}"),
        Ready::Check(_) => "its check does not pass".to_owned(),
        Ready::After(_) => "it does not answer".to_owned(),
    };
    let status = instance.life.borrow().status.clone();
    let status = if status.is_empty() { String::new() } else { format!("; its status: {status}") };
    Error::new(ErrorKind::Timeout, format!("start process {} in {waited:.1?}: {what}{status}", instance.leader))
}

async fn said_so(config: &ProcessConfig, instance: &Instance, cx: &Context) {
    let mut life = instance.life.subscribe();
    let seen = match &config.ready {
        Ready::After(after) => return tokio::time::sleep(*after).await,
        Ready::Check(check) => return passes(check, instance, cx).await,
        Ready::Notify => life.wait_for(|life| life.is_ready).await.is_ok(),
        Ready::Line(_) => life.wait_for(|life| life.has_line).await.is_ok(),
    };
    if !seen {
        std::future::pending::<()>().await;
    }
}

async fn passes(check: &VerifyCheck, instance: &Instance, cx: &Context) {
    let fill = |text: &String| command::fill_ports(text, &instance.ports);
    let check = match check {
        VerifyCheck::Tcp(address) => VerifyCheck::Tcp(fill(address)),
        VerifyCheck::Http(url) => VerifyCheck::Http(fill(url)),
        VerifyCheck::Exec(argv) => VerifyCheck::Exec(argv.iter().map(fill).collect()),
    };
    let values: Values = command::values(&instance.spec, Some(&instance.spec.release));
    // The deadline is above us, so this one only has to be later.
    if verify::until_it_passes(&check, &values, cx.deadline(), cx).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until every port that it was told to bind answers.
async fn answering(instance: &Instance) {
    for port in instance.ports.values() {
        while TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, *port)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits until the instance has lived for as long as it has to prove itself.
///
/// # Errors
/// It ended.
pub(super) async fn probation(config: &ProcessConfig, instance: &Instance, cx: &Context) -> Result<()> {
    let latest = Instant::from_std(cx.deadline()).checked_sub(Duration::from_secs(1)).unwrap_or_else(Instant::now);
    tokio::select! {
        biased;
        how = instance.ended() => {
            Err(Error::deploy(format!("keep process {}: {how} in its probation", instance.leader)))
        }
        () = tokio::time::sleep_until((Instant::now() + config.probation).min(latest)) => Ok(()),
        () = cx.cancelled() => Err(Error::new(ErrorKind::Cancelled, "watch it: the work was cancelled")),
    }
}
