//! Whether TOML text nests too deep to be parsed safely: the parser bounds brackets, but not dotted keys.

/// How deep brackets may nest, and of how many parts a dotted key may be. Every level costs stack when the parsed
/// tree is dropped; no configuration of ours needs more than three.
const DEPTH_MAX: usize = 16;
const DOTS_MAX: usize = 32;

/// Where `text` nests too deep, if it does.
pub(crate) fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut dots) = (0_usize, 0_usize);
    let mut offset = 0;
    while let Some(rest) = text.get(offset..).filter(|rest| !rest.is_empty()) {
        let mut step = rest.chars().next().map_or(1, char::len_utf8);
        match rest.as_bytes().first().copied().unwrap_or_default() {
            b'#' => step = rest.find('\n').unwrap_or(rest.len()),
            b'"' => step = string_length(rest, '"'),
            b'\'' => step = string_length(rest, '\''),
            b'.' => dots += 1,
            b'[' | b'{' => (depth, dots) = (depth + 1, 0),
            b']' | b'}' => (depth, dots) = (depth.saturating_sub(1), 0),
            b'\n' | b'=' | b',' => dots = 0,
            _ => {}
        }
        if depth > DEPTH_MAX || dots > DOTS_MAX {
            return Some(offset);
        }
        offset += step;
    }
    None
}

/// How many bytes the string that `text` starts with takes, as far as it is closed.
fn string_length(text: &str, quote: char) -> usize {
    let is_triple = text.chars().take(3).filter(|c| *c == quote).count() == 3;
    let mut characters = text.char_indices().skip(if is_triple { 3 } else { 1 }).peekable();
    let mut closing = 0;
    while let Some((at, c)) = characters.next() {
        if c == quote {
            closing += 1;
            // Up to two more quotes may stand right before the three that close.
            let is_last = characters.peek().is_none_or(|(_, next)| *next != quote);
            if !is_triple || closing == 5 || (closing >= 3 && is_last) {
                return at + 1;
            }
            continue;
        }
        closing = 0;
        if c == '\n' && !is_triple {
            return at;
        }
        if c == '\\' && quote == '"' && characters.peek().is_some_and(|(_, next)| is_triple || *next != '\n') {
            characters.next();
        }
    }
    text.len()
}
