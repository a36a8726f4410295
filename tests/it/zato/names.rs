//! Names that nobody means to deploy, and symlinks that lead nowhere.

use super::{both_ways, is_live};

const NEVER: [&str; 9] = [
    "__pycache__/z.py",
    ".git/hooks/h.py",
    ".#a.py",
    ".a.py.swp",
    "a.py~",
    "#a.py#",
    "a.py.part",
    ".a.py.Xy12Zw",
    "z.pyc",
];

#[test]
fn temporaries_caches_and_version_control_are_never_deployed() {
    both_ways(
        |sandbox| NEVER.iter().fold(sandbox, |sandbox, name| sandbox.file(&format!("in/{name}"), "at start")),
        |sandbox, daemon| {
            for name in NEVER {
                sandbox.write(format!("in/{name}"), "rewritten");
                sandbox.write(format!("in/new/{name}"), "made");
            }
            sandbox.write("in/new/a.py", "x");
            is_live(sandbox, daemon, "new/a.py", 1, "x");
            daemon.assert_deployed_once(["new/a.py"]);
        },
    );
}

#[test]
fn a_dangling_symlink_stops_nothing_whether_it_was_there_or_appears() {
    both_ways(
        |sandbox| {
            sandbox.symlink("/nowhere/python", "in/python.py");
            sandbox.file("in/a.py", "x")
        },
        |sandbox, daemon| {
            is_live(sandbox, daemon, "a.py", 1, "x");
            sandbox.symlink("user@host.1234", "in/.#a.py");
            sandbox.symlink("nowhere", "in/b.py");
            sandbox.write("in/a.py", "y");
            is_live(sandbox, daemon, "a.py", 2, "y");
            daemon.wait_for(|line| line.field("path") == "b.py" && line.field("reason").contains("nowhere"));
            sandbox.write("in/nowhere", "z");
            is_live(sandbox, daemon, "nowhere", 1, "z");
            is_live(sandbox, daemon, "b.py", 1, "z");
        },
    );
}
