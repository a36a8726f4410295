//! What there is to say about the repository of a pickup.

use super::super::pickup::Pickup;
use super::import::short;
use crate::source::git::GitStatus;

impl Pickup {
    /// What the answer to "why" has to say about the repository of a root.
    pub(in super::super) fn git_sentences(&self, root: usize) -> Vec<String> {
        let Some(follow) = self.follows.get(&root) else { return Vec::new() };
        let mut sentences = Vec::new();
        if let Some(seen) = &follow.seen {
            let branch = seen.branch.as_ref().map(|branch| format!(" of {branch}")).unwrap_or_default();
            sentences.push(format!(
                "the commit{branch} that is followed is {} \"{}\"",
                short(&seen.commit),
                seen.subject
            ));
        }
        if let Some(problem) = follow.problem() {
            sentences.push(format!("the repository cannot be followed: cannot {}", problem.cause));
        }
        sentences
    }

    /// Of the first root that is a repository.
    pub(in super::super) fn git_status(&self) -> Option<GitStatus> {
        let follow = self.follows.values().next()?;
        let seen = follow.following.as_ref().map(super::source::Following::seen).unwrap_or_default();
        let reference = follow.git.reference.clone();
        let follows = match (&reference, follow.seen.as_ref().and_then(|seen| seen.branch.as_ref())) {
            (Some(reference), Some(branch)) if reference == branch => branch.clone(),
            (Some(reference), _) => reference.clone(),
            (None, Some(branch)) => branch.clone(),
            (None, None) => "HEAD".to_owned(),
        };
        Some(GitStatus {
            remote: follow.git.url.as_ref().map(ToString::to_string),
            follows,
            auto_checkout: follow.git.auto_checkout,
            seen: follow.seen.clone(),
            live: self.live_revision.clone(),
            last_reached: seen.last_reached,
            last_moved: seen.last_moved,
            next_check: seen.next_check,
            checking: seen.checking,
            problem: follow.problem().cloned(),
            waiting: follow.waiting.as_ref().map(|(reason, _)| reason.clone()),
        })
    }
}
