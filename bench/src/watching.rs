//! The benches of how changes become known: latency, bursts, overflows, starts.

use crate::{Bench, Helper};

/// In the order in which they are shown.
pub const BENCHES: &[Bench] = &[];

/// What this program runs as when a bench starts it as a child.
pub const HELPERS: &[Helper] = &[];
