//! Answers for people: aligned, with times as people say them.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::paint::Paint;

pub mod event;
pub mod git;
pub mod history;
pub mod plan;
pub mod reports;
pub mod status;
pub mod why;

/// How an answer is shown.
#[derive(Clone, Debug)]
pub struct Show {
    pub paint: Paint,
    now: Timestamp,
    zone: TimeZone,
}

impl Show {
    /// As of now, in the zone of this place.
    pub fn here(paint: Paint) -> Self {
        Self { paint, now: Timestamp::now(), zone: TimeZone::system() }
    }

    /// `2026-07-10 14:03:22`, from milliseconds since the Unix epoch.
    pub fn at(&self, milliseconds: i64) -> String {
        self.zoned(milliseconds).map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M:%S").to_string())
    }

    /// `14:03:22.125`.
    pub fn clock(&self, milliseconds: i64) -> String {
        self.zoned(milliseconds).map_or_else(String::new, |at| at.strftime("%H:%M:%S%.3f").to_string())
    }

    /// `2026-07-10 14:03:22 (5m ago)`.
    pub fn when(&self, milliseconds: i64) -> String {
        format!("{} ({} ago)", self.at(milliseconds), span(self.now.as_millisecond().saturating_sub(milliseconds)))
    }

    /// `in 3s`, or `now` if the time has come.
    pub fn until(&self, milliseconds: i64) -> String {
        match milliseconds.saturating_sub(self.now.as_millisecond()) {
            left if left > 0 => format!("in {}", span(left)),
            _ => "now".to_owned(),
        }
    }

    fn zoned(&self, milliseconds: i64) -> Option<Zoned> {
        Timestamp::from_millisecond(milliseconds).ok().map(|at| at.to_zoned(self.zone.clone()))
    }
}

/// A span of time in the largest unit that it fills: `850ms`, `12s`, `3m`, `5h`, `2d`.
pub fn span(milliseconds: i64) -> String {
    let milliseconds = milliseconds.max(0);
    match milliseconds {
        0..1_000 => format!("{milliseconds}ms"),
        1_000..60_000 => format!("{}s", milliseconds / 1_000),
        60_000..3_600_000 => format!("{}m", milliseconds / 60_000),
        3_600_000..172_800_000 => format!("{}h", milliseconds / 3_600_000),
        _ => format!("{}d", milliseconds / 86_400_000),
    }
}

/// `1 file`, `2 files`.
pub fn count(number: usize, one: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {one}s") }
}

/// Lines of cells, and notes between them; columns as wide as their widest cell.
#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
}

enum Row {
    Cells(Vec<Cell>),
    Note(String),
}

/// A cell, as wide as its text without colours.
pub struct Cell {
    width: usize,
    text: String,
}

impl Cell {
    pub fn plain(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { width: text.chars().count(), text }
    }

    pub fn painted(text: &str, paint: impl FnOnce(&str) -> String) -> Self {
        Self { width: text.chars().count(), text: paint(text) }
    }
}

impl Table {
    pub fn header(&mut self, paint: Paint, names: &[&str]) {
        self.row(names.iter().map(|name| Cell::painted(name, |name| paint.faint(name))).collect());
    }

    pub fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(Row::Cells(cells));
    }

    /// A line that belongs to the row above.
    pub fn note(&mut self, text: impl Into<String>) {
        self.rows.push(Row::Note(text.into()));
    }

    pub fn render(&self) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            let Row::Cells(cells) = row else { continue };
            widths.resize(widths.len().max(cells.len()), 0);
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.width);
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            match row {
                Row::Note(note) => text.push_str(note),
                Row::Cells(cells) => text.push_str(&line(cells, &widths)),
            }
            text.push('\n');
        }
        text
    }
}

fn line(cells: &[Cell], widths: &[usize]) -> String {
    let mut line = String::new();
    let last = cells.iter().rposition(|cell| cell.width > 0).map_or(0, |at| at + 1);
    for (at, (cell, width)) in cells.iter().zip(widths).take(last).enumerate() {
        line.push_str(&cell.text);
        if at + 1 < last {
            line.push_str(&" ".repeat(width - cell.width + 2));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Color;

    #[test]
    fn times_are_said_as_people_say_them() {
        let now = Timestamp::from_millisecond(1_700_000_000_000).unwrap();
        let show = Show { paint: Paint::on_stdout(Color::Never), now, zone: TimeZone::fixed(jiff::tz::offset(2)) };
        insta::assert_snapshot!(show.when(1_699_999_695_000), @"2023-11-15 00:08:15 (5m ago)");
        insta::assert_snapshot!(show.clock(1_700_000_000_123), @"00:13:20.123");
        insta::assert_snapshot!(show.until(1_700_000_003_500), @"in 3s");
        insta::assert_snapshot!(show.until(0), @"now");
        let spans = [-5, 0, 999, 1_000, 59_999, 3_599_999, 3_600_000, 172_799_999, 172_800_000, i64::MAX];
        insta::assert_snapshot!(spans.map(span).join(" "), @"0ms 0ms 999ms 1s 59s 59m 1h 47h 2d 106751991167d");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_have_no_blank_end() {
        let mut table = Table::default();
        table.row(vec![Cell::plain("a"), Cell::plain("bb"), Cell::plain("")]);
        table.note("  a note of any length");
        table.row(vec![
            Cell::plain("ää"),
            Cell::painted("c", |text| format!("\x1b[1m{text}\x1b[0m")),
            Cell::plain("d"),
        ]);
        assert_eq!(table.render(), "a   bb\n  a note of any length\nää  \x1b[1mc\x1b[0m   d\n");
    }
}
