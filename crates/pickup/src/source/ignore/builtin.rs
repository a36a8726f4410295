//! What nobody means to deploy: temporaries of editors and transfers, version control, our own files.

use ignore::gitignore::{Gitignore, GitignoreBuilder};

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

/// Compiles the list.
pub(super) fn list() -> Result<Gitignore, ignore::Error> {
    let mut builder = GitignoreBuilder::new("");
    for rule in RULES {
        builder.add_line(Some(NAME.into()), rule)?;
    }
    builder.build()
}
