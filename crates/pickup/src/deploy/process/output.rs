//! What a program prints: a file that it appends to and we read, so that it neither waits for us nor dies with us.
//!
//! A pipe would kill the program that writes to it after we are gone, or block it. What was read is punched out of the
//! file, so that it holds only what was not read yet, however long the program runs.
#![expect(clippy::disallowed_methods, reason = "this is the door to the output of programs")]

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, inotify};
use tokio::io::unix::AsyncFd;

use super::spawn;
use crate::error::{Error, IoContext, Result};

/// Longer lines are cut into several.
const LINE_MAX: usize = 8 << 10;

/// How much is read before what was read is given back to the disk.
const PUNCH: u64 = 1 << 20;

/// The file for a program to append to.
pub(super) fn create(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.create(true).append(true).mode(0o600).open(path).doing("create", path)
}

/// Reads what a program appends, line by line.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    path: PathBuf,
    /// Tells of every write.
    changes: AsyncFd<OwnedFd>,
    offset: u64,
    punched: u64,
    /// The start of a line that is not complete.
    partial: Vec<u8>,
}

impl Output {
    /// Reads from `offset` on.
    pub(super) fn open(path: &Path, offset: u64) -> Result<Self> {
        let file = File::options().read(true).write(true).open(path).doing("open", path)?;
        let watch = || -> std::io::Result<AsyncFd<OwnedFd>> {
            let watcher = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
            inotify::add_watch(&watcher, path, inotify::WatchFlags::MODIFY)?;
            spawn::watched(watcher)
        };
        let changes = watch().map_err(|error| Error::io("watch", path, error))?;
        Ok(Self { file, path: path.to_path_buf(), changes, offset, punched: 0, partial: Vec::new() })
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset - self.partial.len() as u64
    }

    /// Waits until something was written. Cancelling it loses nothing.
    pub(super) async fn changed(&self) -> std::io::Result<()> {
        loop {
            let mut ready = self.changes.readable().await?;
            let heard = ready.try_io(|watcher| {
                let mut buffer = [MaybeUninit::uninit(); 1024];
                let mut events = inotify::Reader::new(watcher.get_ref(), &mut buffer);
                Ok(events.next().map(drop)?)
            });
            if let Ok(heard) = heard {
                return heard;
            }
        }
    }

    /// The complete lines that were written since the last time; at the end of the program, the rest as well. At most so
    /// much is read at once that other work gets its turn: then more is `true`.
    pub(super) fn lines(&mut self, is_end: bool) -> (Vec<String>, bool) {
        let (mut lines, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        let count = match self.file.read_at(&mut buffer, self.offset) {
            Ok(count) => count,
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "cannot read the output of a program");
                0
            }
        };
        self.offset += count as u64;
        self.partial.extend_from_slice(&buffer[..count]);
        let mut rest = self.partial.as_slice();
        loop {
            let end = rest.iter().take(LINE_MAX).position(|byte| *byte == b'\n');
            let (line, after) = match end {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None if rest.len() >= LINE_MAX => rest.split_at(LINE_MAX),
                None => break,
            };
            lines.push(String::from_utf8_lossy(line).into_owned());
            rest = after;
        }
        self.partial = rest.to_vec();
        let has_more = count == buffer.len();
        if is_end && !has_more && !self.partial.is_empty() {
            lines.push(String::from_utf8_lossy(&std::mem::take(&mut self.partial)).into_owned());
        }
        self.give_back();
        (lines, has_more)
    }

    /// Gives what was read back to the disk; the file keeps its length, and the program its place in it.
    fn give_back(&mut self) {
        let read = self.offset() & !4095;
        if read - self.punched >= PUNCH {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Where a file system cannot, the file grows until the program is restarted.
            let _unsupported = rustix::fs::fallocate(&self.file, flags, self.punched, read - self.punched);
            self.punched = read;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[tokio::test]
    async fn lines_come_whole_and_are_given_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        let mut writer = create(&path).unwrap();
        let mut output = Output::open(&path, 0).unwrap();
        writer.write_all(b"one\ntw").unwrap();
        output.changed().await.unwrap();
        assert_eq!(output.lines(false), (vec!["one".to_owned()], false));
        assert_eq!(output.offset(), 4);
        writer.write_all(b"o\nrest").unwrap();
        assert_eq!(output.lines(false).0, ["two"]);
        assert_eq!(output.lines(true).0, ["rest"]);
        writer.write_all(&vec![b'x'; LINE_MAX + 5]).unwrap();
        assert_eq!(output.lines(true).0.iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX, 5]);
        let line = [vec![b'y'; 1023], vec![b'\n']].concat();
        (0..4096).for_each(|_| writer.write_all(&line).unwrap());
        while output.lines(false).1 {}
        let on_disk = writer.metadata().unwrap().blocks() * 512;
        assert!(on_disk <= 2 * PUNCH, "{on_disk} bytes are still on disk");
    }
}
