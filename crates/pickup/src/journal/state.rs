//! The states of a group, and the one table of how it moves through them.

use std::fmt;

/// How far a group of steps has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum GroupState {
    /// Written down; anything may have been begun.
    Intended,
    /// Everything is prepared beside the old version; activation may have been begun.
    Staged,
    /// The new version is live and verified; the old one may still be about.
    Committed,
    /// The old version is let go.
    Retired,
    /// The old version is live again.
    Reverted,
    /// The way back failed too: somebody must look.
    Stuck,
}

/// What is recorded about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Record {
    Staged,
    Committed,
    Retired,
    Reverted,
    Stuck,
}

/// A record that does not follow from the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a group that is {from} cannot become {record}")]
pub(crate) struct IllegalTransition {
    pub from: GroupState,
    pub record: GroupState,
}

impl GroupState {
    /// The state after `record`: every legal transition, used by running and by recovery alike.
    pub(crate) fn next(self, record: Record) -> Result<Self, IllegalTransition> {
        match (self, record) {
            (Self::Intended, Record::Staged) => Ok(Self::Staged),
            (Self::Staged, Record::Committed) => Ok(Self::Committed),
            (Self::Committed, Record::Retired) => Ok(Self::Retired),
            // Whatever is not committed can go back, or fail to.
            (Self::Intended | Self::Staged, Record::Reverted) => Ok(Self::Reverted),
            (Self::Intended | Self::Staged, Record::Stuck) => Ok(Self::Stuck),
            // Recovery repeats what a crash may have cut off from its acknowledgement.
            (Self::Staged, Record::Staged)
            | (Self::Committed, Record::Committed)
            | (Self::Retired, Record::Retired)
            | (Self::Reverted, Record::Reverted)
            | (Self::Stuck, Record::Stuck) => Ok(self),
            // Nothing is live that was not prepared, a commit is never taken back, an end is an end.
            (Self::Intended, Record::Committed | Record::Retired)
            | (Self::Staged, Record::Retired)
            | (Self::Committed, Record::Staged | Record::Reverted | Record::Stuck)
            | (Self::Retired, Record::Staged | Record::Committed | Record::Reverted | Record::Stuck)
            | (Self::Reverted, Record::Staged | Record::Committed | Record::Retired | Record::Stuck)
            | (Self::Stuck, Record::Staged | Record::Committed | Record::Retired | Record::Reverted) => {
                Err(IllegalTransition { from: self, record: record.state() })
            }
        }
    }

    /// Whether nothing is left to do for the group.
    pub(crate) fn is_final(self) -> bool {
        match self {
            Self::Intended | Self::Staged | Self::Committed => false,
            Self::Retired | Self::Reverted | Self::Stuck => true,
        }
    }

    /// The word in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Staged => "staged",
            Self::Committed => "committed",
            Self::Retired => "retired",
            Self::Reverted => "reverted",
            Self::Stuck => "stuck",
        }
    }

    /// The state of that word.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        let all = [Self::Intended, Self::Staged, Self::Committed, Self::Retired, Self::Reverted, Self::Stuck];
        all.into_iter().find(|state| state.as_str() == word)
    }
}

impl Record {
    /// The state that the record asks for.
    fn state(self) -> GroupState {
        match self {
            Self::Staged => GroupState::Staged,
            Self::Committed => GroupState::Committed,
            Self::Retired => GroupState::Retired,
            Self::Reverted => GroupState::Reverted,
            Self::Stuck => GroupState::Stuck,
        }
    }
}

impl fmt::Display for GroupState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_committed(state: GroupState) -> bool {
        matches!(state, GroupState::Committed | GroupState::Retired)
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let all = [Record::Staged, Record::Committed, Record::Retired, Record::Reverted, Record::Stuck];
        prop::collection::vec(prop::sample::select(all.to_vec()), 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_group_ends_at_most_once_and_a_commit_is_never_taken_back(records in records()) {
            let mut state = GroupState::Intended;
            let mut passed = vec![state];
            for record in records {
                let Ok(next) = state.next(record) else { continue };
                prop_assert_eq!(next, record.state());
                prop_assert_eq!(next.next(record), Ok(next), "a repeated record changes nothing");
                prop_assert!(!state.is_final() || next == state);
                prop_assert!(!is_committed(state) || is_committed(next));
                if is_committed(next) {
                    prop_assert!(passed.contains(&GroupState::Staged));
                }
                passed.push(next);
                state = next;
            }
        }
    }

    #[test]
    fn each_state_has_its_own_word() {
        for state in [GroupState::Intended, GroupState::Retired, GroupState::Stuck] {
            assert_eq!(GroupState::from_word(state.as_str()), Some(state));
        }
        assert_eq!(GroupState::from_word("done"), None);
    }

    #[test]
    fn an_illegal_transition_says_what_was_tried() {
        let error = GroupState::Reverted.next(Record::Committed).unwrap_err();
        assert_eq!(error.to_string(), "a group that is reverted cannot become committed");
    }
}
