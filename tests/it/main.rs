//! The promises, tested through the built daemon as a user would drive it.

#![cfg(unix)]

mod burst;
mod crash;
mod daemon;
mod dry_run;
mod faults;
mod features;
mod git;
mod hostile;
mod http;
mod odd;
mod process;
mod program;
mod remote;
mod sandbox;
mod start;
mod trouble;
mod watch;
mod writer;
mod zato;
