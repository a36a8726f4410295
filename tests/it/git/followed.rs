//! A repository on a web server, and a configuration that follows it.

use std::fs;

use rustix::process::Pid;
use serde_json::Value;

use crate::daemon::{Daemon, Line};
use crate::remote::{HttpServer, Upstream};
use crate::sandbox::Sandbox;

/// What is said when a commit was brought in.
pub const SEEN: &str = "commit seen";
/// What is said when the remote cannot be asked, or its commit cannot be used.
pub const UNFOLLOWED: &str = "cannot follow the repository; what is live stays";
/// What is said when that is over.
pub const FOLLOWED: &str = "the repository can be followed again";
/// What is said of a deployment that failed.
pub const FAILED: &str = "failed; the old version stays";
/// What is said when the configuration was read again.
pub const READ: &str = "configuration read again";

/// On a timer that does not go off while a test runs: only `sync` and signals ask.
pub const RARELY: &str = "auto_checkout = true\nauto_checkout_interval = \"1h\"";
/// On a timer that is faster than any test.
pub const OFTEN: &str = "auto_checkout = true\nauto_checkout_interval = \"50ms\"";

/// A copier into `deployed/{pickup}` under the name `copy`.
const COPY: &str = "[deployer.copy]\nkind = \"copy\"\ninto = \"deployed/{pickup}\"\ndurable = false\n";

/// A repository that others push to, and the sandbox in which it is followed.
pub struct Followed {
    /// Ends before the directory is removed that it serves.
    pub server: HttpServer,
    pub sandbox: Sandbox,
    /// Holds the file `a`, as `one`, in its only commit.
    pub upstream: Upstream,
    pub first: String,
}

impl Followed {
    /// The entry `p` follows it as a mirror, with these keys.
    pub fn new(keys: &str) -> Self {
        let sandbox = Sandbox::new();
        let upstream = Upstream::new(&sandbox.path("served"), "a.git");
        let first = upstream.commit(&[("a", "one")]);
        let server = HttpServer::new(&sandbox.path("served"));
        let followed = Self { server, sandbox, upstream, first };
        followed.configure(keys);
        followed
    }

    /// The entry `p` follows it as a clone in `in`, with these keys.
    pub fn clone_in(keys: &str) -> Self {
        Self::new(&format!("pickup_from = \"in\"\n{keys}"))
    }

    /// The address of the repository.
    pub fn url(&self) -> String {
        self.server.url("a.git")
    }

    /// The entry `name`, with these keys, copied to `deployed/{name}`.
    pub fn entry(name: &str, keys: &str) -> String {
        let deploy_to = if keys.contains("deploy_to") { "" } else { "deploy_to = [\"copy\"]\n" };
        format!("[hot-deploy.user.{name}]\n{keys}\n{deploy_to}\n")
    }

    /// As [`new`](Self::new), for a sandbox that is there. A running daemon reads it by itself.
    pub fn configure(&self, keys: &str) {
        self.configure_entries(&Self::entry("p", &format!("git_url = \"{}\"\n{keys}", self.url())));
    }

    /// These entries, and the copier.
    pub fn configure_entries(&self, entries: &str) {
        let text = format!("[pickup]\nlog_format = \"json\"\n\n{entries}\n{COPY}");
        self.sandbox.write("pickup.conf.new", text);
        self.sandbox.rename("pickup.conf.new", "pickup.conf");
    }

    /// Changes the keys of `p` while the daemon runs, and waits until that was read and worked off.
    #[track_caller]
    pub fn reconfigure(&self, daemon: &Daemon, keys: &str) {
        let before = said(daemon, READ);
        self.configure(keys);
        daemon.wait_until(READ, |log| log.lines.iter().filter(|line| line.message == READ).count() > before);
        daemon.sync();
    }

    /// What `status --json` says of `p`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let entries = json(&self.sandbox, ["status", "--json"]);
        let mut entries = entries.as_array().expect("a list of entries").iter();
        entries.find(|entry| entry["name"] == "p").expect("the entry `p`").clone()
    }

    /// What it says of the repository of `p`.
    #[track_caller]
    pub fn git(&self) -> Value {
        self.status()["git"].clone()
    }

    /// Why `p` cannot be followed; empty if it can.
    #[track_caller]
    pub fn problem(&self) -> String {
        self.git()["problem"]["cause"].as_str().unwrap_or_default().to_owned()
    }

    /// The deployments of `p`, newest first.
    #[track_caller]
    pub fn history(&self) -> Vec<Value> {
        json(&self.sandbox, ["history", "p", "--json"]).as_array().expect("a list of deployments").clone()
    }

    /// Fails unless exactly these files are deployed by `p`, with this in them.
    #[track_caller]
    pub fn holds<const N: usize>(&self, daemon: &Daemon, files: [(&str, &str); N]) {
        let deployed = self.sandbox.deployed();
        let shown: Vec<_> = deployed.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect();
        assert_eq!(shown, files, "the daemon said:\n{}", daemon.said());
    }
}

/// What a command answers with `--json`.
#[track_caller]
pub fn json<const N: usize>(sandbox: &Sandbox, arguments: [&str; N]) -> Value {
    serde_json::from_slice(&sandbox.ask(arguments).stdout).expect("JSON")
}

/// How often the daemon said `message`.
pub fn said(daemon: &Daemon, message: &str) -> usize {
    daemon.log(|log| log.lines.iter().filter(|line| line.message == message).count())
}

/// Waits until the daemon said `message` this often, and gives the last of those lines.
#[track_caller]
pub fn nth(daemon: &Daemon, message: &str, times: usize) -> Line {
    let mut found = None;
    daemon.wait_until(&format!("`{message}` {times} times"), |log| {
        found = log.lines.iter().filter(|line| line.message == message).nth(times - 1).cloned();
        found.is_some()
    });
    found.expect("it was found")
}

/// The git workers of the daemon that run now.
pub fn workers(daemon: &Daemon) -> Vec<Pid> {
    let children = fs::read_dir("/proc").expect("list processes").flatten().filter_map(|entry| {
        let id: i32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = status.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok()?;
        (parent == daemon.id()).then(|| Pid::from_raw(id)).flatten()
    });
    children.collect()
}
