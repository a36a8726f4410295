//! What is done once it is known what went live.

use std::fs;

use super::*;
use crate::config::PickupConfig;
use crate::engine::testing::knowing;
use crate::source::Hint;

#[tokio::test]
async fn a_version_that_came_during_a_deployment_is_not_deleted_until_it_is_live_too() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let (path, unit) = (base.join("in/a"), UnitPath::new("a").unwrap());
    fs::create_dir(base.join("in")).unwrap();
    fs::write(&path, "one").unwrap();
    let config = PickupConfig { delete_after_pickup: true, ..PickupConfig::new("p", base.join("in")) };
    let (mut pickup, _aside) = knowing(&base, config);
    let change = |content| Change { path: unit.clone(), kind: ChangeKind::Added, content, previous: None };
    let one = change(pickup.wanted(&unit));
    fs::write(base.join("next"), "two").unwrap();
    fs::rename(base.join("next"), &path).unwrap();
    let now = pickup.shared.now();
    pickup.look(now, Place { root: 0, path: unit.clone() }, Hint::MovedIn);
    let two = change(pickup.wanted(&unit));
    pickup.went_live(&one, 1, &[], 0, None);
    assert_eq!(fs::read_to_string(&path).unwrap(), "two");
    pickup.went_live(&two, 2, &[], 0, None);
    assert!(!path.exists());
}
