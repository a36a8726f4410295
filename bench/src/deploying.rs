//! The benches of what happens once a change is known: large files, releases, git, restarts, and a soak.

use crate::{Bench, Helper};

mod cost;
mod git;
mod large;
mod random;
mod release;
mod restart;
mod soak;

/// In the order in which they are shown.
pub const BENCHES: &[Bench] = &[
    Bench { name: "large", about: "One file of 2 GB", run: large::run },
    Bench { name: "release", about: "A tree of 10,000 files, of which one in a hundred changes", run: release::run },
    Bench { name: "git", about: "A hundred repositories; a push; a large repository", run: git::run },
    Bench { name: "restart", about: "A server that is redeployed under load", run: restart::run },
    Bench {
        name: "soak",
        about: "Minutes of mixed load: memory, descriptors, and whether all is right",
        run: soak::run,
    },
];

/// What this program runs as when a bench starts it as a child.
pub const HELPERS: &[Helper] = &[Helper { name: "serve", run: restart::serve }];
