//! What a bench gives: figures, each with all its samples, and what explains them.

use serde::{Deserialize, Serialize};

/// The name under which we stand among the peers. Subjects that begin with it are ours.
pub const OURS: &str = "pickup";

/// What samples count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Time that passed.
    Seconds,
    /// Memory, or data read or written.
    Bytes,
    /// A number of things.
    Count,
    /// A quotient.
    Ratio,
    /// Time that a processor worked.
    CpuSeconds,
}

/// One measure of one subject.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figure {
    /// Who was measured: `pickup`, `pickup, quiet = 0`, `watchexec`, `rsync` …
    pub subject: String,
    /// What was measured: `latency`, `missed`, `peak memory` … Less is better, always.
    pub measure: String,
    /// What the samples count.
    pub unit: Unit,
    /// One a round, or one an event: a table shows their median, and p99 where there are a hundred of them. None if it could
    /// not be measured: the note says why.
    pub samples: Vec<f64>,
    /// What a reader must know about this figure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Figure {
    /// A figure without a note.
    pub fn new(subject: impl Into<String>, measure: impl Into<String>, unit: Unit, samples: Vec<f64>) -> Self {
        Self { subject: subject.into(), measure: measure.into(), unit, samples, note: None }
    }

    /// With a note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    /// The sample that `share` of all samples do not exceed; `None` without samples.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let mut sorted = self.samples.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the length")]
        let index = (last as f64 * share).round() as usize;
        sorted.get(index).copied()
    }

    /// The middle sample; `None` without samples.
    pub fn median(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// Whether this is a figure of ours.
    pub fn is_ours(&self) -> bool {
        self.subject.starts_with(OURS)
    }
}

/// A quantity over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// What it counts.
    pub unit: Unit,
    /// Seconds since the start, and the quantity then.
    pub points: Vec<(f64, f64)>,
}

/// What a bench gives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// The bench's name, which is its subcommand, too.
    pub bench: String,
    /// A heading.
    pub title: String,
    /// What was done, in a sentence or two.
    pub work: String,
    /// What came of it, in the order in which it is shown.
    pub figures: Vec<Figure>,
    /// What explains the figures: above all, why we are not first where we are not.
    pub remarks: Vec<String>,
    /// What is shown over time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Series>,
}

impl Table {
    /// A table without figures.
    pub fn new(bench: &str, title: impl Into<String>, work: impl Into<String>) -> Self {
        let (title, work) = (title.into(), work.into());
        Self { bench: bench.into(), title, work, figures: Vec::new(), remarks: Vec::new(), series: Vec::new() }
    }

    /// Adds samples to the figure of `subject` and `measure`, which is made if there is none.
    pub fn add(&mut self, subject: &str, measure: &str, unit: Unit, samples: impl IntoIterator<Item = f64>) {
        let is_it = |figure: &&mut Figure| figure.subject == subject && figure.measure == measure;
        match self.figures.iter_mut().find(is_it) {
            Some(figure) => figure.samples.extend(samples),
            None => self.figures.push(Figure::new(subject, measure, unit, samples.into_iter().collect())),
        }
    }

    /// Gives a note to every figure of `subject`, or to the one of `measure` alone.
    pub fn note(&mut self, subject: &str, measure: Option<&str>, note: &str) {
        for figure in &mut self.figures {
            if figure.subject == subject && measure.is_none_or(|measure| figure.measure == measure) {
                figure.note = Some(note.to_owned());
            }
        }
    }

    /// Says what explains the figures.
    pub fn remark(&mut self, remark: impl Into<String>) {
        self.remarks.push(remark.into());
    }
}
