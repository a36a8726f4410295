//! What a service manager is told.

use std::os::unix::net::UnixDatagram;

use rustix::process::Signal;

use crate::sandbox::{CAP, Daemon, Sandbox};

/// Waits for a datagram with the line `wanted`; gives all its lines.
fn told(manager: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted} ({error}); told: {seen:?}"));
        let lines: Vec<String> = String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect();
        if lines.iter().any(|line| line == wanted) {
            return lines;
        }
        seen.push(lines);
    }
}

#[test]
fn systemd_is_told_each_step() {
    let sandbox = Sandbox::new();
    let manager = UnixDatagram::bind(sandbox.path("notify")).unwrap();
    manager.set_read_timeout(Some(CAP)).unwrap();
    let mut command = sandbox.command(&["run"]);
    command.env("NOTIFY_SOCKET", sandbox.path("notify")).env("WATCHDOG_USEC", "200000");
    let mut daemon = Daemon::spawn(command);
    told(&manager, "READY=1");
    told(&manager, "WATCHDOG=1");
    told(&manager, "WATCHDOG=1");
    sandbox.file("in/a.py", "one");
    told(&manager, "STATUS=1 entry: 1 live");
    daemon.signal(Signal::HUP);
    let reloading = told(&manager, "RELOADING=1");
    assert!(reloading.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{reloading:?}");
    told(&manager, "READY=1");
    daemon.signal(Signal::TERM);
    told(&manager, "STOPPING=1");
    assert_eq!(daemon.wait().code(), Some(0));
}
