//! Files that somebody is still writing to.

use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use super::{all_live_once, at_rest_and_busy, at_rest_and_busy_in, named};
use crate::sandbox::Sandbox;
use crate::writer::{Pace, Writer};

#[test]
fn a_file_that_has_its_name_before_its_last_write_is_waited_for() {
    at_rest_and_busy(|sandbox, daemon| {
        let wanted = named(5, |number| format!("f{number}"));
        let mut writers: Vec<Writer> =
            wanted.keys().map(|unit| Writer::create(sandbox.path(format!("in/{unit}")))).collect();
        let pace = Pace::new();
        for (writer, unit) in writers.iter_mut().zip(wanted.keys()) {
            writer.write(&unit[..1]);
        }
        pace.idle(Duration::from_secs(1));
        assert_eq!(daemon.all_deployed().len(), 0, "half a file was deployed");
        for (mut writer, unit) in writers.into_iter().zip(wanted.keys()) {
            writer.write(&unit[1..]);
            writer.close();
        }
        all_live_once(sandbox, daemon, &wanted);
    });
}

#[test]
fn a_file_renamed_into_place_by_a_writer_that_still_has_it_open_is_waited_for() {
    at_rest_and_busy(|sandbox, daemon| {
        let wanted = named(10, |number| format!("f{number}"));
        let mut writers = Vec::new();
        for unit in wanted.keys() {
            let mut writer = Writer::create(sandbox.path(format!("in/{unit}.tmp")));
            writer.write(&unit[..1]);
            sandbox.rename(&format!("in/{unit}.tmp"), &format!("in/{unit}"));
            writers.push((writer, unit));
        }
        Pace::new().idle(Duration::from_millis(300));
        assert_eq!(daemon.all_deployed().len(), 0, "half a file was deployed");
        for (mut writer, unit) in writers {
            writer.write(&unit[1..]);
            writer.close();
        }
        all_live_once(sandbox, daemon, &wanted);
    });
}

#[test]
fn an_upload_that_opens_and_closes_its_file_ten_times_is_one_deployment_where_settle_patterns_say_so() {
    let sandbox = || Sandbox::new().keys("settle_patterns = [\"*.upload\"]\nsettle = \"1s\"");
    at_rest_and_busy_in(sandbox, |sandbox, daemon| {
        let pace = Pace::new();
        for round in 0..10 {
            let mut file = File::options().create(true).append(true).open(sandbox.path("in/f.upload")).expect("open");
            write!(file, "{round}").expect("append");
            drop(file);
            pace.idle(Duration::from_millis(60));
        }
        daemon.wait_deployed("f.upload", 1);
        daemon.sync();
        // Had half of it been deployed, the other half would have followed.
        daemon.assert_deployed_once(["f.upload"]);
        assert_eq!(sandbox.read("deployed/p/f.upload").as_deref(), Some("0123456789"));
    });
}

#[test]
fn a_write_through_a_hard_link_outside_is_found_by_the_next_comparison() {
    let sandbox = || Sandbox::new().keys("rescan_interval = \"1s\"").file("in/f", "old");
    at_rest_and_busy_in(sandbox, |sandbox, daemon| {
        fs::hard_link(sandbox.path("in/f"), sandbox.path("outside")).expect("link");
        daemon.wait_deployed("f", 1);
        sandbox.write("outside", "new");
        daemon.wait_deployed("f", 2);
        daemon.sync();
        assert_eq!(daemon.deployed("f"), 2);
        assert_eq!(sandbox.read("deployed/p/f").as_deref(), Some("new"));
    });
}
