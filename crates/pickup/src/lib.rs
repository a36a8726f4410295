//! Hot deployment from watched directories.
#![deny(missing_docs)]

pub mod capture;
pub mod change;
pub mod config;
pub mod deploy;
mod error;
pub mod event;
mod journal;
mod path;
mod plan;
mod settle;

mod source;

pub use error::{Error, ErrorKind, Result};
pub use path::UnitPath;
