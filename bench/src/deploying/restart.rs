//! A server that is redeployed under load: which requests are lost, and how long anybody waits.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketType, bind, listen, socket};

use self::load::Load;
use crate::daemon::{Daemon, HEAD};
use crate::figure::{Table, Unit};
use crate::process::Process;
use crate::setting::Setting;

mod load;
mod serve;

pub use self::serve::serve;

/// How long one redeploy may take.
const CAP: Duration = Duration::from_secs(60);

/// How a new version takes over from the old one, where nobody but a script does it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The old one ends, then the new one starts and binds the address.
    StopStart,
    /// The same, but the listener stays open all the while and is inherited: socket activation.
    StopStartInherited,
    /// The new one binds the same address by SO_REUSEPORT, and once it is ready the old one ends.
    ReusePort,
}

const WAYS: [(&str, Way); 3] = [
    ("stop, then start", Way::StopStart),
    ("stop, then start, inherited listener", Way::StopStartInherited),
    ("SO_REUSEPORT, start, then stop", Way::ReusePort),
];

/// Measures.
pub fn run(setting: &Setting) -> Result<Table> {
    let redeploys = setting.size(30, 5);
    let work = format!(
        "{} clients ask a small HTTP server without a pause; it takes {} ms to start and {} ms for each request, and on SIGTERM it finishes \
         what it accepted. {redeploys} times a new version takes over. A request that gets no answer is lost; the client then waits \
         {} ms and asks again. The longest wait is that from the first time a request is made until it is answered.",
        load::CLIENTS,
        serve::START.as_millis(),
        serve::WORK.as_millis(),
        load::PAUSE.as_millis(),
    );
    let mut table = Table::new("restart", "A server redeployed under load", work);
    table.remark(
        "With SO_REUSEPORT each version has a queue of its own; what waits in the queue of the old one when it closes is dropped by the \
         kernel. With one listener that stays open there is one queue.",
    );
    for _ in 0..setting.rounds {
        for keep_alive in [false, true] {
            let load = ours(setting, redeploys, keep_alive)?;
            enter(&mut table, "pickup", keep_alive, &load);
            for (subject, way) in WAYS {
                let load = theirs(setting, redeploys, keep_alive, way)?;
                enter(&mut table, subject, keep_alive, &load);
            }
        }
    }
    Ok(table)
}

fn enter(table: &mut Table, subject: &str, keep_alive: bool, tally: &load::Tally) {
    let kind = if keep_alive { "kept connections" } else { "new connections" };
    table.add(subject, &format!("requests lost, {kind}"), Unit::Count, [tally.lost as f64]);
    table.add(subject, &format!("longest wait, {kind}"), Unit::Seconds, [tally.longest.as_secs_f64()]);
    let each = tally.span.as_secs_f64() / (tally.served as f64).max(1.0);
    table.add(subject, &format!("time for each request served, {kind}"), Unit::Seconds, [each]);
}

/// An address that is free.
fn free_address() -> Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr().context("find a free port")
}

fn ours(setting: &Setting, redeploys: usize, keep_alive: bool) -> Result<load::Tally> {
    let (ground, address) = (setting.directory("restart")?, free_address()?);
    let program = std::env::current_exe().context("find this program")?;
    let config = format!(
        "{HEAD}\n[hot-deploy.user.web]\npickup_from = \"in\"\ndeploy_to = [\"web\"]\n\n\
         [deployer.web]\nkind = \"process\"\ncommand = [\"{}\", \"serve\"]\nlisten = {{ http = \"{address}\" }}\n\
         ready = \"notify\"\nprobation = \"100ms\"\n",
        program.display()
    );
    let pickup = ground.path().join("in");
    fs::create_dir(&pickup)?;
    let daemon = Daemon::start(setting, ground.path(), &config, 1)?;
    let mut load = None;
    for version in 0..=redeploys {
        let next = ground.path().join("next");
        fs::write(&next, format!("v{version}"))?;
        fs::rename(&next, pickup.join("version"))?;
        daemon.wait_for(CAP, "a version to be live", |said| said.message == "deployed")?;
        // The old version ends in the background.
        let started = load.get_or_insert_with(|| Load::start(address, keep_alive));
        started.wait_for(load::BETWEEN)?;
    }
    let tally = load.context("no load")?.stop()?;
    daemon.stop()?;
    Ok(tally)
}

fn theirs(setting: &Setting, redeploys: usize, keep_alive: bool, way: Way) -> Result<load::Tally> {
    let (ground, address) = (setting.directory("restart")?, free_address()?);
    let listener = match way {
        Way::StopStart | Way::ReusePort => None,
        Way::StopStartInherited => Some(listener(address)?),
    };
    let mut running = start(ground.path(), 0, address, way, listener.as_ref())?;
    let load = Load::start(address, keep_alive);
    load.wait_for(load::BETWEEN)?;
    for version in 1..=redeploys {
        running = match way {
            Way::StopStart | Way::StopStartInherited => {
                running.stop()?;
                start(ground.path(), version, address, way, listener.as_ref())?
            }
            Way::ReusePort => {
                let new = start(ground.path(), version, address, way, None)?;
                running.stop()?;
                new
            }
        };
        load.wait_for(load::BETWEEN)?;
    }
    let tally = load.stop()?;
    running.stop()?;
    Ok(tally)
}

/// Starts a version and waits until it is ready.
fn start(
    ground: &Path,
    version: usize,
    address: SocketAddr,
    way: Way,
    listener: Option<&TcpListener>,
) -> Result<Process> {
    fs::write(ground.join("version"), format!("v{version}"))?;
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command.arg("serve").current_dir(ground);
    match (way, listener) {
        (Way::StopStart, _) => drop(command.arg(format!("--bind={address}"))),
        (Way::ReusePort, _) => drop(command.arg(format!("--share={address}"))),
        (Way::StopStartInherited, Some(listener)) => inherit(&mut command, listener)?,
        (Way::StopStartInherited, None) => anyhow::bail!("there is no listener"),
    }
    let process = Process::spawn(command, false)?;
    process.wait_for(CAP, "the server to be ready", |line| line == serve::READY)?;
    Ok(process)
}

/// Listens as the daemon does.
fn listener(address: SocketAddr) -> Result<TcpListener> {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).context("make a socket")?;
    set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address).context("bind a socket")?;
    listen(&socket, serve::BACKLOG).context("listen")?;
    Ok(TcpListener::from(socket))
}

/// Hands a listener over. It is open in whatever else is started meanwhile, too, which nothing here minds.
fn inherit(command: &mut Command, listener: &TcpListener) -> Result<()> {
    fcntl_setfd(listener, FdFlags::empty()).context("hand a listener over")?;
    command.arg(format!("--inherit={}", listener.as_raw_fd()));
    Ok(())
}
