//! The program runs: a bench with little to do, without any peer that is a program.

use std::process::Command;

#[test]
fn a_quick_bench_prints_its_table_and_keeps_nothing() {
    let bench = env!("CARGO_BIN_EXE_bench");
    let pickupd = std::path::Path::new(bench).with_file_name("pickupd");
    let mut command = Command::new(bench);
    command.args(["latency", "--quick", "--rounds", "1", "--only", "in process", "--only", "pickup, closure"]);
    if pickupd.is_file() {
        command.arg("--pickupd").arg(pickupd);
    }
    let output = command.output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{errors}");
    for expected in ["raw inotify, in process", "pickup, closure, quiet = 0", "renamed into place"] {
        assert!(said.contains(expected), "{expected} in {said}");
    }
    assert!(!said.lines().any(|line| line.starts_with("written")), "{said}");
}
