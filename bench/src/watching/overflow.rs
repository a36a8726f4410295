//! More changes than the kernel keeps: what is known in the end.

use anyhow::{Context, Result};

use super::burst::{SUBJECTS, Tree, measure};
use super::{in_turn, not_measured};
use crate::figure::{Figure, Table, Unit};
use crate::setting::Setting;

pub fn run(setting: &Setting) -> Result<Table> {
    let files = setting.size(30_000, 20_000);
    let queue = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap_or_default();
    let work = format!(
        "The watcher is stopped (SIGSTOP), {files} files of 1 KiB are copied into the directory that it watches, and it goes on. \
         The kernel keeps {} events. Time from SIGCONT until the last file was reported, where nothing was missed.",
        queue.trim()
    );
    let mut table = Table::new("overflow", "More changes than the kernel keeps", work);
    not_measured(setting, &SUBJECTS, &mut table, "time", Unit::Seconds);
    let tree = Tree::make(setting, files, false)?;
    for round in 0..setting.rounds {
        for subject in in_turn(setting, &SUBJECTS, round) {
            measure(setting, subject, &tree, true, &mut table).with_context(|| subject.name())?;
        }
    }
    table.figures.push(Figure::new("entr", "time", Unit::Seconds, Vec::new()).note("cannot say which files are new"));
    table.remark(
        "The kernel says only that something was lost. pickup, watchman and the raw loop then list the directory and compare; the \
         others leave that to their user, or say nothing.",
    );
    table.remark(
        "pickup captures and deploys the 30,000 files in that time; the raw loop and watchman only list their names.",
    );
    Ok(table)
}
