//! A program with plug-ins: shared libraries that are exchanged while they are called.
//!
//! `cargo run -p pickup-examples --example modules -- plugins`, then `cargo build -p pickup-examples --example greeter`
//! and `cp target/debug/examples/libgreeter.so plugins/greeter.so`; or compile `modules/greeter.c`.

use std::time::Duration;

use pickup::config::ModuleConfig;
use pickup::deploy::Module;
use pickup::deploy::module::{CallError, ModuleHandle, serve_probe};
use pickup::{Config, Delivery, Engine, EventKind, PickupConfig};

const GREET: u32 = 1;

/// The argument that makes this program the probe of a module, which may die of it.
const PROBE: &str = "--module-probe";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1) {
        Some(argument) if argument == PROBE => Ok(serve_probe(std::io::stdin().lock(), std::io::stdout())?),
        directory => serve(&directory.unwrap_or("plugins".into())),
    }
}

#[tokio::main]
async fn serve(directory: &str) -> Result<(), Box<dyn std::error::Error>> {
    let probe = vec![std::env::current_exe()?.into(), PROBE.into()];
    let config = ModuleConfig { config: "good day".into(), ..ModuleConfig::default() };
    let modules = Module::new(config, std::path::absolute(".pickup/modules")?, Some(probe))?;
    // It calls whichever version is live, from any thread, and may be made before there is any.
    let greeter = modules.handle("plugins", "greeter.so")?;

    let pickup = PickupConfig::new("plugins", std::path::absolute(directory)?).deploy_to(["modules"]);
    let builder = Engine::builder(Config::default().pickup(pickup)).deployer("modules", modules);
    let mut events = builder.subscribe();
    let engine = builder.start().await?;
    tokio::spawn(async move {
        while let Some(delivery) = events.next().await {
            if let Delivery::Event(event) = delivery
                && let EventKind::RolledBack { cause, .. } = event.kind
            {
                println!("the old version stays: {cause}");
            }
        }
    });
    let greeting = std::thread::spawn(move || greet(&greeter));
    println!("Watching {directory}");
    tokio::signal::ctrl_c().await?;
    engine.shutdown().await;
    // The thread ends with the program: it has nothing to finish.
    drop(greeting);
    Ok(())
}

/// Says what the module says, whenever that changes.
fn greet(greeter: &ModuleHandle) {
    let mut said = None;
    loop {
        let reply = greeter.call(GREET, b"world").map(|reply| String::from_utf8_lossy(&reply).into_owned());
        let says = match (&reply, greeter.generation()) {
            (Ok(reply), Some(generation)) => format!("generation {generation}: {reply}"),
            (Ok(reply), None) => reply.clone(),
            (Err(CallError::NotLoaded), _) => "no greeter is loaded".into(),
            (Err(error), _) => format!("cannot {error}"),
        };
        if said.as_ref() != Some(&says) {
            println!("{says}");
            said = Some(says);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
