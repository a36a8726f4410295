//! `owner = "user:group"`: names looked up in `/etc/passwd` and `/etc/group`.
#![expect(clippy::disallowed_methods, reason = "users and groups are looked up in the system's files")]

use std::fs::File;
use std::path::Path;

use rustix::fs::{Gid, Uid};

use crate::error::{Error, ErrorKind, IoContext, Result};

/// Who owns a deployed file; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::deploy) struct Owner {
    pub(in crate::deploy) user: Option<u32>,
    pub(in crate::deploy) group: Option<u32>,
}

impl Owner {
    /// Takes `user`, `user:group` or `:group`, each a name or a number.
    ///
    /// Only the local files are read: names that come from a directory service are given as numbers.
    pub(in crate::deploy) fn look_up(text: &str) -> Result<Self> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        Ok(Self { user: id(user, "user", "/etc/passwd")?, group: id(group, "group", "/etc/group")? })
    }

    pub(super) fn give(self, file: &File) -> std::io::Result<()> {
        Ok(rustix::fs::fchown(file, self.user.map(Uid::from_raw), self.group.map(Gid::from_raw))?)
    }
}

fn id(name: &str, what: &str, table: &str) -> Result<Option<u32>> {
    if name.is_empty() {
        return Ok(None);
    }
    // The largest number means "leave it" to the operating system.
    if let Some(id) = name.parse().ok().filter(|&id| id != u32::MAX) {
        return Ok(Some(id));
    }
    let bytes = std::fs::read(table).doing("read", Path::new(table))?;
    let unknown = || Error::new(ErrorKind::Config, format!("find the {what} {name:?} in")).at(table);
    find(&String::from_utf8_lossy(&bytes), name).map(Some).ok_or_else(unknown)
}

/// The number in the third field of the line whose first field is `name`.
fn find(table: &str, name: &str) -> Option<u32> {
    let mut lines = table.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_a_name_or_a_number() {
        let owner = |text| Owner::look_up(text).unwrap();
        assert_eq!(owner("root"), Owner { user: Some(0), group: None });
        assert_eq!(owner("root:0"), Owner { user: Some(0), group: Some(0) });
        assert_eq!(owner(":12345"), Owner { user: None, group: Some(12345) });
        let error = Owner::look_up("no-such-user-here").unwrap_err();
        assert_eq!(error.to_string(), "find the user \"no-such-user-here\" in /etc/passwd");
        assert!(Owner::look_up("4294967295").is_err());
    }

    #[test]
    fn a_name_matches_a_whole_field() {
        let table = "www-data:x:33:\n# note\nweb:x:1000:a,b\nbroken\n";
        assert_eq!(find(table, "web"), Some(1000));
        assert_eq!(find(table, "broken"), None);
        assert_eq!(find(table, "ww"), None);
    }
}
