//! What nobody means to deploy: temporaries of editors and transfers, version control, our own files.

use std::ffi::OsStr;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder, Glob};

/// Where these rules say that they come from.
pub(super) const NAME: &str = "built-in list";

/// In gitignore syntax and order: a later rule overrules an earlier one.
///
/// Names were collected from what the writers really create (strace and inotify traces of each). `*.lock` is missing on
/// purpose: `Cargo.lock` and `yarn.lock` are artifacts.
const RULES: &[&str] = &[
    // rsync writes `.name.XXXXXX`, six random letters and digits. A dot file whose name ends in six small letters
    // (`.eslintrc.config`) is somebody's file, unless there is an extension before them (`.app.jar.abcdef`).
    ".?*.[0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z]",
    "!.?*.[a-z][a-z][a-z][a-z][a-z][a-z]",
    ".?*.?*.[a-z][a-z][a-z][a-z][a-z][a-z]",
    // `sed -i` writes `sedXXXXXX`; `sedentary` is a word.
    "sed[0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z][0-9A-Za-z]",
    "!sed[a-z][a-z][a-z][a-z][a-z][a-z]",
    // Transfers.
    ".~tmp~/",
    ".rsync-partial/",
    "*.filepart",
    "*.part",
    "*.partial",
    "*.crdownload",
    "*.download",
    "*.aria2",
    ".goutputstream-*",
    ".stfolder",
    ".stversions/",
    ".syncthing.*.tmp",
    // Editors.
    "*.tmp",
    "*.temp",
    "*~",
    "*.sw[opx]",
    "*.swpx",
    "4913", // vim's probe whether it may create files here; a directory of that name is not its doing.
    "!4913/",
    "\\#*#",
    ".#*",
    "*___jb_tmp___",
    "*___jb_old___",
    ".~lock.*#",
    "~$*",
    // File systems.
    ".fuse_hidden*",
    ".nfs[0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f][0-9a-f]*",
    ".DS_Store",
    "._.DS_Store",
    // Kubernetes mounts a ConfigMap as symlinks through `..data`, which leads to `..2026_01_02_03_04_05.678`. The
    // symlinks beside it are the artifacts.
    "..?*",
    // Version control. `.git` is a file in worktrees and submodules.
    ".git",
    ".hg",
    ".jj",
    ".svn",
    ".bzr",
    "_darcs/",
    "CVS/",
    // Python's caches.
    "__pycache__/",
    "*.pyc",
    "*.pyo",
    // Ours: the state directory, rules, temporaries and cookies.
    ".pickup",
    ".pickupignore",
    ".pickup-*",
    ".*.pickup-*",
];

/// The compiled list.
#[derive(Debug)]
pub(super) struct Builtin {
    rules: Gitignore,
    /// How names begin that a rule may speak of, and how others end, with the last byte first.
    starts: Edges,
    ends: Edges,
}

/// The bytes that a rule lets stand at one place of a name.
type Bytes = Vec<u8>;

/// What names that a rule may speak of have at one of their ends, from there inwards.
#[derive(Debug)]
struct Edges {
    all: Vec<Vec<Bytes>>,
    /// Whether one of them has the byte outermost: most names end here.
    outermost: [bool; 256],
}

impl Edges {
    fn new(all: Vec<Vec<Bytes>>) -> Self {
        let mut outermost = [false; 256];
        for byte in all.iter().filter_map(|edge| edge.first()).flatten() {
            outermost[usize::from(*byte)] = true;
        }
        Self { all, outermost }
    }

    /// Whether one of them is that of a name of these bytes, also from its end inwards.
    fn may_match<'a>(&self, name: impl ExactSizeIterator<Item = &'a u8> + Clone) -> bool {
        let is_outermost = name.clone().next().is_some_and(|byte| self.outermost[usize::from(*byte)]);
        let fits = |edge: &Vec<Bytes>| {
            edge.len() <= name.len() && edge.iter().zip(name.clone()).all(|(place, byte)| place.contains(byte))
        };
        is_outermost && self.all.iter().any(fits)
    }
}

impl Builtin {
    /// Compiles the list.
    pub(super) fn new() -> Result<Self, ignore::Error> {
        let mut builder = GitignoreBuilder::new("");
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for rule in RULES {
            builder.add_line(Some(NAME.into()), rule)?;
            match edges(rule) {
                (start, mut end) if start.is_empty() => {
                    end.reverse();
                    ends.push(end);
                }
                (start, _) => starts.push(start),
            }
        }
        Ok(Self { rules: builder.build()?, starts: Edges::new(starts), ends: Edges::new(ends) })
    }

    /// The rule that decides about `path`, whatever is above it.
    pub(super) fn matched(&self, path: &Path, is_dir: bool) -> Match<&Glob> {
        match path.file_name() {
            Some(name) if self.may_match(name) => self.rules.matched(path, is_dir),
            Some(_) | None => Match::None,
        }
    }

    /// Whether any rule may speak of an entry of this name.
    pub(super) fn may_match(&self, name: &OsStr) -> bool {
        let name = name.as_encoded_bytes();
        self.starts.may_match(name.iter()) || self.ends.may_match(name.iter().rev())
    }
}

/// What a name must begin with, and what it must end with, for `rule` to speak of it; as far as the rule has no wildcard there.
fn edges(rule: &str) -> (Vec<Bytes>, Vec<Bytes>) {
    let rule = rule.strip_prefix('!').unwrap_or(rule);
    let mut rest = rule.strip_suffix('/').unwrap_or(rule).bytes();
    // `None` for a wildcard.
    let mut places: Vec<Option<Bytes>> = Vec::new();
    while let Some(byte) = rest.next() {
        places.push(match byte {
            b'*' | b'?' => None,
            b'[' => class(&mut rest),
            b'\\' => rest.next().map(|literal| vec![literal]),
            literal => Some(vec![literal]),
        });
    }
    let start = places.iter().cloned().map_while(|place| place).collect();
    let mut end: Vec<Bytes> = places.into_iter().rev().map_while(|place| place).collect();
    end.reverse();
    (start, end)
}

/// What `[` begins, up to its `]`: no set of this list is negated, or has a bracket in it.
fn class(rest: &mut impl Iterator<Item = u8>) -> Option<Bytes> {
    let mut members = Vec::new();
    let text: Vec<u8> = rest.take_while(|byte| *byte != b']').collect();
    let mut text = text.as_slice();
    loop {
        text = match text {
            [from, b'-', to, after @ ..] => {
                members.extend(*from..=*to);
                after
            }
            [one, after @ ..] => {
                members.push(*one);
                after
            }
            [] => return Some(members),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rule_says_how_names_begin_or_how_they_end() {
        let text = |places: Vec<Bytes>| {
            let place = |place: Bytes| match String::from_utf8(place).unwrap() {
                one if one.len() == 1 => one,
                several => format!("[{several}]"),
            };
            places.into_iter().map(place).collect::<String>()
        };
        let edges = |rule| {
            let (start, end) = edges(rule);
            (text(start), text(end))
        };
        assert_eq!(edges("*.part"), (String::new(), ".part".into()));
        assert_eq!(edges("*.sw[opx]"), (String::new(), ".sw[opx]".into()));
        assert_eq!(edges("!4913/"), ("4913".into(), "4913".into()));
        assert_eq!(edges("\\#*#"), ("#".into(), "#".into()));
        assert_eq!(edges("..?*"), ("..".into(), String::new()));
        assert_eq!(edges("x[a-cz]?"), ("x[abcz]".into(), String::new()));
    }

    #[test]
    fn each_rule_says_something() {
        let list = Builtin::new().unwrap();
        assert!(list.starts.all.iter().chain(&list.ends.all).all(|edge| !edge.is_empty()), "{list:?}");
    }

    proptest! {
        /// Names of what rules are made of, so that many come close to one.
        #[test]
        fn the_rules_say_nothing_of_a_name_that_needs_no_look(name in "(sed|4913|#|~\\$|\\.|_|[.~#_A-Za-z0-9é-]|tmp|part|sw|pyc|jb){1,9}") {
            let list = Builtin::new().unwrap();
            for is_dir in [false, true] {
                let found = list.rules.matched(Path::new(&name), is_dir);
                prop_assert!(found.is_none() || list.may_match(name.as_ref()), "{name}: {found:?}");
            }
        }
    }
}
