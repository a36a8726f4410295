//! Git repositories: the worker that speaks to them, and the daemon that follows them.

mod servers;
mod worker;
