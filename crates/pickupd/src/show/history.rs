//! `pickupd history`: a line for each deployment, and below it why it failed.

use pickup::change::ChangeKind;
use pickup::{Deployment, DeploymentChange, Origin, Outcome};

use super::{Cell, Show, Table, git};
use crate::paint::visible;

/// How many changed units a line names.
const NAMED_MAX: usize = 3;
/// How many lines of a failed deployer's output are shown.
const OUTPUT_LINES_MAX: usize = 5;

pub fn render(show: &Show, deployments: &[Deployment]) -> String {
    if deployments.is_empty() {
        return "nothing has been deployed yet\n".to_owned();
    }
    let mut table = Table::default();
    table.header(show.paint, &["WHEN", "NAME", "GENERATION", "OUTCOME", "ORIGIN", "CHANGES"]);
    for deployment in deployments {
        table.row(vec![
            Cell::plain(show.at(deployment.started_at)),
            Cell::painted(&visible(&deployment.pickup), |name| show.paint.strong(name)),
            Cell::plain(deployment.generation.to_string()),
            outcome(show, &deployment.outcome),
            Cell::plain(origin(deployment.origin)),
            Cell::plain(changes(deployment)),
        ]);
        if let Some(revision) = &deployment.revision {
            table.note(format!("  {}", git::range(revision)));
        }
        explain(show, &mut table, &deployment.outcome);
    }
    table.render()
}

fn outcome(show: &Show, outcome: &Outcome) -> Cell {
    let paint = show.paint;
    match outcome {
        Outcome::Open => Cell::painted("open", |text| paint.warn(text)),
        Outcome::Applied => Cell::painted("applied", |text| paint.good(text)),
        Outcome::RolledBack { .. } => Cell::painted("rolled back", |text| paint.bad(text)),
        Outcome::Partial { .. } => Cell::painted("partial", |text| paint.bad(text)),
        Outcome::Stuck { .. } => Cell::painted("stuck", |text| paint.bad(text)),
    }
}

fn origin(origin: Origin) -> String {
    match origin {
        Origin::Change => "change".to_owned(),
        Origin::Start => "start".to_owned(),
        Origin::Sync => "sync".to_owned(),
        Origin::Rollback { to } => format!("rollback to {to}"),
        Origin::Retry => "retry".to_owned(),
    }
}

/// `+a.py ~b.py -c.py and 4 more`.
fn changes(deployment: &Deployment) -> String {
    let mut named: Vec<String> = deployment.changes.iter().take(NAMED_MAX).map(change).collect();
    let total = usize::try_from(deployment.changes_total).unwrap_or(usize::MAX);
    if total > named.len() {
        named.push(format!("and {} more", total - named.len()));
    }
    named.join(" ")
}

fn change(change: &DeploymentChange) -> String {
    let sign = match change.kind {
        ChangeKind::Added => '+',
        ChangeKind::Modified => '~',
        ChangeKind::Touched => '=',
        ChangeKind::Removed => '-',
    };
    format!("{sign}{}", visible(&change.path.to_string()))
}

fn explain(show: &Show, table: &mut Table, outcome: &Outcome) {
    let mut note = |text: &str| table.note(format!("  {}", show.paint.bad(&visible(text))));
    match outcome {
        Outcome::Open | Outcome::Applied => {}
        Outcome::RolledBack { cause, output } => {
            note(cause);
            say_output(show, table, output);
        }
        Outcome::Partial { applied, rolled_back, cause, output } => {
            note(&format!("{applied} applied, {rolled_back} rolled back: {cause}"));
            say_output(show, table, output);
        }
        Outcome::Stuck { cause, undo_errors } => {
            note(cause);
            undo_errors.iter().for_each(|error| note(&format!("taking it back: {error}")));
        }
    }
}

/// The last lines of what a deployer said.
fn say_output(show: &Show, table: &mut Table, output: &str) {
    let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
    for line in &lines[lines.len().saturating_sub(OUTPUT_LINES_MAX)..] {
        table.note(format!("    {}", show.paint.faint(&visible(line))));
    }
}
