//! Git repositories: the worker that speaks to them, and the daemon that follows them.

mod cases;
mod clone;
mod crash;
pub mod followed;
mod mirror;
mod refs;
mod refused;
mod servers;
mod transport;
mod trouble;
mod worker;
