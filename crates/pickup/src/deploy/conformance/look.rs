//! What a place looks like, and how what was seen is put into words.
#![expect(clippy::disallowed_methods, reason = "this is a door: it looks at places on disk")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::deploy::Observed;

/// How much of what is served a failure shows.
const SHOWN_MAX: usize = 100;

/// Everything below some directories, and what it is.
#[derive(Debug, Default)]
pub(super) struct Snapshot(BTreeMap<PathBuf, String>);

impl Snapshot {
    pub(super) fn of(directory: &Path) -> Self {
        let mut snapshot = Self::default();
        snapshot.add(directory);
        snapshot
    }

    pub(super) fn add(&mut self, directory: &Path) {
        list(directory, &mut self.0);
    }

    /// How `now` differs from this, if it does.
    pub(super) fn difference(&self, now: &Self) -> Option<String> {
        let (before, now) = (&self.0, &now.0);
        let mut paths = now.keys().chain(before.keys());
        let path = paths.find(|path| before.get(*path) != now.get(*path))?;
        let what = match (before.contains_key(path), now.contains_key(path)) {
            (false, _) => "is new",
            (true, false) => "is gone",
            (true, true) => "is another",
        };
        Some(format!("{} {what}", path.display()))
    }
}

/// Adds everything below a directory. What vanishes while we look is not there.
fn list(directory: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        let what = if kind.is_dir() {
            list(&path, found);
            "a directory".into()
        } else if kind.is_symlink() {
            format!("a link to {:?}", fs::read_link(&path).ok())
        } else if kind.is_file() {
            fs::read(&path).map_or_else(|_| "unreadable".into(), |bytes| blake3::hash(&bytes).to_string())
        } else {
            "a special file".into()
        };
        found.insert(path, what);
    }
}

/// The same value with every array sorted, because a set has no order.
pub(super) fn in_order(value: &Value) -> Value {
    match value {
        Value::Array(entries) => {
            let mut entries: Vec<_> = entries.iter().map(in_order).collect();
            entries.sort_by_cached_key(Value::to_string);
            Value::Array(entries)
        }
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), in_order(value))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

pub(super) fn in_words(observed: &Observed) -> String {
    match observed {
        Observed::Alive => "alive".into(),
        Observed::Drifted(why) => format!("drifted: {why}"),
        Observed::Gone => "gone".into(),
    }
}

pub(super) fn seen(served: Option<&[u8]>) -> String {
    served.map_or_else(|| "nothing is".into(), |served| format!("{} is", shown(served)))
}

pub(super) fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let rest = if text.chars().nth(SHOWN_MAX).is_some() { "…" } else { "" };
    format!("{:?}{rest}", text.chars().take(SHOWN_MAX).collect::<String>())
}
