//! Small contents that were captured a moment ago, one after the other in one file.
//!
//! A record is the digest, the length in four bytes, least first, and the content. Records are written many at a time, before
//! anybody relies on them. What a crash leaves is read again: up to the first record that is not what its digest says.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::capture::{ByDigest, Digest};

#[cfg(all(test, unix))]
mod tests;

const FILE_NAME: &str = "recent";

/// How long the file may become.
const LENGTH_MAX: u64 = 64 << 20;
/// How many contents it may hold: each is known in memory, too.
const COUNT_MAX: usize = 1 << 16;

/// More than this is read while others already work.
const READ_AT_ONCE: u64 = 64 << 10;

/// How many bytes may wait for being written with others.
const UNWRITTEN_MAX: usize = 64 << 10;

const DIGEST_LENGTH: usize = size_of::<Digest>();
const HEAD_LENGTH: usize = DIGEST_LENGTH + size_of::<u32>();

/// The file, and where in it each content is.
#[derive(Debug)]
pub(super) struct Recent {
    path: PathBuf,
    file: Option<File>,
    /// How long the file is; what is not written yet begins here.
    written: u64,
    unwritten: Vec<u8>,
    places: ByDigest<Place>,
    /// How many were ever added.
    added: u64,
    /// Whether another store may have the file by now.
    is_let_go: bool,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    length: u32,
}

impl Recent {
    /// Nothing, and nothing can be added: whatever lies in the store in `dir` stays as it is.
    pub(super) fn out_of_reach(dir: &Path) -> Self {
        Self {
            path: dir.join(FILE_NAME),
            file: None,
            written: 0,
            unwritten: Vec::new(),
            places: ByDigest::default(),
            added: 0,
            is_let_go: true,
        }
    }

    /// Takes over what lies in the store in `dir`, which is another one.
    pub(super) fn copy_from(&mut self, dir: &Path) -> io::Result<()> {
        let Some(file) = open_existing(&dir.join(FILE_NAME), false)? else { return Ok(()) };
        let bytes = read_all(&file)?;
        records(&bytes).try_for_each(|(digest, _, content)| self.add(&digest, content))?;
        self.write_out()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How long the content is, if it is here.
    pub(super) fn length(&self, digest: &Digest) -> Option<u64> {
        self.places.get(digest).map(|place| u64::from(place.length))
    }

    /// All that is here, with the length of each.
    pub(super) fn lengths(&self) -> Vec<(Digest, u64)> {
        self.places.iter().map(|(digest, place)| (*digest, u64::from(place.length))).collect()
    }

    /// All that is here.
    pub(super) fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.places.keys()
    }

    /// How many were ever added: whoever asks twice learns whether any was in between.
    pub(super) fn added(&self) -> u64 {
        self.added
    }

    /// Whether `content` may be added.
    pub(super) fn has_room(&self, content: &[u8]) -> bool {
        let end = self.end().saturating_add((HEAD_LENGTH + content.len()) as u64);
        cfg!(unix) && !self.is_let_go && end <= LENGTH_MAX && self.places.len() < COUNT_MAX
    }

    /// Adds `content`, which may be written later; if this fails, nothing was added.
    pub(super) fn add(&mut self, digest: &Digest, content: &[u8]) -> io::Result<()> {
        if self.unwritten.len() + HEAD_LENGTH + content.len() > UNWRITTEN_MAX {
            self.write_out()?;
        }
        let place = Place { offset: self.end() + HEAD_LENGTH as u64, length: content.len() as u32 };
        self.unwritten.extend_from_slice(&digest.0);
        self.unwritten.extend_from_slice(&(content.len() as u32).to_le_bytes());
        self.unwritten.extend_from_slice(content);
        self.places.insert(*digest, place);
        self.added += 1;
        Ok(())
    }

    /// Writes half of what [`write_out`](Self::write_out) does, as an error in the middle leaves it.
    pub(super) fn write_half(&mut self) -> io::Result<()> {
        let half = self.unwritten[..self.unwritten.len() / 2].to_vec();
        let written = self.written;
        write_at(self.file()?, &half, written)
    }

    /// Whether anything waits for being written.
    pub(super) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Writes what was added. If that fails, it stays in memory, and is written with what comes next.
    pub(super) fn write_out(&mut self) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        if self.is_let_go {
            return Err(io::Error::other("another store writes to it by now"));
        }
        let (unwritten, written) = (std::mem::take(&mut self.unwritten), self.written);
        let result = self.file().and_then(|file| write_at(file, &unwritten, written));
        self.unwritten = unwritten;
        result?;
        self.written = self.end();
        self.unwritten.clear();
        Ok(())
    }

    fn end(&self) -> u64 {
        self.written + self.unwritten.len() as u64
    }

    /// The content, if it is here and whole.
    pub(super) fn read(&self, digest: &Digest) -> io::Result<Option<Vec<u8>>> {
        let Some(place) = self.places.get(digest) else { return Ok(None) };
        if let Some(start) = place.offset.checked_sub(self.written) {
            let start = start as usize;
            return Ok(self.unwritten.get(start..start + place.length as usize).map(<[u8]>::to_vec));
        }
        let Some(file) = &self.file else { return Ok(None) };
        let mut content = vec![0; place.length as usize];
        match read_at(file, &mut content, place.offset) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        Ok((blake3::hash(&content).as_bytes() == &digest.0).then_some(content))
    }

    /// The content is elsewhere, or nobody needs it. Once nothing is left, the file begins anew.
    pub(super) fn forget(&mut self, digest: &Digest) {
        self.places.remove(digest);
        if self.places.is_empty() {
            self.places = ByDigest::default();
            self.unwritten = Vec::new();
            self.written = 0;
            // If it stays as it is, it is written over.
            let _ = self.file.as_ref().filter(|_| !self.is_let_go).map(|file| file.set_len(0));
        }
    }

    /// From now on the file is only read: the next store writes to it. What is not written nobody relied on.
    pub(super) fn let_go(&mut self) {
        self.is_let_go = true;
    }

    fn file(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(true);
            #[cfg(unix)]
            {
                use std::os::unix::fs::OpenOptionsExt;
                options.mode(0o600).custom_flags(libc::O_NOFOLLOW);
            }
            self.file = Some(options.open(&self.path)?);
        }
        self.file.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// What an earlier store left.
#[derive(Debug)]
pub(super) struct Unread {
    recent: Recent,
    file: Option<File>,
    length: u64,
}

impl Unread {
    /// That of the store in `dir`.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let recent = Recent { is_let_go: false, ..Recent::out_of_reach(dir) };
        let file = open_existing(&recent.path, true)?;
        let length = file.as_ref().map(File::metadata).transpose()?.map_or(0, |found| found.len());
        Ok(Self { recent, file, length })
    }

    /// Whether it takes a while to read it.
    pub(super) fn is_long(&self) -> bool {
        self.length > READ_AT_ONCE
    }

    pub(super) fn read(self) -> io::Result<Recent> {
        let Self { mut recent, file, .. } = self;
        let bytes = file.as_ref().map(read_all).transpose()?.unwrap_or_default();
        // The map would grow many times otherwise.
        recent.places.reserve(heads(&bytes).count().min(COUNT_MAX));
        for (digest, offset, content) in records(&bytes) {
            let length = content.len() as u32;
            recent.places.insert(digest, Place { offset, length });
            recent.written = offset + u64::from(length);
        }
        recent.file = file.filter(|_| !recent.places.is_empty());
        Ok(recent)
    }
}

/// Opens the file that is there, if one is.
fn open_existing(path: &Path, writes: bool) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(writes);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Nobody waits for the other end of a FIFO.
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    match options.open(path) {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Err(io::Error::other(format!("{} is not a regular file", path.display()))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LENGTH_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What the heads of records say, whether or not it is true, with the offset of each content.
fn heads(bytes: &[u8]) -> impl Iterator<Item = (Digest, usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (digest, rest) = bytes.get(at..)?.split_first_chunk::<DIGEST_LENGTH>()?;
        let (length, rest) = rest.split_first_chunk()?;
        let content = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let offset = at + HEAD_LENGTH;
        at = offset + content.len();
        Some((Digest(*digest), offset, content))
    })
}

/// The records that are whole, with the offset of each content.
fn records(bytes: &[u8]) -> impl Iterator<Item = (Digest, u64, &[u8])> {
    let is_whole = |(digest, _, content): &(Digest, usize, &[u8])| blake3::hash(content).as_bytes() == &digest.0;
    heads(bytes).take_while(is_whole).map(|(digest, offset, content)| (digest, offset as u64, content))
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

/// Nothing is ever added here.
#[cfg(not(unix))]
fn write_at(_file: &File, _bytes: &[u8], _offset: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
fn read_at(_file: &File, _bytes: &mut [u8], _offset: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
