//! What writers write: every version tells itself from every other, and half of one is none.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Every content that a writer completed. Whatever is deployed is one of them, from the first byte to the last.
#[derive(Debug, Default)]
pub(crate) struct Completed(Mutex<HashSet<[u8; 32]>>);

impl Completed {
    fn set(&self) -> MutexGuard<'_, HashSet<[u8; 32]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before the file is closed: from then on it may be deployed.
    pub(crate) fn note(&self, content: &[u8]) {
        self.set().insert(*blake3::hash(content).as_bytes());
    }

    pub(crate) fn has(&self, content: &[u8]) -> bool {
        self.set().contains(blake3::hash(content).as_bytes())
    }
}

/// A version: a line that says which, then filling that depends on it.
pub(crate) fn payload(version: u64, size: usize) -> Vec<u8> {
    let mut content = format!("version {version} size {size}\n").into_bytes();
    let mut line = 0;
    while content.len() < size {
        content.extend_from_slice(format!("{version}.{line} ").as_bytes());
        line += 1;
    }
    content
}

/// The versions that these contents are of.
pub(crate) fn versions<'a>(contents: impl Iterator<Item = &'a [u8]>) -> BTreeSet<String> {
    contents.filter_map(|content| String::from_utf8_lossy(content).split(' ').nth(1).map(str::to_owned)).collect()
}

/// A zip archive that holds a payload, uncompressed (APPNOTE 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16).
pub(crate) fn zip(version: u64, size: usize) -> Vec<u8> {
    let content = payload(version, size);
    let mut checksum = flate2::Crc::new();
    checksum.update(&content);
    let length = u32::try_from(content.len()).expect("a small payload").to_le_bytes();
    // Version, flags, method, time and date; checksum, both sizes; lengths of name and extra field.
    let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
    common.extend(checksum.sum().to_le_bytes());
    common.extend([length, length].concat());
    common.extend([1, 0, 0, 0]);
    let local = [b"PK\x03\x04".as_slice(), &common, b"p", &content].concat();
    let rest = [0; 14];
    let central = [b"PK\x01\x02\x14\x00".as_slice(), &common, &rest, b"p"].concat();
    let place = u32::try_from(local.len()).expect("a small archive").to_le_bytes();
    let central_size = u32::try_from(central.len()).expect("a small directory").to_le_bytes();
    let end = [b"PK\x05\x06\0\0\0\0\x01\0\x01\0".as_slice(), &central_size, &place, &[0, 0]].concat();
    [local, central, end].concat()
}
