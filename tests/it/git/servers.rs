//! The servers of these tests are what they say they are: git itself can read from them.

use tempfile::TempDir;

use crate::remote::{BlackHole, Drip, Fault, GitDaemon, HttpServer, KnownHosts, Sshd, Upstream, git};

fn directory() -> TempDir {
    tempfile::Builder::new().prefix("pickup-it-").tempdir().expect("a temporary directory")
}

/// What git answers when asked where `main` is.
fn main_of(directory: &TempDir, url: &str, extra: &[(&str, &std::ffi::OsStr)]) -> Result<String, String> {
    let mut command = git(directory.path());
    command.args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=1", "ls-remote", url, "refs/heads/main"]);
    command.envs(extra.iter().copied());
    let output = command.output().expect("run git");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if !output.status.success() {
        return Err(text(&output.stderr));
    }
    Ok(text(&output.stdout).split_whitespace().next().unwrap_or_default().to_owned())
}

#[test]
fn a_web_server_asks_for_the_password_and_counts() {
    let directory = directory();
    let upstream = Upstream::new(&directory.path().join("up"), "a.git");
    let id = upstream.commit(&[("a", "1")]);
    let server = HttpServer::new(&directory.path().join("up"));
    assert_eq!(main_of(&directory, &server.url("a.git"), &[]), Ok(id.clone()));
    server.login("u", "right");
    main_of(&directory, &server.url("a.git"), &[]).expect_err("no password");
    main_of(&directory, &server.url_with("u", "wrong", "a.git"), &[]).expect_err("a wrong password");
    assert_eq!(main_of(&directory, &server.url_with("u", "right", "a.git"), &[]), Ok(id));
    assert!(server.requests() >= 6, "{:?}", server.requests_by_path());
    assert!(server.credentials().len() >= 2, "{:?}", server.credentials());
}

#[test]
fn a_web_server_breaks_down_and_heals() {
    let directory = directory();
    let upstream = Upstream::new(&directory.path().join("up"), "a.git");
    let id = upstream.edit().big("a", 1 << 20).commit();
    let server = HttpServer::new(&directory.path().join("up"));
    let url = server.url("a.git");
    for fault in [Fault::Silent, Fault::Drip, Fault::Status(500), Fault::Status(503), Fault::Html] {
        server.break_down(fault);
        main_of(&directory, &url, &[]).expect_err("a fault");
        server.heal();
        assert_eq!(main_of(&directory, &url, &[]), Ok(id.clone()), "after {fault:?}");
    }
    let clone = || git(directory.path()).args(["clone", "--quiet", "--bare", &url, "b.git"]).output().expect("run git");
    server.break_down(Fault::DiesInPack(100_000));
    assert!(!clone().status.success());
    server.heal();
    assert!(clone().status.success());
    server.redirect("/old.git", &server.url("a.git"));
    assert_eq!(main_of(&directory, &server.url("old.git"), &[]), Ok(id));
}

#[test]
fn a_web_server_over_tls_is_trusted_by_its_authority_only() {
    let directory = directory();
    let upstream = Upstream::new(&directory.path().join("up"), "a.git");
    let id = upstream.commit(&[("a", "1")]);
    let authority = directory.path().join("authority.pem");
    let server = HttpServer::encrypted(&directory.path().join("up"), &authority);
    main_of(&directory, &server.url("a.git"), &[]).expect_err("an unknown authority");
    let trusting = [("GIT_SSL_CAINFO", authority.as_os_str())];
    assert_eq!(main_of(&directory, &server.url("a.git"), &trusting), Ok(id));
}

#[test]
fn a_secure_shell_server_lets_one_key_in() {
    let directory = directory();
    let upstream = Upstream::new(&directory.path().join("up"), "a.git");
    let id = upstream.commit(&[("a", "1")]);
    let server = Sshd::new(&directory.path().join("sshd"));
    let ask = |key: std::path::PathBuf, known: KnownHosts| {
        let (key, known) = (key.display().to_string(), server.known_hosts(known).display().to_string());
        let command = format!("ssh -o BatchMode=yes -o IdentitiesOnly=yes -i {key} -o UserKnownHostsFile={known}");
        let path = server.path_variable();
        let extra = [("GIT_SSH_COMMAND", command.as_ref()), ("PATH", path.as_os_str())];
        main_of(&directory, &server.url(upstream.path()), &extra)
    };
    assert_eq!(ask(server.key(), KnownHosts::Plain), Ok(id.clone()));
    assert_eq!(ask(server.key(), KnownHosts::Hashed), Ok(id.clone()));
    ask(server.stranger(), KnownHosts::Plain).expect_err("another key");
    ask(server.key(), KnownHosts::Empty).expect_err("an unknown host");
    ask(server.key(), KnownHosts::Other).expect_err("another host");
    let known = server.known_hosts(KnownHosts::Plain);
    let before = std::fs::read(&known).expect("read known hosts");
    server.change_host_key();
    assert_ne!(std::fs::read(server.known_hosts(KnownHosts::Plain)).expect("read known hosts"), before);
    assert_eq!(ask(server.key(), KnownHosts::Plain), Ok(id));
    assert_eq!(server.connections(), 6);
}

#[test]
fn the_git_daemon_serves_and_the_others_do_not() {
    let directory = directory();
    let upstream = Upstream::new(&directory.path().join("up"), "a.git");
    let id = upstream.commit(&[("a", "1")]);
    let server = GitDaemon::new(&directory.path().join("up"));
    assert_eq!(main_of(&directory, &server.url("a.git"), &[]), Ok(id.clone()));
    upstream.move_away();
    main_of(&directory, &server.url("a.git"), &[]).expect_err("renamed");
    upstream.move_back();
    assert_eq!(main_of(&directory, &server.url("a.git"), &[]), Ok(id));
    assert_eq!(server.connections(), 3);
    let (hole, drip) = (BlackHole::new(), Drip::new());
    main_of(&directory, &format!("http://127.0.0.1:{}/a.git", hole.port()), &[]).expect_err("no answer");
    main_of(&directory, &format!("http://127.0.0.1:{}/a.git", drip.port()), &[]).expect_err("no answer in time");
    assert_eq!(hole.connections(), 1);
}

#[test]
fn an_upstream_has_the_history_it_was_given() {
    let directory = directory();
    let upstream = Upstream::new(directory.path(), "a.git");
    let first = upstream.commit(&[("a", "1"), ("b", "1")]);
    let second = upstream.edit().rename("b", "c").file("a", "2").executable("d", "x").symlink("e", "a").commit();
    assert_eq!(upstream.git("rev-list main"), format!("{second}\n{first}"));
    assert_eq!(upstream.git("ls-tree --name-only main"), "a\nc\nd\ne");
    let amended = upstream.amend(&[("a", "3")]);
    assert_eq!(upstream.git("rev-list main"), format!("{amended}\n{first}"));
    let other = upstream.edit().on("other").orphan().file("z", "z").commit();
    assert_eq!(upstream.git("rev-list other"), other);
    upstream.annotated_tag("v1", &first);
    upstream.tag("v0", &second);
    assert_eq!((upstream.tip("v1"), upstream.tip("v0")), (first, second));
    upstream.many_references(5, &other);
    assert_eq!(upstream.git("for-each-ref refs/heads/many").lines().count(), 5);
    upstream.delete_branch("other");
    assert_eq!(upstream.edit().remove("a").commit(), upstream.tip("main"));
    assert_eq!(upstream.git("ls-tree --name-only main"), "b");
}
