//! From a fork to the program: the only place of this deployer where memory safety is argued.
//!
//! Between fork and exec only async-signal-safe calls are made, for another thread may have held the allocator's lock
//! when the process was copied. So everything is built before: arguments, environment, copies of descriptors. What can
//! only be known after the fork, the number of the new process for `LISTEN_PID`, is written into room left for it. The
//! exec is our own, because `std` exchanges the environment after its hooks have run.

use std::cell::UnsafeCell;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::unix::AsyncFd;

use crate::config::Limit;
use crate::error::{Error, IoContext, Result};

/// The first descriptor that is handed over: `SD_LISTEN_FDS_START`.
pub(super) const FIRST_FD: RawFd = 3;

/// Decimal digits of the largest process number, and the byte that ends a string.
const DIGITS_MAX: usize = 11;

/// How often an address is tried that a copy of our process may hold until it is another program.
const FORK_LOOKS: usize = 1000;

const FORK_PAUSE: Duration = Duration::from_millis(1);

const LISTEN_PID: &[u8] = b"LISTEN_PID=";

/// The user a program runs as.
#[derive(Clone, Debug)]
pub(super) struct Ids {
    pub(super) user: u32,
    pub(super) group: u32,
    pub(super) groups: Vec<u32>,
}

/// The descriptor, with word from the runtime when something can be read from it.
pub(super) fn watched(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned, so nobody else closes it, and `AsyncFd` gives no way to take it out unregistered.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}

/// Binds an address by `bind`. A program of ours that is just being started, by another pickup say, holds copies of all
/// our descriptors until it runs: an address that we have let go of is taken for that moment.
pub(super) fn bound<T>(mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..FORK_LOOKS {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => thread::sleep(FORK_PAUSE),
            result => return result,
        }
    }
    bind()
}

/// What is to be run, and with what.
pub(super) struct Launch {
    /// The path of the program.
    pub(super) program: PathBuf,
    pub(super) argv: Vec<OsString>,
    /// The whole environment, but for `LISTEN_PID`.
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) cwd: PathBuf,
    /// What the program finds from [`FIRST_FD`] on.
    pub(super) fds: Vec<OwnedFd>,
    /// Where its output goes.
    pub(super) output: File,
    /// Where it writes its number before it is anything else.
    pub(super) pid_file: File,
    pub(super) ids: Option<Ids>,
    pub(super) limits: Vec<(Limit, u64)>,
}

impl Launch {
    /// Starts the program in a process group of its own; gives its number once it runs.
    pub(super) fn start(self) -> Result<i32> {
        let shown = self.program.clone();
        let (own, child) = self.prepare().doing("prepare to run", &shown)?;
        let Prepared { mut command, failed } = own;
        let hook = move || child.run();
        // SAFETY: the hook runs in the child between fork and exec, and makes async-signal-safe calls only: see
        // `Child::run`.
        unsafe { command.pre_exec(hook) };
        let spawned = command.spawn();
        // Our copies of what the child has, its end of the pipe above all.
        drop(command);
        let pid = spawned.doing("run", &shown)?.id();
        let mut report = Vec::new();
        File::from(failed).read_to_end(&mut report).doing("wait for the start of", &shown)?;
        if let Some((step, error)) = read_failure(&report) {
            return Err(Error::io(format!("{step} to run"), shown, error));
        }
        i32::try_from(pid).map_err(|error| Error::deploy("understand a process number").caused_by(error))
    }

    fn prepare(self) -> io::Result<(Prepared, Child)> {
        // Above everything that the child's own descriptors take, so that none overwrites another's source.
        let floor = FIRST_FD + i32::try_from(self.fds.len()).map_err(io::Error::other)?;
        let (failed, report) = pipe_with(PipeFlags::CLOEXEC)?;
        let fds = self.fds.iter().map(|fd| fcntl_dupfd_cloexec(fd, floor)).collect::<Result<Vec<_>, _>>()?;
        let mut command = Command::new(&self.program);
        command.stdin(Stdio::null()).stdout(self.output.try_clone()?).stderr(self.output);
        command.current_dir(&self.cwd).process_group(0);
        let child = Child {
            program: c_string(self.program.into_os_string())?,
            image: Image::new(self.argv, self.env, !fds.is_empty())?,
            pid_file: fcntl_dupfd_cloexec(&self.pid_file, floor)?,
            report: fcntl_dupfd_cloexec(&report, floor)?,
            fds,
            ids: self.ids,
            limits: self.limits.iter().map(|(limit, value)| (resource(*limit), *value)).collect(),
        };
        Ok((Prepared { command, failed }, child))
    }
}

struct Prepared {
    command: Command,
    /// Closed without a word once the program runs.
    failed: OwnedFd,
}

/// What the child needs, all of it allocated before the fork.
struct Child {
    program: CString,
    image: Image,
    fds: Vec<OwnedFd>,
    pid_file: OwnedFd,
    report: OwnedFd,
    ids: Option<Ids>,
    limits: Vec<(libc::c_int, u64)>,
}

/// Arguments and environment as `execve` wants them.
struct Image {
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    /// What the pointers lead to.
    _owned: Vec<CString>,
    /// `LISTEN_PID=` and room for the digits; the last of `envp` leads to it.
    listen_pid: Option<Box<UnsafeCell<[u8; LISTEN_PID.len() + DIGITS_MAX]>>>,
}

// SAFETY: the pointers lead to heap memory that the value itself owns and never moves or frees before its end; nothing
// is written through them but in the child, which has one thread.
unsafe impl Send for Image {}
// SAFETY: as above; a shared reference gives no way to write.
unsafe impl Sync for Image {}

impl Image {
    fn new(argv: Vec<OsString>, env: Vec<(OsString, OsString)>, has_fds: bool) -> io::Result<Self> {
        let mut owned = Vec::new();
        let mut keep = |text: OsString| -> io::Result<*const libc::c_char> {
            let text = c_string(text)?;
            // The bytes are on the heap: moving the string does not move them.
            let pointer = text.as_ptr();
            owned.push(text);
            Ok(pointer)
        };
        let mut arguments = argv.into_iter().map(&mut keep).collect::<io::Result<Vec<_>>>()?;
        let joined = env.into_iter().map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            name
        });
        let mut envp = joined.map(&mut keep).collect::<io::Result<Vec<_>>>()?;
        let listen_pid = has_fds.then(|| {
            let mut room = [0; LISTEN_PID.len() + DIGITS_MAX];
            room[..LISTEN_PID.len()].copy_from_slice(LISTEN_PID);
            Box::new(UnsafeCell::new(room))
        });
        envp.extend(listen_pid.as_ref().map(|room| room.get().cast_const().cast()));
        arguments.push(std::ptr::null());
        envp.push(std::ptr::null());
        Ok(Self { argv: arguments, envp, _owned: owned, listen_pid })
    }
}

fn c_string(text: OsString) -> io::Result<CString> {
    CString::new(text.into_vec()).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "it holds a NUL byte"))
}

/// What the child was doing when it failed; the number travels over the pipe.
const STEPS: [&str; 5] =
    ["record the process", "set a resource limit", "hand over a listener", "change the user", "find how"];

impl Child {
    /// Becomes the program, or says why not and ends. Returns never in truth: `std` would go on with its own exec.
    fn run(&self) -> io::Result<()> {
        let (step, error) = self.become_it();
        let mut message = [0; 8];
        message[..4].copy_from_slice(&step.to_ne_bytes());
        message[4..].copy_from_slice(&error.to_ne_bytes());
        // SAFETY: both calls are async-signal-safe; the buffer outlives the write.
        unsafe {
            libc::write(self.report.as_raw_fd(), message.as_ptr().cast(), message.len());
            libc::_exit(127)
        }
    }

    /// Gives the step that failed and the error number. Allocates nothing, locks nothing.
    fn become_it(&self) -> (u32, i32) {
        // SAFETY: getpid is async-signal-safe and always succeeds.
        let pid = unsafe { libc::getpid() };
        let mut digits = [0; DIGITS_MAX];
        let length = write_digits(pid, &mut digits);
        // SAFETY: async-signal-safe; the buffer holds `length` bytes.
        if unsafe { libc::write(self.pid_file.as_raw_fd(), digits.as_ptr().cast(), length) } < 0 {
            return (0, errno());
        }
        for (resource, value) in &self.limits {
            let limit = libc::rlimit { rlim_cur: *value, rlim_max: *value };
            // SAFETY: a plain system call with a pointer to a living struct. The resource is one of our own table.
            if unsafe { libc::setrlimit(*resource as _, &raw const limit) } != 0 {
                return (1, errno());
            }
        }
        for (to, from) in (FIRST_FD..).zip(&self.fds) {
            // SAFETY: async-signal-safe; the source lies above all targets. The copy is not closed on exec.
            if unsafe { libc::dup2(from.as_raw_fd(), to) } < 0 {
                return (2, errno());
            }
        }
        // What somebody else in this process forgot to mark is none of the program's business. Older kernels lack the
        // call, and nothing depends on it.
        let floor = FIRST_FD as libc::c_uint + self.fds.len() as libc::c_uint;
        // SAFETY: a plain system call with numbers only.
        unsafe { libc::syscall(libc::SYS_close_range, floor, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        if let Some(ids) = &self.ids {
            // SAFETY: raw system calls on one thread, with a pointer to a living list: the C library's own functions
            // would signal threads that the child does not have.
            let failed = unsafe {
                libc::syscall(libc::SYS_setgroups, ids.groups.len(), ids.groups.as_ptr()) != 0
                    || libc::syscall(libc::SYS_setresgid, ids.group, ids.group, ids.group) != 0
                    || libc::syscall(libc::SYS_setresuid, ids.user, ids.user, ids.user) != 0
            };
            if failed {
                return (3, errno());
            }
        }
        if let Some(room) = &self.image.listen_pid {
            // SAFETY: the room is ours, long enough for every number and its end, and after the fork nobody else sees
            // this copy of it; the kernel reads it through the pointer in `envp`.
            unsafe {
                let to = room.get().cast::<u8>().add(LISTEN_PID.len());
                std::ptr::copy_nonoverlapping(digits.as_ptr(), to, length);
            }
        }
        // SAFETY: async-signal-safe; program, arguments and environment are ended strings, and the lists end with null.
        unsafe { libc::execve(self.program.as_ptr(), self.image.argv.as_ptr(), self.image.envp.as_ptr()) };
        (4, errno())
    }
}

fn errno() -> i32 {
    // SAFETY: gives this thread's own error number.
    unsafe { *libc::__errno_location() }
}

/// The digits of a process number, without the allocator; gives how many.
fn write_digits(pid: libc::pid_t, into: &mut [u8; DIGITS_MAX]) -> usize {
    let mut reversed = [0; DIGITS_MAX];
    let (mut rest, mut length) = (pid.unsigned_abs(), 0);
    loop {
        reversed[length] = b'0' + (rest % 10) as u8;
        rest /= 10;
        length += 1;
        if rest == 0 {
            break;
        }
    }
    for at in 0..length {
        into[at] = reversed[length - 1 - at];
    }
    length
}

fn read_failure(report: &[u8]) -> Option<(&'static str, io::Error)> {
    let (step, error) = report.split_at_checked(4)?;
    let step = u32::from_ne_bytes(step.try_into().ok()?) as usize;
    let error = io::Error::from_raw_os_error(i32::from_ne_bytes(error.try_into().ok()?));
    Some((STEPS.get(step)?, error))
}

fn resource(limit: Limit) -> libc::c_int {
    let resource = match limit {
        Limit::As => libc::RLIMIT_AS,
        Limit::Core => libc::RLIMIT_CORE,
        Limit::Cpu => libc::RLIMIT_CPU,
        Limit::Data => libc::RLIMIT_DATA,
        Limit::Fsize => libc::RLIMIT_FSIZE,
        Limit::Memlock => libc::RLIMIT_MEMLOCK,
        Limit::Nofile => libc::RLIMIT_NOFILE,
        Limit::Nproc => libc::RLIMIT_NPROC,
        Limit::Stack => libc::RLIMIT_STACK,
    };
    resource as libc::c_int
}

#[cfg(test)]
mod tests;
