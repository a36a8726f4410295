//! Any two commits: names, modes, links and rules.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pickup::fuzzing::commits(bytes));
