//! The commands that ask: the running daemon, or where none runs and reading is enough, its records.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use pickup::control::Client;
use pickup::{
    Config, Delivery, Deployment, Error, ErrorKind, Explanation, PickupStatus, PlanOptions, Records, SyncOptions,
    SyncReport,
};
use serde_json::json;

use crate::cli::{Command, Events, History, Options, Release, Retry, Rollback, Status, Sync, Why};
use crate::configuration;
use crate::exit::{Failure, code, print, print_json};
use crate::paint::Paint;
use crate::show::{self, Show};

type Done = Result<ExitCode, Failure>;

/// Carries out `command`.
pub fn ask(options: &Options, command: Command, paint: Paint) -> Done {
    let config = configuration::for_asking(options)?;
    let ask = Ask { config, show: Show::here(paint), err: Paint::on_stderr(options.color) };
    match command {
        Command::Status(status) => wait(ask.status(status)),
        Command::History(history) => wait(ask.history(history)),
        Command::Why(why) => wait(ask.why(why)),
        Command::Sync(sync) => wait(ask.sync(sync)),
        Command::Rollback(rollback) => wait(ask.rollback(rollback)),
        Command::Release(release) => wait(ask.release(release)),
        Command::Retry(retry) => wait(ask.retry(retry)),
        Command::Events(events) => wait(ask.events(events)),
        // These ask nobody: `main` has seen to them.
        Command::Run(_) | Command::Check(_) | Command::Completions(_) | Command::Man(_) => Ok(ExitCode::SUCCESS),
    }
}

fn wait(asking: impl Future<Output = Done>) -> Done {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Error::new(ErrorKind::Io, "start").caused_by(error))?.block_on(asking)
}

/// What answers.
enum Source {
    Daemon(Client),
    Records(Records),
}

struct Ask {
    config: Config,
    show: Show,
    err: Paint,
}

impl Ask {
    fn state_dir(&self) -> &Path {
        &self.config.settings.state_dir
    }

    async fn daemon(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.state_dir()).await?)
    }

    /// The daemon, or what it left on record.
    async fn source(&self) -> Result<Source, Failure> {
        let absent = match Client::connect(self.state_dir()).await {
            Ok(client) => return Ok(Source::Daemon(client)),
            Err(error) if error.kind() == ErrorKind::NoDaemon => error,
            Err(error) => return Err(error.into()),
        };
        match Records::open(self.state_dir()) {
            Ok(records) => Ok(Source::Records(records)),
            // Neither a daemon nor a trace of one.
            Err(error) if error.kind() == ErrorKind::NotFound => Err(absent.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// What is on record, said to be no more than that.
    fn on_record<T>(&self, read: pickup::Result<T>) -> Result<T, Failure> {
        let value = read?;
        let note = "no daemon runs; this is what is on record in";
        eprintln!("{} {note} {}", self.err.warn("note:"), self.state_dir().display());
        Ok(value)
    }

    async fn status(&self, Status { name, format }: Status) -> Done {
        let name = name.as_deref();
        let statuses: Vec<PickupStatus> = match self.source().await? {
            Source::Daemon(client) => client.status(name).await?,
            Source::Records(records) => self.on_record(records.status(name))?,
        };
        if format.json {
            print_json(&statuses)?;
        } else {
            print(&show::status::render(&self.show, &statuses, name.is_some()))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn history(&self, History { name, limit, format }: History) -> Done {
        let name = name.as_deref();
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let deployments: Vec<Deployment> = match self.source().await? {
            Source::Daemon(client) => client.history(name, limit).await?,
            Source::Records(records) => self.on_record(records.history(name, limit))?,
        };
        if format.json {
            print_json(&deployments)?;
        } else {
            print(&show::history::render(&self.show, &deployments))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn why(&self, Why { path, format }: Why) -> Done {
        let source = self.source().await?;
        let mut explanations: Vec<Explanation> = Vec::new();
        for path in readings(&path) {
            explanations = match &source {
                Source::Daemon(client) => client.why(&path).await?,
                Source::Records(records) => records.why(&self.config, &path)?,
            };
            if !explanations.is_empty() {
                break;
            }
        }
        if format.json {
            print_json(&explanations)?;
        } else {
            print(&show::why::render(&self.show, &path, &explanations))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn sync(&self, Sync { name, confirm_removals, dry_run, format }: Sync) -> Done {
        if dry_run {
            let options = PlanOptions { confirm_removals };
            let reports = self.daemon().await?.plan(name.as_deref(), options).await?;
            return show::plan::print(&self.show, &reports, format.json);
        }
        let options = SyncOptions { confirm_removals, until_final: false };
        let reports = self.daemon().await?.sync(name.as_deref(), options).await?;
        if format.json {
            print_json(&reports)?;
        } else {
            print(&show::reports::render(&self.show, &reports))?;
        }
        Ok(code(reports.iter().all(SyncReport::is_success)))
    }

    async fn rollback(&self, Rollback { name, to, format }: Rollback) -> Done {
        let generation = self.daemon().await?.rollback(&name, to).await?;
        let said =
            format!("{name}: generation {generation} is live; changes are held back until `pickupd release {name}`");
        self.say(format.json, &json!({ "generation": generation }), &said)
    }

    async fn release(&self, Release { name, format }: Release) -> Done {
        self.daemon().await?.release(&name).await?;
        self.say(format.json, &json!({}), &format!("{name}: released; what is on disk is deployed again"))
    }

    async fn retry(&self, Retry { name, path, format }: Retry) -> Done {
        let client = self.daemon().await?;
        let units = match &path {
            None => client.retry(&name, None).await?,
            Some(path) => {
                let mut units = 0;
                for path in readings(path) {
                    units = client.retry(&name, Some(&path)).await?;
                    if units > 0 {
                        break;
                    }
                }
                units
            }
        };
        let said = match units {
            0 => format!("{name}: nothing to try again"),
            units => format!("{name}: {} tried again", show::count(units, "unit")),
        };
        self.say(format.json, &json!({ "units": units }), &said)
    }

    async fn events(&self, Events { format }: Events) -> Done {
        let mut events = self.daemon().await?.events().await?;
        while let Some(delivery) = events.next().await? {
            let line = match (&delivery, format.json) {
                (Delivery::Event(event), false) => show::event::render(&self.show, event),
                (Delivery::Lagged(missed), false) => show::event::missed(&self.show, *missed),
                (Delivery::Event(event), true) => json_line(&json!(event)),
                (Delivery::Lagged(missed), true) => json_line(&json!({ "lagged": missed })),
            };
            print(&line)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn say(&self, is_json: bool, value: &serde_json::Value, text: &str) -> Done {
        if is_json {
            print_json(value)?;
        } else {
            print(&format!("{}\n", crate::paint::visible(text)))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn json_line(value: &serde_json::Value) -> String {
    format!("{}\n", crate::paint::harmless(&value.to_string()))
}

/// What a path that somebody typed may mean, in order: as it is from here, and as it is below a pickup directory.
fn readings(path: &Path) -> Vec<PathBuf> {
    let mut readings: Vec<PathBuf> = std::path::absolute(path).into_iter().collect();
    if path.is_relative() {
        readings.push(path.to_path_buf());
    }
    readings
}
