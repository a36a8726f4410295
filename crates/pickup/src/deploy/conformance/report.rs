//! What came of each case.

use std::fmt;
use std::path::PathBuf;

use super::Case;

/// What came of every case, in the order they were run. `Display` gives one line for each.
#[derive(Clone, Debug)]
pub struct Report {
    /// One for each of [`Case::ALL`].
    pub entries: Vec<Entry>,
}

/// What came of one case.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What was put to the test.
    pub case: Case,
    /// What came of it.
    pub finding: Finding,
}

/// What may come of a case.
#[derive(Clone, Debug)]
pub enum Finding {
    /// The promise was kept.
    Passed,
    /// It was not.
    Failed(Failure),
    /// It was not put to the test, for this reason.
    NotApplicable(String),
}

/// How a promise was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was done, in order; the last of them is where it broke.
    pub steps: Vec<String>,
    /// What was to be.
    pub expected: String,
    /// What was.
    pub seen: String,
    /// Where it happened: the directory is left for a look.
    pub place: PathBuf,
}

impl Report {
    /// Whether every case passed or is not applicable.
    pub fn is_conforming(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The promises that were broken, and how.
    pub fn failures(&self) -> impl Iterator<Item = (Case, &Failure)> {
        self.entries.iter().filter_map(|entry| match &entry.finding {
            Finding::Failed(failure) => Some((entry.case, failure)),
            Finding::Passed | Finding::NotApplicable(_) => None,
        })
    }

    /// The promises that were not put to the test, and why.
    pub fn not_applicable(&self) -> impl Iterator<Item = (Case, &str)> {
        self.entries.iter().filter_map(|entry| match &entry.finding {
            Finding::NotApplicable(reason) => Some((entry.case, reason.as_str())),
            Finding::Passed | Finding::Failed(_) => None,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, entry) in self.entries.iter().enumerate() {
            let line_end = if at == 0 { "" } else { "\n" };
            write!(f, "{line_end}{entry}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.finding {
            Finding::Passed => write!(f, "passed: {}", self.case),
            Finding::NotApplicable(reason) => write!(f, "not applicable: {} ({reason})", self.case),
            Finding::Failed(failure) => write!(f, "FAILED: {}: {failure}", self.case),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { steps, expected, seen, place } = self;
        write!(f, "{}: expected {expected}, but {seen}; left in {}", steps.join(", "), place.display())
    }
}
