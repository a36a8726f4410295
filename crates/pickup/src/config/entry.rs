//! One `hot-deploy.user.<name>` section in, one [`PickupConfig`] out.

use std::collections::HashSet;
use std::path::PathBuf;

use ignore::gitignore::GitignoreBuilder;

use super::keys::{self, KeySection};
use super::problem::shorten;
use super::reader::Reader;
use super::{OnRemoved, PickupConfig, Symlinks, UnitKind, WatchMode, git};

const NO_DIRECTORY: &str = "is missing: which directory is to be watched?";
const NO_REPOSITORY: &str = "is missing: name a repository in `git_url`, or the directory of a clone here";

/// The entry called `name`, or `None` if anything is wrong with it.
pub(crate) fn read(mut reader: Reader<'_>, name: &str) -> Option<PickupConfig> {
    let reader = &mut reader;
    reader.check_names(&[KeySection::Entry, KeySection::Git]);
    if name.trim().is_empty() || name.contains(char::is_control) {
        reader.name_error("the name must not be blank or hold control characters");
    }
    let mut entry = PickupConfig::new(name, PathBuf::new());
    entry.pickup_from = directories(reader);
    read_selection(reader, &mut entry);
    read_timing(reader, &mut entry);
    entry.unit = reader.choice("unit", entry.unit, UNITS);
    entry.watch = reader.choice("watch", entry.watch, WATCHES);
    entry.on_removed = reader.choice("on_removed", entry.on_removed, ON_REMOVED);
    entry.symlinks = reader.choice("symlinks", entry.symlinks, SYMLINKS);
    entry.recursive = reader.boolean("recursive", entry.recursive);
    entry.delete_after_pickup = reader.boolean("delete_after_pickup", entry.delete_after_pickup);
    entry.enabled = reader.boolean("enabled", entry.enabled);
    entry.deploy_to = reader.list("deploy_to").unwrap_or(entry.deploy_to);
    if entry.deploy_to.is_empty() {
        reader.error("deploy_to", "names no deployer");
    }
    let mut seen = HashSet::new();
    if let Some(twice) = entry.deploy_to.iter().find(|name| !seen.insert(name.as_str())) {
        reader.error("deploy_to", format!("`{}` stands twice", shorten(twice)));
    }
    entry.git = git::read(reader, &entry);
    (!reader.is_broken).then_some(entry)
}

pub(super) const UNITS: &[(&str, UnitKind)] =
    &[("file", UnitKind::File), ("directory", UnitKind::Directory), ("tree", UnitKind::Tree)];
pub(super) const WATCHES: &[(&str, WatchMode)] =
    &[("auto", WatchMode::Auto), ("native", WatchMode::Native), ("poll", WatchMode::Poll), ("off", WatchMode::Off)];
pub(super) const ON_REMOVED: &[(&str, OnRemoved)] = &[("remove", OnRemoved::Remove), ("keep", OnRemoved::Keep)];
pub(super) const SYMLINKS: &[(&str, Symlinks)] =
    &[("inside", Symlinks::Inside), ("follow", Symlinks::Follow), ("skip", Symlinks::Skip)];

fn directories(reader: &mut Reader<'_>) -> Vec<PathBuf> {
    if reader.value("pickup_from").is_none() {
        if reader.value("git_url").is_none() {
            let is_git = keys::names(&[KeySection::Git]).any(|key| reader.value(key).is_some());
            reader.error("pickup_from", if is_git { NO_REPOSITORY } else { NO_DIRECTORY });
        }
        return Vec::new();
    }
    let Some(written) = reader.list("pickup_from") else { return Vec::new() };
    if written.is_empty() {
        reader.error("pickup_from", "names no directory");
    }
    let mut directories = Vec::new();
    for text in written {
        match reader.surroundings.path(&text) {
            Ok(path) if directories.contains(&path) => {
                reader.warning("pickup_from", format!("`{}` stands twice", shorten(&text)));
            }
            Ok(path) => directories.push(path),
            Err(message) => reader.error("pickup_from", message),
        }
    }
    directories
}

fn read_selection(reader: &mut Reader<'_>, entry: &mut PickupConfig) {
    if let Some(patterns) = reader.checked_list("patterns", is_glob) {
        if patterns.is_empty() {
            reader.error("patterns", "holds no glob, so nothing would ever be picked up");
        }
        entry.patterns = patterns;
    }
    if let Some(patterns) = reader.checked_list("settle_patterns", is_glob) {
        entry.settle_patterns = patterns;
    }
    if let Some(rules) = reader.checked_list("ignore", is_ignore_rule) {
        entry.ignore = rules;
    }
}

fn is_glob(text: &str) -> Result<(), String> {
    if text.trim().is_empty() {
        return Err("a glob is empty".into());
    }
    globset::Glob::new(text).map(drop).map_err(|error| format!("`{}` is no glob: {}", shorten(text), error.kind()))
}

fn is_ignore_rule(text: &str) -> Result<(), String> {
    if text.contains('\n') {
        return Err("one rule is one line".into());
    }
    let mut builder = GitignoreBuilder::new("/");
    let added = builder.add_line(None, text).map(drop);
    added.map_err(|error| format!("`{}` is no ignore rule: {error}", shorten(text)))
}

fn read_timing(reader: &mut Reader<'_>, entry: &mut PickupConfig) {
    entry.quiet = reader.duration("quiet", entry.quiet);
    match reader.value("quiet_max") {
        Some(_) => {
            entry.quiet_max = reader.duration("quiet_max", entry.quiet_max);
            if reader.value("quiet").is_none() {
                entry.quiet = entry.quiet.min(entry.quiet_max);
            } else if entry.quiet > entry.quiet_max {
                reader.error("quiet", "must not be longer than `quiet_max`");
            }
        }
        // Whoever asks for a longer wait need not know about its bound.
        None => entry.quiet_max = entry.quiet_max.max(entry.quiet),
    }
    entry.settle = reader.duration("settle", entry.settle);
    entry.poll_interval = reader.interval("poll_interval", entry.poll_interval);
    entry.rescan_interval = reader.interval("rescan_interval", entry.rescan_interval);
}
