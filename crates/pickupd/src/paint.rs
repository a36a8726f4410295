//! Colours, and what must not reach a terminal.

use std::io::IsTerminal;

use clap::builder::styling::{AnsiColor, Style};

use crate::cli::Color;

/// Whether and how to colour.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    is_on: bool,
}

impl Paint {
    pub fn on_stdout(color: Color) -> Self {
        Self::new(color, std::io::stdout().is_terminal())
    }

    pub fn on_stderr(color: Color) -> Self {
        Self::new(color, std::io::stderr().is_terminal())
    }

    fn new(color: Color, is_terminal: bool) -> Self {
        // https://no-color.org: set and not empty.
        let is_unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_dumb = std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb");
        let is_on = match color {
            Color::Auto => is_terminal && !is_unwanted && !is_dumb,
            Color::Always => true,
            Color::Never => false,
        };
        Self { is_on }
    }

    pub fn good(self, text: &str) -> String {
        self.paint(AnsiColor::Green.on_default(), text)
    }

    pub fn warn(self, text: &str) -> String {
        self.paint(AnsiColor::Yellow.on_default(), text)
    }

    pub fn bad(self, text: &str) -> String {
        self.paint(AnsiColor::Red.on_default().bold(), text)
    }

    pub fn strong(self, text: &str) -> String {
        self.paint(Style::new().bold(), text)
    }

    pub fn faint(self, text: &str) -> String {
        self.paint(Style::new().dimmed(), text)
    }

    fn paint(self, style: Style, text: &str) -> String {
        if self.is_on { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// `text` on one line, what steers spelt out: a file's name must not steer the terminal.
pub fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) { visible.extend(c.escape_default()) } else { visible.push(c) }
    }
    visible
}

/// Whether a character changes how others are shown: control characters, line ends, and those that turn the direction of
/// writing, with which `exe.txt` can be made to look like `txt.exe`.
pub fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// JSON with what steers escaped, as JSON escapes it: it means the same to programs, and nothing to a terminal.
pub fn harmless(json: &str) -> String {
    use std::fmt::Write;
    let mut harmless = String::with_capacity(json.len());
    for c in json.chars() {
        // All of them but line ends and spaces between values are within strings, and none takes two units of UTF-16.
        if steers(c) && c != '\n' {
            let _infallible = write!(harmless, "\\u{:04x}", u32::from(c));
        } else {
            harmless.push(c);
        }
    }
    harmless
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_means_the_same_without_what_steers() {
        let name = "\u{7f}\u{9b}2J\u{202e}gpj.exe\u{2066}\u{2028}\n\u{1b}[31m\u{e4}\u{1f600}";
        for text in [serde_json::to_string(name).unwrap(), serde_json::to_string_pretty(&[name]).unwrap()] {
            let shown = harmless(&text);
            assert!(!shown.chars().any(|c| steers(c) && c != '\n'), "{shown:?}");
            let (before, after): (serde_json::Value, serde_json::Value) =
                (serde_json::from_str(&text).unwrap(), serde_json::from_str(&shown).unwrap());
            assert_eq!(before, after);
        }
    }
}
