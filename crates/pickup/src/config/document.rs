//! A configuration as a tree that knows no dialect: sections, keys and values, each with its place in the text.

use super::problem::Problems;

/// A place in the text, in lines and characters from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// What a text holds, whatever its dialect, and what could not be read.
#[derive(Debug)]
pub(crate) struct Document {
    /// In file order.
    pub(crate) sections: Vec<Section>,
    pub(crate) problems: Problems,
}

impl Document {
    /// Whether nothing at all could be made of the text.
    pub(crate) fn is_unreadable(&self) -> bool {
        self.problems.has_errors() && self.sections.is_empty()
    }
}

/// One section and its keys.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) kind: SectionKind,
    /// The name as written, without brackets and quotes.
    pub(crate) name: String,
    pub(crate) at: Position,
    /// In file order.
    pub(crate) entries: Vec<Entry>,
    /// Whether a problem already says why this section cannot be used.
    pub(crate) is_broken: bool,
}

impl Section {
    pub(crate) fn new(kind: SectionKind, name: impl Into<String>, at: Position) -> Self {
        Self { kind, name: name.into(), at, entries: Vec::new(), is_broken: false }
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key == key)
    }

    /// Where a problem with `key` is shown: at the key, else at the section's header.
    pub(crate) fn position_of(&self, key: &str) -> Position {
        self.entry(key).map_or(self.at, |entry| entry.at)
    }
}

/// What a section configures, told from its name alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SectionKind {
    /// `hot-deploy.user.<name>`.
    Pickup(String),
    /// `deployer.<name>`.
    Deployer(String),
    /// `pickup`.
    Settings,
    /// An empty `hot-deploy` in TOML: there is no entry, not even the default one.
    NoEntries,
    /// Starts like one of ours, but is none: `hot-deploy.usr.x`, `deployer`.
    Malformed,
    /// Anything else.
    Foreign,
}

impl SectionKind {
    pub(crate) fn of(name: &str) -> Self {
        if name == "pickup" {
            return Self::Settings;
        }
        if let Some(name) = name.strip_prefix("hot-deploy.user.").filter(|name| !name.is_empty()) {
            return Self::Pickup(name.to_owned());
        }
        if let Some(name) = name.strip_prefix("deployer.").filter(|name| !name.is_empty()) {
            return Self::Deployer(name.to_owned());
        }
        let lower = name.to_ascii_lowercase();
        if lower.starts_with("hot-deploy") || lower == "deployer" || lower.starts_with("deployer.") {
            return Self::Malformed;
        }
        Self::Foreign
    }
}

/// One key and its value.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) value: Value,
}

/// One value and its place.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) at: Position,
    pub(crate) data: Data,
}

/// What a value holds.
#[derive(Debug)]
pub(crate) enum Data {
    Text(String),
    /// The digits and the radix they were written in.
    Integer(String, u32),
    Boolean(bool),
    List(Vec<Value>),
    Table(Vec<Entry>),
    /// A form that no key takes: a float, a date.
    Other(&'static str),
}

impl Data {
    /// What it is, for "expected a list of strings, found ...".
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Text(_) => "a string",
            Self::Integer(..) => "a number",
            Self::Boolean(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }
}

/// Turns byte offsets into lines and columns.
pub(crate) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    pub(crate) fn position(&self, offset: usize) -> Position {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = line.checked_sub(1).and_then(|index| self.starts.get(index)).copied().unwrap_or(0);
        let bytes = self.text.as_bytes();
        // Characters are counted by their first bytes: an offset may lie inside one.
        let before = bytes.get(start..offset.min(bytes.len())).unwrap_or_default();
        let column = before.iter().filter(|byte| (**byte & 0xc0) != 0x80).count() + 1;
        Position { line: line.max(1), column }
    }
}
