//! What is read back is what was written.

use std::collections::BTreeSet;

use super::*;
use crate::change::live::Kept;

#[test]
fn recovery_finds_everything_that_was_intended() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let changes = [
        change("a", Some(file(dir.path(), "1"))),
        change("b", Some(tree(dir.path(), &[("x", "1"), ("y/z", "2")]))),
        change("c", None),
    ];
    let mut intent = intent(1, &changes);
    let mut whole = step("release", 1, &change("", Some(tree(dir.path(), &[("a", "1")]))));
    whole.unit.to_mut().changes = changes.iter().cloned().collect();
    whole.old = Some(Cow::Owned(json!({ "link": "releases/0" })));
    intent.groups.push(IntendedGroup { steps: vec![step("copy", 1, &changes[0]), whole.clone()], is_staged: false });
    let id = journal.intend(&intent, 5).unwrap();
    journal.staged(id, &[StagedStep { group: 3, step: 1, receipt: Some(json!("beside")) }]).unwrap();

    let copy = killed(dir.path());
    std::fs::rename(dir.path().join("journal.db"), dir.path().join("gone")).unwrap();
    let open = open(copy.path()).open_deployments().unwrap().remove(0);
    assert_eq!((open.id, open.pickup.as_str(), open.generation), (id, "app", 1));
    let states: Vec<_> = open.groups.iter().map(|group| group.state).collect();
    assert_eq!(states, [GroupState::Intended, GroupState::Intended, GroupState::Intended, GroupState::Staged]);
    let last = &open.groups[3].steps[1];
    assert_eq!(
        (last.deployer.as_str(), last.old.as_ref(), last.staged.as_ref()),
        (&*whole.deployer, whole.old.as_deref(), Some(&json!("beside")))
    );
    assert_eq!(last.unit.changes.len(), 3);
    // The state directory was moved, and the captured files with it.
    assert_eq!(last.unit.changes[0], change("a", Some(file(copy.path(), "1"))));
    let moved = change("b", Some(tree(copy.path(), &[("x", "1"), ("y/z", "2")])));
    assert_eq!(open.groups[1].steps[0].unit, *step("copy", 1, &moved).unit);
    assert_eq!(open.groups[2].steps[0].unit, *intent.groups[2].steps[0].unit);
}

#[test]
fn what_is_staged_before_the_intent_is_written_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let mut intent = intent(1, &[change("a", Some(file(dir.path(), "1"))), change("b", None)]);
    // Of `b`, a check failed: what was intended all the same is taken back.
    intent.groups[0].is_staged = true;
    intent.groups[0].steps[0].staged = Some(Cow::Owned(json!("nothing")));
    let id = journal.intend(&intent, 5).unwrap();
    let groups = open(killed(dir.path()).path()).open_deployments().unwrap().remove(0).groups;
    let found: Vec<_> = groups.into_iter().map(|mut group| (group.state, group.steps.remove(0).staged)).collect();
    assert_eq!(found, [(GroupState::Staged, Some(json!("nothing"))), (GroupState::Intended, None)]);
    let live = vec![LiveChange { step: 0, receipt: Some(json!("live")) }];
    journal.committed(id, &[CommittedGroup { group: 0, live }], 6).unwrap();
    journal.reverted(id, 1, "refused", "", 6).unwrap();
    assert_eq!(journal.receipts("app", &[("copy", &path("a"))]).unwrap(), [Some(json!("live"))]);
}

#[test]
fn a_small_intent_is_brief_and_reads_as_if_it_were_written_out() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let contents = ["1", "2"].map(|text| file(dir.path(), text));
    deploy(&mut journal, &intent(1, &[change("a", Some(contents[0].clone()))]), 1).unwrap();
    let old = Change { previous: Some(contents[0].digest()), kind: ChangeKind::Modified, ..change("a", None) };
    let changes = [Change { content: Some(contents[1].clone()), ..old }, change("b", None)];
    let mut brief = staged_before(intent(2, &changes));
    brief.groups[0].steps[0].old = Some(Cow::Owned(json!({ "generation": 1 })));
    let other = IntendedStep { deployer: "other".into(), ..brief.groups[0].steps[0].clone() };
    brief.groups[0].steps.push(other);
    let wal = dir.path().join("journal.db-wal");
    let before = std::fs::metadata(&wal).unwrap().len();
    let id = journal.intend(&brief, 2).unwrap();
    // The row, its entry in the index, and what it is about: a page each, with a header of 24 bytes.
    assert_eq!(std::fs::metadata(&wal).unwrap().len() - before, 3 * (4096 + 24));

    let state = killed(dir.path());
    let offline = Journal::open_read_only(state.path()).unwrap().unwrap();
    let told = |journal: &Journal| journal.history(None, 1).unwrap().remove(0);
    let deployment = told(&offline);
    assert_eq!((deployment.outcome, deployment.changes_total), (Outcome::Open, 2));
    let found = format!("{:?}", offline.open_deployments().unwrap());
    drop(offline);
    let mut again = open(state.path());
    assert_eq!(again.next_generation("app").unwrap(), 3);
    assert!(again.referenced().unwrap().contains(&contents[1].digest()));
    assert_eq!(again.open_deployers("app").unwrap(), BTreeSet::from(["copy", "other"].map(str::to_owned)));
    assert_eq!(format!("{:?}", again.open_deployments().unwrap()), found);
    assert_eq!(deployment.changes, told(&again).changes);
    // The first write of it writes it out; here one that changes nothing else.
    again.staged(id, &[]).unwrap();
    assert_eq!(format!("{:?}", again.open_deployments().unwrap()), found);
    assert_eq!(told(&again).changes, deployment.changes);
    let groups = again.open_deployments().unwrap().remove(0).groups;
    let unit = &groups[0].steps[0].unit;
    assert_eq!(unit.content.as_ref().map(Content::digest), Some(contents[1].digest()));
    assert_eq!((unit.change, unit.previous), (ChangeKind::Modified, changes[0].previous));
    assert_eq!((&groups[0].steps[0].old, &groups[1].steps[0].old), (&Some(json!({ "generation": 1 })), &None));
    again.committed(id, &all_committed(&brief), 3).unwrap();
    again.retired(id, &[0, 1]).unwrap();
    again.finish(id, 3).unwrap();
    assert_eq!(again.live("app").unwrap()[0].generation, 2);
}

#[test]
fn what_does_not_go_live_all_at_once_is_written_out() {
    type Record = fn(&mut Journal, DeploymentId, &Intent<'_>);
    let records: [Record; 4] = [
        |journal, id, _| journal.staged(id, &[]).unwrap(),
        |journal, id, intent| journal.committed(id, &all_committed(intent)[..1], 2).unwrap(),
        |journal, id, _| journal.reverted(id, 0, "no", "", 2).unwrap(),
        |journal, id, _| journal.stuck(id, 0, "no", &[], 2).unwrap(),
    ];
    for (number, record) in records.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path());
        let changes = ["a", "b"].map(|at| change(at, Some(file(dir.path(), "1"))));
        let intent = staged_before(intent(1, &changes));
        let id = journal.intend(&intent, 1).unwrap();
        let written = |journal: &Journal| {
            let sql = "SELECT count(step.number), (SELECT count(*) FROM brief) = 0 FROM deployment LEFT JOIN step ON step.deployment = id";
            journal.connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
        };
        assert_eq!(written(&journal), (0, false), "record {number}");
        record(&mut journal, id, &intent);
        assert_eq!(written(&journal), (2, true), "record {number}");
    }
}

/// Either by the journal that began it, which still knows it, or by another, which has to read it.
#[test]
fn what_goes_live_all_at_once_stays_brief_and_says_the_same() {
    for is_other in [false, true] {
        let told = [true, false].map(|is_brief| {
            let dir = tempfile::tempdir().unwrap();
            let mut journal = open(dir.path());
            deploy(&mut journal, &intent(1, &[change("b", Some(file(dir.path(), "0")))]), 1).unwrap();
            let failed = failed("a");
            journal.quarantine("app", &failed).unwrap();
            let changes = [change("a", Some(file(dir.path(), "1"))), change("b", None)];
            let intent = with_revision(intent(2, &changes), 'b');
            let intent = if is_brief { staged_before(intent) } else { intent };
            let id = journal.intend(&intent, 2).unwrap();
            if !is_brief {
                journal.staged(id, &all_staged(&intent)).unwrap();
            }
            let mut told = Vec::new();
            let mut tell = |journal: &Journal| {
                let rows: i64 =
                    journal.connection.query_row("SELECT count(*) FROM step", [], |row| row.get(0)).unwrap();
                assert_eq!(rows == 0, is_brief || journal.open_deployments().unwrap().is_empty());
                let commits = [journal.live_revision("app"), journal.revision_at("app", 2)].map(Result::unwrap);
                let (live, then) = (journal.live("app").unwrap(), journal.contents_at("app", 2).unwrap());
                let (history, open) = (journal.history(None, 1).unwrap(), journal.open_deployments().unwrap());
                let quarantine = journal.quarantined("app").unwrap();
                let last = journal.last_success("app").unwrap();
                told.push(format!("{commits:?} {live:?} {then:?} {history:?} {open:?} {quarantine:?} {last:?}"));
            };
            tell(&journal);
            let steps: [fn(&mut Journal, DeploymentId, &Intent<'_>); 4] = [
                |journal, id, intent| journal.committed(id, &all_committed(intent), 3).unwrap(),
                // A commit that was not heard of is written once more, and changes nothing.
                |journal, id, intent| journal.committed(id, &all_committed(intent), 9).unwrap(),
                |journal, id, _| journal.retired(id, &[0, 1]).unwrap(),
                |journal, id, _| journal.finish(id, 4).unwrap(),
            ];
            for step in steps {
                if is_other {
                    drop(journal);
                    journal = open(dir.path());
                }
                step(&mut journal, id, &intent);
                tell(&journal);
            }
            journal.prune("app", 5).unwrap();
            tell(&journal);
            // Where the store is differs.
            told.into_iter().map(|told| told.replace(&dir.path().display().to_string(), "")).collect::<Vec<_>>()
        });
        assert_eq!(told[0], told[1]);
        assert!(told[0][1].contains("Applied") && told[0][0].contains("Open"), "{:?}", told[0]);
    }
}

#[test]
fn of_a_brief_deployment_that_is_committed_no_group_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let changes = ["a", "b"].map(|at| change(at, Some(file(dir.path(), "1"))));
    let intent = staged_before(intent(1, &changes));
    let id = journal.intend(&intent, 1).unwrap();
    assert!(journal.retired(id, &[0, 1]).is_err());
    assert!(journal.finish(id, 1).is_err());
    journal.committed(id, &all_committed(&intent), 1).unwrap();
    assert!(journal.reverted(id, 0, "no", "", 2).is_err());
    // What lingers is told group by group.
    journal.retired(id, &[0]).unwrap();
    assert!(journal.finish(id, 2).is_err());
    let states = journal.open_deployments().unwrap().remove(0).groups.into_iter().map(|group| group.state);
    assert_eq!(states.collect::<Vec<_>>(), [GroupState::Retired, GroupState::Committed]);
    journal.retired(id, &[1]).unwrap();
    journal.finish(id, 2).unwrap();
    assert_eq!(journal.history(None, 1).unwrap()[0].outcome, Outcome::Applied);
}

#[test]
fn receipts_are_found_beside_and_between_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let changes = ["b", "d/x", "f"].map(|at| change(at, Some(file(dir.path(), "1"))));
    deploy(&mut journal, &intent(7, &changes), 1).unwrap();
    let units = ["a", "b", "c", "d/x", "d/y", "e", "g"].map(path);
    let found = |asked: &[(&str, usize)]| -> Vec<bool> {
        let asked: Vec<_> = asked.iter().map(|(deployer, at)| (*deployer, &units[*at])).collect();
        journal.receipts("app", &asked).unwrap().iter().map(Option::is_some).collect()
    };
    let all: Vec<_> = (0..units.len()).map(|at| ("copy", at)).collect();
    assert_eq!(found(&all), [false, true, false, true, false, false, false]);
    assert_eq!(found(&[("copy", 0), ("copy", 0)]), [false, false], "nothing is there, or between");
    assert_eq!(found(&[("copy", 1), ("copy", 1)]), [true, true], "at both ends");
    assert_eq!(found(&[("copy", 5), ("copy", 2)]), [false, false], "something else is between");
    assert_eq!(found(&[("other", 1), ("copy", 3), ("other", 3)]), [false, true, false], "each deployer by itself");
    assert_eq!(found(&[("copy", 3)]), [true]);
}

/// Written in whatever order: what is newer stays, and what is gone stays away.
#[test]
fn what_is_left_for_later_takes_nothing_back_that_came_after_it() {
    let added = |dir: &Path, at: &str, text: &str| change(at, Some(file(dir, text)));
    for is_written_out in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path());
        let run = |journal: &mut Journal, intent: &Intent<'_>| {
            let id = journal.intend(intent, 0).unwrap();
            journal.committed(id, &all_committed(intent), 0).unwrap();
            id
        };
        let all = ["a", "b", "c", "d"].map(|at| added(dir.path(), at, "1"));
        let first = run(&mut journal, &staged_before(intent(1, &all)));
        // One by itself, which is written at once, and the others two by two.
        run(&mut journal, &staged_before(intent(2, &[added(dir.path(), "a", "2")])));
        let third = run(&mut journal, &staged_before(intent(3, &[added(dir.path(), "d", "3"), change("c", None)])));
        run(&mut journal, &staged_before(intent(4, &[added(dir.path(), "b", "4"), change("d", None)])));
        let tell = |journal: &Journal| -> Vec<(String, u64)> {
            let rows = journal.live("app").unwrap().into_iter();
            rows.map(|row| (row.unit.to_string(), row.generation)).collect()
        };
        let expected = vec![("a".to_owned(), 2), ("b".to_owned(), 4)];
        assert_eq!(tell(&journal), expected);
        if is_written_out {
            // Retired in parts, so that each has its row; the removal of `c`, which the first brought, comes first.
            journal.retired(third, &[0]).unwrap();
            assert_eq!(tell(&journal), expected);
            journal.retired(first, &[1]).unwrap();
            assert_eq!(tell(&journal), expected);
        }
        while journal.write_later().unwrap() {
            assert_eq!(tell(&journal), expected);
        }
        assert_eq!(tell(&open(dir.path())), expected);
    }
}

/// A removal that is written at once is not taken back by what was left before.
#[test]
fn a_single_removal_is_not_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    for is_another in [false, true] {
        let mut journal = open(dir.path());
        let generation = journal.next_generation("app").unwrap();
        let added = ["a", "b"].map(|at| change(at, Some(file(dir.path(), &generation.to_string()))));
        for intent in
            [staged_before(intent(generation, &added)), staged_before(intent(generation + 1, &[change("a", None)]))]
        {
            if is_another {
                journal = open(dir.path());
            }
            let id = journal.intend(&intent, 0).unwrap();
            journal.committed(id, &all_committed(&intent), 0).unwrap();
        }
        let tell =
            |journal: &Journal| journal.live("app").unwrap().iter().map(|row| row.unit.to_string()).collect::<Vec<_>>();
        assert_eq!(tell(&journal), ["b"]);
        while journal.write_later().unwrap() {}
        assert_eq!(tell(&journal), ["b"]);
    }
}

/// What is deployed once more is not sought in briefs each time, and no more is left than can be written soon.
#[test]
fn what_is_left_is_written_before_it_is_needed_or_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let rows = |journal: &Journal| -> (i64, i64) {
        let sql = "SELECT (SELECT count(*) FROM live), (SELECT count(*) FROM unwritten)";
        journal.connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
    };
    let run = |journal: &mut Journal, generation: u64| {
        let all: Vec<_> = (0..6).map(|at| change(&format!("{generation}/{at}"), Some(file(dir.path(), "1")))).collect();
        let intent = staged_before(intent(generation, &all));
        let id = journal.intend(&intent, 0).unwrap();
        journal.committed(id, &all_committed(&intent), 0).unwrap();
    };
    run(&mut journal, 1);
    run(&mut journal, 2);
    assert_eq!(rows(&journal), (0, 2));
    run(&mut journal, 3);
    assert_eq!(rows(&journal), (6, 2), "twelve may be left here");
    journal.write_left_of("app", &[("copy", &path("3/0")), ("other", &path("1/0"))]).unwrap();
    journal.write_left_of("other", &[("copy", &path("1/0"))]).unwrap();
    assert_eq!(rows(&journal), (6, 2), "nothing of that was left");
    journal.write_left_of("app", &[("copy", &path("3/0")), ("copy", &path("1/0"))]).unwrap();
    assert_eq!(rows(&journal), (18, 0));
    let mut other = open(dir.path());
    run(&mut other, 4);
    drop(other);
    let mut other = open(dir.path());
    other.write_left_of("app", &[("copy", &path("9/0"))]).unwrap();
    assert_eq!(rows(&other), (24, 0), "what another one left is not known by unit");
    run(&mut other, 5);
    assert_eq!(rows(&other), (24, 1));
}

/// What was left may be put back when its removal fails.
#[test]
fn the_receipt_of_what_was_left_for_later_can_be_exchanged() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let all = staged_before(intent(1, &["a", "b"].map(|at| change(at, Some(file(dir.path(), "1"))))));
    let id = journal.intend(&all, 0).unwrap();
    journal.committed(id, &all_committed(&all), 0).unwrap();
    journal.replace_receipt("app", "copy", &path("a"), &json!("again")).unwrap();
    let asked = [path("a"), path("b")];
    let asked: Vec<_> = asked.iter().map(|path| ("copy", path)).collect();
    let expected = [Some(json!("again")), Some(json!({ "generation": 1 }))];
    assert_eq!(journal.receipts("app", &asked).unwrap(), expected);
    while journal.write_later().unwrap() {}
    assert_eq!(journal.receipts("app", &asked).unwrap(), expected);
}

#[test]
fn an_intent_that_is_large_or_of_trees_or_has_long_receipts_is_written_out_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let many: Vec<_> = (0..1025).map(|at| change(&at.to_string(), Some(file(dir.path(), "1")))).collect();
    let of_tree = [change("a", Some(tree(dir.path(), &[("x", "1"), ("y", "2")])))];
    let rows = [(1, &many[..], 1025, ""), (2, &of_tree, 1, ""), (3, &many[..1024], 0, ""), (4, &many[..1], 1, "long")];
    for (generation, changes, written, receipt) in rows {
        let mut intent = staged_before(intent(generation, changes));
        intent.groups[0].steps[0].old = Some(Cow::Owned(json!(receipt.repeat(16))));
        let id = journal.intend(&intent, 1).unwrap();
        let count = |journal: &Journal| {
            let sql = "SELECT count(*) FROM step WHERE deployment = ?1";
            journal.connection.query_row(sql, [id.0], |row| row.get::<_, i64>(0)).unwrap()
        };
        assert_eq!(count(&journal), written);
    }
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf_8_survive() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let name = UnitPath::new(std::ffi::OsStr::from_bytes(b"a\xff/b")).unwrap();
    let odd = Change { path: name.clone(), ..change("", Some(file(dir.path(), "1"))) };
    deploy(&mut journal, &intent(1, &[odd]), 0).unwrap();
    assert_eq!(journal.live("app").unwrap()[0].unit, name);
    assert_eq!(journal.contents_at("app", 1).unwrap().into_keys().collect::<Vec<_>>(), [name]);
}

#[test]
fn what_is_live_is_told_by_its_bytes_and_its_mode() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let (one, whole) = (file(dir.path(), "1"), tree(dir.path(), &[("x", "1"), ("y", "2")]));
    let changes = [change("file", Some(one.clone())), change("tree", Some(whole.clone()))];
    deploy(&mut journal, &intent(1, &changes), 1).unwrap();
    let (Content::File(one), Content::Tree(whole)) = (one, whole) else { panic!() };
    let (digest, size, mode) = (one.digest, one.size, one.mode);
    let Content::Tree(other) = tree(dir.path(), &[("x", "1"), ("y", "3")]) else { panic!() };
    let tree_digest = Content::Tree(whole.clone()).digest();
    let kept = [
        (Kept::File { digest, size, mode }, [true, false]),
        (Kept::File { digest, size, mode: mode ^ 1 }, [false, false]),
        (Kept::File { digest: whole[1].file.digest, size, mode }, [false, false]),
        (Kept::File { digest: tree_digest, size, mode }, [false, false]),
        (Kept::Elsewhere(Box::new(one)), [true, false]),
        (Kept::Tree(whole), [false, true]),
        (Kept::Tree(other), [false, false]),
    ];
    for (kept, expected) in kept {
        let mut held = Vec::new();
        journal
            .each_live("app", |row| {
                held.push(row.holds(&kept));
                assert!(!LiveKey { content: None, ..row }.holds(&kept), "nothing is known of it");
            })
            .unwrap();
        assert_eq!(held, expected, "{kept:?}");
    }
}

#[test]
fn a_commit_says_what_is_live() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let added = [change("a", Some(file(dir.path(), "1"))), change("b", Some(file(dir.path(), "2")))];
    deploy(&mut journal, &intent(1, &added), 10).unwrap();
    let removed = intent(2, &[change("a", None)]);
    deploy(&mut journal, &removed, 20).unwrap();
    let content = file(dir.path(), "2");
    let row = LiveRow {
        deployer: "copy".to_owned(),
        unit: path("b"),
        config_digest: "c1".to_owned(),
        digest: Some(content.digest()),
        generation: 1,
        receipt: json!({ "generation": 1 }),
        content: Some(content),
        since: 10,
    };
    assert_eq!(journal.live("app").unwrap(), [row]);
    assert!(journal.live("other").unwrap().is_empty());
    assert_eq!(journal.live_generation("app").unwrap(), Some(2));
    assert_eq!(journal.live_generation("other").unwrap(), None);
}

#[test]
fn a_file_with_another_mode_is_another_content() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let modes = [("a", 0o644), ("b", 0o755), ("c", 0o644)];
    let changes = modes.map(|(at, mode)| change(at, Some(Content::File(captured(dir.path(), "same", mode)))));
    deploy(&mut journal, &intent(1, &changes), 0).unwrap();
    let contents = journal.contents_at("app", 1).unwrap();
    for wanted in &changes {
        assert_eq!(contents.get(&wanted.path), wanted.content.as_ref());
    }
    let keys = "SELECT count(DISTINCT content) FROM live";
    let keys: i64 = journal.connection.query_row(keys, [], |row| row.get(0)).unwrap();
    assert_eq!(keys, 2);
}

#[test]
fn the_contents_of_a_generation_are_files_whatever_the_deployers_scope() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let changes = [change("a", Some(file(dir.path(), "1"))), change("b/c", Some(file(dir.path(), "2")))];
    let mut intent = intent(1, &[]);
    let mut whole = step("release", 1, &change("", Some(tree(dir.path(), &[("a", "1"), ("b/c", "2")]))));
    whole.unit.to_mut().changes = changes.iter().cloned().collect();
    let mut steps: Vec<_> = changes.iter().map(|change| step("copy", 1, change)).collect();
    steps.push(whole);
    intent.groups.push(IntendedGroup { steps, is_staged: false });
    deploy(&mut journal, &intent, 0).unwrap();
    let contents = journal.contents_at("app", 1).unwrap();
    assert_eq!(contents.into_keys().collect::<Vec<_>>(), [path("a"), path("b/c")]);
    let deployment = journal.history(None, 1).unwrap().remove(0);
    assert_eq!(deployment.changes_total, 2, "each unit once, not once for each deployer");
}

#[test]
fn a_generation_is_never_used_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    assert_eq!(journal.next_generation("app").unwrap(), 1);
    deploy(&mut journal, &intent(1, &[change("a", Some(file(dir.path(), "1")))]), 0).unwrap();
    fail(&mut journal, &intent(2, &[change("a", None)]), 0);
    journal.prune("app", 100).unwrap();
    assert_eq!(journal.history(None, 10).unwrap().len(), 1, "the failure is forgotten");
    assert_eq!(journal.next_generation("app").unwrap(), 3);
    assert_eq!(journal.next_generation("other").unwrap(), 1);
    assert_eq!(journal.intend(&intent(1, &[]), 0).unwrap_err().kind(), ErrorKind::Journal);
}

#[test]
fn a_record_that_does_not_follow_is_refused_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let intent = intent(1, &[change("a", Some(file(dir.path(), "1"))), change("b", Some(file(dir.path(), "2")))]);
    let id = journal.intend(&intent, 0).unwrap();
    journal.staged(id, &all_staged(&intent)[..1]).unwrap();
    let error = journal.committed(id, &all_committed(&intent), 0).unwrap_err();
    assert!(error.to_string().ends_with("a group that is intended cannot become committed"), "{error}");
    assert!(journal.live("app").unwrap().is_empty());
    let error = journal.finish(id, 0).unwrap_err();
    assert!(error.to_string().ends_with("group 0 is only staged"), "{error}");
    assert_eq!(journal.retired(id, &[7]).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(journal.finish(DeploymentId(99), 0).unwrap_err().kind(), ErrorKind::NotFound);
    let nowhere = [StagedStep { group: 0, step: 9, receipt: None }];
    assert_eq!(journal.staged(id, &nowhere).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn groups_with_gaps_between_them_move_and_the_others_stay() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let changes: Vec<Change> =
        (0..6).map(|number| change(&format!("f{number}"), Some(file(dir.path(), "x")))).collect();
    let intent = intent(1, &changes);
    let id = journal.intend(&intent, 1).unwrap();
    journal.staged(id, &all_staged(&intent)).unwrap();
    let committed = all_committed(&intent);
    let some: Vec<CommittedGroup> = [5, 0, 1, 3].map(|group: usize| committed[group].clone()).into();
    journal.committed(id, &some, 2).unwrap();
    journal.reverted(id, 2, "no", "", 2).unwrap();
    journal.retired(id, &[3, 0]).unwrap();
    let states = || -> Vec<GroupState> {
        journal.open_deployments().unwrap()[0].groups.iter().map(|group| group.state).collect()
    };
    use GroupState::{Committed, Retired, Reverted, Staged};
    assert_eq!(states(), [Retired, Committed, Reverted, Retired, Staged, Committed]);
    let live: Vec<String> = journal.live("app").unwrap().iter().map(|row| row.unit.to_string()).collect();
    assert_eq!(live, ["f0", "f1", "f3", "f5"]);
    assert_eq!(journal.contents_at("app", 1).unwrap().len(), 4);
    assert!(journal.retired(id, &[0, 6]).is_err());
}

#[test]
fn a_repeated_commit_does_not_bring_an_old_version_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let first = intent(1, &[change("a", Some(file(dir.path(), "1")))]);
    let id = journal.intend(&first, 0).unwrap();
    journal.staged(id, &all_staged(&first)).unwrap();
    journal.committed(id, &all_committed(&first), 0).unwrap();
    deploy(&mut journal, &intent(2, &[change("a", Some(file(dir.path(), "2")))]), 0).unwrap();
    journal.committed(id, &all_committed(&first), 0).unwrap();
    assert_eq!(journal.live("app").unwrap()[0].generation, 2);
    assert_eq!(journal.live_generation("app").unwrap(), Some(2));
}

#[test]
fn the_outcome_follows_from_the_groups() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let changes = [change("a", Some(file(dir.path(), "1"))), change("b", Some(file(dir.path(), "2")))];
    deploy(&mut journal, &intent(1, &changes), 10).unwrap();
    fail(&mut journal, &intent(2, &changes), 20);
    let partial = intent(3, &changes);
    let id = journal.intend(&partial, 30).unwrap();
    journal.staged(id, &all_staged(&partial)).unwrap();
    journal.committed(id, &all_committed(&partial)[..1], 31).unwrap();
    journal.retired(id, &[0]).unwrap();
    journal.reverted(id, 1, "the port was taken", "bind: in use", 31).unwrap();
    journal.reverted(id, 1, "told twice", "", 31).unwrap();
    journal.finish(id, 32).unwrap();
    journal.finish(id, 33).unwrap();
    let id = journal.intend(&intent(4, &changes), 40).unwrap();
    journal.reverted(id, 0, "no", "", 41).unwrap();
    journal.stuck(id, 1, "why", &["disk full".to_owned()], 41).unwrap();
    journal.finish(id, 42).unwrap();
    journal.intend(&Intent { origin: Origin::Rollback { to: 1 }, ..intent(5, &changes) }, 50).unwrap();

    let history = journal.history(Some("app"), 10).unwrap();
    let outcomes: Vec<_> = history.iter().map(|deployment| (deployment.generation, &deployment.outcome)).collect();
    let (no, output) = ("no".to_owned(), "some output".to_owned());
    assert_eq!(
        outcomes,
        [
            (5, &Outcome::Open),
            (4, &Outcome::Stuck { cause: "why".to_owned(), undo_errors: vec!["disk full".to_owned()] }),
            (
                3,
                &Outcome::Partial {
                    applied: 1,
                    rolled_back: 1,
                    cause: "the port was taken".to_owned(),
                    output: "bind: in use".to_owned()
                }
            ),
            (2, &Outcome::RolledBack { cause: no, output }),
            (1, &Outcome::Applied),
        ]
    );
    assert_eq!((history[2].started_at, history[2].finished_at), (30, Some(32)));
    assert_eq!(history[0].origin, Origin::Rollback { to: 1 });
    assert_eq!(history[1].error(), Some("why"));
    assert_eq!(history[0].changes.len(), 2);
    assert!(journal.history(Some("other"), 10).unwrap().is_empty());
    assert_eq!(journal.history(None, 2).unwrap(), history[..2]);
    let json = serde_json::to_string(&history).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Deployment>>(&json).unwrap(), history);
}

#[test]
fn what_a_deployer_says_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let id = journal.intend(&intent(1, &[change("a", None)]), 0).unwrap();
    journal.reverted(id, 0, &"ä".repeat(10_000), &"b".repeat(1 << 20), 0).unwrap();
    journal.finish(id, 0).unwrap();
    let Outcome::RolledBack { cause, output } = journal.history(None, 1).unwrap().remove(0).outcome else { panic!() };
    assert_eq!((cause.len(), output.len()), (16 << 10, 16 << 10));
}

#[test]
fn a_batch_of_ten_thousand_groups_is_one_write_each() {
    let dir = tempfile::tempdir().unwrap();
    let writes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let seen = Arc::clone(&writes);
    let hook: Hook = Arc::new(move |write, moment| {
        seen.lock().unwrap().push((write, moment));
        Ok(())
    });
    let (mut journal, _) = Journal::open(dir.path(), Some(hook), 0).unwrap();
    let content = |number: usize| file(dir.path(), &number.to_string());
    let changes: Vec<_> = (0..10_000).map(|number| change(&format!("dir/{number}"), Some(content(number)))).collect();
    let id = deploy(&mut journal, &intent(1, &changes), 0).unwrap();
    assert_eq!(id, DeploymentId(1));
    let expected =
        [JournalWrite::Intend, JournalWrite::Stage, JournalWrite::Commit, JournalWrite::Retire, JournalWrite::Finish];
    let expected: Vec<_> =
        expected.into_iter().flat_map(|write| [(write, Moment::Before), (write, Moment::After)]).collect();
    assert_eq!(*writes.lock().unwrap(), expected);
    assert_eq!(journal.live("app").unwrap().len(), 10_000);
    let deployment = journal.history(None, 1).unwrap().remove(0);
    assert_eq!((deployment.changes.len(), deployment.changes_total), (100, 10_000));
}

#[test]
fn known_files_come_back_as_they_were_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let known = |root, at: &str, ino| KnownFile {
        place: Place { root, path: path(at) },
        fingerprint: Fingerprint { dev: u64::MAX, ino, size: 3, mtime: -1, ctime: 2, mode: 0o4755 },
        digest: Digest([7; 32]),
    };
    journal.save_known("app", &[known(0, "a", 1), known(0, "b", 2), known(1, "a", 3)], &[], &[]).unwrap();
    journal.save_known("other", &[known(0, "a", 9)], &[], &[]).unwrap();
    journal.save_known("app", &[known(0, "b", 4)], &[known(0, "a", 1).place], &[]).unwrap();
    assert_eq!(journal.known::<Vec<_>, _>("app", Some).unwrap(), [known(0, "b", 4), known(1, "a", 3)]);
    assert_eq!(journal.known::<Vec<_>, _>("other", Some).unwrap(), [known(0, "a", 9)]);
}

#[test]
fn a_repository_is_taken_up_to_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    assert!(journal.followed("app").unwrap().is_empty());
    journal.save_known("app", &[], &[], &[followed(0, 'a'), followed(1, 'b')]).unwrap();
    journal.save_known("other", &[], &[], &[followed(0, 'c')]).unwrap();
    let moved = Followed { origin: "elsewhere".to_owned(), ..followed(0, 'd') };
    journal.save_known("app", &[], &[], std::slice::from_ref(&moved)).unwrap();
    journal.save_known("app", &[], &[], &[]).unwrap();
    assert_eq!(journal.followed("app").unwrap(), [moved, followed(1, 'b')]);
}

#[test]
fn the_commit_that_is_live_is_the_newest_that_was_committed() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let change = |text: &str| [change("a", Some(file(dir.path(), text)))];
    assert_eq!(journal.live_revision("app").unwrap(), None);
    let first = with_revision(intent(1, &change("1")), 'a');
    let id = journal.intend(&first, 1).unwrap();
    journal.staged(id, &all_staged(&first)).unwrap();
    journal.committed(id, &all_committed(&first), 1).unwrap();
    fail(&mut journal, &with_revision(intent(2, &change("2")), 'b'), 2);
    assert_eq!(journal.live_revision("app").unwrap(), Some(revision('a')));
    deploy(&mut journal, &with_revision(intent(3, &change("3")), 'c'), 3).unwrap();
    deploy(&mut journal, &intent(4, &change("edited by hand")), 4).unwrap();
    journal.committed(id, &all_committed(&first), 5).unwrap();
    assert_eq!(journal.live_revision("app").unwrap(), Some(revision('c')), "a repeated commit changes nothing");
    let at: Vec<_> = (0..=5).map(|generation| journal.revision_at("app", generation).unwrap()).collect();
    let [a, c] = ['a', 'c'].map(|digit| Some(revision(digit)));
    assert_eq!(at, [None, a.clone(), a, c.clone(), c.clone(), c.clone()]);
    let history = journal.history(None, 10).unwrap();
    let told: Vec<_> = history.iter().map(|deployment| deployment.revision.clone()).collect();
    assert_eq!(told, [None, c, Some(revision('b')), Some(revision('a'))]);
    let json = serde_json::to_value(&history).unwrap();
    assert!(json[0].get("revision").is_none(), "{json}");
    assert_eq!(serde_json::from_value::<Vec<Deployment>>(json).unwrap(), history);
}

#[test]
fn recovery_knows_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let changes = [change("a", Some(file(dir.path(), "1"))), change("b", Some(file(dir.path(), "2")))];
    journal.intend(&with_revision(intent(1, &changes), 'a'), 0).unwrap();
    let open = journal.open_deployments().unwrap().remove(0);
    let units = open.groups.iter().flat_map(|group| &group.steps).map(|step| &step.unit);
    assert!(units.clone().all(|unit| unit.revision.as_deref() == Some(&revision('a'))));
    assert_eq!(units.count(), 2);
}

#[test]
fn quarantine_ends_by_hand_or_by_going_live() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let failed = |at: &str, attempts, retry_at| Quarantined {
        unit: path(at),
        digest: Some(Digest([1; 32])),
        deployer: "copy".to_owned(),
        attempts,
        retry_at,
        cause: "exit 1".to_owned(),
        is_transient: false,
    };
    for at in ["a", "b", "c", "d"] {
        journal.quarantine("app", &failed(at, 1, Some(5))).unwrap();
    }
    journal.quarantine("app", &failed("a", 2, None)).unwrap();
    deploy(&mut journal, &intent(1, &[change("b", Some(file(dir.path(), "1")))]), 0).unwrap();
    journal.clear_quarantine("app", Some(&path("c"))).unwrap();
    assert_eq!(journal.quarantined("app").unwrap(), [failed("a", 2, None), failed("d", 1, Some(5))]);
    journal.clear_quarantine("other", None).unwrap();
    assert_eq!(journal.quarantined("app").unwrap().len(), 2);
    journal.clear_quarantine("app", None).unwrap();
    assert!(journal.quarantined("app").unwrap().is_empty());
}

#[test]
fn what_went_live_as_a_part_of_the_whole_leaves_the_quarantine() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let failed = |at: &str, deployer: &str| Quarantined {
        unit: path(at),
        digest: None,
        deployer: deployer.to_owned(),
        attempts: 1,
        retry_at: None,
        cause: "stuck".to_owned(),
        is_transient: false,
    };
    // What is stuck names no deployer.
    for (at, deployer) in [("a", "release"), ("b", ""), ("c", "release")] {
        journal.quarantine("app", &failed(at, deployer)).unwrap();
    }
    let mut whole = step("release", 1, &change("", Some(tree(dir.path(), &[("x", "1")]))));
    whole.unit.to_mut().changes = Arc::new([change("a", None), change("b", None)]);
    let group = IntendedGroup { steps: vec![whole], is_staged: false };
    deploy(&mut journal, &Intent { groups: vec![group], ..intent(1, &[]) }, 0).unwrap();
    assert_eq!(journal.quarantined("app").unwrap(), [failed("c", "release")]);
}

#[test]
fn a_hold_lasts_until_it_is_lifted() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).hold("app", Some(3)).unwrap();
    let mut journal = open(dir.path());
    assert_eq!(journal.held("app").unwrap(), Some(3));
    assert_eq!(journal.held("other").unwrap(), None);
    journal.hold("app", None).unwrap();
    assert_eq!(journal.held("app").unwrap(), None);
}

#[test]
fn a_step_is_superseded_once_its_deployer_went_on_or_its_unit_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let added = |path: &str, text: &str| change(path, Some(file(dir.path(), text)));
    let mut stuck = intent(1, &["a", "b/x", "c", "d"].map(|path| added(path, "1")));
    stuck.groups.push(IntendedGroup { is_staged: false, steps: vec![step("other", 1, &added("a", "1"))] });
    journal.intend(&stuck, 0).unwrap();
    let superseded = |journal: &Journal| -> Vec<bool> {
        let groups = journal.open_deployments().unwrap().remove(0).groups;
        groups.iter().flat_map(|group| &group.steps).map(|step| step.is_superseded).collect()
    };
    assert_eq!(superseded(&journal), [false; 5]);
    // What failed did not take its place.
    fail(&mut journal, &intent(2, &[added("a", "2")]), 0);
    assert_eq!(superseded(&journal), [false; 5]);
    // `b` is a file now, and `d/x` says nothing about what is live of `d`.
    let next = [added("a", "2"), added("b", "2"), change("c", None), change("d/x", None)];
    deploy(&mut journal, &intent(3, &next), 0).unwrap();
    assert_eq!(superseded(&journal), [true, true, true, false, false]);
    assert_eq!(journal.open_deployers("app").unwrap().into_iter().collect::<Vec<_>>(), ["copy", "other"]);
}

#[test]
fn what_version_3_had_begun_is_over() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let id = journal.intend(&staged_before(intent(1, &[change("a", None)])), 1).unwrap();
    let unit = json!({ "path": "a", "kind": "removed", "content": null, "previous": null });
    let step = json!({ "deployer": "copy", "config_digest": "c", "unit": unit, "changes": [unit], "old": null,
                       "staged": "{\"staged\":0}" });
    let old = json!({ "groups": [[step]] }).to_string();
    let before = "DROP TABLE brief; DROP TABLE unwritten; ALTER TABLE deployment DROP COLUMN state; ALTER TABLE deployment ADD COLUMN intent;
                  PRAGMA user_version = 3";
    journal.connection.execute_batch(before).unwrap();
    journal.connection.execute("UPDATE deployment SET intent = ?1", [old]).unwrap();
    drop(journal);
    let mut journal = open(dir.path());
    assert_eq!(journal.open_deployments().unwrap().len(), 1);
    journal.finish(id, 2).unwrap();
    assert!(matches!(journal.history(None, 1).unwrap()[0].outcome, Outcome::RolledBack { .. }));
    assert_eq!(journal.live("app").unwrap(), []);
}
