//! What there is to say about the repository of a pickup.

use super::super::pickup::Pickup;
use crate::source::git::GitStatus;

impl Pickup {
    /// Of the first root that is a repository.
    pub(in super::super) fn git_status(&self) -> Option<GitStatus> {
        let follow = self.follows.values().next()?;
        let seen = follow.following.as_ref().map(super::checks::Following::seen).unwrap_or_default();
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
