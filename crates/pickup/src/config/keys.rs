//! Every key there is: its section, its default and its meaning. Checks, suggestions and the reference page use it.

/// One key of the configuration, for a reference page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its default as TOML, or empty if it has none.
    pub default: &'static str,
    /// What it means, in one line.
    pub doc: &'static str,
}

/// The section that a [`Key`] belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySection {
    /// `[pickup]`.
    Settings,
    /// `[hot-deploy.user.<name>]`.
    Entry,
    /// `[hot-deploy.user.<name>]` that follows a repository.
    Git,
    /// `[deployer.<name>]` of every kind.
    Deployer,
    /// `kind = "copy"`.
    Copy,
    /// `kind = "release"`.
    Release,
    /// `kind = "exec"`.
    Exec,
    /// `kind = "process"`.
    Process,
    /// `kind = "module"`.
    Module,
    /// `kind = "http"`.
    Http,
}

impl KeySection {
    /// The section of the keys that only deployers of `kind` have.
    pub(crate) fn of_kind(kind: &str) -> Option<Self> {
        match kind {
            "copy" => Some(Self::Copy),
            "release" => Some(Self::Release),
            "exec" => Some(Self::Exec),
            "process" => Some(Self::Process),
            "module" => Some(Self::Module),
            "http" => Some(Self::Http),
            _ => None,
        }
    }

    /// The `kind` whose keys these are.
    pub(crate) fn kind(self) -> Option<&'static str> {
        match self {
            Self::Settings | Self::Entry | Self::Git | Self::Deployer => None,
            Self::Copy => Some("copy"),
            Self::Release => Some("release"),
            Self::Exec => Some("exec"),
            Self::Process => Some("process"),
            Self::Module => Some("module"),
            Self::Http => Some("http"),
        }
    }
}

/// The names of the keys of `sections`.
pub(crate) fn names(sections: &[KeySection]) -> impl Iterator<Item = &'static str> {
    let groups = KEYS.iter().filter(move |(section, _)| sections.contains(section));
    groups.flat_map(|(_, keys)| keys.iter().map(|key| key.name))
}

/// Keys of Zato's own, and what to do instead. They are accepted in the Zato dialect, with a warning.
pub(crate) const ZATO_KEYS: &[(&str, &str)] = &[
    ("binary_file_patterns", "every file is deployed byte for byte"),
    ("data_encoding", "every file is deployed byte for byte"),
    ("delete_after_pick_up", "the key here is `delete_after_pickup`"),
    ("deploy_in_place", "name a deployer in `deploy_to` instead"),
    ("is_case_sensitive", "`patterns` are case-sensitive; write `*.[pP][yY]` for both cases"),
    ("is_line_by_line", "every file is deployed as a whole"),
    ("is_recursive", "the key here is `recursive`"),
    ("move_processed_to", "use a `copy` deployer with `into`, and `delete_after_pickup`"),
    ("parse_on_pickup", "files are not parsed; use an `exec` deployer"),
    ("parse_with", "files are not parsed; use an `exec` deployer"),
    ("read_on_pickup", "every file is read"),
    ("services", "use an `exec` deployer to call a program for each file"),
    ("topic_list", "use an `exec` deployer to publish each file"),
    ("topics", "use an `exec` deployer to publish each file"),
];

const fn key(name: &'static str, default: &'static str, doc: &'static str) -> Key {
    Key { name, default, doc }
}

/// Every key there is, section by section.
pub const KEYS: &[(KeySection, &[Key])] = &[
    (KeySection::Settings, SETTINGS),
    (KeySection::Entry, ENTRY),
    (KeySection::Git, GIT),
    (KeySection::Deployer, DEPLOYER),
    (KeySection::Copy, COPY),
    (KeySection::Release, RELEASE),
    (KeySection::Exec, EXEC),
    (KeySection::Process, PROCESS),
    (KeySection::Module, MODULE),
    (KeySection::Http, HTTP),
];

const SETTINGS: &[Key] = &[
    key(
        "state_dir",
        "\"./.pickup\"",
        "Where journal, content store and control socket live; `$STATE_DIRECTORY` if that is set.",
    ),
    key("log", "\"info\"", "The log filter of the daemon."),
    key("log_format", "\"text\"", "The form of log lines: `text` or `json`."),
    key("keep_history", "\"90d\"", "How long finished deployments stay in the history."),
    key("store_max", "\"10GiB\"", "How much the content store may hold."),
];

const ENTRY: &[Key] = &[
    key("pickup_from", "", "The directories to watch: a path or a list. A missing one is waited for."),
    key("patterns", "[\"*\"]", "Globs of what is picked up; with `/` they match the path, else the file name."),
    key("ignore", "[]", "What is left alone, in gitignore syntax, after the built-in list."),
    key("recursive", "true", "Whether directories below are watched too."),
    key("unit", "\"file\"", "What counts as one artifact: `file`, `directory` or `tree`."),
    key("quiet", "\"10ms\"", "How long a batch waits for the next change before it closes."),
    key("quiet_max", "\"1s\"", "How long `quiet` can hold a batch back at most."),
    key("settle", "\"2s\"", "How long a file must stand still where nothing stronger proves it complete."),
    key("settle_patterns", "[]", "Globs of files that are opened and closed several times: only `settle` counts."),
    key("watch", "\"auto\"", "How changes are noticed: `auto`, `native`, `poll` or `off`."),
    key("poll_interval", "\"2s\"", "How often a polled directory is looked at."),
    key("rescan_interval", "\"10m\"", "How often everything is compared again, whatever the events said."),
    key("on_removed", "\"remove\"", "Whether a removed file is removed where it was deployed: `remove` or `keep`."),
    key("delete_after_pickup", "false", "Whether a file leaves the pickup directory once it is live."),
    key(
        "symlinks",
        "\"inside\"",
        "Which symlinks are followed: those that stay `inside`, all (`follow`), none (`skip`).",
    ),
    key("deploy_to", "[\"default\"]", "Names of deployers, in order."),
    key("enabled", "true", "Whether the entry runs at all."),
];

const GIT: &[Key] = &[
    key("git_url", "", "The repository to follow. With `pickup_from`: a clone there. Without: a mirror of our own."),
    key("git_ref", "", "The branch, tag or full commit id; else what the remote's `HEAD` points to."),
    key("git_subdir", "", "The path inside the repository that is deployed; else all of it."),
    key("auto_checkout", "false", "Whether the remote is followed on a timer; else at start and on `sync` only."),
    key("auto_checkout_interval", "\"30s\"", "How often the remote is asked, give or take a tenth."),
    key("git_timeout", "\"120s\"", "The deadline of one whole check."),
    key("git_depth", "0", "How many commits are fetched; 0 for all."),
    key("git_fast_forward_only", "true", "Whether a rewritten branch is refused and reported."),
    key("git_transport", "\"libgit2\"", "What speaks to the remote: `libgit2`, built in, or `cli`, the `git` program."),
    key("git_username", "", "The user at the remote; else the one in the URL."),
    key("git_password_file", "", "The file that holds the password or token; read again at every check."),
    key("git_ssh_key", "", "The file that holds the private key; else what the `ssh` program uses."),
    key("git_known_hosts", "", "The file that holds the accepted host keys; else what the `ssh` program uses."),
    key("git_ca_file", "", "A file of certificate authorities (PEM), trusted besides the system's."),
    key("git_proxy", "", "The proxy for `http` and `https`: `http://`, `https://` or `socks5://host:port`."),
    key(
        "git_allow",
        "[]",
        "What is let through although a commit with it is refused: `submodules`, `lfs_pointers`, `case_collisions`.",
    ),
    key("git_files_max", "100000", "How many files a commit may hold."),
    key("git_size_max", "\"2GiB\"", "How many bytes a fetch may bring, and a commit's files may hold."),
];

const DEPLOYER: &[Key] = &[
    key("kind", "", "What kind of deployer this is: `copy`, `release`, `exec`, `process`, `module` or `http`."),
    key("timeout", "\"60s\"", "The deadline of each phase."),
    key("retry", "3", "How often a failed artifact is tried again before it is quarantined."),
    key("retry_backoff", "\"1s\"", "The wait before the first retry; it doubles."),
    key("verify", "[]", "Checks that must pass before the old version goes: `tcp://`, `http://`, `exec:`."),
    key("verify_timeout", "\"30s\"", "How long the checks may take to pass."),
];

const COPY: &[Key] = &[
    key("into", "", "The target directory; `{pickup}` expands."),
    key("mode", "", "The mode of every deployed file, such as \"0644\"; else the artifact's own."),
    key("owner", "", "`user`, `user:group` or `:group` that owns every deployed file."),
    key("strip", "0", "How many leading path components are left out."),
    key("durable", "true", "Whether a deployed file is on disk before it counts as live."),
];

const RELEASE: &[Key] = &[
    key("into", "", "The directory that holds `releases/` and the link; `{pickup}` expands."),
    key("keep", "5", "How many releases are kept."),
    key("link", "\"current\"", "The name of the symlink to the live release."),
    key("shared", "[]", "Paths below the release that are symlinks into `shared/`."),
    key("durable", "true", "Whether a release is on disk before it goes live."),
];

const EXEC: &[Key] = &[
    key("command", "", "The program and its arguments; no shell. `{pickup}`, `{unit}`, `{generation}` expand."),
    key("per", "\"unit\"", "How often it runs: once a `unit` or once a `change_set`."),
    key("rollback_command", "", "Run to undo a `command` that a later step failed after."),
    key("cwd", "\".\"", "The working directory; the configuration's own if not said."),
    key("env", "{}", "Additions to the environment."),
    key("stdin", "\"json\"", "What the program reads on standard input: `json` or `none`."),
];

const PROCESS: &[Key] = &[
    key("command", "", "The program and its arguments; no shell. `{fd:name}`, `{port:name}` and `{path}` expand, too."),
    key("into", "", "The directory that holds `releases/`; `{pickup}` expands. In the state directory if not said."),
    key("listen", "{}", "Listeners, by name: kept open over every restart, and handed to the program."),
    key(
        "ready",
        "\"after:1s\"",
        "How it says that it is ready: `notify`, `tcp://`, `http://`, `exec:`, `line:`, `after:`.",
    ),
    key("start_timeout", "\"30s\"", "How long it may take to be ready."),
    key("probation", "\"5s\"", "How long it must live beside the old version before that one goes."),
    key("drain_signal", "\"TERM\"", "The signal that asks a program to finish."),
    key("drain_timeout", "\"30s\"", "How long it may take to finish, before its process group is killed."),
    key("overlap", "true", "Whether old and new run side by side."),
    key("env", "{}", "Additions to the environment."),
    key("user", "", "`user` or `user:group` that it runs as; needs `into`."),
    key("limits", "{}", "Resource limits: `as core cpu data fsize memlock nofile nproc stack`."),
    key("restart_max", "5", "How often in a row a program that ends by itself is started again."),
    key("watchdog", "", "How long it may go without a sign of life (`WATCHDOG=1`)."),
    key("health_interval", "\"15s\"", "How often it is said how it is: memory, load, processes."),
    key("keep_running", "false", "Whether it runs on when the daemon ends."),
];

const MODULE: &[Key] = &[
    key("allow_needed", "[]", "Shared libraries a module may need besides the C library and libgcc."),
    key("probe", "true", "Whether a module is loaded in a process of its own first."),
    key("max_generations", "64", "How many generations may be loaded: none is ever unloaded."),
    key("config", "\"\"", "What a module is given at start, as it stands."),
];

const HTTP: &[Key] = &[
    key("url", "", "Where a file is sent. `{unit}`, `{stem}`, `{pickup}`, `{generation}`, `{digest}` expand."),
    key("remove_url", "", "Where its removal is asked for, on the same server; else `url`."),
    key("method", "\"PUT\"", "The method for what was added or modified."),
    key("remove_method", "\"DELETE\"", "The method for what was removed."),
    key("headers", "{}", "Additional headers."),
    key("expect", "[]", "Texts of which the reply to a file must hold one, besides a status of 2xx."),
    key("remove_expect", "[]", "Texts of which the reply to a removal must hold one, besides a status of 2xx."),
    key("username", "", "The user for basic authentication."),
    key("password_file", "", "The file that holds the password; read again for each request."),
    key("bearer_file", "", "The file that holds the bearer token; read again for each request."),
    key("ca_file", "", "A file of certificate authorities (PEM), trusted besides the system's, for this server."),
];
