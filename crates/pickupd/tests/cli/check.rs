//! `pickupd check`.

use crate::sandbox::{Sandbox, assert_shown};

#[test]
fn a_good_configuration_is_explained() {
    let sandbox = Sandbox::new();
    assert_shown!(sandbox, sandbox.run(&["check"]), @r"
    pickup.conf: read as TOML
      state          [dir]/.pickup

    code
      watches        [dir]/in
      picks up       *.py; each file by itself
      deploys to     default: copies into [dir]/out

    no problems
    [exit code 0]
    ");
}

#[test]
fn every_key_that_changes_something_is_explained() {
    let sandbox = Sandbox::empty();
    sandbox.file(
        "pickup.conf",
        r#"
[hot-deploy.user.site]
pickup_from = ["in", "gone"]
unit = "directory"
recursive = true
ignore = ["*.tmp"]
watch = "poll"
on_removed = "keep"
deploy_to = ["www", "reload"]

[hot-deploy.user.site.off]
pickup_from = "off"
enabled = false
recursive = false
watch = "off"
delete_after_pickup = true
deploy_to = "reload"

[deployer.www]
kind = "release"
into = "www/{pickup}"
verify = ["tcp://127.0.0.1:80", "exec:/bin/true x"]

[deployer.reload]
kind = "exec"
command = ["systemctl", "reload", "app"]
per = "change_set"
"#,
    );
    assert_shown!(sandbox, sandbox.run(&["check"]), @r"
    pickup.conf: read as TOML
      state          [dir]/.pickup

    site
      watches        [dir]/in
                     [dir]/gone (missing; it is waited for)
      picks up       *; each entry directly below as one
      ignores        *.tmp
      notices        by polling
      removed files  stay where they were deployed
      deploys to     www: releases in [dir]/www/site, the live one at [dir]/www/site/current
                     verified by tcp://127.0.0.1:80, exec:/bin/true x
      then to        reload: runs systemctl reload app for each change set

    site.off (disabled)
      watches        [dir]/off (missing; it is waited for)
      picks up       *, not below; each file by itself
      notices        nothing by itself: at start and on `pickupd sync` only
      once live      the file leaves the pickup directory
      deploys to     reload: runs systemctl reload app for each change set

    no problems
    [exit code 0]
    ");
}

#[test]
fn problems_are_listed_as_compilers_do() {
    let sandbox = Sandbox::empty();
    let text =
        "[hot-deploy.user.a]\npickup_form = \"in\"\n\n[hot-deploy.user.b]\npickup_from = \"in\"\nquiet = \"soon\"\n";
    sandbox.file("my.conf", &format!("{text}\n[pickup]\nlog = \"a=b=c\"\n"));
    assert_shown!(sandbox, sandbox.run(&["check", "--config", "my.conf"]), @r#"
    my.conf: read as TOML
      state          [dir]/.pickup

    my.conf:1:1: error: [hot-deploy.user.a] pickup_from: is missing: which directory is to be watched?
    my.conf:2:1: error: [hot-deploy.user.a] pickup_form: is no key of this section (did you mean `pickup_from`?)
    my.conf:6:9: error: [hot-deploy.user.b] quiet: expected a duration with a unit, such as `10ms`, `2s` or `1h 30m`, found `soon`: expected number at 0
    my.conf:1:1: error: [pickup] log: cannot use the log filter `a=b=c`: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
    4 errors
    [exit code 1]
    "#);
}

#[test]
fn a_file_that_does_not_parse_is_an_error_with_its_place() {
    let sandbox = Sandbox::empty();
    sandbox.file("pickup.conf", "[hot-deploy.user.a\npickup_from = \"in\"\n");
    assert_shown!(sandbox, sandbox.run(&["check"]), @r"
    pickup.conf: cannot be read at all

    pickup.conf:1:19: error: unclosed table, expected `]`
    1 error
    [exit code 1]
    ");
}

#[test]
fn zatos_dialect_is_told_and_written_as_toml() {
    let sandbox = Sandbox::empty();
    sandbox.file("zato.conf", "[hot-deploy.user.my.code]\npickup_from=/my/code/ # comment\n\n[json]\nx=1\n");
    assert_shown!(sandbox, sandbox.run(&["check", "--config", "zato.conf"]), @r"
    zato.conf: read as the Zato dialect
      state          [dir]/.pickup

    my.code
      watches        /my/code (missing; it is waited for)
      picks up       *; each file by itself
      deploys to     default: copies into [dir]/deployed/my.code

    zato.conf:4:1: warning: [json] belongs to another part of Zato and has no effect here
    1 warning
    [exit code 0]
    ");
    assert_shown!(sandbox, sandbox.run(&["check", "--config", "zato.conf", "--to-toml"]), @r#"
    [pickup]
    state_dir = "[dir]/.pickup"

    [deployer.default]
    kind = "copy"
    into = "[dir]/deployed/{pickup}"

    [hot-deploy.user.my.code]
    pickup_from = "/my/code"
    [stderr]
    zato.conf:4:1: warning: [json] belongs to another part of Zato and has no effect here
    [exit code 0]
    "#);
}

#[test]
fn no_file_means_one_entry() {
    let sandbox = Sandbox::empty();
    assert_shown!(sandbox, sandbox.run(&["check"]), @r"
    no configuration file: one entry, `default`
      state          [dir]/.pickup

    default
      watches        [dir]/pickup/incoming/services (missing; it is waited for)
      picks up       *; each file by itself
      deploys to     default: copies into [dir]/deployed/default

    no problems
    [exit code 0]
    ");
}

#[test]
fn what_is_checked_is_json_for_programs() {
    let sandbox = Sandbox::new();
    let checked = sandbox.json(&["check", "--json"]);
    assert_eq!(checked["dialect"], "toml");
    assert_eq!(checked["entries"][0]["name"], "code");
    assert_eq!(checked["deployers"][0]["kind"], "copy");
    assert_eq!(checked["problems"].as_array().map(Vec::len), Some(0));
    sandbox.file("pickup.conf", "[[[");
    let checked = sandbox.json(&["check", "--json"]);
    assert_eq!(checked["problems"][0]["line"], 1);
}

#[test]
fn what_a_git_entry_follows_is_explained_without_its_password() {
    let sandbox = Sandbox::empty();
    let mirror =
        "[hot-deploy.user.a]\ngit_url = \"https://me:secret@h/x\"\ngit_ref = \"v1\"\ngit_subdir = \"public\"\n";
    let clone = "[hot-deploy.user.b]\npickup_from = \"clone\"\ngit_url = \"git@h:x\"\nauto_checkout = true\n";
    let own = "[hot-deploy.user.c]\npickup_from = \"own\"\nauto_checkout = false\n";
    sandbox.file("pickup.conf", &format!("{mirror}{clone}{own}"));
    assert_shown!(sandbox, sandbox.run(&["check"]), @r"
    pickup.conf: read as TOML
      state          [dir]/.pickup

    a
      follows        v1 of https://me@h/x, public; asked at start and on `pickupd sync`
      picks up       *; each file by itself
      deploys to     default: copies into [dir]/deployed/a

    b
      follows        HEAD of git@h:x; asked every 30s
      watches        [dir]/clone (missing; it is cloned)
      picks up       *; each file by itself
      deploys to     default: copies into [dir]/deployed/b

    c
      follows        what is checked out; pulled by hand
      watches        [dir]/own (missing; it is waited for)
      picks up       *; each file by itself
      deploys to     default: copies into [dir]/deployed/c

    pickup.conf:2:1: warning: [hot-deploy.user.a] git_url: holds a password, which anybody who reads this file sees: use `git_password_file`
    1 warning
    [exit code 0]
    ");
    let checked = sandbox.json(&["check", "--json"]);
    assert_eq!(checked["entries"][0]["git"]["ref"], "v1");
    assert!(!checked.to_string().contains("secret"));
}
