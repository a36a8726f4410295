//! Plans, by data.

use std::path::Path;

use super::*;
use crate::capture::{CapturedFile, Digest};

fn change(name: &str, kind: ChangeKind) -> Change {
    let file = CapturedFile::at(Path::new(""), Digest([1; 32]), 1, 0o644);
    let content = (kind != ChangeKind::Removed).then_some(Content::File(file));
    Change { path: UnitPath::new(name).unwrap(), kind, content, previous: None }
}

fn lines(plan: &Plan) -> Vec<Vec<String>> {
    let line = |step: &Step| format!("{} {} {}", step.deployer, step.unit.change.as_str(), step.unit.path);
    plan.groups.iter().map(|group| group.steps.iter().map(line).collect()).collect()
}

fn accept(_: &Unit) -> Verdict {
    Verdict::Accepted
}

fn mixed() -> Vec<Change> {
    use ChangeKind::*;
    vec![change("z/old", Removed), change("b", Modified), change("z/old/x", Removed), change("a", Added)]
}

#[test]
fn each_unit_is_a_group_and_removals_come_last_and_descending() {
    let routes = ["one", "two"].map(|deployer| Route { deployer, scope: Scope::Unit, accepts: &accept });
    let plan = plan(aim(7), mixed(), &Live::from_iter([]), &routes);
    assert_eq!(
        lines(&plan),
        [
            vec!["one added a", "two added a"],
            vec!["one modified b", "two modified b"],
            vec!["one removed z/old/x", "two removed z/old/x"],
            vec!["one removed z/old", "two removed z/old"],
        ]
    );
    assert!(plan.groups.iter().all(|group| group.steps.iter().all(|step| step.unit.generation == 7)));
}

fn swapped() -> Vec<Change> {
    use ChangeKind::*;
    vec![
        change("file", Removed),
        change("file/b/x", Added),
        change("directory", Added),
        change("directory/b/y", Removed),
        change("directory/a", Removed),
        change("directory-not", Removed),
        change("c", Added),
    ]
}

#[test]
fn what_is_in_the_way_is_removed_before_what_takes_its_place() {
    let routes = [Route { deployer: "one", scope: Scope::Unit, accepts: &accept }];
    let plan = plan(aim(7), swapped(), &Live::from_iter([]), &routes);
    let expected = [
        "one removed file",
        "one removed directory/b/y",
        "one removed directory/a",
        "one added c",
        "one added directory",
        "one added file/b/x",
        "one removed directory-not",
    ];
    assert_eq!(lines(&plan), expected.map(|line| vec![line.to_owned()]));
}

#[test]
fn what_is_in_the_way_is_removed_first_in_a_group_of_all_as_well() {
    let routes = [
        Route { deployer: "release", scope: Scope::Pickup, accepts: &accept },
        Route { deployer: "files", scope: Scope::Unit, accepts: &accept },
    ];
    let plan = plan(aim(1), swapped(), &Live::from_iter([]), &routes);
    let expected = [
        "files removed file",
        "files removed directory/b/y",
        "files removed directory/a",
        "release modified .",
        "files added c",
        "files added directory",
        "files added file/b/x",
        "files removed directory-not",
    ];
    assert_eq!(lines(&plan), [expected]);
}

#[test]
fn a_deployer_of_the_whole_pickup_makes_one_group_of_all() {
    let routes = [
        Route { deployer: "files", scope: Scope::Unit, accepts: &accept },
        Route { deployer: "release", scope: Scope::Pickup, accepts: &accept },
    ];
    let live = [change("b", ChangeKind::Added), change("z/old", ChangeKind::Added), change("c", ChangeKind::Added)];
    let live = live.into_iter().filter_map(|change| Some((change.path, change.content?))).collect();
    let plan = plan(aim(1), mixed(), &live, &routes);
    assert_eq!(
        lines(&plan),
        [vec![
            "files added a",
            "files modified b",
            "release modified .",
            "files removed z/old/x",
            "files removed z/old"
        ]]
    );
    let Some(Content::Tree(tree)) = &plan.groups[0].steps[2].unit.content else { panic!("no tree") };
    assert_eq!(tree.iter().map(|entry| entry.path.to_string()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(plan.groups[0].steps[2].unit.changes.len(), 4);
}

#[test]
fn what_a_deployer_refuses_is_listed_with_the_reason_but_removals_are_never_refused() {
    let picky = |unit: &Unit| match unit.path.as_path().extension() {
        Some(_) => Verdict::Accepted,
        None => Verdict::Refused("no extension".into()),
    };
    let routes = [Route { deployer: "picky", scope: Scope::Unit, accepts: &picky }];
    let changes = vec![change("a", ChangeKind::Added), change("b", ChangeKind::Removed)];
    let plan = plan(aim(1), changes, &Live::from_iter([]), &routes);
    assert_eq!(lines(&plan), [vec![], vec!["picky removed b"]]);
    let refusal =
        Refusal { unit: UnitPath::new("a").unwrap(), deployer: "picky".into(), reason: "no extension".into() };
    assert_eq!(plan.refusals, [refusal]);
}

fn aim(generation: u64) -> Aim<'static> {
    Aim { pickup: "p", generation, revision: None }
}

#[test]
fn a_commit_is_one_group_whatever_takes_it() {
    let revision = Arc::new(Revision {
        commit: "c".repeat(40),
        branch: None,
        author: "a".into(),
        subject: "s".into(),
        committed_at: 0,
        previous: None,
    });
    let routes = ["one", "two"].map(|deployer| Route { deployer, scope: Scope::Unit, accepts: &accept });
    let plan = plan(Aim { revision: Some(&revision), ..aim(7) }, mixed(), &Live::from_iter([]), &routes);
    let expected = [
        "one added a",
        "one modified b",
        "two added a",
        "two modified b",
        "one removed z/old/x",
        "one removed z/old",
        "two removed z/old/x",
        "two removed z/old",
    ];
    assert_eq!(lines(&plan), [expected]);
    assert!(plan.groups[0].steps.iter().all(|step| step.unit.revision.as_ref() == Some(&revision)));
}
