//! Supervised programs: redeployed under load, crashed, ignored, and outlived.

use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::program::binary;
use crate::sandbox::Sandbox;

mod bad;
mod life;
mod load;
mod plan;
mod redeploy;
mod restart;
mod unclaimed;

/// The program that is supervised.
fn server() -> &'static PathBuf {
    static SERVER: OnceLock<PathBuf> = OnceLock::new();
    SERVER.get_or_init(|| binary("it", "pickup-serving"))
}

/// An address that is free, and that no outgoing connection takes meanwhile.
fn free_address() -> SocketAddr {
    let start = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0) % 9000;
    let mut ports = (0..9000).map(|at| 10_000 + u16::try_from((start + at) % 9000).expect("a port"));
    let free = ports.find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok()?.local_addr().ok());
    free.expect("a free port")
}

/// A sandbox whose programs end with it: when a test fails, its daemon is killed, and they would outlive that.
struct Supervised(Sandbox);

impl Deref for Supervised {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.0
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        kill_all(&self.0);
    }
}

/// Kills whatever runs in a release of this sandbox.
fn kill_all(sandbox: &Sandbox) {
    for pid in processes(sandbox) {
        let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        // It may have ended by itself.
        let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
    }
}

/// Replaces a part of the configuration.
fn edit(sandbox: &Sandbox, from: &str, to: &str) {
    let text = sandbox.read("pickup.conf").expect("a configuration");
    assert!(text.contains(from), "{text}");
    sandbox.write("pickup.conf", text.replace(from, to));
}

/// A pickup of one file, `version`, and a program that serves it at the address.
fn sandbox(keys: &str) -> (Supervised, SocketAddr) {
    let free = free_address();
    let command = server().display();
    let carried = keys.contains("carried = true");
    let port = if carried { r#", "--port={port:http}""# } else { "" };
    let keys = keys.replace("carried = true", "");
    let probation = if keys.contains("probation") { "" } else { r#"probation = "200ms""# };
    let text = format!(
        r#"
[pickup]
log_format = "json"

[hot-deploy.user.web]
pickup_from = "in"
deploy_to = ["web"]

[deployer.web]
kind = "process"
command = ["{command}"{port}]
listen = {{ http = "{free}" }}
ready = "notify"
start_timeout = "3s"
{probation}
drain_timeout = "5s"
retry = 0
{keys}
"#
    );
    (Supervised(Sandbox::new().config(&text)), free)
}

/// Drops a version in one step.
fn drop_version(sandbox: &Sandbox, text: &str) {
    sandbox.write("next", text);
    sandbox.rename("next", "in/version");
}

/// The living processes that run in a release of this sandbox.
fn processes(sandbox: &Sandbox) -> Vec<u32> {
    let top = std::fs::canonicalize(sandbox.path("")).expect("the sandbox");
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_ours = |pid: &u32| {
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd"));
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        cwd.is_ok_and(|cwd| cwd.starts_with(&top) && cwd != top) && !stat.contains(") Z ")
    };
    pids.filter(is_ours).collect()
}

/// Waits until there are so many: old versions finish in the background.
fn wait_for_processes(sandbox: &Sandbox, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while processes(sandbox).len() != count {
        assert!(Instant::now() < deadline, "{:?} run, not {count}", processes(sandbox));
        std::thread::yield_now();
    }
}
