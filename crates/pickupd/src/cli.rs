//! What can be typed: commands, options, and the help that teaches them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// How many deployments `history` shows unless told otherwise.
const HISTORY_LIMIT: &str = "20";

/// Deploy what is dropped into a directory: whole, checked, and with a way back.
///
/// `pickupd run` watches the directories that `pickup.conf` names and hands complete changes to deployers. The other
/// commands ask the running daemon, or its records when none runs.
#[derive(Debug, Parser)]
#[command(name = "pickupd", version, after_help = MAIN_EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub command: Command,
}

/// The options that every command takes.
#[derive(Args, Debug)]
pub struct Options {
    /// The configuration [default: ./pickup.conf if there is one, else one entry for ./pickup/incoming/services/]
    #[arg(long, short, global = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The state directory, whatever the configuration says
    #[arg(long, global = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// When to use colours: auto (on a terminal, unless NO_COLOR is set), always or never [default: auto]
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub color: Color,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

/// How an answer is written.
#[derive(Args, Clone, Copy, Debug)]
pub struct Format {
    /// Write JSON, for programs
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Run(Run),
    Check(Check),
    Status(Status),
    History(History),
    Why(Why),
    Sync(Sync),
    Rollback(Rollback),
    Release(Release),
    Retry(Retry),
    Events(Events),
    Completions(Completions),
    Man(Man),
}

/// Watch and deploy until a signal says stop
///
/// SIGHUP reads the configuration again and looks at everything; SIGTERM and SIGINT finish the step in hand and exit 0
/// within 30 seconds; a second one exits at once. Everything it says is a log line on standard error.
#[derive(Args, Debug)]
#[command(after_help = RUN_EXAMPLES)]
pub struct Run {
    /// Watch this directory; no configuration is needed
    #[arg(value_name = "DIR", requires = "into", value_hint = clap::ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
    /// Copy what is dropped into DIR to this directory
    #[arg(long, value_name = "TARGET", requires = "directory", value_hint = clap::ValueHint::DirPath)]
    pub into: Option<PathBuf>,
    /// Deploy what is there and exit: 0, or 1 if anything failed
    #[arg(long)]
    pub once: bool,
    /// With --once: print what would be deployed, and do nothing of it
    #[arg(long, requires = "once")]
    pub dry_run: bool,
    /// With --dry-run: write JSON, for programs
    #[arg(long, requires = "dry_run")]
    pub json: bool,
    /// What to log instead of what `log` in the configuration says, such as `debug`
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// Parse, resolve and explain the configuration
///
/// Problems are listed as `file:line:column: error: …`. Exits 1 if there is an error, 2 if there is no such file.
#[derive(Args, Debug)]
#[command(after_help = CHECK_EXAMPLES)]
pub struct Check {
    /// Print the same configuration as TOML; problems go to standard error
    #[arg(long, conflicts_with = "json")]
    pub to_toml: bool,
    #[command(flatten)]
    pub format: Format,
}

/// How each entry is: what is live, what waits, what failed
///
/// Without a daemon, this is what was live when the last one stopped.
#[derive(Args, Debug)]
#[command(after_help = STATUS_EXAMPLES)]
pub struct Status {
    /// Only this entry, in full
    pub name: Option<String>,
    #[command(flatten)]
    pub format: Format,
}

/// Deployments, newest first
#[derive(Args, Debug)]
#[command(after_help = HISTORY_EXAMPLES)]
pub struct History {
    /// Only those of this entry
    pub name: Option<String>,
    /// How many at most
    #[arg(long, short = 'n', value_name = "N", default_value = HISTORY_LIMIT,
          value_parser = clap::value_parser!(u64).range(1..=pickup::control::HISTORY_MAX as u64))]
    pub limit: u64,
    #[command(flatten)]
    pub format: Format,
}

/// Why a path was, or was not, deployed
///
/// PATH may be written as it is from here, or as it is below a pickup directory.
#[derive(Args, Debug)]
#[command(after_help = WHY_EXAMPLES)]
pub struct Why {
    /// The path in question; it need not exist (any more)
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    pub path: PathBuf,
    #[command(flatten)]
    pub format: Format,
}

/// Look at everything now, and wait until it is live or has failed
///
/// Exits 1 if anything failed, or with --dry-run if a deployer objects.
#[derive(Args, Debug)]
#[command(after_help = SYNC_EXAMPLES)]
pub struct Sync {
    /// Only this entry
    pub name: Option<String>,
    /// Carry out removals that are held back because so much vanished at once
    #[arg(long)]
    pub confirm_removals: bool,
    /// Print what would be deployed, and do nothing of it
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub format: Format,
}

/// Make an earlier generation live, and hold there
///
/// Changes are held back until `pickupd release NAME`.
#[derive(Args, Debug)]
#[command(after_help = ROLLBACK_EXAMPLES)]
pub struct Rollback {
    /// The entry
    pub name: String,
    /// The generation, as `pickupd history` counts them [default: the one before the present one]
    #[arg(long, value_name = "GENERATION")]
    pub to: Option<u64>,
    #[command(flatten)]
    pub format: Format,
}

/// Lift the hold of a rollback: deploy what is on disk again
#[derive(Args, Debug)]
pub struct Release {
    /// The entry
    pub name: String,
    #[command(flatten)]
    pub format: Format,
}

/// Try again what failed and is quarantined
#[derive(Args, Debug)]
#[command(after_help = RETRY_EXAMPLES)]
pub struct Retry {
    /// The entry
    pub name: String,
    /// Only what failed at or below this path
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    pub path: Option<PathBuf>,
    #[command(flatten)]
    pub format: Format,
}

/// Print what happens, as it happens, until the daemon stops
///
/// With --json, each line is one event as the library gives it.
#[derive(Args, Debug)]
pub struct Events {
    #[command(flatten)]
    pub format: Format,
}

/// Print a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
pub struct Completions {
    pub shell: Shell,
}

/// Print the manual page, or write those of all commands
#[derive(Args, Debug)]
#[command(after_help = MAN_EXAMPLES)]
pub struct Man {
    /// Write pickupd.1, pickupd-run.1 and the others into this directory
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

const MAIN_EXAMPLES: &str = "\
Examples:
  pickupd run ./incoming --into ./live   watch a directory, copy what is dropped there
  pickupd run                            do what ./pickup.conf says
  pickupd check                          say what ./pickup.conf means, and what is wrong with it
  pickupd status                         how every entry is
  pickupd why incoming/app.py            why nothing happened to this file

Exit codes: 0 done, 1 the work failed, 2 wrong usage or configuration, 3 no daemon to talk to.";

const RUN_EXAMPLES: &str = "\
Examples:
  pickupd run                              the daemon, with ./pickup.conf
  pickupd run --config /etc/pickup.conf    the daemon, with this configuration
  pickupd run ./incoming --into ./live     no configuration: watch one, copy into the other
  pickupd run --once                       deploy what is there, then exit
  pickupd run --once --dry-run             say what that would deploy, and do nothing";

const CHECK_EXAMPLES: &str = "\
Examples:
  pickupd check --config /etc/pickup.conf           what it means, and every problem
  pickupd check --config zato.conf --to-toml        the same configuration, as TOML
  pickupd check --json | jq '.problems'             the problems, for a program";

const STATUS_EXAMPLES: &str = "\
Examples:
  pickupd status                             every entry
  pickupd status my.code                     one entry, with all that waits and failed
  pickupd status --json | jq '.[].state'     for a program";

const HISTORY_EXAMPLES: &str = "\
Examples:
  pickupd history                  the last 20 deployments
  pickupd history my.code -n 100   the last 100 of one entry";

const WHY_EXAMPLES: &str = "\
Examples:
  pickupd why ./incoming/app.py    a path from here
  pickupd why app.py               a path below a pickup directory";

const SYNC_EXAMPLES: &str = "\
Examples:
  pickupd sync                                every entry
  pickupd sync --dry-run                      what that would deploy, and what would wait
  pickupd sync my.code --confirm-removals     one entry; yes, all those files are meant to be gone";

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  pickupd rollback my.code           the generation before the present one
  pickupd rollback my.code --to 12   generation 12
  pickupd release my.code            and back to what is on disk";

const RETRY_EXAMPLES: &str = "\
Examples:
  pickupd retry my.code            everything that failed
  pickupd retry my.code sub/a.py   one file";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  pickupd completions bash > ~/.local/share/bash-completion/completions/pickupd
  pickupd completions zsh > ~/.zfunc/_pickupd
  pickupd completions fish > ~/.config/fish/completions/pickupd.fish";

const MAN_EXAMPLES: &str = "\
Examples:
  pickupd man | man -l -
  pickupd man --dir /usr/local/share/man/man1";
