//! `pickupd events`: a line for each event.

use pickup::change::{ChangeKind, Doubt};
use pickup::deploy::Happening;
use pickup::{Event, EventKind, UnitPath};

use super::{Show, count, git, span};
use crate::paint::visible;

/// How many units a line names.
const NAMED_MAX: usize = 5;

pub fn render(show: &Show, event: &Event) -> String {
    let time = show.paint.faint(&show.clock(event.at));
    let pickup = if event.pickup.is_empty() { "pickupd" } else { &event.pickup };
    format!("{time}  {}  {}\n", show.paint.strong(&visible(pickup)), visible(&sentence(&event.kind)))
}

/// What the reader missed.
pub fn missed(show: &Show, events: u64) -> String {
    format!("{}\n", show.paint.warn(&format!("{events} events came too fast and are not shown; see `pickupd history`")))
}

fn sentence(kind: &EventKind) -> String {
    match kind {
        EventKind::Watching { files, polling, .. } => {
            let polling = polling.as_ref().map_or(String::new(), |why| format!(", polling: {why}"));
            format!("watching {}{polling}", count(*files, "file"))
        }
        EventKind::Unavailable { directory, reason } => format!("{directory} is not to be had: {reason}"),
        EventKind::Deployed { unit, change, generation, took, .. } => {
            let word = match change {
                ChangeKind::Added => "deployed new",
                ChangeKind::Modified => "deployed",
                ChangeKind::Touched => "deployed again",
                ChangeKind::Removed => "removed",
            };
            format!("{word} {unit}, generation {generation}, after {}", span(i64::try_from(*took).unwrap_or(i64::MAX)))
        }
        EventKind::RolledBack { units, cause, retry_in, .. } => {
            let next = match retry_in {
                Some(milliseconds) => {
                    format!("tried again in {}", span(i64::try_from(*milliseconds).unwrap_or(i64::MAX)))
                }
                None => "quarantined".to_owned(),
            };
            format!("failed {}: {cause}; {next}", named(units))
        }
        EventKind::Stuck { units, cause, undo_errors, retry_in, .. } => {
            let next = retry_in.map_or(String::new(), |_| "; it is tried again".to_owned());
            format!("stuck with {}: {cause}; taking it back: {}{next}", named(units), undo_errors.join("; "))
        }
        EventKind::Refused { unit, deployer, reason } => format!("{deployer} refused {unit}: {reason}"),
        EventKind::RemovalsPaused { units, doubt } => {
            let why = match doubt {
                Doubt::Emptied => "the directory is empty all at once",
                Doubt::Many => "more than half is gone at once",
            };
            format!("{} held back: {why}; `pickupd sync --confirm-removals` carries them out", count(*units, "removal"))
        }
        EventKind::Rescanning { reason } => format!("comparing everything again: {reason}"),
        EventKind::Drifted { unit, deployer, found } => format!("{unit} is not as {deployer} left it: {found}"),
        EventKind::Instance { deployer, generation, happening } => {
            format!("{deployer}: generation {generation}: {}", instance(happening))
        }
        EventKind::Broken { deployer, cause, .. } => format!("{deployer} gave up: {cause}"),
        EventKind::Troubled { cause } => format!("in trouble: {cause}"),
        EventKind::Healed => "the trouble is over".to_owned(),
        EventKind::Held { generation } => format!("held at generation {generation}"),
        EventKind::Released => "released".to_owned(),
        EventKind::CommitSeen { revision } => format!("the repository has {}", git::range(revision)),
        EventKind::CheckFailed { cause, retry_in } => {
            let next = match retry_in {
                Some(milliseconds) => {
                    format!("asked again in {}", span(i64::try_from(*milliseconds).unwrap_or(i64::MAX)))
                }
                None => "not asked again by itself".to_owned(),
            };
            format!("the check of the repository failed: {cause}; {next}")
        }
        EventKind::CheckHealed => "the repository can be asked again".to_owned(),
        EventKind::Reloaded { changed, errors: 0 } => format!("configuration read again; changed: {}", list(changed)),
        EventKind::Reloaded { changed, errors } => {
            format!("configuration read again, with {}; changed: {}", count(*errors, "error"), list(changed))
        }
        EventKind::ReloadFailed { cause } => format!("the configuration cannot be read again: {cause}"),
        // The kinds may grow before this program does.
        other => format!("{other:?}"),
    }
}

fn instance(happening: &Happening) -> String {
    match happening {
        Happening::Unclaimed { pid } => format!("process {pid} belongs to no entry any more and is stopped"),
        Happening::Started { pid } => format!("process {pid} started"),
        Happening::Activated { pid, .. } => format!("process {pid} serves"),
        Happening::Health { pid, memory, load, processes } => {
            let mebibytes = memory >> 20;
            let others = processes.saturating_sub(1);
            let others = if others == 0 { String::new() } else { format!(", and {others} more") };
            format!("process {pid}{others}: {mebibytes} MiB, {load:.2} processors busy")
        }
        Happening::Stopping { pid } => format!("process {pid} is asked to finish"),
        Happening::Stopped { pid, how, was_asked: true } => format!("process {pid} stopped: {how}"),
        Happening::Stopped { pid, how, was_asked: false } => format!("process {pid} ended by itself: {how}"),
        _ => "something happened".to_owned(),
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn named(units: &[UnitPath]) -> String {
    let mut names: Vec<String> = units.iter().take(NAMED_MAX).map(UnitPath::to_string).collect();
    if units.len() > NAMED_MAX {
        names.push(format!("{} more", units.len() - NAMED_MAX));
    }
    names.join(", ")
}
