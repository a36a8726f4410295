//! What is wrong with a configuration: how it is gathered, limited and shown.

use std::fmt;
use std::path::{Path, PathBuf};

use super::document::Position;
use super::{Problem, Severity};

/// More than anybody reads; a text of nothing but mistakes must not cost more memory than this.
const PROBLEMS_MAX: usize = 200;

/// A suggestion further away than this is noise.
const NEAREST_MIN: f64 = 0.7;

impl fmt::Display for Problem {
    /// `file:line:column: error: [section] key: message (did you mean `x`?)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
        }
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{}:{}: {severity}: ", self.line, self.column)?;
        if !self.section.is_empty() {
            write!(f, "[{}] ", self.section)?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.nearest {
            Some(nearest) => write!(f, " (did you mean `{nearest}`?)"),
            None => Ok(()),
        }
    }
}

/// The problems found so far, at most [`PROBLEMS_MAX`].
#[derive(Debug)]
pub(crate) struct Problems {
    file: Option<PathBuf>,
    found: Vec<Problem>,
    dropped: usize,
    has_errors: bool,
}

impl Problems {
    pub(crate) fn new(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_path_buf), found: Vec::new(), dropped: 0, has_errors: false }
    }

    /// Whether another problem would only be counted: spares the search for suggestions.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= PROBLEMS_MAX
    }

    pub(crate) fn has_errors(&self) -> bool {
        self.has_errors
    }

    pub(crate) fn error(&mut self, place: Place<'_>, message: impl Into<String>) {
        self.push(Severity::Error, place, message.into(), None);
    }

    pub(crate) fn warning(&mut self, place: Place<'_>, message: impl Into<String>) {
        self.push(Severity::Warning, place, message.into(), None);
    }

    /// Reports a name that is not known, with the nearest of the `known` ones.
    pub(crate) fn unknown<'k>(
        &mut self,
        severity: Severity,
        place: Place<'_>,
        message: impl Into<String>,
        name: &str,
        known: impl IntoIterator<Item = &'k str>,
    ) {
        let nearest = if self.is_full() { None } else { nearest(name, known) };
        self.push(severity, place, message.into(), nearest);
    }

    fn push(&mut self, severity: Severity, place: Place<'_>, message: String, nearest: Option<String>) {
        self.has_errors |= severity == Severity::Error;
        if self.is_full() {
            self.dropped += 1;
            return;
        }
        self.found.push(Problem {
            severity,
            file: self.file.clone(),
            line: place.at.line,
            column: place.at.column,
            section: shorten(place.section),
            key: place.key.map(shorten),
            message: visible(&message),
            nearest,
        });
    }

    /// All of them in file order, with a last one that counts those left out.
    pub(crate) fn into_vec(mut self) -> Vec<Problem> {
        self.found.sort_by_key(|problem| (problem.line, problem.column));
        if self.dropped > 0 {
            let at = self.found.last().map_or((1, 1), |last| (last.line, last.column));
            self.found.push(Problem {
                severity: if self.has_errors { Severity::Error } else { Severity::Warning },
                file: self.file,
                line: at.0,
                column: at.1,
                section: String::new(),
                key: None,
                message: format!("{} more problems are not shown", self.dropped),
                nearest: None,
            });
        }
        self.found
    }
}

/// What a problem concerns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) at: Position,
    pub(crate) section: &'a str,
    pub(crate) key: Option<&'a str>,
}

impl<'a> Place<'a> {
    pub(crate) fn section(section: &'a str, at: Position) -> Self {
        Self { at, section, key: None }
    }

    pub(crate) fn key(section: &'a str, key: &'a str, at: Position) -> Self {
        Self { at, section, key: Some(key) }
    }
}

/// The known name that is most like `name`, if any is like it at all.
pub(crate) fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<String> {
    // The measure is quadratic in the length; no name of ours is longer.
    if name.len() > 200 {
        return None;
    }
    let name = name.to_lowercase();
    let scored = known.into_iter().map(|known| (strsim::jaro_winkler(&name, &known.to_lowercase()), known));
    let best = scored.filter(|(score, _)| *score >= NEAREST_MIN).max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(best.1.to_owned())
}

/// Cuts what comes from the text to a length fit for a message.
pub(crate) fn shorten(text: &str) -> String {
    const LENGTH_MAX: usize = 120;
    if text.chars().count() <= LENGTH_MAX {
        return visible(text);
    }
    visible(&text.chars().take(LENGTH_MAX).chain(['…']).collect::<String>())
}

/// Spells out control characters: a problem is one line, and must not steer the terminal it is shown on.
fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { visible.extend(c.escape_default()) } else { visible.push(c) }
    }
    visible
}
