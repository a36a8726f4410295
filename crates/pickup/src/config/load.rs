//! The ways in: a text, a file, or no file at all.
#![expect(clippy::disallowed_methods, reason = "this is the door to the configuration file")]

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::document::{Document, Lines};
use super::problem::Problems;
use super::{Config, Dialect, Problem, Severity, Surroundings, detect, resolve, toml, zato};
use crate::error::{Error, ErrorKind, IoContext, Result};

/// No configuration is larger; whatever is, was named by mistake.
const FILE_MAX: u64 = 1 << 20;

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
        Self::parse(&Self::read(path)?, Some(path), surroundings).map_err(|problems| {
            let more = problems.len().saturating_sub(LISTED_MAX);
            let mut lines: Vec<_> = problems.iter().take(LISTED_MAX).map(Problem::to_string).collect();
            if more > 0 {
                lines.push(format!("{more} more problems"));
            }
            Error::new(ErrorKind::Config, format!("use configuration: {}", lines.join("; ")))
        })
    }

    /// The text of the file at `path`, for [`parse`](Self::parse).
    ///
    /// # Errors
    /// If the file cannot be read, is no regular file, larger than 1 MiB or not UTF-8.
    pub fn read(path: &Path) -> Result<String> {
        let refuse = |action: &str| Error::new(ErrorKind::Config, action).at(path);
        if !std::fs::metadata(path).doing("read configuration", path)?.is_file() {
            return Err(refuse("read configuration that is no regular file:"));
        }
        let file = File::open(path).doing("read configuration", path)?;
        let mut bytes = Vec::new();
        file.take(FILE_MAX + 1).read_to_end(&mut bytes).doing("read configuration", path)?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(refuse("read configuration of more than 1 MiB:"));
        }
        String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let good = String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default()).into_owned();
            let at = Lines::new(&good).position(good.len());
            let place = format!("{}:{}:{}", path.display(), at.line, at.column);
            Error::new(ErrorKind::Config, format!("use configuration: {place}: error: the file is not UTF-8"))
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
