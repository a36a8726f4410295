//! The command line as a user sees it: what is printed, and the exit code.

mod check;
mod help;
mod notify;
mod offline;
mod running;
mod sandbox;
mod signals;
mod wrong;
