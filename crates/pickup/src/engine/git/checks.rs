//! When a remote is asked, and who is told: at most one check running and one pending for each source.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::super::message::Message;
use super::super::shared::Shared;
use super::source::{Checked, Failed, Source};
use crate::config::GitTransport;
use crate::source::git::peek;
use crate::source::git::worker::{Call, Check, Failure, FailureKind, Found, Progress, Reply, Request, Shape, Wanted};

/// The interval of retries where no timer was asked for.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// The longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);
/// The shortest and the longest pause after a refusal of who we are: each try may count against the account.
const REFUSED_PAUSE_MIN: Duration = Duration::from_secs(60);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(3600);
/// The first pause where somebody else is at work in the repository.
const BUSY_PAUSE_MIN: Duration = Duration::from_secs(1);
/// How often a survey may have no answer for a remote before it is asked alone for good.
const UNANSWERED_MAX: u32 = 3;
/// Checks fall due at multiples of this: those that fall close together are done together.
const STEP: Duration = Duration::from_millis(100);
/// How many packs a mirror may have before they are made one.
const PACKS_MAX: usize = 20;

impl Source {
    /// Asks the remote once and tells everybody.
    pub(super) async fn check(self: &Arc<Self>, shared: &Arc<Shared>) {
        let (mut asks, mut wanted, timeout) = self.question();
        let (result, permit) = match self.peek(shared, &wanted, timeout).await {
            Some(still) => (still, None),
            None => {
                let permit = tokio::select! {
                    () = self.over.cancelled() => return,
                    permit = shared.git.permits.acquire() => permit,
                };
                // Who asked meanwhile is answered as well.
                let timeout;
                (asks, wanted, timeout) = self.question();
                self.state().seen.checking = Some("asking the remote".into());
                let asked = tokio::time::timeout(timeout, self.ask_remote(shared, &wanted, timeout)).await;
                let result = asked.unwrap_or_else(|_| {
                    let message = format!("finish within {} s", timeout.as_secs());
                    Err(Failure { kind: FailureKind::Timeout, message })
                });
                (result, Some(permit))
            }
        };
        if self.is_over() {
            return;
        }
        let moved = self.tell(shared, asks, &wanted, result);
        if moved && permit.is_some() && self.shape == Shape::Mirror {
            self.keep_small(shared, timeout).await;
        }
    }

    /// How many checks were asked for so far, what is wanted, and how long an answer may take.
    fn question(&self) -> (u64, Vec<Wanted>, Duration) {
        let state = self.state();
        let timeout = state.followers.values().map(|follower| follower.wish.timeout).max();
        (state.asks, state.wanted(), timeout.unwrap_or(RETRY_INTERVAL))
    }

    /// What a look at the remote tells, if that is enough: nothing has moved, or it cannot be asked.
    async fn peek(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        wanted: &[Wanted],
        timeout: Duration,
    ) -> Option<Result<Vec<Found>, Failure>> {
        let (last, is_asked_for) = {
            let state = self.state();
            if state.failed.is_some() {
                return None;
            }
            let last = |wanted: &Wanted| {
                let mut same = state.followers.values().filter(|follower| follower.wish.reference == wanted.reference);
                same.find_map(|follower| follower.last.clone())
            };
            (wanted.iter().map(last).collect::<Option<Vec<Found>>>()?, state.asks > state.answered)
        };
        match self.access.url.is_local() {
            Some(remote) => self.peek_at(shared, remote, wanted.to_vec(), last).await.map(Ok),
            // Somebody who asks may have reason to: what we have is looked through as well.
            None if is_asked_for => None,
            None => self.look(shared, wanted.to_vec(), last, timeout).await,
        }
    }

    /// At one on this machine.
    async fn peek_at(
        &self,
        shared: &Shared,
        remote: PathBuf,
        wanted: Vec<Wanted>,
        last: Vec<Found>,
    ) -> Option<Vec<Found>> {
        let _permit = shared.git.permits.acquire().await.ok()?;
        let clone = (self.shape == Shape::Clone).then(|| self.repository.clone());
        let known = self.remote.clone();
        let peek = move || {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            known.is_still(&remote, clone.as_deref(), &wanted, &last).then_some(last)
        };
        shared.runtime.spawn_blocking(peek).await.ok().flatten()
    }

    /// At one elsewhere: it is asked where its references are, and nothing is done here.
    async fn look(
        &self,
        shared: &Shared,
        mut wanted: Vec<Wanted>,
        last: Vec<Found>,
        timeout: Duration,
    ) -> Option<Result<Vec<Found>, Failure>> {
        // The program makes a process for each question anyway.
        if self.access.transport == GitTransport::Cli || !last.iter().all(|found| matches!(found, Found::At { .. })) {
            return None;
        }
        match self.shape {
            Shape::Mirror if !peek::is_mirror(&self.repository) => return None,
            Shape::Mirror => {}
            Shape::Clone => self.expect_still(shared, &mut wanted, &last)?,
        }
        if let Some(found) = self.survey(shared, &wanted).await {
            return (found == last).then_some(Ok(last));
        }
        let _permit = shared.git.permits.acquire().await.ok()?;
        match shared.git.standing.look(self.access.clone(), wanted, timeout, &self.over).await {
            Ok(found) => (found == last).then_some(Ok(last)),
            Err(failure) => Some(Err(failure)),
        }
    }

    /// Together with others, if it is a remote that can be asked so.
    async fn survey(&self, shared: &Shared, wanted: &[Wanted]) -> Option<Vec<Found>> {
        let host = self.access.is_plain()?;
        if self.unanswered.load(Ordering::Relaxed) >= UNANSWERED_MAX {
            return None;
        }
        let call = Call { url: self.access.url.clone(), wanted: wanted.to_vec() };
        let found = shared.git.standing.survey(host, call, &self.over).await;
        match found {
            Some(_) => self.unanswered.store(0, Ordering::Relaxed),
            None => drop(self.unanswered.fetch_add(1, Ordering::Relaxed)),
        }
        found
    }

    /// That the clone is where the remote was when it was last asked.
    fn expect_still(&self, shared: &Shared, wanted: &mut [Wanted], last: &[Found]) -> Option<()> {
        // Without an address the clone's own is asked, which may have changed.
        if self.access.url.expose().is_empty() {
            return None;
        }
        let now = (shared.clock.wall)();
        let here = self.clone.lock().unwrap_or_else(PoisonError::into_inner).at_rest(&self.repository, now)?;
        for wanted in wanted.iter_mut().filter(|wanted| wanted.reference.is_none()) {
            wanted.reference = Some(here.followed.clone()?);
        }
        matches!(last.first(), Some(Found::At { commit, .. }) if *commit == here.commit).then_some(())
    }

    async fn ask_remote(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        wanted: &[Wanted],
        timeout: Duration,
    ) -> Result<Vec<Found>, Failure> {
        let mut wanted = wanted.to_vec();
        if self.shape == Shape::Clone {
            self.finish_pull(shared, timeout).await?;
            // A user's own clone follows what is checked out in it.
            for wanted in wanted.iter_mut().filter(|wanted| wanted.reference.is_none()) {
                wanted.reference = peek::checked_out(&self.repository)?;
            }
        }
        let check = Check {
            access: self.access.clone(),
            repository: self.repository.clone(),
            shape: self.shape,
            depth: self.depth,
            wanted,
        };
        let found = match self.work(shared, &Request::Check(check), timeout).await? {
            Reply::Checked { found, renewed } => {
                if let Some(why) = renewed {
                    tracing::warn!(remote = %self.access.url, why, "the mirror was made anew");
                }
                found
            }
            _ => return Err(nonsense()),
        };
        if self.shape == Shape::Clone
            && let Some(Found::At { commit, .. }) = found.first()
            && peek::head(&self.repository).as_ref() != Some(commit)
        {
            self.pull(shared, commit.clone(), timeout).await?;
        }
        Ok(found)
    }

    /// Moves the working tree forward. Meanwhile nothing is picked up from it.
    async fn pull(self: &Arc<Self>, shared: &Arc<Shared>, to: String, timeout: Duration) -> Result<(), Failure> {
        let git_dir = peek::git_dir(&self.repository)?;
        let _pull = shared.git.pull(git_dir);
        let advance = Request::Advance { repository: self.repository.clone(), to };
        match self.work(shared, &advance, timeout).await? {
            Reply::Advanced => Ok(()),
            _ => Err(nonsense()),
        }
    }

    /// A pull of ours that was cut off is finished before anything else: until then the working tree is half of it.
    async fn finish_pull(self: &Arc<Self>, shared: &Arc<Shared>, timeout: Duration) -> Result<(), Failure> {
        match peek::cut_off(&self.repository) {
            Some(to) => self.pull(shared, to, timeout).await,
            None => Ok(()),
        }
    }

    async fn work(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        request: &Request,
        timeout: Duration,
    ) -> Result<Reply, Failure> {
        let progress = |progress: Progress| self.state().seen.checking = Some(described(progress));
        match shared.git.worker.run(request, timeout, &self.over, progress).await? {
            Reply::Failed(failure) => Err(failure),
            reply => Ok(reply),
        }
    }

    /// A fetch makes a pack: from time to time they are made one.
    async fn keep_small(self: &Arc<Self>, shared: &Arc<Shared>, timeout: Duration) {
        if peek::packs(&self.repository) <= PACKS_MAX {
            return;
        }
        let repack = Request::Repack { repository: self.repository.clone() };
        if let Err(failure) = self.work(shared, &repack, timeout).await {
            tracing::warn!(remote = %self.access.url, cause = failure.message, "cannot repack the mirror");
        }
    }

    /// Says whether anything has moved.
    fn tell(&self, shared: &Shared, asks: u64, wanted: &[Wanted], result: Result<Vec<Found>, Failure>) -> bool {
        let (now, now_ms) = (shared.now(), shared.now_ms());
        let secrets = self.secrets();
        let state = &mut *self.state();
        let was_asked = asks > state.answered;
        state.answered = asks;
        state.seen.checking = None;
        let mut moved = false;
        match result {
            Ok(found) => {
                state.failed = None;
                state.refused_secrets = None;
                state.seen.last_reached = Some(now_ms);
                for follower in state.followers.values_mut() {
                    let at = wanted.iter().position(|wanted| wanted.reference == follower.wish.reference);
                    let Some(found) = at.and_then(|at| found.get(at)) else { continue };
                    let is_new = follower.last.as_ref() != Some(found);
                    let had_failed = follower.has_failed.take().is_some();
                    moved |= is_new;
                    if is_new || was_asked || had_failed {
                        follower.last = Some(found.clone());
                        let checked = Checked { covers: asks, result: Ok(found.clone()) };
                        follower.wish.inbox.message(Message::Checked(checked));
                    }
                }
                if moved {
                    state.seen.last_moved = Some(now_ms);
                }
                state.due = state.interval().map(|interval| now + in_step(now_ms, jittered(interval)));
            }
            Err(failure) => {
                let attempts = state.failed.as_ref().map_or(0, |failed| failed.attempts) + 1;
                let pause = pause(failure.kind, attempts, state.interval().unwrap_or(RETRY_INTERVAL));
                state.due = Some(now + jittered(pause));
                state.refused_secrets = (failure.kind == FailureKind::Authentication).then_some(secrets);
                let failed = Failed { failure: failure.clone(), attempts, retry_in: Some(pause) };
                state.failed = Some(failed.clone());
                for follower in state.followers.values_mut() {
                    let is_new = follower.has_failed.as_ref() != Some(&failure);
                    follower.has_failed = Some(failure.clone());
                    if is_new || was_asked {
                        let checked = Checked { covers: asks, result: Err(failed.clone()) };
                        follower.wish.inbox.message(Message::Checked(checked));
                    }
                }
            }
        }
        let until = state.due.map(|due| due.saturating_duration_since(now));
        state.seen.next_check = until.map(|until| now_ms + i64::try_from(until.as_millis()).unwrap_or(i64::MAX));
        moved
    }
}

/// Asks the remote whenever it is time, until nobody follows it.
pub(super) async fn run(shared: Arc<Shared>, source: Arc<Source>) {
    loop {
        while let Err(again) = source.is_due(shared.now()) {
            let wait = async {
                match again {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = source.over.cancelled() => return,
                () = source.asked.notified() => {}
                () = wait => {}
            }
        }
        source.check(&shared).await;
        if source.is_over() {
            return;
        }
    }
}

/// How long to wait after the `attempts`th failure in a row.
fn pause(kind: FailureKind, attempts: u32, interval: Duration) -> Duration {
    let doubled = |first: Duration, most: Duration| {
        let pause = first.saturating_mul(1 << (attempts - 1).min(16));
        pause.min(most.max(interval))
    };
    match kind {
        FailureKind::Authentication => doubled(interval.max(REFUSED_PAUSE_MIN), REFUSED_PAUSE_MAX),
        // It costs the remote nothing, and somebody is about to mend it.
        FailureKind::Refused => interval,
        FailureKind::Busy => doubled(BUSY_PAUSE_MIN.min(interval), interval),
        FailureKind::HostKey
        | FailureKind::NotFound
        | FailureKind::Unreachable
        | FailureKind::Timeout
        | FailureKind::TooLarge
        | FailureKind::Unsupported
        | FailureKind::Other => doubled(interval, PAUSE_MAX),
    }
}

/// Give or take a tenth, so that many who started together do not ask together.
fn jittered(interval: Duration) -> Duration {
    let chance = RandomState::new().hash_one(()) % 2001;
    // 0.9 to 1.1.
    interval.mul_f64(0.9 + 0.0001 * f64::from(u32::try_from(chance).unwrap_or(1000)))
}

/// `pause` from `now_ms` on, ended early with a step, but for one that is hardly longer than that.
fn in_step(now_ms: i64, pause: Duration) -> Duration {
    let step = STEP.as_millis();
    let end = u128::try_from(now_ms).unwrap_or(0) + pause.as_millis();
    if pause < 5 * STEP { pause } else { pause.saturating_sub(Duration::from_millis((end % step) as u64)) }
}

fn described(progress: Progress) -> String {
    let Progress { objects, objects_total, bytes } = progress;
    format!("{objects} of {objects_total} objects, {}", bytesize::ByteSize(bytes))
}

fn nonsense() -> Failure {
    Failure { kind: FailureKind::Other, message: "understand what the git worker answered".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_bound_and_those_after_a_refused_secret_are_longer() {
        let interval = Duration::from_secs(30);
        let seconds = |kind, attempts| pause(kind, attempts, interval).as_secs();
        assert_eq!([1, 2, 3, 6, 99].map(|n| seconds(FailureKind::Unreachable, n)), [30, 60, 120, 900, 900]);
        assert_eq!([1, 2, 7, 99].map(|n| seconds(FailureKind::Authentication, n)), [60, 120, 3600, 3600]);
        assert_eq!(seconds(FailureKind::Refused, 50), 30);
        let long = Duration::from_secs(7200);
        assert_eq!(pause(FailureKind::Unreachable, 3, long), long);
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        for _ in 0..1000 {
            let jittered = jittered(Duration::from_secs(100));
            assert!((Duration::from_secs(90)..=Duration::from_secs(111)).contains(&jittered), "{jittered:?}");
        }
    }
}
