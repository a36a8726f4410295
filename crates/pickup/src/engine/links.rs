//! Symlinks to files: what is behind them changes under another name, and the kernel tells of that name only.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use crate::source::Place;

/// As many symlinks as the kernel follows one after the other.
const HOPS_MAX: usize = 40;

/// The symlinks that are picked up, and where they lead.
#[derive(Debug, Default)]
pub(super) struct Links {
    hops: BTreeMap<Place, Vec<PathBuf>>,
    /// Ordered by component, so that everything below a directory is one range.
    leading: BTreeMap<PathBuf, BTreeSet<Place>>,
}

impl Links {
    /// Notes that `place` leads through `hops`; without any it is no symlink.
    pub(super) fn note(&mut self, place: Place, hops: Vec<PathBuf>) {
        if self.hops.get(&place).is_some_and(|known| *known == hops) {
            return;
        }
        self.forget_one(&place);
        if hops.is_empty() {
            return;
        }
        for hop in &hops {
            self.leading.entry(hop.clone()).or_default().insert(place.clone());
        }
        self.hops.insert(place, hops);
    }

    /// Forgets every symlink that `which` names.
    pub(super) fn forget(&mut self, which: impl Fn(&Place) -> bool) {
        let places: Vec<Place> = self.hops.keys().filter(|place| which(place)).cloned().collect();
        places.iter().for_each(|place| self.forget_one(place));
    }

    fn forget_one(&mut self, place: &Place) {
        for hop in self.hops.remove(place).unwrap_or_default() {
            if let Some(places) = self.leading.get_mut(&hop) {
                places.remove(place);
                if places.is_empty() {
                    self.leading.remove(&hop);
                }
            }
        }
    }

    /// The symlinks that lead to `path`, or to something below it.
    pub(super) fn leading_to(&self, path: impl FnOnce() -> PathBuf) -> BTreeSet<Place> {
        // There mostly are none.
        if self.leading.is_empty() {
            return BTreeSet::new();
        }
        let path = &*path();
        let from = (Bound::Included(path), Bound::Unbounded);
        let below = self.leading.range::<Path, _>(from).take_while(|(hop, _)| hop.starts_with(path));
        below.flat_map(|(_, places)| places).cloned().collect()
    }
}

/// The names that the symlink at `path` leads through, the last of which may not be there; none if it is no symlink.
#[expect(clippy::disallowed_methods, reason = "the engine asks what a name is before it decides who looks at it")]
pub(super) fn hops(path: &Path) -> Vec<PathBuf> {
    let mut hops = Vec::new();
    let mut at = path.to_path_buf();
    while let Ok(target) = std::fs::read_link(&at) {
        let Some(parent) = at.parent() else { break };
        let next = parent.join(target);
        // Events name the real directory.
        let real = next.parent().and_then(|parent| std::fs::canonicalize(parent).ok());
        at = match (real, next.file_name()) {
            (Some(real), Some(name)) => real.join(name),
            (None, _) | (_, None) => next,
        };
        if hops.len() == HOPS_MAX || hops.contains(&at) {
            break;
        }
        hops.push(at.clone());
    }
    hops
}

#[cfg(all(test, unix))]
#[expect(clippy::disallowed_methods, reason = "the test arranges symlinks")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::path::UnitPath;

    fn place(path: &str) -> Place {
        Place { root: 0, path: UnitPath::new(path).unwrap() }
    }

    #[test]
    fn each_name_on_the_way_leads_to_the_symlink() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("v1")).unwrap();
        symlink("v1", real.join("data")).unwrap();
        symlink("data/f", real.join("one")).unwrap();
        symlink("one", real.join("two")).unwrap();
        let mut links = Links::default();
        links.note(place("two"), hops(&real.join("two")));
        links.note(place("one"), hops(&real.join("one")));
        links.note(place("none"), hops(&real.join("v1")));
        assert_eq!(links.leading_to(|| real.join("v1/f")), [place("one"), place("two")].into());
        assert_eq!(links.leading_to(|| real.join("v1")), [place("one"), place("two")].into());
        assert_eq!(links.leading_to(|| real.join("one")), [place("two")].into());
        links.forget(|place| *place == self::place("one"));
        assert_eq!(links.leading_to(|| real.join("v1/f")), [place("two")].into());
    }

    #[test]
    fn a_symlink_in_a_circle_ends() {
        let directory = tempfile::tempdir().unwrap();
        symlink("b", directory.path().join("a")).unwrap();
        symlink("a", directory.path().join("b")).unwrap();
        assert_eq!(hops(&directory.path().join("a")).len(), 2);
    }
}
