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
/// Seeds that found something once that is mended, and what.
const FOUND: &[(u64, &str)] = &[
    (0, "a deployer that was left out of `deploy_to` for a while kept old versions"),
    (14, "a failure was reported for ever although its version was gone"),
    (21, "a change of mode passed by a deployer that was left out of `deploy_to` for a while"),
    (40, "what failed with a deployer of the whole pickup stayed in quarantine although it was live, or gone"),
    (73, "a directory that was exchanged while it was captured went live with files of two versions"),
    (80, "the end of a deployment was not recorded before the next start"),
    (97, "a temporary of a deployer that was left out of `deploy_to` stayed when it could not be let go of at once"),
    (99, "a file that was waited for and renamed away held all others back where directories are polled"),
    (102, "a release asked for before recovery was over was refused"),
    (189, "what a crash left staged stayed if staging it once more failed"),
    (248, "what lingered waited for its next try although somebody had asked for one while the lane was busy"),
    (294, "a rollback that failed half way stayed half way"),
    (360, "a file that could be captured again was waited for although it had been"),
    (527, "what could not be taken back before something newer came was never taken back"),
    (576, "what could not be let go of, and not before the next version either, left its temporary"),
    (612, "after a full disk, the trouble outlived it by more than a sync waits"),
    (757, "what a deployment had brought that could not be taken back stayed beside the next version"),
    (848, "the trouble outlived a file that could not be captured and became a directory"),
    (916, "a file whose directory had become a file could not be removed any more"),
    (1444, "a failure that was over stayed in quarantine where the journal had failed to take that"),
    (3842, "what went live before the journal failed was not known to be live"),
    (5058, "a directory that became a file was refused for good"),
    (5102, "a temporary of `copy` was left behind after a crash"),
    (5480, "what could not be taken back of a directory was in the way of a file of its name"),
    (20912, "a directory stayed, empty, where one file in it had come while nobody knew that the directory was ours"),
    (23844, "what a rollback took away stayed away where a deployer left out of `deploy_to` still had it"),
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
    let end = Instant::now() + Duration::from_secs(read("PICKUP_MODEL_SECONDS").unwrap_or(SECONDS));
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
    let runs = next.into_inner() - AT_ONCE as u64;
    println!("{runs} runs, {} of them wrong", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
