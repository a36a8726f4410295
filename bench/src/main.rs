//! pickup and its peers, side by side on the same work: figures, a table and pictures.
//!
//! `cargo run --release -p bench -- all`, or the name of one bench; `report` writes `docs/benchmarks.md` from the results.

mod daemon;
mod deploying;
mod figure;
mod machine;
mod peers;
mod plot;
mod process;
mod recording;
mod report;
mod results;
mod setting;
mod watching;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use crate::figure::Table;
use crate::machine::Machine;
use crate::peers::Peers;
use crate::results::Results;
use crate::setting::Setting;

/// A bench: a subcommand.
pub struct Bench {
    /// The subcommand, and the name of the results.
    pub name: &'static str,
    /// One line for `--help`.
    pub about: &'static str,
    /// Does it.
    pub run: fn(&Setting) -> Result<Table>,
}

/// What this program runs as when a bench starts it as a child: a hidden subcommand with arguments.
pub struct Helper {
    /// The subcommand.
    pub name: &'static str,
    /// Does it.
    pub run: fn(Vec<OsString>) -> Result<()>,
}

#[derive(Args)]
struct Options {
    /// How often everything is repeated, peers in turn.
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Small sizes: a smoke test. Results are printed, not kept.
    #[arg(long, global = true)]
    quick: bool,
    /// The daemon. Default: the one beside this program, built if it is not there.
    #[arg(long, global = true, value_name = "PATH")]
    pickupd: Option<PathBuf>,
    /// A directory to look for peers in before the search path; may be given again.
    #[arg(long, global = true, value_name = "DIR")]
    peer_path: Vec<PathBuf>,
    /// How long the soak takes. Default: 10.
    #[arg(long, global = true, value_name = "N")]
    minutes: Option<u64>,
    /// Measure only subjects with this in their names; may be given again. Results are printed, not kept.
    #[arg(long, global = true, value_name = "PART")]
    only: Vec<String>,
    /// Where to work. Default: the directory for temporary files.
    #[arg(long, global = true, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

impl Options {
    fn setting(self) -> Result<Setting> {
        let scratch = std::path::absolute(self.scratch.unwrap_or_else(std::env::temp_dir))?;
        std::fs::create_dir_all(&scratch).with_context(|| format!("make {}", scratch.display()))?;
        let pickupd = setting::find_pickupd(self.pickupd)?;
        let peers = Peers::find(&self.peer_path);
        let (rounds, is_quick) = (self.rounds.into(), self.quick);
        Ok(Setting { pickupd, scratch, rounds, is_quick, minutes: self.minutes, peers, only: self.only })
    }
}

fn benches() -> impl Iterator<Item = &'static Bench> {
    watching::BENCHES.iter().chain(deploying::BENCHES)
}

fn helpers() -> impl Iterator<Item = &'static Helper> {
    watching::HELPERS.iter().chain(deploying::HELPERS)
}

fn command() -> Command {
    let mut command = Command::new("bench").about("pickup and its peers, side by side on the same work");
    command = Options::augment_args(command.subcommand_required(true).arg_required_else_help(true));
    command = command.subcommand(Command::new("all").about("Every bench, one after the other"));
    for bench in benches() {
        command = command.subcommand(Command::new(bench.name).about(bench.about));
    }
    for helper in helpers() {
        let rest = Arg::new("rest").num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
        let rest = rest.value_parser(clap::value_parser!(OsString));
        command = command.subcommand(Command::new(helper.name).hide(true).arg(rest));
    }
    command =
        command.subcommand(Command::new("report").about("Writes docs/benchmarks.md and its pictures from the results"));
    command =
        command.subcommand(Command::new("record").about("Writes docs/recording.svg: a session with the real daemon"));
    command.subcommand(Command::new("peers").about("Which peers are here, and how to get the others"))
}

fn main() -> Result<()> {
    let matches = command().get_matches();
    let (name, rest) = matches.subcommand().context("no subcommand")?;
    match helpers().find(|helper| helper.name == name) {
        Some(helper) => {
            let arguments = rest.get_many::<OsString>("rest").into_iter().flatten().cloned().collect();
            (helper.run)(arguments)
        }
        None => run(name, &matches),
    }
}

fn run(name: &str, matches: &ArgMatches) -> Result<()> {
    let options = Options::from_arg_matches(matches)?;
    if name == "peers" {
        Peers::find(&options.peer_path).print();
        return Ok(());
    }
    if name == "report" {
        return report::write(setting::workspace());
    }
    let setting = options.setting()?;
    if name == "record" {
        return recording::run(&setting.pickupd, &setting::workspace().join("docs/recording.svg"));
    }
    setting.peers.print();
    for bench in benches().filter(|bench| name == "all" || name == bench.name) {
        println!("\n{}: {}", bench.name, bench.about);
        let machine = Machine::look(&setting.scratch);
        let table = (bench.run)(&setting).with_context(|| format!("measure {}", bench.name))?;
        print!("{}", report::text(&table));
        if !setting.is_quick && setting.only.is_empty() {
            Results::new(&setting, machine, table).save(setting::workspace())?;
        }
    }
    Ok(())
}
