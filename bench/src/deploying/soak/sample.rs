//! What the daemon holds, each second, and whether it grows.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::figure::{Series, Unit};

/// Looks at a process and its state directory.
pub struct Sampler {
    id: u32,
    state: PathBuf,
    start: Instant,
    series: [Series; 5],
}

impl Sampler {
    /// Of process `id`, whose state is in `state`.
    pub fn new(id: u32, state: &Path) -> Self {
        let series = [
            ("resident memory", Unit::Bytes),
            ("peak memory", Unit::Bytes),
            ("open descriptors", Unit::Count),
            ("threads", Unit::Count),
            ("state directory", Unit::Bytes),
        ];
        let series = series.map(|(name, unit)| Series { name: name.into(), unit, points: Vec::new() });
        Self { id, state: state.into(), start: Instant::now(), series }
    }

    /// Takes a sample of each.
    pub fn sample(&mut self) -> Result<()> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id)).context("the daemon has ended")?;
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.id)).context("count descriptors")?.count();
        let values = [
            number("VmRSS:") * 1024.0,
            number("VmHWM:") * 1024.0,
            descriptors as f64,
            number("Threads:"),
            size(&self.state) as f64,
        ];
        let at = self.start.elapsed().as_secs_f64();
        for (series, value) in self.series.iter_mut().zip(values) {
            series.points.push((at, value));
        }
        Ok(())
    }

    /// Everything that was sampled.
    pub fn finish(self) -> impl Iterator<Item = Series> {
        self.series.into_iter()
    }
}

/// The bytes of all files below a directory. Some may go while we look.
fn size(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    let of_entry = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of_entry).sum()
}

/// The straight line through the second half of a series.
pub struct Trend {
    /// What the line gains from the first to the last point.
    pub gained: f64,
    mean: f64,
    /// The standard deviation around the line.
    scatter: f64,
    unit: Unit,
}

impl Trend {
    /// By least squares.
    pub fn of_second_half(series: &Series) -> Self {
        let points = &series.points[series.points.len() / 2..];
        let count = (points.len() as f64).max(1.0);
        let middle = points.iter().map(|point| point.0).sum::<f64>() / count;
        let mean = points.iter().map(|point| point.1).sum::<f64>() / count;
        let spread: f64 = points.iter().map(|point| (point.0 - middle).powi(2)).sum();
        let joint: f64 = points.iter().map(|point| (point.0 - middle) * (point.1 - mean)).sum();
        let slope = if spread > 0.0 { joint / spread } else { 0.0 };
        let off = |point: &(f64, f64)| (point.1 - mean - slope * (point.0 - middle)).powi(2);
        let scatter = (points.iter().map(off).sum::<f64>() / count).sqrt();
        let span = points.last().zip(points.first()).map_or(0.0, |(last, first)| last.0 - first.0);
        Self { gained: slope * span, mean, scatter, unit: series.unit }
    }

    fn is_flat(&self) -> bool {
        self.gained <= (2.0 * self.scatter).max(self.mean / 100.0).max(1.0)
    }
}

impl fmt::Display for Trend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_flat() { "flat" } else { "it grows" };
        let (scale, unit) = if self.unit == Unit::Bytes { (1024.0 * 1024.0, " MiB") } else { (1.0, "") };
        let [gained, mean, scatter] = [self.gained, self.mean, self.scatter].map(|value| value / scale);
        write!(
            f,
            "{word}; {gained:+.2}{unit} in the second half, around a mean of {mean:.2}{unit} with a scatter of {scatter:.2}{unit}."
        )
    }
}
