//! `kind = "http"`: what it says, and what must not be said.

use insta::assert_snapshot;

use super::super::{DeployerKind, HttpConfig};
use super::{parse, parse_well, problems};

fn wrong(text: &str) -> String {
    problems(&format!("[deployer.x]\nkind = 'http'\n{text}\n"))
}

#[test]
fn every_key_is_read_and_written_back() {
    let text = "[deployer.x]\nkind = 'http'\nurl = 'https://h:8443/{pickup}/{unit}?{stem}={generation}&{digest}'
        remove_url = 'https://H:8443/gone'\nmethod = 'POST'\nremove_method = 'GET'\nheaders = { X-Team = 'web' }
        expect = 'OK - '\nremove_expect = ['OK', 'none']\nusername = 'ann'\npassword_file = 'secret'\nca_file = '/ca.pem'";
    let config = parse_well(text);
    assert_eq!(parse_well(&config.to_toml()).deployers, config.deployers);
    let DeployerKind::Http(http) = &config.deployers["x"].kind else { panic!() };
    assert_eq!((http.method.as_str(), http.remove_method.as_str()), ("POST", "GET"));
    assert_eq!((&http.expect[..], http.remove_expect.len()), (&["OK - ".to_owned()][..], 2));
    assert_eq!(http.password_file.as_deref(), Some(std::path::Path::new("/base/secret")));
    assert!(!format!("{http:?}").contains("web"), "the value of a header may be secret");
    let short = parse_well("[deployer.x]\nkind = 'http'\nurl = 'http://h/'");
    assert_eq!(short.deployers["x"].kind, DeployerKind::Http(HttpConfig::new("http://h/")));
}

#[test]
fn addresses_are_checked() {
    assert!(wrong("").contains("url: is missing: where are files to be sent?"));
    for (url, expected) in [
        ("ftp://h/", "expected `http://…` or `https://…`"),
        ("http://", "expected `host:port`"),
        ("http://h:0/", "expected `host:port`"),
        ("http://ann:secret@h/", "holds a user: write `username` and `password_file` instead"),
        ("http://{pickup}.h/", "the server cannot depend on what is deployed"),
        ("http://h/{name}", "`{name}` does not expand here"),
        ("http://h/{path}", "`{path}` does not expand here"),
        ("http://h/a b", "a URL holds no blanks"),
        ("http://h/#top", "what follows `#` is never sent"),
    ] {
        let problems = wrong(&format!("url = '{url}'"));
        assert!(problems.contains(expected), "{url}: {problems}");
        assert!(!problems.contains("secret"), "{problems}");
    }
}

#[test]
fn what_keys_say_about_each_other_is_checked() {
    for (keys, expected) in [
        ("remove_url = 'https://other/'", "remove_url: names another server than `url`"),
        ("method = 'GET'", "method: expected a method such as `PUT`"),
        ("remove_method = 'delete'", "remove_method: expected a method such as `PUT`"),
        ("username = 'ann'", "username: needs `password_file`"),
        ("password_file = 'x'", "password_file: needs `username`"),
        ("username = 'a'\npassword_file = 'x'\nbearer_file = 'y'", "`username` exclude each other"),
        ("username = 'a:b'\npassword_file = 'x'", "expected a user without `:`"),
        ("headers = { authorization = 'Bearer x' }", "`authorization`: write `bearer_file`"),
        ("headers = { Host = 'x' }", "`Host` is set for each request"),
        ("headers = { 'a b' = 'x' }", "`a b` is no header's name"),
        ("headers = { a = \"x\\ny\" }", "`a`: expected ASCII without line breaks"),
        ("expect = ''", "expect: names no text"),
    ] {
        let problems = wrong(&format!("url = 'https://h/'\n{keys}"));
        assert!(problems.contains(expected), "{keys}: {problems}");
    }
}

#[test]
fn a_secret_in_the_open_is_warned_of() {
    let warning = "the secret goes over the network for all to read";
    for (url, is_warned) in
        [("http://h/", true), ("http://127.0.0.1:8080/", false), ("http://[::1]/", false), ("https://h/", false)]
    {
        let problems = wrong(&format!("url = '{url}'\nbearer_file = 'x'"));
        assert_eq!(problems.contains(warning), is_warned, "{url}: {problems}");
    }
}

#[test]
fn two_deployers_do_not_share_an_address() {
    let text =
        "[deployer.a]\nkind = 'http'\nurl = 'http://h/{unit}'\n[deployer.b]\nkind = 'http'\nurl = 'http://h/{unit}'\n";
    assert_snapshot!(problems(text), @"pickup.conf:6:1: error: [deployer.b] url: deployer `a` sends to the same address already");
    assert_eq!(parse(text).deployers.keys().collect::<Vec<_>>(), ["a", "default"]);
}
