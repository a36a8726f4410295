//! One invalid sample for each rule, and what is said about it.

use std::path::Path;

use insta::assert_snapshot;

use super::super::*;
use super::{names, parse, parse_well, problems, surroundings};

/// Problems of an entry with these TOML lines.
fn entry(lines: &str) -> String {
    problems(&format!("[hot-deploy.user.x]\npickup_from = '/x'\n{lines}\n"))
}

/// Problems of a deployer with these TOML lines.
fn deployer(lines: &str) -> String {
    problems(&format!("[deployer.x]\n{lines}\n"))
}

#[test]
fn names_that_are_not_known_come_with_the_nearest_that_is() {
    assert_snapshot!(problems("[hot-deploy.user.x]\npikup_from = '/x'\n"), @r"
    pickup.conf:1:1: error: [hot-deploy.user.x] pickup_from: is missing: which directory is to be watched?
    pickup.conf:2:1: error: [hot-deploy.user.x] pikup_from: is no key of this section (did you mean `pickup_from`?)
    ");
    assert_snapshot!(entry("delete_after_pick_up = true\nunit = 'fil'"), @r"
    pickup.conf:3:1: error: [hot-deploy.user.x] delete_after_pick_up: is no key of this section (did you mean `delete_after_pickup`?)
    pickup.conf:4:8: error: [hot-deploy.user.x] unit: expected one of `file`, `directory`, `tree`, found `fil`; did you mean `file`?
    ");
    assert_snapshot!(problems("[hot-deploy.usr.x]\npickup_from = '/x'\n[picup]\n[deployers.x]\n[Deployer.x]"), @r"
    pickup.conf:1:1: error: [hot-deploy.usr.x] is no section (did you mean `hot-deploy.user.<name>`?)
    pickup.conf:3:1: error: [picup] is no section (did you mean `pickup`?)
    pickup.conf:4:1: error: [deployers.x] is no section (did you mean `deployer.<name>`?)
    pickup.conf:5:1: error: [Deployer.x] is no section (did you mean `deployer.<name>`?)
    ");
    assert_snapshot!(entry("deploy_to = ['defualt', 'registred']"), @r"
    pickup.conf:3:1: error: [hot-deploy.user.x] deploy_to: there is no deployer `defualt` (did you mean `default`?)
    pickup.conf:3:1: error: [hot-deploy.user.x] deploy_to: there is no deployer `registred` (did you mean `registered`?)
    ");
    assert_snapshot!(deployer("knid = 'copy'"), @r"
    pickup.conf:1:1: error: [deployer.x] kind: is missing: expected one of `copy`, `release`, `exec`, `process`, `module`, `http`
    pickup.conf:2:1: error: [deployer.x] knid: is no key of this section (did you mean `kind`?)
    ");
    assert_snapshot!(deployer("kind = 'copi'"), @"pickup.conf:2:8: error: [deployer.x] kind: expected one of `copy`, `release`, `exec`, `process`, `module`, `http`, found `copi`; did you mean `copy`?");
    assert_snapshot!(deployer("kind = 'copy'\ninto = '/out'\nkeep = 3\nintoo = 1"), @r"
    pickup.conf:4:1: error: [deployer.x] keep: is a key of deployers of kind `release`, not of this one
    pickup.conf:5:1: error: [deployer.x] intoo: is no key of this section (did you mean `into`?)
    ");
}

#[test]
fn sections_need_names_and_single_brackets() {
    assert_snapshot!(problems("[hot-deploy.user]\npickup_from = '/x'\n"), @"pickup.conf:2:1: error: [hot-deploy.user] pickup_from: the section needs a name: `[hot-deploy.user.<name>]` or `[deployer.<name>]`");
    assert_snapshot!(problems("[hot-deploy.user]\n[deployer]\n"), @r"
    pickup.conf:1:1: error: [hot-deploy.user] the section needs a name: `[hot-deploy.user.<name>]`
    pickup.conf:2:1: error: [deployer] the section needs a name: `[deployer.<name>]`
    ");
    assert_snapshot!(problems("[hot-deploy.user]\npickup_from=/x\n"), @"pickup.conf:1:1: error: [hot-deploy.user] the section needs a name: `[hot-deploy.user.<name>]`");
    assert_snapshot!(problems("[hot-deploy.user.]\npickup_from=/x\n[deployer]\n[hot-deploy.user_x]\n"), @r"
    pickup.conf:1:1: error: [hot-deploy.user.] the section needs a name: `[hot-deploy.user.<name>]`
    pickup.conf:3:1: error: [deployer] the section needs a name: `[deployer.<name>]`
    pickup.conf:4:1: error: [hot-deploy.user_x] is no section (did you mean `hot-deploy.user.<name>`?)
    ");
    assert_snapshot!(problems("[[hot-deploy.user.x]]\npickup_from = '/x'\n"), @"pickup.conf:1:1: error: [hot-deploy.user.x] a section is written in single brackets, and once");
    assert_snapshot!(problems("pickup_from = '/x'\n[pickup]\n"), @"pickup.conf:1:1: error: pickup_from: a key must stand below a section, such as `[hot-deploy.user.<name>]`");
    assert_snapshot!(problems("[hot-deploy.user.x]\n"), @"pickup.conf:1:1: error: [hot-deploy.user.x] pickup_from: is missing: which directory is to be watched?");
}

#[test]
fn values_must_be_of_the_right_type() {
    assert_snapshot!(entry("recursive = 'true'\npatterns = 3\nignore = ['a', 1]\nwatch = ['auto']\nquiet = 10\nsettle = 1.5"), @r"
    pickup.conf:3:13: error: [hot-deploy.user.x] recursive: expected true or false without quotes, found a string
    pickup.conf:4:12: error: [hot-deploy.user.x] patterns: expected a list of strings, found a number
    pickup.conf:5:16: error: [hot-deploy.user.x] ignore: expected a string, found a number
    pickup.conf:6:9: error: [hot-deploy.user.x] watch: expected one string, found a list
    pickup.conf:7:9: error: [hot-deploy.user.x] quiet: expected a duration with a unit, such as `10ms`, `2s` or `1h 30m`, found a number
    pickup.conf:8:10: error: [hot-deploy.user.x] settle: expected a duration with a unit, such as `10ms`, `2s` or `1h 30m`, found a number with a fraction
    ");
    assert_snapshot!(problems("[hot-deploy.user.a b]\npickup_from=/x\nrecursive=maybe\nunit=file, tree\nquiet=\n"), @r"
    pickup.conf:3:11: error: [hot-deploy.user.a b] recursive: expected True or False, found `maybe`
    pickup.conf:4:6: error: [hot-deploy.user.a b] unit: expected one string, found a list; quote it if the comma is part of it
    pickup.conf:5:7: error: [hot-deploy.user.a b] quiet: expected a duration with a unit, such as `10ms`, `2s` or `1h 30m`, found ``: value was empty
    ");
    assert_snapshot!(entry("patterns = \"a\\u0000b\""), @"pickup.conf:3:12: error: [hot-deploy.user.x] patterns: a NUL character cannot be part of a value");
}

#[test]
fn durations_have_units_and_bounds() {
    assert_snapshot!(entry("quiet = '2s'\nquiet_max = '1s'\npoll_interval = '0s'\nrescan_interval = '5'\nsettle = '200years'"), @r"
    pickup.conf:3:9: error: [hot-deploy.user.x] quiet: must not be longer than `quiet_max`
    pickup.conf:5:17: error: [hot-deploy.user.x] poll_interval: expected a duration above zero
    pickup.conf:6:19: error: [hot-deploy.user.x] rescan_interval: expected a duration with a unit, such as `10ms`, `2s` or `1h 30m`, found `5`: time unit needed, for example 5sec or 5ms
    pickup.conf:7:10: error: [hot-deploy.user.x] settle: expected a duration of at most 100 years
    ");
    let config = parse_well("[hot-deploy.user.x]\npickup_from = '/x'\nquiet = '5s'\nsettle = '1h 30m'\n");
    assert_eq!(config.pickups["x"].quiet_max, std::time::Duration::from_secs(5));
    assert_eq!(config.pickups["x"].settle, std::time::Duration::from_secs(5400));
}

#[test]
fn globs_and_ignore_rules_must_compile() {
    assert_snapshot!(entry("patterns = ['[a', '']\nsettle_patterns = '{a'\nignore = '[z-a]'"), @r"
    pickup.conf:3:12: error: [hot-deploy.user.x] patterns: `[a` is no glob: unclosed character class; missing ']'
    pickup.conf:3:12: error: [hot-deploy.user.x] patterns: a glob is empty
    pickup.conf:4:19: error: [hot-deploy.user.x] settle_patterns: `{a` is no glob: unclosed alternate group; missing '}' (maybe escape '{' with '[{]'?)
    pickup.conf:5:10: error: [hot-deploy.user.x] ignore: `[z-a]` is no ignore rule: error parsing glob '[z-a]': invalid range; 'z' > 'a'
    ");
    assert_snapshot!(entry("patterns = []"), @"pickup.conf:3:12: error: [hot-deploy.user.x] patterns: holds no glob, so nothing would ever be picked up");
}

#[test]
fn paths_expand_or_say_why_not() {
    let config = parse_well(
        "[hot-deploy.user.x]\npickup_from = ['~/a', '$DIR/b', '${DIR}/$SUB', 'c//d/./e/', '/f$', '/g$$HOME', '~']\n",
    );
    let expected =
        ["/home/me/a", "/from/variable/b", "/from/variable/sub", "/base/c/d/e", "/f$", "/g$HOME", "/home/me"];
    assert_eq!(config.pickups["x"].pickup_from, expected.map(Path::new));
    assert_snapshot!(
        problems("[hot-deploy.user.x]\npickup_from = ['$UNSET/a', '$EMPTY/', '~you/b', '${', '${a b}', '', ' ']\n"),
        @r"
        pickup.conf:2:15: error: [hot-deploy.user.x] pickup_from: the variable `UNSET` is not set
        pickup.conf:2:15: error: [hot-deploy.user.x] pickup_from: the variable `EMPTY` is not set
        pickup.conf:2:15: error: [hot-deploy.user.x] pickup_from: only `~` and `~/` expand; write another user's home directory in full
        pickup.conf:2:15: error: [hot-deploy.user.x] pickup_from: `${` has no closing `}`
        pickup.conf:2:15: error: [hot-deploy.user.x] pickup_from: `${a b}` is no variable's name
        pickup.conf:2:15: error: [hot-deploy.user.x] pickup_from: expected a path, found an empty string
        pickup.conf:2:15: error: [hot-deploy.user.x] pickup_from: expected a path, found an empty string
        "
    );
    let config =
        Config::parse("[hot-deploy.user.x]\npickup_from = '~/x'\n", None, &Surroundings::new("/base")).unwrap();
    assert_snapshot!(super::listed(&config.problems), @"2:15: error: [hot-deploy.user.x] pickup_from: `~` cannot be expanded: the home directory is not known");
}

#[test]
fn the_state_directory_is_where_systemd_says() {
    let surroundings = Surroundings::new("/base");
    assert_eq!(Config::embedded(&surroundings).settings.state_dir, Path::new("/base/.pickup"));
    let systemd = surroundings.variables(|name| (name == "STATE_DIRECTORY").then(|| "/var/lib/a:/var/lib/b".into()));
    assert_eq!(Config::embedded(&systemd).settings.state_dir, Path::new("/var/lib/a"));
}

#[test]
fn settings_are_checked() {
    assert_snapshot!(
        problems("[pickup]\nstate_dir = ''\nlog = ' '\nlog_format = 'xml'\nkeep_history = '0s'\nstore_max = '10 apples'\nx = 1\n"),
        @r"
        pickup.conf:2:13: error: [pickup] state_dir: expected a path, found an empty string
        pickup.conf:3:7: error: [pickup] log: expected a filter such as `info`
        pickup.conf:4:14: error: [pickup] log_format: expected one of `text`, `json`, found `xml`
        pickup.conf:5:16: error: [pickup] keep_history: expected a duration above zero
        pickup.conf:6:13: error: [pickup] store_max: expected a size above zero such as `10GiB`, found `10 apples`
        pickup.conf:7:1: error: [pickup] x: is no key of this section
        "
    );
    assert_snapshot!(problems("[pickup]\nstore_max = -1\n"), @"pickup.conf:2:13: error: [pickup] store_max: expected a size above zero such as `10GiB`");
    assert_eq!(parse_well("[pickup]\nstore_max = 4096\n").settings.store_max, 4096);
}

#[test]
fn copy_and_release_are_checked() {
    assert_snapshot!(deployer("kind = 'copy'"), @"pickup.conf:1:1: error: [deployer.x] into: is missing: which directory is to be written to?");
    assert_snapshot!(deployer("kind = 'copy'\ninto = '/out/{unit}'\nmode = 644\nowner = 'a:b:c'\nstrip = -1"), @r#"
    pickup.conf:3:1: warning: [deployer.x] into: `{unit}` is taken as it stands here, only `{pickup}` expands
    pickup.conf:4:8: error: [deployer.x] mode: expected an octal mode such as "0644" or 0o644
    pickup.conf:5:9: error: [deployer.x] owner: expected `user`, `user:group` or `:group`, found `a:b:c`
    pickup.conf:6:9: error: [deployer.x] strip: expected a whole number from 0 to 100
    "#);
    assert_snapshot!(deployer("kind = 'copy'\ninto = '$UNSET'\nmode = '999'\nowner = ':'\ntimeout = '0s'\nretry = '3'"), @r#"
    pickup.conf:3:8: error: [deployer.x] into: the variable `UNSET` is not set
    pickup.conf:4:8: error: [deployer.x] mode: expected an octal mode such as "0644" or 0o644
    pickup.conf:5:9: error: [deployer.x] owner: expected `user`, `user:group` or `:group`, found `:`
    pickup.conf:6:11: error: [deployer.x] timeout: expected a duration above zero
    pickup.conf:7:9: error: [deployer.x] retry: expected a whole number from 0 to 1000, found a string
    "#);
    assert_snapshot!(
        deployer("kind = 'release'\ninto = '/out'\nkeep = 0\nlink = 'a/b'\nshared = ['/abs', '../x', '.']"),
        @r"
        pickup.conf:4:8: error: [deployer.x] keep: expected a whole number from 1 to 10000
        pickup.conf:5:8: error: [deployer.x] link: expected one file name, found `a/b`
        pickup.conf:6:10: error: [deployer.x] shared: expected a relative path without `..`, found `/abs`
        pickup.conf:6:10: error: [deployer.x] shared: expected a relative path without `..`, found `../x`
        pickup.conf:6:10: error: [deployer.x] shared: expected a relative path without `..`, found `.`
        "
    );
    assert_snapshot!(deployer("kind = 'release'\ninto = '/out'\nlink = 'releases'"), @"pickup.conf:4:8: error: [deployer.x] link: `releases` is the name of a directory beside the link");
    for mode in ["'0644'", "0o644", "'644'", "'0o644'"] {
        let config =
            parse_well(&format!("[deployer.x]\nkind = 'copy'\ninto = '/out'\nmode = {mode}\nowner = ':web'\n"));
        let DeployerKind::Copy(copy) = &config.deployers["x"].kind else { panic!() };
        assert_eq!(copy.mode, Some(0o644));
    }
}

#[test]
fn exec_is_checked() {
    assert_snapshot!(deployer("kind = 'exec'"), @"pickup.conf:1:1: error: [deployer.x] command: is missing: which program is to be run?");
    assert_snapshot!(deployer("kind = 'exec'\ncommand = 'systemctl reload x'\nrollback_command = []"), @r#"
    pickup.conf:3:11: error: [deployer.x] command: expected a list: ["systemctl", "reload", "x"]
    pickup.conf:4:20: error: [deployer.x] rollback_command: names no program
    "#);
    assert_snapshot!(deployer("kind = 'exec'\ncommand = ['']\nenv = { 'A=' = 'x', B = 1 }\nper = 'file'\nstdin = 'yaml'"), @r"
    pickup.conf:3:11: error: [deployer.x] command: names no program
    pickup.conf:4:7: error: [deployer.x] env: `A=` is no variable's name
    pickup.conf:4:25: error: [deployer.x] env: `B`: expected a string, found a number
    pickup.conf:5:7: error: [deployer.x] per: expected one of `unit`, `change_set`, found `file`
    pickup.conf:6:9: error: [deployer.x] stdin: expected one of `json`, `none`, found `yaml`
    ");
    assert_snapshot!(problems("[deployer.a b]\nkind=exec\ncommand=systemctl reload x\nenv=A, B=1, B=2\n"), @r#"
    pickup.conf:3:9: error: [deployer.a b] command: expected a list: "systemctl", "reload", "x"
    pickup.conf:4:5: error: [deployer.a b] env: expected `NAME=value`, found `A`
    pickup.conf:4:5: error: [deployer.a b] env: `B` stands twice
    "#);
    let config = parse_well("[deployer.x]\nkind = 'exec'\ncommand = '/bin/true'\n[deployer.x.env]\nA = '1'\n");
    let DeployerKind::Exec(exec) = &config.deployers["x"].kind else { panic!() };
    assert_eq!((exec.command.as_slice(), exec.env["A"].as_str()), (["/bin/true".to_owned()].as_slice(), "1"));
    assert_eq!(exec.cwd.as_deref(), Some(Path::new("/base")));
}

#[test]
fn modules_are_checked() {
    let given =
        "kind = 'module'\nallow_needed = ['/lib/libz.so.1', '']\nprobe = 'no'\nmax_generations = 0\nconfig = ['a']";
    assert_snapshot!(deployer(given), @r"
    pickup.conf:3:16: error: [deployer.x] allow_needed: expected the name of a library such as `libz.so.1`, found `/lib/libz.so.1`
    pickup.conf:3:16: error: [deployer.x] allow_needed: expected the name of a library such as `libz.so.1`, found ``
    pickup.conf:4:9: error: [deployer.x] probe: expected true or false without quotes, found a string
    pickup.conf:5:19: error: [deployer.x] max_generations: expected a whole number from 1 to 10000
    pickup.conf:6:10: error: [deployer.x] config: expected one string, found a list
    ");
    let config = parse_well("[deployer.x]\nkind = 'module'\nallow_needed = 'libz.so.1'\nconfig = 'a = $B'\n");
    let DeployerKind::Module(module) = &config.deployers["x"].kind else { panic!() };
    assert_eq!(
        (module.allow_needed.as_slice(), module.config.as_str()),
        (["libz.so.1".to_owned()].as_slice(), "a = $B")
    );
    assert!(module.probe && module.max_generations == 64);
}

#[test]
fn checks_have_one_of_three_forms() {
    let bad = "'tcp://localhost', 'tcp://:80', 'tcp://h:0', 'tcp://h:99999', 'http://', 'http://a b', 'https://x', 'exec:', \"exec:'a\", 'ftp://x'";
    assert_snapshot!(deployer(&format!("kind = 'copy'\ninto = '/out'\nverify = [{bad}]")), @r"
    pickup.conf:4:10: error: [deployer.x] verify: expected `host:port` with a port from 1 to 65535, found `localhost`
    pickup.conf:4:10: error: [deployer.x] verify: expected `host:port` with a port from 1 to 65535, found `:80`
    pickup.conf:4:10: error: [deployer.x] verify: expected `host:port` with a port from 1 to 65535, found `h:0`
    pickup.conf:4:10: error: [deployer.x] verify: expected `host:port` with a port from 1 to 65535, found `h:99999`
    pickup.conf:4:10: error: [deployer.x] verify: expected `host:port` with a port from 1 to 65535, found ``
    pickup.conf:4:10: error: [deployer.x] verify: a URL holds no blanks; write `%20`
    pickup.conf:4:10: error: [deployer.x] verify: `https` checks are refused: the check has no TLS; use `http://`, `tcp://` or `exec:`
    pickup.conf:4:10: error: [deployer.x] verify: `exec:` names no program
    pickup.conf:4:10: error: [deployer.x] verify: a ' is not closed
    pickup.conf:4:10: error: [deployer.x] verify: expected `tcp://host:port`, `http://...` or `exec:program arguments`, found `ftp://x`
    ");
    let good = r#"'tcp://[::1]:80', 'http://h:8080/x?y', "exec:test -e 'a b'\"c\""#;
    let config = parse_well(&format!("[deployer.x]\nkind = 'copy'\ninto = '/out'\nverify = [{good}\"]\n"));
    let verify = &config.deployers["x"].common.verify;
    assert_eq!(verify[0], VerifyCheck::Tcp("[::1]:80".into()));
    assert_eq!(verify[1], VerifyCheck::Http("http://h:8080/x?y".into()));
    assert_eq!(verify[2], VerifyCheck::Exec(["test", "-e", "a bc"].map(Into::into).into()));
}

const TWO: &str = "
[hot-deploy.user.a]
pickup_from = '/a'
deploy_to = 'one'
[hot-deploy.user.b]
pickup_from = '/b'
deploy_to = 'two'
";

#[test]
fn two_deployers_must_not_write_to_one_directory() {
    let text = format!(
        "[deployer.one]\nkind = 'copy'\ninto = '/out/x/../a'\n[deployer.two]\nkind = 'release'\ninto = '/out/a/'\n{TWO}"
    );
    assert_eq!(names(&parse(&text)), ["a"]);
    assert_snapshot!(problems(&text), @r"
    pickup.conf:6:1: error: [deployer.two] into: /out/a is written to by deployer `one` already
    pickup.conf:13:1: error: [hot-deploy.user.b] deploy_to: deployer `two` is broken
    ");
    let text = format!(
        "[deployer.one]\nkind = 'copy'\ninto = '/out/b'\n[deployer.two]\nkind = 'copy'\ninto = '/out/{{pickup}}'\n{TWO}"
    );
    assert_snapshot!(problems(&text), @r"
    pickup.conf:6:1: error: [deployer.two] into: /out/b is written to by deployer `one` already
    pickup.conf:13:1: error: [hot-deploy.user.b] deploy_to: deployer `two` is broken
    ");
}

/// Two entries that deploy by `x`, which is what `keys` say; `more` may follow.
fn two_entries(keys: &str, more: &str) -> String {
    let entry = |name: &str| format!("[hot-deploy.user.{name}]\npickup_from = '/in/{name}'\ndeploy_to = ['x']\n");
    problems(&format!("{}{}[deployer.x]\n{keys}\n{more}", entry("a"), entry("b")))
}

#[test]
fn two_entries_do_not_share_releases() {
    assert_snapshot!(
        two_entries("kind = 'release'\ninto = '/srv'", ""),
        @"pickup.conf:6:1: error: [hot-deploy.user.b] deploy_to: /srv holds the releases of entry `a` already: they would take each other's place; `{pickup}` in `into` keeps them apart"
    );
    assert!(two_entries("kind = 'process'\ncommand = ['x']\ninto = '/srv'", "").contains("holds the releases"));
    assert_eq!(two_entries("kind = 'release'\ninto = '/srv/{pickup}'", ""), "");
}

#[test]
fn two_entries_that_send_to_one_address_are_warned_of() {
    assert_snapshot!(
        two_entries("kind = 'http'\nurl = 'http://h/{unit}'", ""),
        @"pickup.conf:6:1: warning: [hot-deploy.user.b] deploy_to: another entry sends to the address of deployer `x` too: files of the same name would replace each other; `{pickup}` in `url` keeps them apart"
    );
    assert_eq!(two_entries("kind = 'http'\nurl = 'http://h/{pickup}/{unit}'", ""), "");
}

#[test]
fn directories_of_two_deployers_do_not_nest() {
    let nested = |inner: &str| {
        deployer(&format!("kind = 'release'\ninto = '/srv'\n[deployer.y]\nkind = 'copy'\ninto = '{inner}'"))
    };
    for inner in ["/srv/releases/x", "/srv/current"] {
        let message =
            format!("pickup.conf:6:1: error: [deployer.y] into: {inner} lies in the releases of deployer `x`");
        assert_eq!(nested(inner).trim_end(), message);
    }
    assert_eq!(nested("/srv/shared"), "");
    assert_eq!(
        deployer("kind = 'copy'\ninto = '/srv'\n[deployer.y]\nkind = 'copy'\ninto = '/srv/static'").trim_end(),
        "pickup.conf:6:1: warning: [deployer.y] into: /srv/static lies in /srv, which deployer `x` writes to: files of the \
         same name would replace each other"
    );
}

#[test]
fn a_module_is_no_tree() {
    let text =
        "[deployer.m]\nkind = 'module'\n[hot-deploy.user.a]\npickup_from = '/in'\nunit = 'tree'\ndeploy_to = ['m']";
    assert_eq!(
        problems(text).trim_end(),
        "pickup.conf:5:1: error: [hot-deploy.user.a] unit: deployer `m` loads single files, never a tree: use `unit = \
         \"file\"`, and an entry of its own with `patterns = [\"*.so\"]` where there are other files, too"
    );
}

#[test]
fn two_entries_may_share_a_directory_if_their_files_differ() {
    let shared = |patterns: &str| {
        problems(&format!(
            "[deployer.default]\nkind = 'copy'\ninto = '/out'\n[hot-deploy.user.b]\npickup_from = '/b'\npatterns = '*.py'\n\
             [hot-deploy.user.a]\npickup_from = '/a'\n{patterns}\n"
        ))
    };
    assert_eq!(shared("patterns = ['*.js', '*.css']"), "");
    assert_snapshot!(shared(""), @"pickup.conf:7:1: warning: [hot-deploy.user.a] deploy_to: another entry writes to /out too: files of the same name would replace each other; `{pickup}` in `into` keeps them apart");
    parse_well("[hot-deploy.user.a]\npickup_from = '/x'\n[hot-deploy.user.b]\npickup_from = '/x'\n");
}

#[test]
fn an_entry_must_not_pick_up_what_is_deployed() {
    for (from, is_loop) in
        [("/out", true), ("/out/a/deep", true), ("/", true), ("/o", false), ("/out/ab", false), ("/x/../out/a", true)]
    {
        let text = format!(
            "[deployer.default]\nkind = 'copy'\ninto = '/out/{{pickup}}'\n[pickup]\nstate_dir = '/out/.pickup'\n[hot-deploy.user.a]\npickup_from = '{from}'\n"
        );
        let config = parse(&text);
        assert_eq!(config.has_errors(), is_loop, "{from}: {}", problems(&text));
    }
    assert_snapshot!(problems("[hot-deploy.user.a]\npickup_from = '.'\n"), @"pickup.conf:2:1: error: [hot-deploy.user.a] pickup_from: /base would pick up what deployer `default` writes to /base/deployed/a");
    parse_well("[hot-deploy.user.a]\npickup_from = '.'\nrecursive = false\n");
}

#[test]
fn the_state_directory_is_left_alone() {
    let with = |state: &str, from: &str| {
        problems(&format!("[pickup]\nstate_dir = '{state}'\n[hot-deploy.user.a]\npickup_from = '{from}'\n"))
    };
    assert_snapshot!(with("/s", "/s"), @"pickup.conf:4:1: error: [hot-deploy.user.a] pickup_from: /s lies in the state directory /s");
    assert_snapshot!(with("/s", "/s/x"), @"pickup.conf:4:1: error: [hot-deploy.user.a] pickup_from: /s/x lies in the state directory /s");
    assert_snapshot!(with("/x/s", "/x"), @"pickup.conf:4:1: error: [hot-deploy.user.a] pickup_from: /x contains the state directory /x/s");
    assert_eq!(with("/x/.pickup", "/x"), "");
    assert_snapshot!(problems("[pickup]\nstate_dir = '/s'\n[deployer.x]\nkind = 'copy'\ninto = '/s/out'\n"), @"pickup.conf:5:1: error: [deployer.x] into: lies in the state directory /s");
}

#[test]
fn a_broken_deployer_breaks_the_entries_that_use_it() {
    let text = format!(
        "[deployer.one]\nkind = 'copy'\n[deployer.two]\nkind = copy\n{TWO}[hot-deploy.user.c]\npickup_from = '/c'\ndeploy_to = 'registered'\n"
    );
    assert_eq!(names(&parse(&text)), ["c"]);
    assert_snapshot!(problems(&text), @r"
    pickup.conf:1:1: error: [deployer.one] into: is missing: which directory is to be written to?
    pickup.conf:4:8: error: [deployer.two] string values must be quoted, expected literal string
    pickup.conf:8:1: error: [hot-deploy.user.a] deploy_to: deployer `one` is broken
    pickup.conf:11:1: error: [hot-deploy.user.b] deploy_to: deployer `two` is broken
    ");
}

#[test]
fn names_of_deployers_are_used_once() {
    assert_snapshot!(entry("deploy_to = []"), @"pickup.conf:3:13: error: [hot-deploy.user.x] deploy_to: names no deployer");
    assert_snapshot!(entry("deploy_to = ['default', 'default']"), @"pickup.conf:3:13: error: [hot-deploy.user.x] deploy_to: `default` stands twice");
    assert_snapshot!(problems("[deployer.registered]\nkind = 'copy'\ninto = '/x'\n"), @"pickup.conf:1:1: error: [deployer.registered] the program has a deployer of this name already");
}

#[test]
fn names_must_be_able_to_stand_in_paths() {
    assert_snapshot!(problems("[hot-deploy.user.'../../x']\npickup_from = '/x'\n[hot-deploy.user.\"a\\nb\"]\npickup_from = '/x'\n"), @r"
    pickup.conf:1:1: error: [hot-deploy.user.../../x] deploy_to: the entry's name cannot stand for `{pickup}` in a path
    pickup.conf:3:1: error: [hot-deploy.user.a\nb] the name must not be blank or hold control characters
    ");
    parse_well("[hot-deploy.user.'a/b']\npickup_from = '/x'\ndeploy_to = 'registered'\n");
}

#[test]
fn a_broken_entry_does_not_bring_up_the_default_one() {
    for text in
        ["[hot-deploy.user.x]\n", "[hot-deploy]\n", "[hot-deploy.usr.x]\npickup_from = '/x'\n", "[hotdeploy.user.x]\n"]
    {
        assert_eq!(names(&parse(text)), <[&str; 0]>::default(), "{text}");
    }
    assert_eq!(names(&parse("[pickup]\nlog = 'debug'\n")), ["default"]);
}

#[test]
fn problems_are_counted_when_there_are_too_many() {
    let text: String = (0..500).map(|number| format!("[x{number}]\n")).collect();
    let config = Config::parse(&text, None, &surroundings()).unwrap();
    assert_eq!(config.problems.len(), 201);
    assert_eq!(config.problems[200].message, "300 more problems are not shown");
    assert!(config.has_errors());
}
