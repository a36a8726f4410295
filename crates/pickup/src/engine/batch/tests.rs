//! Which removals are believed.

use std::fs;

use super::*;
use crate::change::Doubt;
use crate::config::PickupConfig;
use crate::engine::testing::knowing;

fn units<const N: usize>(paths: [&str; N]) -> BTreeSet<UnitPath> {
    paths.map(|path| UnitPath::new(path).unwrap()).into()
}

#[tokio::test]
async fn what_is_paused_is_counted_once_when_it_is_judged_again() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    fs::create_dir(base.join("in")).unwrap();
    for file in ["a", "b", "c", "d"] {
        fs::write(base.join("in").join(file), file).unwrap();
    }
    let (mut pickup, _aside) = knowing(&base, PickupConfig::new("p", base.join("in")));
    let contents = units(["a", "b", "c", "d"]).into_iter().map(|unit| (pickup.wanted(&unit).unwrap(), unit));
    let mut contents: Vec<_> = contents.collect();
    let later = contents.split_off(2);
    contents.into_iter().for_each(|(content, unit)| pickup.live.insert(unit, content));
    pickup.known.clear();
    let removals = |pickup: &mut Pickup| {
        let removed = |path| Change { path, kind: ChangeKind::Removed, content: None, previous: None };
        let mut changes: Vec<Change> = units(["a", "b"]).into_iter().map(removed).collect();
        pickup.doubt_removals(&mut changes);
        (changes.len(), pickup.paused.as_ref().map(|paused| (paused.units.clone(), paused.doubt)))
    };
    let emptied = (0, Some((units(["a", "b"]), Doubt::Emptied)));
    assert_eq!(removals(&mut pickup), emptied);
    assert_eq!(removals(&mut pickup), emptied, "nothing has changed");
    later.into_iter().for_each(|(content, unit)| pickup.live.insert(unit, content));
    assert_eq!(removals(&mut pickup), (2, None), "half of four");
}
