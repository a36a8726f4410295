//! The INI dialect of Zato's `pickup.conf` in, document out.
//!
//! What is read, and where it differs from other INI files, was measured on the original (`#` comments even without
//! a space before, commas make lists, quotes protect, no `key: value`, no `;` comments). Unlike there, a mistake costs
//! its own section only.

use std::collections::{HashMap, HashSet};

use super::document::{Data, Document, Entry, Position, Section, SectionKind, Value};
use super::problem::{Place, Problems, shorten};

mod value;

use value::{Rest, Scan};

/// Reads `text` as INI.
pub(crate) fn parse(text: &str, problems: Problems) -> Document {
    let lines = text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let mut reader = Reader {
        lines,
        next: 0,
        document: Document { sections: Vec::new(), problems },
        seen: HashMap::new(),
        keys: HashMap::new(),
        unclosed: HashSet::new(),
        is_nested: false,
        is_lost: false,
    };
    while reader.next < reader.lines.len() {
        reader.line();
    }
    reader.document
}

struct Reader<'t> {
    lines: Vec<&'t str>,
    /// The index of the next line.
    next: usize,
    document: Document,
    /// Section names, and which section of the document they are.
    seen: HashMap<String, usize>,
    /// The keys of the last section, and their lines.
    keys: HashMap<String, usize>,
    /// Triple quotes that were searched for to the end of the text in vain.
    unclosed: HashSet<&'static str>,
    /// Whether the keys that follow belong to a `[[nested]]` section, which has no meaning here.
    is_nested: bool,
    /// Whether the keys that follow belong to a header that could not be read.
    is_lost: bool,
}

impl<'t> Reader<'t> {
    fn line(&mut self) {
        let Some(line) = self.lines.get(self.next).copied() else { return };
        self.next += 1;
        let text = line.trim();
        if text.is_empty() || text.starts_with('#') {
            return;
        }
        let at = Position { line: self.next, column: column(line, text) };
        if text.starts_with('[') {
            self.header(text, at);
        } else {
            self.key(line, text, at);
        }
    }

    fn header(&mut self, text: &str, at: Position) {
        (self.is_nested, self.is_lost) = (false, false);
        match header(text) {
            Ok((1, name)) => self.open(name, at),
            Ok(_) => {
                self.is_nested = true;
                self.fail(None, at, "a nested section has no meaning here");
            }
            Err(message) => {
                self.is_lost = true;
                let name = text.trim_matches(['[', ']', ' ', '\t', '"', '\'']);
                self.document.problems.error(Place::section(name, at), message);
                // The name is good enough to know what is broken, if it is one of ours.
                let kind = SectionKind::of(name);
                if matches!(kind, SectionKind::Pickup(_) | SectionKind::Deployer(_)) {
                    let mut section = Section::new(kind, name, at);
                    section.is_broken = true;
                    self.document.sections.push(section);
                }
            }
        }
    }

    fn open(&mut self, name: &str, at: Position) {
        let mut section = Section::new(SectionKind::of(name), name, at);
        if let Some(first) = self.seen.get(name).and_then(|index| self.document.sections.get_mut(*index)) {
            // What was meant is unknown, so neither half is used.
            first.is_broken = true;
            section.is_broken = true;
            let message = format!("the section stands twice, first in line {}", first.at.line);
            self.document.problems.error(Place::section(name, at), message);
        }
        self.keys.clear();
        self.seen.insert(name.to_owned(), self.document.sections.len());
        self.document.sections.push(section);
    }

    fn key(&mut self, line: &'t str, text: &'t str, at: Position) {
        if self.is_nested || self.is_lost {
            self.skip_value(text);
            return;
        }
        if text.starts_with(';') {
            return self.fail(None, at, "`;` starts no comment here, `#` does");
        }
        let Some((key, rest)) = split_key(text) else {
            let colon = text.split_once(':').map(|(key, _)| key.trim()).filter(|key| !key.is_empty());
            return match colon {
                Some(key) => self.fail(Some(key), at, "expected `key = value`, with `=` instead of `:`"),
                None => self.fail(None, at, format!("expected `key = value`, found `{}`", shorten(text))),
            };
        };
        let value_at = Position { line: at.line, column: column(line, rest) };
        let data = match value::scan(rest) {
            Ok(Scan::Done(data)) => data,
            Ok(Scan::Open { quotes, start }) => match self.multi_line(quotes, start) {
                Some(data) => data,
                None => return self.fail(Some(key), value_at, format!("{quotes} has no closing {quotes}")),
            },
            Err(message) => return self.fail(Some(key), value_at, message),
        };
        if let Data::Text(text) = &data
            && text.contains("%(")
            && text.contains(")s")
        {
            let section = self.document.sections.last().map_or("", |section| section.name.as_str());
            let place = Place::key(section, key, value_at);
            self.document.problems.warning(place, "`%(name)s` is not replaced here; use `$NAME` in paths");
        }
        self.enter(key, at, Value { at: value_at, data });
    }

    fn enter(&mut self, key: &str, at: Position, value: Value) {
        let Some(section) = self.document.sections.last_mut() else {
            let message = "a key must stand below a section, such as `[hot-deploy.user.<name>]`";
            return self.document.problems.error(Place::key("", key, at), message);
        };
        if let Some(first) = self.keys.insert(key.to_owned(), at.line) {
            return self.fail(Some(key), at, format!("the key stands twice, first in line {first}"));
        }
        section.entries.push(Entry { key: key.to_owned(), at, value });
    }

    /// The rest of a triple-quoted value, or `None` (and no line taken) if it has no end.
    fn multi_line(&mut self, quotes: &'static str, start: &str) -> Option<Data> {
        if self.unclosed.contains(quotes) {
            return None;
        }
        let mut text = start.to_owned();
        for (index, line) in self.lines.iter().enumerate().skip(self.next) {
            text.push('\n');
            let Some((last, after)) = line.split_once(quotes) else {
                text.push_str(line);
                continue;
            };
            if value::rest(after) != Rest::Nothing {
                return None;
            }
            text.push_str(last);
            self.next = index + 1;
            return Some(Data::Text(text));
        }
        self.unclosed.insert(quotes);
        None
    }

    /// Passes over the further lines of a value that nobody wants.
    fn skip_value(&mut self, text: &str) {
        if let Some((_, rest)) = split_key(text)
            && let Ok(Scan::Open { quotes, start }) = value::scan(rest)
        {
            self.multi_line(quotes, start);
        }
    }

    /// Reports what is wrong in the current section, which is thereby broken unless it is none of ours.
    fn fail(&mut self, key: Option<&str>, at: Position, message: impl Into<String>) {
        let section = self.document.sections.last_mut();
        if section.as_ref().is_some_and(|section| section.kind == SectionKind::Foreign) {
            return;
        }
        let name = section.as_ref().map_or("", |section| section.name.as_str());
        self.document.problems.error(Place { at, section: name, key }, message);
        if let Some(section) = section {
            section.is_broken = true;
        }
    }
}

/// The column, from 1, at which `part` stands in `line`, of which it is a slice.
fn column(line: &str, part: &str) -> usize {
    let offset = (part.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
    line.char_indices().take_while(|(at, _)| *at < offset).count() + 1
}

/// Depth and name of a header line.
fn header(text: &str) -> Result<(usize, &str), String> {
    let opened = |text: &str| text.chars().take_while(|c| matches!(c, '[' | ' ' | '\t')).filter(|c| *c == '[').count();
    let depth = opened(text);
    let inner = text.trim_start_matches(['[', ' ', '\t']);
    let quote = inner.chars().next().filter(|c| matches!(c, '"' | '\''));
    let ends = inner.char_indices().filter(|(_, c)| *c == ']').map(|(at, _)| at);
    for end in ends {
        let (name, after) = inner.split_at(end);
        let brackets = after.chars().take_while(|c| matches!(c, ']' | ' ' | '\t')).filter(|c| *c == ']').count();
        if value::rest(after.trim_start_matches([']', ' ', '\t'])) != Rest::Nothing {
            continue;
        }
        let name = name.trim_end();
        let name = match quote {
            None => name,
            Some(quote) => match name.strip_prefix(quote).and_then(|name| name.strip_suffix(quote)) {
                Some(name) => name.trim(),
                None => continue,
            },
        };
        return match () {
            () if brackets != depth => Err("the section name has more brackets on one side than on the other".into()),
            () if name.is_empty() => Err("the section has no name".into()),
            () => Ok((depth, name)),
        };
    }
    Err("the section name has no closing `]`".into())
}

/// Key and value text of a `key = value` line.
fn split_key(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let (key, rest) = match quote {
        Some(quote) => {
            let (key, rest) = text[1..].split_once(quote)?;
            (key, rest.trim_start().strip_prefix('=')?)
        }
        None => text.split_once('=')?,
    };
    let key = key.trim();
    (!key.is_empty()).then(|| (key, rest.trim()))
}
