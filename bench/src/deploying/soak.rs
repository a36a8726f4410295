//! Minutes of mixed load: what the daemon holds on to, and whether at the end all is live that was written.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use self::sample::{Sampler, Trend};
use self::writer::{Files, Writer};
use crate::daemon::{Daemon, HEAD};
use crate::deploying::cost::wait_for_answer;
use crate::figure::{Table, Unit};
use crate::setting::Setting;

mod push;
mod sample;
mod writer;

/// How long it takes unless told otherwise, and in a smoke test.
const MINUTES: u64 = 10;
const QUICK: Duration = Duration::from_secs(20);

/// The pickups that are written to: where, how many writers, and how long each rests between two changes.
const WRITTEN: [(&str, usize, Duration); 3] = [
    ("copy", 3, Duration::from_millis(10)),
    ("release", 2, Duration::from_millis(50)),
    ("exec", 1, Duration::from_millis(50)),
];

/// The pickup that is pushed to.
const PUSHED: &str = "git";

/// How long the pusher rests.
const PUSH_REST: Duration = Duration::from_millis(700);

const CONFIG: &str = r#"log = "warn"

[hot-deploy.user.copy]
pickup_from = "in/copy"
deploy_to = ["copy"]

[hot-deploy.user.release]
pickup_from = "in/release"
deploy_to = ["release"]

[hot-deploy.user.exec]
pickup_from = "in/exec"
deploy_to = ["exec"]

[hot-deploy.user.git]
git_url = "upstream.git"
auto_checkout = true
auto_checkout_interval = "500ms"
deploy_to = ["copy"]

[deployer.copy]
kind = "copy"
into = "live/{pickup}"

[deployer.release]
kind = "release"
into = "live/release"

[deployer.exec]
kind = "exec"
command = ["./take"]
env = { INTO = "LIVE/exec" }
"#;

/// What `exec` runs: a copy of our own by hand.
const TAKE: &str = r#"#!/bin/sh
set -eu
case "$PICKUP_CHANGE" in
  removed) rm -f "$INTO/$PICKUP_UNIT" ;;
  *) mkdir -p "$(dirname "$INTO/$PICKUP_UNIT")"; cp "$PICKUP_PATH" "$INTO/$PICKUP_UNIT" ;;
esac
"#;

/// Measures.
pub fn run(setting: &Setting) -> Result<Table> {
    let span = match setting.minutes {
        Some(minutes) => Duration::from_secs(60 * minutes),
        None if setting.is_quick => QUICK,
        None => Duration::from_secs(60 * MINUTES),
    };
    let work = format!(
        "For {} s, six writers make, overwrite, rename and remove files in three pickups (`copy`, `release`, `exec`), and commits are \
         pushed to a repository that a fourth follows. Each second it is noted what the daemon holds. At the end, what is \
         live is compared with what was written, file by file.",
        span.as_secs()
    );
    let mut table = Table::new("soak", "Mixed load, for minutes", work);
    let ground = setting.directory("soak")?;
    prepare(ground.path())?;
    let config = HEAD.to_owned() + &CONFIG.replace("LIVE", &ground.path().join("live").display().to_string());
    let daemon = Daemon::spawn(setting, ground.path(), &config)?;
    wait_for_answer(&daemon)?;
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let mut workers = Vec::new();
    for (name, count, rest) in WRITTEN {
        for number in 0..count {
            let mut writer = Writer::new(&ground.path().join("in").join(name), name, number)?;
            let stop = stop.clone();
            workers.push(std::thread::spawn(move || writer.run(rest, &stop).map(|()| writer.done())));
        }
    }
    let (root, pushes) = (ground.path().to_path_buf(), stop.clone());
    workers.push(std::thread::spawn(move || push::run(&root, PUSH_REST, &pushes)));
    let mut sampler = Sampler::new(daemon.process().id(), &ground.path().join(".pickup"));
    let end = Instant::now() + span;
    while Instant::now() < end && workers.iter().all(|worker| !worker.is_finished()) {
        sampler.sample()?;
        hear(&daemon, &mut table)?;
    }
    stop.store(true, Ordering::Relaxed);
    let done = workers.into_iter().map(join).collect::<Result<Vec<_>>>()?;
    finish(&daemon, ground.path(), &done, &mut table)?;
    judge(sampler, &mut table);
    daemon.stop()?;
    Ok(table)
}

/// What one writer did: the pickup, what it left, and in how many steps.
pub struct Done {
    pickup: &'static str,
    files: Files,
    steps: usize,
}

fn prepare(ground: &Path) -> Result<()> {
    for directory in WRITTEN.map(|(name, ..)| ground.join("in").join(name)) {
        fs::create_dir_all(directory)?;
    }
    fs::create_dir_all(ground.join("live/exec"))?;
    fs::write(ground.join("take"), TAKE)?;
    fs::set_permissions(ground.join("take"), fs::Permissions::from_mode(0o755))?;
    push::prepare(ground)
}

/// Hears warnings for a second; each is a remark, up to a few.
fn hear(daemon: &Daemon, table: &mut Table) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(1);
    while let Some(said) = daemon.said(deadline)? {
        if table.remarks.len() < 5 {
            table.remark(format!("The daemon said: {} {}", said.message, serde_json::Value::Object(said.fields)));
        }
    }
    Ok(())
}

fn join(worker: JoinHandle<Result<Done>>) -> Result<Done> {
    worker.join().map_err(|_| anyhow!("a writer panicked"))?
}

/// Waits until all is worked off, and compares.
fn finish(daemon: &Daemon, ground: &Path, done: &[Done], table: &mut Table) -> Result<()> {
    let start = Instant::now();
    daemon.ask(&["sync"])?;
    table.add("pickup", "from the last change until all is live", Unit::Seconds, [start.elapsed().as_secs_f64()]);
    let mut wrong = 0;
    for pickup in WRITTEN.map(|(name, ..)| name).into_iter().chain([PUSHED]) {
        let mut wanted = Files::new();
        for done in done.iter().filter(|done| done.pickup == pickup) {
            wanted.extend(done.files.clone());
        }
        let live = ground.join("live").join(pickup);
        let found = writer::read(&if pickup == "release" { live.join("current") } else { live })?;
        let names: Vec<&String> = wanted.keys().chain(found.keys()).collect();
        let differing: BTreeMap<&String, ()> =
            names.into_iter().filter(|name| wanted.get(*name) != found.get(*name)).map(|name| (name, ())).collect();
        for name in differing.keys().take(3) {
            table.remark(format!("{pickup}: what is live of {name} is not what was written."));
        }
        wrong += differing.len();
        let steps: usize = done.iter().filter(|done| done.pickup == pickup).map(|done| done.steps).sum();
        table.remark(format!("{pickup}: {steps} changes were made; {} files were live at the end.", found.len()));
    }
    table.add("pickup", "files that are not as they were written", Unit::Count, [wrong as f64]);
    Ok(())
}

/// What was sampled, and whether it grows.
fn judge(sampler: Sampler, table: &mut Table) {
    for series in sampler.finish() {
        let trend = Trend::of_second_half(&series);
        table.remark(format!("{}: {trend}", series.name));
        table.add("pickup", &format!("{}, gained in the second half", series.name), series.unit, [trend.gained]);
        table.series.push(series);
    }
    table.remark(
        "The state directory grows by design: it keeps every content that the history refers to, for `keep_history` and up to `store_max`.",
    );
    table.remark(
        "Flat: the straight line through the second half gains no more than twice the scatter around it, or than a hundredth of its mean, \
         or than one.",
    );
}

impl Done {
    fn new(pickup: &'static str, files: Files, steps: usize) -> Self {
        Self { pickup, files, steps }
    }
}

/// Reads a git command's success.
fn succeed(command: &mut std::process::Command) -> Result<()> {
    let status = command.status().context("run git")?;
    if status.success() { Ok(()) } else { Err(anyhow!("{command:?}: {status}")) }
}
