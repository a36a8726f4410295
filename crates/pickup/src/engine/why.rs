//! One answer to "why did nothing happen": for any path, what became of it and what it waits for.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::pickup::{Pickup, RootState};
use crate::change::Content;
use crate::config::UnitKind;
use crate::path::UnitPath;
use crate::source::Place;
use crate::source::ignore::{Judged, Rules};

/// Why a path was, or was not, deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The pickup that answers.
    pub pickup: String,
    /// The path below its directory.
    pub path: UnitPath,
    /// The unit the path belongs to.
    pub unit: UnitPath,
    /// The verdict in a word, for programs.
    pub verdict: Verdict,
    /// The whole answer, a sentence each, the most important first.
    pub because: Vec<String>,
}

/// The verdicts of `why`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It is live as it is on disk.
    Live,
    /// A rule leaves it alone.
    Ignored,
    /// No pattern asks for it.
    NotMatched,
    /// It is there and never deployed, or cannot be judged.
    Refused,
    /// It waits to be complete, for company, or for its turn.
    Waiting,
    /// It failed.
    Failed,
    /// It is held back by a rollback, a pause of removals, or trouble.
    Held,
    /// It is not there.
    Missing,
}

impl Verdict {
    /// The words users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ignored => "ignored",
            Self::NotMatched => "not matched",
            Self::Refused => "refused",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Missing => "missing",
        }
    }
}

impl Pickup {
    /// Why `path` (absolute) was, or was not, deployed; `None` if it is not below this pickup.
    pub(super) fn explain(&self, path: &Path) -> Option<Explanation> {
        let place = self.place_of(path)?;
        let unit = self.unit_of(&place.path);
        let (verdict, mut because) = self.judge(&place, &unit, path);
        because.extend(self.git_sentences(place.root));
        Some(Explanation { pickup: self.config.name.clone(), path: place.path, unit, verdict, because })
    }

    fn place_of(&self, path: &Path) -> Option<Place> {
        if path.is_relative() {
            let root = self.roots.iter().position(|root| root.is_mirror)?;
            return Some(Place { root, path: UnitPath::new(path)? });
        }
        self.roots.iter().enumerate().find_map(|(root, known)| {
            let below = path.strip_prefix(&known.path).ok().or_else(|| path.strip_prefix(known.real()?).ok())?;
            Some(Place { root, path: UnitPath::new(below)? })
        })
    }

    fn judge(&self, place: &Place, unit: &UnitPath, path: &Path) -> (Verdict, Vec<String>) {
        if let RootState::Missing { reason } = &self.roots[place.root].state {
            return (Verdict::Missing, vec![format!("the pickup directory is not to be had: {reason}")]);
        }
        let (is_there, is_directory) = self.kind_at(place, path);
        if let Some((verdict, because)) = left_alone(&self.rules, place, is_directory) {
            return (verdict, vec![because]);
        }
        if let Some(reason) = self.refused.get(place) {
            return (Verdict::Refused, vec![reason.clone()]);
        }
        let mut because = Vec::new();
        if let Some(waiting) = self.settle.waiting(place) {
            because.push(format!("it waits: {waiting}"));
        }
        if let Some(failure) = self.failures.get(unit) {
            because.push(failure.sentence());
            return (Verdict::Failed, because);
        }
        if !because.is_empty() {
            because.extend(self.live_sentence(unit));
            return (Verdict::Waiting, because);
        }
        self.judge_complete(place, unit, is_there)
    }

    /// Whether anything is there, and whether it is a directory.
    fn kind_at(&self, place: &Place, path: &Path) -> (bool, bool) {
        if self.roots[place.root].is_mirror {
            return (self.count_below(place).is_some(), !self.known.contains_key(place));
        }
        #[expect(clippy::disallowed_methods, reason = "an answer about a path begins with whether it is there")]
        let metadata = std::fs::symlink_metadata(path);
        (metadata.is_ok(), metadata.is_ok_and(|metadata| metadata.is_dir()))
    }

    /// What there is to say of a path that is neither refused nor still written to.
    fn judge_complete(&self, place: &Place, unit: &UnitPath, is_there: bool) -> (Verdict, Vec<String>) {
        let mut because: Vec<String> = self.live_sentence(unit).into_iter().collect();
        let mut first = |sentence: String| because.insert(0, sentence);
        let verdict = if self.unrouted.contains_key(unit) {
            first("no deployer takes it".into());
            Verdict::Refused
        } else if let Some(shadow) = self.shadow(place) {
            first(format!("{} has a file of the same name, and comes first in `pickup_from`", shadow.display()));
            Verdict::Refused
        } else if self.paused.as_ref().is_some_and(|paused| paused.units.contains(unit)) {
            first("it is gone, and its removal waits for a confirmation: `pickupd sync --confirm-removals`".into());
            Verdict::Held
        } else if let Some(held) = self.held {
            first(format!("changes are held back: generation {held} is live until `pickupd release`"));
            Verdict::Held
        } else if self.in_hand.contains(unit) {
            first("it is being deployed".into());
            Verdict::Waiting
        } else if self.unseen.contains(place) {
            first("it was there at the start, and its turn to be looked at comes".into());
            Verdict::Waiting
        } else if self.gathering.contains(unit) {
            let at_work = self.follows.get(&place.root).and_then(|follow| follow.waiting.as_ref());
            first(match (&self.trouble, at_work) {
                (Some(trouble), _) => format!("it waits until this is over: {trouble}"),
                (None, Some((reason, _))) => format!("it waits for git: {reason}"),
                (None, None) => "it is complete and waits for its turn".into(),
            });
            Verdict::Waiting
        } else if !is_there {
            first("there is no such file".into());
            Verdict::Missing
        } else if self.live.contains_key(unit) || self.config.unit == UnitKind::Tree {
            Verdict::Live
        } else if let Some(below) = self.count_below(place) {
            first(format!("it is a directory; {below} files in it are known"));
            Verdict::Live
        } else {
            first("it has not been seen yet; `pickupd sync` looks at once".into());
            Verdict::Waiting
        };
        (verdict, because)
    }

    fn count_below(&self, place: &Place) -> Option<usize> {
        let below = self
            .known
            .range(place.clone()..)
            .take_while(|(known, _)| known.root == place.root && known.path.starts_with(&place.path));
        Some(below.count()).filter(|count| *count > 0)
    }

    fn shadow(&self, place: &Place) -> Option<PathBuf> {
        let other = |root| self.known.contains_key(&Place { root, path: place.path.clone() });
        let root = (0..place.root).find(|root| other(*root))?;
        Some(self.roots[root].path.clone())
    }

    fn live_sentence(&self, unit: &UnitPath) -> Option<String> {
        let deployers: Vec<&str> = self.deployers.iter().map(|bound| bound.name.as_str()).collect();
        Some(format!("live is {}, with {}", described(&self.live.get(unit)?), deployers.join(", ")))
    }
}

/// What the rules say of a path that they leave alone.
pub(super) fn left_alone(rules: &Rules, place: &Place, is_directory: bool) -> Option<(Verdict, String)> {
    match rules.judge(place.root, &place.path, is_directory) {
        Judged::Ignored { rule, from } => {
            Some((Verdict::Ignored, format!("it is ignored by the rule `{rule}` ({from})")))
        }
        Judged::NotMatched { patterns } if !is_directory => {
            Some((Verdict::NotMatched, format!("it matches none of the patterns {}", patterns.join(", "))))
        }
        Judged::TooDeep => {
            Some((Verdict::NotMatched, "it lies in a directory below, and `recursive` is false".to_owned()))
        }
        Judged::Taken | Judged::NotMatched { .. } => None,
    }
}

/// What is live, in words.
pub(super) fn described(content: &Content) -> String {
    let kind = match content {
        Content::File(_) => "file".to_owned(),
        Content::Tree(files) => format!("tree of {} files", files.len()),
    };
    format!("a {kind} of {} bytes, digest {}", content.size(), content.digest().short())
}

impl super::pickup::Failure {
    pub(super) fn sentence(&self) -> String {
        let next = match self.retry {
            Some(_) => "it is tried again by itself",
            None => "it is quarantined until it changes, or until `pickupd retry`",
        };
        format!("it failed {}, last with: {}; {next}", times(self.record.attempts), self.record.cause)
    }
}

/// `once`, `3 times`.
pub(super) fn times(number: u32) -> String {
    if number == 1 { "once".to_owned() } else { format!("{number} times") }
}
