//! Stages 1 to 3 of one pickup: a hint or a listing, a look, a verdict, a capture.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::path::Path;
use std::time::{Duration, Instant};

use super::known::Known;
use super::links;
use super::pickup::Pickup;
use crate::capture::Digest;
use crate::capture::store::Captured;
use crate::change::gather::Noted;
use crate::config::{Symlinks, UnitKind};
use crate::error::Result;
use crate::path::UnitPath;
use crate::settle::{Seen, Verdict};
use crate::source::ignore::Judged;
use crate::source::probe::{Before, Glimpse, Read};
use crate::source::watch::Notice;
use crate::source::{Fingerprint, Hint, Place, Shape, Sight, Writer};

#[cfg(all(test, target_os = "linux"))]
#[expect(clippy::disallowed_methods, reason = "the tests are the writers")]
mod tests;

/// How soon a look that failed for a reason outside the file is tried again.
const RELOOK: Duration = Duration::from_secs(1);
/// In so many directories after the one that is listed next a watch is set together with its own.
const WATCHED_AHEAD: usize = 7;
/// How many of the files listed at the start are looked at in one go.
const UNSEEN_AT_ONCE: usize = 128;
/// How often a file that was just closed is looked at before it is waited for.
const CLOSING_LOOKS: usize = 16;
/// Two writes closer together than this may leave the same times behind on older kernels (git's racy-clean rule).
const RACY: i64 = 20_000_000;
/// A touch sets the modification time to now; restoring an old time does not.
const TOUCH: i64 = 1_000_000_000;

/// What an `lstat` tells about a name.
enum Kind {
    /// With what was seen of it, if it is a regular file.
    File(Option<Fingerprint>),
    Directory,
    Symlink,
    Nothing,
}

impl Pickup {
    /// Works off the hints that gathered, each path once.
    pub(super) fn hear(&mut self, now: Instant, notices: Vec<Notice>) {
        let mut hints: Vec<(Place, Option<Hint>)> = Vec::new();
        for notice in notices {
            match notice {
                // Those about one file mostly come in a row.
                Notice::Entry { place, hint } => match hints.last_mut() {
                    Some((last, known)) if *last == place => *known = stronger(*known, hint),
                    Some(_) | None => hints.push((place, hint)),
                },
                Notice::Anchor { root, is_exchanged } => {
                    if self.root_moved(now, root, is_exchanged) {
                        // All of it has been seen, and the removal of each file was no wish.
                        hints.retain(|(place, _)| place.root != root);
                    }
                }
                Notice::Repository { root } => self.told_of_repository(root),
                Notice::Overflow => {
                    let reason = "the kernel's event queue overflowed";
                    tracing::warn!(pickup = self.config.name, "{reason}; everything is compared again");
                    let kind = crate::event::EventKind::Rescanning { reason: reason.into() };
                    self.shared.publish(&self.config.name, kind);
                    self.rescan_all(now);
                    // The rescan has seen all of it.
                    hints.clear();
                }
            }
        }
        hints.sort_by(|(one, _), (other, _)| one.cmp(other));
        hints.dedup_by(|(place, hint), (first, known)| {
            let is_same = place == first;
            if is_same {
                *known = stronger(*known, *hint);
            }
            is_same
        });
        // What goes may have to go first, and removals are judged together: then all of it is heard before anything is done.
        let is_growing = hints.iter().all(|(_, hint)| hint.is_some());
        let mut rest = hints.as_slice();
        while let Some(((place, hint), next)) = rest.split_first() {
            self.heard(now, place.clone(), *hint, next);
            (self.hints_left, rest) = (next.len(), next);
            if is_growing {
                self.keep_lane_busy();
            }
        }
        self.watched.clear();
        self.shared.watcher.forget_left();
    }

    /// Acts on one hint; `next` are those that come after it.
    fn heard(&mut self, now: Instant, place: Place, hint: Option<Hint>, next: &[(Place, Option<Hint>)]) {
        let Some(real) = self.roots[place.root].real().cloned() else { return };
        let leading_here = self.links.leading_to(|| real.join(place.path.as_path()));
        self.heard_name(now, &real, place, hint, next);
        for link in leading_here {
            self.look(now, link, hint.unwrap_or(Hint::Scan));
        }
    }

    fn heard_name(
        &mut self,
        now: Instant,
        real: &Path,
        place: Place,
        hint: Option<Hint>,
        next: &[(Place, Option<Hint>)],
    ) {
        if place.path.is_root() {
            // The root itself was moved, removed, or its attributes changed.
            self.root_moved(now, place.root, !matches!(hint, Some(Hint::Attributes)));
            return;
        }
        let absolute = real.join(place.path.as_path());
        match kind_of(&absolute) {
            Kind::Directory if self.rules.takes(place.root, &place.path, true) => {
                // Its watch may be that of a former directory of this name: it is set anew in any case.
                if !self.watched.contains(&place) {
                    self.watch_ahead(&place, next);
                }
                self.scan_below(now, &place, hint.unwrap_or(Hint::Scan));
            }
            Kind::Directory => {}
            // What lies behind a symlink changes without a word when the symlink does.
            Kind::Symlink if leads_to_directory(&absolute) => self.rescan_root(now, place.root),
            kind @ (Kind::Symlink | Kind::File(_)) => {
                let is_rules = place.path.file_name().is_some_and(|name| name == crate::source::ignore::PICKUPIGNORE);
                if is_rules {
                    return self.rescan_root(now, place.root);
                }
                let seen = if let Kind::File(seen) = kind { seen } else { None };
                let glimpse = seen.as_ref().map(|seen| Glimpse { fingerprint: Some(seen), ..Glimpse::default() });
                self.look_again(now, place, hint.unwrap_or(Hint::Scan), glimpse);
            }
            Kind::Nothing => {
                let is_rules = place.path.file_name().is_some_and(|name| name == crate::source::ignore::PICKUPIGNORE);
                self.gone_below(now, &place, true);
                if is_rules {
                    self.rescan_root(now, place.root);
                }
            }
        }
    }

    /// Stands watch in a directory that was told of and in the next ones: to be watched is to wait for another thread, which may
    /// take longer than to list a directory does. Each is listed within moments; if another takes its name until then, that is
    /// told of, too.
    fn watch_ahead(&mut self, first: &Place, next: &[(Place, Option<Hint>)]) {
        let told = next.iter().take(WATCHED_AHEAD).filter(|(_, hint)| hint.is_some()).map(|(place, _)| place);
        let is_listed_next = |place: &&Place| {
            let real = self.roots[place.root].real().filter(|_| !place.path.is_root());
            real.is_some_and(|real| matches!(kind_of(&real.join(place.path.as_path())), Kind::Directory))
                && self.rules.takes(place.root, &place.path, true)
        };
        let ahead: Vec<Place> = told.filter(is_listed_next).cloned().collect();
        if ahead.is_empty() {
            return;
        }
        let places = std::iter::once(first.clone()).chain(ahead).collect();
        self.watched = self.stand_watch(places);
    }

    /// Looks again at what settling and failed looks asked for.
    pub(super) fn look_at_due(&mut self, now: Instant) {
        let mut due = self.settle.due(now);
        due.extend(std::iter::from_fn(|| self.relook.pop_due(now)));
        for place in due {
            self.look(now, place, Hint::Scan);
        }
    }

    /// Looks at some of what was listed at the start, and leaves room for what happens meanwhile.
    pub(super) fn look_at_unseen(&mut self, now: Instant) {
        for _ in 0..UNSEEN_AT_ONCE {
            let Some(place) = self.unseen.pop_first() else { break };
            self.look(now, place, Hint::Scan);
        }
    }

    /// Whether something of the unit waits for its first look.
    pub(super) fn is_unseen(&self, unit: &UnitPath) -> bool {
        is_unseen(&self.unseen, self.roots.len(), unit)
    }

    /// Looks at one file and acts on what is there.
    pub(super) fn look(&mut self, now: Instant, place: Place, hint: Hint) {
        self.look_again(now, place, hint, None);
    }

    /// The same where a regular file may have been seen a moment ago.
    pub(super) fn look_again(&mut self, now: Instant, place: Place, hint: Hint, glimpse: Option<Glimpse<'_>>) {
        self.relook.remove(&place);
        self.unseen.remove(&place);
        // What a listing misses was seen to go if the directory was there all the time.
        let was_seen = hint != Hint::Scan || self.roots[place.root].is_listed;
        let is_taken = glimpse.is_some_and(|glimpse| glimpse.is_taken);
        if !is_taken && self.rules.judge(place.root, &place.path, false) != Judged::Taken {
            // It may have been taken under rules that were there before.
            return self.gone_here(now, &place, false);
        }
        let Some(real) = self.roots[place.root].real().cloned() else { return };
        // Before the look: a link that is exchanged afterwards is told of once more.
        let hops = if glimpse.is_some() { Vec::new() } else { links::hops(&real.join(place.path.as_path())) };
        let is_new = glimpse.is_some_and(|glimpse| glimpse.is_new);
        let known = if is_new { None } else { self.known.get(&place).copied() };
        let fingerprint = known.as_ref().map(|known| &known.fingerprint);
        let link = place.clone();
        let before = Before { glimpse, known: fingerprint, partial: self.settle.partial(&place) };
        let look = || self.probe.look(&real, &place, self.config.symlinks, hint, before);
        let (mut sight, mut read) = look();
        // The kernel tells of a close a moment before it is done, and that moment is short.
        for _ in 0..CLOSING_LOOKS {
            if hint != Hint::Closed || !matches!(sight, Sight::File { writer: Writer::Somebody, .. }) {
                break;
            }
            std::thread::yield_now();
            (sight, read) = look();
        }
        match sight {
            Sight::File { fingerprint, hint, writer, shape } => {
                self.refused.remove(&place);
                self.saw_file(now, &real, place, Look { fingerprint, hint, writer, shape, read, is_new }, known);
            }
            Sight::Gone => self.gone_here(now, &place, was_seen),
            // What was known of it stays; only the answer to "why" changes.
            Sight::Unreadable(reason) => {
                self.settle.forget(&place);
                self.relook.insert(now + RELOOK * 5, place.clone());
                self.refuse(place, format!("it cannot be read: {reason}"));
            }
            Sight::Refused(reason) => {
                self.gone_here(now, &place, was_seen);
                self.refuse(place, reason);
            }
        }
        self.links.note(link, hops);
    }

    pub(super) fn refuse(&mut self, place: Place, reason: String) {
        if self.refused.get(&place) != Some(&reason) {
            tracing::info!(pickup = self.config.name, path = %place.path, reason, "left alone");
            self.refused.insert(place, reason);
        }
    }

    fn saw_file(&mut self, now: Instant, real: &Path, place: Place, look: Look, known: Option<Known>) {
        // Where no event tells of a write, a listing has to.
        let is_polled = self.roots[place.root].polling.is_some();
        let wrote =
            matches!(look.hint, Hint::Written | Hint::Closed | Hint::MovedIn) || (look.hint == Hint::Scan && is_polled);
        if let Some(known) = known
            && known.fingerprint == look.fingerprint
            && !(known.is_racy() && wrote)
            && self.shared.store.contains(&known.digest)
        {
            // A duplicate, or an open for writing that wrote nothing.
            return self.settle.forget(&place);
        }
        let is_reopened = self.reopened.is_match(place.path.as_path());
        let Look { fingerprint, hint, writer, shape, read, is_new } = look;
        let seen = Seen { fingerprint, hint, writer, shape, is_reopened };
        self.since.entry(self.unit_of(&place.path)).or_insert(now);
        match self.settle.observe(now, &place, &seen) {
            Verdict::Settled => {
                let captured = self.store(real, &place, &fingerprint, read.as_ref());
                if let Some(read) = read {
                    self.probe.reuse(read);
                }
                if !is_new && matches!(captured, Ok(Captured::File(_))) {
                    self.gone_under(now, &place);
                }
                self.take_in_file(now, place, captured, fingerprint, hint, known);
            }
            Verdict::Wait(waiting) => {
                tracing::debug!(pickup = self.config.name, path = %place.path, %waiting, "not complete yet");
            }
        }
    }

    /// Takes the file into the content store; what was `read` of it already is not read again.
    fn store(&self, real: &Path, place: &Place, seen: &Fingerprint, read: Option<&Read>) -> Result<Captured> {
        let absolute = real.join(place.path.as_path());
        match read {
            Some(read) => self.shared.store.capture_read(&absolute, seen, read),
            None => self.shared.store.capture(&absolute, seen, self.config.symlinks != Symlinks::Skip),
        }
    }

    fn take_in_file(
        &mut self,
        now: Instant,
        place: Place,
        captured: Result<Captured>,
        fingerprint: Fingerprint,
        hint: Hint,
        known: Option<Known>,
    ) {
        match captured {
            Ok(Captured::File(file)) => {
                let wall = self.shared.now_ms().saturating_mul(1_000_000);
                let is_racy = wall.saturating_sub(fingerprint.mtime) < RACY;
                self.known.insert(place.clone(), Known::new(fingerprint, file.digest, is_racy));
                self.unsaved.insert(place.clone());
                self.is_outdated |= known.is_some();
                self.put_away_later();
                self.captured(now, place, fingerprint, file.digest, hint, known);
                if self.owed.is_recorded() && self.pause_until.is_none() {
                    self.healed();
                }
            }
            // It moved under our hands: back to settling, as if it had just been written.
            Ok(Captured::Moved) => self.relook.insert(now, place),
            Ok(Captured::Gone) => self.gone_here(now, &place, true),
            Err(error) => {
                // A full store may hold what nothing refers to any more.
                if self.shared.make_room() > 0 {
                    return self.relook.insert_missed(now, place);
                }
                self.troubled(&format!("capture {}: {error}", place.path));
                self.relook.insert_missed(now + RELOOK, place);
            }
        }
    }

    fn captured(
        &mut self,
        now: Instant,
        place: Place,
        fingerprint: Fingerprint,
        digest: Digest,
        hint: Hint,
        known: Option<Known>,
    ) {
        let unit = self.unit_of(&place.path);
        if let Some(known) = known {
            // Its pin, if it still has one: nobody will deploy what it was.
            self.shared.store.unpin(&known.digest);
        }
        if let Some(known) = known.filter(|known| known.fingerprint.is_committed()) {
            let is_same = known.digest == digest && known.fingerprint.mode == fingerprint.mode;
            let is_rewritten = known.digest != digest && self.is_committed(&place);
            if is_rewritten {
                self.known.insert(place.clone(), known);
                self.shared.store.unpin(&digest);
            }
            if is_same || is_rewritten {
                if !self.gathering.contains(&unit) {
                    self.since.remove(&unit);
                }
                return;
            }
        } else if let Some(known) = known
            && known.digest == digest
            && known.fingerprint.mode == fingerprint.mode
        {
            let moved_on = fingerprint.mtime > known.fingerprint.mtime;
            let is_now = (fingerprint.ctime - fingerprint.mtime).abs() < TOUCH;
            if !(moved_on && is_now) {
                // Times set back after a copy, or a write of the same bytes that nobody closed: no new version.
                if !self.gathering.contains(&unit) {
                    self.since.remove(&unit);
                }
                return;
            }
            self.touched.insert(unit.clone());
            // Asked for again by hand: whatever failed may be tried.
            self.forgive(&unit);
        }
        if known.is_none() && self.config.delete_after_pickup && self.is_recovered {
            // The one before was taken away after its deployment; this is another, even if it is the same.
            self.touched.insert(unit.clone());
        }
        self.unpause(&unit);
        let is_whole = self.config.unit == UnitKind::File || place.path == unit || hint == Hint::MovedIn;
        self.seen_removed.remove(&unit);
        self.gathering.note(now, unit, if is_whole { Noted::Captured } else { Noted::Inside });
    }

    /// Everything known at and below `place` is gone. `was_seen` says that a hint told us, and no listing.
    pub(super) fn gone_below(&mut self, now: Instant, place: &Place, was_seen: bool) {
        self.gone(now, place, was_seen, |path| path.starts_with(&place.path));
    }

    /// No file is at `place` any more. If it became a directory, what lies in that is there.
    fn gone_here(&mut self, now: Instant, place: &Place, was_seen: bool) {
        let real = self.roots[place.root].real();
        if real.is_some_and(|real| leads_to_directory(&real.join(place.path.as_path()))) {
            self.gone(now, place, was_seen, |path| *path == place.path);
        } else {
            self.gone_below(now, place, was_seen);
        }
    }

    /// A file is at `place`. What is known below it was in a directory that had the name before, and must be out of the
    /// way first; the event that tells of it may still be under way.
    fn gone_under(&mut self, now: Instant, place: &Place) {
        let is_under = |path: &UnitPath| *path != place.path && path.starts_with(&place.path);
        let next = self.known.range((Bound::Excluded(place), Bound::Unbounded)).next();
        if next.is_some_and(|(next, _)| next.root == place.root && is_under(&next.path)) {
            self.gone(now, place, true, is_under);
        }
    }

    fn gone(&mut self, now: Instant, place: &Place, was_seen: bool, is_gone: impl Fn(&UnitPath) -> bool) {
        let within = |candidate: &&Place| candidate.root == place.root && candidate.path.starts_with(&place.path);
        let below = |candidate: &Place| candidate.root == place.root && is_gone(&candidate.path);
        let known = self.known.range(place.clone()..).map(|(known, _)| known).take_while(within);
        let known: Vec<Place> = known.filter(|known| below(known)).cloned().collect();
        let pending: Vec<Place> =
            self.settle.pending().map(|(pending, _)| pending.clone()).filter(|pending| below(pending)).collect();
        for pending in pending {
            self.settle.forget(&pending);
            // A change set may wait for it.
            self.gathering.note(now, self.unit_of(&pending.path), Noted::Gone);
        }
        let unseen = self.unseen.range(place.clone()..).take_while(within).filter(|unseen| below(unseen));
        let unseen: Vec<Place> = unseen.cloned().collect();
        for unseen in &unseen {
            self.unseen.remove(unseen);
        }
        self.refused.retain(|refused, _| !below(refused));
        self.links.forget(below);
        self.relook.forget(below);
        for gone in known {
            self.known.remove(&gone);
            let unit = self.unit_of(&gone.path);
            self.since.entry(unit.clone()).or_insert(now);
            if was_seen {
                self.seen_removed.insert(unit.clone());
            }
            let is_whole = self.config.unit == UnitKind::File || gone.path == unit;
            self.gathering.note(now, unit, if is_whole { Noted::Gone } else { Noted::Inside });
            self.unsaved.insert(gone);
            self.is_outdated = true;
        }
    }
}

/// Whether one of the roots has something of the unit, a file, among the `unseen`.
pub(super) fn is_unseen(unseen: &BTreeSet<Place>, roots: usize, unit: &UnitPath) -> bool {
    !unseen.is_empty() && (0..roots).any(|root| unseen.contains(&Place { root, path: unit.clone() }))
}

/// What a look at a file found.
struct Look {
    fingerprint: Fingerprint,
    hint: Hint,
    writer: Writer,
    shape: Shape,
    read: Option<Read>,
    /// Whether nothing was known there, or below, before.
    is_new: bool,
}

/// Of two hints about one path, the one that proves more.
fn stronger(one: Option<Hint>, other: Option<Hint>) -> Option<Hint> {
    let strength = |hint: Option<Hint>| match hint {
        None => 0,
        Some(Hint::Scan) => 1,
        Some(Hint::Attributes) => 2,
        Some(Hint::Created) => 3,
        Some(Hint::Written) => 4,
        Some(Hint::Closed) => 5,
        Some(Hint::MovedIn) => 6,
    };
    if strength(other) > strength(one) { other } else { one }
}

#[expect(clippy::disallowed_methods, reason = "the engine asks what a name is before it decides who looks at it")]
fn kind_of(path: &Path) -> Kind {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Kind::Directory,
        Ok(metadata) if metadata.is_symlink() => Kind::Symlink,
        Ok(metadata) => Kind::File(metadata.is_file().then(|| Fingerprint::of(&metadata))),
        Err(error) => match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Kind::Nothing,
            // It is there, or may be: the look says what is wrong with it.
            _ => Kind::File(None),
        },
    }
}

#[expect(clippy::disallowed_methods, reason = "the engine asks what a name is before it decides who looks at it")]
fn leads_to_directory(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir())
}
