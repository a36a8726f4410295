//! `kind = "exec"`: what the program is told, and what it cannot do.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{FAILED, config, nth};
use crate::sandbox::Sandbox;

/// Runs the script `run` with these keys.
fn runs(script: &str, keys: &str) -> Sandbox {
    let deployer = format!("[deployer.run]\nkind = \"exec\"\ncommand = [\"./run\", \"{{unit}}\"]\nretry = 0\n{keys}\n");
    Sandbox::new().config(&config("deploy_to = [\"run\"]\nquiet = \"100ms\"", &deployer)).script("run", script)
}

/// The variables of the contract, as the script wrote them.
fn variables(sandbox: &Sandbox, file: &str) -> BTreeMap<String, String> {
    let text = sandbox.read(file).expect("what the script wrote");
    let pairs = text.lines().filter_map(|line| line.strip_prefix("PICKUP_")?.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Writes down all it is told.
const TOLD: &str = "env > env.$PICKUP_CHANGE; cat > json.$PICKUP_CHANGE; \
                    test -z \"$PICKUP_PATH\" || cat \"$PICKUP_PATH\" > content.$PICKUP_CHANGE";

fn request(sandbox: &Sandbox, file: &str) -> Value {
    serde_json::from_str(&sandbox.read(file).expect("what the script wrote")).expect("JSON")
}

#[test]
fn the_program_is_told_everything_about_each_change() {
    let sandbox = runs(TOLD, "").file("in/d/a.txt", "one").file("in/other", "o");
    sandbox.remove("in/other");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("d/a.txt", 1);
    let added = variables(&sandbox, "env.added");
    assert_eq!(added["NAME"], "p");
    assert_eq!(added["UNIT"], "d/a.txt");
    assert_eq!(added["CHANGE"], "added");
    assert_eq!(added["GENERATION"], "1");
    assert!(added["PATH"].ends_with("/a.txt"), "{added:?}");
    assert!(!added.contains_key("COMMIT"), "{added:?}");
    assert_eq!(sandbox.read("content.added").as_deref(), Some("one"));
    let json = request(&sandbox, "json.added");
    assert_eq!((&json["pickup"], &json["generation"]), (&"p".into(), &1.into()), "{json}");
    let change = &json["changes"][0];
    assert_eq!((&change["unit"], &change["change"]), (&"d/a.txt".into(), &"added".into()), "{json}");
    assert_eq!((&change["size"], &change["path"]), (&3.into(), &added["PATH"].as_str().into()), "{json}");
    assert_eq!(change["digest"], added["DIGEST"].as_str(), "{json}");

    sandbox.write("in/d/a.txt", "two");
    daemon.wait_deployed("d/a.txt", 2);
    let modified = variables(&sandbox, "env.modified");
    assert_eq!(modified["GENERATION"], "2");
    assert_ne!(modified["DIGEST"], added["DIGEST"]);
    assert_eq!(sandbox.read("content.modified").as_deref(), Some("two"));

    sandbox.run("touch", ["in/d/a.txt"]);
    daemon.wait_deployed("d/a.txt", 3);
    assert_eq!(variables(&sandbox, "env.touched")["DIGEST"], modified["DIGEST"]);

    sandbox.write("in/stays", "s");
    daemon.wait_deployed("stays", 1);
    sandbox.remove("in/d/a.txt");
    daemon.wait_removed("d/a.txt");
    let removed = variables(&sandbox, "env.removed");
    assert_eq!((removed["UNIT"].as_str(), removed.get("PATH")), ("d/a.txt", None));
    assert_eq!(request(&sandbox, "json.removed")["changes"][0]["change"], "removed");
}

#[test]
fn once_a_change_set_it_gets_all_changes_and_the_whole_tree() {
    let script = "echo x >> runs; cat > json; (cd \"$PICKUP_PATH\" && find . -type f | sort) > files";
    let sandbox = runs(script, "per = \"change_set\"").file("in/a", "a").file("in/d/b", "b").file("in/c", "c");
    let daemon = sandbox.daemon();
    for unit in ["a", "d/b", "c"] {
        daemon.wait_deployed(unit, 1);
    }
    assert_eq!(sandbox.read("runs").as_deref(), Some("x\n"));
    assert_eq!(sandbox.read("files").as_deref(), Some("./a\n./c\n./d/b\n"));
    assert_eq!(request(&sandbox, "json")["changes"].as_array().map(Vec::len), Some(3));
    sandbox.write("in/c", "changed");
    sandbox.remove("in/a");
    daemon.wait_deployed("c", 2);
    daemon.sync();
    assert_eq!(sandbox.read("files").as_deref(), Some("./c\n./d/b\n"));
}

#[test]
fn no_name_reaches_a_shell() {
    let name = "a b;touch pwned;$(touch pwned)`touch pwned` 'q' & | > pwned *.txt";
    let sandbox = runs("printf %s \"$1\" > name; cat \"$PICKUP_PATH\" > content; basename \"$PICKUP_PATH\" > base", "");
    let daemon = sandbox.daemon();
    sandbox.write(format!("in/{name}"), "x");
    daemon.wait_deployed(name, 1);
    assert_eq!(sandbox.read("name").as_deref(), Some(name));
    assert_eq!(sandbox.read("content").as_deref(), Some("x"));
    assert_eq!(sandbox.read("base"), Some(format!("{name}\n")));
    assert_eq!(sandbox.read("pwned"), None);
}

#[test]
fn its_environment_directory_and_input_are_as_configured() {
    let keys = "cwd = \"elsewhere\"\nenv = { COLOUR = \"green\" }\nstdin = \"none\"\n";
    let sandbox = runs("", keys).directory("elsewhere");
    let text = sandbox.read("pickup.conf").expect("it").replace("./run", &sandbox.path("run").display().to_string());
    let script = "pwd > where; echo $COLOUR > colour; wc -c > input";
    let sandbox = sandbox.config(&text).script("run", script).file("in/a", "a");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("a", 1);
    assert!(sandbox.read("elsewhere/where").expect("it").ends_with("elsewhere\n"));
    assert_eq!(sandbox.read("elsewhere/colour").as_deref(), Some("green\n"));
    assert_eq!(sandbox.read("elsewhere/input").map(|text| text.trim().to_owned()).as_deref(), Some("0"));
}

#[test]
fn what_takes_too_long_is_ended_with_all_its_children() {
    let sandbox = runs("exec 3> held; sleep 60 & sleep 60", "timeout = \"500ms\"");
    sandbox.run("mkfifo", ["held"]);
    let daemon = sandbox.daemon();
    sandbox.write("in/a", "a");
    let began = Instant::now();
    // Opens once the script has, and ends once the last process that holds it has.
    let mut held = File::open(sandbox.path("held")).expect("open the pipe");
    held.read_to_end(&mut Vec::new()).expect("read to the end");
    assert!(began.elapsed() < Duration::from_secs(40), "{}", daemon.said());
    let failed = nth(&daemon, FAILED, 1);
    assert!(failed.field("cause").contains("run"), "{failed:?}");
    assert_eq!(daemon.deployed("a"), 0);
}

#[test]
fn a_rollback_command_runs_only_where_the_command_did() {
    let last = "[deployer.last]\nkind = \"exec\"\ncommand = [\"/bin/false\"]\nretry = 0\n";
    let keys = format!("rollback_command = [\"./undo\", \"{{unit}}\"]\n{last}");
    let sandbox = runs("", &keys).script("undo", "echo $1 >> undone");
    let text = sandbox.read("pickup.conf").expect("it").replace("[\"run\"]", "[\"run\", \"last\"]");
    let sandbox = sandbox.config(&text).file("in/a", "a");
    let daemon = sandbox.daemon();
    nth(&daemon, FAILED, 1);
    assert_eq!(sandbox.read("undone").as_deref(), Some("a\n"));
}
