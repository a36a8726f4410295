//! Which configuration holds: the one that was named, the one that is here, or none. The environment is read here only.

use std::path::{Path, PathBuf};

use pickup::config::{Problem, Surroundings};
use pickup::{Config, ErrorKind};

use crate::cli::Options;
use crate::exit::Failure;

/// What is looked for where no file is named.
const HERE: &str = "pickup.conf";

/// The configuration file, if there is one.
pub fn file(options: &Options) -> Option<PathBuf> {
    options.config.clone().or_else(|| Some(PathBuf::from(HERE)).filter(|here| here.exists()))
}

/// What the library needs to know of the process: home, variables, and what the command line fixes.
pub fn surroundings(options: &Options) -> Surroundings {
    let mut surroundings = Surroundings::default().variables(|name| std::env::var(name).ok());
    if let Some(home) = std::env::home_dir() {
        surroundings = surroundings.home(home);
    }
    match &options.state_dir {
        Some(directory) => surroundings.state_dir(directory),
        None => surroundings,
    }
}

/// The configuration in `file`, or what holds without one.
pub fn load(file: Option<&Path>, surroundings: &Surroundings) -> Result<Config, Failure> {
    match file {
        Some(file) => Config::load(file, surroundings).map_err(|error| Failure::usage(&error)),
        None => Ok(Config::embedded(surroundings)),
    }
}

/// As [`load`]; what is wrong with a file that does not parse at all is listed.
pub fn parse(file: Option<&Path>, surroundings: &Surroundings) -> Result<Result<Config, Vec<Problem>>, Failure> {
    let Some(file) = file else { return Ok(Ok(Config::embedded(surroundings))) };
    let text = Config::read(file).map_err(|error| Failure::usage(&error))?;
    Ok(Config::parse(&text, Some(file), surroundings))
}

/// The configuration for a command that asks. Where the state directory is named, it is all that is needed.
pub fn for_asking(options: &Options) -> Result<Config, Failure> {
    let surroundings = surroundings(options);
    let Some(file) = file(options) else { return Ok(Config::embedded(&surroundings)) };
    match Config::load(&file, &surroundings) {
        Ok(config) => Ok(config),
        Err(error) if options.state_dir.is_some() && error.kind() == ErrorKind::Config => {
            Ok(Config::embedded(&surroundings))
        }
        Err(error) => Err(Failure::usage(&error)),
    }
}
