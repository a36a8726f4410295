//! Any bytes on the control socket, from the client and from the daemon.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    pickup::fuzzing::request(bytes);
    pickup::fuzzing::answer(bytes);
});
