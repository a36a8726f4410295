//! What is promised, one case each, and what a deployer must be able to do for the promise to mean anything.

use std::fmt;

/// Something that a deployer may honestly be unable to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ability {
    /// A revert takes back what was activated. A message that was sent cannot be taken back.
    Undo,
    /// What is live outlives the deployer and its process. Without it, what is live has to be deployed again after each
    /// restart, and `observe` has to say so: cases are not left out for want of this, but another outcome is expected.
    Outlive,
    /// `observe` notices that something is not live any more.
    Observe,
    /// `remove` takes away what is live.
    Remove,
}

macro_rules! cases {
    ($($(#[doc = $doc:literal])+ $case:ident needs [$($ability:ident),*] promises $promise:literal)+) => {
        /// One promise that is put to the test.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Case {
            $($(#[doc = $doc])+ $case,)+
        }

        impl Case {
            /// All of them, in the order they are run.
            pub const ALL: &[Self] = &[$(Self::$case),+];

            /// The promise, as a sentence without its full stop.
            pub fn promise(self) -> &'static str {
                match self { $(Self::$case => $promise,)+ }
            }

            /// What a deployer must be able to do for it; without one of these, the case is not applicable.
            pub fn needs(self) -> &'static [Ability] {
                match self { $(Self::$case => &[$(Ability::$ability),*],)+ }
            }
        }
    };
}

cases! {
    /// The plain way, twice.
    Deploys needs [] promises "what is deployed is live, and a new version takes its place"
    /// `check` is the dry run.
    CheckHasNoEffect needs [] promises "`check` changes nothing"
    /// Nobody sees what is only staged.
    StagedIsUnseen needs [] promises "what is staged beside the old version is not seen"
    /// A crash may lose the receipt of a stage, not what was staged.
    StageRepeats needs [] promises "a second `stage` takes the place of the first, and its revert leaves nothing of either"
    /// Receipts are facts that outlive the process.
    ReceiptsSurvive needs [] promises "receipts are the same after they were written as JSON and read"
    /// Activated twice with the same receipt.
    ActivateRepeats needs [] promises "a second `activate` with the same receipt changes nothing"
    /// Verified and retired twice.
    RetireRepeats needs [] promises "a second `verify` and a second `retire` change nothing"
    /// Reverted before it was activated.
    RevertsStaged needs [] promises "a revert before `activate` leaves the old version live"
    /// Reverted after it was activated.
    RevertsActivated needs [Undo] promises "a revert after `activate` makes the old version live again"
    /// Reverted after it was verified, because a later step failed.
    RevertsVerified needs [Undo] promises "a revert after `verify` makes the old version live again"
    /// Reverted where the old version has the same content, because somebody touched it.
    RevertsTouched needs [Undo] promises "a revert of the same content, deployed once more, leaves it live"
    /// Reverted where nothing was before.
    RevertsTheFirst needs [Undo] promises "a revert of the first version leaves nothing live"
    /// A version that fails.
    FailureLeavesTheOld needs [] promises "a version that fails leaves the old one live"
    /// Removed twice.
    RemoveRepeats needs [Remove] promises "a second `remove` succeeds, and what was removed can be deployed again"
    /// Observed after it was removed.
    RemovedIsNoticed needs [Observe, Remove] promises "`observe` does not call alive what was removed"
    /// Observed after somebody else took it away.
    TakenAwayIsNoticed needs [Observe] promises "`observe` does not call alive what somebody else took away, and a new deployment heals it"
    /// A crash before `activate`, then the revert.
    CrashStaged needs [] promises "after a crash before `activate`, a new deployer reverts without touching the old version"
    /// A crash before `activate`, then the activation.
    CrashGoesOn needs [] promises "after a crash before `activate`, a new deployer activates what was staged, or refuses and leaves the old version"
    /// A crash after `activate`, then the revert.
    CrashActivated needs [Undo] promises "after a crash after `activate`, a new deployer makes the old version live again"
    /// A crash after a revert that nobody recorded, then the revert again.
    CrashReverted needs [Undo] promises "after a crash after a revert, a new deployer reverts once more"
    /// A crash after the commit, then the retirement.
    CrashCommitted needs [] promises "after a crash after the commit, a new deployer retires the old version and the new one is live"
    /// A crash after a retirement that nobody recorded, then the retirement again.
    CrashRetired needs [] promises "after a crash after `retire`, a new deployer retires once more and the new version is live"
    /// A crash on either side of a removal.
    CrashRemoved needs [Remove] promises "a new deployer removes what an earlier one made live, and removes it once more after a crash"
    /// Cancelled before it begins, and while it goes on.
    CancelledEnds needs [] promises "a cancelled phase ends soon"
    /// Cancelled, then reverted.
    CancelledReverts needs [Undo] promises "a cancelled phase leaves something that can be reverted"
    /// `stage` dropped at each point where it waits.
    DroppedStage needs [] promises "a `stage` that is dropped half-way leaves the old version live, and can be repeated"
    /// `activate` dropped at each point where it waits.
    DroppedActivate needs [Undo] promises "an `activate` that is dropped half-way can be reverted"
    /// `revert` dropped at each point where it waits.
    DroppedRevert needs [Undo] promises "a `revert` that is dropped half-way can be repeated"
    /// `remove` dropped at each point where it waits.
    DroppedRemove needs [Remove] promises "a `remove` that is dropped half-way can be repeated"
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.promise())
    }
}
