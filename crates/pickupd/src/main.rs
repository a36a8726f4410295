//! The pickup daemon and its command line: it parses arguments, starts the library, prints what it says, and maps
//! signals and exit codes. It decides nothing.

use std::process::ExitCode;

use clap::Parser;

mod ask;
mod check;
mod cli;
mod configuration;
mod exit;
mod log;
mod memory;
mod once;
mod pages;
mod paint;
mod run;
mod show;
mod signals;
mod systemd;

use self::cli::{Cli, Command};
use self::paint::Paint;

/// What a daemon calls this program with, for one piece of git work.
const GIT_WORKER: &str = "git-worker";

/// What a daemon calls this program with, to load one module for a test.
const MODULE_PROBE: &str = "module-probe";

fn main() -> ExitCode {
    // No commands that people type: help, completions and manual pages do not know them.
    if std::env::args_os().skip(1).eq([GIT_WORKER]) {
        return git_worker();
    }
    if std::env::args_os().skip(1).eq([MODULE_PROBE]) {
        return module_probe();
    }
    let Cli { options, command } = Cli::parse();
    let paint = Paint::on_stdout(options.color);
    let done = match command {
        Command::Run(run) => run::run(&options, run),
        Command::Check(check) => check::check(&options, &check, paint),
        Command::Completions(completions) => pages::completions(completions.shell),
        Command::Man(man) => pages::manual(man.dir.as_deref()),
        command => ask::ask(&options, command, paint),
    };
    match done {
        Ok(code) => code,
        Err(failure) => failure.report(Paint::on_stderr(options.color)),
    }
}

/// Serves one request of a daemon, on the standard input and output.
fn git_worker() -> ExitCode {
    let input = std::io::BufReader::new(std::io::stdin());
    match pickup::serve_git_worker(input, std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot serve as a git worker: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Loads one module for a daemon that asks on the standard input.
fn module_probe() -> ExitCode {
    #[cfg(target_os = "linux")]
    let served = pickup::deploy::module::serve_probe(std::io::stdin().lock(), std::io::stdout());
    #[cfg(not(target_os = "linux"))]
    let served: std::io::Result<()> = Err(std::io::ErrorKind::Unsupported.into());
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot serve as a probe of modules: {error}");
            ExitCode::FAILURE
        }
    }
}
