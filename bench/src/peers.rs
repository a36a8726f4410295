//! The programs we are compared with: which are here, in which version, and how to get the others.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// A program that a bench may run.
struct Known {
    name: &'static str,
    /// What makes it say its version.
    version: &'static [&'static str],
    /// How to get it.
    hint: &'static str,
}

const KNOWN: [Known; 8] = [
    Known { name: "inotifywait", version: &["--help"], hint: "apt-get install inotify-tools" },
    Known { name: "entr", version: &[], hint: "apt-get install entr" },
    Known { name: "watchman", version: &["--version"], hint: "apt-get install watchman" },
    Known { name: "fswatch", version: &["--version"], hint: "apt-get install fswatch" },
    Known { name: "watchexec", version: &["--version"], hint: "cargo install --locked watchexec-cli" },
    Known { name: "rsync", version: &["--version"], hint: "apt-get install rsync" },
    Known { name: "git", version: &["--version"], hint: "apt-get install git" },
    Known { name: "cp", version: &["--version"], hint: "apt-get install coreutils" },
];

/// A program that was found.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name, such as `watchexec`.
    pub name: &'static str,
    /// Where it is.
    pub program: PathBuf,
    /// What it says of its version.
    pub version: String,
}

/// The programs that were found.
pub struct Peers(Vec<Peer>);

impl Peers {
    /// Looks in `extra` first, and in the search path.
    pub fn find(extra: &[PathBuf]) -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places: Vec<PathBuf> = extra.iter().cloned().chain(std::env::split_paths(&path)).collect();
        let found = KNOWN.iter().filter_map(|known| {
            let program = places.iter().map(|place| place.join(known.name)).find(|program| program.is_file())?;
            let version = version(&program, known.version);
            Some(Peer { name: known.name, program, version })
        });
        Self(found.collect())
    }

    /// The program `name`, if it is here.
    pub fn get(&self, name: &str) -> Option<&Peer> {
        self.0.iter().find(|peer| peer.name == name)
    }

    /// The program `name`.
    ///
    /// # Errors
    /// It is not here: says how to get it.
    pub fn need(&self, name: &str) -> Result<&Peer> {
        match self.get(name) {
            Some(peer) => Ok(peer),
            None => bail!("{name} is not here: {}", hint(name)),
        }
    }

    /// All that were found.
    pub fn all(&self) -> &[Peer] {
        &self.0
    }

    /// Prints what is here, and how to get what is not.
    pub fn print(&self) {
        for known in &KNOWN {
            match self.get(known.name) {
                Some(peer) => println!("{:<12} {} ({})", known.name, peer.version, peer.program.display()),
                None => println!("{:<12} not here, not measured; to get it: {}", known.name, known.hint),
            }
        }
        println!("notify, notify-debouncer-full and raw inotify are built into this program.");
    }
}

/// How to get the program `name`.
pub fn hint(name: &str) -> &'static str {
    KNOWN.iter().find(|known| known.name == name).map_or("it is none of the known peers", |known| known.hint)
}

/// The first line in which a program says a number.
fn version(program: &Path, arguments: &[&str]) -> String {
    // entr says its version with its usage, when it has nothing to do.
    let output = Command::new(program).args(arguments).stdin(std::process::Stdio::null()).output();
    let Ok(output) = output else { return "version unknown".into() };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let line = said.lines().find(|line| line.contains(|c: char| c.is_ascii_digit()));
    line.unwrap_or("version unknown").trim().to_owned()
}
