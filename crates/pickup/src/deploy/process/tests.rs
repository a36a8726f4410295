#![expect(clippy::disallowed_methods, reason = "the tests look at what runs")]

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::Ready;
use crate::deploy::testing::Sandbox;

/// A program that says what it is told, and ends when it is asked to.
const PATIENT: &[u8] = b"echo started $PICKUP_GENERATION in $PWD; trap 'exit 0' TERM; while :; do sleep 0.05; done";

fn deployer(change: impl FnOnce(&mut ProcessConfig)) -> Process {
    let mut config = ProcessConfig::new(["sh", "./run"].map(str::to_owned).to_vec());
    config.ready = Ready::Line("started".into());
    config.probation = Duration::from_millis(50);
    config.drain_timeout = Duration::from_secs(5);
    change(&mut config);
    Process::new(config, "web").unwrap()
}

/// Carries a unit through all phases, as the engine does.
async fn deploy(deployer: &Process, cx: &Context, unit: &Unit, old: Option<&Live>) -> Result<(Staged, Live)> {
    deployer.check(cx, unit, old).await?;
    let staged = deployer.stage(cx, unit, old).await?;
    let live = async {
        let live = deployer.activate(cx, unit, &staged, old).await?;
        deployer.verify(cx, unit, &live).await.map(|()| live)
    };
    match live.await {
        Ok(live) => {
            deployer.retire(cx, unit, &staged, old).await?;
            Ok((staged, live))
        }
        Err(error) => {
            deployer.revert(cx, unit, &staged, old).await?;
            Err(error)
        }
    }
}

fn is_running(live: &Live) -> bool {
    live.pid.and_then(proc::stat).is_some_and(|stat| !stat.is_zombie)
}

#[tokio::test]
async fn a_program_runs_in_its_release_until_the_end() {
    let (sandbox, deployer) = (Sandbox::new(), deployer(|_| {}));
    let cx = sandbox.cx();
    let unit = sandbox.tree("", &[("run", PATIENT), ("lib/x", b"x")], 1);
    let (_, live) = deploy(&deployer, &cx, &unit, None).await.unwrap();
    assert!(is_running(&live));
    let cwd = std::fs::read_link(format!("/proc/{}/cwd", live.pid.unwrap())).unwrap();
    assert_eq!(cwd, std::fs::canonicalize(&live.spec.release).unwrap());
    assert_eq!(std::fs::metadata(cwd.join("run")).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(deployer.observe(&cx, &live).await.unwrap(), Observed::Alive);
    deployer.shutdown(&cx, Ending::Engine).await.unwrap();
    assert!(!is_running(&live));
    // Every phase may come again, and then there is nothing left to do.
    deployer.remove(&cx, &unit, &live).await.unwrap();
    deployer.remove(&cx, &unit, &live).await.unwrap();
}

#[tokio::test]
async fn a_version_that_fails_leaves_the_old_one_and_its_release() {
    let (sandbox, deployer) = (Sandbox::new(), deployer(|_| {}));
    let cx = sandbox.cx();
    let (_, old) = deploy(&deployer, &cx, &sandbox.tree("", &[("run", PATIENT)], 1), None).await.unwrap();
    let bad = sandbox.tree("", &[("run", b"echo cannot; exit 3")], 2);
    let error = deploy(&deployer, &cx, &bad, Some(&old)).await.unwrap_err();
    assert!(error.to_string().ends_with("exit status 3 before it was ready"), "{error}");
    assert_eq!(cx.take_output(), "cannot\n");
    assert!(is_running(&old));
    assert_eq!(std::fs::read_dir(old.spec.release.parent().unwrap()).unwrap().count(), 2, "one, and its manifest");
    deployer.shutdown(&cx, Ending::Entry).await.unwrap();
    assert!(!is_running(&old));
}

#[tokio::test]
async fn a_version_that_ends_in_its_probation_has_failed() {
    let (sandbox, deployer) = (Sandbox::new(), deployer(|config| config.probation = Duration::from_secs(60)));
    let cx = sandbox.cx();
    let brief = sandbox.tree("", &[("run", b"echo started; exit 4")], 1);
    let error = deploy(&deployer, &cx, &brief, None).await.unwrap_err();
    assert!(error.to_string().contains("exit status 4"), "{error}");
    deployer.shutdown(&cx, Ending::Entry).await.unwrap();
}

#[tokio::test]
async fn a_successor_takes_up_what_runs_and_stops_what_is_not_live() {
    let (sandbox, first) = (Sandbox::new(), deployer(|_| {}));
    let cx = sandbox.cx();
    let (_, old) = deploy(&first, &cx, &sandbox.tree("", &[("run", PATIENT)], 1), None).await.unwrap();
    let unit = sandbox.tree("", &[("run", PATIENT), ("new", b"")], 2);
    let staged = first.stage(&cx, &unit, Some(&old)).await.unwrap();
    let unproven = first.activate(&cx, &unit, &staged, Some(&old)).await.unwrap();
    // As after a crash: nobody was told to stop.
    first.shutdown(&cx, Ending::Exchange).await.unwrap();
    assert!(is_running(&old) && is_running(&unproven));
    let second = deployer(|_| {});
    second.revert(&cx, &unit, &staged, Some(&old)).await.unwrap();
    assert!(is_running(&old) && !is_running(&unproven));
    assert_eq!(second.observe(&cx, &old).await.unwrap(), Observed::Alive);
    assert!(is_running(&old));
    second.shutdown(&cx, Ending::Engine).await.unwrap();
    assert!(!is_running(&old));
    // And after that, its release is run again.
    let third = deployer(|_| {});
    assert_eq!(third.observe(&cx, &old).await.unwrap(), Observed::Alive);
    let service = third.service("web", &cx).unwrap();
    assert!(service.instance(1).is_some());
    third.shutdown(&cx, Ending::Engine).await.unwrap();
}

#[tokio::test]
async fn what_a_program_started_goes_with_it_wherever_it_went() {
    let (sandbox, deployer) = (Sandbox::new(), deployer(|_| {}));
    let cx = sandbox.cx();
    let unit = sandbox.tree("", &[("run", b"setsid sleep 1000 & sleep 1000 & echo started; wait")], 1);
    let (_, live) = deploy(&deployer, &cx, &unit, None).await.unwrap();
    let instance = deployer.service("web", &cx).unwrap().instance(1).unwrap();
    let members = || proc::members(instance.leader, &instance.token);
    tokio::time::timeout(Duration::from_secs(10), async {
        while members().len() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    deployer.remove(&cx, &unit, &live).await.unwrap();
    assert_eq!(members(), []);
}

#[tokio::test]
async fn without_overlap_there_are_never_two() {
    let (sandbox, deployer) = (Sandbox::new(), deployer(|config| config.overlap = false));
    let cx = sandbox.cx();
    let (_, old) = deploy(&deployer, &cx, &sandbox.tree("", &[("run", PATIENT)], 1), None).await.unwrap();
    let bad = sandbox.tree("", &[("run", b"exit 3")], 2);
    deploy(&deployer, &cx, &bad, Some(&old)).await.unwrap_err();
    assert!(!is_running(&old), "it had to go first");
    let again = deployer.service("web", &cx).unwrap().instance(1).expect("started again from its release");
    assert_eq!(again.spec, old.spec);
    deployer.shutdown(&cx, Ending::Engine).await.unwrap();
}

#[tokio::test]
async fn an_old_version_that_was_asked_to_finish_serves_again_after_a_revert() {
    let (sandbox, deployer) = (Sandbox::new(), deployer(|config| config.overlap = false));
    let cx = sandbox.cx();
    let (_, old) = deploy(&deployer, &cx, &sandbox.tree("", &[("run", PATIENT)], 1), None).await.unwrap();
    let unit = sandbox.tree("", &[("run", PATIENT), ("new", b"")], 2);
    let staged = deployer.stage(&cx, &unit, Some(&old)).await.unwrap();
    let service = deployer.service("web", &cx).unwrap();
    let mut until = service.instance(1).unwrap().until.subscribe();
    // Dropped as at its deadline, while the old one finishes.
    tokio::select! {
        _ = deployer.activate(&cx, &unit, &staged, Some(&old)) => panic!("it had to wait for the old one"),
        _ = until.wait_for(Option::is_some) => {}
    }
    deployer.revert(&cx, &unit, &staged, Some(&old)).await.unwrap();
    let again = service.instance(1).expect("it runs");
    assert!(!again.is_stopping() && Some(again.main()) != old.pid);
    deployer.shutdown(&cx, Ending::Engine).await.unwrap();
}

#[tokio::test]
async fn a_program_that_is_not_there_is_refused_before_anything_runs() {
    let (sandbox, deployer) = (Sandbox::new(), deployer(|config| config.command = vec!["./server".into()]));
    let cx = sandbox.cx();
    let error = deployer.check(&cx, &sandbox.tree("", &[("run", b"")], 1), None).await.unwrap_err();
    assert_eq!(error.to_string(), "run ./server: there is no such file in the pickup");
    let error = deployer.check(&cx, &sandbox.tree("", &[("server", b"")], 1), None).await.unwrap_err();
    assert_eq!(error.to_string(), "run ./server: it is not executable");
}
