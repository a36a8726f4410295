//! `user = "user:group"`: who that is, by `/etc/passwd` and `/etc/group`.
#![expect(clippy::disallowed_methods, reason = "users and groups are looked up in the system's files")]

use super::spawn::Ids;
use crate::deploy::copy::owner::Owner;
use crate::error::{Error, ErrorKind, Result};

/// The user a program runs as, and what it expects to find in its environment.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) ids: Ids,
    pub(super) name: String,
    pub(super) home: String,
}

impl User {
    /// Looks up `user` or `user:group`. A number that no file names is taken as it is, with the same number as its group.
    pub(super) fn look_up(text: &str) -> Result<Self> {
        let owner = Owner::look_up(text)?;
        let none = || Error::new(ErrorKind::Config, format!("run as {text:?}: it names no user"));
        let user = owner.user.ok_or_else(none)?;
        let passwd = std::fs::read("/etc/passwd").unwrap_or_default();
        let groups = std::fs::read("/etc/group").unwrap_or_default();
        let row = row(&String::from_utf8_lossy(&passwd), user);
        let (name, primary, home) = row.unwrap_or_else(|| (user.to_string(), user, "/".into()));
        let group = owner.group.unwrap_or(primary);
        let mut all = memberships(&String::from_utf8_lossy(&groups), &name);
        all.insert(0, group);
        all.dedup();
        Ok(Self { ids: Ids { user, group, groups: all }, name, home })
    }
}

/// Name, primary group and home of the user with this number.
fn row(passwd: &str, user: u32) -> Option<(String, u32, String)> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let is_it = fields.get(2)?.parse() == Ok(user);
        is_it.then(|| Some((fields[0].to_owned(), fields.get(3)?.parse().ok()?, (*fields.get(5)?).to_owned())))?
    })
}

/// The groups that list the user.
fn memberships(groups: &str, user: &str) -> Vec<u32> {
    let rows = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let lists = |fields: &Vec<&str>| fields.get(3).is_some_and(|members| members.split(',').any(|name| name == user));
    rows.filter(lists).filter_map(|fields| fields.get(2)?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_home_and_groups() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:100:,:/srv/web:/bin/false\nbroken\n";
        assert_eq!(row(passwd, 1000), Some(("web".into(), 100, "/srv/web".into())));
        assert_eq!(row(passwd, 7), None);
        assert_eq!(memberships("a:x:5:web,x\nb:x:6:\nc:x:7:x,web\n", "web"), [5, 7]);
        assert_eq!(User::look_up("root").unwrap().ids.user, 0);
        assert!(User::look_up("nobody-of-that-name").is_err());
    }
}
