//! The checks of `verify`: their text in, a [`VerifyCheck`] out, and back.

use super::VerifyCheck;
use super::problem::shorten;

/// Reads one check.
pub(crate) fn check(text: &str) -> Result<VerifyCheck, String> {
    if let Some(address) = text.strip_prefix("tcp://") {
        return authority(address, true).map(|()| VerifyCheck::Tcp(address.to_owned()));
    }
    if let Some(rest) = text.strip_prefix("http://") {
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err("a URL holds no blanks; write `%20`".into());
        }
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        return authority(host, false).map(|()| VerifyCheck::Http(text.to_owned()));
    }
    if text.starts_with("https://") {
        return Err("`https` checks are refused: the check has no TLS; use `http://`, `tcp://` or `exec:`".into());
    }
    if let Some(command) = text.strip_prefix("exec:") {
        let arguments = split(command)?;
        return match arguments.first() {
            Some(program) if !program.is_empty() => Ok(VerifyCheck::Exec(arguments)),
            _ => Err("`exec:` names no program".into()),
        };
    }
    Err(format!("expected `tcp://host:port`, `http://...` or `exec:program arguments`, found `{}`", shorten(text)))
}

/// The text that [`check`] reads as `check`.
pub(crate) fn write(check: &VerifyCheck) -> String {
    match check {
        VerifyCheck::Tcp(address) => format!("tcp://{address}"),
        VerifyCheck::Http(url) => url.clone(),
        VerifyCheck::Exec(arguments) => {
            let quoted: Vec<_> = arguments.iter().map(|argument| quote(argument)).collect();
            format!("exec:{}", quoted.join(" "))
        }
    }
}

/// Whether `text` is `host:port`, or only `host` where the port may be left out.
pub(super) fn authority(text: &str, needs_port: bool) -> Result<(), String> {
    let after_bracket = text.find(']').map_or(0, |at| at + 1);
    let (host, port) = match text.get(after_bracket..).and_then(|rest| rest.rfind(':')) {
        Some(colon) => (&text[..after_bracket + colon], Some(&text[after_bracket + colon + 1..])),
        None => (text, None),
    };
    let is_address = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let is_name = !host.is_empty() && !host.contains([':', '[', ']']);
    let is_host =
        (is_address || is_name) && !host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | '\\'));
    let is_port =
        |port: &str| port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    match port {
        Some(port) if is_host && is_port(port) => Ok(()),
        None if is_host && !needs_port => Ok(()),
        _ => Err(format!("expected `host:port` with a port from 1 to 65535, found `{}`", shorten(text))),
    }
}

/// Arguments between blanks; `'…'` and `"…"` keep blanks, and nothing else is special.
fn split(text: &str) -> Result<Vec<String>, String> {
    let mut arguments = Vec::new();
    let mut current: Option<String> = None;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' | '\'' => {
                let (quoted, after) =
                    characters.as_str().split_once(c).ok_or_else(|| format!("a {c} is not closed"))?;
                current.get_or_insert_default().push_str(quoted);
                characters = after.chars();
            }
            c if c.is_whitespace() => arguments.extend(current.take()),
            c => current.get_or_insert_default().push(c),
        }
    }
    arguments.extend(current);
    Ok(arguments)
}

/// An argument as [`split`] reads it back: pieces without `'` in `'`, the rest in `"`.
fn quote(argument: &str) -> String {
    let is_plain = |c: char| !c.is_whitespace() && !matches!(c, '"' | '\'');
    if !argument.is_empty() && argument.chars().all(is_plain) {
        return argument.to_owned();
    }
    let pieces: Vec<_> = argument.split('\'').map(|piece| format!("'{piece}'")).collect();
    pieces.join("\"'\"")
}
