//! Whether an archive or a program file is whole, told from its bytes.
//!
//! Lengths and offsets in a file are claims of whoever wrote it: they are compared with what is there, and nothing is
//! allocated or read by them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use super::Shape;

mod elf;
#[cfg(fuzzing)]
pub(crate) mod fuzzing;
mod gzip;
mod tar;
#[cfg(test)]
mod tests;
mod xz;
mod zip;

/// Says whether the open `file` of `size` bytes is whole by the format that its `name` or its first bytes tell.
///
/// # Errors
/// It cannot be read.
pub(crate) fn shape(file: &File, name: &OsStr, size: u64) -> io::Result<Shape> {
    shape_of(&mut { file }, name, size)
}

/// [`shape`] for anything that can be read and sought in.
pub(crate) fn shape_of<R: Read + Seek>(reader: &mut R, name: &OsStr, size: u64) -> io::Result<Shape> {
    let format = Format::of_name(name);
    let judged = match format {
        Some(format) if size == 0 => Err(cut(format, "the file is empty")),
        Some(Format::Zip) => zip::check(reader, size),
        Some(Format::Gzip) => gzip::check(reader, size),
        Some(Format::Tar) => tar::check(reader, size),
        Some(Format::Xz) => xz::check(reader, size),
        Some(Format::Elf) | None => elf::check(reader, size),
    };
    match judged {
        Ok(()) => Ok(Shape::Whole),
        Err(Broken::Cut(why)) => Ok(Shape::Partial(why)),
        Err(Broken::Unreadable(e)) => Err(e),
    }
}

#[derive(Clone, Copy)]
enum Format {
    Zip,
    Gzip,
    Tar,
    Xz,
    /// Told by magic; the name only says that an empty one is not whole.
    Elf,
}

impl Format {
    fn of_name(name: &OsStr) -> Option<Self> {
        let name = name.to_string_lossy().to_ascii_lowercase();
        let (_, extension) = name.rsplit_once('.')?;
        Some(match extension {
            // Java, Python, Android, browsers, editors, .NET, offices, books: all of them zip files.
            "zip" | "jar" | "war" | "ear" | "par" | "sar" | "car" | "dar" | "hpi" | "jpi" | "nar" | "whl" | "egg"
            | "pyz" | "apk" | "aar" | "aab" | "ipa" | "xpi" | "vsix" | "nupkg" | "snupkg" | "docx" | "xlsx"
            | "pptx" | "odt" | "ods" | "odp" | "epub" => Self::Zip,
            "gz" | "tgz" => Self::Gzip,
            "tar" => Self::Tar,
            "xz" | "txz" => Self::Xz,
            "so" => Self::Elf,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Zip => "zip",
            Self::Gzip => "gzip",
            Self::Tar => "tar",
            Self::Xz => "xz",
            Self::Elf => "elf",
        }
    }
}

/// Why a check did not pass.
enum Broken {
    /// The bytes are not all there; the sentence says how that shows.
    Cut(String),
    /// The bytes could not be read.
    Unreadable(io::Error),
}

type Checked<T = ()> = Result<T, Broken>;

fn cut(format: Format, why: impl std::fmt::Display) -> Broken {
    Broken::Cut(format!("{}: {why}", format.name()))
}

/// Reads `N` bytes at `offset`; bytes that are not there (any more) are `missing`.
fn bytes_at<const N: usize>(
    reader: &mut (impl Read + Seek),
    offset: u64,
    missing: impl FnOnce() -> Broken,
) -> Checked<[u8; N]> {
    let mut bytes = [0; N];
    reader.seek(SeekFrom::Start(offset)).map_err(Broken::Unreadable)?;
    match reader.read_exact(&mut bytes) {
        Ok(()) => Ok(bytes),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(missing()),
        Err(e) => Err(Broken::Unreadable(e)),
    }
}

/// The little-endian number in `bytes`, of at most eight of them.
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The big-endian number in `bytes`, of at most eight of them.
fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Whether `length` bytes from `offset` on lie within `size`.
fn fits(offset: u64, length: u64, size: u64) -> bool {
    offset.checked_add(length).is_some_and(|end| end <= size)
}
