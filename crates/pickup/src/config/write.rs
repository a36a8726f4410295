//! A configuration in, TOML text out that means the same.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::entry::{ON_REMOVED, SYMLINKS, UNITS, WATCHES};
use super::keys::{self, KeySection};
use super::resolve::LOG_FORMATS;
use super::{
    Config, CopyConfig, DeployerCommon, DeployerConfig, DeployerKind, ExecConfig, GitConfig, HttpConfig, ModuleConfig,
    PickupConfig, ProcessConfig, ReleaseConfig, Settings, address, deployer, git, process, verify,
};

impl Config {
    /// The same configuration as TOML: paths in full, defaults left out. It parses back to an equal one, except that a
    /// path that is not UTF-8 cannot be written and becomes one that is.
    pub fn to_toml(&self) -> String {
        let mut text = Writer::default();
        text.settings(&self.settings);
        for deployer in self.deployers.values() {
            text.deployer(deployer);
        }
        for pickup in self.pickups.values() {
            text.pickup(pickup);
        }
        if self.pickups.is_empty() {
            // Without it, the default entry would come up.
            text.line("\n[hot-deploy]");
        }
        text.0
    }
}

#[derive(Default)]
struct Writer(String);

impl Writer {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn key(&mut self, key: &str, value: impl AsRef<str>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{key} = {}", value.as_ref());
    }

    fn key_unless<T: PartialEq>(&mut self, key: &str, value: &T, default: &T, write: impl Fn(&T) -> String) {
        if value != default {
            self.key(key, write(value));
        }
    }

    fn settings(&mut self, settings: &Settings) {
        let default = Settings::default();
        self.line("[pickup]");
        self.key("state_dir", path(&settings.state_dir));
        self.key_unless("log", &settings.log, &default.log, |log| quoted(log));
        self.key_unless("log_format", &settings.log_format, &default.log_format, |format| chosen(*format, LOG_FORMATS));
        self.key_unless("keep_history", &settings.keep_history, &default.keep_history, duration);
        self.key_unless("store_max", &settings.store_max, &default.store_max, |bytes| size(*bytes));
    }

    fn pickup(&mut self, pickup: &PickupConfig) {
        let default = PickupConfig::new("", "");
        self.line(&format!("\n[hot-deploy.user.{}]", pickup_name(&pickup.name)));
        let directories: Vec<_> = pickup.pickup_from.iter().map(|directory| path(directory)).collect();
        match directories.as_slice() {
            // A mirror has none.
            [] if pickup.git.is_some() => {}
            [directory] => self.key("pickup_from", directory),
            directories => self.key("pickup_from", format!("[{}]", directories.join(", "))),
        }
        self.key_unless("patterns", &pickup.patterns, &default.patterns, |texts| list(texts));
        self.key_unless("ignore", &pickup.ignore, &default.ignore, |texts| list(texts));
        self.key_unless("recursive", &pickup.recursive, &default.recursive, bool::to_string);
        self.key_unless("unit", &pickup.unit, &default.unit, |unit| chosen(*unit, UNITS));
        if (pickup.quiet, pickup.quiet_max) != (default.quiet, default.quiet_max) {
            self.key("quiet", duration(&pickup.quiet));
            self.key("quiet_max", duration(&pickup.quiet_max));
        }
        self.key_unless("settle", &pickup.settle, &default.settle, duration);
        self.key_unless("settle_patterns", &pickup.settle_patterns, &default.settle_patterns, |texts| list(texts));
        self.key_unless("watch", &pickup.watch, &default.watch, |watch| chosen(*watch, WATCHES));
        self.key_unless("poll_interval", &pickup.poll_interval, &default.poll_interval, duration);
        self.key_unless("rescan_interval", &pickup.rescan_interval, &default.rescan_interval, duration);
        self.key_unless("on_removed", &pickup.on_removed, &default.on_removed, |removed| chosen(*removed, ON_REMOVED));
        self.key_unless("delete_after_pickup", &pickup.delete_after_pickup, &false, bool::to_string);
        self.key_unless("symlinks", &pickup.symlinks, &default.symlinks, |symlinks| chosen(*symlinks, SYMLINKS));
        if let Some(git) = &pickup.git {
            self.git(git);
        }
        self.key_unless("deploy_to", &pickup.deploy_to, &default.deploy_to, |texts| list(texts));
        self.key_unless("enabled", &pickup.enabled, &true, bool::to_string);
    }

    fn git(&mut self, git: &GitConfig) {
        let default = GitConfig::default();
        let path_key = |text: &mut Self, key, file: &Option<PathBuf>| {
            if let Some(file) = file {
                text.key(key, path(file));
            }
        };
        let text_key = |writer: &mut Self, key, text: &Option<String>| {
            if let Some(text) = text {
                writer.key(key, quoted(text));
            }
        };
        if let Some(url) = &git.url {
            self.key("git_url", quoted(&address::write(url)));
        }
        text_key(self, "git_ref", &git.reference);
        if let Some(subdir) = &git.subdir {
            self.key("git_subdir", quoted(&subdir.to_string_lossy()));
        }
        // One key at least says that this is a git entry.
        self.key("auto_checkout", git.auto_checkout.to_string());
        let (interval, usual) = (&git.auto_checkout_interval, &default.auto_checkout_interval);
        self.key_unless("auto_checkout_interval", interval, usual, duration);
        self.key_unless("git_timeout", &git.timeout, &default.timeout, duration);
        self.key_unless("git_depth", &git.depth, &default.depth, u32::to_string);
        self.key_unless("git_fast_forward_only", &git.fast_forward_only, &true, bool::to_string);
        self.key_unless("git_transport", &git.transport, &default.transport, |kind| chosen(*kind, git::TRANSPORTS));
        text_key(self, "git_username", &git.username);
        path_key(self, "git_password_file", &git.password_file);
        path_key(self, "git_ssh_key", &git.ssh_key);
        path_key(self, "git_known_hosts", &git.known_hosts);
        path_key(self, "git_ca_file", &git.ca_file);
        text_key(self, "git_proxy", &git.proxy);
        if !git.allow.is_empty() {
            let names: Vec<_> = git.allow.iter().map(|allowed| chosen(*allowed, git::ALLOWED)).collect();
            self.key("git_allow", format!("[{}]", names.join(", ")));
        }
        self.key_unless("git_files_max", &git.files_max, &default.files_max, usize::to_string);
        self.key_unless("git_size_max", &git.size_max, &default.size_max, |bytes| size(*bytes));
    }

    fn deployer(&mut self, deployer: &DeployerConfig) {
        self.line(&format!("\n[deployer.{}]", key(&deployer.name)));
        match &deployer.kind {
            DeployerKind::Copy(copy) => self.copy(copy),
            DeployerKind::Release(release) => self.release(release),
            DeployerKind::Exec(exec) => self.exec(exec),
            DeployerKind::Process(process) => self.process(process),
            DeployerKind::Module(module) => self.module(module),
            DeployerKind::Http(http) => self.http(http),
        }
        let (common, default) = (&deployer.common, DeployerCommon::default());
        self.key_unless("timeout", &common.timeout, &default.timeout, duration);
        self.key_unless("retry", &common.retry, &default.retry, u32::to_string);
        self.key_unless("retry_backoff", &common.retry_backoff, &default.retry_backoff, duration);
        let checks: Vec<_> = common.verify.iter().map(verify::write).collect();
        self.key_unless("verify", &checks, &Vec::new(), |checks| list(checks));
        self.key_unless("verify_timeout", &common.verify_timeout, &default.verify_timeout, duration);
    }

    fn copy(&mut self, copy: &CopyConfig) {
        self.key("kind", quoted("copy"));
        self.key("into", path(Path::new(&copy.into)));
        if let Some(mode) = copy.mode {
            self.key("mode", quoted(&format!("{mode:04o}")));
        }
        if let Some(owner) = &copy.owner {
            self.key("owner", quoted(owner));
        }
        self.key_unless("strip", &copy.strip, &0, usize::to_string);
        self.key_unless("durable", &copy.durable, &true, bool::to_string);
    }

    fn release(&mut self, release: &ReleaseConfig) {
        self.key("kind", quoted("release"));
        self.key("into", path(Path::new(&release.into)));
        self.key_unless("keep", &release.keep, &5, usize::to_string);
        self.key_unless("link", &release.link, &"current".into(), |link| quoted(link));
        let shared: Vec<_> = release.shared.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        self.key_unless("shared", &shared, &Vec::new(), |texts| list(texts));
        self.key_unless("durable", &release.durable, &true, bool::to_string);
    }

    fn exec(&mut self, exec: &ExecConfig) {
        self.key("kind", quoted("exec"));
        self.key("command", list(&exec.command));
        self.key_unless("per", &exec.per, &super::ExecPer::Unit, |per| chosen(*per, deployer::PERS));
        if let Some(command) = &exec.rollback_command {
            self.key("rollback_command", list(command));
        }
        if let Some(cwd) = &exec.cwd {
            self.key("cwd", path(cwd));
        }
        self.pairs("env", exec.env.iter().map(|(name, value)| (name.as_str(), quoted(value))));
        self.key_unless("stdin", &exec.stdin, &super::ExecStdin::Json, |stdin| chosen(*stdin, deployer::STDINS));
    }

    fn module(&mut self, module: &ModuleConfig) {
        let default = ModuleConfig::default();
        self.key("kind", quoted("module"));
        self.key_unless("allow_needed", &module.allow_needed, &default.allow_needed, |texts| list(texts));
        self.key_unless("probe", &module.probe, &default.probe, bool::to_string);
        self.key_unless("max_generations", &module.max_generations, &default.max_generations, usize::to_string);
        self.key_unless("config", &module.config, &default.config, |text| quoted(text));
    }

    fn http(&mut self, http: &HttpConfig) {
        let default = HttpConfig::new("");
        self.key("kind", quoted("http"));
        self.key("url", quoted(&http.url));
        if let Some(remove_url) = &http.remove_url {
            self.key("remove_url", quoted(remove_url));
        }
        self.key_unless("method", &http.method, &default.method, |text| quoted(text));
        self.key_unless("remove_method", &http.remove_method, &default.remove_method, |text| quoted(text));
        self.pairs("headers", http.headers.iter().map(|(name, value)| (name.as_str(), quoted(value))));
        self.key_unless("expect", &http.expect, &default.expect, |texts| list(texts));
        self.key_unless("remove_expect", &http.remove_expect, &default.remove_expect, |texts| list(texts));
        if let Some(username) = &http.username {
            self.key("username", quoted(username));
        }
        let files =
            [("password_file", &http.password_file), ("bearer_file", &http.bearer_file), ("ca_file", &http.ca_file)];
        for (name, file) in files {
            if let Some(file) = file {
                self.key(name, path(file));
            }
        }
    }

    fn process(&mut self, process: &ProcessConfig) {
        let default = ProcessConfig::new(Vec::new());
        self.key("kind", quoted("process"));
        self.key("command", list(&process.command));
        if let Some(into) = &process.into {
            self.key("into", path(Path::new(into)));
        }
        self.pairs("listen", process.listen.iter().map(|(name, at)| (name.as_str(), quoted(&at.to_string()))));
        self.key_unless("ready", &process.ready, &default.ready, |ready| quoted(&process::write_ready(ready)));
        self.key_unless("start_timeout", &process.start_timeout, &default.start_timeout, duration);
        self.key_unless("probation", &process.probation, &default.probation, duration);
        let signal = |signal: &super::DrainSignal| chosen(*signal, process::SIGNALS);
        self.key_unless("drain_signal", &process.drain_signal, &default.drain_signal, signal);
        self.key_unless("drain_timeout", &process.drain_timeout, &default.drain_timeout, duration);
        self.key_unless("overlap", &process.overlap, &default.overlap, bool::to_string);
        self.pairs("env", process.env.iter().map(|(name, value)| (name.as_str(), quoted(value))));
        if let Some(user) = &process.user {
            self.key("user", quoted(user));
        }
        let name = |limit| process::LIMITS.iter().find(|(_, known)| *known == limit).map_or("", |(name, _)| *name);
        self.pairs("limits", process.limits.iter().map(|(limit, value)| (name(*limit), quoted(&value.to_string()))));
        self.key_unless("restart_max", &process.restart_max, &default.restart_max, u32::to_string);
        if let Some(watchdog) = &process.watchdog {
            self.key("watchdog", duration(watchdog));
        }
        self.key_unless("health_interval", &process.health_interval, &default.health_interval, duration);
        self.key_unless("keep_running", &process.keep_running, &default.keep_running, bool::to_string);
    }

    fn pairs<'a>(&mut self, name: &str, pairs: impl Iterator<Item = (&'a str, String)>) {
        let pairs: Vec<_> = pairs.map(|(name, value)| format!("{} = {value}", key(name))).collect();
        if !pairs.is_empty() {
            self.key(name, format!("{{ {} }}", pairs.join(", ")));
        }
    }
}

/// The name under which `value` is written.
fn chosen<T: Copy + PartialEq>(value: T, choices: &[(&str, T)]) -> String {
    quoted(choices.iter().find(|(_, choice)| *choice == value).map_or("", |(name, _)| name))
}

/// The part of a header after `hot-deploy.user.`: bare where that cannot be mistaken for a key of another entry.
fn pickup_name(name: &str) -> String {
    let is_part =
        |part: &str| is_bare(part) && !keys::names(&[KeySection::Entry, KeySection::Git]).any(|known| known == part);
    let can_be_bare = name.split('.').count() <= 8 && name.split('.').all(is_part);
    if can_be_bare { name.to_owned() } else { quoted(name) }
}

fn key(name: &str) -> String {
    if is_bare(name) { name.to_owned() } else { quoted(name) }
}

fn is_bare(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// `text` as a TOML string of one line.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.extend(format!("\\u{:04X}", u32::from(c)).chars()),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

fn list(texts: &[String]) -> String {
    let texts: Vec<_> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(", "))
}

/// A path as text in which nothing expands.
fn path(path: &Path) -> String {
    quoted(&path.to_string_lossy().replace('$', "$$"))
}

/// A duration in the largest unit that leaves no fraction.
fn duration(duration: &Duration) -> String {
    const UNITS: [(u128, &str); 7] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let nanos = duration.as_nanos();
    let unit = UNITS.iter().find(|(unit, _)| nanos > 0 && nanos.is_multiple_of(*unit));
    quoted(&unit.map_or("0s".to_owned(), |(unit, name)| format!("{}{name}", nanos / unit)))
}

/// A size in the largest unit that leaves no fraction; plain bytes are a number.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = UNITS.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    unit.map_or(bytes.to_string(), |(unit, name)| quoted(&format!("{}{name}", bytes / unit)))
}
