use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::deploy::testing::{Sandbox, removed};

fn config(script: &str) -> ExecConfig {
    ExecConfig {
        command: ["/bin/sh", "-c", script, "sh", "{unit}", "{generation}"].map(String::from).to_vec(),
        per: ExecPer::Unit,
        rollback_command: None,
        cwd: None,
        env: BTreeMap::from([("EXTRA".into(), "more".into())]),
        stdin: ExecStdin::Json,
    }
}

async fn activate(exec: &Exec, cx: &Context, unit: &Unit) -> (Staged, Result<Live>) {
    exec.stage(cx, unit, None).await.unwrap();
    let staged = exec.stage(cx, unit, None).await.unwrap();
    let live = exec.activate(cx, unit, &staged, None).await;
    (staged, live)
}

#[tokio::test]
async fn the_program_is_told_what_it_is_about() {
    let sandbox = Sandbox::new();
    let script =
        r#"echo "$1 $2 $PICKUP_NAME $PICKUP_UNIT $PICKUP_CHANGE $PICKUP_GENERATION $EXTRA"; cat "$PICKUP_PATH""#;
    let (exec, cx, unit) = (Exec::new(config(script)).unwrap(), sandbox.cx(), sandbox.file("a/x.py", b"content", 7));
    let (staged, live) = activate(&exec, &cx, &unit).await;
    live.unwrap();
    assert_eq!(cx.take_output(), "a/x.py 7 web a/x.py added 7 more\ncontent");
    assert!(staged.path.ends_with("x.py"));
    for _ in 0..2 {
        exec.retire(&cx, &unit, &staged, None).await.unwrap();
    }
    assert!(sandbox.listing("scratch").is_empty());
}

#[tokio::test]
async fn the_change_set_is_json_on_standard_input() {
    let sandbox = Sandbox::new();
    let mut config = config("cat");
    config.per = ExecPer::ChangeSet;
    let exec = Exec::new(config).unwrap();
    assert_eq!(exec.scope(), Scope::Pickup);
    let (cx, file) = (sandbox.cx(), sandbox.file("a/x", b"12345", 3));
    let mut unit = sandbox.tree("", &[("a/x", b"12345"), ("b", b"old")], 3);
    let mut gone = file.changes[0].clone();
    (gone.path, gone.kind, gone.content) = (UnitPath::new("c").unwrap(), crate::change::ChangeKind::Removed, None);
    unit.changes = [file.changes[0].clone(), gone].into();
    let (staged, live) = activate(&exec, &cx, &unit).await;
    live.unwrap();
    let told: serde_json::Value = serde_json::from_str(&cx.take_output()).unwrap();
    let digest = file.digest().unwrap().to_string();
    let path = staged.path.join("a/x");
    assert_eq!(
        told,
        serde_json::json!({"pickup": "web", "generation": 3, "changes": [
            {"unit": "a/x", "change": "added", "path": path, "digest": digest, "size": 5},
            {"unit": "c", "change": "removed", "digest": null, "size": null},
        ]})
    );
    assert_eq!(std::fs::read(staged.path.join("b")).unwrap(), b"old");
}

#[tokio::test]
async fn a_commit_is_told_with_the_one_before() {
    let sandbox = Sandbox::new();
    let script = r#"echo "${PICKUP_COMMIT-unset} ${PICKUP_PREVIOUS_COMMIT-unset}"; cat"#;
    let (exec, cx, mut unit) = (Exec::new(config(script)).unwrap(), sandbox.cx(), sandbox.file("x", b"x", 1));
    activate(&exec, &cx, &unit).await.1.unwrap();
    let told = cx.take_output();
    let (names, json) = told.split_once('\n').unwrap();
    assert_eq!(names, "unset unset");
    assert!(!json.contains("revision"), "{json}");
    for (previous, names) in [(None, "new unset"), (Some("old"), "new old")] {
        let revision = Revision {
            commit: "new".into(),
            branch: Some("main".into()),
            author: "A".into(),
            subject: "s".into(),
            committed_at: 5,
            previous: previous.map(Into::into),
        };
        unit.revision = Some(revision.into());
        activate(&exec, &cx, &unit).await.1.unwrap();
        let told = cx.take_output();
        let (said, json) = told.split_once('\n').unwrap();
        assert_eq!(said, names);
        let json: serde_json::Value = serde_json::from_str(json).unwrap();
        let expected = serde_json::json!({"commit": "new", "branch": "main", "author": "A", "subject": "s",
            "committed_at": 5, "previous": previous});
        assert_eq!(json["revision"], expected);
    }
}

#[tokio::test]
async fn a_removed_unit_has_no_path() {
    let sandbox = Sandbox::new();
    let exec = Exec::new(config(r#"echo "$PICKUP_CHANGE ${PICKUP_PATH-unset} ${PICKUP_DIGEST-unset}""#)).unwrap();
    let (cx, live) = (sandbox.cx(), Live { generation: 1, digest: None });
    exec.remove(&cx, &removed("x"), &live).await.unwrap();
    assert_eq!(cx.take_output(), "removed unset unset\n");
}

#[tokio::test]
async fn the_exit_status_says_whether_to_try_again() {
    let sandbox = Sandbox::new();
    let (cx, unit) = (sandbox.cx(), sandbox.file("x", b"x", 1));
    for (script, is_transient) in [("exit 3", false), ("exit 75", true)] {
        let (_, live) = activate(&Exec::new(config(script)).unwrap(), &cx, &unit).await;
        let error = live.unwrap_err();
        assert_eq!(error.to_string(), format!("run /bin/sh: {}", script.replace("exit", "exit status")));
        assert_eq!(error.is_transient(), is_transient);
    }
}

#[tokio::test]
async fn the_rollback_runs_only_after_the_command_was_started() {
    let sandbox = Sandbox::new();
    let mut config = config("exit 1");
    config.rollback_command = Some(["/bin/sh", "-c", "echo undone"].map(String::from).to_vec());
    let (exec, cx, unit) = (Exec::new(config).unwrap(), sandbox.cx(), sandbox.file("x", b"x", 1));
    let staged = exec.stage(&cx, &unit, None).await.unwrap();
    exec.revert(&cx, &unit, &staged, None).await.unwrap();
    assert_eq!(cx.take_output(), "");
    let (staged, live) = activate(&exec, &cx, &unit).await;
    assert!(live.is_err());
    for _ in 0..2 {
        exec.revert(&cx, &unit, &staged, None).await.unwrap();
    }
    assert_eq!(cx.take_output(), "undone\n");
}

#[tokio::test]
async fn a_hanging_command_is_a_timeout() {
    let sandbox = Sandbox::new();
    let exec = Exec::new(config("sleep 60")).unwrap();
    let (_, live) = activate(&exec, &sandbox.cx_of(Duration::from_millis(300)), &sandbox.file("x", b"x", 1)).await;
    assert_eq!(live.unwrap_err().kind(), ErrorKind::Timeout);
}

#[test]
fn a_command_names_a_program() {
    for argv in [vec![], vec![String::new()]] {
        let error = Exec::new(ExecConfig { command: argv, ..config("") }).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
}
