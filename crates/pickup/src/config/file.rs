//! The configuration file, read whole: never while somebody is in the middle of writing it.
#![expect(clippy::disallowed_methods, reason = "this is the door to the configuration file")]

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::Config;
use super::document::Lines;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::lease::{Lease, Writer};

/// No configuration is larger; whatever is, was named by mistake.
const FILE_MAX: u64 = 1 << 20;

/// How long somebody who is writing the file is waited for.
const WRITER_MAX: Duration = Duration::from_secs(2);

/// How often a file that is being written is looked at.
const WRITER_LOOK: Duration = Duration::from_millis(10);

impl Config {
    /// The text of the file at `path`, for [`parse`](Self::parse). Whoever is writing it is waited for, for two seconds:
    /// half a configuration would end what the other half asks for.
    ///
    /// # Errors
    /// If the file cannot be read, is no regular file, larger than 1 MiB or not UTF-8, or if it is still being written.
    pub fn read(path: &Path) -> Result<String> {
        // On a thread of its own: whoever asks for writers can take a signal no more.
        let read = thread::scope(|scope| scope.spawn(|| read_whole(path, WRITER_MAX)).join());
        let bytes = read.map_err(|_| refuse("read configuration: its reader panicked:", path))??;
        String::from_utf8(bytes).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let good = String::from_utf8_lossy(error.as_bytes().get(..good).unwrap_or_default()).into_owned();
            let at = Lines::new(&good).position(good.len());
            let place = format!("{}:{}:{}", path.display(), at.line, at.column);
            Error::new(ErrorKind::Config, format!("use configuration: {place}: error: the file is not UTF-8"))
        })
    }
}

fn refuse(action: &str, path: &Path) -> Error {
    Error::new(ErrorKind::Config, action).at(path)
}

fn read_whole(path: &Path, writer_max: Duration) -> Result<Vec<u8>> {
    let lease = Lease::on_this_thread().doing("look for writers of configuration", path)?;
    let start = Instant::now();
    loop {
        // A pipe would be waited for as long as nobody writes into it.
        if !std::fs::metadata(path).doing("read configuration", path)?.is_file() {
            return Err(refuse("read configuration that is no regular file:", path));
        }
        let mut file = File::open(path).doing("read configuration", path)?;
        if let Some(bytes) = unless_written(&mut file, &lease).doing("read configuration", path)? {
            if bytes.len() as u64 > FILE_MAX {
                return Err(refuse("read configuration of more than 1 MiB:", path));
            }
            return Ok(bytes);
        }
        if start.elapsed() >= writer_max {
            return Err(refuse("read configuration that somebody has open for writing; save and close it:", path));
        }
        thread::sleep(WRITER_LOOK);
    }
}

/// What is in the file, unless somebody has it open for writing or has changed it meanwhile.
fn unless_written(file: &mut File, lease: &Lease) -> io::Result<Option<Vec<u8>>> {
    let before = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    let is_same =
        is_same(&before, &file.metadata()?) && (bytes.len() as u64 == before.len() || before.len() > FILE_MAX);
    // Asked last: who has not opened it by now has not changed what was read.
    Ok((is_same && lease.writer_of(file) != Writer::Somebody).then_some(bytes))
}

fn is_same(before: &Metadata, after: &Metadata) -> bool {
    let modified = |metadata: &Metadata| metadata.modified().ok();
    before.len() == after.len() && modified(before) == modified(after)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::Write;
    use std::mem::MaybeUninit;

    use rustix::fs::inotify::{CreateFlags, Reader, WatchFlags, add_watch, init};

    use super::*;

    #[test]
    fn whoever_writes_the_file_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pickup.conf");
        let mut writer = File::create(&path).unwrap();
        writer.write_all(b"half, ").unwrap();
        let refused = read_whole(&path, Duration::ZERO).unwrap_err().to_string();
        assert!(refused.contains("somebody has open for writing"), "{refused}");
        let looks = init(CreateFlags::CLOEXEC).unwrap();
        add_watch(&looks, &path, WatchFlags::CLOSE_NOWRITE).unwrap();
        thread::scope(|scope| {
            let read = scope.spawn(|| read_whole(&path, Duration::from_secs(600)));
            // The first look is over.
            Reader::new(&looks, &mut [MaybeUninit::uninit(); 512]).next().unwrap();
            writer.write_all(b"and the other").unwrap();
            drop(writer);
            assert_eq!(read.join().unwrap().unwrap(), b"half, and the other");
        });
    }
}
