//! For fuzzers: modules of any bytes.

use super::{judge, libraries};

/// A module, its libraries and the loader's cache: each is judged.
pub fn module(bytes: &[u8]) {
    let nowhere = libraries::Libraries::default();
    for judged in [judge::judge(bytes, &[], &nowhere), judge::descriptor(bytes)] {
        match judged {
            Ok(judged) => assert!(!judged.name.is_empty() && !judged.name.contains(char::is_control)),
            Err(refusal) => assert!(!refusal.text().is_empty()),
        }
    }
    libraries::read_all(bytes);
}
