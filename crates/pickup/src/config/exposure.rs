//! Who else may write to a directory, and so decides what is deployed from it.

use std::path::Path;

use super::{Config, Problem, Severity};

/// Somebody besides our user and root who may write to a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposure {
    Everybody,
    Owner(u32),
    Group(u32),
}

impl Exposure {
    /// Who that is, what it means, and the way out.
    pub(crate) fn advice(self) -> String {
        match self {
            Self::Everybody => "everybody may write to it, and so decide what is deployed: `chmod o-w` it".into(),
            Self::Owner(user) => format!(
                "user {user} owns it, and so decides what is deployed: `chown` it, or let the daemon run as that user"
            ),
            Self::Group(group) => {
                format!("group {group} may write to it, and so decide what is deployed: `chmod g-w` it, or trust them")
            }
        }
    }

    /// Whether this is nothing that a directory of our own may be.
    pub(crate) fn is_grave(self) -> bool {
        match self {
            Self::Everybody | Self::Owner(_) => true,
            Self::Group(_) => false,
        }
    }
}

/// Who else may write to the directory at `path` by its owner and mode; nobody, as far as that can be seen. Access control
/// lists are not looked at.
#[cfg(unix)]
#[expect(clippy::disallowed_methods, reason = "this is the door to the owners of configured directories")]
pub(crate) fn exposure(path: &Path) -> Option<Exposure> {
    use std::os::unix::fs::MetadataExt;

    let found = std::fs::metadata(path).ok()?;
    let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    match () {
        () if found.mode() & 0o002 != 0 => Some(Exposure::Everybody),
        () if found.uid() != user && found.uid() != 0 => Some(Exposure::Owner(found.uid())),
        // The user's own group has no other members, as a rule.
        () if found.mode() & 0o020 != 0 && found.gid() != group && found.gid() != 0 => {
            Some(Exposure::Group(found.gid()))
        }
        () => None,
    }
}

#[cfg(not(unix))]
pub(crate) fn exposure(_path: &Path) -> Option<Exposure> {
    None
}

impl Config {
    /// Directories that others than this process's user and root may write to, as they are on disk now: whoever can do that
    /// decides what is deployed. An engine warns of such a pickup directory, and does not start on such a state directory,
    /// unless it is but a group that may write there.
    pub fn exposures(&self) -> Vec<Problem> {
        let state = ("pickup", "state_dir", &self.settings.state_dir);
        let pickups = self.pickups.values().filter(|pickup| pickup.enabled);
        let pickups = pickups.flat_map(|pickup| {
            pickup.pickup_from.iter().map(|directory| (pickup.name.as_str(), "pickup_from", directory))
        });
        let judged = |(section, key, path): (&str, &str, &std::path::PathBuf)| {
            let found = exposure(path)?;
            let severity = if key == "state_dir" && found.is_grave() { Severity::Error } else { Severity::Warning };
            Some(Problem {
                severity,
                file: self.file.clone(),
                line: 1,
                column: 1,
                section: section.to_owned(),
                key: Some(key.to_owned()),
                message: format!("{}: {}", path.display(), found.advice()),
                nearest: None,
            })
        };
        std::iter::once(state).chain(pickups).filter_map(judged).collect()
    }
}

#[cfg(all(test, unix))]
#[expect(clippy::disallowed_methods, reason = "the tests change who may write")]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::PickupConfig;

    #[test]
    fn who_else_may_write_is_named_with_the_way_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(exposure(path), None);
        assert_eq!(exposure(&path.join("missing")), None);
        set_permissions(path, Permissions::from_mode(0o775)).unwrap();
        assert_eq!(exposure(path), None, "a group of our own");
        set_permissions(path, Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(exposure(path), Some(Exposure::Everybody));
        let config = Config::default().state_dir(path).pickup(PickupConfig::new("p", path));
        let found = config.exposures();
        let severities: Vec<_> = found.iter().map(|problem| (problem.section.as_str(), problem.severity)).collect();
        assert_eq!(severities, [("pickup", Severity::Error), ("p", Severity::Warning)]);
        assert!(found[1].message.contains("chmod o-w"), "{}", found[1]);
        if rustix::process::geteuid().is_root() {
            set_permissions(path, Permissions::from_mode(0o775)).unwrap();
            std::os::unix::fs::chown(path, None, Some(4242)).unwrap();
            assert_eq!(exposure(path), Some(Exposure::Group(4242)));
            std::os::unix::fs::chown(path, Some(4242), None).unwrap();
            assert_eq!(exposure(path), Some(Exposure::Owner(4242)));
        }
    }
}
