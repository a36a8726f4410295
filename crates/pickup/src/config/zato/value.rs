//! What stands right of the `=` in the INI dialect: scalars, comma lists, quotes and trailing comments.

use crate::config::document::{Data, Position, Value};

/// What a value turned out to be.
pub(super) enum Scan<'t> {
    Done(Data),
    /// A triple-quoted value that does not end in its first line.
    Open {
        quotes: &'static str,
        start: &'t str,
    },
}

/// What follows a complete value.
#[derive(PartialEq, Eq)]
pub(super) enum Rest {
    /// Blanks, perhaps a comment.
    Nothing,
    Text,
}

pub(super) fn rest(text: &str) -> Rest {
    let text = text.trim_start();
    if text.is_empty() || text.starts_with('#') { Rest::Nothing } else { Rest::Text }
}

/// Reads the text after the `=`.
pub(super) fn scan(text: &str) -> Result<Scan<'_>, String> {
    for quotes in ["\"\"\"", "'''"] {
        let Some(inner) = text.strip_prefix(quotes) else { continue };
        return match inner.split_once(quotes) {
            Some((value, after)) if rest(after) == Rest::Nothing => Ok(Scan::Done(Data::Text(value.to_owned()))),
            Some(_) => Err(format!("text follows the closing {quotes}")),
            None => Ok(Scan::Open { quotes, start: inner }),
        };
    }
    let mut items = Vec::new();
    let mut is_list = false;
    let mut remaining = text;
    loop {
        let (item, after) = element(remaining)?;
        let comma = after.strip_prefix(',');
        is_list |= comma.is_some();
        match item {
            Some(item) => items.push(item),
            // `a,` is a list of one and `,` an empty list; nothing else may be left out.
            None if comma.is_some() && !(items.is_empty() && rest(comma.unwrap_or("")) == Rest::Nothing) => {
                return Err("an element of the list is empty; write `\"\"` if it is meant to be".into());
            }
            None => {}
        }
        match comma {
            Some(next) => remaining = next,
            None => break,
        }
    }
    if is_list {
        let value = |text| Value { at: Position::default(), data: Data::Text(text) };
        return Ok(Scan::Done(Data::List(items.into_iter().map(value).collect())));
    }
    Ok(Scan::Done(Data::Text(items.into_iter().next().unwrap_or_default())))
}

/// One element, or `None` if there is nothing, and what follows it: a comma, or nothing.
fn element(text: &str) -> Result<(Option<String>, &str), String> {
    let text = text.trim_start();
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let (item, after) = text[1..].split_once(quote).ok_or_else(|| format!("the value has no closing `{quote}`"))?;
        let after = after.trim_start();
        return match rest(after) {
            Rest::Nothing => Ok((Some(item.to_owned()), "")),
            Rest::Text if after.starts_with(',') => Ok((Some(item.to_owned()), after)),
            Rest::Text => Err(format!("text follows the closing `{quote}`")),
        };
    }
    let end = text.find([',', '#']).unwrap_or(text.len());
    let (item, after) = text.split_at(end);
    let item = item.trim_end();
    let after = if after.starts_with(',') { after } else { "" };
    Ok(((!item.is_empty()).then(|| item.to_owned()), after))
}
