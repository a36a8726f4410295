//! Moving bytes: opening, hashing, copying, cloning, and temporaries that leave no trace.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::Digest;

/// Large enough that BLAKE3 hashes many chunks at once, small enough to stay in the cache.
const BUFFER: usize = 256 * 1024;

/// Opens what is to be captured; never waits for the other end of a FIFO.
pub(super) fn open_source(path: &Path, follow: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let last = if follow { 0 } else { libc::O_NOFOLLOW };
        options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | last);
    }
    #[cfg(not(unix))]
    let _ = follow;
    options.open(path)
}

/// Whether `open_source` failed because a symlink stands there.
pub(super) fn is_symlink_met(error: &io::Error) -> bool {
    #[cfg(unix)]
    return error.raw_os_error() == Some(libc::ELOOP);
    #[cfg(not(unix))]
    return false;
}

/// The digest of all that can be read from `file`, from the beginning.
pub(super) fn hash(file: &File) -> io::Result<Digest> {
    copy(file, io::sink(), u64::MAX).map(|(digest, _)| digest)
}

/// Copies `from`, from its beginning and at most `max` bytes of it, and gives digest and number of what was written.
pub(super) fn copy(from: &File, mut to: impl Write, max: u64) -> io::Result<(Digest, u64)> {
    use std::io::Seek;

    let mut from = from;
    from.rewind()?;
    let mut from = from.take(max);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    let mut size = 0;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) => return Ok((Digest(*hasher.finalize().as_bytes()), size)),
            Ok(read) => read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        hasher.update(&buffer[..read]);
        to.write_all(&buffer[..read])?;
        size += read as u64;
    }
}

/// Makes `to` share the bytes of `from`; whether the file system can do that.
#[cfg(target_os = "linux")]
pub(super) fn clone(from: &File, to: &File) -> bool {
    rustix::fs::ioctl_ficlone(to, from).is_ok()
}

/// Only Linux clones into an open file.
#[cfg(not(target_os = "linux"))]
pub(super) fn clone(_from: &File, _to: &File) -> bool {
    false
}

/// The mode of what is stored: readable for all who can get here, writable for nobody. A deployer must not change what others
/// rely on.
#[cfg(unix)]
const STORED_MODE: u32 = 0o444;

/// Gives the file that mode.
pub(super) fn make_read_only(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    let permissions = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(STORED_MODE);
    #[cfg(not(unix))]
    let permissions = {
        let mut permissions = file.metadata()?.permissions();
        permissions.set_readonly(true);
        permissions
    };
    file.set_permissions(permissions)
}

/// Makes a file of that mode, less what the process masks, which only this handle can write to.
#[cfg(unix)]
pub(super) fn create_read_only(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new().write(true).create_new(true).mode(STORED_MODE).open(path)
}

/// Not in one step here.
#[cfg(not(unix))]
pub(super) fn create_read_only(_path: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Makes a file at `path`, and tells whether it has less than that mode.
pub(super) fn is_masked(path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let file = create_read_only(path)?;
        file.metadata().map(|made| made.mode() & 0o777 != STORED_MODE)
    }
    #[cfg(not(unix))]
    File::create_new(path).map(|_| false)
}

/// A file under construction, removed unless it is renamed.
pub(super) struct Temp {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Whether the file still has this name.
    is_named: bool,
}

impl Temp {
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let file = options.open(&path)?;
        Ok(Self::given(path, file))
    }

    /// A file that is there already, and is ours.
    pub(super) fn given(path: PathBuf, file: File) -> Self {
        Self { path, file, is_named: true }
    }

    /// Gives it the name `to`, whoever has that.
    pub(super) fn rename(&mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.is_named = false;
        Ok(())
    }

    /// Gives it the name `to`. An error of the kind `AlreadyExists` says that somebody has that, and any other may say only
    /// that this cannot be done in one step here.
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    pub(super) fn rename_to_new(&mut self, to: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};

        renameat_with(CWD, &self.path, CWD, to, RenameFlags::NOREPLACE)?;
        self.is_named = false;
        Ok(())
    }

    /// There is no such step here.
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    pub(super) fn rename_to_new(&mut self, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if self.is_named {
            // Nothing can be done if it stays; the next start sweeps it away.
            let _ = fs::remove_file(&self.path);
        }
    }
}
