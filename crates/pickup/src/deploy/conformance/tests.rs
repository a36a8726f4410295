#![expect(clippy::disallowed_methods, reason = "the deployers under test work on files")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::yield_now;

use super::*;
use crate::deploy::{Context, Observed, Unit};
use crate::error::{Error, IoContext, Result};

/// What is wrong with a deployer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Nothing,
    RevertDoesNothing,
    RevertLeavesWhatWasStaged,
    SecondActivateAppends,
    ActivateIsHalfDoneWhenDropped,
    ReceiptForgets,
    ReceiptIsAHandle,
    SecondRemoveFails,
    RemoveDoesNothing,
    CancellationIsIgnored,
    CheckWrites,
    StageIsSeen,
    ObserveIsBlind,
    LiveIsKeptInScratch,
}

/// Keeps one file live, as plainly as it can be done right; and then with a flaw.
struct Plain {
    place: PathBuf,
    flaw: Flaw,
    has_activated: AtomicBool,
}

#[derive(Serialize, Deserialize)]
struct Staged {
    next: PathBuf,
    before: PathBuf,
    has_old: bool,
}

#[derive(Serialize, Deserialize)]
struct Live {
    text: String,
    #[serde(skip_deserializing)]
    forgotten: Option<String>,
}

impl Plain {
    fn new(place: &Path, flaw: Flaw) -> Self {
        Self { place: place.into(), flaw, has_activated: AtomicBool::new(false) }
    }

    fn live(&self) -> PathBuf {
        self.place.join("live")
    }

    fn read(unit: &Unit) -> Result<String> {
        unit.file().ok_or_else(|| Error::deploy("read no file"))?.read_to_string()
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).doing("write", path)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).doing("rename", from)
}

fn unlink(path: &Path) -> Result<()> {
    if path.exists() { std::fs::remove_file(path).doing("remove", path) } else { Ok(()) }
}

impl Deployer for Plain {
    type Staged = Staged;
    type Live = Live;

    async fn check(&self, _cx: &Context, _unit: &Unit, _old: Option<&Live>) -> Result<()> {
        if self.flaw == Flaw::CheckWrites { write(&self.place.join("checked"), "") } else { Ok(()) }
    }

    async fn stage(&self, _cx: &Context, unit: &Unit, old: Option<&Live>) -> Result<Staged> {
        let text = Self::read(unit)?;
        let next = self.place.join(format!("next-{}", unit.generation));
        yield_now().await;
        write(&next, &text)?;
        if self.flaw == Flaw::StageIsSeen {
            write(&self.live(), &text)?;
        }
        Ok(Staged { next, before: self.place.join(format!("before-{}", unit.generation)), has_old: old.is_some() })
    }

    async fn activate(&self, cx: &Context, unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<Live> {
        let (text, live) = (Self::read(unit)?, self.live());
        if text == "slow" {
            if self.flaw == Flaw::CancellationIsIgnored {
                std::future::pending::<()>().await;
            }
            cx.cancelled().await;
            return Err(Error::deploy("go on: it was cancelled"));
        }
        match (staged.next.exists(), self.flaw) {
            (true, Flaw::ActivateIsHalfDoneWhenDropped) => {
                let before = std::fs::read_to_string(&live).ok();
                unlink(&live)?;
                yield_now().await;
                before.map_or(Ok(()), |before| write(&staged.before, &before))?;
                rename(&staged.next, &live)?;
            }
            (true, _) => {
                if live.exists() {
                    std::fs::copy(&live, &staged.before).doing("copy", &live)?;
                }
                yield_now().await;
                rename(&staged.next, &live)?;
            }
            (false, Flaw::SecondActivateAppends) => write(&live, &text.repeat(2))?,
            (false, _) => {}
        }
        if self.flaw == Flaw::LiveIsKeptInScratch {
            std::fs::create_dir_all(cx.scratch()).doing("make", cx.scratch())?;
            let kept = cx.scratch().join("live");
            write(&kept, &text)?;
            unlink(&live)?;
            std::os::unix::fs::symlink(kept, &live).doing("link", &live)?;
        }
        self.has_activated.store(true, Ordering::Relaxed);
        let forgotten = (self.flaw == Flaw::ReceiptForgets).then(|| "me".into());
        Ok(Live { text, forgotten })
    }

    async fn verify(&self, _cx: &Context, _unit: &Unit, live: &Live) -> Result<()> {
        if live.text == "bad" { Err(Error::deploy("live with it: it is bad")) } else { Ok(()) }
    }

    async fn revert(&self, _cx: &Context, _unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<()> {
        if self.flaw == Flaw::RevertDoesNothing {
            return Ok(());
        }
        yield_now().await;
        if staged.before.exists() {
            rename(&staged.before, &self.live())?;
        } else if !staged.has_old {
            unlink(&self.live())?;
        }
        if self.flaw == Flaw::RevertLeavesWhatWasStaged { Ok(()) } else { unlink(&staged.next) }
    }

    async fn retire(&self, _cx: &Context, _unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<()> {
        unlink(&staged.before)
    }

    async fn remove(&self, _cx: &Context, _unit: &Unit, _live: &Live) -> Result<()> {
        match self.flaw {
            Flaw::SecondRemoveFails => std::fs::remove_file(self.live()).doing("remove", self.live()),
            Flaw::RemoveDoesNothing => Ok(()),
            _ => unlink(&self.live()),
        }
    }

    async fn observe(&self, _cx: &Context, live: &Live) -> Result<Observed> {
        let is_forgotten = self.flaw == Flaw::ReceiptIsAHandle && !self.has_activated.load(Ordering::Relaxed);
        Ok(match std::fs::read_to_string(self.live()) {
            _ if self.flaw == Flaw::ObserveIsBlind => Observed::Alive,
            Ok(text) if text == live.text && !is_forgotten => Observed::Alive,
            Ok(_) => Observed::Drifted("it is another".into()),
            Err(_) => Observed::Gone,
        })
    }
}

fn subject(directory: &Path, flaw: Flaw) -> Subject<Plain> {
    Subject::new(
        directory,
        move |place| Plain::new(place, flaw),
        async |_, place| std::fs::read(place.join("live")).ok(),
    )
    .failing(Version::file("app.txt", "bad"))
    .slow(Version::file("app.txt", "slow"))
    .taken_away_by(async |_, place| std::fs::remove_file(place.join("live")).unwrap())
}

/// The cases that a deployer with this flaw fails, and the report that says so.
async fn failed(flaw: Flaw) -> (Vec<Case>, Report) {
    let directory = tempfile::tempdir().unwrap();
    let report = run(&subject(directory.path(), flaw)).await;
    (report.failures().map(|(case, _)| case).collect(), report)
}

#[tokio::test]
async fn a_deployer_without_flaw_passes_every_case() {
    let directory = tempfile::tempdir().unwrap();
    let report = run(&subject(directory.path(), Flaw::Nothing)).await;
    assert!(report.is_conforming(), "{report}");
    assert_eq!(report.not_applicable().count(), 0, "{report}");
    assert_eq!(report.to_string().lines().count(), Case::ALL.len());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "what passed leaves nothing");
}

#[tokio::test]
async fn a_revert_that_does_nothing_is_found_at_every_point() {
    let (failed, report) = failed(Flaw::RevertDoesNothing).await;
    for case in [
        Case::StageRepeats,
        Case::RevertsStaged,
        Case::RevertsActivated,
        Case::RevertsVerified,
        Case::RevertsTheFirst,
        Case::FailureLeavesTheOld,
        Case::CrashStaged,
        Case::CrashActivated,
        Case::CrashReverted,
        Case::DroppedActivate,
        Case::DroppedRevert,
    ] {
        assert!(failed.contains(&case), "{case:?}:\n{report}");
    }
}

#[tokio::test]
async fn each_flaw_is_found_where_it_is() {
    let each: &[(Flaw, &[Case])] = &[
        (Flaw::RevertLeavesWhatWasStaged, &[Case::StageRepeats, Case::RevertsStaged, Case::CrashStaged]),
        (Flaw::SecondActivateAppends, &[Case::ActivateRepeats]),
        (Flaw::ActivateIsHalfDoneWhenDropped, &[Case::DroppedActivate]),
        (Flaw::ReceiptForgets, &[Case::ReceiptsSurvive]),
        (
            Flaw::ReceiptIsAHandle,
            &[Case::CrashStaged, Case::CrashActivated, Case::CrashReverted, Case::CrashCommitted, Case::CrashRetired],
        ),
        (Flaw::SecondRemoveFails, &[Case::RemoveRepeats, Case::CrashRemoved, Case::DroppedRemove]),
        (
            Flaw::RemoveDoesNothing,
            &[Case::RemoveRepeats, Case::RemovedIsNoticed, Case::CrashRemoved, Case::DroppedRemove],
        ),
        (Flaw::CheckWrites, &[Case::CheckHasNoEffect]),
        (Flaw::ObserveIsBlind, &[Case::RemovedIsNoticed, Case::TakenAwayIsNoticed]),
    ];
    for (flaw, cases) in each {
        let (failed, report) = failed(*flaw).await;
        assert_eq!(failed, *cases, "{flaw:?}:\n{report}");
    }
    for (flaw, case) in [(Flaw::StageIsSeen, Case::StagedIsUnseen), (Flaw::LiveIsKeptInScratch, Case::Deploys)] {
        let (failed, report) = failed(flaw).await;
        assert!(failed.contains(&case), "{flaw:?}:\n{report}");
    }
}

#[tokio::test]
async fn a_phase_that_ignores_cancellation_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let subject = subject(directory.path(), Flaw::CancellationIsIgnored).patience(Duration::from_millis(300));
    let report = run(&subject).await;
    let (_, failure) = report.failures().find(|(case, _)| *case == Case::CancelledEnds).expect("it fails");
    assert_eq!(failure.steps.last().unwrap(), "activate slow (cancelled before)");
    assert_eq!(failure.seen, "it still went on 300ms after it was cancelled");
}

#[tokio::test]
async fn a_failure_says_what_was_done_expected_and_seen_and_where() {
    let directory = tempfile::tempdir().unwrap();
    let report = run(&subject(directory.path(), Flaw::SecondActivateAppends)).await;
    let (case, failure) = report.failures().next().unwrap();
    let steps = failure.steps.join(", ");
    assert!(steps.ends_with("activate new, activate new, verify new, retire new, observe new"), "{steps}");
    assert_eq!((failure.expected.as_str(), failure.seen.as_str()), ("it to be alive", "it is drifted: it is another"));
    assert_eq!(std::fs::read_to_string(failure.place.join("place/live")).unwrap(), "twotwo");
    assert!(report.to_string().contains(&format!("\nFAILED: {case}: check old, ")), "{report}");
}

#[tokio::test]
async fn what_is_not_applicable_is_said_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let subject = Subject::new(
        directory.path(),
        |place| Plain::new(place, Flaw::RevertDoesNothing),
        async |_, place| std::fs::read(place.join("live")).ok(),
    );
    let report = run(&subject.without(Ability::Undo, "it sends letters")).await;
    let reasons: Vec<_> = report.not_applicable().collect();
    assert!(reasons.contains(&(Case::RevertsActivated, "it sends letters")), "{report}");
    assert!(reasons.contains(&(Case::FailureLeavesTheOld, "the subject has no failing version")), "{report}");
    assert!(report.to_string().contains("\nnot applicable: a revert after `activate`"), "{report}");
    assert_eq!(report.entries.len(), Case::ALL.len());
}
