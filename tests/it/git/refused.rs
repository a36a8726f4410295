//! What a commit may not hold, and what is said about it: the old one stays, whole.

use super::followed::{Followed, RARELY};
use crate::remote::Edit;

/// A commit with this in it, and a harmless change besides, is refused; what is said has all of these words. A commit
/// without it heals.
#[track_caller]
fn refused(words: &[&str], spoil: impl FnOnce(Edit) -> Edit, mend: impl FnOnce(Edit) -> Edit) {
    let followed = Followed::new(RARELY);
    let daemon = followed.sandbox.daemon();
    spoil(followed.upstream.edit().file("a", "two")).commit();
    daemon.sync();
    followed.holds(&daemon, [("a", "one")]);
    let problem = followed.problem();
    assert!(words.iter().all(|word| problem.contains(word)), "{problem}; the daemon said:\n{}", daemon.said());
    assert_eq!(followed.status()["state"], "failed");
    let output = followed.sandbox.try_ask(["sync"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    mend(followed.upstream.edit().file("a", "three")).commit();
    daemon.sync();
    followed.holds(&daemon, [("a", "three")]);
    assert_eq!(followed.problem(), "");
}

#[test]
fn a_submodule_is_refused_by_name() {
    refused(&["`lib`", "submodule", "git_allow"], |edit| edit.gitlink("lib"), |edit| edit.remove("lib"));
}

#[test]
fn a_pointer_of_large_file_storage_is_refused_by_name() {
    let pointer = "version https://git-lfs.github.com/spec/v1\n\
                   oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    refused(
        &["`model.bin`", "LFS", "git_allow"],
        |edit| edit.file("model.bin", pointer),
        |edit| edit.remove("model.bin"),
    );
}

#[test]
fn names_that_differ_in_case_only_are_refused() {
    let spoil = |edit: Edit| edit.file("Readme", "1").file("README", "2");
    refused(&["`Readme`", "twice", "git_allow"], spoil, |edit| edit.remove("Readme").remove("README"));
}

#[test]
fn a_link_that_leads_outside_is_never_followed() {
    let followed = Followed::new(RARELY);
    let daemon = followed.sandbox.daemon();
    let links = followed.upstream.edit().file("a", "two").symlink("up", "../../../etc/passwd");
    links.symlink("absolute", "/etc/passwd").symlink("inside", "a").commit();
    daemon.sync();
    let deployed = followed.sandbox.deployed();
    assert!(!deployed.contains_key("up") && !deployed.contains_key("absolute"), "{deployed:?}");
    let said = format!("{} {}", followed.problem(), followed.status()["refused"]);
    assert!(said.contains("up") || said.contains("absolute"), "{said}; the daemon said:\n{}", daemon.said());
}

#[test]
fn more_files_than_may_be_are_refused() {
    let followed = Followed::new(&format!("{RARELY}\ngit_files_max = 3"));
    let daemon = followed.sandbox.daemon();
    followed.upstream.commit(&[("b", "b"), ("c", "c"), ("d", "d")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "one")]);
    assert!(followed.problem().contains("git_files_max"), "{}", followed.problem());
    followed.reconfigure(&daemon, &format!("{RARELY}\ngit_files_max = 4"));
    followed.holds(&daemon, [("a", "one"), ("b", "b"), ("c", "c"), ("d", "d")]);
}

#[test]
fn what_is_allowed_is_left_out_or_deployed_as_it_is() {
    let followed = Followed::new(&format!("{RARELY}\ngit_allow = [\"submodules\", \"lfs_pointers\"]"));
    let pointer = "version https://git-lfs.github.com/spec/v1\n\
                   oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    followed.upstream.edit().gitlink("lib").file("model.bin", pointer).commit();
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one"), ("model.bin", pointer)]);
}

#[test]
fn an_executable_stays_one() {
    use std::os::unix::fs::PermissionsExt;
    let followed = Followed::new(RARELY);
    followed.upstream.edit().executable("run", "#!/bin/sh\n").commit();
    let daemon = followed.sandbox.daemon();
    let mode = |path: &str| followed.sandbox.path(path).metadata().expect("it is there").permissions().mode();
    assert_eq!((mode("deployed/p/run") & 0o111, mode("deployed/p/a") & 0o111), (0o111, 0), "{}", daemon.said());
}
