//! For fuzzers: files of any name and content.

use std::ffi::OsStr;
use std::io::Cursor;

use super::{Shape, shape_of};

const NAMES: [&str; 6] = ["a.zip", "a.tar", "a.tar.gz", "a.xz", "a.so", "a"];

/// A file, named by its first byte: there is a verdict, also when it is not as long as it was a moment ago.
pub fn structure(bytes: &[u8]) {
    let Some((first, content)) = bytes.split_first() else { return };
    let name = OsStr::new(NAMES[usize::from(*first) % NAMES.len()]);
    let size = content.len() as u64;
    let judge = |size| shape_of(&mut Cursor::new(content), name, size).expect("bytes in memory can be read");
    match judge(size) {
        Shape::Whole => {}
        Shape::Partial(why) => assert!(!why.is_empty() && !why.contains(char::is_control), "{why:?}"),
    }
    // It shrank, or it grew.
    for size in [size * 2 + 1, size / 2, u64::MAX] {
        judge(size);
    }
}
