//! Directories that take the place of others, the root among them.

use std::collections::BTreeMap;

use super::{all_live, at_rest_and_busy};

#[test]
fn a_root_removed_and_made_again_is_watched_each_time() {
    at_rest_and_busy(|sandbox, daemon| {
        for round in 0..10 {
            sandbox.remove_all("in");
            sandbox.write("in/deep/f", format!("round {round}"));
            daemon.wait_deployed("deep/f", round + 1);
        }
        daemon.sync();
        assert_eq!(daemon.deployed("deep/f"), 10);
        assert_eq!(sandbox.read("deployed/p/deep/f").as_deref(), Some("round 9"));
    });
}

#[test]
fn a_root_renamed_away_and_replaced_is_watched_each_time() {
    at_rest_and_busy(|sandbox, daemon| {
        for round in 0..10 {
            sandbox.write("next/deep/f", format!("round {round}"));
            sandbox.rename("in", &format!("former{round}"));
            sandbox.rename("next", "in");
            daemon.wait_deployed("deep/f", 2 * round + 1);
            // What was renamed away is none of ours, and what is there now is watched to its depth.
            sandbox.write(format!("former{round}/f"), "former");
            sandbox.write("in/deep/f", format!("round {round} edited"));
            daemon.wait_deployed("deep/f", 2 * round + 2);
        }
        daemon.sync();
        assert_eq!(daemon.deployed("deep/f"), 20);
        assert_eq!(daemon.deployed("f"), 0);
        assert_eq!(sandbox.read("deployed/p/deep/f").as_deref(), Some("round 9 edited"));
    });
}

#[test]
fn a_directory_exchanged_with_another_is_watched_to_its_depth() {
    at_rest_and_busy(|sandbox, daemon| {
        sandbox.write("in/app/deep/f", "first");
        daemon.wait_deployed("app/deep/f", 1);
        for round in 0..10 {
            sandbox.write("next/deep/f", format!("round {round}"));
            sandbox.rename("in/app", &format!("former{round}"));
            sandbox.rename("next", "in/app");
            daemon.wait_deployed("app/deep/f", 2 * round + 2);
            sandbox.write(format!("former{round}/deep/f"), "former");
            sandbox.write("in/app/deep/f", format!("round {round} edited"));
            daemon.wait_deployed("app/deep/f", 2 * round + 3);
        }
        all_live(sandbox, daemon, &BTreeMap::from([("app/deep/f".to_owned(), "round 9 edited".to_owned())]));
        assert_eq!(daemon.deployed("app/deep/f"), 21);
        assert_eq!(daemon.all_removed(), BTreeMap::new());
    });
}
