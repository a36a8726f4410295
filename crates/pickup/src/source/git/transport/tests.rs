//! What the words of others are taken to mean, and what is told to them.
#![expect(clippy::disallowed_methods, reason = "tests write password files")]

use super::credentials::{Login, base64};
use super::{judge, ssh};
use crate::config::GitTransport;
use crate::config::GitUrl;
use crate::source::git::worker::{Access, FailureKind};

fn access(url: &str) -> Access {
    Access {
        url: GitUrl::new(url),
        transport: GitTransport::Libgit2,
        username: None,
        password_file: None,
        ssh_key: None,
        known_hosts: None,
        ca_file: None,
        proxy: None,
        size_max: 1,
    }
}

#[test]
fn words_are_judged() {
    let (https, ssh) = ("https://host/timeout.git", "git@host:certificates/x");
    for (url, words, kind) in [
        (https, "fatal: Authentication failed for 'https://host/timeout.git/'", FailureKind::Authentication),
        (https, "fatal: repository 'https://host/timeout.git/' not found", FailureKind::NotFound),
        (https, "server certificate verification failed", FailureKind::HostKey),
        (https, "Could not resolve host: host", FailureKind::Unreachable),
        (https, "fatal: early EOF", FailureKind::Unreachable),
        (https, "error: 40113 bytes of body are still expected; fatal: early EOF", FailureKind::Unreachable),
        (https, "fatal: mismatched algorithms: client sha1; server sha256", FailureKind::Unsupported),
        (https, "what is this", FailureKind::Other),
        (ssh, "Host key verification failed.", FailureKind::HostKey),
        (ssh, "git@host: Permission denied (publickey).", FailureKind::Authentication),
        (ssh, "fatal: 'certificates/x' does not appear to be a git repository", FailureKind::NotFound),
        (ssh, "ERROR: Repository not found.", FailureKind::NotFound),
        (ssh, "ssh: connect to host h port 22: Connection timed out", FailureKind::Unreachable),
        ("/srv/x", "unsupported extension name extensions.refstorage", FailureKind::Unsupported),
        ("/srv/x", "repository path '/srv/x' is not owned by current user", FailureKind::Refused),
    ] {
        let failure = judge(&access(url), words);
        assert_eq!(failure.kind, kind, "{failure:?}");
    }
    let failure = judge(&access("ssh://git@host:2222/x"), "REMOTE HOST IDENTIFICATION HAS CHANGED!");
    assert!(failure.message.contains("git_known_hosts"), "{failure:?}");
    let failure = judge(&access("ssh://git@host:2222/x"), "Host key verification failed.");
    assert!(failure.message.contains("`ssh-keyscan -p 2222 host`"), "{failure:?}");
}

#[test]
fn messages_are_one_line_without_secrets() {
    let failure = judge(&access("https://ann:s3cret@host/x"), "oh\n\x1b[31mdear https://ann:s3cret@host/x");
    assert_eq!(failure.message, "fetch from https://ann@host/x: oh [31mdear https://ann@host/x");
}

#[test]
fn passwords_are_read_anew_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    let mut access = access("https://ann:old@host/x");
    assert_eq!(Login::read(&access).unwrap().basic(), base64(b"ann:old"));
    access.password_file = Some(path.clone());
    let failure = Login::read(&access).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Authentication);
    assert!(failure.message.contains("read the password file"), "{failure:?}");
    for password in ["first", "second"] {
        std::fs::write(&path, format!("{password}\r\n")).unwrap();
        let login = Login::read(&access).unwrap();
        assert_eq!(login.basic(), base64(format!("ann:{password}").as_bytes()));
        assert!(!format!("{login:?}").contains(password));
        assert_eq!(login.redact(&format!("no {password} here")), "no *** here");
    }
    access.username = Some("bob".into());
    assert_eq!(Login::read(&access).unwrap().basic(), base64(b"bob:second"));
}

#[test]
fn base64_is_as_everybody_has_it() {
    for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
        assert_eq!(base64(bytes.as_bytes()), text);
    }
}

#[test]
fn a_path_is_one_word_for_a_shell() {
    assert_eq!(ssh::quoted("/a b"), "'/a b'");
    assert_eq!(ssh::quoted("it's; $(id)"), r"'it'\''s; $(id)'");
}
