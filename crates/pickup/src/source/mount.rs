//! What lies under a pickup directory: its real path, and whether its file system tells of changes.
#![expect(clippy::disallowed_methods, reason = "this is the door to mounted file systems")]

use std::path::{Path, PathBuf};

use crate::error::{IoContext, Result};

/// Whether watching a directory by events is enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Events {
    /// Every change raises an event.
    Sent,
    /// Changes made elsewhere (another host, the host of this guest) raise none. Holds the file system's name.
    NotSent(&'static str),
}

/// The absolute path of `path` with every symlink resolved.
///
/// # Errors
/// It does not exist or cannot be reached.
pub(crate) fn real_root(path: &Path) -> Result<PathBuf> {
    path.canonicalize().doing("resolve", path)
}

/// Whether the file system that holds `path` sends events for all changes.
///
/// # Errors
/// The file system cannot be asked.
#[cfg(target_os = "linux")]
pub(crate) fn filesystem_sends_events(path: &Path) -> Result<Events> {
    let found = rustix::fs::statfs(path).doing("ask for the file system of", path)?;
    // Magic numbers have 32 bits; on some targets the field is wider or signed.
    Ok(judge(found.f_type as u32))
}

/// The watcher's own backends send events for local directories everywhere else.
#[cfg(not(target_os = "linux"))]
pub(crate) fn filesystem_sends_events(_path: &Path) -> Result<Events> {
    Ok(Events::Sent)
}

/// File systems that others change behind this kernel's back, from <linux/magic.h> and the file systems' own sources.
#[cfg(target_os = "linux")]
const SILENT: &[(u32, &str)] = &[
    (0x0000_6969, "NFS"),
    (0x0000_517B, "SMB"),
    (0xFF53_4D42, "CIFS"),
    (0xFE53_4D42, "SMB2"),
    (0x0102_1997, "9P"),
    (0x6573_5546, "FUSE"), // sshfs, s3fs, and virtiofs too.
    (0x5346_414F, "AFS"),
    (0x6B41_4653, "AFS"),
    (0x00C3_6400, "Ceph"),
    (0x0BD0_0BD0, "Lustre"),
    (0x786F_4256, "vboxsf"),
    (0x7C7C_6673, "prl_fs"),
    (0xBACB_ACBC, "vmhgfs"),
    (0x7375_7245, "Coda"),
    (0x4750_4653, "GPFS"),
    (0x0116_1970, "GFS2"),
    (0x7461_636F, "OCFS2"),
];

#[cfg(target_os = "linux")]
fn judge(magic: u32) -> Events {
    SILENT.iter().find(|(known, _)| *known == magic).map_or(Events::Sent, |(_, name)| Events::NotSent(name))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_local_directory_sends_events() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(filesystem_sends_events(directory.path()).unwrap(), Events::Sent);
    }

    #[test]
    fn network_file_systems_send_none_and_are_named() {
        for (magic, name) in [(0x6969, "NFS"), (0xFE53_4D42, "SMB2"), (0x0102_1997, "9P"), (0x6573_5546, "FUSE")] {
            assert_eq!(judge(magic), Events::NotSent(name));
        }
        assert_eq!(judge(0x794C_7630), Events::Sent, "overlayfs");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let missing = Path::new("/nowhere/at/all");
        let error = filesystem_sends_events(missing).unwrap_err();
        assert_eq!(error.path(), Some(missing));
        assert!(real_root(missing).is_err());
    }
}
