//! What is configured: plain data in which every value is legal. Parsing lives in `config/`.
//!
//! Two dialects give the same [`Config`]: TOML, and the INI form of Zato's `pickup.conf`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod address;
mod built;
mod conflicts;
mod deployer;
mod detect;
mod document;
mod entry;
pub(crate) mod exposure;
mod file;
mod git;
mod http;
mod keys;
mod load;
mod problem;
mod process;
mod reader;
mod resolve;
mod surroundings;
mod toml;
pub(crate) mod url;
mod verify;
mod write;
mod zato;

#[cfg(test)]
mod tests;

pub use http::HttpConfig;
pub use keys::{KEYS, Key, KeySection};
pub use process::{DrainSignal, Limit, ListenAddress, ProcessConfig, Ready};
pub use surroundings::Surroundings;
pub use url::GitUrl;

/// A whole configuration: the good entries, the broken ones, and what is wrong with them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// The file it was read from, if any.
    pub file: Option<PathBuf>,
    /// The dialect the file was written in.
    pub dialect: Dialect,
    /// The `[pickup]` section.
    pub settings: Settings,
    /// Every usable `[hot-deploy.user.<name>]` entry, by name.
    pub pickups: BTreeMap<String, PickupConfig>,
    /// Every usable `[deployer.<name>]` section, by name.
    pub deployers: BTreeMap<String, DeployerConfig>,
    /// Every mistake and warning found, in file order. Entries named here by an error are not in `pickups`.
    pub problems: Vec<Problem>,
}

/// The form a configuration file is written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// The native dialect.
    #[default]
    Toml,
    /// The INI form of Zato's `pickup.conf`.
    Zato,
}

/// The `[pickup]` section: what concerns the whole engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where journal, content store and control socket live. Default: `$STATE_DIRECTORY`, else `./.pickup`.
    pub state_dir: PathBuf,
    /// The log filter of the daemon. Default: `info`.
    pub log: String,
    /// The form of the daemon's log lines. Default: `text`.
    pub log_format: LogFormat,
    /// How long finished deployments stay in the history. Default: 90 days.
    pub keep_history: Duration,
    /// How many bytes the content store may hold. Default: 10 GiB.
    pub store_max: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            state_dir: PathBuf::from(".pickup"),
            log: "info".into(),
            log_format: LogFormat::Text,
            keep_history: Duration::from_secs(90 * 24 * 60 * 60),
            store_max: 10 << 30,
        }
    }
}

/// The form of the daemon's log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// One `[hot-deploy.user.<name>]` entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PickupConfig {
    /// The free text after `hot-deploy.user.`.
    pub name: String,
    /// The directories to watch, absolute, without `.` but perhaps with `..`. None for a mirror.
    pub pickup_from: Vec<PathBuf>,
    /// Globs of what is picked up. Default: `*`.
    pub patterns: Vec<String>,
    /// What is left alone, in gitignore syntax, after the built-in list and any `.pickupignore`. Default: none.
    pub ignore: Vec<String>,
    /// Whether directories below are watched too. Default: true.
    pub recursive: bool,
    /// What counts as one artifact. Default: each file.
    pub unit: UnitKind,
    /// How long a batch waits for the next change before it closes. Default: 10 ms.
    pub quiet: Duration,
    /// How long `quiet` can hold a batch back at most; never less than `quiet`. Default: 1 s, or `quiet` if longer.
    pub quiet_max: Duration,
    /// How long size and mtime must stand still where nothing stronger proves that a file is complete. Default: 2 s.
    pub settle: Duration,
    /// Globs of files whose writers open and close them several times: for these a close proves nothing, and only
    /// `settle` counts. Default: none.
    pub settle_patterns: Vec<String>,
    /// How changes are noticed. Default: `auto`.
    pub watch: WatchMode,
    /// How often a polled directory is looked at. Default: 2 s.
    pub poll_interval: Duration,
    /// How often everything is compared again, whatever the events said. Default: 10 minutes.
    pub rescan_interval: Duration,
    /// What a removed file means. Default: `remove`.
    pub on_removed: OnRemoved,
    /// Whether the file leaves the pickup directory once it is live. Default: false.
    pub delete_after_pickup: bool,
    /// Which symlinks are followed. Default: those that stay inside the pickup directory.
    pub symlinks: Symlinks,
    /// The repository it is taken from, if it is a git pickup. Default: none.
    pub git: Option<Box<GitConfig>>,
    /// Names of deployers, in order. Default: `default`.
    pub deploy_to: Vec<String>,
    /// Whether the entry runs at all. Default: true.
    pub enabled: bool,
}

impl PickupConfig {
    /// An entry that watches `directory` (absolute) with every default.
    pub fn new(name: impl Into<String>, directory: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            pickup_from: vec![directory.into()],
            patterns: vec!["*".into()],
            ignore: Vec::new(),
            recursive: true,
            unit: UnitKind::File,
            quiet: Duration::from_millis(10),
            quiet_max: Duration::from_secs(1),
            settle: Duration::from_secs(2),
            settle_patterns: Vec::new(),
            watch: WatchMode::Auto,
            poll_interval: Duration::from_secs(2),
            rescan_interval: Duration::from_secs(600),
            on_removed: OnRemoved::Remove,
            delete_after_pickup: false,
            symlinks: Symlinks::Inside,
            git: None,
            deploy_to: vec!["default".into()],
            enabled: true,
        }
    }
}

/// The `git_…` and `auto_checkout…` keys of an entry.
///
/// With `pickup_from` the entry is a *clone*: a working tree, the user's own or one that is made there. Without, it is a
/// *mirror*: a bare repository in the state directory, shared by every entry of the same remote and access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitConfig {
    /// The repository to follow. `None` for a user's own clone: its remote `origin` counts.
    pub url: Option<GitUrl>,
    /// The branch, tag or commit. Default: what the remote's `HEAD` points to; in a user's own clone, the branch that is
    /// checked out.
    pub reference: Option<String>,
    /// The path inside the repository that is deployed, relative and without `..`. Default: all of it.
    pub subdir: Option<PathBuf>,
    /// Whether the remote is followed on a timer. Default: false.
    pub auto_checkout: bool,
    /// How often the remote is asked, give or take a tenth. Default: 30 s.
    pub auto_checkout_interval: Duration,
    /// The deadline of one whole check. Default: 120 s.
    pub timeout: Duration,
    /// How many commits are fetched; 0 for all. Default: 0.
    pub depth: u32,
    /// Whether a branch that was rewritten is refused. Default: true.
    pub fast_forward_only: bool,
    /// What speaks to the remote. Default: `libgit2`.
    pub transport: GitTransport,
    /// The user at the remote. Default: the one in the URL.
    pub username: Option<String>,
    /// The file that holds the password or token, read again at every check. Default: none.
    pub password_file: Option<PathBuf>,
    /// The file that holds the private key. Default: what the `ssh` program uses.
    pub ssh_key: Option<PathBuf>,
    /// The file that holds the accepted host keys. Default: what the `ssh` program uses.
    pub known_hosts: Option<PathBuf>,
    /// A file of certificate authorities (PEM) that are trusted besides the system's. Default: none.
    pub ca_file: Option<PathBuf>,
    /// The proxy for `http` and `https` remotes: `http://`, `https://` or `socks5://host:port`. Default: none.
    pub proxy: Option<String>,
    /// What of a commit is deployed although it is not plain files. Default: nothing.
    pub allow: BTreeSet<GitAllow>,
    /// How many files a commit may hold. Default: 100,000.
    pub files_max: usize,
    /// How many bytes a fetch may bring, and a commit's files may hold. Default: 2 GiB.
    pub size_max: u64,
}

impl Default for GitConfig {
    fn default() -> Self {
        Self {
            url: None,
            reference: None,
            subdir: None,
            auto_checkout: false,
            auto_checkout_interval: Duration::from_secs(30),
            timeout: Duration::from_secs(120),
            depth: 0,
            fast_forward_only: true,
            transport: GitTransport::Libgit2,
            username: None,
            password_file: None,
            ssh_key: None,
            known_hosts: None,
            ca_file: None,
            proxy: None,
            allow: BTreeSet::new(),
            files_max: 100_000,
            size_max: 2 << 30,
        }
    }
}

/// What speaks to a git remote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GitTransport {
    /// The library, built in.
    #[default]
    Libgit2,
    /// The `git` program: slower to start, and it knows everything that git knows.
    Cli,
}

/// What a commit may hold besides plain files: without it, such a commit is refused as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitAllow {
    /// Submodules: they are left out.
    Submodules,
    /// Pointer files of git LFS: they are deployed as they are.
    LfsPointers,
    /// Names that differ in nothing but case.
    CaseCollisions,
}

/// What counts as one artifact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitKind {
    /// Each file.
    #[default]
    File,
    /// Each entry directly below the pickup directory.
    Directory,
    /// The whole pickup directory.
    Tree,
}

/// How changes are noticed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchMode {
    /// By events, and by polling where the file system sends none.
    #[default]
    Auto,
    /// By events only.
    Native,
    /// By polling only.
    Poll,
    /// Not at all: picked up at start and on `sync`.
    Off,
}

/// What a removed file means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRemoved {
    /// It is removed where it was deployed.
    #[default]
    Remove,
    /// What was deployed stays.
    Keep,
}

/// Which symlinks are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Symlinks {
    /// Those whose target lies inside the pickup directory.
    #[default]
    Inside,
    /// All of them, wherever they lead.
    Follow,
    /// None.
    Skip,
}

/// One `[deployer.<name>]` section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployerConfig {
    /// The name `deploy_to` refers to.
    pub name: String,
    /// The kind, with the keys of that kind.
    pub kind: DeployerKind,
    /// What holds for every kind.
    pub common: DeployerCommon,
}

/// The keys that every kind of deployer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeployerCommon {
    /// The deadline of each phase. Default: 60 s.
    pub timeout: Duration,
    /// How often a failed artifact is tried again before it is quarantined. Default: 3.
    pub retry: u32,
    /// The wait before the first retry; it doubles. Default: 1 s.
    pub retry_backoff: Duration,
    /// Checks that must all pass before the old version goes. Default: none.
    pub verify: Vec<VerifyCheck>,
    /// How long the checks may take to pass. Default: 30 s.
    pub verify_timeout: Duration,
}

impl Default for DeployerCommon {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(60),
            retry: 3,
            retry_backoff: Duration::from_secs(1),
            verify: Vec::new(),
            verify_timeout: Duration::from_secs(30),
        }
    }
}

/// One check of `verify`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VerifyCheck {
    /// `tcp://host:port` accepts a connection. Holds `host:port`.
    Tcp(String),
    /// `http://…` answers 2xx. Holds the URL.
    Http(String),
    /// `exec:argv…` exits 0. Holds the arguments.
    Exec(Vec<String>),
}

/// The kinds of deployers and their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeployerKind {
    /// Atomic copies into a plain directory.
    Copy(CopyConfig),
    /// Immutable release directories behind a symlink.
    Release(ReleaseConfig),
    /// A program that is run for each change.
    Exec(ExecConfig),
    /// A supervised program.
    Process(ProcessConfig),
    /// A shared library that is loaded into this process.
    Module(ModuleConfig),
    /// A server that files are sent to.
    Http(HttpConfig),
}

/// `kind = "copy"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyConfig {
    /// The target directory, absolute; `{pickup}` expands.
    pub into: String,
    /// The mode of every deployed file, else the artifact's own. Default: none.
    pub mode: Option<u32>,
    /// `user`, `user:group` or `:group` that owns every deployed file. Default: none.
    pub owner: Option<String>,
    /// How many leading path components are left out. Default: 0.
    pub strip: usize,
    /// Whether a deployed file is on disk before it counts as live. Default: true.
    pub durable: bool,
}

/// `kind = "release"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseConfig {
    /// The directory that holds `releases/` and the link, absolute; `{pickup}` expands.
    pub into: String,
    /// How many releases are kept. Default: 5, at least 1.
    pub keep: usize,
    /// The name of the symlink to the live release. Default: `current`.
    pub link: String,
    /// Paths below the release that are symlinks into `shared/`. Default: none.
    pub shared: Vec<PathBuf>,
    /// Whether a release is on disk before it goes live. Default: true.
    pub durable: bool,
}

/// `kind = "exec"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecConfig {
    /// The program and its arguments; no shell. `{pickup}`, `{unit}` and `{generation}` expand.
    pub command: Vec<String>,
    /// Run once a unit or once a change set. Default: `unit`.
    pub per: ExecPer,
    /// Run to undo a `command` that a later step failed after. Default: none.
    pub rollback_command: Option<Vec<String>>,
    /// The working directory, absolute. Default: the configuration's directory, which parsing fills in.
    pub cwd: Option<PathBuf>,
    /// Additions to the environment. Default: none.
    pub env: BTreeMap<String, String>,
    /// What the program reads on standard input. Default: the change set as JSON.
    pub stdin: ExecStdin,
}

/// `kind = "module"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleConfig {
    /// The shared libraries a module may need besides the C library and libgcc, by the names the loader knows them by.
    /// Default: none.
    pub allow_needed: Vec<String>,
    /// Whether a module is loaded in a process of its own first. Default: true.
    pub probe: bool,
    /// How many generations of all its modules may be loaded; none is ever unloaded. Default: 64, at least 1.
    pub max_generations: usize,
    /// What each module is given at start, as it stands. Default: nothing.
    pub config: String,
}

impl Default for ModuleConfig {
    fn default() -> Self {
        Self { allow_needed: Vec::new(), probe: true, max_generations: 64, config: String::new() }
    }
}

/// How often an `exec` deployer runs its command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecPer {
    /// Once for each unit.
    #[default]
    Unit,
    /// Once for each change set.
    ChangeSet,
}

/// What an `exec` deployer's program reads on standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExecStdin {
    /// The change set as one JSON object.
    #[default]
    Json,
    /// Nothing.
    None,
}

/// One mistake or warning in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Whether the entry still runs.
    pub severity: Severity,
    /// The file, if the text came from one.
    pub file: Option<PathBuf>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The section it concerns, as written: `hot-deploy.user.my.code`, `deployer.web`, `pickup`; empty for the file.
    pub section: String,
    /// The key it concerns, if it is one.
    pub key: Option<String>,
    /// What is wrong and what was expected, as a sentence without a full stop.
    pub message: String,
    /// The nearest valid name, where a name was not known.
    pub nearest: Option<String>,
}

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Accepted, but not what somebody may expect.
    Warning,
    /// The entry is shown as broken and does not run.
    Error,
}
