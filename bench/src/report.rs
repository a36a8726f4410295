//! `docs/benchmarks.md`, its pictures, and the table on the terminal: all made from figures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::figure::{Figure, Table, Unit};
use crate::machine::Machine;
use crate::plot;
use crate::results::Results;

/// How the document begins.
const HEAD: &str = "# Benchmarks\n\n\
    pickup and its peers, side by side in one run on one machine. Check it on yours:\n\n\
    ```sh\n\
    cargo run --release -p bench -- peers    # which peers are here, and how to get the others; nothing is installed\n\
    cargo run --release -p bench -- all      # or one of the names below; --quick tries it with little\n\
    cargo run --release -p bench -- report   # writes this page from bench/results/*.json\n\
    ```\n\n\
    Each cell is the median of all rounds, with the 99th percentile behind a slash where there are a hundred samples or more. \
    `×` is how many times the peer's figure is ours (the first row of ours): above 1, the peer is slower or needs more. Peers take \
    turns with us, round by round, on the same file system. What could not be measured says why. Less is always better. \
    This page is generated; it says where we are not first.\n";

/// Writes the document and its pictures.
pub fn write(workspace: &Path) -> Result<()> {
    for (path, text) in files(workspace)? {
        let path = workspace.join(path);
        std::fs::create_dir_all(path.parent().context("a directory")?)?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        println!("written: {}", path.display());
    }
    Ok(())
}

/// Every file of the report, by its path in the workspace.
pub fn files(workspace: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut files = BTreeMap::new();
    let mut text = HEAD.to_owned();
    for bench in crate::benches() {
        let Some(results) = Results::load(workspace, bench.name)? else { continue };
        section(&mut text, &results);
        for (name, picture) in plot::pictures(&results.table) {
            files.insert(Path::new("docs/benchmarks").join(name), picture);
        }
    }
    files.insert("docs/benchmarks.md".into(), text);
    Ok(files)
}

fn section(text: &mut String, results: &Results) {
    let table = &results.table;
    let _ = writeln!(text, "\n## {}", table.title);
    let _ = writeln!(text, "`bench {}`. {}\n", table.bench, table.work);
    for (name, _) in plot::pictures(table) {
        let _ = writeln!(text, "![{}](benchmarks/{name})\n", table.title);
    }
    markdown(text, &rows(table));
    text.push('\n');
    for line in standing(table).iter().chain(&table.remarks).chain(&notes(table)) {
        let _ = writeln!(text, "- {line}");
    }
    let _ = writeln!(text, "\n{}", origin(results));
}

/// Where the figures come from, in a sentence.
fn origin(results: &Results) -> String {
    let Machine { processor, cores, memory, kernel, file_system, load } = &results.machine;
    let versions: Vec<String> = results.versions.iter().map(|(name, version)| versioned(name, version)).collect();
    format!(
        "<sub>{}; {cores} × {processor}, {} GiB, Linux {kernel}, {file_system}; load {load:.1} before the start; rounds: {}; {}.</sub>",
        results.date,
        memory >> 30,
        results.rounds,
        versions.join(", ")
    )
}

fn versioned(name: &str, version: &str) -> String {
    if version.starts_with(name) { version.to_owned() } else { format!("{name} {version}") }
}

/// What the figures say about who is first, a sentence for each measure of time or memory.
fn standing(table: &Table) -> Vec<String> {
    let mut lines = Vec::new();
    for measure in measures(table) {
        let is_it =
            |figure: &&Figure| figure.measure == measure && figure.unit != Unit::Count && !has_missed(table, figure);
        let figures = table.figures.iter().filter(is_it);
        let best = |is_ours: bool| {
            let medians = figures.clone().filter(|figure| figure.is_ours() == is_ours);
            let medians = medians.filter_map(|figure| Some((figure, figure.median()?)));
            medians.min_by(|one, other| one.1.total_cmp(&other.1))
        };
        let (Some((our, ours)), Some((peer, theirs))) = (best(true), best(false)) else { continue };
        let both = format!("{} against {}", amount(our.unit, ours), amount(peer.unit, theirs));
        if ours <= theirs {
            lines.push(format!("{measure}: **first**, {both} of the next, {}.", peer.subject));
        } else {
            let times = if theirs > 0.0 { format!("{} times less", times(ours / theirs)) } else { "less".into() };
            lines.push(format!("{measure}: **not first**. {} takes {times}: {both}.", peer.subject));
        }
    }
    lines
}

/// Whether the subject of `figure` missed anything: who leaves work undone is not compared with those who do it.
fn has_missed(table: &Table, figure: &Figure) -> bool {
    let is_it = |other: &&Figure| other.subject == figure.subject && other.measure == "missed";
    table.figures.iter().find(is_it).is_some_and(|missed| missed.samples.iter().any(|count| *count > 0.0))
}

fn notes(table: &Table) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for figure in &table.figures {
        if let Some(note) = &figure.note {
            let line = if figure.samples.is_empty() {
                format!("{}, {}: not measured, {note}.", figure.subject, figure.measure)
            } else {
                format!("{}: {note}.", figure.subject)
            };
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

/// Measures in the order in which they first come.
pub fn measures(table: &Table) -> Vec<&str> {
    distinct(table.figures.iter().map(|figure| figure.measure.as_str()))
}

/// Subjects in the order in which they first come.
pub fn subjects(table: &Table) -> Vec<&str> {
    distinct(table.figures.iter().map(|figure| figure.subject.as_str()))
}

fn distinct<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all = Vec::new();
    for word in words {
        if !all.contains(&word) {
            all.push(word);
        }
    }
    all
}

/// A row for each subject, a column for each measure; the heading is the first row.
fn rows(table: &Table) -> Vec<Vec<String>> {
    let measures = measures(table);
    let mut rows = vec![std::iter::once("").chain(measures.iter().copied()).map(str::to_owned).collect::<Vec<_>>()];
    for subject in subjects(table) {
        let mut row = vec![subject.to_owned()];
        for measure in &measures {
            let of = |figure: &&Figure| figure.measure == *measure;
            let figure = table.figures.iter().filter(of).find(|figure| figure.subject == subject);
            let ours = table.figures.iter().filter(of).find(|figure| figure.is_ours()).and_then(Figure::median);
            row.push(figure.map_or("–".into(), |figure| cell(figure, ours)));
        }
        rows.push(row);
    }
    rows
}

fn cell(figure: &Figure, ours: Option<f64>) -> String {
    let Some(median) = figure.median() else { return "–".into() };
    let mut text = amount(figure.unit, median);
    if let (Some(high), true) = (figure.quantile(0.99), figure.samples.len() >= 100) {
        let _ = write!(text, " / {}", amount(figure.unit, high));
    }
    match (ours, figure.unit) {
        (Some(ours), Unit::Seconds | Unit::Bytes | Unit::CpuSeconds) if ours > 0.0 && !figure.is_ours() => {
            let _ = write!(text, " (×{})", times(median / ours));
        }
        _ => {}
    }
    text
}

/// A ratio with two digits that matter.
fn times(ratio: f64) -> String {
    match ratio {
        ratio if ratio >= 10.0 => format!("{ratio:.0}"),
        ratio if ratio >= 1.0 => format!("{ratio:.1}"),
        ratio => format!("{ratio:.2}"),
    }
}

/// An amount with its unit, for people.
pub fn amount(unit: Unit, value: f64) -> String {
    let scaled = |steps: &[(f64, &str)]| {
        let (scale, name) =
            steps.iter().find(|(scale, _)| value >= *scale).or(steps.last()).copied().unwrap_or((1.0, ""));
        let value = value / scale;
        match value {
            0.0 => "0".to_owned(),
            value if value >= 100.0 => format!("{value:.0} {name}"),
            value if value >= 10.0 => format!("{value:.1} {name}"),
            value => format!("{value:.2} {name}"),
        }
    };
    match unit {
        Unit::Seconds | Unit::CpuSeconds => scaled(&[(1.0, "s"), (1e-3, "ms"), (1e-6, "µs")]),
        Unit::Bytes => scaled(&[(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")]),
        Unit::Count if value.fract() == 0.0 => format!("{value:.0}"),
        Unit::Count | Unit::Ratio => format!("{value:.2}"),
    }
}

fn markdown(text: &mut String, rows: &[Vec<String>]) {
    for (number, row) in rows.iter().enumerate() {
        let _ = writeln!(text, "| {} |", row.join(" | "));
        if number == 0 {
            let _ = writeln!(text, "|---|{}", "--:|".repeat(row.len().saturating_sub(1)));
        }
    }
}

/// The table as it is printed.
pub fn text(table: &Table) -> String {
    let rows = rows(table);
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in &rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column == 0 { write!(text, "{cell:<width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.push('\n');
    }
    for line in standing(table).iter().chain(&table.remarks).chain(&notes(table)) {
        let _ = writeln!(text, "- {line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::workspace;

    #[test]
    fn the_committed_report_is_what_the_committed_results_give() {
        let files = files(workspace()).unwrap();
        for (path, text) in &files {
            let committed = std::fs::read_to_string(workspace().join(path)).unwrap_or_default();
            assert!(committed == *text, "{} is old: run `cargo run -p bench -- report`", path.display());
        }
        for entry in std::fs::read_dir(workspace().join("docs/benchmarks")).into_iter().flatten() {
            let path = Path::new("docs/benchmarks").join(entry.unwrap().file_name());
            assert!(files.contains_key(&path), "{} is nobody's", path.display());
        }
    }

    #[test]
    fn who_is_not_first_is_told_so() {
        let mut table = Table::new("b", "t", "w");
        table.add("rsync", "time", Unit::Seconds, [1.0]);
        table.add("pickup", "time", Unit::Seconds, [1.8]);
        table.add("pickup", "memory", Unit::Bytes, [10.0]);
        table.add("rsync", "memory", Unit::Bytes, [20.0]);
        assert_eq!(
            standing(&table),
            [
                "time: **not first**. rsync takes 1.8 times less: 1.80 s against 1.00 s.",
                "memory: **first**, 10.0 B against 20.0 B of the next, rsync."
            ]
        );
        assert_eq!(rows(&table)[1], ["rsync", "1.00 s (×0.56)", "20.0 B (×2.0)"]);
    }
}
