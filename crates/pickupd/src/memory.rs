//! What the process keeps of the memory that it does not need any more.

/// From this size on, what is freed goes back to the system at once: at a start, lists of all files of a pickup.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const GIVEN_BACK: libc::c_int = 1 << 20;

/// Gives back early what is freed. By itself glibc keeps more and more of it once something large was freed, for each thread
/// that ever worked.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn give_back_early() {
    // SAFETY: they take numbers, and no other thread runs yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVEN_BACK);
        libc::mallopt(libc::M_TRIM_THRESHOLD, GIVEN_BACK);
    }
}

/// Other allocators have their own ways.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn give_back_early() {}
