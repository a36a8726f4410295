//! Programs that write slowly, and machines that are busy.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{Timespec, Timestamps};

/// Lets time pass between two acts of a writer. Time is what these scenarios are about; nothing waits for the daemon
/// this way.
pub struct Pace {
    never: Receiver<()>,
    _sender: Sender<()>,
}

impl Pace {
    pub fn new() -> Self {
        let (sender, never) = channel();
        Self { never, _sender: sender }
    }

    /// The writer is idle for so long.
    pub fn idle(&self, duration: Duration) {
        // Nobody sends: the time always runs out.
        let _ = self.never.recv_timeout(duration);
    }
}

/// A program that has a file open and writes to it bit by bit.
pub struct Writer {
    file: File,
    pace: Pace,
}

impl Writer {
    /// Makes the file, or truncates it.
    pub fn create(path: impl AsRef<Path>) -> Self {
        Self { file: File::create(path).expect("create a file"), pace: Pace::new() }
    }

    pub fn write(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).expect("write to a file");
    }

    pub fn idle(&self, duration: Duration) {
        self.pace.idle(duration);
    }

    /// Sets the times of the open file to now, as `futimens` does.
    pub fn touch(&self) {
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        rustix::fs::futimens(&self.file, &times).expect("set the times of a file");
    }

    /// The last close.
    pub fn close(self) {}
}

/// Keeps every processor busy, and then some, until it is dropped.
pub struct Busy {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Busy {
    pub fn new() -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        let spin = |_| {
            let is_over = is_over.clone();
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let threads = (0..processors * 2).map(spin).collect();
        Self { is_over, threads }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a busy thread");
        }
    }
}
