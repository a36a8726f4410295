//! One running program: heard, read, looked at, asked to finish, and killed with all that it started.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::watch;
use tokio::time::Instant;

use super::proc;
use super::record::{Record, Spec};
use crate::config::{DrainSignal, ProcessConfig, Ready};
use crate::deploy::{Happening, OUTPUT_MAX, Reporter};
use crate::error::{Error, IoContext, Result};

/// How long what was killed may take to be gone.
const KILL_MAX: Duration = Duration::from_secs(5);

/// What is known of an instance's life.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    /// It said `READY=1`.
    pub(super) is_ready: bool,
    /// It printed the line that was waited for.
    pub(super) has_line: bool,
    /// It asked for more time to start.
    pub(super) extended: Option<Instant>,
    /// What it said last about itself.
    pub(super) status: String,
    /// How it ended, once it has and all that it started is gone.
    pub(super) ended: Option<String>,
}

/// One instance of the program.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) spec: Spec,
    pub(super) token: String,
    /// The first process and its group.
    pub(super) leader: i32,
    /// The process that counts: another one where the first said so by `MAINPID`.
    main: AtomicI32,
    /// The ports it was told to bind.
    pub(super) ports: BTreeMap<String, u16>,
    pub(super) life: watch::Sender<Life>,
    /// Until when it may finish, once it was asked to.
    pub(super) until: watch::Sender<Option<Instant>>,
    /// Whether it was activated and serves.
    pub(super) is_active: AtomicBool,
    pub(super) born: Instant,
    /// The last of what it printed.
    tail: Mutex<String>,
    reporter: Reporter,
    signal: DrainSignal,
    line: Option<String>,
}

impl Instance {
    pub(super) fn new(record: &Record, pid: i32, config: &ProcessConfig, reporter: Reporter) -> Self {
        Self {
            spec: record.spec.clone(),
            token: record.token.clone(),
            leader: record.pid.unwrap_or(pid),
            main: AtomicI32::new(pid),
            ports: record.ports.clone(),
            life: watch::Sender::default(),
            until: watch::Sender::default(),
            is_active: AtomicBool::new(false),
            born: Instant::now(),
            tail: Mutex::default(),
            reporter,
            signal: config.drain_signal,
            line: match &config.ready {
                Ready::Line(line) => Some(line.clone()),
                Ready::Notify | Ready::Check(_) | Ready::After(_) => None,
            },
        }
    }

    pub(super) fn main(&self) -> i32 {
        self.main.load(Ordering::Relaxed)
    }

    pub(super) fn set_main(&self, pid: i32) {
        self.main.store(pid, Ordering::Relaxed);
    }

    /// Whether it has not ended.
    pub(super) fn is_alive(&self) -> bool {
        self.life.borrow().ended.is_none()
    }

    /// Whether it was asked to finish: it may still live, but not for long.
    pub(super) fn is_stopping(&self) -> bool {
        self.until.borrow().is_some()
    }

    /// Waits for its end, and says how that was.
    pub(super) async fn ended(&self) -> String {
        let mut life = self.life.subscribe();
        match life.wait_for(|life| life.ended.is_some()).await {
            Ok(life) => life.ended.clone().unwrap_or_default(),
            Err(_) => "nobody looks after it".into(),
        }
    }

    /// Whether the process is one of its own.
    pub(super) fn is_own(&self, pid: i32) -> bool {
        pid == self.main()
            || proc::stat(pid).is_some_and(|stat| stat.group == self.leader)
            || proc::has_token(pid, &self.token)
    }

    /// Says what happened, for programs and for people.
    pub(super) fn say(&self, happening: Happening) {
        let (pickup, generation) = (&self.spec.pickup, self.spec.generation);
        match &happening {
            Happening::Unclaimed { pid } => {
                tracing::warn!(pickup, generation, pid, "no entry runs this program any more; it is stopped");
            }
            Happening::Started { pid } => tracing::info!(pickup, generation, pid, "instance started"),
            Happening::Activated { pid, took } => {
                tracing::info!(pickup, generation, pid, took_ms = took, "instance activated");
            }
            Happening::Health { pid, memory, load, processes } => {
                tracing::debug!(pickup, generation, pid, memory, load, processes, "instance health");
            }
            Happening::Stopping { pid } => tracing::info!(pickup, generation, pid, "instance stopping"),
            Happening::Stopped { pid, how, was_asked: true } => {
                tracing::info!(pickup, generation, pid, how, "instance stopped");
            }
            Happening::Stopped { pid, how, was_asked: false } => {
                tracing::warn!(pickup, generation, pid, how, "instance ended by itself");
            }
        }
        self.reporter.instance(generation, happening);
    }

    /// A line that it printed.
    pub(super) fn printed(&self, line: &str) {
        if self.line.as_ref().is_some_and(|wanted| line.contains(wanted)) {
            self.life.send_if_modified(|life| !std::mem::replace(&mut life.has_line, true));
        }
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.push_str(line);
        tail.push('\n');
        // Cut now and then: it is kept for a failure's sake only.
        if tail.len() > 2 * OUTPUT_MAX {
            let from = tail.ceil_char_boundary(tail.len() - OUTPUT_MAX);
            tail.drain(..from);
        }
    }

    /// The last of what it printed.
    pub(super) fn tail(&self) -> String {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It serves: said once.
    pub(super) fn activated(&self, was_found: bool) {
        if !self.is_active.swap(true, Ordering::Relaxed) {
            let took = if was_found { Duration::ZERO } else { self.born.elapsed() };
            let took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            self.say(Happening::Activated { pid: self.main(), took });
        }
    }

    /// Asks it to finish within `drain`, and kills what is left of it then. Returns once all of it is gone.
    pub(super) async fn stop(&self, drain: Duration) -> Result<()> {
        let deadline = Instant::now() + drain;
        let is_first = self.until.send_if_modified(|until| {
            let is_first = until.is_none();
            // A second call may hurry it, never give it more time.
            *until = Some(until.map_or(deadline, |before| before.min(deadline)));
            is_first
        });
        if !self.is_alive() {
            return Ok(());
        }
        if is_first {
            self.say(Happening::Stopping { pid: self.main() });
            self.signal_main(signal(self.signal));
        }
        if tokio::time::timeout_at(deadline, self.ended()).await.is_ok() {
            return Ok(());
        }
        tracing::warn!(
            pickup = self.spec.pickup,
            generation = self.spec.generation,
            pid = self.main(),
            "it does not finish in time; it is killed"
        );
        self.kill();
        let gone = tokio::time::timeout(KILL_MAX, self.ended()).await;
        gone.map(drop).map_err(|_| Error::deploy(format!("kill process {}: it does not go", self.main())).transient())
    }

    fn signal_main(&self, with: Signal) {
        if let Ok(process) = open(self.main()) {
            // It may be gone already.
            let _gone = pidfd_send_signal(&process, with);
        }
    }

    /// Sends a signal to all of it; gives how many processes there were.
    pub(super) fn signal_all(&self, with: Signal) -> usize {
        let members = proc::members(self.leader, &self.token);
        for (pid, seen) in &members {
            // A descriptor names this process and no later one, once the start time is what was seen.
            let Ok(process) = open(*pid) else { continue };
            if proc::stat(*pid).is_some_and(|now| now.started == seen.started) {
                let _gone = pidfd_send_signal(&process, with);
            }
        }
        members.len()
    }

    pub(super) fn kill(&self) {
        self.signal_all(Signal::KILL);
    }

    /// Once the main process is gone: asks the others to finish if there is time for it, and kills what stays.
    pub(super) async fn end_others(&self) {
        let mut pause = Duration::from_millis(2);
        let mut is_asked = false;
        loop {
            let until = *self.until.borrow();
            let has_time = until.is_some_and(|until| Instant::now() < until);
            let left = match (has_time, is_asked) {
                (true, true) => proc::members(self.leader, &self.token).len(),
                (true, false) => self.signal_all(signal(self.signal)),
                (false, _) => self.signal_all(Signal::KILL),
            };
            is_asked = true;
            if left == 0 {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

/// A descriptor for the process: it names this one, and no other that gets its number later.
pub(super) fn open(pid: i32) -> Result<OwnedFd> {
    let gone = || Error::deploy(format!("find process {pid}"));
    pidfd_open(Pid::from_raw(pid).ok_or_else(gone)?, PidfdFlags::NONBLOCK).doing("open process", pid.to_string())
}

fn signal(signal: DrainSignal) -> Signal {
    match signal {
        DrainSignal::Term => Signal::TERM,
        DrainSignal::Int => Signal::INT,
        DrainSignal::Quit => Signal::QUIT,
        DrainSignal::Hup => Signal::HUP,
        DrainSignal::Usr1 => Signal::USR1,
        DrainSignal::Usr2 => Signal::USR2,
        DrainSignal::Winch => Signal::WINCH,
    }
}
