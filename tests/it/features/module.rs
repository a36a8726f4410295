//! `kind = "module"`: the daemon loads a shared library, and survives every one that is wrong.

use std::path::Path;
use std::process::Command;

use super::{FAILED, config, nth, why};
use crate::crash::{WRITES, crashes};
use crate::sandbox::Sandbox;

const MODULES: &str = "[deployer.modules]\nkind = \"module\"\nconfig = \"good day\"\nretry = 0\n";

/// The C module of the examples, with these further arguments for the compiler.
fn greeter(arguments: &[&str]) -> Vec<u8> {
    let (directory, root) = (tempfile::tempdir().expect("a directory"), Path::new(env!("CARGO_MANIFEST_DIR")));
    let library = directory.path().join("greeter.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).args(arguments);
    compiler.arg("-I").arg(root.join("../../crates/pickup-module/include"));
    let compiled = compiler.arg(root.join("../../examples/modules/greeter.c")).status().expect("run cc");
    assert!(compiled.success());
    std::fs::read(library).expect("the library")
}

fn sandbox() -> Sandbox {
    Sandbox::new().config(&config("deploy_to = [\"modules\"]", MODULES))
}

/// Put in place by a rename, whole.
fn put(sandbox: &Sandbox, bytes: &[u8]) {
    sandbox.write("beside", bytes);
    sandbox.rename("beside", "in/greeter.so");
}

#[test]
fn a_module_is_probed_loaded_and_logs_under_its_units_name() {
    let sandbox = sandbox().file("in/greeter.so", greeter(&[]));
    let daemon = sandbox.daemon();
    daemon.wait_deployed("greeter.so", 1);
    let line = nth(&daemon, "in C", 1);
    assert_eq!((line.field("unit"), line.field("pickup")), ("greeter.so", "p"));
    assert_eq!(sandbox.tree(".pickup/modules").len(), 2, "a lock and a copy");
    daemon.stop();
    assert!(sandbox.tree(".pickup/modules").is_empty(), "its copies are gone");
}

#[test]
fn a_module_that_kills_its_process_does_not_kill_the_daemon() {
    let sandbox = sandbox().file("in/greeter.so", greeter(&[])).file("die.c", DIE);
    let daemon = sandbox.daemon();
    daemon.wait_deployed("greeter.so", 1);
    let die = sandbox.path("die.c");
    put(&sandbox, &greeter(&[die.to_str().expect("text")]));
    let line = nth(&daemon, FAILED, 1);
    let cause = "probe: the process that loaded it for a test did not survive it: killed by signal 6";
    assert!(line.text.contains(cause), "{}", line.text);
    assert!(why(&sandbox, "in/greeter.so").contains(cause));
    put(&sandbox, &greeter(&["-DTHE_NEXT"]));
    put(&sandbox, &greeter(&["-O2"]));
    daemon.wait_deployed("greeter.so", 2);
}

const DIE: &str = "#include <stdlib.h>\n__attribute__((constructor)) static void die(void) { abort(); }\n";

#[test]
fn what_was_live_is_loaded_again_after_a_crash_and_after_a_restart() {
    let sandbox = sandbox().file("in/greeter.so", greeter(&[]));
    let daemon = sandbox.daemon();
    daemon.wait_deployed("greeter.so", 1);
    daemon.kill();
    let daemon = sandbox.daemon();
    daemon.wait_deployed("greeter.so", 1);
    daemon.stop();
    let daemon = sandbox.daemon();
    daemon.wait_deployed("greeter.so", 1);
}

/// A module beside plain files: what is live after the next start is of one generation.
#[test]
fn a_crash_at_any_write_leaves_one_module_loaded() {
    let deployers =
        format!("{}probe = false\n\n[deployer.files]\nkind = \"copy\"\ninto = \"files\"\ndurable = false\n", MODULES);
    let config = config("deploy_to = [\"files\", \"modules\"]", &deployers);
    let (first, second) = (greeter(&[]), greeter(&["-O2"]));
    assert!(first != second);
    for write in WRITES {
        for moment in ["before", "after"] {
            let sandbox = Sandbox::new().config(&config).file("in/greeter.so", &first);
            assert!(!crashes(&sandbox, "none", "after", 1));
            put(&sandbox, &second);
            assert!(crashes(&sandbox, write, moment, 1), "no write `{write}` {moment}");
            // Finished in one half of the cases, taken back in the other.
            let wanted = if moment == "before" { &second } else { &first };
            put(&sandbox, wanted);
            let daemon = sandbox.daemon();
            let said = daemon.said();
            assert!(
                std::fs::read(sandbox.path("files/greeter.so")).expect("a file") == *wanted,
                "{write} {moment}: {said}"
            );
            let copies = sandbox.tree(".pickup/modules");
            let copies: Vec<_> = copies.iter().filter(|(name, _)| name.ends_with(".so")).collect();
            let is_wanted = |copy: &&(&String, &String)| *copy.1 == String::from_utf8_lossy(wanted);
            assert_eq!((copies.len(), copies.iter().filter(is_wanted).count()), (1, 1), "{write} {moment}: {said}");
            daemon.stop();
        }
    }
}
