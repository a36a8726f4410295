//! Hot deployment from watched directories.
#![deny(missing_docs)]

pub mod capture;
pub mod change;
pub mod config;
pub mod deploy;
mod engine;
mod error;
pub mod event;
mod journal;
mod path;
mod plan;
mod settle;
mod source;

pub use config::{Config, PickupConfig};
pub use deploy::Deployer;
pub use engine::{
    Builder, Engine, Explanation, Failed, LastError, Noted, PickupStatus, Records, RemovalsPaused, RootStatus, State,
    SyncOptions, SyncReport, Why,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{Delivery, Event, EventKind, Events};
pub use journal::{Deployment, DeploymentChange, Origin, Outcome};
pub use path::UnitPath;
