//! A plan starts nothing.

use super::{drop_version, processes, sandbox};
use crate::dry_run::{done, everything, plan, planned};

#[test]
fn a_program_is_planned_and_not_started() {
    let (sandbox, _) = sandbox("");
    drop_version(&sandbox, "one");
    let before = everything(&sandbox);
    let first = plan(&sandbox, ["run", "--once", "--dry-run", "--json"]);
    assert_eq!((everything(&sandbox), processes(&sandbox).len()), (before, 0));
    let step = &first["change_sets"][0]["groups"][0]["steps"];
    assert_eq!(step[0]["deployer"], "web", "{first}");
    let daemon = sandbox.daemon();
    daemon.wait_deployed("version", 1);
    assert_eq!(planned(&first), done(&sandbox, "web", 1));
    let running = processes(&sandbox);
    let idle = plan(&sandbox, ["sync", "--dry-run", "--json"]);
    assert_eq!((planned(&idle).len(), processes(&sandbox)), (0, running), "{idle}");
    daemon.stop();
}
