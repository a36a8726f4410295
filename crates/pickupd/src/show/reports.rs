//! `pickupd sync`: what it came to, entry by entry.

use pickup::SyncReport;

use super::{Cell, Show, Table, count};
use crate::paint::visible;

/// How many lines of a kind are shown for an entry.
const LINES_MAX: usize = 20;

pub fn render(show: &Show, reports: &[SyncReport]) -> String {
    if reports.is_empty() {
        return "no entry is configured\n".to_owned();
    }
    let paint = show.paint;
    let mut table = Table::default();
    for report in reports {
        let outcome = if report.is_success() {
            Cell::painted("done", |text| paint.good(text))
        } else {
            Cell::painted("failed", |text| paint.bad(text))
        };
        let deployed = match (report.deployed, report.is_success()) {
            (0, true) => "nothing to deploy".to_owned(),
            (0, false) => "nothing deployed".to_owned(),
            (deployed, _) => format!("{} deployed", count(deployed, "unit")),
        };
        let name = Cell::painted(&visible(&report.name), |name| paint.strong(name));
        table.row(vec![name, outcome, Cell::plain(deployed)]);
        let mut lines = |label: &str, lines: Vec<String>| {
            let left = lines.len().saturating_sub(LINES_MAX);
            for line in lines.iter().take(LINES_MAX) {
                table.note(format!("  {}  {}", paint.faint(&format!("{label:<7}")), visible(line)));
            }
            if left > 0 {
                table.note(format!("           and {left} more"));
            }
        };
        lines("trouble", report.trouble.iter().cloned().collect());
        lines("failed", report.failed.iter().map(|(unit, cause)| format!("{unit}: {cause}")).collect());
        let waiting = report.waiting.iter().map(|noted| format!("{}: {}", noted.path, noted.reason));
        lines("waiting", waiting.collect());
    }
    table.render()
}
