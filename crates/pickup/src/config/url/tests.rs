//! What an address means, and what of it is shown.

use std::path::PathBuf;

use super::{GitUrl, Scheme, redact};

#[test]
fn passwords_and_tokens_are_not_shown() {
    for (url, shown) in [
        ("https://host/x.git", "https://host/x.git"),
        ("https://ann:s3cret@host/x", "https://ann@host/x"),
        ("https://ghp_token@host/x", "https://***@host/x"),
        ("https://ghp_token:@host/x", "https://***@host/x"),
        ("https://ghp_token:x-oauth-basic@host/x", "https://***@host/x"),
        ("https://x-access-token:ghp@host:8443/x", "https://x-access-token@host:8443/x"),
        ("https://ann:p@ss@host/x", "https://ann@host/x"),
        ("https://ann:pa/ss@host/x", "https://***@host/x"),
        ("https://host/x?private_token=abc", "https://host/x?***"),
        ("https://host/@scope/x", "https://host/@scope/x"),
        ("ssh://git@host:2222/x", "ssh://git@host:2222/x"),
        ("ssh://git:pw@host/x", "ssh://git@host/x"),
        ("git@host:group/x.git", "git@host:group/x.git"),
        ("/srv/x.git", "/srv/x.git"),
        ("file:///srv/x.git", "file:///srv/x.git"),
    ] {
        assert_eq!(GitUrl::new(url).to_string(), shown, "{url:?}");
        assert_eq!(format!("{:?}", GitUrl::new(url)), format!("GitUrl({shown})"));
    }
}

#[test]
fn what_would_run_a_program_is_refused() {
    for url in [
        "",
        "ext::sh -c id",
        "fd::7",
        "foo::bar",
        "ext::sh -c touch% /tmp/x",
        "-oProxyCommand=id",
        "-oProxyCommand=id:x",
        "ssh://-oProxyCommand=id/x",
        "ssh://-l@host/x",
        "ftp://host/x",
        "https://host",
        "https:///x",
        "https://host:port/x",
        "https://ann:pa/ss@host/x",
        "https://host/x\ny",
        "file://host/x",
        "host:",
        "ssh://ho st/x",
    ] {
        assert!(GitUrl::new(url).check().is_err(), "{url:?} passes");
    }
    for url in [
        "https://host/x",
        "http://[::1]:8080/x",
        "ssh://git@host:22/x",
        "git://host/x",
        "file:///x",
        "/x",
        "./a:b",
        "../x",
        "git@host:x",
        "[::1]:x",
        "file://localhost/x",
    ] {
        assert_eq!(GitUrl::new(url).check(), Ok(()), "{url:?}");
    }
}

#[test]
fn local_addresses_are_paths() {
    for (url, path) in [
        ("/srv/x.git", Some("/srv/x.git")),
        ("x.git", Some("x.git")),
        ("file:///srv/with%20space", Some("/srv/with space")),
        ("./a:b", Some("./a:b")),
        ("host:x", None),
        ("https://host/x", None),
    ] {
        assert_eq!(GitUrl::new(url).is_local(), path.map(PathBuf::from), "{url}");
    }
}

#[test]
fn user_and_password_are_decoded() {
    let info = GitUrl::new("https://a%40b:p%3Aq%2F@host/x").userinfo();
    assert_eq!((info.user.as_deref(), info.password.as_deref()), (Some("a@b"), Some("p:q/")));
    assert_eq!(GitUrl::new("git@host:x").userinfo().user.as_deref(), Some("git"));
    assert_eq!(GitUrl::new("https://a:b@host:1/x?y").without_userinfo().expose(), "https://host:1/x?y");
    assert_eq!(GitUrl::new("ssh://a:b@host/x").without_secrets().expose(), "ssh://a@host/x");
    assert_eq!(GitUrl::new("https://a:b@host/x").without_secrets().expose(), "https://host/x");
}

#[test]
fn ssh_places() {
    for (url, user, host, port, path) in [
        ("git@host:group/x.git", Some("git"), "host", None, "group/x.git"),
        ("host:/abs", None, "host", None, "/abs"),
        ("ssh://git@host:2222/srv/x", Some("git"), "host", Some("2222"), "/srv/x"),
        ("ssh://host/~ann/x", None, "host", None, "~ann/x"),
        ("ssh://[::1]:22/x", None, "::1", Some("22"), "/x"),
        ("[::1]:x", None, "::1", None, "x"),
    ] {
        let place = GitUrl::new(url).ssh_place().unwrap();
        let seen = (place.user.as_deref(), place.host.as_str(), place.port.as_deref(), place.path.as_str());
        assert_eq!(seen, (user, host, port, path), "{url}");
        assert_eq!(GitUrl::new(url).scheme(), Some(Scheme::Ssh));
    }
}

#[test]
fn spellings_of_one_repository_are_the_same() {
    for (one, other) in [
        ("https://Host/x.git", "https://ann@host:443/x/"),
        ("git@host:x.git", "ssh://host/x"),
        ("/srv/x.git", "file:///srv/x"),
    ] {
        assert_eq!(GitUrl::new(one).normalised(), GitUrl::new(other).normalised());
    }
    assert_ne!(GitUrl::new("https://host/x").normalised(), GitUrl::new("https://host/X").normalised());
}

#[test]
fn messages_of_libraries_are_redacted() {
    let url = GitUrl::new("https://ann:s3cret%21@host/x");
    let text = "cannot open https://ann:s3cret%21@host/x (s3cret!), via http://bob:hunter@proxy:1/";
    assert_eq!(redact(text, &url), "cannot open https://ann@host/x (***), via http://bob@proxy:1/");
    assert_eq!(redact("ghp_token", &GitUrl::new("https://ghp_token@host/x")), "***");
}
