//! The pickup daemon: it parses arguments, starts the library, prints events, maps signals and exit codes.

use std::path::PathBuf;

use pickup::config::Surroundings;
use pickup::{Config, Engine};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let file = PathBuf::from(std::env::args().nth(1).unwrap_or("pickup.conf".into()));
    let surroundings = Surroundings::new(std::env::current_dir()?).variables(|name| std::env::var(name).ok());
    let config = Config::load(&file, &surroundings)?;
    let engine = Engine::builder(config).follow(&file, surroundings).start().await?;
    engine.serve_control()?;
    tokio::signal::ctrl_c().await?;
    engine.shutdown().await;
    Ok(())
}
