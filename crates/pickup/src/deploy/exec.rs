//! `kind = "exec"`: a program that is run for each change.
#![expect(clippy::disallowed_methods, reason = "this is a door: it lays files out for a program")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::capture::{CapturedFile, Digest};
use crate::change::Content;
use crate::config::{ExecConfig, ExecPer, ExecStdin};
use crate::deploy::expand::Values;
use crate::deploy::lane::{self, Lanes, Stop};
use crate::deploy::place::Root;
use crate::deploy::program::{self, Program, variable};
use crate::deploy::{Context, Deployer, Scope, Unit};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::path::{self, UnitPath};
use crate::source::git::Revision;

/// The exit status that means "try again later": `EX_TEMPFAIL` of `sysexits.h`.
const EXIT_TRY_LATER: i32 = 75;

/// Says that the command was started, so that a revert knows whether there is anything to undo.
const STARTED: &str = "started";

/// Runs a command when a unit goes live, and again when it is removed. It counts as live once the command succeeded.
#[derive(Debug)]
pub struct Exec {
    config: Arc<ExecConfig>,
    lanes: Lanes,
}

/// What the command will be given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Staged {
    /// What is ours below the scratch directory.
    #[serde(with = "path::exact")]
    directory: PathBuf,
    /// The file or tree that `PICKUP_PATH` names.
    #[serde(with = "path::exact")]
    path: PathBuf,
}

/// What the command was run for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Live {
    generation: u64,
    digest: Option<Digest>,
}

impl Exec {
    /// Makes the deployer that the section describes.
    ///
    /// # Errors
    /// If a command names no program.
    pub fn new(config: ExecConfig) -> Result<Self> {
        let commands = [Some(&config.command), config.rollback_command.as_ref()];
        if commands.into_iter().flatten().any(|argv| argv.first().is_none_or(String::is_empty)) {
            return Err(Error::new(ErrorKind::Config, "run a command without a program"));
        }
        Ok(Self { config: Arc::new(config), lanes: Lanes::default() })
    }

    async fn run(&self, cx: &Context, unit: &Unit, command: &[String], path: Option<&Path>) -> Result<()> {
        let values = Values::new(unit, path);
        let program = Program {
            argv: command.iter().map(|argument| values.argument(argument)).collect(),
            env: self.environment(unit, path),
            cwd: self.config.cwd.clone(),
            stdin: match self.config.stdin {
                ExecStdin::Json => Some(request(unit, path)?),
                ExecStdin::None => None,
            },
            stdout: None,
        };
        let name = program.name();
        let status = program.run(cx, cx.deadline()).await?;
        if status.success() {
            return Ok(());
        }
        let error = Error::deploy(format!("run {name}: {}", program::describe(status)));
        Err(if status.code() == Some(EXIT_TRY_LATER) { error.transient() } else { error })
    }

    fn environment(&self, unit: &Unit, path: Option<&Path>) -> Vec<(std::ffi::OsString, Option<std::ffi::OsString>)> {
        let digest = unit.digest().or(unit.previous).map(|digest| digest.to_string());
        let mut env: Vec<_> = self.config.env.iter().map(|(name, value)| variable(name, value)).collect();
        env.push(variable("PICKUP_NAME", &unit.pickup));
        env.push(variable("PICKUP_UNIT", unit.path.as_path()));
        env.push(variable("PICKUP_CHANGE", unit.change.as_str()));
        env.push(variable("PICKUP_GENERATION", unit.generation.to_string()));
        env.push(("PICKUP_PATH".into(), path.map(Into::into)));
        env.push(("PICKUP_DIGEST".into(), digest.map(Into::into)));
        // What is `None` is taken out of the environment that is inherited.
        let revision = unit.revision.as_ref();
        let previous = revision.and_then(|revision| revision.previous.as_ref());
        env.push(("PICKUP_COMMIT".into(), revision.map(|revision| revision.commit.clone().into())));
        env.push(("PICKUP_PREVIOUS_COMMIT".into(), previous.map(|previous| previous.clone().into())));
        env
    }
}

impl Deployer for Exec {
    type Staged = Staged;
    type Live = Live;

    fn scope(&self) -> Scope {
        match self.config.per {
            ExecPer::Unit => Scope::Unit,
            ExecPer::ChangeSet => Scope::Pickup,
        }
    }

    async fn stage(&self, cx: &Context, unit: &Unit, _old: Option<&Live>) -> Result<Staged> {
        let (subject, directory) = (unit.clone(), cx.scratch().join(own_name(unit)));
        let is_small = lane::is_small(unit.content.as_ref());
        self.lanes.run(cx, unit, is_small, move |stop| lay_out(&subject, directory, stop)).await
    }

    async fn activate(&self, cx: &Context, unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<Live> {
        if self.config.rollback_command.is_some() {
            let marker = staged.directory.join(STARTED);
            // On disk before the program starts: after a crash it must not look as if it had never run.
            std::fs::File::create(&marker).and_then(|file| file.sync_all()).doing("create", &marker)?;
        }
        self.run(cx, unit, &self.config.command, Some(&staged.path)).await?;
        Ok(Live { generation: unit.generation, digest: unit.digest() })
    }

    /// Runs `rollback_command`, if there is one and `command` was started.
    async fn revert(&self, cx: &Context, unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<()> {
        if let Some(command) = &self.config.rollback_command
            && staged.directory.join(STARTED).exists()
        {
            self.run(cx, unit, command, Some(&staged.path)).await?;
        }
        self.discard(cx, unit, staged).await
    }

    async fn retire(&self, cx: &Context, unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<()> {
        self.discard(cx, unit, staged).await
    }

    async fn remove(&self, cx: &Context, unit: &Unit, _live: &Live) -> Result<()> {
        self.run(cx, unit, &self.config.command, None).await
    }
}

impl Exec {
    async fn discard(&self, cx: &Context, unit: &Unit, staged: &Staged) -> Result<()> {
        let directory = staged.directory.clone();
        let is_small = lane::is_small(unit.content.as_ref());
        self.lanes.run(cx, unit, is_small, move |_| discard(&directory)).await
    }
}

/// A directory name of the unit's own, because the units of a generation share a scratch directory.
fn own_name(unit: &Unit) -> String {
    format!("exec-{}", Digest::of(unit.path.as_path().as_os_str().as_encoded_bytes()).short())
}

/// Copies what was captured to where the command finds it under its own name.
fn lay_out(unit: &Unit, directory: PathBuf, stop: &Stop) -> Result<Staged> {
    // What an interrupted attempt left may be half a view.
    discard(&directory)?;
    let name = unit.path.file_name().unwrap_or(OsStr::new("tree"));
    let view = directory.join("view");
    let path = view.join(name);
    match &unit.content {
        Some(Content::File(file)) => {
            put(&Root::create(&view)?, &UnitPath::root().join(name), file, stop)?;
        }
        Some(Content::Tree(files)) => {
            let root = Root::create(&path)?;
            files.iter().try_for_each(|entry| put(&root, &entry.path, &entry.file, stop))?;
        }
        None => {
            Root::create(&view)?;
        }
    }
    Ok(Staged { directory, path })
}

fn put(root: &Root, path: &UnitPath, file: &CapturedFile, stop: &Stop) -> Result<()> {
    stop.check()?;
    root.write(path, file, file.mode & 0o777, stop).map(drop)
}

fn discard(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", directory, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What the command reads on standard input.
#[derive(Serialize)]
struct Request<'a> {
    pickup: &'a str,
    generation: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<&'a Revision>,
    changes: Vec<RequestedChange<'a>>,
}

#[derive(Serialize)]
struct RequestedChange<'a> {
    unit: &'a UnitPath,
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<ExactPath>,
    digest: Option<Digest>,
    size: Option<u64>,
}

#[derive(Serialize)]
struct ExactPath(#[serde(with = "path::exact")] PathBuf);

fn request(unit: &Unit, path: Option<&Path>) -> Result<Vec<u8>> {
    let changes = unit.changes.iter().map(|change| {
        let place = change.content.as_ref().and(path).map(|path| match change.path.below(&unit.path) {
            Some(below) if !below.is_root() => path.join(below.as_path()),
            Some(_) | None => path.to_path_buf(),
        });
        RequestedChange {
            unit: &change.path,
            change: change.kind.as_str(),
            path: place.map(ExactPath),
            digest: change.content.as_ref().map(Content::digest),
            size: change.content.as_ref().map(Content::size),
        }
    });
    let request = Request {
        pickup: &unit.pickup,
        generation: unit.generation,
        revision: unit.revision.as_deref(),
        changes: changes.collect(),
    };
    serde_json::to_vec(&request).map_err(|error| Error::deploy("write the change set as JSON").caused_by(error))
}

#[cfg(test)]
mod tests;
