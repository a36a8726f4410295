//! `contents_at` against a model: a list of maps.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const PATHS: [&str; 4] = ["a", "b", "c/d", "e"];

/// One thing that happens to a pickup.
#[derive(Clone, Debug)]
enum Act {
    /// Paths get a content, or are removed, and it works.
    Commit(BTreeMap<usize, Option<u8>>),
    /// The same, and it fails.
    Fail(BTreeMap<usize, Option<u8>>),
    /// The first group works, the others fail.
    Partial(BTreeMap<usize, Option<u8>>),
    /// Back to the generation this far back, if it is kept.
    Rollback(u64),
    /// What a commit left for later is written.
    Later,
    /// Another process opens it.
    Reopen,
    /// The deployments of that many last generations are young enough to be kept.
    Prune(u64),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let changes = || prop::collection::btree_map(0..PATHS.len(), prop::option::of(0_u8..4), 1..=PATHS.len());
    let act = prop_oneof![
        5 => changes().prop_map(Act::Commit),
        1 => changes().prop_map(Act::Fail),
        2 => changes().prop_map(Act::Partial),
        2 => (0_u64..6).prop_map(Act::Rollback),
        2 => (0_u64..6).prop_map(Act::Prune),
        2 => Just(Act::Later),
        1 => Just(Act::Reopen),
    ];
    prop::collection::vec(act, 1..25)
}

type Contents = BTreeMap<UnitPath, Content>;

/// What was live in each generation, from 0.
struct Model {
    generations: Vec<Contents>,
    /// The commit that was live in each of them: every other generation comes from one.
    revisions: Vec<Option<Revision>>,
    newest_committed: Option<u64>,
}

/// Some contents are trees.
fn content(dir: &Path, number: u8) -> Content {
    let text = format!("content {number}");
    if number == 3 { tree(dir, &[("x", &text), ("y", "content 1")]) } else { file(dir, &text) }
}

fn changes(dir: &Path, wanted: &BTreeMap<usize, Option<u8>>) -> Vec<Change> {
    wanted.iter().map(|(at, number)| change(PATHS[*at], number.map(|number| content(dir, number)))).collect()
}

fn apply(contents: &mut Contents, change: &Change) {
    match &change.content {
        Some(content) => contents.insert(change.path.clone(), content.clone()),
        None => contents.remove(&change.path),
    };
}

fn changes_between(from: &Contents, to: &Contents) -> Vec<Change> {
    let gone = from.keys().filter(|path| !to.contains_key(*path));
    let gone = gone.map(|path| Change { path: path.clone(), ..change("", None) });
    let new = to.iter().filter(|(path, content)| from.get(*path) != Some(content));
    let new = new.map(|(path, content)| Change { path: path.clone(), ..change("", Some(content.clone())) });
    gone.chain(new).collect()
}

/// Deploys `changes`, of which the first `working` groups work; each generation happens at its own number as time.
fn run(journal: &mut Journal, model: &mut Model, changes: &[Change], working: usize) {
    let generation = model.generations.len() as u64;
    assert_eq!(journal.next_generation("app").unwrap(), generation);
    let now = generation.cast_signed();
    let digit = char::from_digit((generation % 16) as u32, 16).filter(|_| generation.is_multiple_of(2));
    let intent =
        digit.map_or_else(|| intent(generation, changes), |digit| with_revision(intent(generation, changes), digit));
    let id = if generation.is_multiple_of(2) {
        journal.intend(&staged_before(intent.clone()), now).unwrap()
    } else {
        let id = journal.intend(&intent, now).unwrap();
        journal.staged(id, &all_staged(&intent)).unwrap();
        id
    };
    if working > 0 {
        journal.committed(id, &all_committed(&intent)[..working], now).unwrap();
        // Some are retired bit by bit.
        let first = if generation.is_multiple_of(3) { 1 } else { working };
        journal.retired(id, &(0..first).collect::<Vec<_>>()).unwrap();
        if first < working {
            journal.retired(id, &(first..working).collect::<Vec<_>>()).unwrap();
        }
        model.newest_committed = Some(generation);
    }
    for group in working..changes.len() {
        journal.reverted(id, group, "no", "", now).unwrap();
    }
    journal.finish(id, now).unwrap();
    let mut contents = model.generations.last().unwrap().clone();
    changes[..working].iter().for_each(|change| apply(&mut contents, change));
    model.generations.push(contents);
    let before = model.revisions.last().unwrap().clone();
    model.revisions.push(digit.filter(|_| working > 0).map(revision).or(before));
}

fn act(journal: &mut Journal, model: &mut Model, dir: &Path, act: &Act) {
    let newest = model.generations.len() as u64 - 1;
    match act {
        Act::Commit(wanted) => run(journal, model, &changes(dir, wanted), wanted.len()),
        Act::Fail(wanted) => run(journal, model, &changes(dir, wanted), 0),
        Act::Partial(wanted) => run(journal, model, &changes(dir, wanted), 1),
        Act::Rollback(back) => {
            let to = newest.saturating_sub(*back);
            if let Ok(contents) = journal.contents_at("app", to) {
                let changes = changes_between(model.generations.last().unwrap(), &contents);
                run(journal, model, &changes, changes.len());
            }
        }
        Act::Later => drop(journal.write_later().unwrap()),
        Act::Reopen => *journal = open(dir),
        Act::Prune(keep) => journal.prune("app", (newest + 1).saturating_sub(*keep).cast_signed()).unwrap(),
    }
}

fn check(journal: &Journal, model: &Model, dir: &Path) {
    let kept: Vec<u64> = journal.history(None, 100).unwrap().iter().map(|deployment| deployment.generation).collect();
    assert!(model.newest_committed.is_none_or(|newest| kept.contains(&newest)));
    assert_eq!(journal.live_generation("app").unwrap(), model.newest_committed);
    let referenced = journal.referenced().unwrap();
    // Where no deployment is kept, no generation is.
    let oldest_kept = kept.last().copied().unwrap_or(u64::MAX);
    for (generation, expected) in (0..).zip(&model.generations) {
        match journal.contents_at("app", generation) {
            Ok(contents) => {
                let expected_revision = &model.revisions[usize::try_from(generation).unwrap()];
                assert_eq!(&journal.revision_at("app", generation).unwrap(), expected_revision, "{generation}");
                assert_eq!(&contents, expected, "generation {generation}");
                assert!(contents.values().flat_map(files).all(|digest| referenced.contains(&digest)));
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                assert!(generation < oldest_kept, "generation {generation} is kept");
            }
        }
    }
    assert_eq!(&journal.live_revision("app").unwrap(), model.revisions.last().unwrap());
    let reader = Journal::open_read_only(dir).unwrap().unwrap();
    let paths: Vec<UnitPath> = PATHS.into_iter().map(path).collect();
    let asked: Vec<_> = paths.iter().map(|path| ("copy", path)).collect();
    for journal in [journal, &reader] {
        let rows = journal.live("app").unwrap();
        let receipt = |path: &UnitPath| rows.iter().find(|row| row.unit == *path).map(|row| row.receipt.clone());
        assert_eq!(journal.receipts("app", &asked).unwrap(), paths.iter().map(receipt).collect::<Vec<_>>());
        for asked in asked.chunks(1) {
            assert_eq!(journal.receipts("app", asked).unwrap(), [receipt(asked[0].1)]);
        }
        let mut keys = Vec::new();
        journal.each_live("app", |key| keys.extend(key.unit())).unwrap();
        assert_eq!(keys, rows.iter().map(|row| row.unit.clone()).collect::<Vec<_>>());
        let mut after = Vec::new();
        while let Some(next) = journal.live_after("app", after.last().map(|last| ("copy", last)), 1).unwrap().pop() {
            after.push(next.unit);
        }
        assert_eq!(after, keys, "one by one");
        let live = rows.into_iter().map(|row| (row.unit, row.content.unwrap())).collect();
        assert_eq!(model.generations.last().unwrap(), &live);
    }
}

fn files(content: &Content) -> Vec<Digest> {
    match content {
        Content::File(file) => vec![file.digest],
        Content::Tree(files) => files.iter().map(|entry| entry.file.digest).collect(),
    }
}

fn told(acts: &[Act]) {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let mut model = Model { generations: vec![Contents::new()], revisions: vec![None], newest_committed: None };
    for next in acts {
        act(&mut journal, &mut model, dir.path(), next);
        check(&journal, &model, dir.path());
    }
}

/// Found by the property below.
#[test]
fn when_every_deployment_is_pruned_no_generation_is_kept() {
    told(&[Act::Rollback(0), Act::Prune(1), Act::Prune(0)]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_contents_of_every_kept_generation_can_be_told(acts in acts()) {
        told(&acts);
    }
}

#[test]
fn contents_that_only_pruned_generations_had_may_leave_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let versions = [file(dir.path(), "1"), tree(dir.path(), &[("x", "2"), ("y", "3")]), file(dir.path(), "4")];
    for (generation, content) in (1_u64..).zip(&versions) {
        let now = generation.cast_signed();
        deploy(&mut journal, &intent(generation, &[change("a", Some(content.clone()))]), now).unwrap();
    }
    fail(&mut journal, &intent(4, &[change("a", Some(file(dir.path(), "5")))]), 4);
    assert_eq!(journal.referenced().unwrap(), versions.iter().flat_map(files).collect());
    journal.prune("app", 2).unwrap();
    assert_eq!(journal.referenced().unwrap(), versions[1..].iter().flat_map(files).collect());
    journal.intend(&intent(5, &[change("a", Some(file(dir.path(), "6")))]), 5).unwrap();
    journal.prune("app", 100).unwrap();
    let needed = [&versions[2], &file(dir.path(), "6")];
    assert_eq!(journal.referenced().unwrap(), needed.into_iter().flat_map(files).collect());
}
