//! `pickupd run`: the daemon. It starts the engine, maps signals, and tells systemd; all it says is the log.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::CommandFactory;
use clap::error::ErrorKind as UsageKind;
use pickup::config::Surroundings;
use pickup::{Builder, Config, Engine, Error, ErrorKind, GitWorker, PlanOptions, SyncOptions, control};
use tokio::task::JoinSet;

use crate::cli::{Cli, Options, Run};
use crate::exit::{FAILED, Failure, USAGE};
use crate::paint::Paint;
use crate::show::{self, Show};
use crate::signals::{AT_ONCE, Hangup, Stop};
use crate::{configuration, log, memory, once, systemd};

/// How long the end may take: a little less than the 30 seconds that are promised.
const END_MAX: Duration = Duration::from_secs(28);

/// How long what is left of the engine may take to be closed after that.
const LAST_MAX: Duration = Duration::from_secs(1);

/// What is to be run.
struct Plan {
    config: Config,
    /// The file that is followed, and how it is read.
    follow: Option<(PathBuf, Surroundings)>,
    once: bool,
}

/// Carries out `pickupd run`.
pub fn run(options: &Options, run: Run) -> Result<ExitCode, Failure> {
    let log = run.log.clone();
    let dry_run = run.dry_run.then_some(run.json);
    let plan = plan(options, run)?;
    if let Some(is_json) = dry_run {
        return rehearse(plan, is_json, Paint::on_stdout(options.color));
    }
    log::start(&plan.config.settings, log.as_deref(), Paint::on_stderr(options.color))?;
    memory::give_back_early();
    let runtime = tokio::runtime::Runtime::new();
    let runtime = runtime.map_err(|error| Error::new(ErrorKind::Io, "start").caused_by(error))?;
    let code = runtime.block_on(serve(plan)).unwrap_or_else(|error| {
        tracing::error!("cannot {error}");
        match error.kind() {
            ErrorKind::Config | ErrorKind::Busy | ErrorKind::NewerSchema => USAGE,
            _ => FAILED,
        }
    });
    // What could not be finished in time is not waited for; all else is closed in order, the journal above all.
    runtime.shutdown_timeout(if code == AT_ONCE { Duration::ZERO } else { LAST_MAX });
    Ok(ExitCode::from(code))
}

fn plan(options: &Options, Run { directory, into, once, .. }: Run) -> Result<Plan, Failure> {
    let surroundings = configuration::surroundings(options);
    if let (Some(directory), Some(into)) = (directory, into) {
        if options.config.is_some() {
            let message = "DIR and --config exclude each other: DIR needs no configuration";
            Cli::command().error(UsageKind::ArgumentConflict, message).exit();
        }
        let config = Config::directory(&directory, &into, &surroundings)?;
        return Ok(Plan { config, follow: None, once });
    }
    let file = configuration::file(options);
    let config = configuration::load(file.as_deref(), &surroundings)?;
    Ok(Plan { config, follow: file.map(|file| (file, surroundings)), once })
}

/// Runs until a signal or, with `--once`, until all is done; gives the exit code.
async fn serve(Plan { config, follow, once }: Plan) -> Result<u8, Error> {
    let mut stop = Stop::listen()?;
    let hangup = Hangup::listen()?;
    tracing::info!(
        state = %config.settings.state_dir.display(),
        socket = %control::socket_path(&config.settings.state_dir).display(),
        configuration = %config.file.as_deref().map_or("none".into(), |file| file.display().to_string()),
        version = env!("CARGO_PKG_VERSION"),
        "pickupd starts"
    );
    let is_followed = follow.is_some() && !once;
    let mut builder = builder(config);
    if let Some((file, surroundings)) = follow.filter(|_| is_followed) {
        builder = builder.follow(file, surroundings);
    }
    let events = builder.subscribe();
    let engine = builder.start().await?;
    if let Err(error) = engine.serve_control() {
        tracing::error!(%error, "nobody can ask this daemon anything: there is no control socket");
    }
    systemd::ready();
    tracing::info!("ready");
    let mut background = JoinSet::new();
    background.spawn(systemd::keep_status(engine.clone(), events));
    background.spawn(systemd::keep_alive(engine.clone()));
    background.spawn(follow_hangups(engine.clone(), hangup, is_followed));
    let code = if once {
        tokio::select! {
            code = once::once(&engine) => code,
            signal = stop.asked() => {
                tracing::info!(signal, "stopping before all is done");
                FAILED
            }
        }
    } else {
        let signal = stop.asked().await;
        tracing::info!(signal, "stopping; a second signal ends at once");
        0
    };
    systemd::stopping();
    background.shutdown().await;
    Ok(match stop.unless_asked(tokio::time::timeout(END_MAX, engine.shutdown())).await {
        None => AT_ONCE,
        Some(Ok(())) => {
            tracing::info!("stopped");
            code
        }
        Some(Err(_)) => {
            tracing::warn!("the step in hand takes too long; the next start takes it back");
            code
        }
    })
}

/// An engine whose workers are this program, started once more.
fn builder(config: Config) -> Builder {
    let builder = Engine::builder(config).git_worker(git_worker());
    match std::env::current_exe() {
        Ok(program) => builder.module_probe([program.as_os_str(), "module-probe".as_ref()]),
        Err(error) => {
            tracing::warn!(%error, "modules cannot be probed: where this program lies is unknown");
            builder
        }
    }
}

/// Prints what `--once` would do.
fn rehearse(Plan { config, .. }: Plan, is_json: bool, paint: Paint) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Runtime::new();
    let runtime = runtime.map_err(|error| Error::new(ErrorKind::Io, "start").caused_by(error))?;
    let planned = runtime.block_on(builder(config).plan(None, PlanOptions::default()));
    let reports = planned.map_err(|error| match error.kind() {
        ErrorKind::Busy | ErrorKind::NewerSchema => Failure::usage(&error),
        _ => error.into(),
    })?;
    show::plan::print(&Show::here(paint), &reports, is_json)
}

/// Git speaks to remotes in this program, started once more: what hangs there can be killed.
fn git_worker() -> GitWorker {
    // Even if another version was installed meanwhile, this leads to the program that runs.
    let program = if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() };
    match program {
        Ok(program) => GitWorker::Program { program, arguments: vec!["git-worker".into()] },
        Err(error) => {
            tracing::warn!(%error, "git works inside the daemon: its own program cannot be found");
            GitWorker::InProcess
        }
    }
}

/// Reads the configuration again and looks at everything, at each SIGHUP.
async fn follow_hangups(engine: Engine, mut hangup: Hangup, is_followed: bool) {
    let mut looking = JoinSet::new();
    loop {
        hangup.asked().await;
        systemd::reloading();
        if is_followed {
            // The engine says itself what is wrong with the file; the running configuration stays.
            let _ = engine.reread().await;
        }
        systemd::ready();
        tracing::info!("SIGHUP: everything is looked at");
        let engine = engine.clone();
        looking.spawn(async move {
            // What fails is logged, and in the status.
            let _ = engine.sync(None, SyncOptions::default()).await;
        });
        while looking.try_join_next().is_some() {}
    }
}
