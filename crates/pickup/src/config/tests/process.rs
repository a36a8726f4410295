//! `kind = "process"`: what it says, and what must not be said.

use std::time::Duration;

use insta::assert_snapshot;

use super::super::{DeployerKind, DrainSignal, Limit, ListenAddress, ProcessConfig, Ready, VerifyCheck};
use super::{parse, parse_well, problems};

fn process(text: &str) -> ProcessConfig {
    let config = parse_well(&format!("[deployer.x]\nkind = 'process'\ncommand = ['./x']\n{text}\n"));
    let written = config.to_toml();
    assert_eq!(parse_well(&written).deployers, config.deployers, "{written}");
    let DeployerKind::Process(process) = &config.deployers["x"].kind else { panic!() };
    process.clone()
}

fn wrong(text: &str) -> String {
    problems(&format!("[deployer.x]\nkind = 'process'\ncommand = ['./x']\n{text}\n"))
}

#[test]
fn every_key_is_read_and_written_back() {
    assert_eq!(process(""), ProcessConfig::new(vec!["./x".into()]));
    let config = process(
        "into = '/srv/{pickup}'\nlisten = { a = '[::1]:80', b = 'unix:/run/{pickup}.sock' }\nready = 'line:up and \"ready\"'
        start_timeout = '2s'\nprobation = '0s'\ndrain_signal = 'QUIT'\ndrain_timeout = '3s'\noverlap = false
        env = { A = 'b' }\nuser = 'web:www'\nlimits = { nofile = 1024, as = '1GiB' }\nrestart_max = 0\nwatchdog = '9s'
        health_interval = '3s'
        keep_running = true",
    );
    assert_eq!(config.listen["a"], ListenAddress::Tcp("[::1]:80".parse().unwrap()));
    assert_eq!(config.listen["b"].of("p"), ListenAddress::Unix("/run/p.sock".into()));
    assert_eq!(config.ready, Ready::Line("up and \"ready\"".into()));
    assert_eq!((config.drain_signal, config.overlap), (DrainSignal::Quit, false));
    assert_eq!(config.limits[&Limit::As], 1 << 30);
    assert_eq!(config.watchdog, Some(Duration::from_secs(9)));
    assert_eq!(config.health_interval, Duration::from_secs(3));
    assert_eq!(config.user.as_deref(), Some("web:www"));
}

#[test]
fn each_way_to_be_ready_is_read_and_written_back() {
    assert_eq!(process("ready = 'notify'").ready, Ready::Notify);
    assert_eq!(process("ready = 'after:250ms'").ready, Ready::After(Duration::from_millis(250)));
    assert_eq!(process("ready = 'tcp://h:80'").ready, Ready::Check(VerifyCheck::Tcp("h:80".into())));
    let exec = VerifyCheck::Exec(vec!["./probe".into(), "a b".into()]);
    assert_eq!(process("ready = \"exec:./probe 'a b'\"").ready, Ready::Check(exec));
    let url = "http://127.0.0.1:{port:a}/health";
    let text = format!("listen = {{ a = '0.0.0.0:80' }}\nenv = {{ PORT = '{{port:a}}' }}\nready = '{url}'");
    assert_eq!(process(&text).ready, Ready::Check(VerifyCheck::Http(url.into())));
}

#[test]
fn mistakes_are_named() {
    assert_snapshot!(
        wrong("listen = ['a=localhost:80', 'b:c=1.2.3.4:5', 'd=unix:x']\nready = 'soon'\ndrain_signal = 'KILL'\nuser = ':g'\nlimits = { x = 1, cpu = 'much' }"),
        @r#"
        pickup.conf:4:10: error: [deployer.x] listen: expected an address such as `127.0.0.1:8080` or `unix:/run/app.sock`, found `localhost:80`
        pickup.conf:4:10: error: [deployer.x] listen: `b:c` is no listener's name
        pickup.conf:4:10: error: [deployer.x] listen: expected `unix:` and an absolute path, found `unix:x`
        pickup.conf:5:9: error: [deployer.x] ready: expected `notify`, `tcp://host:port`, `http://…`, `exec:…`, `line:…` or `after:1s`, found `soon`
        pickup.conf:6:16: error: [deployer.x] drain_signal: expected one of `TERM`, `INT`, `QUIT`, `HUP`, `USR1`, `USR2`, `WINCH`, found `KILL`
        pickup.conf:7:8: error: [deployer.x] user: expected `user` or `user:group`
        pickup.conf:8:10: error: [deployer.x] limits: expected one of `as`, `core`, `cpu`, `data`, `fsize`, `memlock`, `nofile`, `nproc`, `stack`, found `x`
        pickup.conf:8:10: error: [deployer.x] limits: `cpu`: expected a number or a size, found `much`
        "#
    );
    assert_snapshot!(wrong("env = { A = '{fd:http}' }\nready = 'exec:x {port:y}'\nuser = 'a'"), @r#"
        pickup.conf:4:7: error: [deployer.x] env: `{fd:http}` is no name in `listen`
        pickup.conf:5:9: error: [deployer.x] ready: `{port:y}` is no name in `listen`
        pickup.conf:6:8: error: [deployer.x] user: needs `into`: the state directory is closed to other users
        "#);
    assert_snapshot!(wrong("listen = { a = '0.0.0.0:80' }\nready = 'http://localhost:80/'"), @r#"pickup.conf:5:9: error: [deployer.x] ready: the old version would answer on a listener that both have: use `notify`, `line:`, `exec:`, or `{port:name}`"#);
    assert_snapshot!(wrong("listen = { a = '0.0.0.0:80' }\nenv = { A = '{fd:a}', B = '{port:a}' }"), @r#"pickup.conf:3:11: error: [deployer.x] command: `{fd:a}` and `{port:a}` exclude each other"#);
    assert_snapshot!(wrong("timeout = '10s'"), @r#"pickup.conf:4:11: error: [deployer.x] timeout: is shorter than starting, probation or draining may take, with 5 s to spare: 35s"#);
    assert_snapshot!(problems("[deployer.x]\nkind = 'process'\n"), @r#"pickup.conf:1:1: error: [deployer.x] command: is missing: which program is to be run?"#);
}

#[test]
fn phases_have_the_time_that_the_program_has() {
    let text = "[deployer.x]\nkind = 'process'\ncommand = ['x']\nstart_timeout = '2m'\noverlap = false\n";
    assert_eq!(parse_well(text).deployers["x"].common.timeout, Duration::from_secs(155));
}

#[test]
fn an_address_has_one_owner() {
    let deployer = |name: &str, listen: &str| {
        format!("[deployer.{name}]\nkind = 'process'\ncommand = ['x']\nlisten = {{ a = '{listen}' }}\n")
    };
    let entry =
        |name: &str, to: &str| format!("[hot-deploy.user.{name}]\npickup_from = '/in/{name}'\ndeploy_to = '{to}'\n");
    let text = deployer("one", "127.0.0.1:80") + &deployer("two", "0.0.0.0:80") + &deployer("three", "127.0.0.2:81");
    assert_snapshot!(problems(&text), @r#"pickup.conf:8:1: error: [deployer.two] listen: 0.0.0.0:80 is listened on by deployer `one` already"#);
    let text = deployer("one", "127.0.0.1:80") + &entry("p", "one") + &entry("q", "one");
    assert_snapshot!(problems(&text), @r#"
        pickup.conf:4:1: error: [deployer.one] listen: 127.0.0.1:80 is listened on by deployer `one` for entry `p` already
        pickup.conf:7:1: error: [hot-deploy.user.p] deploy_to: deployer `one` is broken
        pickup.conf:10:1: error: [hot-deploy.user.q] deploy_to: deployer `one` is broken
        "#);
    let text = deployer("one", "unix:/run/{pickup}") + &entry("p", "one") + &entry("q", "one");
    assert!(parse(&text).problems.is_empty());
}
