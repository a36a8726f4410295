//! `git_url` alone: a mirror of ours, and what is pushed to the remote.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use rustix::process::{Signal, kill_process};
use serde_json::Value;

use super::followed::{FAILED, Followed, OFTEN, RARELY, SEEN, UNFOLLOWED, json, nth, said, workers};
use crate::program::program;
use crate::remote::Upstream;
use crate::sandbox::Sandbox;

/// The mirrors below the state directory.
fn mirrors(sandbox: &Sandbox) -> Vec<std::path::PathBuf> {
    let list = std::fs::read_dir(sandbox.path(".pickup/git")).expect("list the mirrors");
    let mirrors = list.map(|entry| entry.expect("list the mirrors").path().join("mirror.git"));
    mirrors.filter(|path| path.is_dir()).collect()
}

#[test]
fn a_push_of_many_commits_is_one_change_set_and_one_generation() {
    let followed = Followed::new(RARELY);
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one")]);
    followed.upstream.commit(&[("a", "two"), ("b", "b"), ("gone", "soon")]);
    followed.upstream.edit().rename("b", "d/b").file("c", "c").commit();
    let edit = followed.upstream.edit().remove("gone").file("a", "three");
    let last = edit.author("Ada Lovelace").message("the third of three\n\nand more about it").commit();
    daemon.sync();
    followed.holds(&daemon, [("a", "three"), ("c", "c"), ("d/b", "b")]);
    let history = followed.history();
    assert_eq!(history.len(), 2, "{history:?}");
    assert_eq!((&history[0]["generation"], &history[0]["changes_total"]), (&2.into(), &3.into()), "{history:?}");
    let revision = &history[0]["revision"];
    assert_eq!((&revision["commit"], &revision["previous"]), (&last.into(), &followed.first.clone().into()));
    assert_eq!((&revision["author"], &revision["branch"]), (&"Ada Lovelace".into(), &"main".into()));
    assert_eq!(revision["subject"], "the third of three");
    assert_eq!((said(&daemon, SEEN), daemon.deployed("a")), (2, 2), "{}", daemon.said());
}

#[test]
fn the_timer_finds_a_push_by_itself() {
    let followed = Followed::new(OFTEN);
    let daemon = followed.sandbox.daemon();
    for number in 0..5 {
        let content = format!("{number}");
        followed.upstream.commit(&[("a", &content)]);
        daemon.wait_deployed("a", number + 2);
        followed.holds(&daemon, [("a", &content)]);
    }
    daemon.stop();
}

#[test]
fn without_a_timer_only_a_start_and_a_sync_ask() {
    let followed = Followed::new("");
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one")]);
    followed.upstream.commit(&[("a", "two")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "two")]);
    assert_eq!(followed.git()["next_check"], Value::Null);
}

#[test]
fn a_hangup_asks_at_once() {
    let followed = Followed::new(RARELY);
    let daemon = followed.sandbox.daemon();
    for number in 2..5 {
        followed.upstream.commit(&[("a", &format!("{number}"))]);
        daemon.hang_up();
        daemon.wait_deployed("a", number);
    }
}

#[test]
fn a_remote_that_stands_still_costs_nothing() {
    let followed = Followed::new(RARELY);
    let daemon = followed.sandbox.daemon();
    let packs = followed.server.packs();
    for _ in 0..5 {
        daemon.sync();
    }
    assert_eq!(followed.server.packs(), packs);
    assert_eq!((followed.history().len(), said(&daemon, SEEN)), (1, 1), "{}", daemon.said());
    assert_eq!(daemon.deployed("a"), 1);
}

#[test]
fn a_commit_that_changes_nothing_below_the_subdirectory_is_seen_and_nothing_is_deployed() {
    let followed = Followed::new(&format!("{RARELY}\ngit_subdir = \"site\""));
    followed.upstream.commit(&[("site/index.html", "hello"), ("src/main.c", "int")]);
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("index.html", "hello")]);
    let beside = followed.upstream.commit(&[("src/main.c", "main")]);
    daemon.sync();
    assert_eq!((followed.history().len(), daemon.deployed("index.html")), (1, 1), "{}", daemon.said());
    assert_eq!(followed.git()["seen"]["commit"], beside);
    followed.upstream.edit().file("site/index.html", "bye").commit();
    daemon.sync();
    followed.holds(&daemon, [("index.html", "bye")]);
}

#[test]
fn the_status_says_what_is_followed_seen_and_live() {
    let followed = Followed::new(&format!("{RARELY}\ngit_username = \"u\""));
    let daemon = followed.sandbox.daemon();
    let git = followed.git();
    assert_eq!((&git["remote"], &git["follows"]), (&followed.url().into(), &"main".into()), "{git}");
    for which in ["seen", "live"] {
        let revision = &git[which];
        assert_eq!(
            (&revision["commit"], &revision["branch"]),
            (&followed.first.clone().into(), &"main".into()),
            "{git}"
        );
        assert_eq!((&revision["author"], &revision["subject"]), (&"An Author".into(), &"a change".into()), "{git}");
        assert!(revision["committed_at"].is_i64(), "{git}");
    }
    for time in ["last_reached", "last_moved", "next_check"] {
        assert!(git[time].as_i64().is_some_and(|at| at > 1_700_000_000_000), "{time}: {git}");
    }
    assert_eq!((&git["problem"], &git["waiting"]), (&Value::Null, &Value::Null), "{git}");
    let second = followed.upstream.commit(&[("a", "two")]);
    daemon.sync();
    let later = followed.git();
    assert_eq!(
        (&later["live"]["commit"], &later["live"]["previous"]),
        (&second.into(), &followed.first.clone().into())
    );
    assert!(later["last_moved"].as_i64() >= git["last_moved"].as_i64(), "{later}");
    let shown = String::from_utf8(followed.sandbox.ask(["status"]).stdout).expect("text");
    assert!(shown.contains("main") && shown.contains("a change"), "{shown}");
}

#[test]
fn entries_with_other_branches_and_directories_share_one_mirror() {
    let followed = Followed::new(RARELY);
    let first = followed.upstream.commit(&[("site/x", "x1"), ("docs/y", "y1")]);
    followed.upstream.branch("stable", &first);
    let url = format!("git_url = \"{}\"\n{RARELY}", followed.url());
    let entries = [
        Followed::entry("p", &url),
        Followed::entry("site", &format!("{url}\ngit_subdir = \"site\"")),
        Followed::entry("docs", &format!("{url}\ngit_subdir = \"docs\"\ngit_ref = \"stable\"")),
    ];
    followed.configure_entries(&entries.concat());
    let daemon = followed.sandbox.daemon();
    assert_eq!(mirrors(&followed.sandbox).len(), 1);
    assert_eq!(followed.sandbox.tree("deployed/site")["x"], "x1");
    assert_eq!(followed.sandbox.tree("deployed/docs")["y"], "y1");
    followed.upstream.commit(&[("site/x", "x2"), ("docs/y", "y2")]);
    daemon.sync();
    assert_eq!(followed.sandbox.tree("deployed/site")["x"], "x2");
    assert_eq!(followed.sandbox.tree("deployed/docs")["y"], "y1");
    followed.holds(&daemon, [("a", "one"), ("docs/y", "y2"), ("site/x", "x2")]);
    followed.upstream.branch("stable", "main");
    daemon.sync();
    assert_eq!(followed.sandbox.tree("deployed/docs")["y"], "y2");
    assert_eq!(mirrors(&followed.sandbox).len(), 1);
}

#[test]
fn another_address_in_the_same_entry_deploys_the_other_repository() {
    let followed = Followed::new(RARELY);
    let other = Upstream::new(&followed.sandbox.path("served"), "b.git");
    let commit = other.commit(&[("b", "other")]);
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one")]);
    let before = said(&daemon, super::followed::READ);
    let url = followed.server.url("b.git");
    followed.configure_entries(&Followed::entry("p", &format!("git_url = \"{url}\"\n{RARELY}")));
    nth(&daemon, super::followed::READ, before + 1);
    daemon.sync();
    followed.holds(&daemon, [("b", "other")]);
    assert_eq!(followed.git()["live"]["commit"], commit);
}

#[test]
fn the_program_is_told_both_commits() {
    let followed = Followed::new(RARELY);
    let keys = format!("git_url = \"{}\"\n{RARELY}\ndeploy_to = [\"run\"]", followed.url());
    let script = "echo \"$PICKUP_UNIT $PICKUP_CHANGE $PICKUP_COMMIT ${PICKUP_PREVIOUS_COMMIT-none}\" >> told";
    let run = "[deployer.run]\nkind = \"exec\"\ncommand = [\"./run\"]\nretry = 0\n";
    followed.configure_entries(&format!("{}\n{run}", Followed::entry("p", &keys)));
    let Followed { server, sandbox, upstream, first } = followed;
    let sandbox = sandbox.script("run", script);
    let daemon = sandbox.daemon();
    let second = upstream.commit(&[("a", "two")]);
    daemon.sync();
    let told = sandbox.read("told").unwrap_or_default();
    assert_eq!(told, format!("a added {first} none\na modified {second} {first}\n"), "{}", daemon.said());
    drop(server);
}

#[test]
fn subscribers_are_told_of_commits_failures_and_recovery() {
    let followed = Followed::new(OFTEN);
    let daemon = followed.sandbox.daemon();
    let mut command = Command::new(program());
    command.args(["events", "--json"]).current_dir(followed.sandbox.path("")).stdout(Stdio::piped());
    let mut child = command.spawn().expect("start pickupd events");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let mut next = |kind: &str| loop {
        let line = lines.next().expect("more events").expect("a line");
        let event: Value = serde_json::from_str(&line).expect("JSON");
        if event["event"] == kind {
            return event;
        }
    };
    // What is said first may be over before anybody listens.
    let mut seen = Value::Null;
    for number in 0..50 {
        followed.upstream.commit(&[("a", &format!("{number}"))]);
        daemon.wait_deployed("a", number + 2);
        if number == 0 {
            continue;
        }
        seen = next("commit_seen");
        break;
    }
    assert_eq!((&seen["pickup"], &seen["revision"]["branch"]), (&"p".into(), &"main".into()), "{seen}");
    followed.upstream.move_away();
    let failed = next("check_failed");
    assert!(failed["cause"].as_str().is_some_and(|cause| !cause.is_empty()), "{failed}");
    followed.upstream.move_back();
    next("check_healed");
    child.kill().expect("end pickupd events");
    child.wait().expect("wait for pickupd events");
}

#[test]
fn what_is_live_stays_while_the_remote_is_down_at_start() {
    let followed = Followed::new(RARELY);
    let daemon = followed.sandbox.daemon();
    followed.upstream.move_away();
    daemon.kill();
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one")]);
    nth(&daemon, UNFOLLOWED, 1);
    assert_eq!(followed.git()["live"]["commit"], followed.first);
    followed.upstream.move_back();
    followed.upstream.commit(&[("a", "two")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "two")]);
    assert_eq!(daemon.deployed("a"), 1, "{}", daemon.said());
}

#[test]
fn a_push_while_down_is_deployed_at_start_and_nothing_else_is() {
    let followed = Followed::new(RARELY);
    followed.upstream.commit(&[("rests", "r")]);
    let daemon = followed.sandbox.daemon();
    daemon.kill();
    followed.upstream.commit(&[("a", "two")]);
    let daemon = followed.sandbox.daemon();
    daemon.assert_deployed_once(["a"]);
    followed.holds(&daemon, [("a", "two"), ("rests", "r")]);
}

#[test]
fn what_somebody_changed_where_it_was_deployed_is_repaired_at_start() {
    let followed = Followed::new(RARELY);
    let daemon = followed.sandbox.daemon();
    daemon.kill();
    followed.sandbox.write("deployed/p/a", "tampered");
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one")]);
}

#[test]
fn a_mirror_that_is_deleted_or_damaged_heals_and_nothing_is_deployed_again() {
    let followed = Followed::new(RARELY);
    let daemon = followed.sandbox.daemon();
    let mirror = mirrors(&followed.sandbox).remove(0);
    std::fs::write(mirror.join("HEAD"), "nonsense").expect("write a file");
    daemon.sync();
    assert_eq!((followed.problem().as_str(), daemon.deployed("a")), ("", 1), "{}", daemon.said());
    std::fs::remove_dir_all(&mirror).expect("remove a directory");
    followed.holds(&daemon, [("a", "one")]);
    followed.upstream.commit(&[("a", "two")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "two")]);
    assert_eq!((daemon.deployed("a"), mirrors(&followed.sandbox).len()), (2, 1), "{}", daemon.said());
}

#[test]
fn an_earlier_commit_can_be_made_live_and_held() {
    let followed = Followed::new(RARELY);
    let daemon = followed.sandbox.daemon();
    followed.upstream.commit(&[("a", "two"), ("b", "b")]);
    daemon.sync();
    followed.sandbox.ask(["rollback", "p", "--to", "1"]);
    followed.holds(&daemon, [("a", "one")]);
    assert_eq!(followed.git()["live"]["commit"], followed.first, "{}", daemon.said());
    followed.upstream.commit(&[("a", "three")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "one")]);
    followed.sandbox.ask(["release", "p"]);
    daemon.sync();
    followed.holds(&daemon, [("a", "three"), ("b", "b")]);
}

#[test]
fn once_deploys_what_is_there_and_fails_where_there_is_no_such_branch() {
    let followed = Followed::new(RARELY);
    let once = || followed.sandbox.try_ask(["run", "--config", "pickup.conf", "--once"]);
    let output = once();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(followed.sandbox.read("deployed/p/a").as_deref(), Some("one"));
    followed.configure(&format!("{RARELY}\ngit_ref = \"no-such-branch\""));
    followed.sandbox.remove_all("deployed");
    followed.sandbox.remove_all(".pickup");
    let output = once();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no-such-branch"), "{output:?}");
    assert_eq!(followed.sandbox.deployed().len(), 0);
}

#[test]
fn a_commit_of_which_one_file_fails_goes_live_not_at_all() {
    let followed = Followed::new(RARELY);
    followed.upstream.commit(&[("b", "one"), ("c", "one")]);
    let keys = format!("git_url = \"{}\"\n{RARELY}\ndeploy_to = [\"copy\", \"judge\"]", followed.url());
    let judge = "[deployer.judge]\nkind = \"exec\"\n\
                 command = [\"sh\", \"-c\", \"test -z \\\"$PICKUP_PATH\\\" || ! grep -q bad \\\"$PICKUP_PATH\\\"\"]\n\
                 retry = 0\n";
    followed.configure_entries(&format!("{}\n{judge}", Followed::entry("p", &keys)));
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one"), ("b", "one"), ("c", "one")]);
    followed.upstream.edit().file("a", "two").file("b", "bad").file("new", "n").remove("c").commit();
    daemon.sync();
    nth(&daemon, FAILED, 1);
    followed.holds(&daemon, [("a", "one"), ("b", "one"), ("c", "one")]);
    assert_eq!(followed.status()["state"], "failed");
    assert_eq!(followed.git()["live"]["commit"], followed.history()[1]["revision"]["commit"]);
    followed.upstream.commit(&[("b", "good")]);
    daemon.sync();
    followed.holds(&daemon, [("a", "two"), ("b", "good"), ("new", "n")]);
    assert_eq!(followed.status()["state"], "live", "{}", daemon.said());
    assert_eq!(json(&followed.sandbox, ["status", "--json"])[0]["failed"].as_array().map(Vec::len), Some(0));
}

#[test]
fn a_remote_where_nothing_moves_is_asked_by_one_process_that_may_die() {
    for followed in [Followed::new(OFTEN), Followed::clone_in(OFTEN)] {
        let daemon = followed.sandbox.daemon();
        daemon.wait_deployed("a", 1);
        let ask_on = || followed.server.wait_requests(followed.server.requests() + 10);
        ask_on();
        let asking = workers(&daemon);
        ask_on();
        let [worker] = asking[..] else { panic!("{asking:?}") };
        assert_eq!(workers(&daemon), asking);
        followed.upstream.commit(&[("a", "two")]);
        daemon.wait_deployed("a", 2);
        kill_process(worker, Signal::KILL).expect("it runs");
        ask_on();
        assert_ne!(workers(&daemon), asking);
        followed.upstream.commit(&[("a", "three")]);
        daemon.wait_deployed("a", 3);
        assert_eq!(said(&daemon, UNFOLLOWED), 0, "{}", daemon.said());
        daemon.stop();
    }
}
