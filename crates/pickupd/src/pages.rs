//! Completions and manual pages, made from the same definitions as `--help`.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;
use pickup::{Error, ErrorKind};

use crate::cli::Cli;
use crate::exit::{Failure, print};

/// Prints the completion script for `shell`.
pub fn completions(shell: Shell) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "pickupd", &mut script);
    print_bytes(&script)
}

/// Prints the manual page of the program, or writes one for each command into `directory`.
pub fn manual(directory: Option<&Path>) -> Result<ExitCode, Failure> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(|error| failed("render", error))?;
        return print_bytes(&page);
    };
    std::fs::create_dir_all(directory).map_err(|error| Error::io("make", directory, error))?;
    clap_mangen::generate_to(Cli::command(), directory)
        .map_err(|error| Error::io("write the manual pages to", directory, error))?;
    Ok(ExitCode::SUCCESS)
}

fn print_bytes(text: &[u8]) -> Result<ExitCode, Failure> {
    print(&String::from_utf8_lossy(text))?;
    Ok(ExitCode::SUCCESS)
}

fn failed(action: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("{action} the manual page")).caused_by(error)
}
