//! The ways in: a text, a file, or no file at all.

use std::collections::BTreeSet;
use std::path::Path;

use super::document::Document;
use super::problem::Problems;
use super::{Config, Dialect, Problem, Severity, Surroundings, detect, resolve, toml, zato};
use crate::error::{Error, ErrorKind, Result};

/// How many problems of a text that cannot be read at all go into one message.
const LISTED_MAX: usize = 10;

impl Config {
    /// Reads `text` in whichever dialect it is written. Good entries and what is wrong with the others come together.
    ///
    /// # Errors
    /// The problems, if nothing could be read at all.
    pub fn parse(text: &str, file: Option<&Path>, surroundings: &Surroundings) -> Result<Self, Vec<Problem>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let dialect = detect::dialect(text);
        let mut read = (dialect, read(text, dialect, file));
        if read.1.is_unreadable() {
            // The guess may have been wrong, if the text makes perfect sense otherwise.
            let other = match dialect {
                Dialect::Toml => Dialect::Zato,
                Dialect::Zato => Dialect::Toml,
            };
            let again = self::read(text, other, file);
            if again.problems.has_errors() {
                return Err(read.1.problems.into_vec());
            }
            read = (other, again);
        }
        Ok(resolve::resolve(read.1, read.0, file, &surroundings.settled(file)))
    }

    /// Reads the file at `path`, of at most 1 MiB. Relative paths mean relative to it unless `surroundings` say otherwise.
    ///
    /// # Errors
    /// If the file cannot be read, is too large or not UTF-8, or does not parse at all; the message then lists
    /// `file:line:column: error: …`.
    pub fn load(path: &Path, surroundings: &Surroundings) -> Result<Self> {
        Self::of_file(&Self::read(path)?, path, surroundings)
    }

    /// As [`load`](Self::load), of a text that was read before.
    pub(crate) fn of_file(text: &str, path: &Path, surroundings: &Surroundings) -> Result<Self> {
        Self::parse(text, Some(path), surroundings).map_err(|problems| {
            let more = problems.len().saturating_sub(LISTED_MAX);
            let mut lines: Vec<_> = problems.iter().take(LISTED_MAX).map(Problem::to_string).collect();
            if more > 0 {
                lines.push(format!("{more} more problems"));
            }
            Error::new(ErrorKind::Config, format!("use configuration: {}", lines.join("; ")))
        })
    }

    /// What holds without a file: one entry called `default` on `./pickup/incoming/services/`, copied beside it.
    pub fn embedded(surroundings: &Surroundings) -> Self {
        let nothing = Document { sections: Vec::new(), problems: Problems::new(None) };
        resolve::resolve(nothing, Dialect::Toml, None, &surroundings.settled(None))
    }

    /// Whether any entry, deployer or setting is broken.
    pub fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// The names of the entries that a problem keeps from running.
    pub fn broken_pickups(&self) -> BTreeSet<&str> {
        let errors = self.problems.iter().filter(|problem| problem.severity == Severity::Error);
        let names = errors.filter_map(|problem| problem.section.strip_prefix("hot-deploy.user."));
        names.filter(|name| !self.pickups.contains_key(*name)).collect()
    }
}

fn read(text: &str, dialect: Dialect, file: Option<&Path>) -> Document {
    let problems = Problems::new(file);
    match dialect {
        Dialect::Toml => toml::parse(text, problems),
        Dialect::Zato => zato::parse(text, problems),
    }
}
