//! Large repositories in little memory, and those that are too large.

use super::{Bench, both};
use crate::remote::{GitDaemon, HttpServer};

/// What a worker may need for 5,000 branches and as many tags, in KiB.
const REFERENCES_MAX: u64 = 100 << 10;

/// A large file, in bytes.
const BLOB: u64 = 64 << 20;

/// What a worker may need for it, in KiB: the library keeps a whole object while it computes its name, and twice while it
/// reads it.
const BLOB_MAX: u64 = 256 << 10;

#[test]
fn ten_thousand_references_fit() {
    both(|transport| {
        let bench = Bench::new();
        let (upstream, first) = bench.upstream();
        upstream.many_references(5_000, &first);
        let server = HttpServer::new(&bench.served());
        let check = || bench.check(&server.url("a.git")).by(transport).wants(&[Some("main"), Some("many-4999")]).ask();
        let answer = check();
        assert_eq!(answer.commits(), [&first, &first]);
        assert!(answer.peak < REFERENCES_MAX, "{} KiB", answer.peak);
        let second = upstream.commit(&[("a", "two")]);
        let answer = check();
        assert_eq!(answer.commits(), [&second, &first]);
        assert!(answer.peak < REFERENCES_MAX, "{} KiB", answer.peak);
        println!("{} KiB with {transport}", answer.peak);
    });
}

#[test]
fn a_large_file_fits() {
    let bench = Bench::new();
    let (upstream, _) = bench.upstream();
    let commit = upstream.edit().big("big", BLOB).commit();
    let id = upstream.git(&format!("rev-parse {commit}:big"));
    let server = HttpServer::new(&bench.served());
    both(|transport| {
        let mirror = format!("{transport}.git");
        let answer = bench.check(&server.url("a.git")).by(transport).into_repository(&mirror).ask();
        assert_eq!(answer.commit(), commit);
        assert!(answer.peak < BLOB_MAX, "{} KiB", answer.peak);
        println!("{} KiB to fetch with {transport}", answer.peak);
    });
    let blobs = [(id, bench.path("out"))];
    let export = serde_json::json!({ "Export": { "repository": bench.path("libgit2.git"), "blobs": blobs } });
    let answer = bench.ask(&export);
    assert_eq!(answer.reply, "Exported", "{}", answer.output);
    assert!(answer.peak < BLOB_MAX, "{} KiB", answer.peak);
    println!("{} KiB to export", answer.peak);
    assert_eq!(std::fs::metadata(bench.path("out")).expect("it was written").len(), BLOB);
}

#[test]
fn more_than_may_be_is_refused() {
    both(|transport| {
        let bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let (daemon, server) = (GitDaemon::new(&bench.served()), HttpServer::new(&bench.served()));
        for (url, repository) in [(daemon.url("a.git"), "one.git"), (server.url("a.git"), "two.git")] {
            let check = |max: u64| {
                let check = bench.check(&url).by(transport).into_repository(repository);
                check.with("size_max", max).ask()
            };
            assert_eq!(check(1 << 20).commit(), first);
            let big = upstream.edit().big("big", 4 << 20).commit();
            check(1 << 20).failed("TooLarge");
            assert_eq!(check(8 << 20).commit(), big);
            upstream.branch("main", &first);
        }
    });
}
