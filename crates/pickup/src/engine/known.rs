//! The files that were captured, and reading what the journal has of them while the first listing is made.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use super::shared::Shared;
use crate::capture::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::journal::{Journal, KnownFile};
use crate::path::UnitPath;
use crate::source::scan::Found;
use crate::source::{Fingerprint, Place};

/// Every file that was captured, as it was then.
pub(super) type AllKnown = BTreeMap<Place, Known>;

/// A file as it was captured last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub fingerprint: Fingerprint,
    pub digest: Digest,
    /// The number of the listing that found it last, and in the lowest bit whether it is racy: one is kept for each file.
    mark: u32,
}

impl Known {
    /// A file that no listing found yet. `is_racy`: it was captured so soon after it was written that another write may
    /// hide behind the same times.
    pub(super) fn new(fingerprint: Fingerprint, digest: Digest, is_racy: bool) -> Self {
        Self { fingerprint, digest, mark: u32::from(is_racy) }
    }

    /// Whether another write may hide behind the same times.
    pub(super) fn is_racy(&self) -> bool {
        self.mark & 1 == 1
    }

    /// Marks it as found by listing number `listing`.
    pub(super) fn mark_found(&mut self, listing: u32) {
        self.mark = listing << 1 | self.mark & 1;
    }

    /// Whether listing number `listing` found it.
    pub(super) fn is_found(&self, listing: u32) -> bool {
        self.mark >> 1 == listing
    }
}

/// Reads the files of `pickup` below its first `roots` roots that were seen before, as far as their content `is_stored`.
pub(super) fn read(
    journal: &Journal,
    pickup: &str,
    roots: usize,
    is_stored: impl Fn(&Digest) -> bool,
) -> Result<AllKnown> {
    journal.known(pickup, |file: KnownFile| {
        let known = Known::new(file.fingerprint, file.digest, false);
        (file.place.root < roots && is_stored(&file.digest)).then_some((file.place, known))
    })
}

/// Takes out of what a directory holds what is as it is known to be, and marks all that is known with the number of the
/// listing; gives how many. Both are sorted, so that it is one way through both.
pub(super) fn sift(
    known: &mut AllKnown,
    root: usize,
    listing: u32,
    directory: &UnitPath,
    found: &mut Vec<Found>,
) -> usize {
    let Some(first) = found.first().map(|first| first.name.clone()) else { return 0 };
    let from = |name: &OsStr| Place { root, path: directory.join(name) }..;
    let mut next = known.range_mut(from(&first)).peekable();
    let mut rest = Vec::with_capacity(found.len());
    let mut marked = 0;
    for one in found.drain(..) {
        let mut is_same = false;
        loop {
            let order = match next.peek() {
                Some((place, _)) if place.root == root => place.path.compare_entry(directory, &one.name),
                Some(_) | None => Some(Ordering::Greater),
            };
            match order {
                // All of a directory lies in between.
                None => {
                    drop(next);
                    next = known.range_mut(from(&one.name)).peekable();
                }
                Some(Ordering::Less) => drop(next.next()),
                Some(Ordering::Equal) => {
                    if let Some((_, known)) = next.next() {
                        known.mark_found(listing);
                        marked += 1;
                        is_same = !known.is_racy() && one.fingerprint == Some(known.fingerprint);
                    }
                    break;
                }
                Some(Ordering::Greater) => break,
            }
        }
        if !is_same {
            rest.push(one);
        }
    }
    *found = rest;
    marked
}

/// Files that the journal is to be told of, each once.
#[derive(Default)]
pub(super) struct Unsaved {
    places: Vec<Place>,
    /// How many of them are in descending order, and there once.
    sorted: usize,
}

/// So many may be there twice.
const UNSORTED_MAX: usize = 1024;

impl Unsaved {
    pub(super) fn insert(&mut self, place: Place) {
        self.places.push(place);
        // A file that is written all the time is one file.
        if self.places.len() > 2 * self.sorted + UNSORTED_MAX {
            self.sort();
        }
    }

    /// At least so many as there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The next `at_most` of them, in order.
    pub(super) fn next(&mut self, at_most: usize) -> impl Iterator<Item = &Place> {
        self.sort();
        self.places.iter().rev().take(at_most)
    }

    fn sort(&mut self) {
        if self.sorted < self.places.len() {
            self.places.sort_unstable_by(|one, other| other.cmp(one));
            self.places.dedup();
            self.sorted = self.places.len();
        }
    }

    /// The journal was told of the first so many of the [next](Self::next), and nothing came in between.
    pub(super) fn drop_next(&mut self, count: usize) {
        debug_assert_eq!(self.sorted, self.places.len(), "what came in between would be dropped");
        self.places.truncate(self.places.len().saturating_sub(count));
        self.sorted = self.places.len();
        if self.places.is_empty() {
            self.places = Vec::new();
        }
    }
}

/// What is being read on a thread of its own, if anything is.
#[derive(Default)]
pub(super) struct Reading {
    thread: Option<JoinHandle<Result<AllKnown>>>,
    failed: Option<Error>,
}

impl Reading {
    /// Begins to read what `pickup` knows below its first `roots` roots.
    pub(super) fn begin(shared: &Arc<Shared>, pickup: &str, roots: usize) -> Result<Self> {
        let (shared, pickup) = (shared.clone(), pickup.to_owned());
        // Whether the store still has it is found out by recovery, before anything is deployed.
        let read = move || read(&shared.reader()?, &pickup, roots, |_| true);
        let thread = Builder::new().name("journal".into()).spawn(read);
        let thread = thread.map_err(|error| Error::new(ErrorKind::Io, "start a thread").caused_by(error))?;
        Ok(Self { thread: Some(thread), failed: None })
    }

    /// Whether nobody has to wait for it.
    pub(super) fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Whether anything is known at or below `place`, or may be.
    pub(super) fn may_know(&mut self, known: &mut AllKnown, place: &Place) -> bool {
        if !self.is_over() {
            return true;
        }
        self.arrive(known);
        let first = known.range(place.clone()..).next();
        first.is_some_and(|(first, _)| first.root == place.root && first.path.starts_with(&place.path))
    }

    /// Waits until it is read, and puts it into `known`. A failure is told by [`end`](Self::end), and leaves `known` empty.
    pub(super) fn arrive(&mut self, known: &mut AllKnown) {
        let Some(thread) = self.thread.take() else { return };
        match thread.join() {
            Ok(Ok(read)) => *known = read,
            Ok(Err(error)) => self.failed = Some(error),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// The same, at the latest now.
    pub(super) fn end(&mut self, known: &mut AllKnown) -> Result<()> {
        self.arrive(known);
        self.failed.take().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written_at(mtime: i64) -> Fingerprint {
        Fingerprint { mtime, ..Fingerprint::COMMITTED }
    }

    #[test]
    fn what_is_read_is_known_and_what_is_not_may_be() {
        let place = |root, path: &str| Place { root, path: UnitPath::new(path).unwrap() };
        let read: AllKnown =
            [(place(1, "d/a"), Known::new(written_at(1), Digest([0; 32]), false))].into_iter().collect();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let read = move || {
            let _told = wait.recv();
            Ok(read)
        };
        let mut reading = Reading { thread: Some(std::thread::spawn(read)), failed: None };
        let mut known = AllKnown::default();
        assert!(reading.may_know(&mut known, &place(0, "")));
        drop(go);
        while !reading.is_over() {
            std::thread::yield_now();
        }
        let found = [(0, ""), (1, ""), (1, "d"), (1, "d/a"), (1, "c"), (1, "e"), (2, "")];
        let found = found.map(|(root, path)| reading.may_know(&mut known, &place(root, path)));
        assert_eq!(found, [false, true, true, true, false, false, false]);
    }

    #[test]
    fn the_journal_is_told_of_each_file_once_in_order_and_bit_by_bit() {
        let place = |path: &str| Place { root: 0, path: UnitPath::new(path).unwrap() };
        let mut unsaved = Unsaved::default();
        let next = |unsaved: &mut Unsaved, at_most| -> Vec<String> {
            unsaved.next(at_most).map(|place| place.path.to_string()).collect()
        };
        ["c", "a", "b", "a"].into_iter().for_each(|path| unsaved.insert(place(path)));
        assert_eq!(next(&mut unsaved, 2), ["a", "b"]);
        assert_eq!(next(&mut unsaved, 2), ["a", "b"], "the journal could not be written");
        unsaved.drop_next(2);
        ["d", "a"].into_iter().for_each(|path| unsaved.insert(place(path)));
        assert_eq!((next(&mut unsaved, usize::MAX), unsaved.len()), (["a", "c", "d"].map(str::to_owned).to_vec(), 3));
        unsaved.drop_next(3);
        assert!(unsaved.is_empty());
        (0..100_000).for_each(|_| unsaved.insert(place("a")));
        assert!(unsaved.len() <= UNSORTED_MAX + 2, "one file");
    }

    /// Sifts what `directory` of root 0 was found to hold, by name and time; gives what is left, and what is marked.
    fn sifted(known: &mut AllKnown, directory: &str, found: &[(&str, i64)]) -> (Vec<String>, Vec<String>) {
        let found = found.iter().map(|(name, mtime)| Found {
            name: (*name).into(),
            is_regular: true,
            fingerprint: Some(written_at(*mtime)),
        });
        let mut found: Vec<Found> = found.collect();
        sift(known, 0, 7, &UnitPath::new(directory).unwrap(), &mut found);
        let left = found.iter().map(|found| found.name.display().to_string()).collect();
        let marked = known.iter().filter(|(_, known)| known.is_found(7));
        (left, marked.map(|(place, _)| format!("{}:{}", place.root, place.path)).collect())
    }

    #[test]
    fn what_is_as_it_is_known_to_be_is_taken_out_and_all_that_is_there_is_marked() {
        let digest = Digest([0; 32]);
        let files =
            ["a", "b", "c", "d/x", "d/y", "e", "g"].map(|path| (0, path)).into_iter().chain([(1, "a"), (1, "h")]);
        let mut known: AllKnown = files
            .map(|(root, path)| {
                let place = Place { root, path: UnitPath::new(path).unwrap() };
                (place, Known::new(written_at(1), digest, path == "b"))
            })
            .collect();
        let found = [("a", 1), ("b", 1), ("c", 2), ("e", 1), ("f", 1), ("g", 1), ("h", 1)];
        let (left, marked) = sifted(&mut known.clone(), "", &found);
        assert_eq!(left, ["b", "c", "f", "h"], "racy, changed, new, and known in another root only");
        assert_eq!(marked, ["0:a", "0:b", "0:c", "0:e", "0:g"]);
        let (left, marked) = sifted(&mut known, "d", &[("x", 1), ("z", 1)]);
        assert_eq!((left, marked), (vec!["z".to_owned()], vec!["0:d/x".to_owned()]));
        let racy = Place { root: 0, path: UnitPath::new("b").unwrap() };
        sifted(&mut known, "", &[("b", 1)]);
        assert!(known[&racy].is_racy() && known[&racy].is_found(7) && !known[&racy].is_found(6), "both in one mark");
    }
}
