//! OpenSSH's server, run as the current user with keys of its own.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PRIVATE;
use super::listener::Listener;

/// What a file of known hosts says about the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownHosts {
    /// Its key, under its address and port.
    Plain,
    /// The same, with the address hashed.
    Hashed,
    /// Another key.
    Other,
    /// Nothing.
    Empty,
}

/// Lets the current user in with one key.
pub struct Sshd {
    directory: PathBuf,
    user: String,
    listener: Listener,
}

impl Sshd {
    /// Keeps its keys below `directory`, which it makes.
    pub fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory.join("bin")).expect("make a directory");
        for name in ["host", "host_other", "key", "stranger"] {
            let path = directory.join(name);
            let mut command = Command::new("ssh-keygen");
            command.args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(path);
            assert!(command.status().expect("run ssh-keygen").success());
        }
        fs::copy(directory.join("key.pub"), directory.join("authorized_keys")).expect("copy a key");
        let path = std::env::var("PATH").expect("where programs are");
        let environment: Vec<_> = PRIVATE.iter().map(|(name, value)| format!("\"{name}={value}\"")).collect();
        let shown = directory.display();
        let configuration = format!(
            "HostKey {shown}/host\nAuthorizedKeysFile {shown}/authorized_keys\nStrictModes no\nUsePAM no\nPidFile none\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitUserRC no\nPermitRootLogin yes\n\
             SetEnv PATH={path} {}\n",
            environment.join(" ")
        );
        fs::write(directory.join("sshd_config"), configuration).expect("write a configuration");
        client(directory);
        // The system's service makes it for a server that root runs.
        let _ = fs::create_dir("/run/sshd");
        let configuration = directory.join("sshd_config");
        let listener = Listener::inetd(move || {
            // It starts itself again by its whole path.
            let mut command = Command::new("/usr/sbin/sshd");
            command.args(["-i", "-e", "-f"]).arg(&configuration).env_clear();
            command
        });
        Self { directory: directory.to_path_buf(), user: user(), listener }
    }

    /// The address of the repository at `path`.
    pub fn url(&self, path: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", self.user, self.listener.port(), path.display())
    }

    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.listener.connections()
    }

    /// The key that is let in.
    pub fn key(&self) -> PathBuf {
        self.directory.join("key")
    }

    /// A key that is not.
    pub fn stranger(&self) -> PathBuf {
        self.directory.join("stranger")
    }

    /// A file of known hosts.
    pub fn known_hosts(&self, kind: KnownHosts) -> PathBuf {
        let key = match kind {
            KnownHosts::Plain | KnownHosts::Hashed => Some("host.pub"),
            KnownHosts::Other => Some("host_other.pub"),
            KnownHosts::Empty => None,
        };
        let line = key.map(|key| {
            let key = fs::read_to_string(self.directory.join(key)).expect("read a key");
            format!("[127.0.0.1]:{} {key}", self.listener.port())
        });
        let path = self.directory.join(format!("known_hosts_{kind:?}"));
        fs::write(&path, line.unwrap_or_default()).expect("write known hosts");
        if kind == KnownHosts::Hashed {
            let output = Command::new("ssh-keygen").arg("-H").arg("-f").arg(&path).output().expect("run ssh-keygen");
            assert!(output.status.success(), "{output:?}");
        }
        path
    }

    /// From the next connection on, the server is another one, as far as anybody can tell.
    pub fn change_host_key(&self) {
        fs::rename(self.directory.join("host_other"), self.directory.join("host")).expect("exchange the key");
        fs::rename(self.directory.join("host_other.pub"), self.directory.join("host.pub")).expect("exchange the key");
    }

    /// A `PATH` on which `ssh` knows nothing of the user's own keys, hosts and configuration. It finds those by the
    /// user's name, not by `HOME`, so that a variable would not do.
    pub fn path_variable(&self) -> OsString {
        let mut path = self.directory.join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").expect("where programs are"));
        path
    }
}

/// An `ssh` that reads a configuration of ours in place of the user's; a test may add to it, and what it adds comes first.
fn client(directory: &Path) {
    let shown = directory.display();
    let configuration = format!(
        "Include {shown}/ssh_config_more\nHost *\nIdentityFile {shown}/none\nUserKnownHostsFile {shown}/none\n\
         GlobalKnownHostsFile {shown}/none\n"
    );
    fs::write(directory.join("ssh_config"), configuration).expect("write a configuration");
    let script = format!("#!/bin/sh\nexec \"{}\" -F '{shown}/ssh_config' \"$@\"\n", program("ssh").display());
    let mut options = fs::File::options();
    let mut file = options.create(true).write(true).truncate(true).mode(0o755).open(directory.join("bin/ssh"));
    std::io::Write::write_all(file.as_mut().expect("make a script"), script.as_bytes()).expect("write a script");
}

/// Where a program is.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").expect("where programs are");
    let is_program =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0);
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(is_program).expect("a program")
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().expect("run id");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}
