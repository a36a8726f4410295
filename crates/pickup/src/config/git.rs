//! The git keys of an entry in, one [`GitConfig`] out.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::address::{self, Reach};
use super::keys::{self, KeySection};
use super::problem::{nearest, shorten};
use super::reader::{Reader, size, text};
use super::verify::authority;
use super::{GitAllow, GitConfig, GitTransport, PickupConfig, Symlinks};
use crate::path::UnitPath;

pub(super) const TRANSPORTS: &[(&str, GitTransport)] =
    &[("libgit2", GitTransport::Libgit2), ("cli", GitTransport::Cli)];
pub(super) const ALLOWED: &[(&str, GitAllow)] = &[
    ("submodules", GitAllow::Submodules),
    ("lfs_pointers", GitAllow::LfsPointers),
    ("case_collisions", GitAllow::CaseCollisions),
];

/// libgit2 counts commits with an `int`.
const DEPTH_MAX: u32 = i32::MAX.cast_unsigned();

/// A commit of more files is a mistake, and would not fit in memory.
const FILES_MAX: u32 = 10_000_000;

/// The keys that say who we are, and how the remote is reached.
const ACCESS_KEYS: &[&str] =
    &["git_username", "git_password_file", "git_ssh_key", "git_known_hosts", "git_ca_file", "git_proxy"];

/// The keys that are about a watched directory, which a mirror has not.
const WATCH_KEYS: &[&str] =
    &["quiet", "quiet_max", "settle", "settle_patterns", "watch", "poll_interval", "rescan_interval"];

/// What the git keys of the section say, if there are any. Everything else about `entry` is read already.
pub(super) fn read(reader: &mut Reader<'_>, entry: &PickupConfig) -> Option<Box<GitConfig>> {
    if !keys::names(&[KeySection::Git]).any(|key| reader.value(key).is_some()) {
        return None;
    }
    let default = GitConfig::default();
    let surroundings = reader.surroundings;
    let git = GitConfig {
        url: reader.read("git_url", |data| address::read(text(data)?, surroundings)),
        reference: reader.read("git_ref", |data| reference(text(data)?)).flatten(),
        subdir: reader.read("git_subdir", |data| subdir(text(data)?)).flatten(),
        auto_checkout: reader.boolean("auto_checkout", default.auto_checkout),
        auto_checkout_interval: reader.interval("auto_checkout_interval", default.auto_checkout_interval),
        timeout: reader.interval("git_timeout", default.timeout),
        depth: reader.number("git_depth", default.depth, 0, DEPTH_MAX),
        fast_forward_only: reader.boolean("git_fast_forward_only", default.fast_forward_only),
        transport: reader.choice("git_transport", default.transport, TRANSPORTS),
        username: reader.read("git_username", |data| username(text(data)?)),
        password_file: reader.path("git_password_file"),
        ssh_key: reader.path("git_ssh_key"),
        known_hosts: reader.path("git_known_hosts"),
        ca_file: reader.path("git_ca_file"),
        proxy: reader.read("git_proxy", |data| proxy(text(data)?)),
        allow: allowed(reader),
        files_max: files_max(reader, default.files_max),
        size_max: reader.read("git_size_max", size).unwrap_or(default.size_max),
    };
    check_shape(reader, entry);
    check_history(reader, &git);
    check_access(reader, &git);
    Some(Box::new(git))
}

/// Whether `text` is the full id of a commit.
fn is_commit_id(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A name that git itself would take, so that it can stand in a refspec and on a command line; `None` for the default.
fn reference(text: &str) -> Result<Option<String>, String> {
    let shown = shorten(text);
    if text.trim().is_empty() {
        return Err("expected a branch, a tag or a commit, found an empty string".into());
    }
    if is_commit_id(text) {
        return Ok(Some(text.to_ascii_lowercase()));
    }
    if text.starts_with('-') {
        return Err(format!("`{shown}` starts with `-`, which git would take for an option"));
    }
    let is_odd = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
    if let Some(odd) = text.chars().find(|c| is_odd(*c)) {
        return Err(format!("`{shown}` is no branch, tag or commit: it holds `{}`", odd.escape_debug()));
    }
    let is_bad_part = |part: &str| part.is_empty() || part.starts_with('.') || part.ends_with(".lock");
    if text.contains("..") || text.contains("@{") || text.ends_with('.') || text.split('/').any(is_bad_part) {
        return Err(format!("`{shown}` is no name that git allows for a branch or tag"));
    }
    Ok((text != "HEAD").then(|| text.to_owned()))
}

fn subdir(text: &str) -> Result<Option<PathBuf>, String> {
    let inside = UnitPath::new(text).filter(|_| !text.trim().is_empty() && !text.contains(char::is_control));
    let Some(inside) = inside else {
        return Err(format!("expected a relative path inside the repository, without `..`, found `{}`", shorten(text)));
    };
    if inside.as_path().iter().any(|part| part.eq_ignore_ascii_case(".git")) {
        return Err("`.git` is no part of what a commit holds".into());
    }
    Ok((!inside.is_root()).then(|| inside.as_path().to_path_buf()))
}

fn username(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.contains(char::is_control) || text.starts_with('-') {
        return Err("expected a name that is not blank, holds no control characters and does not start with `-`".into());
    }
    Ok(text.to_owned())
}

fn proxy(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected `http://host:port`, `https://host:port` or `socks5://host:port`";
    let (scheme, rest) = text.split_once("://").ok_or(EXPECTED)?;
    if !matches!(scheme, "http" | "https" | "socks5" | "socks5h") || text.contains(char::is_whitespace) {
        return Err(EXPECTED.into());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (_, host) = rest.rsplit_once('@').unwrap_or(("", rest));
    // What stands before the host may be a secret, so only the host is shown.
    authority(host, true).map(|()| text.to_owned())
}

fn allowed(reader: &mut Reader<'_>) -> BTreeSet<GitAllow> {
    let mut allowed = BTreeSet::new();
    for written in reader.list("git_allow").unwrap_or_default() {
        if let Some((_, value)) = ALLOWED.iter().find(|(name, _)| *name == written) {
            allowed.insert(*value);
            continue;
        }
        let names: Vec<_> = ALLOWED.iter().map(|(name, _)| *name).collect();
        let hint = nearest(&written, names.iter().copied());
        let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        let message = format!("expected some of `{}`, found `{}`{hint}", names.join("`, `"), shorten(&written));
        reader.error("git_allow", message);
    }
    allowed
}

fn files_max(reader: &mut Reader<'_>, default: usize) -> usize {
    let default = u32::try_from(default).unwrap_or(FILES_MAX);
    reader.number("git_files_max", default, 1, FILES_MAX) as usize
}

/// What a mirror and a clone can be.
fn check_shape(reader: &mut Reader<'_>, entry: &PickupConfig) {
    if entry.pickup_from.len() > 1 {
        reader.error("pickup_from", "names several directories, and a git entry has one: make an entry of each");
    }
    if entry.delete_after_pickup {
        reader.error("delete_after_pickup", "a file cannot be taken out of a commit: leave it out where git keys are");
    }
    if reader.value("pickup_from").is_some() || reader.value("git_url").is_none() {
        return;
    }
    for key in WATCH_KEYS {
        if reader.value(key).is_some() {
            reader.warning(key, "has no effect: without `pickup_from` there is no directory to watch");
        }
    }
    if entry.symlinks == Symlinks::Follow {
        reader.warning("symlinks", "is the same as `inside` here: a commit has nothing outside to follow to");
    }
}

/// Whether it can be known that a branch only moved forward.
fn check_history(reader: &mut Reader<'_>, git: &GitConfig) {
    let is_pinned = git.reference.as_deref().is_some_and(is_commit_id);
    if git.depth > 0 && git.fast_forward_only && !is_pinned {
        let message = "a history cut short cannot show that a branch only moved forward: set \
                       `git_fast_forward_only = false`, or leave `git_depth` out";
        reader.error("git_depth", message);
    }
    if !git.auto_checkout && git.auto_checkout_interval != GitConfig::default().auto_checkout_interval {
        reader.warning("auto_checkout_interval", "has no effect without `auto_checkout = true`");
    }
}

/// Whether each key of access fits the way the remote is reached.
fn check_access(reader: &mut Reader<'_>, git: &GitConfig) {
    let Some(url) = &git.url else {
        // Of a user's own clone, only its configuration knows the remote.
        if !git.auto_checkout && reader.value("git_url").is_none() {
            for key in ACCESS_KEYS.iter().filter(|key| reader.value(key).is_some()).collect::<Vec<_>>() {
                reader.warning(key, "has no effect: without `git_url` or `auto_checkout = true` no remote is asked");
            }
        }
        return;
    };
    let reach = address::reach(url);
    if url.userinfo().password.is_some() {
        reader.warning("git_url", "holds a password, which anybody who reads this file sees: use `git_password_file`");
    }
    for key in ACCESS_KEYS {
        if reader.value(key).is_some()
            && let Some(message) = useless(key, reach)
        {
            reader.warning(key, format!("has no effect: {message}"));
        }
    }
    let is_http = matches!(reach, Reach::Http | Reach::Https);
    if is_http && git.username.is_some() && git.password_file.is_none() {
        reader.warning(
            "git_username",
            "says who, and nothing proves it: name the file of the password or token in `git_password_file`",
        );
    }
}

/// Why a key of access means nothing for remotes reached this way, if so.
fn useless(key: &str, reach: Reach) -> Option<&'static str> {
    match (key, reach) {
        ("git_username", Reach::Git | Reach::Local) => Some("this kind of repository knows no users"),
        ("git_password_file", Reach::Git | Reach::Local) => Some("this kind of repository knows no users"),
        ("git_password_file", Reach::Ssh) => Some("ssh takes a key: use `git_ssh_key`"),
        ("git_ssh_key" | "git_known_hosts", Reach::Http | Reach::Https) => {
            Some("it is for ssh; for https use `git_username` and `git_password_file`")
        }
        ("git_ssh_key" | "git_known_hosts", Reach::Git | Reach::Local) => Some("it is for ssh"),
        ("git_ca_file", Reach::Http | Reach::Ssh | Reach::Git | Reach::Local) => Some("it is for https"),
        ("git_proxy", Reach::Ssh) => {
            Some("ssh takes its proxy from `ProxyJump` or `ProxyCommand` in its own configuration")
        }
        ("git_proxy", Reach::Git | Reach::Local) => Some("it is for http and https"),
        _ => None,
    }
}
