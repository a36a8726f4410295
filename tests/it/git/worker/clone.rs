//! Working trees: made where there is none, moved forward, and never reset.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use super::{Answer, Bench, both};
use crate::remote::{HttpServer, Upstream, run};

/// A clone of `a.git` that the worker made, at its first commit.
fn cloned(transport: &str) -> (Bench, Upstream, HttpServer, String) {
    let bench = Bench::new();
    let (upstream, first) = bench.upstream();
    let server = HttpServer::new(&bench.served());
    let answer = bench.check(&server.url("a.git")).by(transport).clone_at("clone").ask();
    assert_eq!(answer.commit(), first);
    (bench, upstream, server, first)
}

fn check(bench: &Bench, server: &HttpServer, transport: &str) -> Answer {
    bench.check(&server.url("a.git")).by(transport).clone_at("clone").ask()
}

fn advance(bench: &Bench, to: &str) -> Answer {
    bench.ask(&json!({ "Advance": { "repository": bench.path("clone"), "to": to } }))
}

fn read(bench: &Bench, file: &str) -> Option<String> {
    fs::read_to_string(bench.path("clone").join(file)).ok()
}

fn head(bench: &Bench) -> String {
    run(&bench.path("clone"), "rev-parse HEAD")
}

#[test]
fn a_clone_is_made_as_git_makes_it_and_moves_forward() {
    both(|transport| {
        let (bench, upstream, server, first) = cloned(transport);
        assert_eq!(read(&bench, "a").as_deref(), Some("one"));
        let clone = bench.path("clone");
        assert_eq!(run(&clone, "symbolic-ref HEAD"), "refs/heads/main");
        assert_eq!(run(&clone, "rev-parse --abbrev-ref main@{upstream}"), "origin/main");
        assert_eq!(run(&clone, "status --porcelain"), "");
        let second = upstream.edit().rename("a", "b").executable("run", "#!/bin/sh\n").symlink("link", "b").commit();
        let answer = check(&bench, &server, transport);
        assert_eq!(answer.commit(), second);
        assert_eq!(head(&bench), first, "a check moves nothing");
        let answer = advance(&bench, &second);
        assert_eq!(answer.reply, "Advanced", "{}", answer.output);
        assert_eq!((head(&bench), read(&bench, "a"), read(&bench, "b")), (second.clone(), None, Some("one".into())));
        assert_eq!(run(&clone, "status --porcelain"), "");
        assert_eq!(run(&clone, "symbolic-ref HEAD"), "refs/heads/main");
        run(&clone, "fsck --full --strict");
        assert_eq!(advance(&bench, &second).reply, "Advanced");
    });
}

#[test]
fn an_empty_directory_becomes_a_clone() {
    both(|transport| {
        let bench = Bench::new();
        let (_upstream, first) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        fs::create_dir(bench.path("clone")).expect("make a directory");
        assert_eq!(check(&bench, &server, transport).commit(), first);
        assert_eq!(read(&bench, "a").as_deref(), Some("one"));
    });
}

#[test]
fn an_edited_file_stays_and_the_advance_is_refused() {
    let (bench, upstream, server, first) = cloned("libgit2");
    fs::write(bench.path("clone/a"), "mine").expect("edit a file");
    let second = upstream.commit(&[("b", "two")]);
    check(&bench, &server, "libgit2").commit();
    let answer = advance(&bench, &second);
    assert!(answer.failed("Refused").contains('a'), "{}", answer.output);
    assert_eq!((head(&bench), read(&bench, "a"), read(&bench, "b")), (first, Some("mine".into()), None));
}

#[test]
fn a_file_of_the_users_own_in_the_way_stays() {
    let (bench, upstream, server, first) = cloned("libgit2");
    fs::write(bench.path("clone/new"), "mine").expect("make a file");
    let second = upstream.commit(&[("new", "theirs"), ("a", "two")]);
    check(&bench, &server, "libgit2").commit();
    let answer = advance(&bench, &second);
    assert!(answer.failed("Refused").contains("new"), "{}", answer.output);
    assert_eq!((head(&bench), read(&bench, "new")), (first, Some("mine".into())));
    assert_eq!(read(&bench, "a").as_deref(), Some("one"), "not half of it either");
}

#[test]
fn a_file_of_the_users_own_beside_is_no_hindrance() {
    let (bench, upstream, server, _) = cloned("libgit2");
    fs::write(bench.path("clone/mine"), "mine").expect("make a file");
    let second = upstream.commit(&[("a", "two")]);
    check(&bench, &server, "libgit2").commit();
    assert_eq!(advance(&bench, &second).reply, "Advanced");
    assert_eq!((read(&bench, "mine"), read(&bench, "a")), (Some("mine".into()), Some("two".into())));
}

#[test]
fn commits_of_the_users_own_stay_and_the_advance_is_refused() {
    let (bench, upstream, server, _) = cloned("libgit2");
    let clone = bench.path("clone");
    fs::write(clone.join("mine"), "mine").expect("make a file");
    run(&clone, "add mine");
    run(&clone, "commit --quiet --message mine");
    let own = head(&bench);
    let second = upstream.commit(&[("a", "two")]);
    check(&bench, &server, "libgit2").commit();
    advance(&bench, &second).failed("Refused");
    assert_eq!((head(&bench), read(&bench, "a")), (own, Some("one".into())));
}

#[test]
fn somebody_at_work_in_the_clone_is_waited_for() {
    let (bench, upstream, server, first) = cloned("libgit2");
    let second = upstream.commit(&[("a", "two")]);
    check(&bench, &server, "libgit2").commit();
    fs::write(bench.path("clone/.git/index.lock"), "").expect("write a file");
    advance(&bench, &second).failed("Busy");
    assert!(bench.path("clone/.git/index.lock").exists(), "it is not ours to remove");
    assert_eq!(head(&bench), first);
    fs::remove_file(bench.path("clone/.git/index.lock")).expect("remove a file");
    assert_eq!(advance(&bench, &second).reply, "Advanced");
}

#[test]
fn nothing_in_the_clone_is_run() {
    both(|transport| {
        let (bench, upstream, server, _) = cloned(transport);
        let clone = bench.path("clone");
        let witness = bench.path("witness");
        let script = format!("#!/bin/sh\necho ran >> '{}'\ncat\n", witness.display());
        for hook in ["post-merge", "post-checkout", "reference-transaction", "pre-merge-commit", "post-index-change"] {
            let path = clone.join(".git/hooks").join(hook);
            fs::create_dir_all(clone.join(".git/hooks")).expect("make a directory");
            fs::write(&path, &script).expect("write a hook");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it executable");
        }
        let hook = clone.join(".git/hooks/post-merge");
        run(&clone, &format!("config filter.evil.smudge {}", hook.display()));
        run(&clone, &format!("config core.fsmonitor {}", hook.display()));
        run(&clone, &format!("config core.sshCommand {}", hook.display()));
        let second = upstream.edit().file(".gitattributes", "* filter=evil\n").file("a", "two").commit();
        // What this very test runs may have run one.
        let _ = fs::remove_file(&witness);
        check(&bench, &server, transport).commit();
        assert_eq!(advance(&bench, &second).reply, "Advanced");
        assert_eq!(fs::read_to_string(&witness).ok(), None);
        assert_eq!(read(&bench, "a").as_deref(), Some("two"));
    });
}

#[test]
fn a_clone_that_is_ahead_is_up_to_date() {
    let (bench, upstream, server, _) = cloned("libgit2");
    let clone = bench.path("clone");
    fs::write(clone.join("mine"), "mine").expect("make a file");
    run(&clone, "add mine");
    run(&clone, "commit --quiet --message mine");
    let own = head(&bench);
    check(&bench, &server, "libgit2").commit();
    assert_eq!(advance(&bench, &upstream.tip("main")).reply, "Advanced");
    assert_eq!(head(&bench), own);
}
