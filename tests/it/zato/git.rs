//! A pickup directory that somebody pulls into, with plain git and nothing known about it.

use std::collections::BTreeMap;

use super::{both_ways, holds, is_live};
use crate::sandbox::Sandbox;

/// Runs git without anybody's own configuration.
fn git(sandbox: &Sandbox, directory: &str, line: &str) {
    let identity = "GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b \
                    GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b";
    sandbox.shell(&format!("cd {directory}; {identity} git -c init.defaultBranch=main {line}"));
}

fn commit(sandbox: &Sandbox, directory: &str) {
    git(sandbox, directory, "add --all");
    git(sandbox, directory, "commit --quiet --message x");
}

/// An upstream with seven files, and its clone as the pickup directory.
fn cloned(sandbox: Sandbox) -> Sandbox {
    let sandbox = (1..=7).fold(sandbox, |sandbox, number| sandbox.file(&format!("up/m{number}.py"), "old"));
    git(&sandbox, "up", "init --quiet");
    commit(&sandbox, "up");
    sandbox.remove_all("in");
    git(&sandbox, ".", "clone --quiet up in");
    sandbox
}

#[test]
fn a_git_pull_deploys_what_it_changed_added_and_renamed_and_removes_what_it_deleted() {
    both_ways(cloned, |sandbox, daemon| {
        daemon.wait_until("seven files", |log| (1..=7).all(|n| log.deployed.contains_key(&format!("m{n}.py"))));
        daemon.sync();
        for number in 1..=4 {
            sandbox.write(format!("up/m{number}.py"), "new");
        }
        sandbox.write("up/added.py", "added");
        sandbox.rename("up/m5.py", "up/renamed.py");
        sandbox.remove("up/m6.py");
        commit(sandbox, "up");
        git(sandbox, "in", "pull --quiet --ff-only");
        for number in 1..=4 {
            is_live(sandbox, daemon, &format!("m{number}.py"), 2, "new");
        }
        is_live(sandbox, daemon, "added.py", 1, "added");
        is_live(sandbox, daemon, "renamed.py", 1, "old");
        daemon.wait_removed("m5.py");
        daemon.wait_removed("m6.py");
        daemon.sync();
        assert_eq!(daemon.deployed("m7.py"), 1);
        assert_eq!(daemon.all_deployed().values().sum::<usize>(), 7 + 4 + 2, "{}", daemon.said());
        assert_eq!(daemon.all_removed(), BTreeMap::from([("m5.py".to_owned(), 1), ("m6.py".to_owned(), 1)]));
        holds(
            sandbox,
            [
                ("added.py", "added"),
                ("m1.py", "new"),
                ("m2.py", "new"),
                ("m3.py", "new"),
                ("m4.py", "new"),
                ("m7.py", "old"),
                ("renamed.py", "old"),
            ],
        );
    });
}

#[test]
fn a_git_pull_that_brings_a_package_deploys_every_file_of_it() {
    both_ways(cloned, |sandbox, daemon| {
        daemon.wait_until("seven files", |log| (1..=7).all(|n| log.deployed.contains_key(&format!("m{n}.py"))));
        daemon.sync();
        for name in ["__init__", "a", "b", "c", "d"] {
            sandbox.write(format!("up/package/{name}.py"), name);
        }
        commit(sandbox, "up");
        git(sandbox, "in", "pull --quiet --ff-only");
        for name in ["__init__", "a", "b", "c", "d"] {
            is_live(sandbox, daemon, &format!("package/{name}.py"), 1, name);
        }
        assert_eq!(daemon.all_deployed().len(), 12, "{:?}", daemon.all_deployed());
    });
}

#[test]
fn a_branch_switch_and_back_deploys_the_one_and_then_the_other() {
    both_ways(cloned, |sandbox, daemon| {
        daemon.wait_until("seven files", |log| (1..=7).all(|n| log.deployed.contains_key(&format!("m{n}.py"))));
        daemon.sync();
        git(sandbox, "in", "checkout --quiet -b other");
        sandbox.write("in/m1.py", "other");
        is_live(sandbox, daemon, "m1.py", 2, "other");
        git(sandbox, "in", "commit --quiet --all --message other");
        git(sandbox, "in", "checkout --quiet main");
        is_live(sandbox, daemon, "m1.py", 3, "old");
        git(sandbox, "in", "checkout --quiet other");
        is_live(sandbox, daemon, "m1.py", 4, "other");
        assert_eq!(daemon.all_deployed().len(), 7, "{:?}", daemon.all_deployed());
        assert_eq!(daemon.all_removed(), BTreeMap::new());
    });
}
