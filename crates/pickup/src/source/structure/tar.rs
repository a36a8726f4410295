//! Tar: a chain of headers that ends in blocks of zeros.
//!
//! Understood are ustar, GNU (long names, sparse files, base-256 sizes) and pax (`size` records).

use std::io::{Read, Seek};

use super::{Checked, Format, bytes_at, cut, fits};

const BLOCK: u64 = 512;
type Block = [u8; BLOCK as usize];

/// A pax header holds names and times; one that is longer than this holds no size that we must know.
const PAX_MAX: u64 = 1 << 20;
/// A block that only continues the map of a sparse file has this set if another one follows.
const SPARSE_GOES_ON: usize = 504;
/// The same in the header of a GNU sparse file.
const SPARSE_BEGINS: usize = 482;

pub(super) fn check<R: Read + Seek>(reader: &mut R, size: u64) -> Checked {
    let mut at = 0;
    // What a pax header said of the next entry's size.
    let mut announced = None;
    loop {
        let header = block(reader, at, size)?;
        if header.iter().all(|byte| *byte == 0) {
            // Two by the book, but the first one already says that nothing follows.
            return Ok(());
        }
        if !has_right_sum(&header) {
            return Err(cut(Format::Tar, format_args!("no header at byte {at}")));
        }
        let kind = header[156];
        let said = number(&header[124..136]).ok_or_else(|| cut(Format::Tar, format_args!("no size at byte {at}")))?;
        at += BLOCK;
        if kind == b'S' {
            at = pass_sparse_map(reader, at, size, &header)?;
        }
        let length = match kind {
            b'1' => 0, // A hard link carries the size of the file that it leads to, and no data.
            b'x' | b'g' | b'L' | b'K' => said,
            _ => announced.take().unwrap_or(said),
        };
        if !fits(at, length, size) {
            return Err(cut(Format::Tar, "the last file is cut off"));
        }
        if kind == b'x' {
            announced = pax_size(reader, at, length)?;
        }
        at = length.checked_next_multiple_of(BLOCK).and_then(|padded| at.checked_add(padded)).ok_or_else(no_end)?;
    }
}

fn no_end() -> super::Broken {
    cut(Format::Tar, "no end-of-archive block")
}

fn block<R: Read + Seek>(reader: &mut R, at: u64, size: u64) -> Checked<Block> {
    if fits(at, BLOCK, size) { bytes_at(reader, at, no_end) } else { Err(no_end()) }
}

/// The sum of all bytes, the field of the sum itself taken as spaces. Old programs added signed bytes.
fn has_right_sum(header: &Block) -> bool {
    let counted = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
    let bytes = || header.iter().enumerate().map(|(at, byte)| counted(at, *byte));
    let unsigned: u64 = bytes().map(u64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    number(&header[148..156]).is_some_and(|sum| sum == unsigned || i64::try_from(sum) == Ok(signed))
}

/// A number in octal digits, or in base 256 where the first bit is set.
fn number(field: &[u8]) -> Option<u64> {
    let (first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Numbers below zero are no sizes, those above 64 bits no sizes of ours.
        return rest.iter().try_fold(u64::from(first & 0x7F), |number, byte| {
            number.checked_mul(256).and_then(|number| number.checked_add(u64::from(*byte)))
        });
    }
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if text.is_empty() { Some(0) } else { u64::from_str_radix(text, 8).ok() }
}

fn pass_sparse_map<R: Read + Seek>(reader: &mut R, mut at: u64, size: u64, header: &Block) -> Checked<u64> {
    let mut goes_on = header[SPARSE_BEGINS] != 0;
    while goes_on {
        goes_on = block(reader, at, size)?[SPARSE_GOES_ON] != 0;
        at += BLOCK;
    }
    Ok(at)
}

/// The `size` record of the pax header whose `length` bytes begin at `at`.
fn pax_size<R: Read + Seek>(reader: &mut R, at: u64, length: u64) -> Checked<Option<u64>> {
    let mut records = Vec::new();
    reader.seek(std::io::SeekFrom::Start(at)).map_err(super::Broken::Unreadable)?;
    reader.by_ref().take(length.min(PAX_MAX)).read_to_end(&mut records).map_err(super::Broken::Unreadable)?;
    let mut size = None;
    // Each record is `<its own length> <key>=<value>\n`.
    let mut rest = records.as_slice();
    while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
        let said = std::str::from_utf8(&rest[..space]).ok().and_then(|text| text.parse::<usize>().ok());
        let Some(record) = said.and_then(|length| rest.get(space + 1..length)) else { break };
        if let Some(value) = record.strip_prefix(b"size=") {
            size = std::str::from_utf8(value).ok().and_then(|text| text.trim_end().parse().ok());
        }
        rest = &rest[space + 1 + record.len()..];
    }
    Ok(size)
}
