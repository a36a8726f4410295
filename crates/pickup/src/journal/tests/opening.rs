//! New, existing, migrated, damaged, newer.

use std::fs;

use rusqlite::Connection;

use super::*;

fn sql(state_dir: &Path, sql: &str) {
    Connection::open(state_dir.join("journal.db")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn a_journal_is_made_once_and_private() {
    let dir = tempfile::tempdir().unwrap();
    let state_dir = dir.path().join("state");
    let (journal, opened) = Journal::open(&state_dir, None, 0).unwrap();
    assert_eq!(opened, Opened::New);
    #[cfg(unix)]
    for name in ["journal.db", "journal.db-wal"] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(state_dir.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    drop(journal);
    assert_eq!(Journal::open(&state_dir, None, 0).unwrap().1, Opened::Existing);
}

#[test]
fn no_write_but_a_checkpoint_waits_for_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let pragma = |name| journal.connection.pragma_query_value(None, name, |row| row.get::<_, String>(0));
    let number = |name| journal.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(pragma("journal_mode").unwrap(), "wal");
    assert_eq!(number("synchronous"), 1);
    assert_eq!(number("busy_timeout"), 5000);
    assert_eq!(usize::try_from(number("user_version")), Ok(schema::current()));
}

type Damage = fn(&Path);

#[test]
fn a_damaged_journal_is_set_aside_and_a_fresh_one_made() {
    let damages: [(&str, Damage); 5] = [
        ("file is not a database", |dir| fs::write(dir.join("journal.db"), vec![b'x'; 8192]).unwrap()),
        ("", |dir| {
            let file = fs::OpenOptions::new().write(true).open(dir.join("journal.db")).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("", |dir| {
            let mut bytes = fs::read(dir.join("journal.db")).unwrap();
            bytes[4096..12288].fill(0xa5);
            fs::write(dir.join("journal.db"), bytes).unwrap();
        }),
        ("table live is missing", |dir| sql(dir, "DROP TABLE live")),
        ("it holds tables and no version", |dir| sql(dir, "PRAGMA user_version = 0")),
    ];
    for (number, (expected, damage)) in damages.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        deploy(&mut open(dir.path()), &intent(1, &[change("a", Some(file(dir.path(), "1")))]), 0).unwrap();
        damage(dir.path());
        let damaged = fs::read(dir.path().join("journal.db")).unwrap();

        let (mut journal, opened) = Journal::open(dir.path(), None, 7_999).unwrap();
        let Opened::Rebuilt { set_aside, why } = opened else { panic!("damage {number}: {opened:?}") };
        assert!(why.contains(expected), "damage {number}: {why}");
        assert_eq!(set_aside, dir.path().join("journal.db.damaged-7"));
        assert_eq!(fs::read(set_aside).unwrap(), damaged);
        assert_eq!(journal.next_generation("app").unwrap(), 1);
        drop(journal);
        assert_eq!(Journal::open(dir.path(), None, 0).unwrap().1, Opened::Existing);
    }
}

type End = fn(Journal, &Path);

#[test]
fn a_journal_that_was_closed_in_order_is_checked_later() {
    let ends: [(End, bool); 4] = [
        (|journal, _| drop(journal), true),
        // As a crash leaves it.
        (|journal, _| std::mem::forget(journal), false),
        (|journal, _| journal.doubt().raise(), false),
        (
            |journal, dir| {
                drop(journal);
                let bytes = fs::read(dir.join("journal.db")).unwrap();
                fs::write(dir.join("journal.db"), bytes).unwrap();
            },
            false,
        ),
    ];
    for (number, (end, is_unchecked)) in ends.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let journal = open(dir.path());
        assert!(journal.is_unchecked());
        assert_eq!(journal.damage().unwrap(), None);
        end(journal, dir.path());
        assert_eq!(open(dir.path()).is_unchecked(), is_unchecked, "end {number}");
    }
}

#[test]
fn two_journals_damaged_in_one_second_are_both_kept() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["journal.db.damaged-7", "journal.db.damaged-7.1"] {
        fs::write(dir.path().join("journal.db"), "x".repeat(4096)).unwrap();
        fs::write(dir.path().join("journal.db-wal"), name).unwrap();
        let Opened::Rebuilt { set_aside, .. } = Journal::open(dir.path(), None, 7_000).unwrap().1 else { panic!() };
        assert_eq!(set_aside, dir.path().join(name));
        assert!(dir.path().join(format!("{name}-wal")).exists());
    }
}

#[test]
fn a_newer_journal_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let current = schema::current();
    sql(dir.path(), &format!("DROP TABLE live; PRAGMA user_version = {}", current + 1));
    let before = fs::read(dir.path().join("journal.db")).unwrap();
    for error in [Journal::open(dir.path(), None, 0).err(), Journal::open_read_only(dir.path()).err()] {
        let error = error.unwrap();
        assert_eq!(error.kind(), ErrorKind::NewerSchema);
        assert_eq!(
            error.to_string(),
            format!(
                "use journal {}: it has version {}, and this program knows none after {current}: run the newer program \
                 again, or choose another state_dir",
                dir.path().join("journal.db").display(),
                current + 1
            )
        );
    }
    assert_eq!(fs::read(dir.path().join("journal.db")).unwrap(), before);
}

#[test]
fn an_older_journal_is_brought_up_to_date_step_by_step() {
    let (current, mut connection) = (schema::current(), Connection::open_in_memory().unwrap());
    assert_eq!(schema::migrate(&mut connection, schema::MIGRATIONS).unwrap(), 0);
    let mut migrations = schema::MIGRATIONS.to_vec();
    migrations.extend(["ALTER TABLE pickup ADD COLUMN one", "ALTER TABLE pickup ADD COLUMN two"]);
    assert_eq!(schema::migrate(&mut connection, &migrations).unwrap(), current);
    assert_eq!(schema::version(&connection).unwrap(), current + 2);
    connection.execute_batch("SELECT one, two FROM pickup").unwrap();

    migrations.extend(["ALTER TABLE pickup ADD COLUMN three", "nonsense"]);
    assert!(schema::migrate(&mut connection, &migrations).is_err());
    assert_eq!(schema::version(&connection).unwrap(), current + 3, "the step that failed left nothing behind");
}

#[test]
fn a_journal_of_version_1_keeps_all_it_knows_and_takes_commits() {
    let dir = tempfile::tempdir().unwrap();
    {
        let mut connection = Connection::open(dir.path().join("journal.db")).unwrap();
        schema::migrate(&mut connection, &schema::MIGRATIONS[..1]).unwrap();
    }
    sql(
        dir.path(),
        "INSERT INTO pickup (name, generation, committed) VALUES ('app', 1, 1);
         INSERT INTO deployment VALUES (1, 1, 1, '\"change\"', 5, 6);
         INSERT INTO step_group (deployment, number, state) VALUES (1, 0, 'retired');",
    );
    assert_eq!(Journal::open_read_only(dir.path()).err().unwrap().kind(), ErrorKind::Journal);
    let (mut journal, opened) = Journal::open(dir.path(), None, 0).unwrap();
    assert_eq!(opened, Opened::Migrated { from: 1 });
    assert_eq!(journal.live_generation("app").unwrap(), Some(1));
    assert_eq!((journal.live_revision("app").unwrap(), journal.revision_at("app", 1).unwrap()), (None, None));
    assert_eq!(journal.history(None, 10).unwrap()[0].revision, None);
    deploy(&mut journal, &with_revision(intent(2, &[change("a", Some(file(dir.path(), "1")))]), 'a'), 7).unwrap();
    assert_eq!(journal.live_revision("app").unwrap(), Some(revision('a')));
    assert_eq!(journal.history(None, 1).unwrap()[0].revision, Some(revision('a')));
    drop(journal);
    sql(dir.path(), "DROP TABLE followed");
    let Opened::Rebuilt { why, .. } = Journal::open(dir.path(), None, 0).unwrap().1 else { panic!() };
    assert_eq!(why, "table followed is missing");
}

/// A brief whose lists have names.
fn as_version_4(mut brief: Value) -> Value {
    let named = |names: &[&str], list: &Value| -> Value {
        let fields = names.iter().zip(list.as_array().unwrap()).filter(|(_, value)| !value.is_null());
        Value::Object(fields.map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    };
    for step in brief["groups"].as_array_mut().unwrap().iter_mut().flat_map(|group| group.as_array_mut().unwrap()) {
        *step = named(&["deployer", "unit", "changes", "old", "staged"], step);
        step["unit"] = named(&["path", "kind", "content", "previous"], &step["unit"]);
        if let Some(content) = step["unit"].get_mut("content") {
            *content = named(&["digest", "size", "mode"], content);
        }
    }
    brief
}

#[test]
fn a_journal_of_version_4_keeps_what_is_brief() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let mut ids = Vec::new();
    for (generation, reached) in [(1, 3), (2, 1), (3, 0)] {
        let previous = (generation > 1).then(|| file(dir.path(), &(generation - 1).to_string()).digest());
        let added = change("a", Some(file(dir.path(), &generation.to_string())));
        let mut intent = staged_before(intent(generation, &[Change { previous, ..added }, change("b", None)]));
        intent.groups[0].steps[0].old = previous.map(|_| Cow::Owned(json!({ "generation": generation - 1 })));
        let id = journal.intend(&intent, 1).unwrap();
        if reached > 0 {
            journal.committed(id, &all_committed(&intent), 2).unwrap();
        }
        if reached > 1 {
            journal.retired(id, &[0, 1]).unwrap();
            journal.finish(id, 3).unwrap();
        }
        ids.push((id, intent));
    }
    // Nothing was left for later then.
    while journal.write_later().unwrap() {}
    let told = |journal: &Journal| {
        let history =
            journal.history(None, 9).unwrap().into_iter().map(|one| (one.generation, one.outcome, one.changes));
        let contents = journal.contents_at("app", 2).unwrap();
        format!("{:?} {:?} {contents:?}", history.collect::<Vec<_>>(), journal.open_deployments().unwrap())
    };
    let before = told(&journal);
    let back = "ALTER TABLE deployment ADD COLUMN intent TEXT;
                UPDATE deployment SET intent = (SELECT intent FROM brief WHERE deployment = id);
                UPDATE deployment SET state = NULL WHERE state = 'staged';
                DROP TABLE brief; DROP TABLE unwritten;
                PRAGMA user_version = 4";
    journal.connection.execute_batch(back).unwrap();
    let mut list = journal.connection.prepare("SELECT id, intent FROM deployment").unwrap();
    let intents = list.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let intents: Vec<(i64, String)> = intents.collect::<rusqlite::Result<_>>().unwrap();
    for (id, intent) in intents {
        let old = as_version_4(serde_json::from_str(&intent).unwrap()).to_string();
        journal.connection.execute("UPDATE deployment SET intent = ?2 WHERE id = ?1", (id, old)).unwrap();
    }
    drop(list);
    drop(journal);
    let (mut journal, opened) = Journal::open(dir.path(), None, 0).unwrap();
    assert_eq!(opened, Opened::Migrated { from: 4 });
    assert_eq!(told(&journal), before);
    assert_eq!(journal.open_deployments().unwrap().len(), 2);
    let (id, intent) = &ids[2];
    journal.committed(*id, &all_committed(intent), 4).unwrap();
    assert_eq!(journal.contents_at("app", 3).unwrap()[&path("a")], file(dir.path(), "3"));
}

/// In version 5 only what a generation consists of was left for later.
#[test]
fn a_journal_of_version_5_keeps_what_it_left_for_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let changes = [change("a", Some(file(dir.path(), "1"))), change("b", None)];
    let intent = staged_before(intent(1, &changes));
    let id = journal.intend(&intent, 1).unwrap();
    journal.committed(id, &all_committed(&intent), 2).unwrap();
    let told = |journal: &Journal| (journal.live("app").unwrap(), journal.contents_at("app", 1).unwrap());
    let before = told(&journal);
    journal.replace_receipt("app", "copy", &path("a"), &json!({ "generation": 1 })).unwrap();
    let back = "DELETE FROM unit_version; INSERT INTO unwritten (deployment) SELECT id FROM deployment;
                ALTER TABLE unwritten DROP COLUMN since; ALTER TABLE unwritten DROP COLUMN receipt;
                ALTER TABLE unwritten RENAME TO unversioned; PRAGMA user_version = 5";
    journal.connection.execute_batch(back).unwrap();
    drop(journal);
    let (mut journal, opened) = Journal::open(dir.path(), None, 0).unwrap();
    assert_eq!(opened, Opened::Migrated { from: 5 });
    assert_eq!(told(&journal), before);
    while journal.write_later().unwrap() {}
    assert_eq!(told(&journal), before);
}

#[test]
fn a_reader_needs_no_daemon_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Journal::open_read_only(dir.path()).unwrap().is_none());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    let mut journal = open(dir.path());
    deploy(&mut journal, &intent(1, &[change("a", Some(file(dir.path(), "1")))]), 0).unwrap();
    let beside = Journal::open_read_only(dir.path()).unwrap().unwrap();
    assert_eq!(beside.history(None, 10).unwrap().len(), 1);
    drop((beside, journal));

    let mut alone = Journal::open_read_only(dir.path()).unwrap().unwrap();
    assert_eq!(alone.live_generation("app").unwrap(), Some(1));
    assert!(alone.hold("app", Some(1)).is_err());
}

#[cfg(unix)]
#[test]
fn a_symlink_is_no_journal() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("other"), "precious").unwrap();
    std::os::unix::fs::symlink("other", dir.path().join("journal.db")).unwrap();
    assert_eq!(Journal::open(dir.path(), None, 0).err().unwrap().kind(), ErrorKind::Journal);
    assert_eq!(fs::read(dir.path().join("other")).unwrap(), b"precious");
}

#[test]
fn a_fresh_journal_takes_up_no_strangers_log() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    deploy(&mut journal, &intent(1, &[change("a", Some(file(dir.path(), "1")))]), 0).unwrap();
    let copy = killed(dir.path());
    fs::remove_file(copy.path().join("journal.db")).unwrap();
    let (journal, opened) = Journal::open(copy.path(), None, 0).unwrap();
    assert_eq!(opened, Opened::New);
    assert!(journal.history(None, 10).unwrap().is_empty());
}
