//! Many files at once: who tells of all of them, and when the last one is known.

use std::collections::HashMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tempfile::TempDir;

use super::library::Library;
use super::subject::Subject;
use super::watcher::Watcher;
use super::{in_turn, not_measured};
use crate::figure::{Figure, Table, Unit};
use crate::report::amount;
use crate::setting::Setting;

/// All that can name the files that changed; entr cannot.
pub(super) const SUBJECTS: [Subject; 9] = [
    Subject::Child(Library::Raw),
    Subject::Child(Library::Pickup { is_eager: false }),
    Subject::Copying,
    Subject::Child(Library::Notify),
    Subject::Child(Library::Debouncer),
    Subject::Inotifywait,
    Subject::Watchman,
    Subject::Watchexec,
    Subject::Fswatch,
];

/// Files that wait to be copied.
pub(super) struct Tree {
    directory: TempDir,
    /// How many files.
    pub files: usize,
}

impl Tree {
    /// `files` files of 1 KiB, each with its own content; in directories of 100, or side by side.
    pub fn make(setting: &Setting, files: usize, has_directories: bool) -> Result<Self> {
        let directory = setting.directory("tree")?;
        for number in 0..files {
            let mut parent = directory.path().to_path_buf();
            if has_directories {
                parent.push(format!("directory-{}", number / 100));
                if number % 100 == 0 {
                    std::fs::create_dir(&parent)?;
                }
            }
            let name = format!("file-{number}");
            let content = format!("{name} ").repeat(1024);
            std::fs::write(parent.join(&name), &content.as_bytes()[..1024])?;
        }
        // What is still to be written back would disturb whoever comes first.
        rustix::fs::sync();
        Ok(Self { directory, files })
    }

    /// Starts `cp -r` of what is in it.
    pub fn copy_to(&self, target: &Path) -> Result<Child> {
        let mut copy = Command::new("cp");
        copy.arg("-r").arg(self.directory.path().join(".")).arg(target).stdin(Stdio::null());
        copy.spawn().context("run cp")
    }
}

pub fn run(setting: &Setting) -> Result<Table> {
    measure_all(setting, "burst", setting.size(10_000, 500), setting.rounds)
}

/// Ten times as many. They take their time, and there is nothing to be learnt from repeating them.
pub fn run_flood(setting: &Setting) -> Result<Table> {
    measure_all(setting, "flood", setting.size(100_000, 1_000), 1)
}

fn measure_all(setting: &Setting, bench: &str, files: usize, rounds: usize) -> Result<Table> {
    let work = format!(
        "`cp -r` of {files} files of 1 KiB in new directories of 100 into the watched directory. Time from the start of `cp` \
         until the last file was reported, which for pickup means captured and handed to its deployer: a closure, or a durable \
         copy elsewhere. A time is given where nothing was missed."
    );
    let mut table = Table::new(bench, format!("{files} files at once"), work);
    not_measured(setting, &SUBJECTS, &mut table, "time", Unit::Seconds);
    let tree = Tree::make(setting, files, true)?;
    let mut copies = Figure::new("cp alone", "time", Unit::Seconds, Vec::new());
    for round in 0..rounds {
        let alone = setting.directory("burst")?;
        let start = Instant::now();
        ensure!(tree.copy_to(alone.path())?.wait()?.success(), "cp failed");
        copies.samples.push(start.elapsed().as_secs_f64());
        drop(alone);
        for subject in in_turn(setting, &SUBJECTS, round) {
            measure(setting, subject, &tree, false, &mut table).with_context(|| subject.name())?;
        }
    }
    let alone = copies.median().unwrap_or_default();
    table.remark(format!("`cp` alone, while nobody watches, takes {}.", amount(Unit::Seconds, alone)));
    table.figures.push(Figure::new("entr", "time", Unit::Seconds, Vec::new()).note("cannot say which files are new"));
    table.remark(
        "pickup captures every file: opens, hashes and copies it, and commits what it deploys to a journal; the others tell a \
         path. `pickupd, copy` also writes each file to its target and syncs it to disk before it says so.",
    );
    table.remark(
        "A directory that is new is where files get lost: what is put into it before it is watched is told of by nobody. \
         pickup, watchman and the raw loop list it after they watch it.",
    );
    Ok(table)
}

/// One copy; the watcher stands still until it is over if `is_stopped`.
pub(super) fn measure(
    setting: &Setting,
    subject: Subject,
    tree: &Tree,
    is_stopped: bool,
    table: &mut Table,
) -> Result<()> {
    let place = setting.directory("burst")?;
    let root = place.path().join("in");
    std::fs::create_dir(&root)?;
    std::fs::write(root.join("first"), "first")?;
    let mut watcher = subject.spawn(setting, place.path())?;
    watcher.wait_quiet()?;
    let id = watcher.process().context("a process")?.id();
    let before = crate::process::usage_of(id)?;
    let mut start = Instant::now();
    if is_stopped {
        watcher.process().context("a process")?.signal(Signal::STOP)?;
    }
    let mut copy = tree.copy_to(&root)?;
    if is_stopped {
        ensure!(copy.wait()?.success(), "cp failed");
        start = Instant::now();
        watcher.process().context("a process")?.signal(Signal::CONT)?;
    }
    let heard = Heard::all(subject, &mut watcher, &mut copy, tree.files)?;
    let after = crate::process::usage_of(id);
    let name = subject.name();
    let missed = tree.files.saturating_sub(heard.counts.len());
    if let (0, Some(last)) = (missed, heard.last) {
        table.add(&name, "time", Unit::Seconds, [last.saturating_duration_since(start).as_secs_f64()]);
    }
    table.add(&name, "missed", Unit::Count, [missed as f64]);
    table.add(&name, "doubled", Unit::Count, [heard.counts.values().map(|count| count - 1).sum::<usize>() as f64]);
    match after {
        Ok(after) => {
            table.add(&name, "peak memory", Unit::Bytes, [after.peak as f64]);
            table.add(&name, "processor", Unit::CpuSeconds, [(after.cpu - before.cpu).as_secs_f64()]);
        }
        Err(_) => table.note(&name, Some("missed"), "it ended"),
    }
    Ok(())
}

struct Heard {
    counts: HashMap<String, usize>,
    /// When the last file was first heard of.
    last: Option<Instant>,
}

impl Heard {
    /// Hears until all is known and it is quiet, or until nothing more comes.
    fn all(subject: Subject, watcher: &mut Watcher, copy: &mut Child, files: usize) -> Result<Self> {
        let mut heard = Self { counts: HashMap::new(), last: None };
        let is_ours = matches!(subject, Subject::Copying | Subject::Child(Library::Pickup { .. }));
        let patience = Duration::from_secs(if is_ours { 60 } else { 5 });
        // What a watcher puts off until it is quiet counts, too.
        let silence = Duration::from_millis(1_500);
        // What is reported meanwhile is read, and looked at afterwards: it would work beside what is measured.
        copy.wait().context("wait for cp")?;
        let mut since = Instant::now();
        loop {
            // One that has ended says nothing any more.
            let reported = watcher.next(Instant::now() + Duration::from_millis(50)).unwrap_or_default();
            if let Some(reported) = reported {
                since = since.max(reported.at);
                for name in reported.names {
                    heard.hear(name, reported.at);
                }
                continue;
            }
            if since.elapsed() > if heard.counts.len() >= files { silence } else { patience } {
                return Ok(heard);
            }
        }
    }

    fn hear(&mut self, name: String, at: Instant) {
        // Directories are reported by some.
        if !name.rsplit('/').next().is_some_and(|name| name.starts_with("file-")) {
            return;
        }
        let count = self.counts.entry(name).or_default();
        if *count == 0 {
            self.last = Some(at);
        }
        *count += 1;
    }
}
