//! What a crash left, what somebody damaged, and peers that never answer.

use std::fs;

use super::{Bench, both};
use crate::remote::{BlackHole, Drip, Fault, HttpServer, run};

#[test]
fn a_worker_ends_when_its_input_does() {
    both(|transport| {
        let bench = Bench::new();
        let hole = BlackHole::new();
        for url in [format!("http://127.0.0.1:{}/a.git", hole.port()), format!("git://127.0.0.1:{}/a.git", hole.port())]
        {
            let before = hole.connections();
            let mut asked = bench.start(&bench.check(&url).by(transport).request());
            hole.wait_connections(before + 1);
            asked.hang_up();
            let answer = asked.end();
            assert!(answer.reply.get("Checked").is_none(), "{}", answer.output);
        }
    });
}

#[test]
fn a_worker_that_gets_a_byte_a_second_ends_when_its_input_does() {
    both(|transport| {
        let bench = Bench::new();
        let drip = Drip::new();
        let url = format!("http://127.0.0.1:{}/a.git", drip.port());
        let mut asked = bench.start(&bench.check(&url).by(transport).request());
        asked.hang_up();
        let answer = asked.end();
        assert!(answer.reply.get("Checked").is_none(), "{}", answer.output);
    });
}

#[test]
fn a_worker_that_is_killed_midway_leaves_nothing_that_hinders() {
    both(|transport| {
        let bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        let check = || bench.check(&server.url("a.git")).by(transport);
        assert_eq!(check().ask().commit(), first);
        let second = upstream.edit().big("big", 4 << 20).commit();
        server.break_down(Fault::Drip);
        let before = server.requests();
        let asked = bench.start(&check().request());
        server.wait_requests(before + 1);
        asked.kill();
        drop(asked);
        server.heal();
        assert_eq!(check().ask().commit(), second);
        bench.assert_sound();
    });
}

#[test]
fn stale_locks_and_half_packs_are_swept() {
    both(|transport| {
        let bench = Bench::new();
        let (upstream, first) = bench.upstream();
        upstream.branch("other", &first);
        let server = HttpServer::new(&bench.served());
        let check = || bench.check(&server.url("a.git")).by(transport).wants(&[Some("main"), Some("other")]).ask();
        check();
        let mirror = bench.path("mirror.git");
        fs::create_dir_all(mirror.join("refs/heads")).expect("make a directory");
        fs::create_dir_all(mirror.join("objects/pack")).expect("make a directory");
        let left = [
            "HEAD.lock",
            "config.lock",
            "packed-refs.lock",
            "shallow.lock",
            "FETCH_HEAD.lock",
            "index.lock",
            "refs/heads/main.lock",
            "refs/heads/new.lock",
            "objects/pack/pack_git2_0123456789abcdef",
            "objects/pack/tmp_pack_012345",
        ];
        for path in left {
            fs::write(mirror.join(path), "").expect("write a file");
        }
        let second = upstream.commit(&[("a", "two")]);
        let answer = check();
        assert_eq!(answer.commits(), [&second, &first]);
        assert_eq!(answer.renewed(), None, "{}", answer.output);
        bench.assert_sound();
    });
}

#[test]
fn a_damaged_mirror_is_made_anew_and_says_why() {
    both(|transport| {
        let damages: [fn(&std::path::Path); 4] = [
            |mirror| fs::write(mirror.join("HEAD"), "nonsense").expect("write a file"),
            |mirror| fs::remove_file(mirror.join("HEAD")).expect("remove a file"),
            |mirror| fs::remove_dir_all(mirror.join("objects")).expect("remove a directory"),
            |mirror| fs::write(mirror.join("config"), "[core\n").expect("write a file"),
        ];
        for damage in damages {
            let bench = Bench::new();
            let (_upstream, commit) = bench.upstream();
            let server = HttpServer::new(&bench.served());
            let check = || bench.check(&server.url("a.git")).by(transport).ask();
            assert_eq!(check().renewed(), None);
            damage(&bench.path("mirror.git"));
            let answer = check();
            assert_eq!(answer.commit(), commit);
            assert!(answer.renewed().is_some_and(|why| !why.is_empty()), "{}", answer.output);
            assert_eq!(bench.mirrored(&commit, "a"), "one");
            bench.assert_sound();
        }
    });
}

#[test]
fn a_mirror_that_lost_objects_is_made_anew() {
    both(|transport| {
        let bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        let check = || bench.check(&server.url("a.git")).by(transport).ask();
        check();
        let mirror = bench.path("mirror.git");
        for directory in fs::read_dir(mirror.join("objects")).expect("list a directory") {
            let directory = directory.expect("list a directory").path();
            fs::remove_dir_all(&directory).expect("remove a directory");
            fs::create_dir(&directory).expect("make a directory");
        }
        assert_eq!(check().commit(), first);
        assert_eq!(bench.mirrored(&first, "a"), "one");
        let second = upstream.commit(&[("a", "two")]);
        assert_eq!(check().commit(), second);
        bench.assert_sound();
    });
}

#[test]
fn a_damaged_mirror_stays_while_the_remote_is_down() {
    both(|transport| {
        let bench = Bench::new();
        let (_upstream, commit) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        let check = || bench.check(&server.url("a.git")).by(transport).ask();
        check();
        fs::write(bench.path("mirror.git/HEAD"), "nonsense").expect("write a file");
        server.break_down(Fault::Status(503));
        check().failed("Unreachable");
        server.heal();
        assert_eq!(check().commit(), commit);
        bench.assert_sound();
    });
}

#[test]
fn what_is_not_ours_is_not_made_a_mirror() {
    both(|transport| {
        let bench = Bench::new();
        let (_upstream, _) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        fs::create_dir(bench.path("mirror.git")).expect("make a directory");
        fs::write(bench.path("mirror.git/precious"), "mine").expect("write a file");
        let answer = bench.check(&server.url("a.git")).by(transport).clone_at("mirror.git").ask();
        answer.failed("Refused");
        assert_eq!(fs::read_to_string(bench.path("mirror.git/precious")).expect("still there"), "mine");
    });
}

#[test]
fn blobs_are_written_to_files_that_must_not_exist() {
    let bench = Bench::new();
    let (upstream, _) = bench.upstream();
    let commit = upstream.edit().big("big", 3 << 20).file("b", "bee").commit();
    bench.check(&upstream.url()).ask().commit();
    let id = |file: &str| run(upstream.path(), &format!("rev-parse {commit}:{file}"));
    let mirror = bench.path("mirror.git");
    let request = |out: [&str; 2]| {
        let blobs = [(id("big"), bench.path(out[0])), (id("b"), bench.path(out[1]))];
        serde_json::json!({ "Export": { "repository": mirror, "blobs": blobs } })
    };
    let answer = bench.ask(&request(["out-big", "out-b"]));
    assert_eq!(answer.reply, "Exported", "{}", answer.output);
    assert_eq!(fs::read_to_string(bench.path("out-b")).expect("it was written"), "bee");
    assert_eq!(run(&bench.path(""), "hash-object out-big"), id("big"));
    let answer = bench.ask(&request(["another-big", "out-b"]));
    assert!(answer.reply["Failed"]["message"].is_string(), "{}", answer.output);
    assert_eq!(fs::read_to_string(bench.path("out-b")).expect("it is as it was"), "bee");
}

#[test]
fn a_mirror_that_is_packed_holds_what_it_held() {
    both(|transport| {
        let bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let server = HttpServer::new(&bench.served());
        let mut last = first.clone();
        for number in 0..5 {
            last = upstream.commit(&[("a", &format!("{number}"))]);
            assert_eq!(bench.check(&server.url("a.git")).by(transport).ask().commit(), last);
        }
        let answer = bench.ask(&serde_json::json!({ "Repack": { "repository": bench.path("mirror.git") } }));
        assert_eq!(answer.reply, "Repacked", "{}", answer.output);
        let packs = bench.holding("mirror.git/objects/pack", "").into_iter();
        assert_eq!(packs.filter(|path| path.extension().is_some_and(|end| end == "pack")).count(), 1);
        assert_eq!((bench.mirrored(&first, "a"), bench.mirrored(&last, "a")), ("one".into(), "4".into()));
        bench.assert_sound();
        let next = upstream.commit(&[("a", "next")]);
        assert_eq!(bench.check(&server.url("a.git")).by(transport).ask().commit(), next);
    });
}
