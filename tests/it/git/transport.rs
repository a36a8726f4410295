//! Every kind of address and both transports, through the daemon.

use std::process::Command;

use super::followed::{Followed, RARELY, UNFOLLOWED, nth};
use crate::program::program;
use crate::remote::{GitDaemon, KnownHosts, Sshd};

/// Follows this address with these keys, deploys a push, and says nothing wrong.
#[track_caller]
fn follows(followed: &Followed, url: &str, keys: &str, command: Command) {
    followed.configure_entries(&Followed::entry("p", &format!("git_url = \"{url}\"\n{RARELY}\n{keys}")));
    let daemon = followed.sandbox.daemon_by(command);
    followed.holds(&daemon, [("a", "one")]);
    followed.upstream.edit().file("a", "two").file("b", "b").commit();
    daemon.sync();
    followed.holds(&daemon, [("a", "two"), ("b", "b")]);
    assert_eq!((followed.problem().as_str(), followed.history().len()), ("", 2), "{}", daemon.said());
}

/// Does the same with the library and with the git program.
fn both(test: impl Fn(&str)) {
    for transport in ["libgit2", "cli"] {
        println!("with {transport}");
        test(&format!("git_transport = \"{transport}\""));
    }
}

#[test]
fn a_file_address_is_followed() {
    both(|keys| {
        let followed = Followed::new("");
        follows(&followed, &followed.upstream.url(), keys, Command::new(program()));
    });
}

#[test]
fn a_path_is_followed() {
    both(|keys| {
        let followed = Followed::new("");
        follows(&followed, "served/a.git", keys, Command::new(program()));
    });
}

#[test]
fn a_web_address_is_followed_at_depth_one() {
    both(|keys| {
        let followed = Followed::new("");
        let keys = format!("{keys}\ngit_depth = 1\ngit_fast_forward_only = false");
        follows(&followed, &followed.url(), &keys, Command::new(program()));
    });
}

#[test]
fn a_password_is_taken_from_a_file() {
    both(|keys| {
        let followed = Followed::new("");
        followed.server.login("deploy", "secret");
        followed.sandbox.write("password", "secret\n");
        let keys = format!("{keys}\ngit_username = \"deploy\"\ngit_password_file = \"password\"");
        follows(&followed, &followed.url(), &keys, Command::new(program()));
    });
}

#[test]
fn a_proxy_that_is_configured_is_used_and_one_of_the_environment_is_not() {
    both(|keys| {
        let followed = Followed::new("");
        let keys = format!("{keys}\ngit_proxy = \"{}\"", followed.server.url(""));
        // Nobody but the proxy knows such a host.
        follows(&followed, "http://git.invalid/a.git", &keys, Command::new(program()));
    });
    both(|keys| {
        let followed = Followed::new("");
        let mut command = Command::new(program());
        command.env("http_proxy", "http://127.0.0.1:9").env("HTTP_PROXY", "http://127.0.0.1:9");
        follows(&followed, &followed.url(), keys, command);
    });
}

#[test]
fn the_git_daemon_is_followed() {
    both(|keys| {
        let followed = Followed::new("");
        let server = GitDaemon::new(&followed.sandbox.path("served"));
        follows(&followed, &server.url("a.git"), keys, Command::new(program()));
    });
}

#[test]
fn a_secure_shell_is_followed_with_its_key_and_its_known_host_only() {
    both(|keys| {
        let followed = Followed::new("");
        let server = Sshd::new(&followed.sandbox.path("sshd"));
        let known = server.known_hosts(KnownHosts::Hashed);
        let (key, known) = (server.key().display().to_string(), known.display().to_string());
        let keys = format!("{keys}\ngit_ssh_key = \"{key}\"\ngit_known_hosts = \"{known}\"");
        let command = || {
            let mut command = Command::new(program());
            command.env("PATH", server.path_variable()).env_remove("SSH_AUTH_SOCK");
            command
        };
        let url = server.url(followed.upstream.path());
        follows(&followed, &url, &keys, command());
        server.change_host_key();
        let daemon = followed.sandbox.daemon_by(command());
        let line = nth(&daemon, UNFOLLOWED, 1);
        assert!(line.field("cause").contains("the host's key"), "{line:?}");
        followed.holds(&daemon, [("a", "two"), ("b", "b")]);
        server.known_hosts(KnownHosts::Hashed);
        daemon.sync();
        assert_eq!(followed.problem(), "", "{}", daemon.said());
    });
}
