//! What a directory holds, as the system tells it.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use super::name::Names;
use super::{Entry, EntryKind, Listing};
use crate::source::Fingerprint;

/// A listing while it is made.
#[derive(Default)]
struct Gathered {
    names: Names,
    found: Vec<(EntryKind, Option<Fingerprint>)>,
    errors: Vec<(PathBuf, io::Error)>,
}

impl Gathered {
    fn push(&mut self, name: &OsStr, kind: EntryKind, fingerprint: Option<Fingerprint>) {
        self.names.push(name);
        self.found.push((kind, fingerprint));
    }
}

/// Lists `directory`, and only that one; with the identities of its files where anything of them `is_known`.
pub(crate) fn list(directory: &Path, is_known: bool) -> Listing {
    let mut gathered = Gathered::default();
    if let Err(error) = gather(directory, is_known, &mut gathered) {
        gathered.errors.push((directory.to_owned(), error));
    }
    let Gathered { names, found, errors } = gathered;
    let all = names.into_all().zip(found);
    let mut entries: Vec<Entry> = all.map(|(name, (kind, fingerprint))| Entry { name, kind, fingerprint }).collect();
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    // A name that is renamed while its directory is read may come twice.
    entries.dedup_by(|a, b| a.name == b.name);
    Listing { entries, errors }
}

/// Without an allocation for each entry.
#[cfg(target_os = "linux")]
fn gather(directory: &Path, is_known: bool, gathered: &mut Gathered) -> io::Result<()> {
    use std::mem::MaybeUninit;
    use std::os::unix::ffi::OsStrExt;

    use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat, open, statat};

    let kind_of = |kind: FileType| match kind {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        _ => EntryKind::Other,
    };
    let opened = open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = [const { MaybeUninit::uninit() }; 32 << 10];
    let mut entries = RawDir::new(&opened, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let (name, listed) = (entry.file_name(), entry.file_type());
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        // Not every file system tells the kind.
        let is_asked = listed == FileType::Unknown || listed == FileType::RegularFile && is_known;
        let stat: Option<Stat> = match is_asked.then(|| statat(&opened, name, AtFlags::SYMLINK_NOFOLLOW)) {
            Some(Err(error)) if listed == FileType::Unknown => {
                gathered.errors.push((directory.join(OsStr::from_bytes(name.to_bytes())), error.into()));
                continue;
            }
            asked => asked.and_then(Result::ok),
        };
        let kind = match &stat {
            Some(stat) if listed == FileType::Unknown => FileType::from_raw_mode(stat.st_mode),
            Some(_) | None => listed,
        };
        let is_file = |stat: &&Stat| is_known && FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        let fingerprint = stat.as_ref().filter(is_file).map(Fingerprint::of_stat);
        gathered.push(OsStr::from_bytes(name.to_bytes()), kind_of(kind), fingerprint);
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn gather(directory: &Path, is_known: bool, gathered: &mut Gathered) -> io::Result<()> {
    for entry in directory.read_dir()? {
        let entry = entry?;
        let kind = match entry.file_type() {
            Ok(kind) if kind.is_file() => EntryKind::File,
            Ok(kind) if kind.is_dir() => EntryKind::Directory,
            Ok(kind) if kind.is_symlink() => EntryKind::Symlink,
            Ok(_) => EntryKind::Other,
            Err(error) => {
                gathered.errors.push((entry.path(), error));
                continue;
            }
        };
        let metadata = if kind == EntryKind::File && is_known { entry.metadata().ok() } else { None };
        let fingerprint = metadata.filter(std::fs::Metadata::is_file).map(|metadata| Fingerprint::of(&metadata));
        gathered.push(&entry.file_name(), kind, fingerprint);
    }
    Ok(())
}
