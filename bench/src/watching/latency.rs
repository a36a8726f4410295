//! From the end of a change to the moment a watcher tells of it.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::library::Library;
use super::subject::{CHANGED, Subject};
use super::watcher::Watcher;
use super::{in_turn, not_measured};
use crate::figure::{Table, Unit};
use crate::setting::Setting;

const SUBJECTS: [Subject; 15] = [
    Subject::InProcess(Library::Raw),
    Subject::InProcess(Library::Pickup { is_eager: true }),
    Subject::InProcess(Library::Pickup { is_eager: false }),
    Subject::InProcess(Library::Notify),
    Subject::InProcess(Library::Debouncer),
    Subject::Child(Library::Raw),
    Subject::Inotifywait,
    Subject::Watchman,
    Subject::Watchexec,
    Subject::Fswatch,
    Subject::Executing { is_eager: true },
    Subject::Executing { is_eager: false },
    Subject::WatchexecExecuting,
    Subject::Entr,
    Subject::Copying,
];

/// The three ways in which a file changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    New,
    Overwritten,
    Renamed,
}

const KINDS: [Kind; 3] = [Kind::New, Kind::Overwritten, Kind::Renamed];

impl Kind {
    fn measure(self) -> &'static str {
        match self {
            Self::New => "new file",
            Self::Overwritten => "overwritten",
            Self::Renamed => "renamed into place",
        }
    }
}

/// How long a report may take until the change counts as missed.
const MISSED_AFTER: Duration = Duration::from_secs(3);

pub fn run(setting: &Setting) -> Result<Table> {
    let changes = setting.size(200, 10);
    let budget = Duration::from_secs(if setting.is_quick { 1 } else { 15 });
    let work = format!(
        "{changes} changes of 1 KiB of each kind, one after the other: after a report, the next change comes 5 to 20 ms \
         later. Measured from the call of `close()` or `rename()` until the closure is entered (libraries, in this \
         process), the line is read (programs that print), or the program that was started has written to a pipe (exec: \
         `sh -c 'echo … > pipe'`). What takes more than {} s for a kind is stopped there.",
        budget.as_secs()
    );
    let mut table = Table::new("latency", "From the change to the deployer", work);
    not_measured(setting, &SUBJECTS, &mut table, KINDS[0].measure(), Unit::Seconds);
    for round in 0..setting.rounds {
        for subject in in_turn(setting, &SUBJECTS, round) {
            measure(setting, subject, (changes, budget), &mut table).with_context(|| subject.name())?;
        }
    }
    table.remark(
        "pickup does more before it calls: it makes sure that nobody has the file open for writing, copies and hashes it, \
         and commits the transaction to a journal on disk; the others tell a path.",
    );
    table.note("pickupd, copy", None, "until the copy is live, synced to disk, committed and logged");
    table.remark("entr looks at nothing for 50 ms after it ran its command: what changes then is lost.");
    table.remark("raw inotify is the floor: a loop that reads the kernel's queue and does nothing else.");
    table.remark(
        "watchexec, watchman, fswatch and the debouncer wait a fixed time (50 ms, 20 ms, 1 s, 100 ms) for more to come; entr ends \
         when a file is new, and the loop of its manual, with its `sleep 0.1`, starts it again.",
    );
    Ok(table)
}

fn measure(setting: &Setting, subject: Subject, (changes, budget): (usize, Duration), table: &mut Table) -> Result<()> {
    let place = setting.directory("latency")?;
    let root = place.path().join("in");
    std::fs::create_dir(&root)?;
    std::fs::write(root.join("first"), "first")?;
    let mut watcher = subject.spawn(setting, place.path())?;
    watcher.wait_quiet()?;
    let mut counted = Counted::default();
    let mut pauses = Pauses(0x9e37_79b9);
    for kind in KINDS {
        let until = Instant::now() + budget;
        let mut samples = Vec::new();
        for number in 0..changes {
            if Instant::now() > until {
                break;
            }
            pauses.wait();
            let name = format!("file-{number}");
            counted.drain(&mut watcher)?;
            let done = change(kind, place.path(), &root.join(&name), number)?;
            samples.extend(counted.wait(&mut watcher, &name, done)?);
        }
        table.add(&subject.name(), kind.measure(), Unit::Seconds, samples);
    }
    table.add(&subject.name(), "missed", Unit::Count, [counted.missed as f64]);
    table.add(&subject.name(), "doubled", Unit::Count, [counted.doubled as f64]);
    Ok(())
}

/// Makes the change; gives when its last step began. Taken after it, a time would say how fast this process goes on, since
/// the other processor may be told before this one is back from the kernel.
fn change(kind: Kind, place: &Path, path: &Path, number: usize) -> Result<Instant> {
    // Never the same twice: what did not change need not be deployed.
    let content = format!("{kind:?} {number} ").repeat(1024).into_bytes();
    let content = &content[..1024];
    if kind == Kind::Renamed {
        let aside = place.join("aside");
        std::fs::write(&aside, content)?;
        let start = Instant::now();
        std::fs::rename(&aside, path)?;
        return Ok(start);
    }
    let mut file = File::create(path)?;
    file.write_all(content)?;
    let start = Instant::now();
    drop(file);
    Ok(start)
}

#[derive(Default)]
struct Counted {
    missed: usize,
    doubled: usize,
}

impl Counted {
    /// What comes after the report of a change came twice.
    fn drain(&mut self, watcher: &mut Watcher) -> Result<()> {
        while let Some(reported) = watcher.next(Instant::now())? {
            self.doubled += reported.names.len();
        }
        Ok(())
    }

    fn wait(&mut self, watcher: &mut Watcher, name: &str, done: Instant) -> Result<Option<f64>> {
        while let Some(reported) = watcher.next(done + MISSED_AFTER)? {
            let hits = reported.names.iter().filter(|reported| *reported == name || *reported == CHANGED).count();
            // More than once, or of an earlier change.
            self.doubled += reported.names.len() - hits.min(1);
            if hits > 0 {
                return Ok(Some(reported.at.saturating_duration_since(done).as_secs_f64()));
            }
        }
        self.missed += 1;
        Ok(None)
    }
}

/// Pauses of 5 to 20 ms, the same ones for everybody.
struct Pauses(u32);

impl Pauses {
    fn wait(&mut self) {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let micros = 5_000 + u64::from(self.0 >> 8) % 15_000;
        std::thread::sleep(Duration::from_micros(micros));
    }
}
