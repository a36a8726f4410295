//! Confines a mistake in TOML text to the section it stands in: what cannot be read is reported and blanked out.

use std::ops::Range;

use ::toml::de::{DeTable, DeValue, Error};

use super::depth::too_deep;
use crate::config::document::{Document, Lines, Section, SectionKind};
use crate::config::problem::Place;

/// How many sections a value that spans several (a string with lines like headers) is followed through.
const JOINED_MAX: usize = 8;

/// How often what remains is parsed again after duplicates were taken out.
const ROUNDS_MAX: usize = 20;

/// `text` with every section that cannot be parsed replaced by spaces, so that the rest parses and keeps its places.
pub(super) fn readable(text: &str, lines: &Lines<'_>, document: &mut Document) -> String {
    if let Some(offset) = too_deep(text) {
        let place = Place::section("", lines.position(offset));
        document.problems.error(place, "brackets or dotted keys nest too deep");
        return String::new();
    }
    if DeTable::parse(text).is_ok() {
        return text.to_owned();
    }
    let chunks = chunks(text);
    let mut recovery = Recovery { text, readable: text.as_bytes().to_vec(), lines, document };
    let mut at = 0;
    while let Some(chunk) = chunks.get(at) {
        let Err(error) = DeTable::parse(recovery.part(chunk)) else {
            at += 1;
            continue;
        };
        let followed = chunks.iter().enumerate().skip(at + 1).take(JOINED_MAX);
        let mut joined = followed.map(|(last, end)| (last, chunk.start..end.end));
        if let Some((last, _)) = joined.find(|(_, range)| DeTable::parse(recovery.part(range)).is_ok()) {
            at = last + 1;
            continue;
        }
        recovery.give_up(chunk, chunk.start + start_of(&error), &error);
        at += 1;
    }
    // Each section is sound by itself now. What remains wrong is wrong between them: duplicates.
    for _ in 0..ROUNDS_MAX {
        let remaining = String::from_utf8_lossy(&recovery.readable).into_owned();
        let (_, errors) = DeTable::parse_recoverable(&remaining);
        if errors.is_empty() {
            return remaining;
        }
        for error in errors {
            let offset = start_of(&error);
            let after = chunks.partition_point(|chunk| chunk.start <= offset);
            if let Some(chunk) = after.checked_sub(1).and_then(|index| chunks.get(index))
                && !recovery.is_blank(chunk)
            {
                recovery.give_up(chunk, offset, &error);
            }
        }
    }
    String::new()
}

fn start_of(error: &Error) -> usize {
    error.span().map_or(0, |span| span.start)
}

struct Recovery<'a> {
    text: &'a str,
    /// What is left of `text`.
    readable: Vec<u8>,
    lines: &'a Lines<'a>,
    document: &'a mut Document,
}

impl<'a> Recovery<'a> {
    fn part(&self, range: &Range<usize>) -> &'a str {
        self.text.get(range.clone()).unwrap_or_default()
    }

    fn is_blank(&self, chunk: &Range<usize>) -> bool {
        self.readable.get(chunk.clone()).is_none_or(|part| part.trim_ascii().is_empty())
    }

    /// Says what is wrong with a chunk, remembers its section as broken if the header can be read, and blanks it out.
    fn give_up(&mut self, chunk: &Range<usize>, offset: usize, error: &Error) {
        let part = self.part(chunk);
        let header = header(part);
        let is_in_header = self.text.get(chunk.start..offset).is_some_and(|before| !before.contains('\n'));
        let message = match error.message() {
            "duplicate key" if is_in_header => "the section stands twice".to_owned(),
            "duplicate key" => "the key stands twice".to_owned(),
            message => message.lines().collect::<Vec<_>>().join("; "),
        };
        let name = header.as_ref().map_or("", |(_, name)| name.as_str());
        self.document.problems.error(Place::section(name, self.lines.position(offset)), message);
        if let Some((kind, name)) = header {
            let indent = part.find('[').unwrap_or(0);
            let mut section = Section::new(kind, name, self.lines.position(chunk.start + indent));
            section.is_broken = true;
            self.document.sections.push(section);
        }
        for byte in self.readable.get_mut(chunk.clone()).unwrap_or_default() {
            *byte = if *byte == b'\n' { b'\n' } else { b' ' };
        }
    }
}

/// The section that a chunk's first line opens.
fn header(chunk: &str) -> Option<(SectionKind, String)> {
    let line = chunk.lines().next().filter(|line| line.trim_start().starts_with('['))?;
    let root = DeTable::parse(line).ok()?.into_inner();
    let mut parts = Vec::new();
    let mut table = &root;
    while let Some((key, value)) = table.iter().next() {
        parts.push(key.get_ref().to_string());
        table = match value.get_ref() {
            DeValue::Table(inner) => inner,
            DeValue::Array(items) => items.iter().next().and_then(|item| item.get_ref().as_table())?,
            _ => return None,
        };
    }
    // `[deployer.web.env]` is a part of `[deployer.web]`.
    if parts.first().is_some_and(|first| first == "deployer") {
        parts.truncate(2);
    }
    let name = parts.join(".");
    Some((SectionKind::of(&name), name))
}

/// The text cut before each line that looks like a header.
fn chunks(text: &str) -> Vec<Range<usize>> {
    let mut starts = vec![0];
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if offset > 0 && line.trim_start().starts_with('[') {
            starts.push(offset);
        }
        offset += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect()
}
