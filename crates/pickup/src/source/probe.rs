//! One look at one path: `lstat`, symlink policy, read lease, structure.
#![expect(clippy::disallowed_methods, reason = "this is the door to the files in pickup directories")]

use std::cell::RefCell;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Cursor, Read as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::opened::Opened;
use super::structure;
use super::{Fingerprint, Hint, Place, Shape, Sight, Writer};
use crate::config::Symlinks;
use crate::lease::{self, Lease};

#[cfg(all(test, unix))]
mod tests;

/// A path that changes each time it is looked at is reported as being written to after so many looks.
const LOOKS_MAX: usize = 3;

/// Files up to this size are read while they are looked at.
const READ_MAX: u64 = 64 * 1024;

/// Looks at paths, on the thread that it was made on.
#[derive(Debug)]
pub(crate) struct Probe {
    lease: Lease,
    /// What the next small file is read into.
    spare: RefCell<Vec<u8>>,
}

/// A small file that was read while it was looked at: it is not to be opened and read once more.
#[derive(Debug)]
pub(crate) struct Read {
    /// All of it. The file was the same before and after it was read.
    pub content: Vec<u8>,
    /// The file; `None` if it was held while it was read, and nobody can have changed it.
    pub file: Option<File>,
}

/// A regular file that was seen a moment ago.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Glimpse<'a> {
    /// Its identity, if that was asked for.
    pub fingerprint: Option<&'a Fingerprint>,
    /// The directory that it is in, if that is open.
    pub directory: Option<&'a Opened>,
    /// Whether the rules took it then.
    pub is_taken: bool,
    /// Whether nothing was known then at or below the directory that was listed.
    pub is_new: bool,
}

/// What is known of a name before it is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Before<'a> {
    /// What was seen there a moment ago.
    pub glimpse: Option<Glimpse<'a>>,
    /// What was captured there.
    pub known: Option<&'a Fingerprint>,
    /// What was judged there for good, and what it lacks: to find that out may have taken seconds.
    pub partial: Option<(&'a Fingerprint, &'a str)>,
}

/// What one attempt at a look gave.
enum Attempt {
    Seen(Sight, Option<Read>),
    /// The content changed while it was judged; what was seen of it.
    Changed(Sight),
    /// Another file took the name.
    Replaced,
}

impl Probe {
    /// # Errors
    /// The calling thread cannot be made safe for lease probes.
    pub(crate) fn on_this_thread() -> io::Result<Self> {
        Lease::on_this_thread().map(|lease| Self { lease, spare: RefCell::default() })
    }

    /// Takes back what a file was read into: where many are looked at, to ask for room anew each time takes longer than to fill it.
    pub(crate) fn reuse(&self, read: Read) {
        self.spare.replace(read.content);
    }

    /// Whether somebody has the file at `path` open for writing. Never waits, whatever lies there.
    pub(crate) fn writer(&self, path: &Path) -> Writer {
        open_no_follow(path).map_or(Writer::Unknown, |file| self.lease.writer_of(&file))
    }

    /// Looks at `place` below `root`, a real path. Where the fingerprint is still the one known, the structure is not
    /// judged again and passes for whole. A small file that nobody writes to comes with its bytes.
    ///
    /// A directory counts as gone: no file has that name.
    pub(crate) fn look(
        &self,
        root: &Path,
        place: &Place,
        symlinks: Symlinks,
        hint: Hint,
        before: Before<'_>,
    ) -> (Sight, Option<Read>) {
        let path = root.join(place.path.as_path());
        let mut last = Sight::Unreadable("it is replaced faster than it can be looked at".into());
        let mut glimpse = before.glimpse;
        for _ in 0..LOOKS_MAX {
            let opened = match open_regular(root, &path, symlinks, glimpse.take()) {
                Ok(opened) => opened,
                Err(sight) => return (sight, None),
            };
            let Some((file, seen)) = opened else { continue };
            match self.judge(file, &path, seen.as_ref(), hint, before) {
                Ok(Attempt::Seen(sight, read)) => return (sight, read),
                Ok(Attempt::Changed(sight)) => last = sight,
                Ok(Attempt::Replaced) => {}
                Err(e) => return (unreadable(&e), None),
            }
        }
        (last, None)
    }

    /// Judges `file`, which was opened at `path` where `seen` was just before, as far as that is known.
    fn judge(
        &self,
        file: File,
        path: &Path,
        seen: Option<&Fingerprint>,
        hint: Hint,
        Before { known, partial, .. }: Before<'_>,
    ) -> io::Result<Attempt> {
        let asked = Instant::now();
        let writer = self.lease.hold(&file);
        let (before, is_file) = identity(&file)?;
        let partial = partial.filter(|(judged, _)| **judged == before).map(|(_, why)| why);
        let is_other = |seen: &Fingerprint| (before.dev, before.ino) != (seen.dev, seen.ino);
        if seen.is_some_and(is_other) || !is_file {
            return Ok(Attempt::Replaced);
        }
        let sight = |fingerprint, writer, shape| Sight::File { fingerprint, hint, writer, shape };
        let name = path.file_name().filter(|_| known != Some(&before) && partial.is_none());
        let mut content = None;
        if writer == Writer::Nobody {
            // Whoever may still be waited for is not read each time.
            if name.is_some() && before.size <= READ_MAX {
                content = read_whole(&file, before.size, self.spare.take())?;
                if let (Some(name), Some(content)) =
                    (name, content.take_if(|_| lease::was_held(&file, asked, Instant::now())))
                {
                    // Whoever waits to write need not wait for the rest.
                    drop(file);
                    let shape = structure::shape_of(&mut Cursor::new(&content), name, before.size)?;
                    return Ok(Attempt::Seen(sight(before, writer, shape), Some(Read { content, file: None })));
                }
            }
            lease::release(&file);
        }
        let shape = match (writer, name, partial) {
            (Writer::Nobody | Writer::Unknown, _, Some(why)) => Shape::Partial(why.to_owned()),
            (Writer::Nobody | Writer::Unknown, Some(name), None) => match &content {
                Some(content) => structure::shape_of(&mut Cursor::new(content), name, before.size)?,
                None => structure::shape(&file, name, before.size)?,
            },
            (Writer::Nobody | Writer::Unknown | Writer::Somebody, _, _) => Shape::Whole,
        };
        let (after, _) = identity(&file)?;
        if (after.size, after.mtime) == (before.size, before.mtime) {
            let content = content.filter(|_| after == before);
            let read = content.map(|content| Read { content, file: Some(file) });
            Ok(Attempt::Seen(sight(after, writer, shape), read))
        } else {
            // What was judged is not what is there, and whoever changed it may not be done.
            Ok(Attempt::Changed(sight(after, Writer::Somebody, Shape::Whole)))
        }
    }
}

/// The identity of an open file, and whether it is a regular one.
#[cfg(target_os = "linux")]
fn identity(file: &File) -> io::Result<(Fingerprint, bool)> {
    let stat = rustix::fs::fstat(file)?;
    Ok((Fingerprint::of_stat(&stat), rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file()))
}

#[cfg(not(target_os = "linux"))]
fn identity(file: &File) -> io::Result<(Fingerprint, bool)> {
    let metadata = file.metadata()?;
    Ok((Fingerprint::of(&metadata), metadata.is_file()))
}

/// All of the file, of which nothing was read yet, in `content`, whatever that held; `None` if it has not just `size` bytes.
fn read_whole(mut file: &File, size: u64, mut content: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    // One more, so that one read tells that this is the end.
    content.resize(size + 1, 0);
    let mut filled = 0;
    while filled < size {
        match file.read(&mut content[filled..]) {
            Ok(0) => return Ok(None),
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    content.truncate(size);
    Ok((filled == size).then_some(content))
}

/// Opens the regular file at `path`, or at the end of a symlink that may be followed, without waiting and without touching
/// anything else; gives the fingerprint of what was there before the open, unless a `glimpse` had to do.
/// `None` if the path changed in between.
fn open_regular(
    root: &Path,
    path: &Path,
    symlinks: Symlinks,
    glimpse: Option<Glimpse<'_>>,
) -> Result<Option<(File, Option<Fingerprint>)>, Sight> {
    let seen = match glimpse {
        Some(glimpse) => glimpse.fingerprint.copied(),
        None => {
            let seen = path.symlink_metadata().map_err(|e| gone_or_unreadable(&e))?;
            if seen.is_symlink() {
                return open_resolved(root, path, symlinks);
            }
            check_regular(&seen)?;
            Some(Fingerprint::of(&seen))
        }
    };
    let opened = match (glimpse.and_then(|glimpse| glimpse.directory), path.file_name()) {
        (Some(directory), Some(name)) => directory.read(name),
        (_, _) => open_real(path),
    };
    match opened {
        Ok(file) => Ok(Some((file, seen))),
        // Another directory may have the name by now.
        Err(e) if glimpse.is_some() && e.kind() == io::ErrorKind::NotFound => Ok(None),
        // A directory on the way is a symlink, or the file just became one.
        Err(e) if is_loop(&e) => open_resolved(root, path, symlinks),
        Err(e) => Err(gone_or_unreadable(&e)),
    }
}

/// Opens what `path` leads to through symlinks.
fn open_resolved(root: &Path, path: &Path, symlinks: Symlinks) -> Result<Option<(File, Option<Fingerprint>)>, Sight> {
    let target = resolve(root, path, symlinks)?;
    let seen = target.symlink_metadata().map_err(|e| gone_or_unreadable(&e))?;
    if seen.is_symlink() {
        return Ok(None);
    }
    check_regular(&seen)?;
    match open_real(&target) {
        Ok(file) => Ok(Some((file, Some(Fingerprint::of(&seen))))),
        Err(e) if is_loop(&e) => Ok(None),
        Err(e) => Err(gone_or_unreadable(&e)),
    }
}

/// The real path of `path`, if the policy lets us go there.
fn resolve(root: &Path, path: &Path, symlinks: Symlinks) -> Result<PathBuf, Sight> {
    if symlinks == Symlinks::Skip {
        return Err(Sight::Refused("a symlink, and `symlinks` is `skip`".into()));
    }
    let target = path.canonicalize().map_err(|e| match e.kind() {
        _ if is_loop(&e) => Sight::Refused("a symlink that leads to itself".into()),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => match path.read_link() {
            Ok(to) => Sight::Refused(format!("a symlink that leads nowhere: {}", to.display())),
            Err(e) => gone_or_unreadable(&e),
        },
        _ => unreadable(&e),
    })?;
    if symlinks == Symlinks::Inside && !target.starts_with(root) {
        return Err(Sight::Refused(format!("a symlink that leads out of the pickup directory: {}", target.display())));
    }
    Ok(target)
}

fn check_regular(metadata: &Metadata) -> Result<(), Sight> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    if kind.is_dir() {
        return Err(Sight::Gone);
    }
    #[cfg(unix)]
    let name = {
        use std::os::unix::fs::FileTypeExt;
        match kind {
            _ if kind.is_fifo() => "a FIFO",
            _ if kind.is_socket() => "a socket",
            _ if kind.is_block_device() || kind.is_char_device() => "a device",
            _ => "no regular file",
        }
    };
    #[cfg(not(unix))]
    let name = "no regular file";
    Err(Sight::Refused(format!("{name}, not a file")))
}

fn gone_or_unreadable(error: &io::Error) -> Sight {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Sight::Gone,
        _ => unreadable(error),
    }
}

fn unreadable(error: &io::Error) -> Sight {
    Sight::Unreadable(error.to_string())
}

/// Whether a symlink was met where none may be followed, or too many of them.
fn is_loop(error: &io::Error) -> bool {
    #[cfg(unix)]
    return error.raw_os_error() == Some(libc::ELOOP);
    #[cfg(not(unix))]
    return false;
}

/// Opens for reading; no symlink anywhere on the way, where the kernel can promise that.
#[cfg(target_os = "linux")]
fn open_real(path: &Path) -> io::Result<File> {
    match open_without_symlinks(path) {
        // An old kernel, or a sandbox that does not know the call: then only the last component is guarded.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => open_no_follow(path),
        opened => opened,
    }
}

#[cfg(not(target_os = "linux"))]
fn open_real(path: &Path) -> io::Result<File> {
    open_no_follow(path)
}

/// To read a regular file, to wait for nothing, and not to follow a symlink in the last place.
#[cfg(target_os = "linux")]
pub(super) const READ_FLAGS: rustix::fs::OFlags = {
    use rustix::fs::OFlags;
    OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW).union(OFlags::NOCTTY)
};

/// Opens for reading; no symlink anywhere on the way.
#[cfg(target_os = "linux")]
fn open_without_symlinks(path: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, ResolveFlags, openat2};

    let opened = openat2(CWD, path, READ_FLAGS, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    Ok(File::from(opened))
}

pub(super) fn open_no_follow(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY);
    }
    options.open(path)
}

impl Fingerprint {
    /// The identity that `lstat` or `fstat` gave.
    #[cfg(unix)]
    pub(crate) fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;

        // Nanoseconds fit an i64 until the year 2262; a damaged time must not panic.
        let nanos = |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size: metadata.size(),
            mtime: nanos(metadata.mtime(), metadata.mtime_nsec()),
            ctime: nanos(metadata.ctime(), metadata.ctime_nsec()),
            mode: metadata.mode() & 0o7777,
        }
    }

    /// The same, asked for without the standard library.
    #[cfg(target_os = "linux")]
    pub(crate) fn of_stat(stat: &rustix::fs::Stat) -> Self {
        // How wide it is, and whether it has a sign, depends on the processor.
        fn nanos(seconds: i64, rest: impl TryInto<i64>) -> i64 {
            seconds.saturating_mul(1_000_000_000).saturating_add(rest.try_into().unwrap_or_default())
        }

        Self {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: stat.st_size.cast_unsigned(),
            mtime: nanos(stat.st_mtime, stat.st_mtime_nsec),
            ctime: nanos(stat.st_ctime, stat.st_ctime_nsec),
            mode: stat.st_mode & 0o7777,
        }
    }

    /// The identity as far as the standard library tells it.
    #[cfg(not(unix))]
    pub(crate) fn of(metadata: &Metadata) -> Self {
        let nanos = |time: io::Result<std::time::SystemTime>| {
            let since = time.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
            i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
        };
        Self {
            dev: 0,
            ino: 0,
            size: metadata.len(),
            mtime: nanos(metadata.modified()),
            ctime: nanos(metadata.created()),
            mode: if metadata.permissions().readonly() { 0o444 } else { 0o644 },
        }
    }
}
