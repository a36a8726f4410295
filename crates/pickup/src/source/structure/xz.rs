//! Xz: a header and a footer that name the same flags.
//!
//! Layout as in the .xz file format 1.2, sections 2.1.1 and 2.1.2.

use std::io::{Read, Seek};

use flate2::Crc;

use super::{Checked, Format, bytes_at, cut, little};

const HEADER: &[u8] = b"\xFD7zXZ\0";
const LENGTH: u64 = 12;

pub(super) fn check<R: Read + Seek>(reader: &mut R, size: u64) -> Checked {
    let no_footer = || cut(Format::Xz, "no stream footer");
    let header: [u8; LENGTH as usize] = bytes_at(reader, 0, || cut(Format::Xz, "the stream header is cut off"))?;
    if !header.starts_with(HEADER) {
        return Err(cut(Format::Xz, "no stream header"));
    }
    let at = size.checked_sub(LENGTH).filter(|at| *at >= LENGTH && size.is_multiple_of(4)).ok_or_else(no_footer)?;
    let footer: [u8; LENGTH as usize] = bytes_at(reader, at, no_footer)?;
    let mut sum = Crc::new();
    sum.update(&footer[4..10]);
    // Several streams may follow each other, so the flags need not be those of the first header.
    if !footer.ends_with(b"YZ") || little(&footer[..4]) != u64::from(sum.sum()) {
        return Err(no_footer());
    }
    // In units of four bytes, less one: the index lies between header and footer.
    let index = (little(&footer[4..8]) + 1) * 4;
    if index > at - LENGTH { Err(cut(Format::Xz, "the index does not lie inside the file")) } else { Ok(()) }
}
