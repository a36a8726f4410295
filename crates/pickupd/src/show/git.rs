//! Commits, and how an entry stands towards the repository that it follows.

use pickup::{GitStatus, Revision};

use super::{Show, span};
use crate::paint::visible;

/// How many digits of a commit's id are shown, as git does.
const SHORT: usize = 7;

/// The first digits of a commit's id.
pub fn short(commit: &str) -> String {
    visible(&commit.chars().take(SHORT).collect::<String>())
}

/// `1a2b3c4 "Mend the footer" by Ann`.
pub fn described(revision: &Revision) -> String {
    let (subject, author) = (visible(&revision.subject), visible(&revision.author));
    format!("{} \"{subject}\" by {author}", short(&revision.commit))
}

/// `0f1e2d3..1a2b3c4 main "Mend the footer" by Ann`: from the commit before to this one.
pub fn range(revision: &Revision) -> String {
    let from = revision.previous.as_ref().map_or(String::new(), |previous| format!("{}..", short(previous)));
    let branch = revision.branch.as_ref().map_or(String::new(), |branch| format!(" {}", visible(branch)));
    let (subject, author) = (visible(&revision.subject), visible(&revision.author));
    format!("{from}{}{branch} \"{subject}\" by {author}", short(&revision.commit))
}

/// Label and text of each line about the repository.
pub fn lines(show: &Show, git: &GitStatus, in_full: bool) -> Vec<(&'static str, String)> {
    let mut lines = vec![("git", summary(show, git))];
    if let (Some(remote), true) = (&git.remote, in_full) {
        let when = if git.auto_checkout { "on a timer" } else { "at start and on `pickupd sync`" };
        lines.push(("remote", format!("{}, asked {when}", visible(remote))));
    }
    let live = git.live.as_ref().map(|live| live.commit.as_str());
    if let Some(seen) = git.seen.as_ref().filter(|seen| Some(seen.commit.as_str()) != live) {
        lines.push(("not live", described(seen)));
    }
    if let Some(progress) = &git.checking {
        lines.push(("checking", visible(progress)));
    }
    if let Some(waiting) = &git.waiting {
        lines.push(("waiting", show.paint.warn(&visible(waiting))));
    }
    if let Some(problem) = &git.problem {
        let times = if problem.attempts == 1 { "once".to_owned() } else { format!("{} times", problem.attempts) };
        let text = format!("{times}, last {}: {}", ago(show, problem.at), visible(&problem.cause));
        lines.push(("problem", show.paint.bad(&text)));
    }
    lines
}

/// `main at 1a2b3c4 "Mend the footer" by Ann, 3m ago; remote reached 12s ago, next check in 18s`.
fn summary(show: &Show, git: &GitStatus) -> String {
    let name = git.follows.strip_prefix("branch ").unwrap_or(&git.follows);
    let is_commit =
        name.starts_with("commit ") || name.len() == 40 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let follows = if is_commit { "pinned".to_owned() } else { visible(name) };
    let live = match &git.live {
        Some(live) => format!(" at {}, {}", described(live), ago(show, live.committed_at)),
        None => ", nothing of it is live yet".to_owned(),
    };
    let reached = git.last_reached.map(|at| format!("remote reached {}", ago(show, at)));
    let reached = reached.or_else(|| git.remote.is_some().then(|| "remote not reached yet".to_owned()));
    let moved = git.last_moved.map(|at| format!("moved {}", ago(show, at)));
    let next = git.next_check.filter(|_| git.checking.is_none());
    let next = next.map(|at| format!("next check {}", show.until(at)));
    let remote: Vec<_> = [reached, moved, next].into_iter().flatten().collect();
    let remote = if remote.is_empty() { String::new() } else { format!("; {}", remote.join(", ")) };
    format!("{follows}{live}{remote}")
}

fn ago(show: &Show, milliseconds: i64) -> String {
    format!("{} ago", span(show.now.as_millisecond().saturating_sub(milliseconds)))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use jiff::Timestamp;
    use jiff::tz::TimeZone;
    use pickup::{Deployment, GitProblem, Origin, Outcome, PickupStatus};

    use super::*;
    use crate::cli::Color;
    use crate::paint::Paint;

    const NOW: i64 = 1_700_000_000_000;

    fn show() -> Show {
        let now = Timestamp::from_millisecond(NOW).unwrap();
        Show { paint: Paint::on_stdout(Color::Never), now, zone: TimeZone::UTC }
    }

    fn revision(digit: char, previous: Option<char>) -> Revision {
        Revision {
            commit: digit.to_string().repeat(40),
            branch: Some("main".into()),
            author: "Ann".into(),
            subject: "Mend the footer".into(),
            committed_at: NOW - 180_000,
            previous: previous.map(|digit| digit.to_string().repeat(40)),
        }
    }

    fn status() -> GitStatus {
        GitStatus {
            remote: Some("https://example.org/you/site.git".into()),
            follows: "branch main".into(),
            auto_checkout: true,
            seen: Some(revision('a', None)),
            live: Some(revision('a', None)),
            last_reached: Some(NOW - 12_000),
            last_moved: None,
            next_check: Some(NOW + 18_000),
            checking: None,
            problem: None,
            waiting: None,
        }
    }

    /// What `pickupd status` shows of an entry.
    fn shown(git: GitStatus, in_full: bool) -> String {
        let json = serde_json::json!({"name": "site", "state": "live", "generation": 2, "units": 3, "files": 3,
            "roots": [], "pending": [], "failed": [], "refused": [], "git": git});
        let status: PickupStatus = serde_json::from_value(json).unwrap();
        crate::show::status::render(&show(), &[status], in_full)
    }

    #[test]
    fn the_status_says_what_is_followed_and_how_it_stands() {
        assert_snapshot!(shown(status(), false), @r#"
        NAME  STATE  GENERATION  LIVE     LAST SUCCESS
        site  live   2           3 units  -
          git          main at aaaaaaa "Mend the footer" by Ann, 3m ago; remote reached 12s ago, next check in 18s
        "#);
        let checking = Some("received 12 of 40 objects".into());
        let seen = Some(revision('b', None));
        let moved = GitStatus { seen, checking, last_moved: Some(NOW - 900), ..status() };
        assert_snapshot!(shown(moved, true), @r#"
        NAME  STATE  GENERATION  LIVE     LAST SUCCESS
        site  live   2           3 units  -
          git          main at aaaaaaa "Mend the footer" by Ann, 3m ago; remote reached 12s ago, moved 900ms ago
          remote       https://example.org/you/site.git, asked on a timer
          not live     bbbbbbb "Mend the footer" by Ann
          checking     received 12 of 40 objects
        "#);
    }

    #[test]
    fn what_is_wrong_is_told_below() {
        let problem = GitProblem { at: NOW - 5_000, cause: "the server does not answer".into(), attempts: 3 };
        let waiting = Some("git pull is at work: .git/index.lock is there".into());
        let git = GitStatus { problem: Some(problem), waiting, last_reached: None, live: None, seen: None, ..status() };
        assert_snapshot!(shown(git, false), @r"
        NAME  STATE  GENERATION  LIVE     LAST SUCCESS
        site  live   2           3 units  -
          git          main, nothing of it is live yet; remote not reached yet, next check in 18s
          waiting      git pull is at work: .git/index.lock is there
          problem      3 times, last 5s ago: the server does not answer
        ");
    }

    #[test]
    fn a_pin_a_tag_and_a_clone_without_remote_are_named() {
        let follows = |text: &str| summary(&show(), &GitStatus { follows: text.into(), next_check: None, ..status() });
        assert_snapshot!(follows(&format!("commit {}", "a".repeat(40))), @r#"pinned at aaaaaaa "Mend the footer" by Ann, 3m ago; remote reached 12s ago"#);
        assert_eq!(follows(&"a".repeat(40)), follows("commit x"));
        assert_eq!(follows("main"), follows("branch main"));
        assert_snapshot!(follows("tag v1"), @r#"tag v1 at aaaaaaa "Mend the footer" by Ann, 3m ago; remote reached 12s ago"#);
        let clone = GitStatus { remote: None, last_reached: None, next_check: None, ..status() };
        assert_snapshot!(summary(&show(), &clone), @r#"main at aaaaaaa "Mend the footer" by Ann, 3m ago"#);
    }

    #[test]
    fn the_history_names_the_commits() {
        let deployment = |revision| Deployment {
            pickup: "site".into(),
            generation: 2,
            started_at: NOW,
            finished_at: Some(NOW),
            origin: Origin::Change,
            revision,
            outcome: Outcome::Applied,
            changes: Vec::new(),
            changes_total: 0,
        };
        let deployments = [revision('b', Some('a')), revision('a', None)].map(|revision| deployment(Some(revision)));
        assert_snapshot!(crate::show::history::render(&show(), &deployments), @r#"
        WHEN                 NAME  GENERATION  OUTCOME  ORIGIN  CHANGES
        2023-11-14 22:13:20  site  2           applied  change
          aaaaaaa..bbbbbbb main "Mend the footer" by Ann
        2023-11-14 22:13:20  site  2           applied  change
          aaaaaaa main "Mend the footer" by Ann
        "#);
    }

    #[test]
    fn a_commit_cannot_steer_the_terminal() {
        let revision = Revision { subject: "\u{1b}[2J".into(), author: "a\nb".into(), ..revision('a', None) };
        assert_snapshot!(range(&revision), @r#"aaaaaaa main "\u{1b}[2J" by a\nb"#);
    }
}
