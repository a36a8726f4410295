//! Which dialect a text is written in, told from its content.
//!
//! Text that parses as TOML is TOML. Otherwise each line is weighed: bare words are Zato's, quotes, arrays and inline
//! tables are TOML's, so that a TOML file with a typo is still reported as the TOML file it was meant to be.

use ::toml::de::{DeTable, DeValue};

use super::Dialect;
use super::toml::too_deep;

/// How much each kind of evidence counts. Positive is TOML, negative is Zato.
const ARRAY_OR_TABLE: i64 = 3;
const QUOTED: i64 = 2;
const SPACED: i64 = 1;
const PACKED: i64 = -1;
const BARE_WORD: i64 = -2;
const PYTHON_WORD: i64 = -3;
const ZATO_HEADER: i64 = -3;

/// The dialect that `text` is written in.
pub(crate) fn dialect(text: &str) -> Dialect {
    if too_deep(text).is_none() && DeTable::parse(text).is_ok() {
        return Dialect::Toml;
    }
    let weight: i64 = text.lines().map(str::trim).map(weight).sum();
    // A tie says that quotes were used about as often as not: nobody who writes INI does that.
    if weight < 0 { Dialect::Zato } else { Dialect::Toml }
}

fn weight(line: &str) -> i64 {
    if line.is_empty() || line.starts_with('#') {
        return 0;
    }
    if let Some(header) = line.strip_prefix('[') {
        return header_weight(header);
    }
    let Some((key, value)) = line.split_once('=') else { return 0 };
    let spacing = if key.ends_with(' ') && value.starts_with(' ') { SPACED } else { PACKED };
    value_weight(value.trim()) + spacing
}

fn header_weight(header: &str) -> i64 {
    let name = header.split(']').next().unwrap_or_default().trim();
    let first = name.split('.').next().unwrap_or_default();
    let is_zato = matches!(first, "json" | "xml" | "csv" | "user_conf" | "static");
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ' ' | '\t' | '"' | '\'');
    // A name of several words must be quoted in TOML.
    let has_words = !name.contains(['"', '\'']) && name.split('.').any(|part| part.trim().contains(' '));
    if is_zato || has_words || !name.chars().all(is_bare) { ZATO_HEADER } else { 0 }
}

fn value_weight(value: &str) -> i64 {
    let word = value.split('#').next().unwrap_or_default().trim_end();
    match word.chars().next() {
        Some('[' | '{') => ARRAY_OR_TABLE,
        Some('"' | '\'') if is_comma_list(value) => BARE_WORD,
        Some('"' | '\'') => QUOTED,
        Some(_) if matches!(word, "True" | "False" | "None") => PYTHON_WORD,
        // Numbers and booleans are the same in both.
        Some(_) if too_deep(word).is_none() && DeValue::parse(word).is_ok() => 0,
        Some(_) => BARE_WORD,
        None => PACKED,
    }
}

/// Whether a value that starts with a quote goes on with a comma after the closing one: a list in INI only.
fn is_comma_list(value: &str) -> bool {
    let mut parts = value.chars();
    let Some(quote) = parts.next() else { return false };
    parts.as_str().split_once(quote).is_some_and(|(_, after)| after.trim_start().starts_with(','))
}
