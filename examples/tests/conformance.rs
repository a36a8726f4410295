//! The deployer of the example `custom_deployer` keeps what the engine relies on.

#[path = "../examples/custom_deployer.rs"]
#[expect(dead_code, reason = "the example is a program, of which only the deployer is tried here")]
mod custom_deployer;

use custom_deployer::Rules;
use pickup::UnitPath;
use pickup::deploy::conformance::{Ability, Subject, Version, run};

#[tokio::test]
async fn the_rules_conform() {
    let directory = tempfile::tempdir().unwrap();
    // The rules are their own world: what the rest of the server asks is asked here.
    let serving = async |rules: &Rules, _: &std::path::Path| {
        let limit = rules.limit(&UnitPath::new("a.rule").unwrap());
        limit.map(|limit| limit.to_string().into_bytes())
    };
    let subject = Subject::new(directory.path(), |_| Rules::default(), serving)
        .versions(
            Version::file("a.rule", "limit = 10").serves("10"),
            Version::file("a.rule", "limit = 20").serves("20"),
        )
        .failing(Version::file("a.rule", "limit = many"))
        .without(Ability::Outlive, "the rules live in this process");
    let report = run(&subject).await;
    assert!(report.is_conforming(), "{report}");
}
