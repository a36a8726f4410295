//! `pickupd status`: a line for each entry, and below it what somebody should know.

use pickup::change::Doubt;
use pickup::{Failed, Noted, PickupStatus, RootStatus, State};

use super::{Cell, Show, Table, count, git};
use crate::paint::visible;

/// How many lines of a kind are shown where many entries are.
const LINES_MAX: usize = 5;

/// All entries; one that was asked for by name in full.
pub fn render(show: &Show, statuses: &[PickupStatus], in_full: bool) -> String {
    if statuses.is_empty() {
        return "no entry is configured\n".to_owned();
    }
    let mut table = Table::default();
    table.header(show.paint, &["NAME", "STATE", "GENERATION", "LIVE", "LAST SUCCESS"]);
    for status in statuses {
        table.row(vec![
            Cell::painted(&visible(&status.name), |name| show.paint.strong(name)),
            state(show, status.state),
            Cell::plain(status.generation.map_or("-".to_owned(), |generation| generation.to_string())),
            Cell::plain(count(status.units, "unit")),
            Cell::plain(status.last_success.map_or("-".to_owned(), |at| show.when(at))),
        ]);
        let lines = if in_full { usize::MAX } else { LINES_MAX };
        Details { show, table: &mut table, status, lines }.all(in_full);
    }
    table.render()
}

fn state(show: &Show, state: State) -> Cell {
    let paint = show.paint;
    Cell::painted(state.as_str(), |text| match state {
        State::Live => paint.good(text),
        State::Idle | State::Disabled | State::Stopped => paint.faint(text),
        State::Pending | State::Deploying | State::Held => paint.warn(text),
        State::Failed | State::Unavailable | State::Troubled | State::Broken => paint.bad(text),
    })
}

/// What stands below the line of an entry.
struct Details<'a> {
    show: &'a Show,
    table: &'a mut Table,
    status: &'a PickupStatus,
    lines: usize,
}

impl Details<'_> {
    fn all(mut self, in_full: bool) {
        let Self { show, status, .. } = self;
        let name = visible(&status.name);
        for root in &status.roots {
            self.root(root, in_full);
        }
        for (label, text) in status.git.iter().flat_map(|git| git::lines(show, git, in_full)) {
            self.line(label, &text);
        }
        let trouble = status.trouble.iter().map(|trouble| visible(trouble));
        self.list(if status.state == State::Disabled { "disabled" } else { "trouble" }, trouble);
        let held = status.held.map(|held| format!("at generation {held} until `pickupd release {name}`"));
        self.list("held", held.into_iter());
        let paused = status.removals_paused.as_ref().map(|paused| {
            let why = match paused.doubt {
                Doubt::Emptied => "the directory is empty all at once",
                Doubt::Many => "more than half is gone at once",
            };
            let removals = count(paused.units, "removal");
            format!("{removals}: {why}; to confirm: `pickupd sync {name} --confirm-removals`")
        });
        self.list("paused", paused.into_iter());
        self.list("waiting", status.pending.iter().map(noted));
        self.list("failed", status.failed.iter().map(|failed| self::failed(show, &name, failed)));
        self.list("left alone", status.refused.iter().map(noted));
        // One that still matters is told already.
        let is_past = |at: i64| status.last_success.is_none_or(|success| at > success);
        let error = status.last_error.as_ref().filter(|error| in_full || is_past(error.at));
        let error = error.filter(|_| in_full || status.failed.is_empty() && status.trouble.is_none());
        self.list(
            "last error",
            error.map(|error| format!("{}: {}", show.when(error.at), visible(&error.cause))).into_iter(),
        );
    }

    fn root(&mut self, root: &RootStatus, in_full: bool) {
        let directory = visible(&root.directory);
        if let Some(reason) = &root.unavailable {
            return self.line("unavailable", &format!("{directory}: {}", visible(reason)));
        }
        if let Some(reason) = &root.polling {
            self.line("polling", &format!("{directory}: {}", visible(reason)));
        } else if in_full && (root.directories > 0 || self.status.git.is_none()) {
            // A mirror is on no disk that could be watched.
            self.line("watching", &format!("{directory} ({})", directories(root.directories)));
        }
        if let Some(reason) = &root.exposed {
            self.line("exposed", &format!("{directory}: {}", visible(reason)));
        }
        if root.unwatched > 0 {
            let unwatched = directories(root.unwatched);
            self.line("polling", &format!("{unwatched} below {directory}, which cannot be watched"));
        }
    }

    fn list(&mut self, label: &str, lines: impl ExactSizeIterator<Item = String>) {
        let left = lines.len().saturating_sub(self.lines);
        for line in lines.take(self.lines) {
            self.line(label, &line);
        }
        if left > 0 {
            let name = visible(&self.status.name);
            self.line("", &format!("and {left} more: `pickupd status {name}`"));
        }
    }

    fn line(&mut self, label: &str, text: &str) {
        let label = self.show.paint.faint(&format!("{label:<11}"));
        self.table.note(format!("  {label}  {text}"));
    }
}

fn directories(number: usize) -> String {
    if number == 1 { "1 directory".to_owned() } else { format!("{number} directories") }
}

fn noted(noted: &Noted) -> String {
    format!("{}: {}", visible(&noted.path.to_string()), visible(&noted.reason))
}

fn failed(show: &Show, name: &str, failed: &Failed) -> String {
    let unit = visible(&failed.unit.to_string());
    let next = match failed.retry_at {
        Some(at) => format!("tried again {}", show.until(at)),
        None => format!("quarantined until it changes, or `pickupd retry {name} {unit}`"),
    };
    let times = if failed.attempts == 1 { "once".to_owned() } else { format!("{} times", failed.attempts) };
    format!("{unit}: {times}: {}; {next}", visible(&failed.cause))
}
