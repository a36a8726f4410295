//! `kill -9` of the daemon and of its workers, at any moment between a push and its deployment.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::followed::{Followed, OFTEN, workers};

const ROUNDS: u32 = 50;
const FILES: usize = 30;

/// Each file says which round it is of, and ends with a full stop.
fn push(followed: &Followed, round: u32) {
    let text = |file: usize| format!("round {round}: {}.", format!("{file} ").repeat(2_000));
    // Every few rounds a name goes and another comes.
    let last = format!("last-{}", round % 3);
    let files =
        (0..FILES).fold(followed.upstream.edit(), |edit, file| edit.file(&format!("d{}/{file}", file % 3), text(file)));
    let edit = files.remove(&format!("last-{}", (round + 2) % 3));
    edit.file(&last, text(FILES)).commit();
}

/// The round that is live, after a look at every file of it; `None` before the first.
fn live(followed: &Followed, pickup: &str) -> Option<String> {
    let current = followed.sandbox.path(format!("deployed/{pickup}/current"));
    let release = fs::canonicalize(current).ok()?;
    let release = release
        .strip_prefix(fs::canonicalize(followed.sandbox.path("")).expect("the sandbox"))
        .expect("inside")
        .to_owned();
    let files = followed.sandbox.tree(release.to_str().expect("a plain name"));
    let rounds: BTreeSet<&str> = files.values().map(|text| text.split(':').next().unwrap_or_default()).collect();
    assert_eq!((files.len(), rounds.len()), (FILES + 1, 1), "half of a commit is live in {pickup}: {rounds:?}");
    assert!(files.values().all(|text| text.ends_with('.')), "half of a file is live in {pickup}");
    rounds.into_iter().next().map(str::to_owned)
}

/// A moment later: no event marks it, which is the point.
fn a_moment(length: Duration) {
    let start = Instant::now();
    while start.elapsed() < length {
        std::thread::yield_now();
    }
}

#[test]
fn killed_fifty_times_at_any_moment_it_recovers_by_itself_and_no_half_commit_is_ever_live() {
    let followed = Followed::new(OFTEN);
    let release = "[deployer.whole]\nkind = \"release\"\ninto = \"deployed/{pickup}\"\nkeep = 100\ndurable = false\n";
    let entry = |name: &str, keys: &str| {
        format!(
            "[hot-deploy.user.{name}]\ngit_url = \"{}\"\n{OFTEN}\n{keys}\ndeploy_to = [\"whole\"]\n",
            followed.url()
        )
    };
    let text = format!(
        "[pickup]\nlog_format = \"json\"\n{}{}{release}",
        entry("mirrored", ""),
        entry("cloned", "pickup_from = \"clone\"")
    );
    followed.sandbox.write("pickup.conf", text);
    followed.upstream.edit().remove("a").file("last-2", "").commit();
    let mut daemon = None;
    for round in 0..ROUNDS {
        let before = followed.server.requests();
        push(&followed, round);
        let running = daemon.take().unwrap_or_else(|| followed.sandbox.daemon());
        // From before the first request to after the deployment, and a little later each time.
        match round % 5 {
            0 => {}
            1 => followed.server.wait_requests(before + 1),
            2 => followed.server.wait_requests(before + 2),
            3 => running
                .wait_until("the commit is seen", |log| log.lines.iter().any(|line| line.message == "commit seen")),
            _ => running.wait_until("something is live", |log| !log.deployed.is_empty()),
        }
        a_moment(Duration::from_millis(u64::from(round * 7 % 40)));
        if round % 2 == 0 {
            running.kill();
        } else {
            for worker in workers(&running) {
                // It may have ended by itself.
                let _ = kill_process(worker, Signal::KILL);
            }
            daemon = Some(running);
        }
        live(&followed, "mirrored");
        live(&followed, "cloned");
    }
    let daemon = daemon.unwrap_or_else(|| followed.sandbox.daemon());
    daemon.sync();
    let last = Some(format!("round {}", ROUNDS - 1));
    assert_eq!([live(&followed, "mirrored"), live(&followed, "cloned")], [last.clone(), last], "{}", daemon.said());
    let said = daemon.stop();
    assert!(!said.contains("panicked"), "{said}");
}
