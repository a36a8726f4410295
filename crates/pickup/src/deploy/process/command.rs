//! What an instance is started with: the program's path, its arguments, its environment.
#![expect(clippy::disallowed_methods, reason = "a program inherits our environment and is looked for in `PATH`")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::listen::{self, Listeners};
use super::notification::Notify;
use super::proc::TOKEN;
use super::record::{Record, Spec};
use super::spawn::{FIRST_FD, Launch};
use super::user::User;
use crate::change::ChangeKind;
use crate::config::ProcessConfig;
use crate::deploy::Unit;
use crate::deploy::expand::Values;
use crate::deploy::program::NOT_INHERITED;
use crate::error::{Error, IoContext, Result};
use crate::path::UnitPath;

/// One instance that is about to be started.
pub(super) struct Command<'a> {
    pub(super) config: &'a ProcessConfig,
    pub(super) record: &'a Record,
    pub(super) listeners: &'a Listeners,
    /// Where it can be heard: open before it runs, for it may speak at once.
    pub(super) notify: &'a Notify,
}

impl Command<'_> {
    /// What has to be done for it.
    pub(super) fn launch(&self, output: File, pid_file: File) -> Result<Launch> {
        // Resolved: a program that looks itself up by its directory must not find its successor there.
        let cwd = std::fs::canonicalize(&self.record.spec.release).doing("run in", &self.record.spec.release)?;
        let user = self.config.user.as_deref().map(User::look_up).transpose()?;
        let handed = self.handed();
        let env = self.environment(&cwd, &handed, user.as_ref());
        let argv: Vec<OsString> = self.config.command.iter().map(|text| self.fill(text, &cwd, &handed)).collect();
        let program = argv.first().cloned().unwrap_or_default();
        let path = env.get(OsStr::new("PATH"));
        Ok(Launch {
            program: resolve(&program, &cwd, path.map(OsString::as_os_str))?,
            argv,
            env: env.into_iter().collect(),
            cwd,
            fds: handed.iter().map(|name| self.shared(name)).collect::<Result<_>>()?,
            output,
            pid_file,
            ids: user.map(|user| user.ids),
            limits: self.config.limits.iter().map(|(limit, value)| (*limit, *value)).collect(),
        })
    }

    /// The listeners that the program gets, in order.
    fn handed(&self) -> Vec<&str> {
        let carried = self.config.carried();
        self.listeners.iter().map(|(name, _)| name).filter(|name| !carried.contains(name)).collect()
    }

    fn shared(&self, name: &str) -> Result<std::os::fd::OwnedFd> {
        let found = self.listeners.iter().find(|(known, _)| *known == name);
        let (_, listener) = found.ok_or_else(|| Error::deploy(format!("find listener {name}")))?;
        listen::share(listener)
    }

    fn fill(&self, text: &str, cwd: &Path, handed: &[&str]) -> OsString {
        values(&self.record.spec, Some(cwd)).argument(&self.ports(text, handed))
    }

    /// `{fd:name}` and `{port:name}` filled in.
    fn ports(&self, text: &str, handed: &[&str]) -> String {
        let with_ports = fill_ports(text, &self.record.ports);
        (FIRST_FD..)
            .zip(handed)
            .fold(with_ports, |text, (fd, name)| text.replace(&format!("{{fd:{name}}}"), &fd.to_string()))
    }

    fn environment(&self, cwd: &Path, handed: &[&str], user: Option<&User>) -> BTreeMap<OsString, OsString> {
        let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        for name in NOT_INHERITED {
            env.remove(OsStr::new(name));
        }
        let spec = &self.record.spec;
        let mut set = |name: &str, value: OsString| drop(env.insert(name.into(), value));
        if let Some(user) = user {
            set("USER", user.name.clone().into());
            set("LOGNAME", user.name.clone().into());
            set("HOME", user.home.clone().into());
        }
        for (name, value) in &self.config.env {
            set(name, self.fill(value, cwd, handed));
        }
        set("PICKUP_NAME", spec.pickup.clone().into());
        set("PICKUP_GENERATION", spec.generation.to_string().into());
        set("PICKUP_DIGEST", spec.digest.to_string().into());
        set("PICKUP_PATH", cwd.into());
        set("PWD", cwd.into());
        set(TOKEN, self.record.token.clone().into());
        set("NOTIFY_SOCKET", self.notify.variable().into());
        if let Some(watchdog) = self.config.watchdog {
            set("WATCHDOG_USEC", watchdog.as_micros().to_string().into());
        }
        if !handed.is_empty() {
            set("LISTEN_FDS", handed.len().to_string().into());
            set("LISTEN_FDNAMES", handed.join(":").into());
        }
        env
    }
}

/// What the names in braces stand for.
pub(super) fn values(spec: &Spec, path: Option<&Path>) -> Values {
    Values::new(&unit(spec), path)
}

/// The unit as the deployment had it, as far as it is known later.
pub(super) fn unit(spec: &Spec) -> Unit {
    Unit {
        pickup: spec.pickup.clone(),
        path: UnitPath::root(),
        change: ChangeKind::Modified,
        content: None,
        previous: Some(spec.digest),
        generation: spec.generation,
        changes: std::sync::Arc::new([]),
        revision: None,
    }
}

/// `{port:name}` filled in.
pub(super) fn fill_ports(text: &str, ports: &BTreeMap<String, u16>) -> String {
    ports
        .iter()
        .fold(text.to_owned(), |text, (name, port)| text.replace(&format!("{{port:{name}}}"), &port.to_string()))
}

/// The path of the program: in the release if it has a slash, else in `PATH`.
fn resolve(program: &OsStr, cwd: &Path, path: Option<&OsStr>) -> Result<PathBuf> {
    let name = Path::new(program);
    if program.as_encoded_bytes().contains(&b'/') {
        return Ok(cwd.join(name));
    }
    let path = path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
    let is_program = |candidate: &PathBuf| {
        std::fs::metadata(candidate).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let found = std::env::split_paths(path).map(|directory| directory.join(name)).find(is_program);
    found.ok_or_else(|| Error::deploy(format!("find the program {} in PATH", name.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_in_the_release_or_in_the_path() {
        let at = Path::new("/srv/releases/7");
        assert_eq!(resolve("./server".as_ref(), at, None).unwrap(), Path::new("/srv/releases/7/./server"));
        assert_eq!(resolve("/bin/sh".as_ref(), at, None).unwrap(), Path::new("/bin/sh"));
        assert_eq!(resolve("sh".as_ref(), at, Some("/nowhere:/bin".as_ref())).unwrap(), Path::new("/bin/sh"));
        assert!(resolve("no-such-program".as_ref(), at, None).is_err());
    }

    #[test]
    fn a_port_is_filled_in_wherever_it_stands() {
        let ports = BTreeMap::from([("http".to_owned(), 8123)]);
        assert_eq!(fill_ports("--bind=127.0.0.1:{port:http} {port:x}", &ports), "--bind=127.0.0.1:8123 {port:x}");
    }
}
