//! What is known of Zato's INI files, fact by fact.

use std::path::{Path, PathBuf};

use insta::assert_snapshot;

use super::super::Dialect;
use super::{names, parse, parse_well, problems};

/// The directories that an entry with this `pickup_from` line watches.
fn pickup_from(line: &str) -> Vec<PathBuf> {
    let config = parse_well(&format!("[hot-deploy.user.my code]\n{line}\nenabled=True\n"));
    assert_eq!(config.dialect, Dialect::Zato);
    config.pickups["my code"].pickup_from.clone()
}

fn patterns(value: &str) -> Vec<String> {
    let config = parse_well(&format!("[hot-deploy.user.my code]\npickup_from=/x\nenabled=True\npatterns={value}\n"));
    config.pickups["my code"].patterns.clone()
}

#[test]
fn the_two_lines_from_zato_just_work() {
    let config = parse_well("[hot-deploy.user.my.python.code]\npickup_from=/my/custom/directory/\n");
    assert_eq!(config.dialect, Dialect::Zato);
    assert_eq!(config.pickups["my.python.code"].pickup_from, [Path::new("/my/custom/directory")]);
    assert_eq!(config.pickups["my.python.code"].deploy_to, ["default"]);
    assert!(config.deployers.contains_key("default"));
}

#[test]
fn a_hash_starts_a_comment_unless_quoted() {
    assert_eq!(pickup_from("pickup_from=/x/y#note"), [Path::new("/x/y")]);
    assert_eq!(pickup_from("pickup_from = /x/y # note"), [Path::new("/x/y")]);
    assert_eq!(pickup_from("pickup_from=\"/x/y#z\"  # note"), [Path::new("/x/y#z")]);
    assert_eq!(pickup_from("pickup_from='/x/y#z'"), [Path::new("/x/y#z")]);
}

#[test]
fn a_semicolon_is_a_character_like_any_other() {
    assert_eq!(pickup_from("pickup_from=/x ; c"), [Path::new("/x ; c")]);
    assert_snapshot!(problems("[hot-deploy.user.a b]\n; c\npickup_from=/x\n"), @"pickup.conf:2:1: error: [hot-deploy.user.a b] `;` starts no comment here, `#` does");
}

#[test]
fn blanks_are_trimmed_outside_and_kept_inside() {
    assert_eq!(pickup_from("  pickup_from =   /x/y z/  "), [Path::new("/x/y z")]);
    assert_eq!(pickup_from("\"pickup_from\" = /x"), [Path::new("/x")]);
}

#[test]
fn equals_signs_are_kept_in_the_value() {
    assert_eq!(pickup_from("pickup_from=/b=c"), [Path::new("/b=c")]);
}

#[test]
fn commas_make_lists_and_quotes_prevent_it() {
    assert_eq!(pickup_from("pickup_from=/x, /y"), [Path::new("/x"), Path::new("/y")]);
    assert_eq!(pickup_from("pickup_from=/x,/y # c"), [Path::new("/x"), Path::new("/y")]);
    assert_eq!(pickup_from("pickup_from=\"/a, b\""), [Path::new("/a, b")]);
    assert_eq!(patterns("*.py,"), ["*.py"]);
    assert_eq!(patterns("*.py"), ["*.py"]);
    assert_eq!(patterns("\"a,b\", 'c#d' , e"), ["a,b", "c#d", "e"]);
    let config = parse_well("[hot-deploy.user.my code]\npickup_from=/x\nignore=,\n");
    assert!(config.pickups["my code"].ignore.is_empty());
}

#[test]
fn triple_quotes_hold_what_they_enclose() {
    assert_eq!(pickup_from("pickup_from='''/x \"y\" # z'''"), [Path::new("/x \"y\" # z")]);
    let text = "[deployer.a b]\nkind=exec\ncommand=sh, -c, x\nenv=A=1,\ncwd=\"\"\"/one\n[two]\"\"\" # c\n";
    let config = parse(text);
    let super::super::DeployerKind::Exec(exec) = &config.deployers["a b"].kind else { panic!() };
    assert_eq!(exec.cwd.as_deref(), Some(Path::new("/one\n[two]")));
    assert_eq!(exec.env["A"], "1");
}

#[test]
fn section_names_may_be_padded_quoted_and_followed_by_a_comment() {
    for header in
        ["[ hot-deploy.user.x ]", "[\"hot-deploy.user.x\"]", "['hot-deploy.user.x'] # c", "  [hot-deploy.user.x]# c"]
    {
        let config = parse_well(&format!("{header}\npickup_from=/x\nenabled=True\n"));
        assert_eq!(names(&config), ["x"], "{header}");
    }
}

#[test]
fn carriage_returns_and_a_byte_order_mark_do_not_matter() {
    let config = parse_well("\u{feff}# c\r\n[hot-deploy.user.x]\r\npickup_from=/x/\r\nenabled=False\r\n\r\n");
    assert_eq!(config.pickups["x"].pickup_from, [Path::new("/x")]);
    assert!(!config.pickups["x"].enabled);
}

#[test]
fn booleans_mean_what_they_say() {
    for (word, value) in [
        ("True", true),
        ("true", true),
        ("yes", true),
        ("on", true),
        ("1", true),
        ("False", false),
        ("false", false),
        ("no", false),
        ("off", false),
        ("0", false),
    ] {
        let config = parse_well(&format!("[hot-deploy.user.my code]\npickup_from=/x\nrecursive={word}\n"));
        assert_eq!(config.pickups["my code"].recursive, value, "{word}");
    }
}

#[test]
fn our_own_sections_work_in_ini_too() {
    let config = parse_well(
        "[pickup]\nstate_dir=$DIR/state\nstore_max=5GiB\n[deployer.web]\nkind=copy\ninto=~/out/{pickup}\nmode=0640\nretry=5\n\
         verify=tcp://localhost:80, exec:test -e 'a b'\n[deployer.run]\nkind=exec\ncommand=systemctl, reload, x\nenv = A=1, B=2=3\n\
         [hot-deploy.user.x]\npickup_from=/x\nquiet=5s\ndeploy_to=web, run\n",
    );
    assert_snapshot!(config.to_toml(), @r#"
    [pickup]
    state_dir = "/from/variable/state"
    store_max = "5GiB"

    [deployer.run]
    kind = "exec"
    command = ["systemctl", "reload", "x"]
    cwd = "/base"
    env = { A = "1", B = "2=3" }

    [deployer.web]
    kind = "copy"
    into = "/home/me/out/{pickup}"
    mode = "0640"
    retry = 5
    verify = ["tcp://localhost:80", "exec:test -e 'a b'"]

    [hot-deploy.user.x]
    pickup_from = "/x"
    quiet = "5s"
    quiet_max = "5s"
    deploy_to = ["web", "run"]
    "#);
}

#[test]
fn a_mistake_in_ini_costs_its_own_entry() {
    let text = "
[hot-deploy.user.a]
pickup_from: /a
[hot-deploy.user.b]
pickup_from=/b
pickup_from=/c
[hot-deploy.user.c]
pickup_from='/c
[hot-deploy.user.d]
pickup_from='/d' x
[hot-deploy.user.e]
pickup_from=/e
[[nested]]
x=1
[hot-deploy.user.f]
pickup_from='''/f
[hot-deploy.user.g]
pickup_from=/g
[hot-deploy.user.h]
pickup_from=/h
[hot-deploy.user.h]
pickup_from=/h
[hot-deploy.user.i
pickup_from=/i
[hot-deploy.user.j]
pickup_from=a,,b
";
    assert_eq!(names(&parse(text)), ["g"]);
    assert_snapshot!(problems(text), @r#"
    pickup.conf:3:1: error: [hot-deploy.user.a] pickup_from: expected `key = value`, with `=` instead of `:`
    pickup.conf:6:1: error: [hot-deploy.user.b] pickup_from: the key stands twice, first in line 5
    pickup.conf:8:13: error: [hot-deploy.user.c] pickup_from: the value has no closing `'`
    pickup.conf:10:13: error: [hot-deploy.user.d] pickup_from: text follows the closing `'`
    pickup.conf:13:1: error: [hot-deploy.user.e] a nested section has no meaning here
    pickup.conf:16:13: error: [hot-deploy.user.f] pickup_from: ''' has no closing '''
    pickup.conf:21:1: error: [hot-deploy.user.h] the section stands twice, first in line 19
    pickup.conf:23:1: error: [hot-deploy.user.i] the section name has no closing `]`
    pickup.conf:26:13: error: [hot-deploy.user.j] pickup_from: an element of the list is empty; write `""` if it is meant to be
    "#);
}

#[test]
fn a_key_before_any_section_is_an_error_with_a_place() {
    let text = "\n  pickup_from=/x\n[hot-deploy.user.a]\npickup_from=/a\n";
    assert_eq!(names(&parse(text)), ["a"]);
    assert_snapshot!(problems(text), @"pickup.conf:2:3: error: pickup_from: a key must stand below a section, such as `[hot-deploy.user.<name>]`");
}

#[test]
fn what_belongs_to_other_parts_of_zato_gets_one_warning_each() {
    let text = "
[hot-deploy.user.local-dev]
pickup_from=/x
deploy_in_place=True
delete_after_pick_up=True

[csv]
pickup_from=./pickup/incoming/csv
move_processed_to=./pickup/processed/csv
patterns=*.csv
services=zato.pickup.log-csv
topics=
broken: line

[user_conf]
pickup_from=./pickup/incoming/user-conf
[hotdeploy.user.x]
pickup_from=/y
";
    let config = parse(text);
    assert!(!config.has_errors());
    assert_eq!(names(&config), ["local-dev"]);
    assert!(!config.pickups["local-dev"].delete_after_pickup);
    assert_snapshot!(problems(text), @r"
    pickup.conf:4:1: warning: [hot-deploy.user.local-dev] deploy_in_place: has no effect here: name a deployer in `deploy_to` instead
    pickup.conf:5:1: warning: [hot-deploy.user.local-dev] delete_after_pick_up: has no effect here: the key here is `delete_after_pickup`
    pickup.conf:7:1: warning: [csv] belongs to another part of Zato and has no effect here
    pickup.conf:15:1: warning: [user_conf] belongs to another part of Zato and has no effect here
    pickup.conf:17:1: warning: [hotdeploy.user.x] belongs to another part of Zato and has no effect here (did you mean `hot-deploy.user.<name>`?)
    ");
}

#[test]
fn a_zato_file_without_an_entry_watches_the_default_directory() {
    let config = parse("[static]\npickup_from=./pickup/incoming/static\npatterns=*\n");
    assert_eq!(config.pickups["default"].pickup_from, [Path::new("/base/pickup/incoming/services")]);
}

#[test]
fn section_names_are_case_sensitive() {
    let text = "[hot-deploy.user.A]\npickup_from=/a\n[hot-deploy.user.a]\npickup_from=/b\n[Hot-Deploy.user.x]\npickup_from=/c\n";
    assert_eq!(names(&parse(text)), ["A", "a"]);
    assert_snapshot!(problems(text), @"pickup.conf:5:1: error: [Hot-Deploy.user.x] is no section (did you mean `hot-deploy.user.<name>`?)");
}
