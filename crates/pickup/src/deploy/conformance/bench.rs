//! Where a case is carried out: a place, a deployer that lives there, and what was done so far.
#![expect(clippy::disallowed_methods, reason = "this is a door: it makes places on disk and reads the clock")]

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use serde::Deserialize;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::life::{Call, Life, Phase, Waiting};
use super::look::{Snapshot, in_order, in_words, seen, shown};
use super::report::Failure;
use super::{Ability, AnySubject, Case, Version};
use crate::change::ChangeKind;
use crate::deploy::{Context, Observed, Reporter, Unit};
use crate::error::{Error, IoContext, Result};

/// How much longer than a cancelled phase another one may take.
const DEADLINE_FACTOR: u32 = 4;

/// A place for one case at a time.
pub(super) struct Bench<'a> {
    subject: &'a dyn AnySubject,
    case: Case,
    /// How often a place was made for this case.
    round: usize,
    life: Option<Life>,
    /// Whether the deployer is not the first one over this place.
    is_restarted: bool,
    generation: u64,
    steps: Vec<String>,
}

/// Which version is deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Old,
    New,
    Failing,
    Slow,
}

/// One version on its way, and the receipts it got.
pub(super) struct Deed {
    pub(super) which: Which,
    unit: Unit,
    old: Option<Value>,
    pub(super) staged: Option<Value>,
    pub(super) live: Option<Value>,
    serves: Vec<u8>,
}

/// What is done in a case.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Does(Phase),
    /// The deployer ends without a word, and another one takes over.
    Crashes,
}

/// The phases of a deployment, in their order.
pub(super) const ALL: &[Step] = &[
    Step::Does(Phase::Check),
    Step::Does(Phase::Stage),
    Step::Does(Phase::Activate),
    Step::Does(Phase::Verify),
    Step::Does(Phase::Retire),
];

impl<'a> Bench<'a> {
    pub(super) fn new(subject: &'a dyn AnySubject, case: Case) -> Self {
        Self { subject, case, round: 0, life: None, is_restarted: false, generation: 0, steps: Vec::new() }
    }

    /// A directory of this case and round.
    fn directory(&self, name: &str) -> PathBuf {
        let round = format!("{:?}-{}", self.case, self.round);
        self.subject.settings().directory.join(round).join(name)
    }

    fn place(&self) -> PathBuf {
        self.directory("place")
    }

    fn scratch(&self, generation: u64) -> PathBuf {
        self.directory("scratch").join(generation.to_string())
    }

    /// Begins anew, in an empty place.
    pub(super) async fn renew(&mut self) -> Result<(), Failure> {
        if self.round > 0 {
            self.end(true).await;
        }
        self.round += 1;
        (self.generation, self.is_restarted) = (0, false);
        self.steps.clear();
        let place = self.place();
        // What an earlier run left for a look.
        let _gone = fs::remove_dir_all(self.directory(""));
        let made = fs::create_dir_all(&place).doing("make the directory", &place).and_then(|()| self.begin());
        made.map_err(|error| self.broken("a place and a deployer in it", format!("cannot {error}")))
    }

    fn begin(&mut self) -> Result<()> {
        let (subject, place) = (self.subject, self.place());
        self.life = Some(Life::begin(|| subject.make(&place))?);
        Ok(())
    }

    /// Ends the deployer in good order, and removes the place if it `is_done` with.
    pub(super) async fn end(&mut self, is_done: bool) {
        if self.life.is_some() {
            if let Ok(deed) = self.unit(Which::Old, None) {
                // Whatever was to be shown was shown.
                let _ended = self.call(Phase::Shutdown, &deed, Waiting::GoesOn).await;
            }
            self.end_life().await;
        }
        if is_done {
            let _gone = fs::remove_dir_all(self.directory(""));
        }
    }

    async fn end_life(&mut self) {
        if let Some(life) = self.life.take() {
            life.end().await;
        }
    }

    /// The deployer ends as in a crash, and another one takes over.
    async fn crash(&mut self) -> Result<(), Failure> {
        self.steps.push("crash".into());
        self.end_life().await;
        self.is_restarted = true;
        self.begin().map_err(|error| self.broken("a new deployer", format!("cannot {error}")))
    }

    pub(super) fn lacks(&self, ability: Ability) -> bool {
        self.subject.settings().lacks.contains_key(&ability)
    }

    /// Whether the subject has a version that is slow.
    pub(super) fn slow(&self) -> Which {
        if self.subject.settings().slow.is_some() { Which::Slow } else { Which::New }
    }

    fn version(&self, which: Which) -> &'a Version {
        let settings = self.subject.settings();
        match which {
            Which::Old => &settings.old,
            Which::New => &settings.new,
            Which::Failing => settings.failing.as_ref().unwrap_or(&settings.new),
            Which::Slow => settings.slow.as_ref().unwrap_or(&settings.new),
        }
    }

    fn unit(&self, which: Which, over: Option<&Deed>) -> Result<Deed> {
        let version = self.version(which);
        let Some(life) = &self.life else { return Err(Error::deploy("ask a deployer that is gone")) };
        let mut unit = version.unit(&self.directory("store"), life.deployer().scope(), self.generation)?;
        if let Some(over) = over {
            let is_same = over.unit.digest() == unit.digest();
            unit.change = if is_same { ChangeKind::Touched } else { ChangeKind::Modified };
            unit.previous = over.unit.digest();
            let changes = unit.changes.iter().cloned().map(|mut change| {
                (change.kind, change.previous) = (unit.change, unit.previous);
                change
            });
            unit.changes = changes.collect();
        }
        let old = over.and_then(|over| over.live.clone());
        Ok(Deed { which, unit, old, staged: None, live: None, serves: version.served().to_vec() })
    }

    /// A version that is to be deployed, over another one or over nothing.
    pub(super) fn deed(&mut self, which: Which, over: Option<&Deed>) -> Result<Deed, Failure> {
        self.generation += 1;
        self.unit(which, over).map_err(|error| self.broken("a unit", format!("cannot {error}")))
    }

    /// A version that was deployed in all phases.
    pub(super) async fn deployed(&mut self, which: Which, over: Option<&Deed>) -> Result<Deed, Failure> {
        let mut deed = self.deed(which, over)?;
        self.go(&mut deed, ALL).await?;
        self.sweep(&deed);
        Ok(deed)
    }

    /// What the engine does once a generation is retired.
    fn sweep(&self, deed: &Deed) {
        let _gone = fs::remove_dir_all(self.scratch(deed.unit.generation));
    }

    async fn call(&mut self, phase: Phase, deed: &Deed, waiting: Waiting) -> Option<Result<Value>> {
        let life = self.life.as_ref()?;
        let timeout = self.subject.settings().patience * DEADLINE_FACTOR;
        let mut cx = Context::new(self.scratch(deed.unit.generation), Instant::now(), timeout)
            .at_home(self.directory("home"), Reporter::default());
        if let Waiting::IsCancelled(cancel) = &waiting {
            cx = cx.cancelled_by(cancel);
        }
        let mut unit = deed.unit.clone();
        if phase == Phase::Remove {
            unit.previous = unit.digest();
            (unit.change, unit.content) = (ChangeKind::Removed, None);
            let changes = unit.changes.iter().cloned().map(|mut change| {
                change.previous = change.content.take().map(|content| content.digest());
                change.kind = ChangeKind::Removed;
                change
            });
            unit.changes = changes.collect();
        }
        let Deed { staged, live, old, .. } = deed;
        let call = Call { phase, cx, unit, staged: staged.clone(), live: live.clone(), old: old.clone() };
        life.call(call, waiting).await
    }

    /// Carries out a phase, and keeps the receipt it gives; `None` if it was dropped.
    pub(super) async fn tries(&mut self, phase: Phase, deed: &mut Deed, waiting: Waiting) -> Option<Result<()>> {
        let mut step = format!("{} {}", phase.as_str(), deed.which.as_str());
        match &waiting {
            Waiting::GoesOn => {}
            Waiting::IsDropped(polls) => step.push_str(&format!(" (dropped after poll {polls})")),
            Waiting::IsCancelled(cancel) if cancel.is_cancelled() => step.push_str(" (cancelled before)"),
            Waiting::IsCancelled(_) => step.push_str(" (cancelled when it waits)"),
        }
        self.steps.push(step);
        let ended = self.call(phase, deed, waiting).await?;
        Some(ended.map(|receipt| match phase {
            Phase::Stage => deed.staged = Some(through_text(receipt)),
            Phase::Activate => deed.live = Some(through_text(receipt)),
            _ => {}
        }))
    }

    /// Carries out steps that are to succeed.
    pub(super) async fn go(&mut self, deed: &mut Deed, steps: &[Step]) -> Result<(), Failure> {
        for step in steps {
            match step {
                Step::Crashes => self.crash().await?,
                Step::Does(phase) => {
                    let ended = self.tries(*phase, deed, Waiting::GoesOn).await;
                    if let Some(Err(error)) = ended {
                        return Err(self.broken("it succeeds", format!("cannot {error}")));
                    }
                }
            }
        }
        Ok(())
    }

    /// Carries out a phase that is cancelled before it begins or once it waits; fails if it does not end soon.
    pub(super) async fn cancels(&mut self, phase: Phase, deed: &mut Deed, before: bool) -> Result<bool, Failure> {
        let (cancel, patience) = (CancellationToken::new(), self.subject.settings().patience);
        if before {
            cancel.cancel();
        }
        match tokio::time::timeout(patience, self.tries(phase, deed, Waiting::IsCancelled(cancel))).await {
            Ok(ended) => Ok(matches!(ended, Some(Ok(())))),
            Err(_elapsed) => {
                let seen = format!("it still went on {patience:?} after it was cancelled");
                Err(self.broken("it ends soon", seen))
            }
        }
    }

    /// What is live is this: the deployer says so, and so does the world. Where what is live ends with the deployer and
    /// there was a crash, it is gone, and deployed again it is there.
    pub(super) async fn is_live(&mut self, deed: &Deed) -> Result<(), Failure> {
        if self.is_restarted && self.lacks(Ability::Outlive) {
            self.is_not_alive(deed).await?;
            self.nothing_is_served().await?;
            self.deploys(deed.which, Some(deed)).await?;
            return Ok(());
        }
        let observed = self.observe(deed).await?;
        if observed != Observed::Alive {
            return Err(self.broken("it to be alive", format!("it is {}", in_words(&observed))));
        }
        self.serves(deed).await
    }

    /// A version goes through all phases, and is live then.
    pub(super) async fn deploys(&mut self, which: Which, over: Option<&Deed>) -> Result<Deed, Failure> {
        let deed = self.deployed(which, over).await?;
        let observed = self.observe(&deed).await?;
        if observed != Observed::Alive {
            return Err(self.broken("it to be alive", format!("it is {}", in_words(&observed))));
        }
        self.serves(&deed).await?;
        Ok(deed)
    }

    /// The deployer notices that it is not live, if it is able to.
    pub(super) async fn is_not_alive(&mut self, deed: &Deed) -> Result<(), Failure> {
        if self.lacks(Ability::Observe) {
            return Ok(());
        }
        match self.observe(deed).await? {
            Observed::Alive => Err(self.broken("it to be drifted or gone", "it is alive".into())),
            Observed::Drifted(_) | Observed::Gone => Ok(()),
        }
    }

    async fn observe(&mut self, deed: &Deed) -> Result<Observed, Failure> {
        self.steps.push(format!("observe {}", deed.which.as_str()));
        let observed = self.call(Phase::Observe, deed, Waiting::GoesOn).await;
        let observed = observed.unwrap_or_else(|| Err(Error::deploy("ask a deployer that is gone")));
        let read = |value| Observed::deserialize(&value).map_err(|error| Error::deploy("read").caused_by(error));
        observed.and_then(read).map_err(|error| self.broken("an answer", format!("cannot {error}")))
    }

    /// The world sees this.
    pub(super) async fn serves(&mut self, deed: &Deed) -> Result<(), Failure> {
        let served = self.served().await;
        if served.as_deref() == Some(&deed.serves[..]) {
            return Ok(());
        }
        let expected = format!("{} ({}) to be served", shown(&deed.serves), deed.which.as_str());
        Err(self.broken(&expected, seen(served.as_deref())))
    }

    /// The world sees nothing.
    pub(super) async fn nothing_is_served(&mut self) -> Result<(), Failure> {
        match self.served().await {
            None => Ok(()),
            Some(served) => Err(self.broken("nothing to be served", seen(Some(&served)))),
        }
    }

    async fn served(&mut self) -> Option<Vec<u8>> {
        self.steps.push("look".into());
        let life = self.life.as_ref()?;
        self.subject.serving(life.deployer(), &self.place()).await
    }

    /// Somebody else takes away what is live.
    pub(super) async fn take_away(&mut self) {
        self.steps.push("take it away".into());
        if let Some(life) = &self.life {
            self.subject.take_away(life.deployer(), &self.place()).await;
        }
    }

    /// Each receipt says the same after it was read.
    pub(super) fn receipts_survive(&mut self, deed: &Deed) -> Result<(), Failure> {
        self.steps.push("read the receipts again".into());
        let Some(life) = &self.life else { return Ok(()) };
        let staged = deed.staged.as_ref().map(|staged| (staged, life.deployer().reread_staged(&staged.to_string())));
        let live = deed.live.as_ref().map(|live| (live, life.deployer().reread_live(&live.to_string())));
        for (written, read) in staged.into_iter().chain(live) {
            match read {
                Ok(read) if in_order(&read) == in_order(written) => {}
                Ok(read) => return Err(self.broken(&format!("{written}"), format!("it is read as {read}"))),
                Err(error) => return Err(self.broken(&format!("{written}"), format!("cannot {error}"))),
            }
        }
        Ok(())
    }

    /// Everything in the place; with scratch and home, too, where nothing is live that may write there.
    pub(super) fn snapshot(&self, is_whole: bool) -> Snapshot {
        let mut snapshot = Snapshot::of(&self.place());
        if is_whole {
            snapshot.add(&self.directory("scratch"));
            snapshot.add(&self.directory("home"));
        }
        snapshot
    }

    /// The place is as it was.
    pub(super) fn is_as_before(&self, before: &Snapshot, is_whole: bool) -> Result<(), Failure> {
        match before.difference(&self.snapshot(is_whole)) {
            None => Ok(()),
            Some(difference) => Err(self.broken("no other files than before", difference)),
        }
    }

    /// A promise is broken here.
    pub(super) fn broken(&self, expected: &str, seen: String) -> Failure {
        Failure { steps: self.steps.clone(), expected: expected.into(), seen, place: self.directory("") }
    }
}

impl Which {
    fn as_str(self) -> &'static str {
        match self {
            Self::Old => "old",
            Self::New => "new",
            Self::Failing => "failing",
            Self::Slow => "slow",
        }
    }
}

/// A receipt as it comes back from the journal. One that cannot be read there is seen by the next phase.
fn through_text(receipt: Value) -> Value {
    serde_json::from_str(&receipt.to_string()).unwrap_or(Value::Null)
}
