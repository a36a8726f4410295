//! Promise 6: crashes lose nothing. The engine dies at every write of its journal, and a daemon dies under load.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use crate::program::{binary, program};
use crate::sandbox::Sandbox;

/// Two deployers of both scopes: what one has and the other has not would show a torn transaction.
const CONFIG: &str = r#"
[pickup]
log_format = "json"

[hot-deploy.user.p]
pickup_from = "in"
deploy_to = ["files", "releases"]

[deployer.files]
kind = "copy"
into = "files"
durable = false

[deployer.releases]
kind = "release"
into = "releases"
durable = false
"#;

/// Only unit by unit, where each file is a transaction of its own.
const BY_UNIT: &str = r#"
[pickup]
log_format = "json"

[hot-deploy.user.p]
pickup_from = "in"
deploy_to = ["files", "more"]

[deployer.files]
kind = "copy"
into = "files"
durable = false

[deployer.more]
kind = "copy"
into = "more"
durable = false
"#;

pub const WRITES: [&str; 6] = ["intend", "stage", "commit", "retire", "finish", "known"];

type Tree = BTreeMap<String, String>;

/// Every file below `directory`, our own temporaries included: there must be none.
fn tree(directory: &Path) -> Tree {
    let mut files = Tree::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(directory).expect("below").to_string_lossy().into_owned();
                files.insert(name, fs::read_to_string(&path).expect("text"));
            }
        }
    }
    files
}

fn first() -> Tree {
    [("a", "a one"), ("b", "b one"), ("d/c", "c one")].map(|(name, text)| (name.into(), text.into())).into()
}

/// Modified, removed and added.
fn second() -> Tree {
    [("a", "a two, and longer"), ("d/c", "c one"), ("e", "e two")].map(|(name, text)| (name.into(), text.into())).into()
}

fn put(sandbox: &Sandbox, wanted: &Tree) {
    for name in tree(&sandbox.path("in")).keys().filter(|name| !wanted.contains_key(*name)) {
        fs::remove_file(sandbox.path("in").join(name)).expect("remove");
    }
    for (name, text) in wanted {
        if fs::read_to_string(sandbox.path("in").join(name)).ok().as_ref() != Some(text) {
            sandbox.write(format!("in/{name}"), text);
        }
    }
}

/// Runs the engine until it kills itself; whether it did.
pub fn crashes(sandbox: &Sandbox, write: &str, moment: &str, nth: usize) -> bool {
    let status = Command::new(binary("it", "pickup-crashing"))
        .arg(sandbox.path("pickup.conf"))
        .args([write, moment, &nth.to_string()])
        .status()
        .expect("run the crashing engine");
    assert!(status.success() || status.signal() == Some(9), "{write} {moment}: {status}");
    status.signal() == Some(9)
}

/// What both targets hold.
fn live(sandbox: &Sandbox, targets: [&str; 2]) -> [Tree; 2] {
    targets.map(|target| tree(&sandbox.path(target)))
}

/// Dies at `write`, then starts with `wanted` in the pickup directory: that, and nothing else, is live.
fn recovers(config: &str, targets: [&str; 2], write: &str, moment: &str, wanted: &Tree) {
    let sandbox = Sandbox::new().config(config);
    put(&sandbox, &first());
    assert!(!crashes(&sandbox, "none", "after", 1));
    assert_eq!(live(&sandbox, targets), [first(), first()]);
    put(&sandbox, &second());
    assert!(crashes(&sandbox, write, moment, 1), "no write `{write}` {moment}");
    for (name, text) in live(&sandbox, targets).into_iter().flatten().filter(|(name, _)| !name.contains(".pickup-")) {
        let whole = [first().get(&name) == Some(&text), second().get(&name) == Some(&text)];
        assert!(whole.contains(&true), "{write} {moment}: half of {name} is live: {text:?}");
    }
    put(&sandbox, wanted);
    let daemon = sandbox.daemon();
    daemon.sync();
    let said = daemon.stop();
    let expected = [wanted.clone(), wanted.clone()];
    assert_eq!(live(&sandbox, targets), expected, "{write} {moment}: {said}");
}

#[test]
fn a_crash_at_any_write_is_finished_by_the_next_start() {
    for write in WRITES {
        for moment in ["before", "after"] {
            recovers(CONFIG, ["files", "releases/current"], write, moment, &second());
            recovers(BY_UNIT, ["files", "more"], write, moment, &second());
        }
    }
}

#[test]
fn a_crash_at_any_write_is_taken_back_if_the_change_is() {
    for write in WRITES {
        for moment in ["before", "after"] {
            recovers(CONFIG, ["files", "releases/current"], write, moment, &first());
            recovers(BY_UNIT, ["files", "more"], write, moment, &first());
        }
    }
}

#[test]
fn a_crash_while_a_failure_is_taken_back_leaves_the_old_version_live() {
    let writes = ["revert", "quarantine"].into_iter().flat_map(|write| [(write, "before"), (write, "after")]);
    for (write, moment) in writes {
        let broken =
            CONFIG.replace(r#"deploy_to = ["files", "releases"]"#, r#"deploy_to = ["files", "releases", "broken"]"#);
        let broken = format!("{broken}\n[deployer.broken]\nkind = \"exec\"\ncommand = [\"/bin/false\"]\nretry = 0\n");
        let sandbox = Sandbox::new().config(CONFIG);
        put(&sandbox, &first());
        assert!(!crashes(&sandbox, "none", "after", 1));
        put(&sandbox, &second());
        let sandbox = sandbox.config(&broken);
        assert!(crashes(&sandbox, write, moment, 1), "no {write} {moment}");
        let daemon = sandbox.start(Command::new(program()));
        daemon.wait_for(|line| line.message == "failed; the old version stays");
        let said = daemon.stop();
        let expected = [first(), first()];
        assert_eq!(live(&sandbox, ["files", "releases/current"]), expected, "{write} {moment}: {said}");
    }
}

#[test]
fn a_crash_while_a_hold_is_recorded_leaves_one_whole_generation_live() {
    for moment in ["before", "after"] {
        let sandbox = Sandbox::new().config(CONFIG);
        put(&sandbox, &first());
        assert!(!crashes(&sandbox, "none", "after", 1));
        put(&sandbox, &second());
        assert!(crashes(&sandbox, "hold", moment, 1), "no hold {moment}");
        let daemon = sandbox.daemon();
        daemon.sync();
        let said = daemon.stop();
        // Not recorded, the rollback is as if it had not been, and what is on disk is deployed.
        let expected = if moment == "after" { first() } else { second() };
        assert_eq!(live(&sandbox, ["files", "releases/current"]), [expected.clone(), expected], "{moment}: {said}");
    }
}

#[test]
fn what_was_captured_the_moment_before_a_crash_can_be_rolled_back_to() {
    let sandbox = Sandbox::new();
    sandbox.log_debug();
    let daemon = sandbox.daemon();
    // It cannot be put away: something is where its own files would be.
    let groups = ["one", "two"].map(|text| {
        let digest = blake3::hash(text.as_bytes()).to_hex();
        sandbox.path(".pickup/store").join(&digest[..2])
    });
    for group in &groups {
        fs::remove_dir(group).expect("an empty directory");
        fs::write(group, "").expect("write a file");
    }
    sandbox.write("in/a", "one");
    daemon.wait_deployed("a", 1);
    sandbox.write("in/a", "two");
    daemon.wait_deployed("a", 2);
    daemon.wait_for(|line| line.message == "what was captured stays where it is for now");
    daemon.kill();
    let recent = sandbox.read(".pickup/store/recent").expect("what was captured");
    assert!(recent.contains("one") && recent.contains("two"), "{recent:?}");
    let daemon = sandbox.daemon();
    sandbox.ask(["rollback", "p"]);
    assert_eq!(sandbox.deployed()["a"], "one");
    daemon.kill();
    groups.iter().for_each(|group| fs::remove_file(group).expect("remove a file"));
    let daemon = sandbox.daemon();
    daemon.wait_for(|line| line.message == "what was captured is put away");
    assert_eq!(sandbox.read(".pickup/store/recent").as_deref(), Some(""));
    let stored = sandbox.tree(".pickup/store");
    assert!(["one", "two"].iter().all(|text| stored.values().any(|content| content == text)), "{stored:?}");
    daemon.stop();
}

#[test]
fn kill_9_under_load_loses_nothing() {
    const ROUNDS: usize = 20;
    let sandbox = Sandbox::new().config(BY_UNIT);
    let mut wanted = Tree::new();
    for round in 0..ROUNDS {
        let daemon = sandbox.daemon();
        for file in 0..20 {
            let (name, text) = (format!("f{file}"), format!("round {round}, file {file}: {}", "x".repeat(round * 997)));
            sandbox.write(format!("in/{name}"), &text);
            wanted.insert(name, text);
        }
        // Some rounds die while nothing is deployed yet, some in the middle, some when all is done.
        let enough = round * 5 % 20;
        daemon.wait_until("some to be live", |log| log.deployed.values().sum::<usize>() >= enough);
        daemon.kill();
        for (name, text) in live(&sandbox, ["files", "more"]).into_iter().flatten() {
            let is_whole = text.starts_with("round ") && text.ends_with(['x', ' ']);
            assert!(name.contains(".pickup-") || is_whole, "half of {name} is live: {text:?}");
        }
    }
    let daemon = sandbox.daemon();
    daemon.sync();
    let said = daemon.stop();
    assert_eq!(live(&sandbox, ["files", "more"]), [wanted.clone(), wanted], "{said}");
}
