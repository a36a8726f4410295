//! The model test: random writers, faults and crashes against the simplest model there is of what must be live at the end.
//!
//! A run follows from its seed, as far as threads and a kernel can follow from anything. `PICKUP_MODEL_SECONDS=600` runs
//! for longer than CI does; `PICKUP_MODEL_SEED=7` runs that one, and `PICKUP_MODEL_KEEP=1` leaves its directory.
#![cfg(target_os = "linux")]
#![expect(
    clippy::disallowed_methods,
    reason = "the test is the outside world: it writes, it reads, it looks at the clock"
)]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

mod case;
mod check;
mod faults;
mod payload;
mod random;
mod world;

use case::Case;

/// How long the test takes where nobody says otherwise.
const SECONDS: u64 = 45;
/// How many runs there are at least, however slow the machine.
const RUNS_MIN: u64 = 24;
/// Runs wait for the kernel and for quiet most of the time.
const AT_ONCE: usize = 8;
/// How many runs of CI may end wrong while what is [`OPEN`] is open, besides one in so many: about three times what was seen.
const OPEN_ANY: u64 = 3;
const OPEN_ONE_IN: u64 = 20;
/// Seeds that found something once that is mended, and what.
const FOUND: &[(u64, &str)] = &[
    (0, "a deployer that was left out of `deploy_to` for a while kept old versions"),
    (14, "a failure was reported for ever although its version was gone"),
    (40, "what failed with a deployer of the whole pickup stayed in quarantine although it was live, or gone"),
    (73, "a directory that was exchanged while it was captured went live with files of two versions"),
    (80, "the end of a deployment was not recorded before the next start"),
    (99, "a file that was waited for and renamed away held all others back where directories are polled"),
    (102, "a release asked for before recovery was over was refused"),
    (189, "what a crash left staged stayed if staging it once more failed"),
    (294, "a rollback that failed half way stayed half way"),
    (5102, "a temporary of `copy` was left behind after a crash"),
    (5480, "what could not be taken back of a directory was in the way of a file of its name"),
];
/// Seeds that find something that is not mended yet: to be run by hand.
const OPEN: &[(u64, &str)] = &[
    (5058, "a directory that became a file is refused for good; the cause is not known"),
    (97, "a temporary of a deployer that is left out of `deploy_to` stays when it cannot be let go of at once"),
    (576, "what could not be let go of, and not before the next version either, leaves its temporary"),
    (527, "a file that became a directory is refused for good when a revert failed before"),
    (612, "after a full disk, the trouble outlives it by more than a sync waits"),
];

/// Where files cost least.
fn place() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if tempfile::tempdir_in(memory).is_ok() { memory.to_path_buf() } else { std::env::temp_dir() }
}

/// Runs one seed; gives what is wrong.
fn run(runtime: &tokio::runtime::Runtime, seed: u64) -> Result<(), String> {
    let directory = tempfile::Builder::new().prefix("pickup-model-").tempdir_in(place()).expect("a directory");
    let base = directory.path().canonicalize().expect("its path");
    let mut case = Case::new(seed, &base);
    let violations = runtime.block_on(case.run());
    if violations.is_empty() {
        return Ok(());
    }
    let repeat = format!("PICKUP_MODEL_SEED={seed} cargo test -p pickup --test model");
    let wrong = violations.join("\n  ");
    let kept = if std::env::var_os("PICKUP_MODEL_KEEP").is_some() { directory.keep() } else { PathBuf::new() };
    let log = if std::env::var_os("PICKUP_MODEL_SEED").is_some() { case.log.join("\n") } else { String::new() };
    let shape = &case.shape;
    Err(format!("seed {seed}, {shape:?}\n  {wrong}\n  repeat it: {repeat}\n  {}\n{log}", kept.display()))
}

#[test]
fn what_is_live_at_the_end_is_what_was_written_last() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime");
    let read = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    if let Some(seed) = read("PICKUP_MODEL_SEED") {
        let times = read("PICKUP_MODEL_TIMES").unwrap_or(1);
        for _ in 0..times {
            run(&runtime, seed).unwrap_or_else(|wrong| panic!("{wrong}"));
        }
        return;
    }
    let long = read("PICKUP_MODEL_SECONDS");
    let end = Instant::now() + Duration::from_secs(long.unwrap_or(SECONDS));
    let first = read("PICKUP_MODEL_FIRST").unwrap_or(0);
    let next = AtomicU64::new(0);
    let wrong = Mutex::new(Vec::new());
    let kept = FOUND.len() as u64;
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= kept + RUNS_MIN && Instant::now() >= end {
                return;
            }
            let seed = FOUND.get(number as usize).map_or(first + number.saturating_sub(kept), |(seed, _)| *seed);
            if let Err(what) = run(&runtime, seed) {
                println!("{what}");
                wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
            }
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(work))));
    let wrong = wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("known to be open: {OPEN:?}");
    let runs = next.into_inner() - AT_ONCE as u64;
    println!("{runs} runs, {} of them wrong", wrong.len());
    // One or two runs in a hundred still end wrong (see `OPEN`): a long run fails for each, CI for what
    // must never be, and for more than there were.
    let never =
        |what: &&String| ["nobody wrote", "mixed", "hangs", "still open"].iter().any(|word| what.contains(word));
    let is_known = wrong.len() as u64 <= OPEN_ANY + runs / OPEN_ONE_IN && !wrong.iter().any(|what| never(&what));
    assert!(wrong.is_empty() || (long.is_none() && is_known), "{}", wrong.join("\n"));
}
