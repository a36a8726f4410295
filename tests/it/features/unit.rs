//! What counts as one artifact.

use super::{config, nth};
use crate::sandbox::Sandbox;

#[test]
fn a_directory_moved_in_is_deployed_once_as_a_whole() {
    let sandbox =
        Sandbox::new().keys("unit = \"directory\"").file("aside/app/main.py", "m").file("aside/app/lib/l", "l");
    let daemon = sandbox.daemon();
    sandbox.rename("aside/app", "in/app");
    daemon.wait_deployed("app", 1);
    daemon.sync();
    daemon.assert_deployed_once(["app"]);
    assert_eq!(sandbox.deployed().into_keys().collect::<Vec<_>>(), ["app/lib/l", "app/main.py"]);
}

#[test]
fn a_directory_copied_in_file_by_file_is_waited_for() {
    let sandbox = Sandbox::new().keys("unit = \"directory\"\nsettle = \"1s\"");
    let daemon = sandbox.daemon();
    for file in 0..50 {
        sandbox.write(format!("in/app/{}/{file}", file % 5), "x");
    }
    daemon.wait_deployed("app", 1);
    daemon.sync();
    daemon.assert_deployed_once(["app"]);
    assert_eq!(sandbox.deployed().len(), 50);
    sandbox.remove("in/app/0/0");
    sandbox.write("in/app/new", "x");
    daemon.wait_deployed("app", 2);
    assert_eq!(sandbox.deployed().len(), 50);
    assert!(sandbox.deployed().contains_key("app/new"));
}

#[test]
fn directories_change_and_go_one_by_one() {
    let sandbox = Sandbox::new().keys("unit = \"directory\"\nsettle = \"200ms\"");
    let sandbox = sandbox.file("in/a/f", "a").file("in/b/f", "b").file("in/c/f", "c");
    let daemon = sandbox.daemon();
    sandbox.write("in/a/f", "a2");
    daemon.wait_deployed("a", 2);
    sandbox.remove_all("in/b");
    daemon.wait_removed("b");
    assert_eq!(daemon.deployed("c"), 1);
    assert_eq!(sandbox.deployed().into_keys().collect::<Vec<_>>(), ["a/f", "c/f"]);
}

#[test]
fn a_tree_is_one_unit() {
    let run = "[deployer.run]\nkind = \"exec\"\ncommand = [\"./run\"]\n";
    let sandbox = Sandbox::new()
        .config(&config("deploy_to = [\"run\"]\nunit = \"tree\"\nsettle = \"200ms\"", run))
        .script("run", "echo x >> runs; (cd \"$PICKUP_PATH\" && find . -type f | sort) > files")
        .file("in/a", "a")
        .file("in/d/b", "b");
    let daemon = sandbox.daemon();
    nth(&daemon, "deployed", 1);
    assert_eq!(sandbox.read("files").as_deref(), Some("./a\n./d/b\n"));
    sandbox.write("in/d/c", "c");
    sandbox.remove("in/a");
    nth(&daemon, "deployed", 2);
    daemon.sync();
    assert_eq!(sandbox.read("files").as_deref(), Some("./d/b\n./d/c\n"));
    assert_eq!(sandbox.read("runs").as_deref(), Some("x\nx\n"), "{}", daemon.said());
}
