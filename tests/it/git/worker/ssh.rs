//! Over SSH: keys, host keys, the user's configuration and agent.

use std::fs;
use std::process::{Command, Stdio};

use super::{Answer, Bench, both};
use crate::remote::{KnownHosts, Sshd, Upstream};

/// What a check says with this key and this file of known hosts.
fn ask(bench: &Bench, server: &Sshd, upstream: &Upstream, transport: &str, key: bool, known: KnownHosts) -> Answer {
    let check = bench.check(&server.url(upstream.path())).by(transport);
    let key = if key { server.key() } else { server.stranger() };
    check.with_file("ssh_key", &key).with_file("known_hosts", &server.known_hosts(known)).ask()
}

#[test]
fn a_key_and_a_known_host_are_enough() {
    both(|transport| {
        let mut bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let server = bench.sshd();
        let check = |known| ask(&bench, &server, &upstream, transport, true, known);
        assert_eq!(check(KnownHosts::Plain).commit(), first);
        let second = upstream.commit(&[("a", "two")]);
        assert_eq!(check(KnownHosts::Hashed).commit(), second);
        assert_eq!(bench.mirrored(&second, "a"), "two");
        bench.assert_sound();
    });
}

#[test]
fn a_key_that_is_not_let_in_is_refused_once() {
    both(|transport| {
        let mut bench = Bench::new();
        let (upstream, _) = bench.upstream();
        let server = bench.sshd();
        ask(&bench, &server, &upstream, transport, false, KnownHosts::Plain).failed("Authentication");
        assert_eq!(server.connections(), 1);
    });
}

#[test]
fn an_unknown_host_and_another_host_are_refused_before_any_key_is_offered() {
    both(|transport| {
        let mut bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let server = bench.sshd();
        let check = |known| ask(&bench, &server, &upstream, transport, true, known);
        check(KnownHosts::Empty).failed("HostKey");
        check(KnownHosts::Other).failed("HostKey");
        let known = server.known_hosts(KnownHosts::Empty);
        assert_eq!(fs::read_to_string(known).expect("read known hosts"), "", "nothing is accepted on the way");
        assert_eq!(check(KnownHosts::Plain).commit(), first);
        server.change_host_key();
        let stale = server.known_hosts(KnownHosts::Plain);
        let fresh = fs::read(&stale).expect("read known hosts");
        // What was right before the change.
        let check = bench.check(&server.url(upstream.path())).by(transport).with_file("ssh_key", &server.key());
        fs::write(&stale, "").expect("write known hosts");
        check.with_file("known_hosts", &stale).ask().failed("HostKey");
        fs::write(&stale, fresh).expect("write known hosts");
        let check = bench.check(&server.url(upstream.path())).by(transport).with_file("ssh_key", &server.key());
        assert_eq!(check.with_file("known_hosts", &stale).ask().commit(), first);
    });
}

#[test]
fn a_host_under_another_port_is_another_host() {
    both(|transport| {
        let mut bench = Bench::new();
        let (upstream, _) = bench.upstream();
        let server = bench.sshd();
        let known = server.known_hosts(KnownHosts::Plain);
        let text = fs::read_to_string(&known).expect("read known hosts");
        fs::write(&known, text.replace(&format!(":{}", server.port()), ":2222")).expect("write known hosts");
        let check = bench.check(&server.url(upstream.path())).by(transport).with_file("ssh_key", &server.key());
        check.with_file("known_hosts", &known).ask().failed("HostKey");
    });
}

#[test]
fn a_name_from_the_users_configuration_is_understood() {
    both(|transport| {
        let mut bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let server = bench.sshd();
        let known = server.known_hosts(KnownHosts::Plain);
        let configuration = format!(
            "Host forge\nHostName 127.0.0.1\nPort {}\nUser {}\nIdentityFile {}\nUserKnownHostsFile {}\n",
            server.port(),
            server.user(),
            server.key().display(),
            known.display()
        );
        fs::write(bench.path("sshd/ssh_config_more"), configuration).expect("write a configuration");
        let url = format!("forge:{}", upstream.path().display());
        assert_eq!(bench.check(&url).by(transport).ask().commit(), first);
        let url = format!("ssh://forge{}", upstream.path().display());
        assert_eq!(bench.check(&url).by(transport).ask().commit(), first);
    });
}

#[test]
fn the_agents_key_is_used() {
    both(|transport| {
        let mut bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let server = bench.sshd();
        let socket = bench.path("agent");
        let mut agent = Command::new("ssh-agent");
        agent.args(["-D", "-a"]).arg(&socket).stdout(Stdio::piped());
        let mut agent = agent.spawn().expect("start an agent");
        // It says where it listens once it does.
        std::io::Read::read_exact(agent.stdout.as_mut().expect("its output"), &mut [0; 8]).expect("a line");
        let mut add = Command::new("ssh-add");
        add.arg("-q").arg(server.key()).env("SSH_AUTH_SOCK", &socket);
        assert!(add.status().expect("run ssh-add").success());
        bench.agent = Some(socket);
        let check = bench.check(&server.url(upstream.path())).by(transport);
        let answer = check.with_file("known_hosts", &server.known_hosts(KnownHosts::Plain)).ask();
        agent.kill().expect("end the agent");
        agent.wait().expect("wait for the agent");
        assert_eq!(answer.commit(), first);
    });
}

#[test]
fn a_repository_that_is_not_there_is_said_to_be_missing() {
    both(|transport| {
        let mut bench = Bench::new();
        let (upstream, first) = bench.upstream();
        let server = bench.sshd();
        let check = || ask(&bench, &server, &upstream, transport, true, KnownHosts::Plain);
        upstream.move_away();
        check().failed("NotFound");
        upstream.move_back();
        assert_eq!(check().commit(), first);
    });
}
