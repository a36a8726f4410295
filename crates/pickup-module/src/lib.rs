//! The contract between a host and the shared libraries it loads with pickup's `module` deployer.
//!
//! The contract itself is plain C: [`contract`] says it in Rust, `include/pickup_module.h` in C. A Rust author needs
//! neither: a [`Module`] is a plain trait implementation, and [`export_module!`] puts the contract around it, with every
//! panic caught on this side of the border.
//!
//! ```
//! use pickup_module::{Failure, Module, Reply, Start, export_module};
//!
//! struct Greeter {
//!     greeting: String,
//! }
//!
//! impl Module for Greeter {
//!     fn activate(start: Start<'_>) -> Result<Self, Failure> {
//!         Ok(Self { greeting: start.config_text()?.to_owned() })
//!     }
//!
//!     fn handle(&self, _operation: u32, request: &[u8], reply: &mut Reply<'_>) -> Result<(), Failure> {
//!         reply.write(self.greeting.as_bytes());
//!         reply.write(b", ");
//!         reply.write(request);
//!         Ok(())
//!     }
//! }
//!
//! export_module!(Greeter);
//! # fn main() {}
//! ```
//!
//! with `crate-type = ["cdylib"]` in the manifest.
//!
//! # The rules
//! 1. A module is never unloaded: what it keeps in statics stays, once for each generation.
//! 2. Several generations live side by side. A name that only one can have (a port, a lock file) is the old one's until
//!    [`Module::drain`].
//! 3. [`Module::handle`] is called from any thread, by many at once.
//! 4. Threads of its own: only with [`Module::SPAWNS_THREADS`], and they are joined in [`Module::drain`].
//! 5. No signal handlers, no `exit`, no `abort`: the process is the host's. Log through [`Host`].
//! 6. Build with `panic = "unwind"`, which is the default: else a panic ends the host, and the macro refuses to compile.
#![deny(missing_docs)]

pub mod contract;
#[doc(hidden)]
pub mod export;
mod module;

#[cfg(test)]
mod header;

pub use crate::contract::Status;
pub use crate::export::caught;
pub use crate::module::{Failure, Handoff, Health, Host, Interface, Level, Module, Reply, Start, instance};
