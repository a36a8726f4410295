//! What the configuration promises, claim by claim.

use std::fmt::Write;
use std::path::Path;

use super::{Config, Problem, Surroundings};

mod dialects;
mod example;
mod git;
mod http;
mod process;
mod properties;
mod rules;
mod zato;

/// A world with a home, three variables and one registered deployer.
fn surroundings() -> Surroundings {
    let variables = |name: &str| match name {
        "DIR" => Some("/from/variable".to_owned()),
        "SUB" => Some("sub".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    Surroundings::new("/base").home("/home/me").variables(variables).deployers(["registered"])
}

/// What `text` means; nothing may be unreadable.
fn parse(text: &str) -> Config {
    Config::parse(text, Some(Path::new("pickup.conf")), &surroundings())
        .unwrap_or_else(|problems| panic!("{}", listed(&problems)))
}

/// What `text` means; nothing may be wrong with it.
fn parse_well(text: &str) -> Config {
    let config = parse(text);
    assert!(config.problems.is_empty(), "{}", listed(&config.problems));
    config
}

/// One problem a line.
fn listed(problems: &[Problem]) -> String {
    problems.iter().fold(String::new(), |mut text, problem| {
        writeln!(text, "{problem}").unwrap();
        text
    })
}

/// What is wrong with `text`, which may be unreadable, one problem a line.
fn problems(text: &str) -> String {
    match Config::parse(text, Some(Path::new("pickup.conf")), &surroundings()) {
        Ok(config) => listed(&config.problems),
        Err(problems) => format!("unreadable:\n{}", listed(&problems)),
    }
}

/// The names of the entries that run.
fn names(config: &Config) -> Vec<&str> {
    config.pickups.keys().map(String::as_str).collect()
}
