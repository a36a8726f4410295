//! Deployers of your own: first in one line, then with every phase.
//!
//! `cargo run -p pickup-examples --example custom_deployer -- rules`, then write `limit = 10` to `rules/a.rule`.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pickup::deploy::{Context, Deployer, Observed, Unit, Verdict, from_fn};
use pickup::{Config, Delivery, Engine, Error, EventKind, PickupConfig, Result, UnitPath};
use serde::{Deserialize, Serialize};

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let directory = std::path::absolute(std::env::args().nth(1).unwrap_or("rules".into()))?;

    // The simplest shape: a closure. It is called with each change, after the rules below took it.
    let announce = from_fn(|unit: Unit| async move {
        println!("{} {}", unit.change.as_str(), unit.path);
        Ok::<(), Error>(())
    });

    let pickup = PickupConfig::new("rules", directory).deploy_to(["rules", "announce"]);
    let config = Config::default().pickup(pickup);
    let builder = Engine::builder(config).deployer("rules", Rules::default()).deployer("announce", announce);
    let mut events = builder.subscribe();
    let engine = builder.start().await?;
    let told = tokio::spawn(async move {
        while let Some(delivery) = events.next().await {
            if let Delivery::Event(event) = delivery
                && let EventKind::RolledBack { cause, .. } = event.kind
            {
                println!("the old rules stay: {cause}");
            }
        }
    });
    tokio::signal::ctrl_c().await?;
    engine.shutdown().await;
    Ok(told.await?)
}

/// The rules of a server, by file. They live in this process only.
#[derive(Default)]
pub struct Rules(Mutex<Tables>);

#[derive(Default)]
struct Tables {
    live: BTreeMap<UnitPath, Rule>,
    /// The next version until it is activated, then the one before it until that is retired.
    beside: BTreeMap<UnitPath, Rule>,
}

impl Tables {
    fn is_live(&self, receipt: &Receipt) -> bool {
        self.live.get(&receipt.path).is_some_and(|rule| rule.generation == receipt.generation)
    }
}

struct Rule {
    generation: u64,
    limit: u32,
}

/// A receipt: facts that mean something to another process, too, never a handle. The generation, and not the digest, tells
/// which version it is: somebody may deploy the same content twice.
#[derive(Clone, Serialize, Deserialize)]
pub struct Receipt {
    path: UnitPath,
    generation: u64,
}

impl Rules {
    /// What the rest of the server asks for.
    pub fn limit(&self, path: &UnitPath) -> Option<u32> {
        self.tables().live.get(path).map(|rule| rule.limit)
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parse(unit: &Unit) -> Result<Rule> {
        let file = unit.file().ok_or_else(|| Error::deploy("read a rule that is no file"))?;
        let text = file.read_to_string()?;
        let limit = text.trim().strip_prefix("limit = ").and_then(|limit| limit.parse().ok());
        let limit = limit.ok_or_else(|| Error::deploy(format!("read {}: expected `limit = <number>`", unit.path)))?;
        Ok(Rule { generation: unit.generation, limit })
    }
}

impl Deployer for Rules {
    type Staged = Receipt;
    type Live = Receipt;

    fn accepts(&self, unit: &Unit) -> Verdict {
        match unit.path.as_path().extension() {
            Some(extension) if extension == "rule" => Verdict::Accepted,
            Some(_) | None => Verdict::Refused("its name does not end in .rule".into()),
        }
    }

    async fn check(&self, _cx: &Context, unit: &Unit, _old: Option<&Receipt>) -> Result<()> {
        if unit.content.is_some() { Self::parse(unit).map(drop) } else { Ok(()) }
    }

    async fn stage(&self, _cx: &Context, unit: &Unit, _old: Option<&Receipt>) -> Result<Receipt> {
        let rule = Self::parse(unit)?;
        let receipt = Receipt { path: unit.path.clone(), generation: rule.generation };
        self.tables().beside.insert(unit.path.clone(), rule);
        Ok(receipt)
    }

    async fn activate(&self, _cx: &Context, _unit: &Unit, staged: &Receipt, _old: Option<&Receipt>) -> Result<Receipt> {
        let mut tables = self.tables();
        // Whatever was done already is not done again: each phase may be repeated.
        if !tables.is_live(staged) {
            let missing = || Error::deploy(format!("find what was staged of {}", staged.path)).transient();
            let rule = tables.beside.remove(&staged.path).ok_or_else(missing)?;
            if let Some(before) = tables.live.insert(staged.path.clone(), rule) {
                tables.beside.insert(staged.path.clone(), before);
            }
        }
        drop(tables);
        if let Some(limit) = self.limit(&staged.path) {
            println!("the limit of {} is {limit}", staged.path);
        }
        Ok(staged.clone())
    }

    /// Also called after a crash, by a process that holds neither: then there is nothing to take back.
    async fn revert(&self, _cx: &Context, _unit: &Unit, staged: &Receipt, _old: Option<&Receipt>) -> Result<()> {
        let mut tables = self.tables();
        let beside = tables.beside.remove(&staged.path);
        let is_live = tables.is_live(staged);
        match beside {
            Some(before) if is_live => drop(tables.live.insert(staged.path.clone(), before)),
            None if is_live => drop(tables.live.remove(&staged.path)),
            Some(_) | None => {}
        }
        Ok(())
    }

    async fn retire(&self, _cx: &Context, _unit: &Unit, staged: &Receipt, _old: Option<&Receipt>) -> Result<()> {
        self.tables().beside.remove(&staged.path);
        Ok(())
    }

    async fn remove(&self, _cx: &Context, _unit: &Unit, live: &Receipt) -> Result<()> {
        self.tables().live.remove(&live.path);
        Ok(())
    }

    /// Asked at each start: a process that has just begun holds nothing, so everything is deployed to it again.
    async fn observe(&self, _cx: &Context, live: &Receipt) -> Result<Observed> {
        Ok(match self.tables().live.get(&live.path) {
            Some(rule) if rule.generation == live.generation => Observed::Alive,
            Some(_) => Observed::Drifted("another version is loaded".into()),
            None => Observed::Gone,
        })
    }
}
