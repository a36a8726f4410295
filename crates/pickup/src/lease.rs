//! Whether somebody has a file open for writing, asked of the kernel by a read lease.
//!
//! A lease is granted only while nobody has the file open for writing, so taking one and giving it back at once is a
//! question that costs two microseconds. While it is kept, whoever opens the file for writing waits: what is read
//! meanwhile is whole. The trap: a writer that opens the file in between breaks the lease, and the kernel then sends SIGIO
//! to the lease's owner, which is the whole process unless somebody was named before. The default action of SIGIO is to
//! kill. So each probe first names the thread it runs on, and that thread blocks SIGIO for good.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

#[cfg(all(test, target_os = "linux"))]
mod tests;

/// So long after it was held, what is held still is: whoever wants to write it waits for the kernel's `lease-break-time`,
/// which is a second at least, before it is taken away.
const HELD_AT_LEAST: Duration = Duration::from_millis(100);

/// Whether somebody has the file open for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// A read lease was granted: nobody has.
    Nobody,
    /// The lease was refused because of a writer.
    Somebody,
    /// Leases are not to be had here: not our file, or a file system without them.
    Unknown,
}

/// The right to probe, bound to the thread that it was made on, which must be one of ours.
#[derive(Debug)]
pub(crate) struct Lease {
    #[cfg(target_os = "linux")]
    thread: libc::pid_t,
    /// Not `Send`: another thread would not have SIGIO blocked.
    on_this_thread: PhantomData<*const ()>,
}

impl Lease {
    /// Blocks SIGIO in the calling thread, until the thread ends.
    ///
    /// It is never unblocked: a signal that a broken lease left pending would then be delivered. Blocked, it vanishes with
    /// the thread.
    ///
    /// # Errors
    /// The kernel refused the signal mask; without it no probe is safe.
    #[cfg(target_os = "linux")]
    pub(crate) fn on_this_thread() -> io::Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigemptyset` initialises the set that it is given, and the two calls after it only read and write that
        // set, which lives on this stack. A null pointer for the old mask is allowed.
        let refused = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGIO);
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut())
        };
        if refused != 0 {
            return Err(io::Error::from_raw_os_error(refused));
        }
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        Ok(Self { thread, on_this_thread: PhantomData })
    }

    /// Leases exist on Linux only.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn on_this_thread() -> io::Result<Self> {
        Ok(Self { on_this_thread: PhantomData })
    }

    /// Asks whether anybody has `file`, opened for reading only, open for writing.
    pub(crate) fn writer_of(&self, file: &File) -> Writer {
        let writer = self.hold(file);
        if writer == Writer::Nobody {
            release(file);
        }
        writer
    }

    /// The same; but where nobody has, whoever wants to now waits until the file is [released](release) or closed, or fails
    /// if he does not wait. So that has to be soon.
    #[cfg(target_os = "linux")]
    pub(crate) fn hold(&self, file: &File) -> Writer {
        use std::os::fd::AsRawFd;

        let fd = file.as_raw_fd();
        let owner = Owner { kind: F_OWNER_TID, id: self.thread };
        // SAFETY: the descriptor is open for as long as `file` is borrowed; `F_SETOWN_EX` reads one `f_owner_ex`, which
        // `Owner` mirrors, and the pointer to it is valid for the call.
        if unsafe { libc::fcntl(fd, F_SETOWN_EX, &raw const owner) } != 0 {
            // Without an owner a racing writer could have the process killed.
            return Writer::Unknown;
        }
        // SAFETY: the descriptor is open, and `F_SETLEASE` takes an integer.
        if unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::c_int::from(LEASE_READ)) } == 0 {
            return Writer::Nobody;
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EAGAIN) => Writer::Somebody,
            // EACCES: not our file. EINVAL: not on this file system. ENOLCK, ENOMEM: not now.
            _ => Writer::Unknown,
        }
    }

    /// Nobody can tell.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn hold(&self, _file: &File) -> Writer {
        Writer::Unknown
    }
}

/// Whether nobody can have written to `file` from when it was held until `now`; `asked` is a moment just before.
pub(crate) fn was_held(file: &File, asked: Instant, now: Instant) -> bool {
    now.saturating_duration_since(asked) < HELD_AT_LEAST || is_held(file)
}

/// Whether nobody opened `file` for writing since it is held.
#[cfg(target_os = "linux")]
fn is_held(file: &File) -> bool {
    use std::os::fd::AsRawFd;

    // SAFETY: the descriptor is open for as long as `file` is borrowed, and `F_GETLEASE` takes nothing else.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLEASE) == libc::c_int::from(LEASE_READ) }
}

#[cfg(not(target_os = "linux"))]
fn is_held(_file: &File) -> bool {
    false
}

/// Lets go of what is held.
#[cfg(target_os = "linux")]
pub(crate) fn release(file: &File) {
    use std::os::fd::AsRawFd;

    // SAFETY: the descriptor is open for as long as `file` is borrowed, and `F_SETLEASE` takes an integer. Should it fail,
    // closing the file gives the lease back.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::c_int::from(LEASE_NONE)) };
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn release(_file: &File) {}

// From <asm-generic/fcntl.h>; the libc crate does not have these for every Linux target. `F_RDLCK` and `F_UNLCK` differ
// in type between targets, hence the casts through these names.
#[cfg(target_os = "linux")]
const F_SETOWN_EX: libc::c_int = 15;
#[cfg(target_os = "linux")]
const F_OWNER_TID: libc::c_int = 0;
#[cfg(target_os = "linux")]
const LEASE_READ: i16 = libc::F_RDLCK as i16;
#[cfg(target_os = "linux")]
const LEASE_NONE: i16 = libc::F_UNLCK as i16;

/// `struct f_owner_ex`.
#[cfg(target_os = "linux")]
#[repr(C)]
struct Owner {
    kind: libc::c_int,
    id: libc::pid_t,
}
