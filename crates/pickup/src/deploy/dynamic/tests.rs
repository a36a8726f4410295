use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::deploy::testing::Sandbox;

enum Mood {
    Calm,
    Panics,
    PanicsAtOnce,
    Hangs,
    /// Never waits, and never ends.
    Busy,
}

struct Moody(Mood);

impl Deployer for Moody {
    type Staged = u32;
    type Live = String;

    fn accepts(&self, _unit: &Unit) -> Verdict {
        match self.0 {
            Mood::Calm | Mood::Hangs | Mood::Busy => Verdict::Accepted,
            Mood::Panics | Mood::PanicsAtOnce => panic!("no taste"),
        }
    }

    fn stage(&self, _cx: &Context, _unit: &Unit, _old: Option<&String>) -> impl Future<Output = Result<u32>> + Send {
        assert!(!matches!(self.0, Mood::PanicsAtOnce), "at once");
        async {
            tokio::task::yield_now().await;
            match self.0 {
                Mood::Calm => Ok(7),
                Mood::Panics | Mood::PanicsAtOnce => panic!("at stage"),
                Mood::Hangs => std::future::pending().await,
                Mood::Busy => loop {
                    tokio::task::consume_budget().await;
                },
            }
        }
    }

    async fn activate(&self, _cx: &Context, _unit: &Unit, staged: &u32, _old: Option<&String>) -> Result<String> {
        Ok(staged.to_string())
    }

    async fn revert(&self, _cx: &Context, _unit: &Unit, _staged: &u32, _old: Option<&String>) -> Result<()> {
        Ok(())
    }
}

fn moody(mood: Mood) -> Arc<dyn DynDeployer> {
    Arc::new(Moody(mood))
}

#[tokio::test]
async fn receipts_travel_as_json() {
    let sandbox = Sandbox::new();
    let (cx, unit, deployer) = (sandbox.cx(), sandbox.file("a", b"x", 1), moody(Mood::Calm));
    let staged = deployer.stage(&cx, &unit, None).await.unwrap();
    assert_eq!(staged, Value::from(7));
    let live = deployer.activate(&cx, &unit, &staged, None).await.unwrap();
    assert_eq!(live, Value::from("7"));
    assert_eq!(deployer.observe(&cx, &live.to_string()).await.unwrap(), Observed::Alive);
}

#[tokio::test]
async fn a_strange_receipt_names_the_deployer() {
    let sandbox = Sandbox::new();
    let (cx, unit, deployer) = (sandbox.cx(), sandbox.file("a", b"x", 1), moody(Mood::Calm));
    let error = deployer.activate(&cx, &unit, &Value::from("seven"), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Deploy);
    let text = error.to_string();
    assert!(text.contains("Moody") && text.contains("invalid type"), "{text}");
}

#[tokio::test]
async fn a_panic_is_an_error() {
    let sandbox = Sandbox::new();
    let (cx, unit) = (sandbox.cx(), sandbox.file("a", b"x", 1));
    for (mood, message) in [(Mood::Panics, "at stage"), (Mood::PanicsAtOnce, "at once")] {
        let deployer = moody(mood);
        let error = deployer.stage(&cx, &unit, None).await.unwrap_err();
        assert!(error.to_string().ends_with(message), "{error}");
        assert!(matches!(deployer.accepts(&unit), Verdict::Refused(reason) if reason.ends_with("no taste")));
    }
}

#[tokio::test]
async fn a_phase_ends_at_its_deadline() {
    let sandbox = Sandbox::new();
    for mood in [Mood::Hangs, Mood::Busy] {
        let (cx, unit) = (sandbox.cx_of(Duration::from_millis(20)), sandbox.file("a", b"x", 1));
        let error = moody(mood).stage(&cx, &unit, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
    }
}
