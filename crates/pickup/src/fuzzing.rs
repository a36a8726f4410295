//! What the targets in `fuzz/` reach: outside input as bytes, and what must hold of it. Not part of the library: it is compiled
//! for fuzzers alone, and panics where a promise is broken.

pub use crate::control::fuzzing::{answer, request};
#[cfg(target_os = "linux")]
pub use crate::deploy::module::fuzzing::module;
pub use crate::source::git::fuzzing::commits;
pub use crate::source::structure::fuzzing::structure;
