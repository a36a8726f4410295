//! Reads the keys of one section as the types they must have; what does not fit is reported and breaks the section.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::document::{Data, Entry, Position, Section, Value};
use super::keys::{self, KeySection};
use super::problem::{Place, Problems, nearest, shorten};
use super::surroundings::Surroundings;
use super::{Dialect, Severity};

/// Longer waits are mistakes, and could not be added to a clock.
const DURATION_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The largest number of bytes that a TOML integer can name.
const SIZE_MAX: u64 = i64::MAX as u64;

/// One section while its keys are read.
pub(crate) struct Reader<'a> {
    pub(crate) section: &'a Section,
    pub(crate) dialect: Dialect,
    pub(crate) surroundings: &'a Surroundings,
    pub(crate) problems: &'a mut Problems,
    /// Whether anything was wrong.
    pub(crate) is_broken: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(
        section: &'a Section,
        dialect: Dialect,
        surroundings: &'a Surroundings,
        problems: &'a mut Problems,
    ) -> Self {
        Self { section, dialect, surroundings, problems, is_broken: section.is_broken }
    }

    pub(crate) fn error(&mut self, key: &str, message: impl Into<String>) {
        let at = self.section.entry(key).map_or(self.section.at, |entry| entry.value.at);
        self.error_at(key, at, message);
    }

    fn error_at(&mut self, key: &str, at: Position, message: impl Into<String>) {
        self.is_broken = true;
        // List elements of the INI dialect have no place of their own.
        let at = if at == Position::default() { self.section.position_of(key) } else { at };
        self.problems.error(Place::key(&self.section.name, key, at), message);
    }

    /// Reports a problem with the section's name.
    pub(crate) fn name_error(&mut self, message: impl Into<String>) {
        self.is_broken = true;
        self.problems.error(Place::section(&self.section.name, self.section.at), message);
    }

    pub(crate) fn warning(&mut self, key: &str, message: impl Into<String>) {
        let place = Place::key(&self.section.name, key, self.section.position_of(key));
        self.problems.warning(place, message);
    }

    /// Reports every key that is none of `sections`.
    pub(crate) fn check_names(&mut self, sections: &[KeySection]) {
        for Entry { key, at, .. } in &self.section.entries {
            if keys::names(sections).any(|known| known == key) {
                continue;
            }
            let place = Place::key(&self.section.name, key, *at);
            let zato = keys::ZATO_KEYS.iter().find(|(name, _)| name == key);
            if let (Some((_, advice)), Dialect::Zato) = (zato, self.dialect) {
                self.problems.warning(place, format!("has no effect here: {advice}"));
                continue;
            }
            self.is_broken = true;
            let elsewhere = keys::KEYS.iter().filter(|(_, known)| known.iter().any(|known| known.name == key));
            let kinds: Vec<_> = elsewhere.filter_map(|(section, _)| section.kind()).collect();
            if kinds.is_empty() || !sections.contains(&KeySection::Deployer) {
                let known = keys::names(sections);
                self.problems.unknown(Severity::Error, place, "is no key of this section", key, known);
            } else {
                let message = format!("is a key of deployers of kind `{}`, not of this one", kinds.join("` or `"));
                self.problems.error(place, message);
            }
        }
    }

    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.section.entry(key).map(|entry| &entry.value)
    }

    /// What `read` makes of the key's value, or `None` if the key is absent or wrong.
    pub(crate) fn read<T>(&mut self, key: &str, read: impl FnOnce(&Data) -> Result<T, String>) -> Option<T> {
        let value = self.value(key)?;
        let read = read(&value.data).map_err(|message| match (&value.data, self.dialect) {
            (Data::List(_), Dialect::Zato) => format!("{message}; quote it if the comma is part of it"),
            _ => message,
        });
        read.map_err(|message| self.error_at(key, value.at, message)).ok()
    }

    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        self.read(key, |data| Ok(text(data)?.to_owned()))
    }

    pub(crate) fn boolean(&mut self, key: &str, default: bool) -> bool {
        let dialect = self.dialect;
        self.read(key, |data| boolean(data, dialect)).unwrap_or(default)
    }

    pub(crate) fn choice<T: Copy>(&mut self, key: &str, default: T, choices: &[(&str, T)]) -> T {
        let chosen = self.read(key, |data| {
            let written = text(data)?;
            let found = choices.iter().find(|(name, _)| *name == written).map(|(_, value)| *value);
            found.ok_or_else(|| {
                let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
                let hint = nearest(written, names.iter().copied());
                let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
                format!("expected one of `{}`, found `{}`{hint}", names.join("`, `"), shorten(written))
            })
        });
        chosen.unwrap_or(default)
    }

    pub(crate) fn duration(&mut self, key: &str, default: Duration) -> Duration {
        self.read(key, duration).unwrap_or(default)
    }

    /// A duration that must not be zero.
    pub(crate) fn interval(&mut self, key: &str, default: Duration) -> Duration {
        let read = self.read(key, |data| match duration(data)? {
            Duration::ZERO => Err("expected a duration above zero".into()),
            interval => Ok(interval),
        });
        read.unwrap_or(default)
    }

    pub(crate) fn number(&mut self, key: &str, default: u32, least: u32, most: u32) -> u32 {
        let dialect = self.dialect;
        let read = self.read(key, |data| {
            let message = || format!("expected a whole number from {least} to {most}");
            let number = match data {
                Data::Integer(digits, radix) => u32::from_str_radix(digits, *radix).ok(),
                // INI has no numbers of its own; TOML's must not be quoted.
                Data::Text(text) if dialect == Dialect::Zato => text.parse().ok(),
                _ => return Err(format!("{}, found {}", message(), data.describe())),
            };
            number.filter(|number| (least..=most).contains(number)).ok_or_else(message)
        });
        read.unwrap_or(default)
    }

    /// A list of strings; one string is a list of one.
    pub(crate) fn list(&mut self, key: &str) -> Option<Vec<String>> {
        let value = self.value(key)?;
        let items = match &value.data {
            Data::List(items) => items.as_slice(),
            Data::Text(text) if text.is_empty() && self.dialect == Dialect::Zato => &[],
            Data::Text(_) => std::slice::from_ref(value),
            Data::Integer(..) | Data::Boolean(_) | Data::Table(_) | Data::Other(_) => {
                let message = format!("expected a list of strings, found {}", value.data.describe());
                self.error_at(key, value.at, message);
                return None;
            }
        };
        let mut texts = Vec::new();
        for item in items {
            match text(&item.data) {
                Ok(text) => texts.push(text.to_owned()),
                Err(message) => self.error_at(key, item.at, message),
            }
        }
        (texts.len() == items.len()).then_some(texts)
    }

    /// A list of which every element must satisfy `check`, which says what is wrong otherwise.
    pub(crate) fn checked_list(
        &mut self,
        key: &str,
        check: impl Fn(&str) -> Result<(), String>,
    ) -> Option<Vec<String>> {
        let list = self.list(key)?;
        for item in &list {
            if let Err(message) = check(item) {
                self.error(key, message);
            }
        }
        Some(list)
    }

    pub(crate) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let surroundings = self.surroundings;
        self.read(key, |data| surroundings.path(text(data)?))
    }

    /// Names and values: a table, or a list of `NAME=value`.
    pub(crate) fn pairs(&mut self, key: &str) -> BTreeMap<String, String> {
        let mut pairs = Vec::new();
        match self.value(key).map(|value| &value.data) {
            None => {}
            Some(Data::Table(entries)) => {
                for entry in entries {
                    match text(&entry.value.data) {
                        Ok(value) => pairs.push((entry.key.clone(), value.to_owned())),
                        Err(message) => {
                            self.error_at(key, entry.value.at, format!("`{}`: {message}", shorten(&entry.key)))
                        }
                    }
                }
            }
            Some(_) => {
                for item in self.list(key).unwrap_or_default() {
                    match item.split_once('=') {
                        Some((name, value)) => pairs.push((name.trim().to_owned(), value.trim().to_owned())),
                        None => self.error(key, format!("expected `NAME=value`, found `{}`", shorten(&item))),
                    }
                }
            }
        }
        let mut unique = BTreeMap::new();
        for (name, value) in pairs {
            if name.is_empty() || name.contains(['=', '\0']) {
                self.error(key, format!("`{}` is no variable's name", shorten(&name)));
            } else if unique.insert(name.clone(), value).is_some() {
                self.error(key, format!("`{}` stands twice", shorten(&name)));
            }
        }
        unique
    }
}

/// A single string. No value of ours may hold a NUL: the operating system would cut it there.
pub(crate) fn text(data: &Data) -> Result<&str, String> {
    match data {
        Data::Text(text) if text.contains('\0') => Err("a NUL character cannot be part of a value".into()),
        Data::Text(text) => Ok(text),
        Data::List(_) => Err("expected one string, found a list".into()),
        _ => Err(format!("expected a string, found {}", data.describe())),
    }
}

fn boolean(data: &Data, dialect: Dialect) -> Result<bool, String> {
    match (data, dialect) {
        (Data::Boolean(value), _) => Ok(*value),
        (Data::Text(text), Dialect::Zato) => match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(format!("expected True or False, found `{}`", shorten(text))),
        },
        (data, Dialect::Toml) => Err(format!("expected true or false without quotes, found {}", data.describe())),
        (data, Dialect::Zato) => Err(format!("expected True or False, found {}", data.describe())),
    }
}

fn duration(data: &Data) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a duration with a unit, such as `10ms`, `2s` or `1h 30m`";
    let Data::Text(written) = data else {
        return Err(format!("{EXPECTED}, found {}", data.describe()));
    };
    let duration = humantime::parse_duration(written.trim());
    let duration = duration.map_err(|error| format!("{EXPECTED}, found `{}`: {error}", shorten(written)))?;
    if duration > DURATION_MAX { Err("expected a duration of at most 100 years".into()) } else { Ok(duration) }
}

/// A size above zero.
pub(crate) fn size(data: &Data) -> Result<u64, String> {
    const EXPECTED: &str = "expected a size above zero such as `10GiB`";
    let size = match data {
        Data::Integer(digits, radix) => u64::from_str_radix(digits, *radix).ok(),
        data => {
            let written = text(data).map_err(|_| format!("{EXPECTED}, found {}", data.describe()))?;
            written.trim().parse::<bytesize::ByteSize>().ok().map(|size| size.as_u64())
        }
    };
    let size = size.filter(|size| (1..=SIZE_MAX).contains(size));
    size.ok_or_else(|| match data {
        Data::Text(written) => format!("{EXPECTED}, found `{}`", shorten(written)),
        _ => EXPECTED.into(),
    })
}
