//! Gzip: members one after the other, each with a checksum at its end.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use flate2::bufread::GzDecoder;

use super::{Broken, Checked, Format, cut};

/// Inflating costs a second per GiB or so. Beyond this the check ends, and the other signals must do.
const INFLATED_MAX: u64 = 4 << 30;

pub(super) fn check<R: Read + Seek>(reader: &mut R, size: u64) -> Checked {
    reader.seek(SeekFrom::Start(0)).map_err(Broken::Unreadable)?;
    let mut rest = BufReader::with_capacity(64 * 1024, reader.take(size));
    let mut inflated = 0;
    loop {
        inflated += inflate_member(&mut rest, INFLATED_MAX - inflated)?;
        if inflated >= INFLATED_MAX {
            return Ok(());
        }
        match rest.fill_buf().map_err(broken)?.first() {
            None => return Ok(()),
            Some(0) => return check_padding(rest),
            Some(_) => {}
        }
    }
}

/// Reads one member to its end and gives its length.
fn inflate_member(rest: &mut impl BufRead, max: u64) -> Checked<u64> {
    io::copy(&mut GzDecoder::new(rest).take(max), &mut io::sink()).map_err(broken)
}

/// gzip passes over zeros after the last member: tapes and block devices leave them.
fn check_padding(mut rest: impl BufRead) -> Checked {
    loop {
        let buffer = rest.fill_buf().map_err(broken)?;
        if buffer.iter().any(|byte| *byte != 0) {
            return Err(cut(Format::Gzip, "zeros stand where a member should begin"));
        }
        match buffer.len() {
            0 => return Ok(()),
            length => rest.consume(length),
        }
    }
}

fn broken(error: io::Error) -> Broken {
    if error.raw_os_error().is_some() {
        Broken::Unreadable(error)
    } else if error.kind() == io::ErrorKind::UnexpectedEof {
        cut(Format::Gzip, "the compressed data is cut off")
    } else {
        cut(Format::Gzip, error)
    }
}
