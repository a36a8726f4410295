//! Starting on a large tree, twice, and watching it while nothing happens.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::library::Library;
use super::subject::Subject;
use super::watcher::Watcher;
use super::{in_turn, not_measured};
use crate::figure::{Table, Unit};
use crate::process::usage_of;
use crate::setting::Setting;

const SUBJECTS: [Subject; 10] = [
    Subject::Child(Library::Raw),
    Subject::Child(Library::Pickup { is_eager: false }),
    Subject::Copying,
    Subject::Child(Library::Notify),
    Subject::Child(Library::Debouncer),
    Subject::Inotifywait,
    Subject::Watchman,
    Subject::Watchexec,
    Subject::Entr,
    Subject::Fswatch,
];

const FIRST: &str = "first start";
const SECOND: &str = "second start";
const WALK: &str = "a walk that stats every file";

/// What is watched.
struct Ground<'a> {
    setting: &'a Setting,
    place: &'a Path,
    files: usize,
    /// How long nothing happens.
    idle: Duration,
}

pub fn run(setting: &Setting) -> Result<Table> {
    let directories = setting.size(5_000, 100);
    let files = directories * 20;
    let idle = Duration::from_secs(if setting.is_quick { 1 } else { 30 });
    let work = format!(
        "{files} files in {directories} directories, all in the page cache. First start: nothing is known. Second start: nothing \
         has changed. Time until it says that it watches, or, where it does not say so, until it first tells of a file made for \
         that. Then memory, and the processor time of {} idle seconds. pickup's second start ends when every file has been \
         compared with what was deployed before.",
        idle.as_secs()
    );
    let mut table = Table::new("start", format!("Starting on {files} files"), work);
    not_measured(setting, &SUBJECTS, &mut table, FIRST, Unit::Seconds);
    not_measured(setting, &SUBJECTS, &mut table, SECOND, Unit::Seconds);
    let place = setting.directory("start")?;
    let root = place.path().join("in");
    plant(&root, directories)?;
    let ground = Ground { setting, place: place.path(), files, idle };
    for round in 0..setting.rounds {
        floors(&root, files, &mut table)?;
        for subject in in_turn(setting, &SUBJECTS, round) {
            ground.measure(subject, round == 0, &mut table).with_context(|| subject.name())?;
            ground.clear(&root)?;
        }
    }
    table.note(WALK, None, "one thread; it knows nothing of what was there before");
    table.remark(
        "The peers do not know what changed while they were not running, or that anything was there: only pickup compares, and \
         only pickup has the files deployed at the end of its first start.",
    );
    table.remark(
        "`pickup, closure` is a program that is killed: its second start checks the journal first. `pickupd` is \
         stopped in order, and its second start does that later.",
    );
    table.remark("What the peers do at their second start is what they did at the first.");
    Ok(table)
}

fn plant(root: &Path, directories: usize) -> Result<()> {
    for directory in 0..directories {
        let parent = root.join(format!("part-{}", directory / 100)).join(format!("directory-{directory}"));
        std::fs::create_dir_all(&parent)?;
        for file in 0..20 {
            let name = format!("file-{directory}-{file}");
            std::fs::write(parent.join(&name), name.repeat(8))?;
        }
    }
    rustix::fs::sync();
    Ok(())
}

/// What the least would be that finds changes: twice, and the second counts, when all is in the cache.
fn floors(root: &Path, files: usize, table: &mut Table) -> Result<()> {
    for is_counted in [false, true] {
        let start = Instant::now();
        let found = walk(root)?;
        let walked = start.elapsed();
        ensure!(found == files, "{found} files instead of {files}");
        let start = Instant::now();
        let mut find = Command::new("find");
        find.arg(root).args(["-type", "f", "-newer"]).arg(root).stdout(Stdio::null());
        let is_done = find.status().is_ok_and(|status| status.success());
        if is_counted {
            table.add(WALK, SECOND, Unit::Seconds, [walked.as_secs_f64()]);
            if is_done {
                table.add("find -newer", SECOND, Unit::Seconds, [start.elapsed().as_secs_f64()]);
            }
        }
    }
    Ok(())
}

fn walk(root: &Path) -> Result<usize> {
    let mut open = vec![root.to_path_buf()];
    let mut files = 0;
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.metadata()?.is_dir() {
                open.push(entry.path());
            } else {
                files += 1;
            }
        }
    }
    Ok(files)
}

impl Ground<'_> {
    fn measure(&self, subject: Subject, is_first_round: bool, table: &mut Table) -> Result<()> {
        let name = subject.name();
        let Some(mut watcher) = self.start(subject, FIRST, table)? else { return Ok(()) };
        if matches!(subject, Subject::Copying | Subject::Child(Library::Pickup { .. })) {
            let start = Instant::now();
            let last = self.all_deployed(&mut watcher)?;
            table.add(&name, "first start, then deployed", Unit::Seconds, [(last - start).as_secs_f64()]);
        }
        watcher.stop()?;
        let Some(mut watcher) = self.start(subject, SECOND, table)? else { return Ok(()) };
        // What it still does in the background is over then, or shows in the processor time.
        let settled = Instant::now() + Duration::from_secs(if self.setting.is_quick { 1 } else { 3 });
        while watcher.next(settled).unwrap_or_default().is_some() {}
        let id = watcher.id()?;
        let Ok(before) = usage_of(id) else {
            table.note(&name, Some(SECOND), "it ended by itself");
            return Ok(());
        };
        table.add(&name, "second start, processor", Unit::CpuSeconds, [before.cpu.as_secs_f64()]);
        table.add(&name, "memory", Unit::Bytes, [before.resident as f64]);
        if is_first_round {
            std::thread::sleep(self.idle);
            let idle = usage_of(id)?.cpu.saturating_sub(before.cpu);
            table.add(&name, "idle, processor", Unit::CpuSeconds, [idle.as_secs_f64()]);
        }
        watcher.stop()
    }

    /// Starts it; `None` if it does not stay.
    fn start(&self, subject: Subject, measure: &str, table: &mut Table) -> Result<Option<Watcher>> {
        let start = Instant::now();
        let mut watcher = subject.spawn(self.setting, self.place)?;
        match watcher.wait_ready(Duration::from_millis(250)) {
            Ok(ready) => {
                table.add(&subject.name(), measure, Unit::Seconds, [(ready - start).as_secs_f64()]);
                Ok(Some(watcher))
            }
            Err(error) => {
                table.note(&subject.name(), Some(measure), &format!("{error:#}"));
                Ok(None)
            }
        }
    }

    fn all_deployed(&self, watcher: &mut Watcher) -> Result<Instant> {
        let (mut left, mut last) = (self.files, Instant::now());
        while left > 0 {
            let reported =
                watcher.next(Instant::now() + Duration::from_secs(120))?.context("the rest is not deployed")?;
            left = left.saturating_sub(reported.names.len());
            last = reported.at;
        }
        Ok(last)
    }

    /// Nothing is left of one for the next.
    fn clear(&self, root: &Path) -> Result<()> {
        for entry in std::fs::read_dir(self.place)? {
            let path = entry?.path();
            if path == *root {
                continue;
            }
            if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
        }
        for entry in std::fs::read_dir(root)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("probe") {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}
