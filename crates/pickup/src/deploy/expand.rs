//! `{pickup}`, `{unit}` and their like, filled into paths, arguments and URLs.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use crate::deploy::Unit;
use crate::error::{Error, ErrorKind, Result};

/// What the names in braces stand for.
#[derive(Clone, Debug)]
pub(crate) struct Values {
    pickup: String,
    unit: OsString,
    /// The same without its last extension.
    stem: OsString,
    generation: String,
    path: OsString,
    digest: String,
    change: &'static str,
}

impl Values {
    /// The values of `unit`, whose content lies at `path` if it lies anywhere.
    pub(crate) fn new(unit: &Unit, path: Option<&Path>) -> Self {
        Self {
            pickup: unit.pickup.clone(),
            unit: unit.path.as_path().as_os_str().to_owned(),
            stem: unit.path.as_path().with_extension("").into_os_string(),
            generation: unit.generation.to_string(),
            path: path.map(|path| path.as_os_str().to_owned()).unwrap_or_default(),
            digest: unit.digest().or(unit.previous).map(|digest| digest.to_string()).unwrap_or_default(),
            change: unit.change.as_str(),
        }
    }

    /// Values that are empty, for an address that is only looked at.
    pub(crate) fn nameless() -> Self {
        let (pickup, unit, stem, generation, path, digest) = Default::default();
        Self { pickup, unit, stem, generation, path, digest, change: "" }
    }

    fn lookup(&self, name: &str) -> Option<&OsStr> {
        match name {
            "pickup" => Some(self.pickup.as_ref()),
            "unit" => Some(&self.unit),
            "stem" => Some(&self.stem),
            "generation" => Some(self.generation.as_ref()),
            "path" => Some(&self.path),
            "digest" => Some(self.digest.as_ref()),
            "change" => Some(self.change.as_ref()),
            _ => None,
        }
    }

    /// Fills in an argument of a program. Braces around anything else stay, because arguments may hold JSON.
    pub(crate) fn argument(&self, template: &str) -> OsString {
        let mut filled = OsString::with_capacity(template.len());
        pieces(template, |piece| match piece {
            Piece::Text(text) => filled.push(text),
            Piece::Name(name, text) => filled.push(self.lookup(name).unwrap_or(text.as_ref())),
        });
        filled
    }

    /// Fills in a URL: values are percent-encoded, the slashes between a unit's components stay.
    pub(crate) fn url(&self, template: &str) -> String {
        let mut filled = String::with_capacity(template.len());
        pieces(template, |piece| match piece {
            Piece::Text(text) => filled.push_str(text),
            Piece::Name(name, text) => match self.lookup(name) {
                Some(value) => percent_encode(value.as_encoded_bytes(), matches!(name, "unit" | "stem"), &mut filled),
                None => filled.push_str(text),
            },
        });
        filled
    }
}

/// Fills `{pickup}` into a configured directory. Nothing else makes sense there: a directory that changed with every
/// generation would never be cleaned up.
pub(crate) fn directory(template: &str, pickup: &str) -> Result<PathBuf> {
    if template.contains("{pickup}") && !is_one_component(pickup) {
        let action = format!("use the pickup name {pickup:?} as a part of the path {template}");
        return Err(Error::new(ErrorKind::Config, action));
    }
    Ok(PathBuf::from(template.replace("{pickup}", pickup)))
}

/// Whether `name` names one entry of a directory and nothing else.
pub(crate) fn is_one_component(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let is_normal = matches!(components.next(), Some(Component::Normal(only)) if only == name);
    is_normal && components.next().is_none() && !name.contains('\0')
}

enum Piece<'a> {
    Text(&'a str),
    /// The name, and the same with its braces.
    Name(&'a str, &'a str),
}

/// Cuts a template up in one pass, so that braces inside a value are never filled in themselves.
fn pieces<'a>(template: &'a str, mut take: impl FnMut(Piece<'a>)) {
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let (text, braced) = rest.split_at(open);
        take(Piece::Text(text));
        let end = braced[1..].find(['{', '}']).map(|at| at + 1);
        match end {
            Some(end) if braced.as_bytes()[end] == b'}' => {
                take(Piece::Name(&braced[1..end], &braced[..=end]));
                rest = &braced[end + 1..];
            }
            Some(_) | None => {
                take(Piece::Text("{"));
                rest = &braced[1..];
            }
        }
    }
    take(Piece::Text(rest));
}

fn percent_encode(bytes: &[u8], keep_slashes: bool, into: &mut String) {
    use std::fmt::Write;
    for &byte in bytes {
        let is_unreserved = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if is_unreserved || (keep_slashes && byte == b'/') {
            into.push(char::from(byte));
        } else {
            let _infallible = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests;
