//! Which paths are left alone, and by which rule.
//!
//! Three layers in gitignore syntax, each overruling the one before: the built-in list, the `.pickupignore` files from the
//! root downwards, the `ignore` key. What they leave over must match `patterns`.
#![expect(clippy::disallowed_methods, reason = "this is the door to `.pickupignore` files")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::{ErrorKind as IoErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder, Glob};

use crate::config::{PickupConfig, UnitKind};
use crate::error::{Error, ErrorKind, Result};
use crate::path::UnitPath;

mod builtin;
mod given;
#[cfg(test)]
mod tests;

use builtin::Builtin;
pub(crate) use given::Former;

/// The name of the files that hold a directory's own rules.
pub(crate) const PICKUPIGNORE: &str = ".pickupignore";

/// A `.pickupignore` is written by hand; one that is longer than this is a mistake or an attack.
const PICKUPIGNORE_MAX: u64 = 64 * 1024;

/// What the rules say about one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// It is picked up (a directory: it is looked into).
    Taken,
    /// A rule leaves it alone, or a directory above it.
    Ignored {
        /// The rule as it was written.
        rule: String,
        /// Where the rule stands: "built-in list", "sub/.pickupignore:3", "`ignore` key".
        from: String,
    },
    /// No pattern asks for it.
    NotMatched { patterns: Vec<String> },
    /// It lies in a directory below, and the entry is not recursive.
    TooDeep,
}

/// What became of a `.pickupignore` that was met.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// Whether the directory now has other rules than before, so that what lies below must be judged again.
    pub changed: bool,
    /// Lines that are no rules, or why the whole file could not be used. The other lines count.
    pub problems: Vec<String>,
}

/// The rules of one entry.
#[derive(Debug)]
pub(crate) struct Rules {
    builtin: Builtin,
    files: BTreeMap<(usize, UnitPath), RuleFile>,
    key: Gitignore,
    patterns: Patterns,
    recursive: bool,
    /// The verdict on the directory asked about last: a walk asks about its entries one after the other.
    last: Mutex<Option<Directory>>,
}

#[derive(Debug)]
struct RuleFile {
    text: Vec<u8>,
    rules: Gitignore,
}

#[derive(Debug)]
struct Directory {
    root: usize,
    path: PathBuf,
    ignored: Option<Source>,
}

/// The rule that decided.
#[derive(Clone, Debug)]
struct Source {
    rule: String,
    from: String,
}

impl Rules {
    /// Compiles the rules of `config`; no `.pickupignore` is loaded yet.
    ///
    /// # Errors
    /// A pattern or rule that cannot be compiled.
    pub(crate) fn new(config: &PickupConfig) -> Result<Self> {
        let invalid = |rule: &str, key: &str, cause: String| {
            Error::new(ErrorKind::Config, format!("use `{rule}` in `{key}` of {}: {cause}", config.name))
        };
        let mut key = GitignoreBuilder::new("");
        for rule in &config.ignore {
            key.add_line(Some("`ignore` key".into()), rule).map_err(|e| invalid(rule, "ignore", e.to_string()))?;
        }
        Ok(Self {
            builtin: Builtin::new().map_err(|e| invalid("the built-in list", "ignore", e.to_string()))?,
            files: BTreeMap::new(),
            key: key.build().map_err(|e| invalid(&config.ignore.join(", "), "ignore", e.to_string()))?,
            patterns: Patterns::new(&config.patterns, config.unit)
                .map_err(|e| invalid(e.glob().unwrap_or_default(), "patterns", e.kind().to_string()))?,
            recursive: config.recursive,
            last: Mutex::new(None),
        })
    }

    /// Reads the `.pickupignore` of the directory `dir`, which lies at `absolute`. A file that is gone is forgotten.
    pub(crate) fn load_pickupignore(&mut self, root: usize, dir: &UnitPath, absolute: &Path) -> Loaded {
        let text = match read_bounded(&absolute.join(PICKUPIGNORE)) {
            Ok(Some(text)) => text,
            Ok(None) => return Loaded { changed: self.forget_pickupignore(root, dir), problems: Vec::new() },
            // The former rules stay: rules that vanish would deploy what was to be left alone.
            Err(problem) => return Loaded { changed: false, problems: vec![problem] },
        };
        let slot = (root, dir.clone());
        if self.files.get(&slot).is_some_and(|known| known.text == text) {
            return Loaded::default();
        }
        let (rules, problems) = compile(&dir.join(PICKUPIGNORE), &text);
        self.files.insert(slot, RuleFile { text, rules });
        self.forget_last();
        Loaded { changed: true, problems }
    }

    /// Drops the rules of the directory `dir`; whether there were any.
    pub(crate) fn forget_pickupignore(&mut self, root: usize, dir: &UnitPath) -> bool {
        let was_there = self.files.remove(&(root, dir.clone())).is_some();
        if was_there {
            self.forget_last();
        }
        was_there
    }

    /// Says what the rules make of `path` below the pickup directory number `root`.
    pub(crate) fn judge(&self, root: usize, path: &UnitPath, is_dir: bool) -> Judged {
        let path = path.as_path();
        if self.is_too_deep(path, is_dir) {
            return Judged::TooDeep;
        }
        if let Some(Source { rule, from }) = self.ignored(root, path, is_dir) {
            return Judged::Ignored { rule, from };
        }
        if is_dir || self.patterns.is_match(path) {
            return Judged::Taken;
        }
        Judged::NotMatched { patterns: self.patterns.texts.clone() }
    }

    /// Whether `path` is picked up: [`Rules::judge`] without the reasons, for walks over many names.
    pub(crate) fn takes(&self, root: usize, path: impl AsRef<Path>, is_dir: bool) -> bool {
        let path = path.as_ref();
        !self.is_too_deep(path, is_dir)
            && (is_dir || self.patterns.is_match(path))
            && self.ignored(root, path, is_dir).is_none()
    }

    /// The same for an entry of a directory that is looked into itself: nothing above it is asked about again.
    pub(crate) fn takes_entry(&self, root: usize, directory: &UnitPath, name: &OsStr, is_dir: bool) -> bool {
        let asks_for_all = self.recursive && (is_dir || self.patterns.takes_all);
        if asks_for_all && self.key.is_empty() && self.files.is_empty() && !self.builtin.may_match(name) {
            // Nobody asks where it lies.
            return true;
        }
        let path = &directory.as_path().join(name);
        !self.is_too_deep(path, is_dir)
            && (is_dir || self.patterns.is_match(path))
            && self.own_rule(root, path, is_dir).is_none()
    }

    fn is_too_deep(&self, path: &Path, is_dir: bool) -> bool {
        !self.recursive && path.components().nth(usize::from(!is_dir)).is_some()
    }

    /// The rule that leaves `path` alone: that of the uppermost ignored directory above it, else its own.
    fn ignored(&self, root: usize, path: &Path, is_dir: bool) -> Option<Source> {
        if path.as_os_str().is_empty() {
            return None;
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            match &*last {
                Some(known) if known.root == root && known.path == parent => known.ignored.clone(),
                _ => {
                    let ignored = self.ignored_directory(root, parent);
                    *last = Some(Directory { root, path: parent.to_owned(), ignored: ignored.clone() });
                    ignored
                }
            }
            .or_else(|| self.own_rule(root, path, is_dir))
        } else {
            self.own_rule(root, path, is_dir)
        }
    }

    fn ignored_directory(&self, root: usize, path: &Path) -> Option<Source> {
        let mut above: Vec<&Path> = path.ancestors().filter(|one| !one.as_os_str().is_empty()).collect();
        above.reverse();
        above.into_iter().find_map(|directory| self.own_rule(root, directory, true))
    }

    /// The last rule that speaks of this very path, if it is one that ignores.
    fn own_rule(&self, root: usize, path: &Path, is_dir: bool) -> Option<Source> {
        let decided = |found: Match<&Glob>| match found {
            Match::None => None,
            Match::Whitelist(_) => Some(None),
            Match::Ignore(glob) => Some(Some(source(glob))),
        };
        let from_files = || {
            // Without any such file this costs nothing, with some it costs a look per level.
            let above = (!self.files.is_empty()).then(|| path.ancestors().skip(1));
            above.into_iter().flatten().find_map(|directory| {
                let file = self.files.get(&(root, UnitPath::new(directory)?))?;
                decided(file.rules.matched(path.strip_prefix(directory).ok()?, is_dir))
            })
        };
        decided(self.key.matched(path, is_dir))
            .or_else(from_files)
            .or_else(|| decided(self.builtin.matched(path, is_dir)))
            .flatten()
    }

    fn forget_last(&mut self) {
        *self.last.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn source(glob: &Glob) -> Source {
    Source {
        rule: glob.original().to_owned(),
        from: glob.from().map_or_else(|| builtin::NAME.to_owned(), |from| from.display().to_string()),
    }
}

/// Reads a regular file of bounded length; `None` if there is none.
fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Neither through a symlink out of the pickup directory nor waiting for the other end of a FIFO.
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    let failed = |e: std::io::Error| format!("cannot read {}: {e}", path.display());
    let file = match options.open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), IoErrorKind::NotFound | IoErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(format!("{} is not a regular file; its rules do not count", path.display()));
    }
    let mut text = Vec::new();
    file.take(PICKUPIGNORE_MAX + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > PICKUPIGNORE_MAX {
        return Err(format!("{} is longer than {PICKUPIGNORE_MAX} bytes; its rules do not count", path.display()));
    }
    Ok(Some(text))
}

/// Compiles the lines of a `.pickupignore`; `name` is its path below the pickup directory.
fn compile(name: &UnitPath, text: &[u8]) -> (Gitignore, Vec<String>) {
    let mut builder = GitignoreBuilder::new("");
    let mut problems = Vec::new();
    for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let from = format!("{name}:{}", at + 1);
        let line = if at == 0 { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        match std::str::from_utf8(line) {
            Ok(rule) => {
                if let Err(e) = builder.add_line(Some(PathBuf::from(&from)), rule.trim_end_matches('\r')) {
                    problems.push(format!("{from}: {e}"));
                }
            }
            Err(_) => problems.push(format!("{from}: the rule is not UTF-8")),
        }
    }
    match builder.build() {
        Ok(rules) => (rules, problems),
        Err(e) => {
            problems.push(format!("{name}: {e}"));
            (Gitignore::empty(), problems)
        }
    }
}

/// The `patterns` key: globs on names and globs on paths.
#[derive(Debug)]
struct Patterns {
    texts: Vec<String>,
    takes_all: bool,
    names: GlobSet,
    paths: GlobSet,
    unit: UnitKind,
}

impl Patterns {
    fn new(texts: &[String], unit: UnitKind) -> Result<Self, globset::Error> {
        let (mut names, mut paths) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for text in texts {
            let glob = |text| GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
            if text.contains('/') {
                paths.add(glob(text.trim_start_matches("./").trim_start_matches('/'))?);
            } else {
                names.add(glob(text)?);
            }
        }
        let takes_all = texts.iter().any(|text| matches!(text.as_str(), "*" | "**" | "**/*"));
        Ok(Self { texts: texts.to_vec(), takes_all, names: names.build()?, paths: paths.build()?, unit })
    }

    /// Where units are directories, a pattern that asks for the unit asks for everything in it: `*.war` takes an exploded
    /// `app.war/` whole.
    fn is_match(&self, path: &Path) -> bool {
        let unit = || path.iter().next().is_some_and(|first| self.asks_for(Path::new(first)));
        self.takes_all || self.asks_for(path) || matches!(self.unit, UnitKind::Directory) && unit()
    }

    fn asks_for(&self, path: &Path) -> bool {
        path.file_name().is_some_and(|name| self.names.is_match(name)) || self.paths.is_match(path)
    }
}
