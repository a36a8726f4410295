//! What can be followed: branches, tags, commits, the remote's `HEAD`; over every transport that needs no password.

use super::{Bench, both};
use crate::remote::{GitDaemon, HttpServer};

/// Does the same with a file, the git daemon and HTTP, with the library and with the git program.
fn everywhere(test: impl Fn(&Bench, &str, &'static str)) {
    both(|transport| {
        for scheme in ["file", "git", "http"] {
            println!("over {scheme}");
            let bench = Bench::new();
            std::fs::create_dir(bench.served()).expect("make a directory");
            let daemon = GitDaemon::new(&bench.served());
            let server = HttpServer::new(&bench.served());
            let url = match scheme {
                "file" => format!("file://{}", bench.path("served/a.git").display()),
                "git" => daemon.url("a.git"),
                _ => server.url("a.git"),
            };
            test(&bench, &url, transport);
        }
    });
}

#[test]
fn tags_lead_to_their_commits_and_may_move() {
    everywhere(|bench, url, transport| {
        let (upstream, first) = bench.upstream();
        let second = upstream.commit(&[("a", "two")]);
        upstream.annotated_tag("v1", &first);
        upstream.tag("light", &first);
        let check = || bench.check(url).by(transport).wants(&[Some("v1"), Some("light"), Some("main")]).ask();
        let answer = check();
        assert_eq!(answer.commits(), [&first, &first, &second]);
        assert_eq!(answer.branch(), (Some("v1"), false));
        upstream.annotated_tag("v1", &second);
        upstream.tag("light", &second);
        assert_eq!(check().commits(), [&second, &second, &second]);
        upstream.annotated_tag("v1", &first);
        assert_eq!(check().commits(), [&first, &second, &second]);
    });
}

#[test]
fn head_is_the_branch_that_the_remote_says() {
    everywhere(|bench, url, transport| {
        let (upstream, first) = bench.upstream();
        let other = upstream.edit().on("other").orphan().file("z", "z").commit();
        let check = || bench.check(url).by(transport).wants(&[None]).ask();
        let answer = check();
        assert_eq!((answer.commit(), answer.branch()), (first.as_str(), (Some("main"), true)));
        upstream.git("symbolic-ref HEAD refs/heads/other");
        let answer = check();
        assert_eq!((answer.commit(), answer.branch()), (other.as_str(), (Some("other"), true)));
    });
}

#[test]
fn a_commit_is_found_by_its_id_at_a_tip_or_below_one() {
    everywhere(|bench, url, transport| {
        let (upstream, first) = bench.upstream();
        let second = upstream.commit(&[("a", "two")]);
        let third = upstream.commit(&[("a", "three")]);
        for commit in [&third, &second, &first] {
            let answer = bench.check(url).by(transport).wants(&[Some(commit)]).ask();
            assert_eq!((answer.commit(), answer.branch()), (commit.as_str(), (None, false)));
        }
        assert_eq!(bench.mirrored(&first, "a"), "one");
    });
}

#[test]
fn a_commit_that_no_reference_leads_to_is_found_where_the_server_gives_it() {
    both(|transport| {
        let bench = Bench::new();
        let (upstream, _) = bench.upstream();
        let replaced = upstream.commit(&[("a", "two")]);
        upstream.amend(&[("a", "three")]);
        upstream.git("config uploadpack.allowAnySHA1InWant true");
        let server = HttpServer::new(&bench.served());
        let answer = bench.check(&server.url("a.git")).by(transport).wants(&[Some(&replaced)]).ask();
        assert_eq!(answer.commit(), replaced);
        assert_eq!(bench.mirrored(&replaced, "a"), "two");
    });
}

#[test]
fn what_is_missing_is_said_and_the_rest_is_found() {
    everywhere(|bench, url, transport| {
        let (upstream, first) = bench.upstream();
        upstream.branch("feature", &first);
        let unknown = "0123456789012345678901234567890123456789";
        let wanted = [Some("main"), Some("featur"), Some(unknown)];
        let check = || bench.check(url).by(transport).wants(&wanted).ask();
        let answer = check();
        assert_eq!(answer.found()[0]["At"]["commit"], first);
        let reason = answer.found()[1]["Missing"]["reason"].as_str().expect("a reason").to_owned();
        assert!(reason.contains("feature"), "what it has instead: {reason}");
        assert!(answer.found()[2]["Missing"]["reason"].is_string(), "{}", answer.output);
        upstream.branch("featur", &first);
        assert_eq!(check().found()[1]["At"]["commit"], first);
        upstream.delete_branch("featur");
        assert!(check().found()[1]["Missing"]["reason"].is_string());
    });
}

#[test]
fn a_branch_and_a_tag_of_one_name_are_told_apart_by_their_full_names() {
    everywhere(|bench, url, transport| {
        let (upstream, first) = bench.upstream();
        let second = upstream.commit(&[("a", "two")]);
        upstream.branch("same", &first);
        upstream.tag("same", &second);
        upstream.git(&format!("update-ref refs/pull/7/head {second}"));
        let wanted = [Some("refs/heads/same"), Some("refs/tags/same"), Some("refs/pull/7/head")];
        let answer = bench.check(url).by(transport).wants(&wanted).ask();
        assert_eq!(answer.commits(), [&first, &second, &second]);
    });
}

#[test]
fn a_rewritten_branch_is_where_it_is_now() {
    everywhere(|bench, url, transport| {
        let (upstream, _) = bench.upstream();
        let second = upstream.commit(&[("a", "two")]);
        let check = || bench.check(url).by(transport).ask();
        assert_eq!(check().commit(), second);
        let amended = upstream.amend(&[("a", "three")]);
        assert_eq!(check().commit(), amended);
        assert_eq!(bench.mirrored(&amended, "a"), "three");
        // What was live can still be read.
        assert_eq!(bench.mirrored(&second, "a"), "two");
    });
}

#[test]
fn an_empty_repository_has_no_branch_yet() {
    everywhere(|bench, url, transport| {
        let upstream = crate::remote::Upstream::new(&bench.served(), "a.git");
        let check = || bench.check(url).by(transport).wants(&[Some("main"), None]).ask();
        let answer = check();
        assert!(answer.found().iter().all(|found| found["Missing"]["reason"].is_string()), "{}", answer.output);
        let first = upstream.commit(&[("a", "one")]);
        assert_eq!(check().commits(), [&first, &first]);
    });
}
