//! Somebody means harm: by names, by links that are exchanged under our hands, by rights, on the control socket, by archives
//! that claim too much.

mod archives;
mod control;
mod links;
mod names;
mod rights;

use std::process::{Command, Output};

use crate::program::program;
use crate::sandbox::Sandbox;

/// A user that is neither root nor whoever runs the tests.
const STRANGER: &str = "4242";

/// Runs `pickupd` as a stranger; only root can let somebody be one.
fn ask_as_stranger(sandbox: &Sandbox, arguments: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", STRANGER, "--regid", STRANGER, "--clear-groups"]).arg(program());
    command.args(arguments).current_dir(sandbox.path("")).env_remove("STATE_DIRECTORY");
    command.output().expect("run setpriv")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
