//! Any bytes as an archive or a program; the first byte says by which name.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pickup::fuzzing::structure(bytes));
