//! The process dies at each write in turn; what is found afterwards is whole.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;

type Calls = Arc<Mutex<Vec<(JournalWrite, Moment)>>>;

/// Fails at the call with this number, counted from 0; counts all calls.
fn dying_at(fatal: usize) -> (Hook, Calls) {
    let calls = Calls::default();
    let seen = Arc::clone(&calls);
    let hook: Hook = Arc::new(move |write, moment| {
        let mut seen = seen.lock().unwrap();
        seen.push((write, moment));
        if seen.len() == fatal + 1 { Err(Error::new(ErrorKind::Journal, "go on")) } else { Ok(()) }
    });
    (hook, calls)
}

/// Every kind of write at least once; generation 1 is live already.
fn scenario(journal: &mut Journal, state_dir: &Path, is_brief: bool) -> Result<()> {
    let changes = [change("a", Some(file(state_dir, "new"))), change("b", None), change("c", None)];
    let intent = with_revision(intent(2, &changes), 'b');
    journal.save_known("app", &[], &[Place { root: 0, path: path("a") }], &[followed(0, 'b')])?;
    let id = if is_brief {
        journal.intend(&staged_before(intent.clone()), 2)?
    } else {
        let id = journal.intend(&intent, 2)?;
        journal.staged(id, &all_staged(&intent))?;
        id
    };
    journal.committed(id, &all_committed(&intent)[..1], 2)?;
    journal.retired(id, &[0])?;
    journal.reverted(id, 1, "no", "", 2)?;
    journal.stuck(id, 2, "no", &[], 2)?;
    journal.finish(id, 2)?;
    let failed = failed("b");
    journal.quarantine("app", &failed)?;
    journal.hold("app", Some(1))?;
    journal.prune("app", 2)
}

/// What holds whenever the process dies.
fn check(journal: &mut Journal, state_dir: &Path, died: (JournalWrite, Moment)) {
    let contents = journal.contents_at("app", 2).unwrap();
    let live: Vec<_> = journal.live("app").unwrap().into_iter().filter(|row| row.unit != path("c")).collect();
    for row in &live {
        assert_eq!(contents.get(&row.unit), row.content.as_ref(), "{died:?}");
        assert_eq!(row.receipt, json!({ "generation": row.generation }), "{died:?}");
    }
    let is_new = contents[&path("a")] == file(state_dir, "new");
    assert_eq!(journal.live_generation("app").unwrap(), Some(if is_new { 2 } else { 1 }), "{died:?}");
    let commit = if is_new { 'b' } else { 'a' };
    assert_eq!(journal.live_revision("app").unwrap(), Some(revision(commit)), "{died:?}");
    assert_eq!(journal.revision_at("app", 2).unwrap(), Some(revision(commit)), "{died:?}");
    let is_known = died != (JournalWrite::Known, Moment::Before);
    assert_eq!(journal.followed("app").unwrap().len(), usize::from(is_known), "{died:?}");
    let history = journal.history(None, 10).unwrap();
    let open = journal.open_deployments().unwrap();
    // Once each group is decided, what is left to clean up changes no outcome.
    let is_undecided = |group: &OpenGroup| matches!(group.state, GroupState::Intended | GroupState::Staged);
    let undecided = open.iter().filter(|deployment| deployment.groups.iter().any(is_undecided)).count();
    let told = history.iter().filter(|deployment| deployment.outcome == Outcome::Open).count();
    assert_eq!(told, undecided, "{died:?}");
    for group in open.iter().flat_map(|deployment| &deployment.groups) {
        let step = &group.steps[0];
        assert_eq!(step.unit.revision.as_deref(), Some(&revision('b')), "{died:?}");
        assert_eq!(group.state != GroupState::Intended, step.staged.is_some(), "{died:?}");
        if step.unit.path == path("a") {
            assert_eq!(matches!(group.state, GroupState::Committed | GroupState::Retired), is_new, "{died:?}");
            let receipt = journal.receipts("app", &[("copy", &path("a"))]).unwrap().remove(0);
            assert_eq!(receipt, Some(json!({ "generation": if is_new { 2 } else { 1 } })), "{died:?}");
        }
    }
    let is_intended = history.iter().any(|deployment| deployment.generation == 2);
    assert_eq!(journal.next_generation("app").unwrap(), if is_intended { 3 } else { 2 }, "{died:?}");
    let referenced = journal.referenced().unwrap();
    assert!(live.iter().all(|row| referenced.contains(&row.digest.unwrap())), "{died:?}");
}

/// Recovery by the book: what was committed is retired, what was not is reverted.
fn recover(journal: &mut Journal) {
    for deployment in journal.open_deployments().unwrap() {
        for (number, group) in deployment.groups.iter().enumerate() {
            match group.state {
                GroupState::Intended | GroupState::Staged => {
                    journal.reverted(deployment.id, number, "the process died", "", 3).unwrap();
                }
                GroupState::Committed => journal.retired(deployment.id, &[number]).unwrap(),
                GroupState::Retired | GroupState::Reverted | GroupState::Stuck => {}
            }
        }
        journal.finish(deployment.id, 3).unwrap();
    }
}

#[test]
fn a_crash_at_any_write_leaves_all_of_it_or_nothing() {
    // Deployers that stage nothing save a write.
    for (is_brief, writes) in [(false, 11), (true, 10)] {
        let fatal = (0..).find(|fatal| !dies_at(*fatal, is_brief)).unwrap();
        assert_eq!(fatal, 2 * writes, "so many writes, before and after each");
    }
}

/// Whether there is a call with that number to die at.
fn dies_at(fatal: usize, is_brief: bool) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let before = ["a", "b", "c"].map(|at| change(at, Some(file(dir.path(), "old"))));
    deploy(&mut open(dir.path()), &with_revision(intent(1, &before), 'a'), 1).unwrap();
    let (hook, calls) = dying_at(fatal);
    let (mut journal, _) = Journal::open(dir.path(), Some(hook), 0).unwrap();
    let ended = scenario(&mut journal, dir.path(), is_brief);
    let died = *calls.lock().unwrap().last().unwrap();
    if ended.is_ok() {
        return false;
    }
    let copy = killed(dir.path());
    let (mut journal, opened) = Journal::open(copy.path(), None, 0).unwrap();
    assert_eq!(opened, Opened::Existing, "{died:?}");
    check(&mut journal, copy.path(), died);
    recover(&mut journal);
    check(&mut journal, copy.path(), died);
    assert!(journal.open_deployments().unwrap().is_empty(), "{died:?}");
    let next = journal.next_generation("app").unwrap();
    deploy(&mut journal, &intent(next, &before), 4).unwrap();
    true
}

#[test]
fn what_a_commit_leaves_for_later_can_be_told_whenever_the_process_dies() {
    let mut deaths = Vec::new();
    for fatal in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let before = ["a", "b", "c"].map(|at| change(at, Some(file(dir.path(), "old"))));
        deploy(&mut open(dir.path()), &intent(1, &before), 1).unwrap();
        let (hook, calls) = dying_at(fatal);
        let (mut journal, _) = Journal::open(dir.path(), Some(hook), 0).unwrap();
        let brief = staged_before(intent(2, &[change("a", Some(file(dir.path(), "new"))), change("b", None)]));
        let mut run = || -> Result<()> {
            let id = journal.intend(&brief, 2)?;
            journal.committed(id, &all_committed(&brief), 2)?;
            while journal.write_later()? {}
            journal.retired(id, &[0, 1])?;
            journal.finish(id, 2)
        };
        if run().is_ok() {
            break;
        }
        deaths.push(*calls.lock().unwrap().last().unwrap());
        let state = killed(dir.path());
        let mut journal = open(state.path());
        let is_live = journal.live("app").unwrap().len() == 2;
        assert_eq!(is_live, fatal > 2, "{deaths:?}");
        let texts =
            if is_live { vec![("a", "new"), ("c", "old")] } else { vec![("a", "old"), ("b", "old"), ("c", "old")] };
        for is_written in [false, true] {
            let told = journal.contents_at("app", 2).unwrap();
            let rows = journal.live("app").unwrap().into_iter();
            let live: BTreeMap<_, _> = rows.map(|row| (row.unit, row.content.unwrap())).collect();
            assert_eq!(live, told, "{deaths:?}, written: {is_written}");
            let expected = texts.iter().map(|(at, text)| (path(at), file(state.path(), text))).collect();
            assert_eq!(told, expected, "{deaths:?}, written: {is_written}");
            assert_eq!(journal.contents_at("app", 1).unwrap().len(), 3);
            let referenced = journal.referenced().unwrap();
            assert!(told.values().all(|content| referenced.contains(&content.digest())), "{deaths:?}");
            while journal.write_later().unwrap() {}
        }
        let sql = "SELECT (SELECT count(*) FROM unwritten), (SELECT count(*) FROM unit_version WHERE generation = 2)";
        let counts: (i64, i64) = journal.connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        assert_eq!(counts, (0, if is_live { 2 } else { 0 }), "{deaths:?}");
    }
    assert!(deaths.contains(&(JournalWrite::Later, Moment::Before)), "{deaths:?}");
}

#[test]
fn a_commit_that_dies_before_its_write_is_not_there() {
    for (moment, live) in [(Moment::Before, 0), (Moment::After, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let hook: Hook = Arc::new(move |write, at| match (write, at) {
            (JournalWrite::Commit, at) if at == moment => Err(Error::new(ErrorKind::Journal, "go on")),
            _ => Ok(()),
        });
        let (mut journal, _) = Journal::open(dir.path(), Some(hook), 0).unwrap();
        assert!(deploy(&mut journal, &intent(1, &[change("a", Some(file(dir.path(), "1")))]), 0).is_err());
        assert_eq!(journal.live("app").unwrap().len(), live, "{moment:?}");
        assert_eq!(journal.contents_at("app", 1).unwrap().len(), live, "{moment:?}");
    }
}
