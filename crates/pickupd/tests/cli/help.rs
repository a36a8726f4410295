//! `--help`, `--version`, completions and manual pages.

use crate::sandbox::{Sandbox, assert_shown};

#[test]
fn help_shows_the_commands_and_teaches_with_examples() {
    let sandbox = Sandbox::empty();
    assert_shown!(sandbox, sandbox.run(&["--help"]), @r"
    Deploy what is dropped into a directory: whole, checked, and with a way back.

    `pickupd run` watches the directories that `pickup.conf` names and hands complete changes to
    deployers. The other commands ask the running daemon, or its records when none runs.

    Usage: pickupd [OPTIONS] <COMMAND>

    Commands:
      run          Watch and deploy until a signal says stop
      check        Parse, resolve and explain the configuration
      status       How each entry is: what is live, what waits, what failed
      history      Deployments, newest first
      why          Why a path was, or was not, deployed
      sync         Look at everything now, and wait until it is live or has failed
      rollback     Make an earlier generation live, and hold there
      release      Lift the hold of a rollback: deploy what is on disk again
      retry        Try again what failed and is quarantined
      events       Print what happens, as it happens, until the daemon stops
      completions  Print a completion script for a shell
      man          Print the manual page, or write those of all commands
      help         Print this message or the help of the given subcommand(s)

    Options:
      -c, --config <FILE>
              The configuration [default: ./pickup.conf if there is one, else one entry for
              ./pickup/incoming/services/]

          --state-dir <DIR>
              The state directory, whatever the configuration says

          --color <WHEN>
              When to use colours: auto (on a terminal, unless NO_COLOR is set), always or never
              [default: auto]

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version

    Examples:
      pickupd run ./incoming --into ./live   watch a directory, copy what is dropped there
      pickupd run                            do what ./pickup.conf says
      pickupd check                          say what ./pickup.conf means, and what is wrong with it
      pickupd status                         how every entry is
      pickupd why incoming/app.py            why nothing happened to this file

    Exit codes: 0 done, 1 the work failed, 2 wrong usage or configuration, 3 no daemon to talk to.
    [exit code 0]
    ");
}

#[test]
fn help_of_run() {
    let sandbox = Sandbox::empty();
    assert_shown!(sandbox, sandbox.run(&["run", "--help"]), @r"
    Watch and deploy until a signal says stop

    SIGHUP reads the configuration again and looks at everything; SIGTERM and SIGINT finish the step in
    hand and exit 0 within 30 seconds; a second one exits at once. Everything it says is a log line on
    standard error.

    Usage: pickupd run [OPTIONS] [DIR]

    Arguments:
      [DIR]
              Watch this directory; no configuration is needed

    Options:
      -c, --config <FILE>
              The configuration [default: ./pickup.conf if there is one, else one entry for
              ./pickup/incoming/services/]

          --into <TARGET>
              Copy what is dropped into DIR to this directory

          --once
              Deploy what is there and exit: 0, or 1 if anything failed

          --state-dir <DIR>
              The state directory, whatever the configuration says

          --color <WHEN>
              When to use colours: auto (on a terminal, unless NO_COLOR is set), always or never
              [default: auto]

          --dry-run
              With --once: print what would be deployed, and do nothing of it

          --json
              With --dry-run: write JSON, for programs

          --log <FILTER>
              What to log instead of what `log` in the configuration says, such as `debug`

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      pickupd run                              the daemon, with ./pickup.conf
      pickupd run --config /etc/pickup.conf    the daemon, with this configuration
      pickupd run ./incoming --into ./live     no configuration: watch one, copy into the other
      pickupd run --once                       deploy what is there, then exit
      pickupd run --once --dry-run             say what that would deploy, and do nothing
    [exit code 0]
    ");
}

#[test]
fn help_of_sync() {
    let sandbox = Sandbox::empty();
    assert_shown!(sandbox, sandbox.run(&["sync", "-h"]), @r"
    Look at everything now, and wait until it is live or has failed

    Usage: pickupd sync [OPTIONS] [NAME]

    Arguments:
      [NAME]  Only this entry

    Options:
      -c, --config <FILE>     The configuration [default: ./pickup.conf if there is one, else one entry
                              for ./pickup/incoming/services/]
          --confirm-removals  Carry out removals that are held back because so much vanished at once
          --dry-run           Print what would be deployed, and do nothing of it
          --state-dir <DIR>   The state directory, whatever the configuration says
          --color <WHEN>      When to use colours: auto (on a terminal, unless NO_COLOR is set), always
                              or never [default: auto]
          --json              Write JSON, for programs
      -h, --help              Print help (see more with '--help')

    Examples:
      pickupd sync                                every entry
      pickupd sync --dry-run                      what that would deploy, and what would wait
      pickupd sync my.code --confirm-removals     one entry; yes, all those files are meant to be gone
    [exit code 0]
    ");
}

#[test]
fn version_is_one_line() {
    let sandbox = Sandbox::empty();
    assert_shown!(sandbox, sandbox.run(&["--version"]), @r"
    pickupd [version]
    [exit code 0]
    ");
}

#[test]
fn completions_are_made_for_every_shell() {
    let sandbox = Sandbox::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = sandbox.run(&["completions", shell]);
        assert!(
            script.contains("dry-run") && script.contains("rollback") && script.ends_with("[exit code 0]"),
            "{shell}: {script}"
        );
    }
}

#[test]
fn manual_pages_are_made_for_every_command() {
    let sandbox = Sandbox::empty();
    assert!(sandbox.run(&["man"]).contains(".TH pickupd 1"));
    assert_eq!(sandbox.run(&["man", "--dir", "pages"]), "[exit code 0]");
    for page in ["run", "sync"] {
        let text = std::fs::read_to_string(sandbox.path(&format!("pages/pickupd-{page}.1"))).unwrap();
        assert!(text.contains("dry\\-run"), "{text}");
    }
    let mut pages: Vec<String> = std::fs::read_dir(sandbox.path("pages"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    insta::assert_snapshot!(pages.join(" "), @"pickupd-check.1 pickupd-completions.1 pickupd-events.1 pickupd-history.1 pickupd-man.1 pickupd-release.1 pickupd-retry.1 pickupd-rollback.1 pickupd-run.1 pickupd-status.1 pickupd-sync.1 pickupd-why.1 pickupd.1");
}
