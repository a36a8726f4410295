//! Hot deployment from watched directories: complete, consistent change sets, handed to pluggable deployers.
//!
//! A program embeds an [`Engine`]: it watches directories, waits until a file is complete, captures its bytes, and hands
//! them to a [`Deployer`], one transaction at a time. The daemon `pickupd` is a thin shell around this crate.
//!
//! ```no_run
//! use pickup::deploy::{Unit, from_fn};
//! use pickup::{Config, Engine, PickupConfig};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::default().state_dir("/var/lib/app").pickup(PickupConfig::new("plugins", "/srv/app/plugins"));
//! let load = from_fn(|unit: Unit| async move {
//!     match unit.file() {
//!         Some(file) => println!("load {} from {}", unit.path, file.path()?.display()),
//!         None => println!("unload {}", unit.path),
//!     }
//!     Ok::<(), pickup::Error>(())
//! });
//! let engine = Engine::builder(config).deployer("default", load.in_memory()).start().await?;
//! tokio::signal::ctrl_c().await?;
//! engine.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # The pieces
//! - [`Config`] says what is watched and where it goes: built in code, or read by [`Config::load`] from TOML or from the
//!   `pickup.conf` of Zato. A mistake costs its own entry; [`Config::problems`] says which and why.
//! - [`Engine`] runs it: [`sync`](Engine::sync), [`status`](Engine::status), [`why`](Engine::why),
//!   [`rollback`](Engine::rollback), [`plan`](Engine::plan), [`retry`](Engine::retry), [`reload`](Engine::reload), and at the end
//!   [`shutdown`](Engine::shutdown). [`Records`] reads what an engine left behind.
//! - [`Deployer`] makes units live. Built in, on Unix: [`Copy`](deploy::Copy), [`Release`](deploy::Release) and
//!   [`Exec`](deploy::Exec); on Linux, [`Process`](deploy::Process) and [`Module`](deploy::module::Module). Your own: a closure by
//!   [`from_fn`](deploy::from_fn), or the trait with its phases.
//! - [`Events`] tell what happens, as [`Event`]s that serialise; [`Deployment`]s are the history.
//!
//! # The pipeline
//! One way, eight stages; each file opens with the line that says what it takes and gives (`grep -rh '^//! Stage' src`):
//! source, settle, capture, change, plan, deploy, journal, event. The engine knows them all, and they do not know it.
//! Settle, change and plan are plain functions of their arguments, time included.
//!
//! # What you can rely on
//! - A deployer never sees a file that somebody is still writing, as far as that can be known (`docs/completeness.md`).
//! - What was judged is what is deployed: deployers read captured, content-addressed copies, never the directory.
//! - A transaction group goes live whole or not at all; the old version serves until the new one is verified.
//! - A change is deployed at least once; a crash at any point is finished or taken back at the next start.
//! - A directory that vanishes, and a removal of more than half of the units, undeploy nothing until confirmed.
//! - The library prints nothing, reads no environment, installs no signal handlers, and ends its threads on shutdown.
//!
//! # Requirements
//! A tokio runtime with time and IO enabled; the multi-threaded one is recommended, since deployers run on it. Linux is
//! what is tested. The built-in deployers need Unix; read leases, the strongest proof of completeness, need Linux. The
//! crate has no feature flags.
#![deny(missing_docs)]
#![deny(clippy::exit, clippy::print_stderr, clippy::print_stdout)]
#![cfg_attr(not(test), deny(clippy::expect_used, clippy::panic, clippy::unwrap_used))]

pub mod capture;
pub mod change;
pub mod config;
#[cfg(unix)]
pub mod control;
pub mod deploy;
mod engine;
mod error;
pub mod event;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod journal;
mod lease;
mod path;
mod plan;
mod settle;
mod source;
mod tls;

pub use config::{Config, PickupConfig};
pub use deploy::Deployer;
pub use engine::{
    Builder, Engine, Explanation, Failed, Interrupted, LastError, Noted, Objection, PickupStatus, PlanOptions,
    PlanReport, PlannedChange, PlannedChangeSet, PlannedCommit, PlannedGroup, PlannedRefusal, PlannedStep, PlannedWait,
    Records, RemovalsPaused, RootStatus, State, SyncOptions, SyncReport, Wait, Why,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{Delivery, Event, EventKind, Events};
pub use journal::{Deployment, DeploymentChange, Origin, Outcome};
pub use path::UnitPath;
pub use source::git::{GitProblem, GitStatus, GitWorker, Revision, serve_git_worker};
