//! Hot deployment from watched directories.
#![deny(missing_docs)]

pub mod capture;
pub mod change;
pub mod config;
pub mod deploy;
mod error;
mod journal;
mod path;

mod source;

pub use error::{Error, ErrorKind, Result};
pub use path::UnitPath;
