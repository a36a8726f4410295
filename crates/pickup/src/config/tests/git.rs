//! The git keys: what they mean, and one invalid sample for each rule.

use std::path::Path;
use std::time::Duration;

use insta::assert_snapshot;

use super::super::*;
use super::{names, parse, parse_well, problems};

/// Problems of a mirror of an https repository with these TOML lines.
fn mirror(lines: &str) -> String {
    problems(&format!("[hot-deploy.user.x]\ngit_url = 'https://h/x'\n{lines}\n"))
}

/// Problems of an entry on `/x` with these TOML lines.
fn clone(lines: &str) -> String {
    problems(&format!("[hot-deploy.user.x]\npickup_from = '/x'\n{lines}\n"))
}

fn git(text: &str) -> GitConfig {
    *parse_well(text).pickups["x"].git.clone().unwrap()
}

/// What `git_url` becomes, also when it is written and read once more; or what is said about it, without the place.
fn address(url: &str) -> String {
    let config = parse(&format!("[hot-deploy.user.x]\ngit_url = '{url}'\n"));
    if config.pickups.is_empty() {
        return config.problems.iter().map(|problem| problem.message.as_str()).collect::<Vec<_>>().join("; ");
    }
    assert_eq!(parse(&config.to_toml()).pickups["x"].git, config.pickups["x"].git);
    config.pickups["x"].git.as_ref().unwrap().url.as_ref().unwrap().expose().to_owned()
}

#[test]
fn one_key_makes_a_mirror() {
    let config = parse_well("[hot-deploy.user.x]\ngit_url = 'https://example.org/you/site.git'\n");
    let pickup = &config.pickups["x"];
    assert_eq!(pickup.pickup_from, <[&Path; 0]>::default());
    let url = Some(GitUrl::new("https://example.org/you/site.git"));
    assert_eq!(pickup.git.as_deref(), Some(&GitConfig { url, ..GitConfig::default() }));
}

#[test]
fn any_git_key_makes_a_git_entry_and_none_makes_none() {
    assert_eq!(parse_well("[hot-deploy.user.x]\npickup_from = '/x'\n").pickups["x"].git, None);
    assert_eq!(git("[hot-deploy.user.x]\npickup_from = '/x'\nauto_checkout = false\n"), GitConfig::default());
    assert!(git("[hot-deploy.user.x]\npickup_from = '/x'\nauto_checkout = true\n").auto_checkout);
}

#[test]
fn both_dialects_take_every_git_key() {
    let toml = git("[hot-deploy.user.x]
pickup_from = 'clone'
git_url = 'https://h/x'
git_ref = 'release/1.x'
git_subdir = './deploy//site/'
auto_checkout = true
auto_checkout_interval = '5s'
git_timeout = '1m'
git_depth = 3
git_fast_forward_only = false
git_transport = 'cli'
git_username = 'me'
git_password_file = '~/token'
git_ca_file = '$DIR/ca.pem'
git_proxy = 'socks5://p:1080'
git_allow = ['submodules', 'case_collisions']
git_files_max = 7
git_size_max = '3GiB'
");
    let zato = git("[hot-deploy.user.x]
pickup_from=clone
git_url=https://h/x
git_ref=release/1.x
git_subdir=deploy/site
auto_checkout=True
auto_checkout_interval=5s
git_timeout=1m
git_depth=3
git_fast_forward_only=False
git_transport=cli
git_username=me
git_password_file=~/token
git_ca_file=$DIR/ca.pem
git_proxy=socks5://p:1080
git_allow=submodules, case_collisions
git_files_max=7
git_size_max=3GiB
");
    assert_eq!(toml, zato);
    let expected = GitConfig {
        url: Some(GitUrl::new("https://h/x")),
        reference: Some("release/1.x".into()),
        subdir: Some("deploy/site".into()),
        auto_checkout: true,
        auto_checkout_interval: Duration::from_secs(5),
        timeout: Duration::from_secs(60),
        depth: 3,
        fast_forward_only: false,
        transport: GitTransport::Cli,
        username: Some("me".into()),
        password_file: Some("/home/me/token".into()),
        ssh_key: None,
        known_hosts: None,
        ca_file: Some("/from/variable/ca.pem".into()),
        proxy: Some("socks5://p:1080".into()),
        allow: [GitAllow::Submodules, GitAllow::CaseCollisions].into(),
        files_max: 7,
        size_max: 3 << 30,
    };
    assert_eq!(toml, expected);
}

#[test]
fn addresses_are_urls_or_paths_in_full() {
    for url in [
        "https://example.org/you/site.git",
        "http://h:8080/x",
        "HTTPS://h/x",
        "https://me:secret@h/x?y",
        "ssh://git@[::1]:2222/~/x",
        "git://h/x",
        "git@example.org:you/site.git",
        "host:/x",
        "[::1]:x",
        "git@[::1]:my site",
        "https://h/$DIR",
        "file://localhost/$DIR",
    ] {
        assert_eq!(address(url), url);
    }
    for (written, full) in [
        ("/srv/x.git/", "/srv/x.git"),
        ("./x", "/base/x"),
        ("x/a:b", "/base/x/a:b"),
        ("x/(a://b c/$$d/$DIR", "/base/x/(a:/b c/$d/from/variable"),
        ("~/x y", "/home/me/x y"),
        ("$DIR/x", "/from/variable/x"),
        ("file:///srv/x", "file:///srv/x"),
        ("file://~/x", "file:///home/me/x"),
        ("FILE://$DIR/$$x", "file:///from/variable/$x"),
    ] {
        assert_eq!(address(written), full);
    }
}

#[test]
fn an_address_that_git_would_read_otherwise_is_refused() {
    let bad = [
        "",
        "-oProxyCommand=x",
        "--upload-pack=x",
        "ext::sh -c x",
        "ext::x",
        "ftp://h/x",
        "https://h",
        "https:///x",
        "https://h/a b",
        "ssh://-oX@h/x",
        "ssh://-oX/x",
        "git@-h:x",
        "git@h:-x",
        "h:",
        "file://",
        "file://host/x",
        "~you/x",
        "$UNSET/x",
    ];
    let said: Vec<_> = bad.iter().map(|url| format!("{url}: {}", address(url))).collect();
    assert_snapshot!(said.join("\n"), @r"
    : expected the address of a repository, found an empty string
    -oProxyCommand=x: starts with `-`, which git would take for an option
    --upload-pack=x: starts with `-`, which git would take for an option
    ext::sh -c x: names a remote helper, which are not supported
    ext::x: names a remote helper, which are not supported
    ftp://h/x: has a scheme that is not supported: it must be https, http, ssh, git, file, or user@host:path
    https://h: has no path
    https:///x: has no host
    https://h/a b: holds a blank; write `%20`
    ssh://-oX@h/x: has a host or user that starts with a dash, which a program would take for an option
    ssh://-oX/x: has a host or user that starts with a dash, which a program would take for an option
    git@-h:x: has a host or user that starts with a dash, which a program would take for an option
    git@h:-x: has a path that starts with `-`, which a program would take for an option
    h:: has no path
    file://: has no path
    file://host/x: has a host, which file:// must not have; write file:/// and the path
    ~you/x: only `~` and `~/` expand; write another user's home directory in full
    $UNSET/x: the variable `UNSET` is not set
    ");
    assert_snapshot!(problems("[hot-deploy.user.x]\ngit_url = \"https://h/x\\ny\"\n"), @"pickup.conf:2:11: error: [hot-deploy.user.x] git_url: holds a control character");
    assert_snapshot!(problems("[hot-deploy.user.x]\ngit_url = ['https://h/x']\n"), @"pickup.conf:2:11: error: [hot-deploy.user.x] git_url: expected one string, found a list");
}

#[test]
fn a_password_in_the_address_is_warned_about_and_not_shown() {
    let said = problems("[hot-deploy.user.x]\ngit_url = 'https://me:secret@h/x'\n");
    assert_snapshot!(said, @"pickup.conf:2:1: warning: [hot-deploy.user.x] git_url: holds a password, which anybody who reads this file sees: use `git_password_file`");
    assert_eq!(problems("[hot-deploy.user.x]\ngit_url = 'https://me@h/x:y'\n"), "");
}

#[test]
fn references_are_what_git_takes() {
    let id = "0123456789ABCDEF0123456789abcdef01234567";
    let reference = |written: &str| {
        git(&format!("[hot-deploy.user.x]\ngit_url = 'https://h/x'\ngit_ref = '{written}'\n")).reference.unwrap()
    };
    for name in ["main", "v1.0", "refs/pull/7/head", "a-b/c_d", "ünï"] {
        assert_eq!(reference(name), name);
    }
    assert_eq!(reference(id), id.to_ascii_lowercase());
    assert_eq!(git("[hot-deploy.user.x]\ngit_url = 'https://h/x'\ngit_ref = 'HEAD'\n").reference, None);
    let bad = ["", " ", "-x", "a b", "a:b", "+a*", "a..b", "a@{1}", "a/", "/a", "a//b", ".a", "a.lock", "a.", "HEAD~1"];
    let said: String = bad.iter().map(|name| mirror(&format!("git_ref = '{name}'"))).collect();
    assert_snapshot!(said.replace("pickup.conf:3:11: error: [hot-deploy.user.x] git_ref: ", ""), @r"
    expected a branch, a tag or a commit, found an empty string
    expected a branch, a tag or a commit, found an empty string
    `-x` starts with `-`, which git would take for an option
    `a b` is no branch, tag or commit: it holds ` `
    `a:b` is no branch, tag or commit: it holds `:`
    `+a*` is no branch, tag or commit: it holds `*`
    `a..b` is no name that git allows for a branch or tag
    `a@{1}` is no name that git allows for a branch or tag
    `a/` is no name that git allows for a branch or tag
    `/a` is no name that git allows for a branch or tag
    `a//b` is no name that git allows for a branch or tag
    `.a` is no name that git allows for a branch or tag
    `a.lock` is no name that git allows for a branch or tag
    `a.` is no name that git allows for a branch or tag
    `HEAD~1` is no branch, tag or commit: it holds `~`
    ");
    assert_snapshot!(mirror("git_ref = \"a\\tb\""), @r"pickup.conf:3:11: error: [hot-deploy.user.x] git_ref: `a\tb` is no branch, tag or commit: it holds `\t`");
}

#[test]
fn the_subdirectory_lies_inside_the_repository() {
    let bad = ["", "/a", "../a", "a/../b", ".git/hooks", "a/.GIT"];
    let said: String = bad.iter().map(|path| mirror(&format!("git_subdir = '{path}'"))).collect();
    assert_snapshot!(said.replace("pickup.conf:3:14: error: [hot-deploy.user.x] git_subdir: ", ""), @r"
    expected a relative path inside the repository, without `..`, found ``
    expected a relative path inside the repository, without `..`, found `/a`
    expected a relative path inside the repository, without `..`, found `../a`
    expected a relative path inside the repository, without `..`, found `a/../b`
    `.git` is no part of what a commit holds
    `.git` is no part of what a commit holds
    ");
    assert_eq!(git("[hot-deploy.user.x]\ngit_url = 'https://h/x'\ngit_subdir = '.'\n").subdir, None);
}

#[test]
fn values_of_git_keys_are_checked() {
    assert_snapshot!(
        mirror("auto_checkout = 'yes'\nauto_checkout_interval = '0s'\ngit_timeout = 5\ngit_depth = -1\ngit_transport = 'git'\n\
                git_username = ''\ngit_password_file = ''\ngit_proxy = 'p:80'\ngit_allow = ['lfs', 3]\ngit_files_max = 0\n\
                git_size_max = '0'\ngit_fast_forward = true"),
        @r"
        pickup.conf:3:17: error: [hot-deploy.user.x] auto_checkout: expected true or false without quotes, found a string
        pickup.conf:4:26: error: [hot-deploy.user.x] auto_checkout_interval: expected a duration above zero
        pickup.conf:5:15: error: [hot-deploy.user.x] git_timeout: expected a duration with a unit, such as `10ms`, `2s` or `1h 30m`, found a number
        pickup.conf:6:13: error: [hot-deploy.user.x] git_depth: expected a whole number from 0 to 2147483647
        pickup.conf:7:17: error: [hot-deploy.user.x] git_transport: expected one of `libgit2`, `cli`, found `git`
        pickup.conf:8:16: error: [hot-deploy.user.x] git_username: expected a name that is not blank, holds no control characters and does not start with `-`
        pickup.conf:9:21: error: [hot-deploy.user.x] git_password_file: expected a path, found an empty string
        pickup.conf:10:13: error: [hot-deploy.user.x] git_proxy: expected `http://host:port`, `https://host:port` or `socks5://host:port`
        pickup.conf:11:21: error: [hot-deploy.user.x] git_allow: expected a string, found a number
        pickup.conf:12:17: error: [hot-deploy.user.x] git_files_max: expected a whole number from 1 to 10000000
        pickup.conf:13:16: error: [hot-deploy.user.x] git_size_max: expected a size above zero such as `10GiB`, found `0`
        pickup.conf:14:1: error: [hot-deploy.user.x] git_fast_forward: is no key of this section (did you mean `git_fast_forward_only`?)
        "
    );
    let bad = ["ftp://p:1", "http://p", "socks5://p:0", "http://a b:1", "http://:80"];
    let said: String = bad.iter().map(|proxy| mirror(&format!("git_proxy = '{proxy}'"))).collect();
    assert_snapshot!(said.replace("pickup.conf:3:13: error: [hot-deploy.user.x] git_proxy: ", ""), @r"
    expected `http://host:port`, `https://host:port` or `socks5://host:port`
    expected `host:port` with a port from 1 to 65535, found `p`
    expected `host:port` with a port from 1 to 65535, found `p:0`
    expected `http://host:port`, `https://host:port` or `socks5://host:port`
    expected `host:port` with a port from 1 to 65535, found `:80`
    ");
    assert_eq!(mirror("git_proxy = 'http://me:secret@p:80/'"), "");
    assert!(!mirror("git_proxy = 'http://me:secret@p:0'").contains("secret"));
}

#[test]
fn a_git_entry_needs_a_repository_and_has_one_directory() {
    assert_snapshot!(problems("[hot-deploy.user.x]\nauto_checkout = true\n"), @"pickup.conf:1:1: error: [hot-deploy.user.x] pickup_from: is missing: name a repository in `git_url`, or the directory of a clone here");
    assert_snapshot!(problems("[hot-deploy.user.x]\ngit_ref = 'main'\n"), @"pickup.conf:1:1: error: [hot-deploy.user.x] pickup_from: is missing: name a repository in `git_url`, or the directory of a clone here");
    assert_snapshot!(problems("[hot-deploy.user.x]\npickup_from = ['/a', '/b']\nauto_checkout = true\n"), @"pickup.conf:2:15: error: [hot-deploy.user.x] pickup_from: names several directories, and a git entry has one: make an entry of each");
    assert_snapshot!(clone("git_ref = 'main'\ndelete_after_pickup = true"), @"pickup.conf:4:23: error: [hot-deploy.user.x] delete_after_pickup: a file cannot be taken out of a commit: leave it out where git keys are");
}

#[test]
fn a_rewritten_branch_cannot_be_told_in_a_history_cut_short() {
    assert_snapshot!(mirror("git_depth = 1"), @"pickup.conf:3:13: error: [hot-deploy.user.x] git_depth: a history cut short cannot show that a branch only moved forward: set `git_fast_forward_only = false`, or leave `git_depth` out");
    assert_eq!(mirror("git_depth = 1\ngit_fast_forward_only = false"), "");
    assert_eq!(mirror(&format!("git_depth = 1\ngit_ref = '{}'", "a".repeat(40))), "");
    assert_eq!(mirror("git_depth = 0"), "");
}

#[test]
fn keys_without_effect_are_warned_about() {
    assert_snapshot!(
        mirror("quiet = '1s'\nquiet_max = '2s'\nsettle = '1s'\nsettle_patterns = []\nwatch = 'auto'\npoll_interval = '1s'\n\
                rescan_interval = '1s'\nsymlinks = 'follow'"),
        @r"
        pickup.conf:3:1: warning: [hot-deploy.user.x] quiet: has no effect: without `pickup_from` there is no directory to watch
        pickup.conf:4:1: warning: [hot-deploy.user.x] quiet_max: has no effect: without `pickup_from` there is no directory to watch
        pickup.conf:5:1: warning: [hot-deploy.user.x] settle: has no effect: without `pickup_from` there is no directory to watch
        pickup.conf:6:1: warning: [hot-deploy.user.x] settle_patterns: has no effect: without `pickup_from` there is no directory to watch
        pickup.conf:7:1: warning: [hot-deploy.user.x] watch: has no effect: without `pickup_from` there is no directory to watch
        pickup.conf:8:1: warning: [hot-deploy.user.x] poll_interval: has no effect: without `pickup_from` there is no directory to watch
        pickup.conf:9:1: warning: [hot-deploy.user.x] rescan_interval: has no effect: without `pickup_from` there is no directory to watch
        pickup.conf:10:1: warning: [hot-deploy.user.x] symlinks: is the same as `inside` here: a commit has nothing outside to follow to
        "
    );
    assert_eq!(clone("git_url = 'https://h/x'\nwatch = 'poll'\nsymlinks = 'follow'"), "");
    assert_snapshot!(mirror("auto_checkout_interval = '5s'"), @"pickup.conf:3:1: warning: [hot-deploy.user.x] auto_checkout_interval: has no effect without `auto_checkout = true`");
    assert_snapshot!(mirror("git_username = 'me'"), @"pickup.conf:3:1: warning: [hot-deploy.user.x] git_username: says who, and nothing proves it: name the file of the password or token in `git_password_file`");
    assert_eq!(
        mirror("git_username = 'me'\ngit_password_file = '/p'\ngit_ca_file = '/c'\ngit_proxy = 'http://p:1'"),
        ""
    );
    assert_snapshot!(clone("git_username = 'me'\ngit_proxy = 'http://p:1'"), @r"
    pickup.conf:3:1: warning: [hot-deploy.user.x] git_username: has no effect: without `git_url` or `auto_checkout = true` no remote is asked
    pickup.conf:4:1: warning: [hot-deploy.user.x] git_proxy: has no effect: without `git_url` or `auto_checkout = true` no remote is asked
    ");
    assert_eq!(clone("git_username = 'me'\ngit_password_file = '/p'\ngit_ssh_key = '/k'\nauto_checkout = true"), "");
    let access = "git_username = 'me'\ngit_password_file = '/p'\ngit_ssh_key = '/k'\ngit_known_hosts = '/h'\n\
                  git_ca_file = '/c'\ngit_proxy = 'http://p:1'";
    let with = |url| problems(&format!("[hot-deploy.user.x]\ngit_url = '{url}'\n{access}\n"));
    assert_snapshot!(with("https://h/x"), @r"
    pickup.conf:5:1: warning: [hot-deploy.user.x] git_ssh_key: has no effect: it is for ssh; for https use `git_username` and `git_password_file`
    pickup.conf:6:1: warning: [hot-deploy.user.x] git_known_hosts: has no effect: it is for ssh; for https use `git_username` and `git_password_file`
    ");
    assert_snapshot!(with("git@h:x"), @r"
    pickup.conf:4:1: warning: [hot-deploy.user.x] git_password_file: has no effect: ssh takes a key: use `git_ssh_key`
    pickup.conf:7:1: warning: [hot-deploy.user.x] git_ca_file: has no effect: it is for https
    pickup.conf:8:1: warning: [hot-deploy.user.x] git_proxy: has no effect: ssh takes its proxy from `ProxyJump` or `ProxyCommand` in its own configuration
    ");
    assert_snapshot!(with("/x"), @r"
    pickup.conf:3:1: warning: [hot-deploy.user.x] git_username: has no effect: this kind of repository knows no users
    pickup.conf:4:1: warning: [hot-deploy.user.x] git_password_file: has no effect: this kind of repository knows no users
    pickup.conf:5:1: warning: [hot-deploy.user.x] git_ssh_key: has no effect: it is for ssh
    pickup.conf:6:1: warning: [hot-deploy.user.x] git_known_hosts: has no effect: it is for ssh
    pickup.conf:7:1: warning: [hot-deploy.user.x] git_ca_file: has no effect: it is for https
    pickup.conf:8:1: warning: [hot-deploy.user.x] git_proxy: has no effect: it is for http and https
    ");
}

#[test]
fn two_entries_on_one_clone_must_mean_the_same() {
    let two = |one: &str, other: &str| {
        problems(&format!(
            "[hot-deploy.user.b]\npickup_from = '/x'\n{one}\n[hot-deploy.user.a]\npickup_from = '/y/../x'\n{other}\n"
        ))
    };
    assert_eq!(two("git_url = '/r'\ngit_subdir = 'a'", "git_url = '/r/'\ngit_subdir = 'b'"), "");
    assert_eq!(two("git_url = '/r'", "auto_checkout = true"), "");
    assert_snapshot!(two("git_url = '/r'", "git_url = '/s'"), @"pickup.conf:6:1: error: [hot-deploy.user.a] git_url: the clone /x has another `git_url` in entry `b` already; give each its own directory, or leave `pickup_from` out");
    assert_snapshot!(two("git_url = '/r'\ngit_ref = 'a'", "git_ref = 'b'"), @"pickup.conf:7:1: error: [hot-deploy.user.a] git_ref: the clone /x has another `git_ref` in entry `b` already; give each its own directory, or leave `pickup_from` out");
    let mirrors =
        "[hot-deploy.user.a]\ngit_url = '/r'\ngit_ref = 'a'\n[hot-deploy.user.b]\ngit_url = '/s'\ngit_ref = 'b'\n";
    assert_eq!(names(&parse_well(mirrors)), ["a", "b"]);
}

#[test]
fn all_of_a_clone_is_gits() {
    let text = "[deployer.default]\nkind = 'copy'\ninto = '/x/out'\n[hot-deploy.user.x]\npickup_from = '/x'\nrecursive = false\n";
    parse_well(text);
    assert_snapshot!(problems(&format!("{text}git_subdir = 'in'\n")), @"pickup.conf:5:1: error: [hot-deploy.user.x] pickup_from: /x would pick up what deployer `default` writes to /x/out");
}

#[test]
fn what_the_documents_show_works() {
    let documents = [include_str!("../../../../../docs/git.md"), include_str!("../../../../../README.md")];
    let blocks = documents.iter().flat_map(|text| text.split("```toml\n").skip(1));
    let blocks: Vec<&str> = blocks.filter_map(|block| block.split("\n```").next()).collect();
    assert!(blocks.len() >= 7, "{}", blocks.len());
    for block in blocks {
        parse_well(block);
    }
}
