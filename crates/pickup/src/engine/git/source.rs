//! A remote that is asked for whoever follows it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::inbox::Inbox;
use super::super::message::Message;
use super::super::shared::Shared;
use super::checks::{RETRY_INTERVAL, run};
use crate::config::{GitConfig, PickupConfig};
use crate::source::git::peek::Opened;
use crate::source::git::worker::{Access, Failure, Found, Shape, Wanted};

/// What one entry wants of a remote.
#[derive(Clone)]
pub(super) struct Wish {
    pub(super) inbox: Arc<Inbox<Message>>,
    pub(super) reference: Option<String>,
    /// `None`: not on a timer.
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Duration,
    /// Whether to ask when it joins, or only if there is no repository yet.
    pub(super) at_start: bool,
}

impl Wish {
    pub(super) fn new(pickup: &PickupConfig, git: &GitConfig, inbox: Arc<Inbox<Message>>) -> Self {
        let is_mirror = pickup.pickup_from.is_empty();
        let interval = git.auto_checkout.then_some(git.auto_checkout_interval);
        let (reference, timeout) = (git.reference.clone(), git.timeout);
        Self { inbox, reference, interval, timeout, at_start: is_mirror || git.auto_checkout }
    }

    /// Whether it can never lead elsewhere.
    fn is_pinned(&self) -> bool {
        self.reference.as_ref().is_some_and(|name| name.len() == 40 && name.bytes().all(|b| b.is_ascii_hexdigit()))
    }
}

/// What a follower is told.
#[derive(Clone, Debug)]
pub(in super::super) struct Checked {
    /// How many [asks](Following::ask) this answers.
    pub covers: u64,
    pub result: Result<Found, Failed>,
}

/// A check that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Failed {
    pub failure: Failure,
    /// How often in a row.
    pub attempts: u32,
    /// When it is tried again.
    pub retry_in: Option<Duration>,
}

/// One remote, reached in one way, and the repository of ours or a user's that it is fetched into.
pub(super) struct Source {
    pub(super) access: Access,
    pub(super) repository: PathBuf,
    pub(super) shape: Shape,
    pub(super) depth: u32,
    pub(super) state: Mutex<State>,
    pub(super) asked: Notify,
    /// How often in a row a survey had no answer for it.
    pub(super) unanswered: AtomicU32,
    /// The remote itself, if it is on this machine.
    pub(super) remote: Arc<Mutex<Opened>>,
    /// The clone itself, if its remote is elsewhere.
    pub(super) clone: Mutex<Opened>,
    /// Cancelled when nobody follows it any more.
    pub(super) over: CancellationToken,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) next_follower: u64,
    pub(super) followers: BTreeMap<u64, Follower>,
    /// How many checks were asked for, and how many of these are answered.
    pub(super) asks: u64,
    pub(super) answered: u64,
    pub(super) due: Option<Instant>,
    pub(super) failed: Option<Failed>,
    /// The secrets as they were when the remote refused them.
    pub(super) refused_secrets: Option<Vec<Option<SystemTime>>>,
    pub(super) seen: Seen,
}

pub(super) struct Follower {
    pub(super) wish: Wish,
    pub(super) last: Option<Found>,
    /// Whether the last it was told is a failure.
    pub(super) has_failed: Option<Failure>,
}

/// What there is to say about a source.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Milliseconds since the Unix epoch.
    pub last_reached: Option<i64>,
    pub last_moved: Option<i64>,
    pub next_check: Option<i64>,
    /// How far the check that is running has come.
    pub checking: Option<String>,
}

/// Somebody follows a source, until this is dropped.
pub(in super::super) struct Following {
    source: Arc<Source>,
    id: u64,
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut state = self.source.state();
        state.followers.remove(&self.id);
        if state.followers.is_empty() {
            self.source.over.cancel();
        }
    }
}

impl Following {
    /// Asks for a check now; its [answer](Checked::covers) has this number or a higher one.
    pub(in super::super) fn ask(&self) -> u64 {
        self.source.ask()
    }

    pub(super) fn seen(&self) -> Seen {
        self.source.state().seen.clone()
    }
}

impl Source {
    pub(super) fn new(access: Access, repository: PathBuf, shape: Shape, depth: u32) -> Self {
        let (state, asked, over) = (Mutex::default(), Notify::new(), CancellationToken::new());
        let (unanswered, remote, clone) = (AtomicU32::new(0), Arc::default(), Mutex::default());
        Self { access, repository, shape, depth, state, asked, unanswered, remote, clone, over }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_for(&self, access: &Access, repository: &Path, depth: u32) -> bool {
        self.access == *access && self.repository == repository && self.depth == depth
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    pub(super) fn ask(&self) -> u64 {
        let mut state = self.state();
        state.asks += 1;
        self.asked.notify_one();
        state.asks
    }

    /// One more who follows; `None` if the last one has just left.
    pub(super) fn join(self: &Arc<Self>, shared: &Shared, wish: Wish) -> Option<Following> {
        let mut state = self.state();
        if self.is_over() {
            return None;
        }
        if wish.at_start || !is_clone(&self.repository) {
            state.due = Some(shared.now());
        } else if let Some(interval) = wish.interval {
            let due = shared.now() + interval;
            state.due = Some(state.due.map_or(due, |known| known.min(due)));
        }
        state.next_follower += 1;
        let id = state.next_follower;
        state.followers.insert(id, Follower { wish, last: None, has_failed: None });
        self.asked.notify_one();
        drop(state);
        Some(Following { source: self.clone(), id })
    }

    /// The first who follows: from now on the remote is asked.
    pub(super) fn start(self: &Arc<Self>, shared: &Arc<Shared>, wish: Wish) -> Following {
        let mut state = self.state();
        state.due = (wish.at_start || !is_clone(&self.repository)).then(|| shared.now());
        state.next_follower = 1;
        state.followers.insert(1, Follower { wish, last: None, has_failed: None });
        drop(state);
        shared.runtime.spawn(run(shared.clone(), self.clone()));
        Following { source: self.clone(), id: 1 }
    }

    /// Whether a check is to begin now; else when to look again.
    pub(super) fn is_due(&self, now: Instant) -> Result<(), Option<Instant>> {
        let state = self.state();
        match state.due {
            _ if state.asks > state.answered => Ok(()),
            Some(due) if due <= now => Ok(()),
            Some(due) if state.refused_secrets.is_some() => {
                // A new secret is tried as soon as the timer would have.
                let interval = state.interval().unwrap_or(RETRY_INTERVAL);
                if state.refused_secrets != Some(self.secrets()) { Ok(()) } else { Err(Some(due.min(now + interval))) }
            }
            due => Err(due),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "whether a secret was exchanged is told from its file's time")]
    pub(super) fn secrets(&self) -> Vec<Option<SystemTime>> {
        let files = [&self.access.password_file, &self.access.ssh_key, &self.access.known_hosts];
        let changed = |path: &PathBuf| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
        files.into_iter().flatten().map(changed).collect()
    }
}

impl State {
    /// What is to be asked for, each once.
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        let mut wanted: Vec<Wanted> = Vec::new();
        for follower in self.followers.values() {
            let wish = Wanted { reference: follower.wish.reference.clone() };
            if !wanted.contains(&wish) {
                wanted.push(wish);
            }
        }
        wanted
    }

    /// The shortest interval of those who still wait for something to move.
    pub(super) fn interval(&self) -> Option<Duration> {
        let waits = |follower: &&Follower| !(follower.wish.is_pinned() && follower.last.is_some());
        self.followers.values().filter(waits).filter_map(|follower| follower.wish.interval).min()
    }
}

#[expect(clippy::disallowed_methods, reason = "a clone that is missing is made at once")]
fn is_clone(path: &Path) -> bool {
    path.join(".git").exists()
}
