//! Zip: a directory at the end that leads to the beginning.
//!
//! Offsets as in PKWARE's APPNOTE 6.3, sections 4.3.7 to 4.3.16.

use std::io::{Read, Seek, SeekFrom};

use super::{Broken, Checked, Format, bytes_at, cut, fits, little};

const END: &[u8] = b"PK\x05\x06";
const END_LENGTH: u64 = 22;
const END_64: &[u8] = b"PK\x06\x06";
const END_64_LENGTH: u64 = 56;
const LOCATOR_64: &[u8] = b"PK\x06\x07";
const LOCATOR_64_LENGTH: u64 = 20;
const DIRECTORY: &[u8] = b"PK\x01\x02";
const DIRECTORY_LENGTH: u64 = 46;
const LOCAL: &[u8] = b"PK\x03\x04";
const LOCAL_LENGTH: u64 = 30;
/// The end record is followed by a comment of up to 65,535 bytes.
const SEARCHED: u64 = END_LENGTH + 0xFFFF;

pub(super) fn check<R: Read + Seek>(reader: &mut R, size: u64) -> Checked {
    let start = size.saturating_sub(SEARCHED);
    let mut tail = Vec::with_capacity(SEARCHED as usize);
    reader.seek(SeekFrom::Start(start)).map_err(Broken::Unreadable)?;
    reader.by_ref().take(SEARCHED.min(size)).read_to_end(&mut tail).map_err(Broken::Unreadable)?;
    let mut why = cut(Format::Zip, "no end-of-central-directory record");
    let last = tail.len().saturating_sub(END_LENGTH as usize - 1);
    // The bytes of the signature may also stand in the comment or in a file, so one that leads nowhere is no verdict.
    for at in (0..last).rev().filter(|at| tail[*at..].starts_with(END)) {
        match check_end(reader, start + at as u64, &tail[at..at + END_LENGTH as usize], size) {
            Err(Broken::Cut(reason)) => why = Broken::Cut(reason),
            done => return done,
        }
    }
    Err(why)
}

/// Where the central directory is said to be.
struct Directory {
    entries: u64,
    length: u64,
    offset: u64,
    /// Where the record that says so begins.
    said_at: u64,
}

fn check_end<R: Read + Seek>(reader: &mut R, at: u64, end: &[u8], size: u64) -> Checked {
    if !fits(at + END_LENGTH, little(&end[20..22]), size) {
        return Err(cut(Format::Zip, "the comment is cut off"));
    }
    let mut directory = Directory {
        entries: little(&end[10..12]),
        length: little(&end[12..16]),
        offset: little(&end[16..20]),
        said_at: at,
    };
    let overflows = directory.entries == 0xFFFF || directory.length == 0xFFFF_FFFF || directory.offset == 0xFFFF_FFFF;
    if overflows && let Some(larger) = zip64(reader, at)? {
        directory = larger;
    }
    let outside = || cut(Format::Zip, "the central directory does not lie inside the file");
    let begins = directory.said_at.checked_sub(directory.length).ok_or_else(outside)?;
    // A program may stand before the archive (a self-extracting one); offsets then count from the archive's own start.
    let base = begins.checked_sub(directory.offset).ok_or_else(outside)?;
    if base > 0 && bytes_at::<4>(reader, 0, outside)? == LOCAL {
        // It is the end of an archive within this archive, whose own end is missing.
        return Err(cut(Format::Zip, "no end-of-central-directory record of its own"));
    }
    if directory.entries == 0 && directory.length == 0 {
        return Ok(());
    }
    check_first(reader, begins, base)
}

/// Whether the directory that begins at `begins` leads to a file.
fn check_first<R: Read + Seek>(reader: &mut R, begins: u64, base: u64) -> Checked {
    let no_directory = || cut(Format::Zip, "the central directory is missing");
    let entry: [u8; DIRECTORY_LENGTH as usize] = bytes_at(reader, begins, no_directory)?;
    if !entry.starts_with(DIRECTORY) {
        return Err(no_directory());
    }
    let no_file = || cut(Format::Zip, "the first file's header is missing");
    let offset = little(&entry[42..46]);
    // All ones: the offset stands in the entry's ZIP64 field, and the first file is where the archive begins.
    let offset = if offset == 0xFFFF_FFFF { 0 } else { offset };
    let header = base.checked_add(offset).filter(|header| fits(*header, LOCAL_LENGTH, begins)).ok_or_else(no_file)?;
    if bytes_at::<4>(reader, header, no_file)? == LOCAL { Ok(()) } else { Err(no_file()) }
}

/// The record that stands in for the end record's small fields, if there is one before `end`.
fn zip64<R: Read + Seek>(reader: &mut R, end: u64) -> Checked<Option<Directory>> {
    let missing = || cut(Format::Zip, "no ZIP64 end-of-central-directory record");
    let Some(locator_at) = end.checked_sub(LOCATOR_64_LENGTH) else { return Ok(None) };
    let locator: [u8; LOCATOR_64_LENGTH as usize] = bytes_at(reader, locator_at, missing)?;
    if !locator.starts_with(LOCATOR_64) {
        // 65,535 files exactly, without any ZIP64 record.
        return Ok(None);
    }
    // Where the locator says, or right before it where something stands before the archive.
    for at in [Some(little(&locator[8..16])), locator_at.checked_sub(END_64_LENGTH)].into_iter().flatten() {
        if !fits(at, END_64_LENGTH, locator_at) {
            continue;
        }
        let record: [u8; END_64_LENGTH as usize] = bytes_at(reader, at, missing)?;
        if record.starts_with(END_64) {
            return Ok(Some(Directory {
                entries: little(&record[32..40]),
                length: little(&record[40..48]),
                offset: little(&record[48..56]),
                said_at: at,
            }));
        }
    }
    Err(missing())
}
