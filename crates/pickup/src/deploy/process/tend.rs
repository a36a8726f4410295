//! The task that looks after one instance, from its start to its end.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, WaitOptions, waitid};
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::instance::{self, Instance};
use super::notification::{Notify, Said};
use super::output::Output;
use super::proc;
use super::record::Records;
use super::spawn;
use crate::deploy::Happening;

/// How many lines of a program go into the log in a second; the rest is counted.
const LINES_MAX: usize = 1000;

/// How many pieces of output are read before other work gets its turn; one that prints so much is soon heard again.
const READS_MAX: usize = 64;

/// What the task works with.
pub(super) struct Tend {
    pub(super) instance: Arc<Instance>,
    pub(super) records: Records,
    pub(super) notify: Notify,
    pub(super) output: Output,
    pub(super) process: AsyncFd<OwnedFd>,
    /// How long it may go without a sign of life.
    pub(super) watchdog: Option<Duration>,
    /// How often its health is looked at.
    pub(super) health_interval: Duration,
    /// Cancelled when it is left to itself.
    pub(super) cancel: CancellationToken,
}

/// How much was printed in this second.
struct Rate {
    since: Instant,
    lines: usize,
}

impl Tend {
    /// Looks after it until all of it is gone, or nobody is to look after it any more.
    pub(super) async fn run(mut self) {
        let mut rate = Rate { since: Instant::now(), lines: 0 };
        let mut health = tokio::time::interval_at(Instant::now() + self.health_interval, self.health_interval);
        // After a stop of the whole machine, one look says as much as all that were missed.
        health.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut used: Option<(Instant, u64)> = None;
        let mut alive_at = Instant::now();
        self.read(&mut rate, false);
        loop {
            let (instance, cancel) = (self.instance.clone(), self.cancel.clone());
            // It counts from readiness on: a start has its own deadline.
            let guard = self.watchdog.filter(|_| instance.life.borrow().is_ready);
            tokio::select! {
                () = cancel.cancelled() => return self.leave(),
                ended = self.process.readable() => {
                    drop(ended);
                    for said in self.notify.rest(|pid| instance.is_own(pid)) {
                        self.hear(said, &mut alive_at);
                    }
                    if !self.follow_main() {
                        break;
                    }
                }
                said = self.notify.next(|pid| instance.is_own(pid)) => match said {
                    Ok(said) => said.into_iter().for_each(|said| self.hear(said, &mut alive_at)),
                    Err(error) => tracing::warn!(%error, "cannot hear a program"),
                },
                changed = self.output.changed() => {
                    drop(changed);
                    self.read(&mut rate, false);
                }
                _ = health.tick() => self.look(&mut used),
                () = tokio::time::sleep_until(alive_at + guard.unwrap_or_default()), if guard.is_some() => {
                    let (pickup, generation) = (&instance.spec.pickup, instance.spec.generation);
                    tracing::error!(pickup, generation, pid = instance.main(), "no sign of life; it is killed");
                    alive_at = Instant::now();
                    instance.kill();
                }
            }
        }
        self.end(&mut rate).await;
    }

    fn hear(&mut self, said: Said, alive_at: &mut Instant) {
        let instance = &self.instance;
        match said {
            Said::Ready => {
                *alive_at = Instant::now();
                instance.life.send_if_modified(|life| !std::mem::replace(&mut life.is_ready, true));
            }
            Said::Alive => *alive_at = Instant::now(),
            Said::Trigger => instance.kill(),
            Said::Status(status) => {
                tracing::info!(pickup = instance.spec.pickup, generation = instance.spec.generation, status, "status");
                instance.life.send_modify(|life| life.status = status);
            }
            Said::Extend(by) => {
                let until = Instant::now() + by.min(Duration::from_secs(3600));
                instance.life.send_modify(|life| life.extended = Some(until));
            }
            Said::MainPid(pid) => {
                if instance.is_own(pid) && proc::stat(pid).is_some_and(|stat| !stat.is_zombie) {
                    instance.set_main(pid);
                }
            }
            // A change of generations says the rest.
            Said::Stopping | Said::Reloading => {}
        }
    }

    /// Where a first process ended and had named another one before: looks after that one.
    fn follow_main(&mut self) -> bool {
        let main = self.instance.main();
        let is_gone = proc::stat(main).is_none_or(|stat| stat.is_zombie);
        if is_gone {
            return false;
        }
        let opened = instance::open(main).ok().and_then(|process| spawn::watched(process).ok());
        match opened {
            Some(process) => {
                self.process = process;
                true
            }
            None => false,
        }
    }

    fn read(&mut self, rate: &mut Rate, is_end: bool) {
        for _ in 0..READS_MAX {
            let (lines, has_more) = self.output.lines(is_end);
            for line in lines {
                self.instance.printed(&line);
                self.log(rate, &line);
            }
            if !has_more {
                break;
            }
        }
        self.records.set_read_to(&self.instance.token, self.output.offset());
    }

    fn log(&self, rate: &mut Rate, line: &str) {
        let (pickup, generation) = (&self.instance.spec.pickup, self.instance.spec.generation);
        if rate.since.elapsed() >= Duration::from_secs(1) {
            if rate.lines > LINES_MAX {
                let left_out = rate.lines - LINES_MAX;
                tracing::warn!(pickup, generation, left_out, "it printed too many lines in a second");
            }
            *rate = Rate { since: Instant::now(), lines: 0 };
        }
        rate.lines += 1;
        if rate.lines <= LINES_MAX {
            tracing::info!(pickup, generation, pid = self.instance.main(), line, "output");
        }
    }

    /// Memory, and how many processors were busy since the last look.
    fn look(&self, used: &mut Option<(Instant, u64)>) {
        let instance = &self.instance;
        let members = proc::members(instance.leader, &instance.token);
        let page = rustix::param::page_size() as u64;
        let memory = members.iter().map(|(_, stat)| stat.pages * page).sum();
        let ticks: u64 = members.iter().map(|(_, stat)| stat.ticks).sum();
        let (since, before) = used.replace((Instant::now(), ticks)).unwrap_or((instance.born, 0));
        let seconds = ticks.saturating_sub(before) as f64 / rustix::param::clock_ticks_per_second() as f64;
        let load = seconds / since.elapsed().as_secs_f64().max(0.001);
        instance.say(Happening::Health { pid: instance.main(), memory, load, processes: members.len() });
    }

    /// It runs on without us.
    fn leave(mut self) {
        let mut rate = Rate { since: Instant::now(), lines: 0 };
        self.read(&mut rate, false);
    }

    async fn end(mut self, rate: &mut Rate) {
        let how = how_it_ended(self.process.get_ref());
        self.read(rate, false);
        self.instance.end_others().await;
        self.read(rate, true);
        // Kept until now, so that its number could not become another's.
        let leader = rustix::process::Pid::from_raw(self.instance.leader);
        let _not_ours = rustix::process::waitpid(leader, WaitOptions::NOHANG);
        let was_asked = self.instance.until.borrow().is_some();
        self.records.remove(&self.instance.token);
        self.instance.say(Happening::Stopped { pid: self.instance.main(), how: how.clone(), was_asked });
        self.instance.life.send_modify(|life| life.ended = Some(how));
    }
}

/// How the process ended; it stays a zombie. Of one that is not our child nobody tells us.
fn how_it_ended(process: &OwnedFd) -> String {
    use std::os::fd::AsFd;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let status = match waitid(WaitId::PidFd(process.as_fd()), options) {
        Ok(Some(status)) => status,
        Ok(None) | Err(Errno::CHILD) => return "it ended".into(),
        Err(error) => return format!("it ended, and how cannot be told: {error}"),
    };
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "it ended".into(),
    }
}
