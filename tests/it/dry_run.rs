//! `--dry-run`: the plan is what is then done, and nothing is done before.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::git::followed::{Followed, RARELY};
use crate::program::binary;
use crate::sandbox::Sandbox;

/// Two deployers of both scopes, and a program.
const ALL: &str = r#"
[hot-deploy.user.p]
pickup_from = "in"
deploy_to = ["files", "releases", "run"]

[deployer.files]
kind = "copy"
into = "files"
durable = false

[deployer.releases]
kind = "release"
into = "releases"
durable = false

[deployer.run]
kind = "exec"
command = ["./run"]
"#;

const ONCE: [&str; 4] = ["run", "--once", "--dry-run", "--json"];

/// The plans that `pickupd` prints, and its exit code.
#[track_caller]
pub fn plans<const N: usize>(sandbox: &Sandbox, arguments: [&str; N]) -> (Vec<Value>, Option<i32>) {
    let output = sandbox.try_ask(arguments);
    let plans: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no plan: {output:?}"));
    (plans.as_array().expect("a list of plans").clone(), output.status.code())
}

/// The plan of the only entry, which nobody objects to.
#[track_caller]
pub fn plan<const N: usize>(sandbox: &Sandbox, arguments: [&str; N]) -> Value {
    let (mut plans, code) = plans(sandbox, arguments);
    assert_eq!((plans.len(), code), (1, Some(0)), "{plans:?}");
    plans.remove(0)
}

/// Every file and link in the sandbox, but for what SQLite puts beside a journal that is read.
pub fn everything(sandbox: &Sandbox) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![sandbox.path("")];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("list a directory") {
            let entry = entry.expect("list a directory");
            let (kind, path) = (entry.file_type().expect("the type of an entry"), entry.path());
            if path.ends_with("journal.db-shm") || path.ends_with("journal.db-wal") {
                continue;
            }
            let content = match () {
                () if kind.is_dir() => Vec::new(),
                () if kind.is_symlink() => {
                    std::fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
                }
                () if kind.is_file() => std::fs::read(&path).expect("read a file"),
                () => Vec::new(),
            };
            if kind.is_dir() {
                open.push(path.clone());
            }
            found.insert(path, content);
        }
    }
    found
}

/// The plan of the only entry, before which and after which everything is the same.
#[track_caller]
fn harmless_plan(sandbox: &Sandbox) -> Value {
    let before = everything(sandbox);
    let plan = plan(sandbox, ONCE);
    assert_eq!(everything(sandbox), before);
    plan
}

/// Generation, unit and change of all that is planned.
pub fn planned(plan: &Value) -> BTreeSet<(u64, String, String)> {
    let mut planned = BTreeSet::new();
    for set in plan["change_sets"].as_array().expect("change sets") {
        for group in set["groups"].as_array().expect("groups") {
            for change in group["changes"].as_array().expect("changes") {
                let text = |key: &str| change[key].as_str().expect("text").to_owned();
                planned.insert((set["generation"].as_u64().expect("a number"), text("unit"), text("change")));
            }
        }
    }
    planned
}

/// The same of what was done, from the generation `from` on.
#[track_caller]
pub fn done(sandbox: &Sandbox, name: &str, from: u64) -> BTreeSet<(u64, String, String)> {
    let output = sandbox.ask(["history", name, "--json"]);
    let history: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut done = BTreeSet::new();
    for deployment in history.as_array().expect("deployments") {
        let generation = deployment["generation"].as_u64().expect("a number");
        assert_eq!(deployment["outcome"], "applied", "{deployment}");
        for change in deployment["changes"].as_array().expect("changes") {
            let text = |key: &str| change[key].as_str().expect("text").to_owned();
            done.insert((generation, text("path"), text("kind")));
        }
    }
    done.retain(|(generation, ..)| *generation >= from);
    done
}

#[track_caller]
fn once(sandbox: &Sandbox) {
    sandbox.ask(["run", "--once"]);
}

#[test]
fn what_is_planned_is_what_a_run_then_does() {
    let sandbox = Sandbox::new().config(ALL).script("run", "echo \"$PICKUP_CHANGE $PICKUP_UNIT\" >> ran");
    let sandbox = sandbox.file("in/a", "a").file("in/b", "b").file("in/d/c", "c").file("in/d/e", "e");
    let first = harmless_plan(&sandbox);
    assert_eq!(planned(&first).len(), 4, "{first}");
    assert!(!sandbox.path(".pickup").exists() && !sandbox.path("files").exists() && sandbox.read("ran").is_none());
    once(&sandbox);
    assert_eq!(planned(&first), done(&sandbox, "p", 1));

    sandbox.write("in/a", "another");
    sandbox.remove("in/d/c");
    sandbox.write("in/new", "new");
    let second = harmless_plan(&sandbox);
    once(&sandbox);
    assert_eq!(planned(&second), done(&sandbox, "p", 2));
    let steps = second["change_sets"][0]["groups"][0]["steps"].as_array().expect("steps").clone();
    let shown = |step: &Value| format!("{} {} {}", step["deployer"], step["unit"], step["is_removal"]).replace('"', "");
    let shown: Vec<String> = steps.iter().map(shown).collect();
    let removals = ["files d/c true", "run d/c true"];
    let puts = ["files a false", "files new false", "releases  false", "run a false", "run new false"];
    assert_eq!(shown, [&puts[..], &removals[..]].concat(), "{second}");
    let ran = sandbox.read("ran").expect("what the program wrote");
    assert_eq!(ran.lines().skip(4).collect::<Vec<_>>(), ["modified a", "added new", "removed d/c"], "{ran}");

    let third = harmless_plan(&sandbox);
    assert_eq!(third["change_sets"], json!([]), "{third}");
    let said = sandbox.ask(["run", "--once", "--dry-run"]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("nothing to do"), "{said:?}");
}

#[test]
fn a_plan_for_programs_says_everything() {
    let sandbox = Sandbox::new().file("in/a", "abc");
    once(&sandbox);
    sandbox.write("in/a", "abcdef");
    let mut plan = harmless_plan(&sandbox);
    let change = &mut plan["change_sets"][0]["groups"][0]["changes"][0];
    for digest in ["digest", "previous"] {
        assert_eq!(change[digest].as_str().map(str::len), Some(64), "{change}");
        change[digest] = Value::Null;
    }
    let unknown = plan["unknown"].as_array().map(Vec::len);
    plan["unknown"] = Value::Null;
    assert_eq!(unknown, Some(1));
    let change = json!({
        "unit": "a", "change": "modified", "files": 1, "size": 6, "digest": null, "previous": null,
    });
    let steps = json!([{ "deployer": "copy", "unit": "a", "is_removal": false }]);
    let group = json!({ "changes": [change], "steps": steps, "objection": null });
    let set = json!({ "generation": 2, "revision": null, "groups": [group], "refusals": [] });
    let wanted = json!({
        "name": "p", "generation": 1, "held": null, "change_sets": [set], "waiting": [], "refused": [],
        "interrupted": [], "git": null, "trouble": null, "unknown": null,
    });
    assert_eq!(plan, wanted);
}

#[test]
fn what_would_not_be_deployed_is_told_with_the_reason() {
    let failing = r#"
[hot-deploy.user.failing]
pickup_from = "failing"
deploy_to = ["fails"]

[deployer.fails]
kind = "exec"
command = ["false"]
retry = 0
"#;
    let others = r#"
[hot-deploy.user.module]
pickup_from = "in"
deploy_to = ["module"]

[hot-deploy.user.blocked]
pickup_from = "in"
deploy_to = ["copy"]
patterns = ["a"]

[deployer.module]
kind = "module"

[deployer.copy]
kind = "copy"
into = "deployed"
"#;
    let sandbox = Sandbox::new().config(failing).file("in/a", "a").file("in/half.zip", "PK\x03\x04 and no end");
    let sandbox = sandbox.file("failing/x", "x").file("deployed/a/in/the/way", "");
    assert_eq!(sandbox.try_ask(["run", "--once"]).status.code(), Some(1));
    let sandbox = sandbox.config(&format!("{failing}{others}"));
    let before = everything(&sandbox);
    let (plans, code) = plans(&sandbox, ONCE);
    assert_eq!(everything(&sandbox), before);
    assert_eq!((plans.len(), code), (3, Some(1)), "{plans:?}");
    let waits = |plan: &Value| -> Vec<String> {
        let waiting = plan["waiting"].as_array().expect("what waits").iter();
        waiting.map(|at| format!("{} {}", at["path"], at["wait"]).replace('"', "")).collect()
    };
    let [blocked, failing, module] = &plans[..] else { panic!("{plans:?}") };
    assert_eq!(waits(blocked), [""; 0], "{blocked}");
    let objection = &blocked["change_sets"][0]["groups"][0]["objection"];
    assert_eq!(objection["deployer"], "copy", "{blocked}");
    assert!(objection["cause"].as_str().is_some_and(|cause| cause.contains("directory")), "{blocked}");
    assert_eq!((waits(failing), &failing["change_sets"]), (vec!["x quarantined".to_owned()], &json!([])), "{failing}");
    assert_eq!(waits(module), ["a unaccepted", "half.zip incomplete"], "{module}");
}

#[test]
fn a_deployment_that_was_cut_off_is_left_as_it_is() {
    let sandbox = Sandbox::new().file("in/a", "one");
    let crashes = |write: &str, moment: &str| {
        let mut crashing = Command::new(binary("it", "pickup-crashing"));
        let status = crashing.arg(sandbox.path("pickup.conf")).args([write, moment, "1"]).status().expect("crash");
        status.signal() == Some(9)
    };
    assert!(!crashes("none", "after"));
    for (write, moment, taken_back, finished) in [("commit", "before", 1, 0), ("commit", "after", 0, 1)] {
        sandbox.write("in/a", format!("{write} {moment}"));
        assert!(crashes(write, moment));
        let plan = harmless_plan(&sandbox);
        let interrupted = &plan["interrupted"];
        assert_eq!(
            (interrupted[0]["taken_back"].as_u64(), interrupted[0]["finished"].as_u64()),
            (Some(taken_back), Some(finished)),
            "{plan}"
        );
        let open = interrupted[0]["generation"].as_u64().expect("a generation");
        let wanted = planned(&plan);
        assert_eq!(wanted.len() as u64, taken_back, "{plan}");
        once(&sandbox);
        assert_eq!(wanted, {
            let output = sandbox.ask(["history", "p", "--json", "-n", "1"]);
            let last: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            let generation = last[0]["generation"].as_u64().expect("a generation");
            let is_new = generation > open;
            is_new.then(|| (generation, "a".to_owned(), "modified".to_owned())).into_iter().collect()
        });
        assert_eq!(sandbox.deployed()["a"], format!("{write} {moment}"));
    }
}

#[test]
fn a_running_daemon_plans_beside_its_work() {
    let sandbox = Sandbox::new().keys("watch = \"off\"").file("in/a", "a").file("in/b", "b").file("in/c", "c");
    sandbox.log_debug();
    let daemon = sandbox.daemon();
    // From here on it has nothing of its own to do.
    daemon.wait_for(|line| line.message == "what was captured is put away");
    sandbox.write("in/a", "another");
    sandbox.write("in/new", "new");
    let busy = sandbox.try_ask(ONCE);
    let said = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert!(busy.status.code() == Some(2) && said.contains("pickupd sync --dry-run"), "{busy:?}");

    let before = (everything(&sandbox), daemon.said().lines().count());
    let first = plan(&sandbox, ["sync", "--dry-run", "--json"]);
    let units = |plan: &Value| planned(plan).into_iter().map(|(_, unit, _)| unit).collect::<Vec<_>>();
    assert_eq!(units(&first), ["a", "new"], "{first}");
    assert_eq!((everything(&sandbox), daemon.said().lines().count()), before, "{}", daemon.said());
    daemon.sync();
    assert_eq!(planned(&first), done(&sandbox, "p", first["change_sets"][0]["generation"].as_u64().expect("a number")));

    for gone in ["in/a", "in/b", "in/c", "in/new"] {
        sandbox.remove(gone);
    }
    sandbox.remove_all("in");
    sandbox.make("in");
    let doubted = plan(&sandbox, ["sync", "p", "--dry-run", "--json"]);
    assert_eq!(
        (doubted["change_sets"].clone(), doubted["waiting"][0]["wait"].clone()),
        (json!([]), json!("unconfirmed"))
    );
    let confirmed = plan(&sandbox, ["sync", "--dry-run", "--json", "--confirm-removals"]);
    assert_eq!(units(&confirmed), ["a", "b", "c", "new"], "{confirmed}");
    assert_eq!(sandbox.deployed().len(), 4);

    for back in ["a", "b", "c", "new"] {
        sandbox.write(format!("in/{back}"), format!("{back} again"));
    }
    daemon.sync();
    sandbox.ask(["rollback", "p"]);
    let held = plan(&sandbox, ["sync", "--dry-run", "--json"]);
    assert_eq!((held["change_sets"].clone(), held["waiting"][0]["wait"].clone()), (json!([]), json!("held")), "{held}");
    daemon.stop();
}

#[test]
fn of_a_mirror_the_commit_is_planned_that_the_remote_has() {
    let followed = Followed::new(RARELY);
    let sandbox = &followed.sandbox;
    let commits = |plan: &Value| (plan["git"]["commit"]["commit"].clone(), plan["git"]["needs_fetch"].clone());
    let first = harmless_plan(sandbox);
    assert_eq!(commits(&first), (json!(followed.first), json!(true)), "{first}");
    once(sandbox);
    assert_eq!(planned(&first), done(sandbox, "p", 1));
    let idle = harmless_plan(sandbox);
    assert_eq!((commits(&idle), &idle["change_sets"]), ((json!(followed.first), json!(false)), &json!([])), "{idle}");

    let last = followed.upstream.commit(&[("a", "two"), ("b", "b")]);
    let second = harmless_plan(sandbox);
    assert_eq!(commits(&second), (json!(last), json!(true)), "{second}");
    assert_eq!(second["change_sets"][0]["revision"]["previous"], json!(followed.first), "{second}");
    once(sandbox);
    assert_eq!(planned(&second), done(sandbox, "p", 2));
}

#[test]
fn of_a_clone_it_is_told_that_the_remote_moved_and_nothing_is_checked_out() {
    let followed = Followed::clone_in(RARELY);
    let sandbox = &followed.sandbox;
    once(sandbox);
    let last = followed.upstream.commit(&[("a", "two")]);
    let plan = harmless_plan(sandbox);
    let git = &plan["git"];
    assert_eq!((&git["commit"]["commit"], &git["remote_at"]), (&json!(followed.first), &json!(last)), "{plan}");
    assert_eq!((&git["needs_fetch"], &plan["change_sets"]), (&json!(true), &json!([])), "{plan}");
}
