//! `--dry-run`: what would be done, entry by entry, in the order it would be.

use std::collections::BTreeSet;
use std::process::ExitCode;

use pickup::{Interrupted, PlanReport, PlannedChange, PlannedChangeSet, PlannedCommit, PlannedGroup};

use super::git::{described, range, short};
use super::{Cell, Show, Table, count};
use crate::exit::{self, Failure};
use crate::paint::visible;

/// How many lines of a kind are shown for an entry.
const LINES_MAX: usize = 100;

/// Prints the plans; gives the exit code.
pub fn print(show: &Show, reports: &[PlanReport], is_json: bool) -> Result<ExitCode, Failure> {
    if is_json {
        exit::print_json(&reports)?;
    } else {
        exit::print(&render(show, reports))?;
    }
    Ok(exit::code(reports.iter().all(PlanReport::is_success)))
}

fn render(show: &Show, reports: &[PlanReport]) -> String {
    if reports.is_empty() {
        return "no entry is configured\n".to_owned();
    }
    let mut table = Table::default();
    for report in reports {
        entry(show, report, &mut table);
    }
    // Most of it is the same for every entry.
    let unknown: BTreeSet<String> = reports.iter().flat_map(|report| report.unknown.iter().cloned()).collect();
    for sentence in unknown {
        table.note(format!("{} {}", show.paint.warn("not known:"), visible(&sentence)));
    }
    table.note(show.paint.faint("a dry run: nothing was done"));
    table.render()
}

fn entry(show: &Show, report: &PlanReport, table: &mut Table) {
    let paint = show.paint;
    let outcome = match (report.is_success(), report.is_idle()) {
        (true, true) => paint.good("nothing to do"),
        (true, false) if report.change_sets.is_empty() => paint.warn("nothing to deploy now"),
        (true, false) => paint.good("ready"),
        (false, _) => paint.bad("not all can be deployed"),
    };
    table.note(format!("{}  {outcome}", paint.strong(&visible(&report.name))));
    for Interrupted { generation, taken_back, finished } in &report.interrupted {
        let fate = match (taken_back, finished) {
            (0, _) => "would be finished first",
            (_, 0) => "would be taken back first",
            _ => "would be finished in part and taken back in part first",
        };
        table.note(format!("  {}  generation {generation} was cut off, and {fate}", paint.warn("interrupted")));
    }
    for line in report.git.iter().flat_map(commit) {
        table.note(format!("  {}  {line}", paint.faint("git")));
    }
    let mut left = LINES_MAX;
    for change_set in &report.change_sets {
        self::change_set(show, change_set, table, &mut left);
    }
    let units = report.change_sets.iter().flat_map(|set| &set.groups).map(|group| group.changes.len()).sum::<usize>();
    if units > LINES_MAX {
        table.note(format!("    and {} more", units - LINES_MAX));
    }
    let waiting = report.waiting.iter().map(|wait| format!("{} ({}): {}", wait.path, wait.wait.as_str(), wait.reason));
    lines(show, "waiting", waiting.collect(), table);
    lines(show, "left alone", report.refused.iter().map(|at| format!("{}: {}", at.path, at.reason)).collect(), table);
    lines(show, "trouble", report.trouble.iter().cloned().collect(), table);
}

fn lines(show: &Show, label: &str, lines: Vec<String>, table: &mut Table) {
    for line in lines.iter().take(LINES_MAX) {
        table.note(format!("  {}  {}", show.paint.faint(label), visible(line)));
    }
    if lines.len() > LINES_MAX {
        table.note(format!("  {}  and {} more", show.paint.faint(label), lines.len() - LINES_MAX));
    }
}

fn commit(git: &PlannedCommit) -> Vec<String> {
    let mut lines = Vec::new();
    let is_live = git.commit.as_ref().map(|at| &at.commit) == git.live.as_ref().map(|at| &at.commit);
    if let Some(revision) = &git.commit {
        let fetched = if git.needs_fetch && git.remote_at.is_none() { ", to be fetched" } else { "" };
        let live = if is_live { ", live" } else { "" };
        lines.push(format!("{}{fetched}{live}", described(revision)));
    }
    if let Some(remote) = &git.remote_at {
        let how = if git.needs_fetch { "fetched and checked out" } else { "checked out" };
        lines.push(format!("the remote is at {}, which would be {how} first", short(remote)));
    }
    lines
}

fn change_set(show: &Show, change_set: &PlannedChangeSet, table: &mut Table, left: &mut usize) {
    let paint = show.paint;
    let commit = change_set.revision.as_ref().map_or(String::new(), |revision| format!("  {}", range(revision)));
    table.note(format!("  generation {}{commit}", change_set.generation));
    for group in &change_set.groups {
        for change in group.changes.iter().take(*left) {
            row(show, group, change, table);
        }
        *left = left.saturating_sub(group.changes.len());
        if let Some(objection) = &group.objection {
            table.note(format!("    {}  cannot {}", paint.bad("objection"), visible(&objection.cause)));
            for line in objection.output.lines() {
                table.note(format!("      {}", visible(line)));
            }
        }
    }
    let refusals = change_set.refusals.iter();
    let refusals = refusals.map(|refusal| format!("{}: {}: {}", refusal.unit, refusal.deployer, refusal.reason));
    lines(show, "  not taken", refusals.collect(), table);
}

fn row(show: &Show, group: &PlannedGroup, change: &PlannedChange, table: &mut Table) {
    let paint = show.paint;
    let mut deployers: Vec<&str> = Vec::new();
    for step in group.steps.iter().filter(|step| step.unit == change.unit || step.unit.is_root()) {
        if !deployers.contains(&step.deployer.as_str()) {
            deployers.push(&step.deployer);
        }
    }
    let is_removed = change.digest.is_none();
    let size = if is_removed { String::new() } else { bytes(change.size) };
    let files = if change.files > 1 { count(change.files, "file") } else { String::new() };
    let word = if is_removed { "from" } else { "to" };
    table.row(vec![
        Cell::plain("  "),
        Cell::painted(change.change.as_str(), |text| if is_removed { paint.warn(text) } else { text.to_owned() }),
        Cell::plain(visible(&change.unit.to_string())),
        Cell::plain(size),
        Cell::plain(files),
        Cell::plain(visible(&format!("{word} {}", deployers.join(", ")))),
    ]);
}

/// `17 B`, `4.2 KiB`, `1.0 GiB`.
#[expect(clippy::cast_precision_loss, reason = "one digit after the point is shown")]
fn bytes(size: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = size as f64;
    let mut unit = "B";
    for larger in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{size} B") } else { format!("{value:.1} {unit}") }
}
