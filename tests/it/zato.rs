//! What Zato's hot deployment does with each way of saving a file was measured (research/zato.md §2.2 and §2.4); here is
//! what ours does. Each runs twice: told by the kernel, and polling.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::daemon::Daemon;
use crate::sandbox::Sandbox;
use crate::writer::{Pace, Writer};

mod git;
mod names;

/// What each entry says in turn.
const WAYS: [&str; 2] = ["watch = \"native\"", "watch = \"poll\"\npoll_interval = \"100ms\""];

/// Runs `scenario` told by the kernel, and then polling.
fn both_ways(prepare: impl Fn(Sandbox) -> Sandbox, scenario: impl Fn(&Sandbox, &Daemon)) {
    for way in WAYS {
        let sandbox = prepare(Sandbox::new().keys(way));
        let daemon = sandbox.daemon();
        scenario(&sandbox, &daemon);
        drop(daemon);
    }
}

/// Waits until `unit` went live so often, then makes sure that it was no more often, and that `content` is what is live.
#[track_caller]
fn is_live(sandbox: &Sandbox, daemon: &Daemon, unit: &str, times: usize, content: &str) {
    daemon.wait_deployed(unit, times);
    daemon.sync();
    assert_eq!(daemon.deployed(unit), times, "{unit}; the daemon said:\n{}", daemon.said());
    assert_eq!(sandbox.deployed().get(unit).map(String::as_str), Some(content), "{}", daemon.said());
}

/// What is deployed, as pairs.
#[track_caller]
fn holds<const N: usize>(sandbox: &Sandbox, wanted: [(&str, &str); N]) {
    let wanted: BTreeMap<String, String> = wanted.map(|(unit, content)| (unit.to_owned(), content.to_owned())).into();
    assert_eq!(sandbox.deployed(), wanted);
}

#[test]
fn each_write_overwrite_touch_and_copy_is_one_deployment() {
    both_ways(
        |sandbox| sandbox.file("elsewhere.py", "copied"),
        |sandbox, daemon| {
            sandbox.write("in/a.py", "one");
            is_live(sandbox, daemon, "a.py", 1, "one");
            sandbox.write("in/a.py", "two");
            is_live(sandbox, daemon, "a.py", 2, "two");
            sandbox.shell("touch in/a.py");
            is_live(sandbox, daemon, "a.py", 3, "two");
            daemon.wait_for(|line| line.says("deployed", "a.py") && line.field("change") == "touched");
            sandbox.shell("cp elsewhere.py in/c.py");
            is_live(sandbox, daemon, "c.py", 1, "copied");
            // The same bytes once more: somebody saved it, and asks for it as with a touch.
            sandbox.write("in/a.py", "two");
            is_live(sandbox, daemon, "a.py", 4, "two");
        },
    );
}

#[test]
fn a_file_renamed_into_place_is_deployed_once() {
    both_ways(
        |sandbox| sandbox.file("in/a.py", "old").file("outside.py", "from outside"),
        |sandbox, daemon| {
            daemon.wait_deployed("a.py", 1);
            sandbox.write("in/a.py.tmp", "renamed");
            sandbox.rename("in/a.py.tmp", "in/a.py");
            is_live(sandbox, daemon, "a.py", 2, "renamed");
            sandbox.rename("outside.py", "in/b.py");
            is_live(sandbox, daemon, "b.py", 1, "from outside");
            holds(sandbox, [("a.py", "renamed"), ("b.py", "from outside")]);
        },
    );
}

#[test]
fn a_save_the_way_vim_does_it_is_one_deployment() {
    both_ways(
        |sandbox| sandbox.file("in/a.py", "old"),
        |sandbox, daemon| {
            daemon.wait_deployed("a.py", 1);
            sandbox.write("in/.a.py.swp", "vim");
            sandbox.write("in/4913", "");
            sandbox.remove("in/4913");
            sandbox.rename("in/a.py", "in/a.py~");
            sandbox.write("in/a.py", "saved");
            sandbox.remove("in/a.py~");
            sandbox.remove("in/.a.py.swp");
            is_live(sandbox, daemon, "a.py", 2, "saved");
            assert_eq!(daemon.all_removed(), BTreeMap::new());
            holds(sandbox, [("a.py", "saved")]);
        },
    );
}

#[test]
fn a_directory_moved_in_is_deployed_with_all_that_is_in_it() {
    both_ways(
        |sandbox| sandbox.file("new/a.py", "a").file("new/deep/down/b.py", "b"),
        |sandbox, daemon| {
            sandbox.rename("new", "in/new");
            daemon.wait_deployed("new/a.py", 1);
            is_live(sandbox, daemon, "new/deep/down/b.py", 1, "b");
            daemon.assert_deployed_once(["new/a.py", "new/deep/down/b.py"]);
            holds(sandbox, [("new/a.py", "a"), ("new/deep/down/b.py", "b")]);
        },
    );
}

#[test]
fn a_rename_deploys_the_new_name_and_removes_the_old_one() {
    both_ways(
        |sandbox| sandbox.file("in/a.py", "x"),
        |sandbox, daemon| {
            daemon.wait_deployed("a.py", 1);
            sandbox.rename("in/a.py", "in/b.py");
            is_live(sandbox, daemon, "b.py", 1, "x");
            daemon.wait_removed("a.py");
            daemon.assert_deployed_once(["a.py", "b.py"]);
            holds(sandbox, [("b.py", "x")]);
        },
    );
}

#[test]
fn a_file_in_a_new_chain_of_directories_is_deployed_once() {
    both_ways(
        |sandbox| sandbox,
        |sandbox, daemon| {
            sandbox.shell("mkdir -p in/new/sub && echo -n x > in/new/sub/a.py");
            is_live(sandbox, daemon, "new/sub/a.py", 1, "x");
            sandbox.write("in/new/sub/a.py", "y");
            is_live(sandbox, daemon, "new/sub/a.py", 2, "y");
        },
    );
}

#[test]
fn a_symlink_to_a_file_inside_is_deployed_as_what_it_leads_to() {
    both_ways(
        |sandbox| sandbox,
        |sandbox, daemon| {
            sandbox.write("in/real.py", "x");
            sandbox.symlink("real.py", "in/link.py");
            is_live(sandbox, daemon, "real.py", 1, "x");
            is_live(sandbox, daemon, "link.py", 1, "x");
        },
    );
}

#[test]
fn an_edit_behind_a_symlink_is_deployed_under_both_names() {
    both_ways(
        |sandbox| sandbox.file("in/real.py", "x"),
        |sandbox, daemon| {
            sandbox.symlink("real.py", "in/link.py");
            daemon.wait_deployed("link.py", 1);
            sandbox.write("in/real.py", "y");
            is_live(sandbox, daemon, "real.py", 2, "y");
            is_live(sandbox, daemon, "link.py", 2, "y");
        },
    );
}

#[test]
fn a_config_map_swap_deploys_each_file_once_under_its_visible_name() {
    let prepare = |sandbox: Sandbox| {
        let sandbox = sandbox.file("in/..2026_01_01/a.yaml", "a1").file("in/..2026_01_01/b.yaml", "b1");
        sandbox.symlink("..2026_01_01", "in/..data");
        sandbox.symlink("..data/a.yaml", "in/a.yaml");
        sandbox.symlink("..data/b.yaml", "in/b.yaml");
        sandbox
    };
    both_ways(prepare, |sandbox, daemon| {
        is_live(sandbox, daemon, "a.yaml", 1, "a1");
        is_live(sandbox, daemon, "b.yaml", 1, "b1");
        sandbox.write("in/..2026_01_02/a.yaml", "a2");
        sandbox.write("in/..2026_01_02/b.yaml", "b2");
        sandbox.symlink("..2026_01_02", "in/..data_tmp");
        sandbox.rename("in/..data_tmp", "in/..data");
        sandbox.remove_all("in/..2026_01_01");
        is_live(sandbox, daemon, "a.yaml", 2, "a2");
        is_live(sandbox, daemon, "b.yaml", 2, "b2");
        assert_eq!(daemon.all_deployed().len(), 2, "nothing under `..data`: {:?}", daemon.all_deployed());
        assert_eq!(daemon.all_removed(), BTreeMap::new());
        holds(sandbox, [("a.yaml", "a2"), ("b.yaml", "b2")]);
    });
}

#[test]
fn two_edits_shortly_after_each_other_are_both_deployed_in_order() {
    both_ways(
        |sandbox| sandbox,
        |sandbox, daemon| {
            sandbox.write("in/a.py", "v1");
            daemon.wait_deployed("a.py", 1);
            assert_eq!(sandbox.read("deployed/p/a.py").as_deref(), Some("v1"));
            Pace::new().idle(Duration::from_millis(800));
            sandbox.write("in/a.py", "v2");
            is_live(sandbox, daemon, "a.py", 2, "v2");
        },
    );
}

#[test]
fn a_slow_writer_is_waited_for() {
    both_ways(
        |sandbox| sandbox.file("in/a.py", "old"),
        |sandbox, daemon| {
            daemon.wait_deployed("a.py", 1);
            let mut writer = Writer::create(sandbox.path("in/a.py"));
            writer.write("first ");
            writer.idle(Duration::from_secs(3));
            assert_eq!(daemon.deployed("a.py"), 1, "half a file was deployed");
            assert_eq!(sandbox.read("deployed/p/a.py").as_deref(), Some("old"));
            writer.write("second");
            writer.close();
            is_live(sandbox, daemon, "a.py", 2, "first second");
        },
    );
}

#[test]
fn a_file_written_in_small_steps_is_deployed_once_and_whole() {
    both_ways(
        |sandbox| sandbox,
        |sandbox, daemon| {
            let mut writer = Writer::create(sandbox.path("in/a.py"));
            for _ in 0..6 {
                writer.write("step ");
                writer.idle(Duration::from_millis(300));
            }
            assert_eq!(daemon.deployed("a.py"), 0, "half a file was deployed");
            writer.close();
            is_live(sandbox, daemon, "a.py", 1, "step step step step step step ");
        },
    );
}

#[test]
fn times_set_while_a_writer_is_at_work_deploy_nothing() {
    both_ways(
        |sandbox| sandbox,
        |sandbox, daemon| {
            let mut writer = Writer::create(sandbox.path("in/a.py"));
            writer.write("half ");
            for _ in 0..4 {
                writer.touch();
                writer.idle(Duration::from_millis(150));
            }
            assert_eq!(daemon.deployed("a.py"), 0, "half a file was deployed");
            writer.write("whole");
            writer.close();
            is_live(sandbox, daemon, "a.py", 1, "half whole");
        },
    );
}

#[test]
fn a_deleted_file_is_removed_where_it_was_deployed() {
    both_ways(
        |sandbox| sandbox.file("in/a.py", "x").file("in/b.py", "y"),
        |sandbox, daemon| {
            daemon.wait_deployed("a.py", 1);
            daemon.wait_deployed("b.py", 1);
            sandbox.remove("in/a.py");
            daemon.wait_removed("a.py");
            daemon.sync();
            daemon.assert_deployed_once(["a.py", "b.py"]);
            holds(sandbox, [("b.py", "y")]);
        },
    );
}

#[test]
fn a_root_that_is_deleted_and_made_again_is_watched_again() {
    both_ways(
        |sandbox| sandbox.file("in/a.py", "x"),
        |sandbox, daemon| {
            daemon.wait_deployed("a.py", 1);
            sandbox.remove_all("in");
            sandbox.write("in/b.py", "y");
            is_live(sandbox, daemon, "b.py", 1, "y");
            sandbox.write("in/b.py", "z");
            is_live(sandbox, daemon, "b.py", 2, "z");
        },
    );
}

#[test]
fn a_root_that_is_made_again_empty_is_not_an_order_to_undeploy() {
    both_ways(
        |sandbox| sandbox.file("in/a.py", "x"),
        |sandbox, daemon| {
            daemon.wait_deployed("a.py", 1);
            sandbox.remove_all("in");
            sandbox.make("in");
            daemon.wait_for(|line| line.message.starts_with("removals are paused"));
            sandbox.write("in/b.py", "y");
            is_live(sandbox, daemon, "b.py", 1, "y");
            assert_eq!(daemon.all_removed(), BTreeMap::new());
            holds(sandbox, [("a.py", "x"), ("b.py", "y")]);
        },
    );
}

#[test]
fn an_empty_file_is_deployed() {
    both_ways(
        |sandbox| sandbox,
        |sandbox, daemon| {
            sandbox.write("in/__init__.py", "");
            is_live(sandbox, daemon, "__init__.py", 1, "");
        },
    );
}

#[test]
fn two_hundred_new_files_are_deployed_once_each() {
    both_ways(
        |sandbox| sandbox,
        |sandbox, daemon| {
            let units: Vec<String> = (0..200).map(|number| format!("f{number}.py")).collect();
            for unit in &units {
                sandbox.write(format!("in/{unit}"), unit);
            }
            daemon.wait_until("200 files", |log| units.iter().all(|unit| log.deployed.contains_key(unit)));
            daemon.sync();
            daemon.assert_deployed_once(&units);
            let deployed = sandbox.deployed();
            assert!(units.iter().all(|unit| deployed.get(unit) == Some(unit)));
        },
    );
}

#[test]
fn an_edit_that_keeps_size_and_mtime_is_deployed() {
    both_ways(
        |sandbox| sandbox.file("in/a.py", "one"),
        |sandbox, daemon| {
            daemon.wait_deployed("a.py", 1);
            sandbox.shell("touch -r in/a.py times; printf two > in/a.py; touch -r times in/a.py");
            is_live(sandbox, daemon, "a.py", 2, "two");
        },
    );
}

#[test]
fn edits_while_everything_is_compared_are_not_lost() {
    both_ways(
        |sandbox| (0..800).fold(sandbox, |sandbox, number| sandbox.file(&format!("in/d{number}/f.py"), "old")),
        |sandbox, daemon| {
            daemon.wait_until("800 files", |log| log.deployed.len() >= 800);
            for number in (0..800).step_by(32) {
                sandbox.write(format!("in/d{number}/f.py"), "new");
            }
            let edited = |log: &crate::daemon::Log| log.deployed.values().filter(|times| **times == 2).count();
            daemon.wait_until("25 edits", |log| edited(log) == 25);
            daemon.sync();
            assert_eq!(sandbox.deployed().values().filter(|content| *content == "new").count(), 25);
            assert_eq!(daemon.log(edited), 25);
        },
    );
}

#[test]
fn a_failing_deployer_is_tried_again_and_never_reported_as_a_success() {
    let text = r#"
[pickup]
log_format = "json"

[hot-deploy.user.p]
pickup_from = "in"
deploy_to = ["program"]

[deployer.program]
kind = "exec"
command = ["./deploy"]
retry = 2
retry_backoff = "100ms"
"#;
    let sandbox = Sandbox::new().config(text).script("deploy", "echo tried >> tries\nexit 1");
    let daemon = sandbox.daemon();
    sandbox.write("in/a.py", "x");
    let failures = |log: &crate::daemon::Log| {
        log.lines.iter().filter(|line| line.message.starts_with("failed") && line.field("units") == "a.py").count()
    };
    daemon.wait_until("the try and two retries", |log| failures(log) == 3);
    daemon.sync();
    assert_eq!(sandbox.read("tries").as_deref(), Some("tried\ntried\ntried\n"));
    assert_eq!(daemon.deployed("a.py"), 0);
    sandbox.write("mended", "");
    let sandbox = sandbox.script("deploy", "echo mended >> tries");
    sandbox.write("in/a.py", "y");
    daemon.wait_deployed("a.py", 1);
    assert_eq!(sandbox.read("tries").as_deref(), Some("tried\ntried\ntried\nmended\n"));
}
