//! Any bytes as a module, as a library that it needs and as the loader's cache.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| pickup::fuzzing::module(bytes));
