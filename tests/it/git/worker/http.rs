//! Over HTTP: passwords, redirects, and servers that break down.

use super::{Bench, both};
use crate::remote::{Fault, HttpServer, git};

/// No pack is this small, and every one of these tests' is larger.
const MIDWAY: usize = 300_000;

#[test]
fn a_mirror_is_made_and_follows_a_push() {
    both(|transport| {
        let bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        let check = || bench.check(&server.url("a.git")).by(transport).ask();
        let answer = check();
        assert_eq!((answer.commit(), answer.branch(), answer.renewed()), (first.as_str(), (Some("main"), true), None));
        assert_eq!(bench.mirrored(&first, "a"), "one");
        let second = upstream.commit(&[("a", "two")]);
        assert_eq!(check().commit(), second);
        assert_eq!(bench.mirrored(&second, "a"), "two");
        bench.assert_sound();
    });
}

#[test]
fn nothing_new_is_nothing_fetched() {
    both(|transport| {
        let bench = Bench::new();
        let (_upstream, commit) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        let check = || bench.check(&server.url("a.git")).by(transport).ask();
        check();
        let asked = |path: &str| server.requests_by_path().get(path).copied().unwrap_or_default();
        let (before, packs) = (asked("GET /a.git/info/refs"), asked("POST /a.git/git-upload-pack"));
        assert_eq!(check().commit(), commit);
        assert_eq!(asked("GET /a.git/info/refs"), before + 1, "{:?}", server.requests_by_path());
        // Protocol 2 lists references by such a request.
        let listings = usize::from(transport == "cli");
        assert!(asked("POST /a.git/git-upload-pack") <= packs + listings, "{:?}", server.requests_by_path());
    });
}

#[test]
fn a_password_in_a_file_is_read_again_at_each_check() {
    both(|transport| {
        let bench = Bench::new();
        let (_upstream, commit) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        server.login("deploy", "right-secret");
        let file = bench.secret("password", "wrong-secret\n");
        let check = || {
            let check = bench.check(&server.url("a.git")).by(transport).with("username", "deploy");
            check.with_file("password_file", &file).ask()
        };
        let answer = check();
        answer.silent_about("wrong-secret").failed("Authentication");
        assert!(server.requests() <= 3, "{:?}", server.requests_by_path());
        bench.secret("password", "right-secret\n");
        assert_eq!(check().silent_about("right-secret").commit(), commit);
        server.login("deploy", "new-secret");
        check().silent_about("right-secret").failed("Authentication");
        bench.secret("password", "new-secret");
        assert_eq!(check().commit(), commit);
        assert_eq!(bench.holding("mirror.git", "-secret"), Vec::<std::path::PathBuf>::new());
    });
}

#[test]
fn a_password_in_the_address_works_and_is_shown_nowhere() {
    both(|transport| {
        let bench = Bench::new();
        let (_upstream, commit) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        server.login("deploy", "p@ss/word");
        let check = |password: &str| {
            let url = server.url_with("deploy", password, "a.git");
            bench.check(&url).by(transport).ask()
        };
        let right = check("p%40ss%2Fword");
        assert_eq!(right.silent_about("p%40ss").silent_about("p@ss").commit(), commit);
        let before = server.requests();
        check("another%2Fword").silent_about("another").failed("Authentication");
        assert!(server.requests() - before <= 3, "{:?}", server.requests_by_path());
        for secret in ["p%40ss", "p@ss", "another"] {
            assert_eq!(bench.holding("mirror.git", secret), Vec::<std::path::PathBuf>::new());
        }
    });
}

#[test]
fn a_secret_is_on_no_command_line() {
    both(|transport| {
        let bench = Bench::new();
        let (_upstream, commit) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        server.login("deploy", "in-the-address");
        server.break_down(Fault::Silent);
        let url = server.url_with("deploy", "in-the-address", "a.git");
        let asked = bench.start(&bench.check(&url).by(transport).request());
        server.wait_requests(1);
        let lines = asked.command_lines();
        assert!(lines.iter().any(|line| line.contains("git-worker")), "{lines:?}");
        assert!(!lines.iter().any(|line| line.contains("in-the-address")), "{lines:?}");
        server.heal();
        assert_eq!(asked.end().commit(), commit);
    });
}

#[test]
fn no_password_where_one_is_needed_says_so() {
    both(|transport| {
        let bench = Bench::new();
        let (_upstream, _) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        server.login("deploy", "secret");
        bench.check(&server.url("a.git")).by(transport).ask().failed("Authentication");
        let missing = bench.path("no-such-file");
        let answer = bench.check(&server.url("a.git")).by(transport).with_file("password_file", &missing).ask();
        assert!(answer.output.contains("no-such-file"), "{}", answer.output);
        assert_ne!(answer.reply["Failed"], serde_json::Value::Null, "{}", answer.output);
    });
}

#[test]
fn a_redirect_is_followed_and_no_password_goes_to_another_server() {
    both(|transport| {
        let bench = Bench::new();
        let (_upstream, commit) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        server.redirect("/old.git", &server.url("a.git"));
        assert_eq!(bench.check(&server.url("old.git")).by(transport).ask().commit(), commit);
        let other = HttpServer::new(&bench.served());
        other.login("deploy", "secret");
        server.redirect("/old.git", &other.url("a.git"));
        let file = bench.secret("password", "secret");
        let check = bench.check(&server.url("old.git")).by(transport).with("username", "deploy");
        let answer = check.with_file("password_file", &file).into_repository("other.git").ask();
        assert_eq!(other.credentials(), Vec::<String>::new(), "{}", answer.output);
        answer.silent_about("secret");
    });
}

#[test]
fn a_repository_that_is_not_there_is_said_to_be_missing() {
    both(|transport| {
        let bench = Bench::new();
        let (upstream, commit) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        let check = || bench.check(&server.url("a.git")).by(transport).ask();
        upstream.move_away();
        check().failed("NotFound");
        upstream.move_back();
        assert_eq!(check().commit(), commit);
        upstream.move_away();
        check().failed("NotFound");
        assert_eq!(bench.mirrored(&commit, "a"), "one");
    });
}

#[test]
fn a_server_in_trouble_is_unreachable_and_the_mirror_stays() {
    both(|transport| {
        let bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        let check = || bench.check(&server.url("a.git")).by(transport).ask();
        assert_eq!(check().commit(), first);
        let second = upstream.commit(&[("a", "two")]);
        for fault in [Fault::Status(500), Fault::Status(503), Fault::Html] {
            server.break_down(fault);
            check().failed("Unreachable");
            assert_eq!(bench.mirrored(&first, "a"), "one");
        }
        server.heal();
        assert_eq!(check().commit(), second);
        drop(server);
        assert_eq!(bench.mirrored(&second, "a"), "two");
    });
}

#[test]
fn nobody_at_the_port_is_unreachable() {
    both(|transport| {
        let bench = Bench::new();
        let url = HttpServer::new(&bench.served()).url("a.git");
        bench.check(&url).by(transport).ask().failed("Unreachable");
    });
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_pack_costs_that_check() {
    both(|transport| {
        let bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        let check = || bench.check(&server.url("a.git")).by(transport).ask();
        let big = upstream.edit().big("big", 1 << 20).commit();
        server.break_down(Fault::DiesInPack(MIDWAY));
        check().failed("Unreachable");
        server.heal();
        assert_eq!(check().commit(), big);
        let bigger = upstream.edit().big("bigger", 2 << 20).commit();
        server.break_down(Fault::DiesInPack(MIDWAY));
        check().failed("Unreachable");
        assert_eq!(bench.mirrored(&first, "a"), "one");
        server.heal();
        assert_eq!(check().commit(), bigger);
        bench.assert_sound();
    });
}

#[test]
fn a_drip_that_ends_in_time_is_waited_for() {
    both(|transport| {
        let bench = Bench::new();
        let (_upstream, commit) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        server.break_down(Fault::Drip);
        let asked = bench.start(&bench.check(&server.url("a.git")).by(transport).request());
        server.wait_requests(1);
        server.heal();
        assert_eq!(asked.end().commit(), commit);
    });
}

#[test]
fn a_fetch_at_depth_one_brings_one_commit_and_the_next() {
    both(|transport| {
        let bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let second = upstream.commit(&[("a", "two")]);
        let server = HttpServer::new(&bench.served());
        let check = || bench.check(&server.url("a.git")).by(transport).depth(1).ask();
        assert_eq!(check().commit(), second);
        assert_eq!(bench.mirrored(&second, "a"), "two");
        let mut older = git(&bench.path("mirror.git"));
        assert!(!older.args(["cat-file", "-e", &first]).output().expect("run git").status.success());
        let third = upstream.commit(&[("a", "three")]);
        assert_eq!(check().commit(), third);
        assert_eq!(bench.mirrored(&third, "a"), "three");
    });
}

#[test]
fn a_server_over_tls_is_trusted_by_its_authority_only() {
    both(|transport| {
        let bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let authority = bench.path("authority.pem");
        let server = HttpServer::encrypted(&bench.served(), &authority);
        bench.check(&server.url("a.git")).by(transport).ask().failed("HostKey");
        let check = || bench.check(&server.url("a.git")).by(transport).with_file("ca_file", &authority).ask();
        assert_eq!(check().commit(), first);
        let second = upstream.edit().big("big", 1 << 20).commit();
        server.break_down(Fault::DiesInPack(MIDWAY));
        check().failed("Unreachable");
        server.heal();
        assert_eq!(check().commit(), second);
        bench.assert_sound();
    });
}
