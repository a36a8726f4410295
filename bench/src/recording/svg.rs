//! Lines of a terminal as an SVG whose lines appear one after the other.

use std::fmt::Write;
use std::time::Duration;

use super::Line;

/// How long a letter takes to be typed.
pub const LETTER: Duration = Duration::from_millis(28);

const LETTER_WIDTH: f64 = 8.0;
const LINE_HEIGHT: f64 = 19.0;
const MARGIN: f64 = 16.0;
const TITLE: f64 = 30.0;

/// How long the end stands before all of it begins anew.
const REST: Duration = Duration::from_secs(8);

const COLOURS: [&str; 8] = ["#6e7681", "#ff7b72", "#7ee787", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#c9d1d9"];

/// Draws the lines. Where animations are not shown, or not wanted, all of them are there at once.
pub fn draw(lines: &[Line], columns: u16) -> String {
    let width = f64::from(columns).mul_add(LETTER_WIDTH, 2.0 * MARGIN);
    let height = (lines.len() as f64).mul_add(LINE_HEIGHT, TITLE + MARGIN);
    let end = lines.last().map_or(Duration::ZERO, |line| line.appears.at) + REST;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         role=\"img\" aria-label=\"A terminal session with pickupd\">\n<style>\n\
         text {{ font: 13px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: #c9d1d9; \
         white-space: pre; }}\n.b {{ font-weight: 700; }}\n.d {{ opacity: 0.65; }}\n"
    );
    for (number, colour) in COLOURS.iter().enumerate() {
        let _ = writeln!(text, ".c{number} {{ fill: {colour}; }}");
    }
    text.push_str("@media (prefers-reduced-motion: no-preference) {\n");
    for (row, line) in lines.iter().enumerate() {
        animate(&mut text, row, line, end);
    }
    let _ = write!(
        text,
        "}}\n</style>\n<rect width=\"{width}\" height=\"{height}\" rx=\"8\" fill=\"#0d1117\"/>\n\
         <circle cx=\"18\" cy=\"16\" r=\"5\" fill=\"#ff5f56\"/><circle cx=\"36\" cy=\"16\" r=\"5\" fill=\"#ffbd2e\"/>\
         <circle cx=\"54\" cy=\"16\" r=\"5\" fill=\"#27c93f\"/>\n"
    );
    for (row, line) in lines.iter().enumerate() {
        let y = (row as f64 + 0.75).mul_add(LINE_HEIGHT, TITLE);
        let _ = writeln!(
            text,
            "<text class=\"r{row}\" x=\"{MARGIN}\" y=\"{y}\" xml:space=\"preserve\">{}</text>",
            spans(line)
        );
    }
    text.push_str("</svg>\n");
    text
}

/// A line is not to be seen until its time; one that is typed comes letter by letter.
fn animate(text: &mut String, row: usize, line: &Line, end: Duration) {
    let percent = |at: Duration| 100.0 * at.as_secs_f64() / end.as_secs_f64();
    let start = percent(line.appears.at);
    let total = end.as_secs_f64();
    let letters = width(line);
    if line.appears.is_typed && letters > 0 {
        let done = percent(line.appears.at + LETTER * u32::try_from(letters).unwrap_or(0));
        let _ = writeln!(
            text,
            "@keyframes k{row} {{ 0%, {start:.2}% {{ clip-path: inset(-9px 100% -9px 0); animation-timing-function: \
             steps({letters}); }} {done:.2}%, 100% {{ clip-path: inset(-9px 0 -9px 0); }} }}"
        );
    } else {
        let _ = writeln!(
            text,
            "@keyframes k{row} {{ 0%, {start:.2}% {{ opacity: 0; }} {:.2}%, 100% {{ opacity: 1; }} }}",
            (start + 0.01).min(100.0)
        );
    }
    let _ = writeln!(text, ".r{row} {{ animation: k{row} {total:.2}s linear infinite; }}");
}

/// How many cells of a line hold something.
fn width(line: &Line) -> usize {
    line.cells.iter().rposition(|cell| !cell.contents().trim().is_empty()).map_or(0, |last| last + 1)
}

/// The line's text, a span for each run of one colour.
fn spans(line: &Line) -> String {
    let mut text = String::new();
    let mut open: Option<String> = None;
    for cell in line.cells.iter().take(width(line)) {
        let class = class(cell);
        if open.as_ref() != Some(&class) {
            if open.is_some() {
                text.push_str("</tspan>");
            }
            let _ = write!(text, "<tspan class=\"{class}\">");
            open = Some(class);
        }
        match cell.contents() {
            "" => text.push(' '),
            "<" => text.push_str("&lt;"),
            ">" => text.push_str("&gt;"),
            "&" => text.push_str("&amp;"),
            other => text.push_str(other),
        }
    }
    if open.is_some() {
        text.push_str("</tspan>");
    }
    text
}

fn class(cell: &vt100::Cell) -> String {
    let mut class = String::new();
    if let vt100::Color::Idx(number) = cell.fgcolor() {
        let _ = write!(class, "c{}", number % 8);
    }
    if cell.bold() {
        class.push_str(" b");
    }
    if cell.dim() {
        class.push_str(" d");
    }
    class.trim().to_owned()
}
