//! The benches of what happens once a change is known: large files, releases, git, restarts, and a soak.

use crate::{Bench, Helper};

/// In the order in which they are shown.
pub const BENCHES: &[Bench] = &[];

/// What this program runs as when a bench starts it as a child.
pub const HELPERS: &[Helper] = &[];
