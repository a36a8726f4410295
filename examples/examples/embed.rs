//! The shortest way to embed pickup: watch a directory, call a function for each change, say what came of it.
//!
//! `cargo run -p pickup-examples --example embed -- plugins`, then drop a file into `plugins/`.

use pickup::deploy::{Unit, from_fn};
use pickup::{Config, Delivery, Engine, Events, PickupConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plugins = std::path::absolute(std::env::args().nth(1).unwrap_or("plugins".into()))?;

    let config = Config::default().pickup(PickupConfig::new("plugins", plugins));
    let builder = Engine::builder(config).deployer("default", from_fn(load).in_memory());
    tokio::spawn(report(builder.subscribe()));
    let engine = builder.start().await?;
    tokio::signal::ctrl_c().await?;
    engine.shutdown().await;
    Ok(())
}

/// Takes one change. The file is a captured copy: nobody can write to it any more.
async fn load(unit: Unit) -> std::io::Result<()> {
    match unit.file() {
        Some(file) => println!("load {} ({} bytes)", unit.path, file.read()?.len()),
        None => println!("unload {}", unit.path),
    }
    Ok(())
}

/// Prints each event as it comes, until the engine has stopped.
async fn report(mut events: Events) {
    while let Some(delivery) = events.next().await {
        match delivery {
            Delivery::Event(event) => println!("event: {:?}", event.kind),
            Delivery::Lagged(missed) => println!("{missed} events were missed; the history has them"),
        }
    }
}
