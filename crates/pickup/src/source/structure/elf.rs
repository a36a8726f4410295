//! ELF programs and libraries: every segment and the section table must lie inside the file.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::{Broken, Checked, Format, bytes_at, cut, fits};

const MAGIC: &[u8] = b"\x7fELF";
/// `e_phnum` when there are more segments than fit: the number stands in the first section header.
const MANY_SEGMENTS: u64 = 0xFFFF;

pub(super) fn check<R: Read + Seek>(reader: &mut R, size: u64) -> Checked {
    let mut start = Vec::with_capacity(MAGIC.len());
    reader.seek(SeekFrom::Start(0)).map_err(Broken::Unreadable)?;
    reader.by_ref().take(MAGIC.len() as u64).read_to_end(&mut start).map_err(Broken::Unreadable)?;
    let header_is_cut = || cut(Format::Elf, "the header is cut off");
    if start != MAGIC {
        // One to three bytes that could become the magic number are no other known format.
        return if !start.is_empty() && MAGIC.starts_with(&start) { Err(header_is_cut()) } else { Ok(()) };
    }
    let ident: [u8; 16] = bytes_at(reader, 0, header_is_cut)?;
    let layout = Layout::new(&ident).ok_or_else(|| cut(Format::Elf, "the header names neither 32 nor 64 bits"))?;
    // The longer of both headers; a 32 bit file that is shorter than that holds nothing.
    let header: [u8; 64] = bytes_at(reader, 0, header_is_cut)?;
    let field = |offsets: (usize, usize), width| layout.field(&header, offsets, width);
    let table = Tables {
        segments: layout.word(&header, (28, 32)),
        segment_length: field((42, 54), 2),
        segment_count: field((44, 56), 2),
        sections: layout.word(&header, (32, 40)),
        section_length: field((46, 58), 2),
        section_count: field((48, 60), 2),
    };
    check_tables(reader, size, layout, table)
}

/// What the header says of both tables.
struct Tables {
    segments: u64,
    segment_length: u64,
    segment_count: u64,
    sections: u64,
    section_length: u64,
    section_count: u64,
}

fn check_tables<R: Read + Seek>(reader: &mut R, size: u64, layout: Layout, mut table: Tables) -> Checked {
    let no_sections = || cut(Format::Elf, "the section header table lies beyond the end");
    if table.sections != 0 {
        if !fits(table.sections, layout.section_length(), size) {
            return Err(no_sections());
        }
        let first: [u8; 64] = match layout.is_64 {
            true => bytes_at(reader, table.sections, no_sections)?,
            false => {
                let short: [u8; 40] = bytes_at(reader, table.sections, no_sections)?;
                std::array::from_fn(|at| short.get(at).copied().unwrap_or_default())
            }
        };
        if table.section_count == 0 {
            table.section_count = layout.word(&first, (20, 32));
        }
        if table.segment_count == MANY_SEGMENTS {
            table.segment_count = layout.field(&first, (28, 44), 4);
        }
        let length = table.section_count.checked_mul(table.section_length).ok_or_else(no_sections)?;
        if !fits(table.sections, length, size) {
            return Err(no_sections());
        }
    }
    check_segments(reader, size, layout, &table)
}

fn check_segments<R: Read + Seek>(reader: &mut R, size: u64, layout: Layout, table: &Tables) -> Checked {
    let no_segments = || cut(Format::Elf, "the program header table lies beyond the end");
    let length = table.segment_count.checked_mul(table.segment_length).ok_or_else(no_segments)?;
    if length == 0 {
        return Ok(());
    }
    if !fits(table.segments, length, size) || table.segment_length < layout.segment_length() {
        return Err(no_segments());
    }
    reader.seek(SeekFrom::Start(table.segments)).map_err(Broken::Unreadable)?;
    let mut entries = BufReader::new(reader.take(length));
    let mut entry = [0; 56];
    let (used, passed) = (layout.segment_length(), table.segment_length - layout.segment_length());
    for number in 0..table.segment_count {
        entries.read_exact(&mut entry[..used as usize]).map_err(|_| no_segments())?;
        io::copy(&mut entries.by_ref().take(passed), &mut io::sink()).map_err(|_| no_segments())?;
        let (offset, held) = (layout.word(&entry, (4, 8)), layout.word(&entry, (16, 32)));
        if !fits(offset, held, size) {
            return Err(cut(Format::Elf, format_args!("segment {number} lies beyond the end")));
        }
    }
    Ok(())
}

/// How the numbers in this file are written.
#[derive(Clone, Copy)]
struct Layout {
    is_64: bool,
    is_little: bool,
}

impl Layout {
    fn new(ident: &[u8; 16]) -> Option<Self> {
        let is_64 = match ident[4] {
            1 => false,
            2 => true,
            _ => return None,
        };
        let is_little = match ident[5] {
            1 => true,
            2 => false,
            _ => return None,
        };
        Some(Self { is_64, is_little })
    }

    fn segment_length(self) -> u64 {
        if self.is_64 { 56 } else { 32 }
    }

    fn section_length(self) -> u64 {
        if self.is_64 { 64 } else { 40 }
    }

    /// The number of `width` bytes at the offset for this class: (32 bit, 64 bit).
    fn field(self, bytes: &[u8], offsets: (usize, usize), width: usize) -> u64 {
        let at = if self.is_64 { offsets.1 } else { offsets.0 };
        let bytes = bytes.get(at..at + width).unwrap_or_default();
        if self.is_little { super::little(bytes) } else { super::big(bytes) }
    }

    /// An address, offset or size: as wide as the class.
    fn word(self, bytes: &[u8], offsets: (usize, usize)) -> u64 {
        self.field(bytes, offsets, if self.is_64 { 8 } else { 4 })
    }
}
