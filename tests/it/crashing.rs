//! A daemon that dies by its own SIGKILL at a given write of the journal: `pickup-crashing CONFIG WRITE before|after NTH`.
//!
//! It exits 0 if everything was deployed and the write never came.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use pickup::config::Surroundings;
use pickup::{Config, Engine, SyncOptions};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or("usage: pickup-crashing CONFIG WRITE before|after NTH");
    let (file, write, moment, nth) = (PathBuf::from(next()?), next()?, next()?, next()?.parse::<usize>()?);
    // A hold comes of a rollback only.
    let write_is_hold = write == "hold";
    let config = Config::load(&file, &Surroundings::default())?;
    let seen = AtomicUsize::new(0);
    let hook = move |word: &str, is_done: bool| {
        let is_here = word == write && is_done == (moment == "after");
        if is_here && seen.fetch_add(1, Ordering::Relaxed) + 1 == nth {
            // As an operator would: no destructor runs, nothing is flushed.
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
        }
        Ok::<(), std::io::Error>(())
    };
    let hook = move |word: &str, is_done: bool| {
        hook(word, is_done).map_err(|error| pickup::Error::deploy("kill ourselves").caused_by(error))
    };
    let engine = Engine::builder(config).on_journal_write(hook).start().await?;
    engine.sync(None, SyncOptions { until_final: true, ..SyncOptions::default() }).await?;
    if write_is_hold {
        engine.rollback("p", None).await?;
    }
    engine.shutdown().await;
    Ok(())
}
