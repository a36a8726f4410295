//! Many files at once, more events than the kernel keeps, and files that are half written when the daemon starts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::daemon::Daemon;
use crate::sandbox::Sandbox;
use crate::writer::Writer;

/// A debug build on a busy machine takes its time for 10,000 files.
const LONG: Duration = Duration::from_secs(180);

/// Files in directories of 100 below `aside/from`, each with its own name in it often enough to be more than a block.
fn files(sandbox: &Sandbox, count: usize) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    for number in 0..count {
        let unit = format!("from/d{}/f{}", number / 100, number % 100);
        let content = format!("{unit}\n").repeat(100);
        sandbox.write(format!("aside/{unit}"), &content);
        files.insert(unit, content);
    }
    files
}

/// Waits until all of `wanted` is live, and makes sure that none was half and none came twice.
#[track_caller]
fn all_live_once(sandbox: &Sandbox, daemon: &Daemon, wanted: &BTreeMap<String, String>) {
    daemon.wait_within(LONG, "a file each", |log| log.deployed.len() >= wanted.len());
    daemon.wait_until("all files", |log| wanted.keys().all(|unit| log.deployed.contains_key(unit)));
    daemon.sync();
    let deployed = daemon.all_deployed();
    let twice: Vec<_> = deployed.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert_eq!(deployed.len(), wanted.len());
    // Not `assert_eq`: nobody reads 10,000 files in a message.
    assert!(sandbox.deployed() == *wanted, "what is live is not what was copied");
}

#[test]
fn ten_thousand_files_copied_in_are_each_deployed_once_and_whole() {
    let sandbox = Sandbox::new();
    let wanted = files(&sandbox, 10_000);
    let daemon = sandbox.daemon();
    sandbox.shell("cp -r aside/from in/");
    all_live_once(&sandbox, &daemon, &wanted);
}

#[test]
fn a_queue_that_overflows_loses_nothing() {
    let sandbox = Sandbox::new();
    // Directories that are exchanged while nobody listens: their watches die, and nobody is told.
    sandbox.shell("for n in $(seq 20); do mkdir in/again$n; done");
    let wanted = files(&sandbox, 1_000);
    let daemon = sandbox.daemon();
    daemon.freeze();
    // The queue holds 16,384 events, and only equal ones in a row become one. No inode is taken: the directories that are
    // made again below get the numbers of those they replace.
    for number in 0..20_000 {
        sandbox.write(["in/noise.tmp", "in/more.tmp"][number % 2], "");
    }
    // One by one: the new directory gets the inode number of the old one.
    sandbox.shell("for n in $(seq 20); do rmdir in/again$n; mkdir in/again$n; done; cp -r aside/from in/");
    daemon.thaw();
    daemon.wait_for(|line| line.message.contains("overflow"));
    all_live_once(&sandbox, &daemon, &wanted);
    for number in 1..=20 {
        sandbox.write(format!("in/again{number}/f"), "after");
        daemon.wait_deployed(&format!("again{number}/f"), 1);
    }
}

#[test]
fn a_file_half_written_at_start_is_held_until_its_writer_closes_it() {
    let sandbox = Sandbox::new().file("in/whole", "whole");
    let mut writer = Writer::create(sandbox.path("in/half"));
    writer.write("first ");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("whole", 1);
    daemon.sync();
    assert_eq!(daemon.deployed("half"), 0, "half a file was deployed");
    writer.write("second");
    writer.close();
    daemon.wait_deployed("half", 1);
    daemon.sync();
    daemon.assert_deployed_once(["half", "whole"]);
    assert_eq!(sandbox.read("deployed/p/half").as_deref(), Some("first second"));
}
