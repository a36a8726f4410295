#![expect(clippy::disallowed_methods, reason = "a lease needs a file")]
use std::fs::{self, OpenOptions};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;

#[test]
fn a_writer_is_noticed_until_its_last_close() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    let writer = File::create(&path).unwrap();
    let second = writer.try_clone().unwrap();
    let lease = Lease::on_this_thread().unwrap();
    let file = File::open(&path).unwrap();
    assert_eq!(lease.writer_of(&file), Writer::Somebody);
    drop(writer);
    assert_eq!(lease.writer_of(&file), Writer::Somebody, "a duplicate is still open");
    drop(second);
    assert_eq!(lease.writer_of(&file), Writer::Nobody);
    assert_eq!(lease.writer_of(&file), Writer::Nobody, "the lease was given back");
}

#[test]
fn a_mapping_that_can_be_written_counts_as_a_writer_until_it_is_unmapped() {
    use std::os::fd::AsRawFd;

    const LENGTH: usize = 4096;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    fs::write(&path, [0; LENGTH]).unwrap();
    let writer = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (protection, fd) = (libc::PROT_READ | libc::PROT_WRITE, writer.as_raw_fd());
    // SAFETY: a new mapping of a file that is as long, wherever the kernel likes.
    let mapping = unsafe { libc::mmap(std::ptr::null_mut(), LENGTH, protection, libc::MAP_SHARED, fd, 0) };
    assert_ne!(mapping, libc::MAP_FAILED);
    drop(writer);
    let lease = Lease::on_this_thread().unwrap();
    let file = File::open(&path).unwrap();
    assert_eq!(lease.writer_of(&file), Writer::Somebody);
    // SAFETY: that mapping, which nobody refers to.
    assert_eq!(unsafe { libc::munmap(mapping, LENGTH) }, 0);
    assert_eq!(lease.writer_of(&file), Writer::Nobody);
}

#[test]
fn readers_do_not_count_as_writers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    fs::write(&path, "x").unwrap();
    let _reader = File::open(&path).unwrap();
    let lease = Lease::on_this_thread().unwrap();
    assert_eq!(lease.writer_of(&File::open(&path).unwrap()), Writer::Nobody);
}

#[test]
fn who_wants_to_write_what_is_held_waits_and_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    fs::write(&path, "x").unwrap();
    let lease = Lease::on_this_thread().unwrap();
    let file = File::open(&path).unwrap();
    assert!(!is_held(&file));
    assert_eq!(lease.hold(&file), Writer::Nobody);
    assert!(is_held(&file));
    assert!(was_held(&file, Instant::now(), Instant::now() + HELD_AT_LEAST));
    let is_open = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _writer = OpenOptions::new().write(true).open(&path).unwrap();
            is_open.store(true, Ordering::SeqCst);
        });
        while is_held(&file) {
            std::thread::yield_now();
        }
        assert!(!is_open.load(Ordering::SeqCst));
        let asked = Instant::now();
        assert!(was_held(&file, asked, asked), "he waits for a second at least");
        assert!(!was_held(&file, asked, asked + HELD_AT_LEAST));
        // The scope ends once he has it.
        release(&file);
    });
    assert_eq!(lease.hold(&file), Writer::Nobody);
    drop(file);
    fs::write(&path, "nobody holds what is closed").unwrap();
}

/// The process of this test would be dead otherwise: a bare probe dies within a few thousand rounds.
#[test]
fn a_writer_that_breaks_leases_does_not_kill_the_process() {
    const PROBES: u64 = 30_000;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a");
    fs::write(&path, "x").unwrap();
    let (done, opens) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut nobody, mut somebody) = (0_u64, 0_u64);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                drop(OpenOptions::new().write(true).open(&path).unwrap());
                opens.fetch_add(1, Ordering::Relaxed);
            }
        });
        let prober = scope.spawn(|| {
            let lease = Lease::on_this_thread().unwrap();
            let mut probes = 0;
            let is_met = |probes: u64| {
                probes.is_multiple_of(PROBES) && opens.load(Ordering::Relaxed) >= PROBES / 10 && is_sigio_pending()
            };
            // At least that many, and until both threads really ran against each other: on one processor that may take its time.
            while probes == 0 || (!is_met(probes) && probes < 1000 * PROBES) {
                match lease.writer_of(&File::open(&path).unwrap()) {
                    Writer::Nobody => nobody += 1,
                    Writer::Somebody => somebody += 1,
                    Writer::Unknown => panic!("leases are not to be had in {}", path.display()),
                }
                probes += 1;
            }
            is_sigio_pending()
        });
        let was_broken = prober.join();
        done.store(true, Ordering::Relaxed);
        // The thread has ended with the signal pending, and we are alive.
        assert!(was_broken.unwrap(), "no lease was ever broken: the race was not tried");
    });
    assert!(nobody > 0 && somebody > 0, "{nobody} {somebody}");
}

fn is_sigio_pending() -> bool {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `sigpending` initialises the set, `sigismember` reads it.
    unsafe { libc::sigpending(set.as_mut_ptr()) == 0 && libc::sigismember(set.as_ptr(), libc::SIGIO) == 1 }
}
