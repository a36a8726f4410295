//! Remotes in trouble: what is live stays, it is said once, and it heals by itself.

use super::followed::{FOLLOWED, Followed, OFTEN, RARELY, UNFOLLOWED, nth, said};
use crate::remote::{BlackHole, Fault};

#[test]
fn a_repository_that_is_renamed_away_and_back_heals_by_itself() {
    let followed = Followed::new(OFTEN);
    let daemon = followed.sandbox.daemon();
    followed.upstream.move_away();
    let line = nth(&daemon, UNFOLLOWED, 1);
    assert_ne!(line.field("cause"), "", "{line:?}");
    followed.holds(&daemon, [("a", "one")]);
    assert!(!followed.problem().is_empty());
    followed.upstream.commit_away(&[("a", "two")]);
    followed.upstream.move_back();
    daemon.wait_deployed("a", 2);
    nth(&daemon, FOLLOWED, 1);
    followed.holds(&daemon, [("a", "two")]);
    assert_eq!((said(&daemon, UNFOLLOWED), followed.problem().as_str()), (1, ""), "{}", daemon.said());
}

#[test]
fn a_server_that_never_answers_costs_one_timeout_at_a_time_and_nobody_else() {
    let followed = Followed::new(RARELY);
    let hole = BlackHole::new();
    let dead = format!("git_url = \"http://127.0.0.1:{}/a.git\"\n{OFTEN}\ngit_timeout = \"2s\"", hole.port());
    let alive = format!("git_url = \"{}\"\n{OFTEN}", followed.url());
    followed.configure_entries(&format!("{}{}", Followed::entry("dead", &dead), Followed::entry("p", &alive)));
    let daemon = followed.sandbox.start(std::process::Command::new(crate::program::program()));
    daemon.wait_deployed("a", 1);
    let line = nth(&daemon, UNFOLLOWED, 1);
    assert_eq!(line.field("pickup"), "dead", "{line:?}");
    followed.upstream.commit(&[("a", "two")]);
    daemon.wait_deployed("a", 2);
    // It is asked again.
    hole.wait_connections(2);
    daemon.stop();
}

#[test]
fn every_kind_of_breakdown_heals_by_itself() {
    let followed = Followed::new(&format!("{OFTEN}\ngit_timeout = \"2s\""));
    let daemon = followed.sandbox.daemon();
    let faults = [Fault::Status(500), Fault::Status(503), Fault::Html, Fault::Silent, Fault::Drip];
    for (number, fault) in faults.into_iter().enumerate() {
        followed.server.break_down(fault);
        followed.upstream.commit(&[("a", &format!("{fault:?}"))]);
        nth(&daemon, UNFOLLOWED, number + 1);
        assert_eq!(daemon.deployed("a"), number + 1, "{}", daemon.said());
        followed.server.heal();
        daemon.sync();
        followed.holds(&daemon, [("a", &format!("{fault:?}"))]);
        nth(&daemon, FOLLOWED, number + 1);
    }
}

#[test]
fn a_server_that_dies_in_the_middle_of_a_pack_costs_that_check_only() {
    let followed = Followed::new(RARELY);
    let daemon = followed.sandbox.daemon();
    followed.server.break_down(Fault::DiesInPack(300_000));
    followed.upstream.edit().big("big", 2 << 20).file("a", "two").commit();
    daemon.sync();
    followed.holds(&daemon, [("a", "one")]);
    assert_ne!(followed.problem(), "");
    followed.server.heal();
    daemon.sync();
    assert_eq!(followed.sandbox.read("deployed/p/a").as_deref(), Some("two"), "{}", daemon.said());
    let size = followed.sandbox.path("deployed/p/big").metadata().expect("it is there").len();
    assert_eq!((size, followed.problem().as_str()), (2 << 20, ""));
}

#[test]
fn a_slow_server_within_the_deadline_is_waited_for() {
    let followed = Followed::new(RARELY);
    let daemon = followed.sandbox.daemon();
    followed.upstream.commit(&[("a", "two")]);
    followed.server.break_down(Fault::Silent);
    let before = followed.server.requests();
    daemon.hang_up();
    followed.server.wait_requests(before + 1);
    followed.server.heal();
    daemon.wait_deployed("a", 2);
    assert_eq!(said(&daemon, UNFOLLOWED), 0, "{}", daemon.said());
}

#[test]
fn a_wrong_password_is_said_once_and_the_right_one_heals() {
    let followed = Followed::new(RARELY);
    followed.server.login("deploy", "right-secret");
    followed.sandbox.write("password", "wrong-secret\n");
    followed.configure(&format!("{OFTEN}\ngit_username = \"deploy\"\ngit_password_file = \"password\""));
    let daemon = followed.sandbox.start(std::process::Command::new(crate::program::program()));
    nth(&daemon, UNFOLLOWED, 1);
    let refused = followed.server.requests();
    followed.sandbox.write("password.new", "right-secret\n");
    followed.sandbox.rename("password.new", "password");
    daemon.wait_deployed("a", 1);
    assert!(refused <= 6, "a wrong secret is not tried again and again: {refused}");
    followed.server.login("deploy", "new-secret");
    nth(&daemon, UNFOLLOWED, 2);
    followed.holds(&daemon, [("a", "one")]);
    followed.sandbox.write("password.new", "new-secret\n");
    followed.sandbox.rename("password.new", "password");
    followed.upstream.commit(&[("a", "two")]);
    daemon.wait_deployed("a", 2);
    let said = daemon.stop();
    assert!(!said.contains("-secret"), "{said}");
}

#[test]
fn a_daemon_that_is_killed_while_it_fetches_recovers() {
    let followed = Followed::new(RARELY);
    let daemon = followed.sandbox.daemon();
    followed.upstream.edit().big("big", 1 << 20).file("a", "two").commit();
    followed.server.break_down(Fault::Drip);
    let before = followed.server.requests();
    daemon.hang_up();
    followed.server.wait_requests(before + 1);
    daemon.kill();
    followed.server.heal();
    let daemon = followed.sandbox.daemon();
    assert_eq!(followed.sandbox.read("deployed/p/a").as_deref(), Some("two"), "{}", daemon.said());
    daemon.assert_deployed_once(["a", "big"]);
}

#[test]
fn a_daemon_stops_at_once_although_the_remote_never_answers() {
    let followed = Followed::new(RARELY);
    let daemon = followed.sandbox.daemon();
    followed.server.break_down(Fault::Silent);
    let before = followed.server.requests();
    daemon.hang_up();
    followed.server.wait_requests(before + 1);
    daemon.stop();
}

#[test]
fn a_secret_in_the_address_is_shown_nowhere() {
    let followed = Followed::new(RARELY);
    followed.server.login("deploy", "right-secret");
    let url = followed.server.url_with("deploy", "right-secret", "a.git");
    followed.configure_entries(&Followed::entry("p", &format!("git_url = \"{url}\"\n{OFTEN}")));
    let daemon = followed.sandbox.daemon();
    followed.holds(&daemon, [("a", "one")]);
    followed.upstream.move_away();
    nth(&daemon, UNFOLLOWED, 1);
    for arguments in [["status", "--json"], ["history", "--json"], ["status", "p"], ["check", "--json"]] {
        let output = followed.sandbox.try_ask(arguments);
        let shown = format!("{output:?}");
        assert!(!shown.contains("right-secret"), "{arguments:?}: {shown}");
    }
    let said = daemon.stop();
    assert!(!said.contains("right-secret"), "{said}");
}
