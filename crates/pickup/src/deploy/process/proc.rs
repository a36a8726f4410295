//! What `/proc` says of processes: which one a number stands for, who belongs together, what they use.
#![expect(clippy::disallowed_methods, reason = "this is the door to /proc")]

use std::fs;
use std::path::PathBuf;

/// The bytes that `environ` holds for a program of ours, before its token.
pub(super) const TOKEN: &str = "PICKUP_INSTANCE";

/// How one process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) is_zombie: bool,
    pub(super) group: i32,
    /// Clock ticks of user and system time.
    pub(super) ticks: u64,
    /// When it started, in clock ticks since the boot: with the number, this is who it is.
    pub(super) started: u64,
    /// Pages that are in memory.
    pub(super) pages: u64,
}

/// Looks at the process `pid`, if there is one.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn parse(line: &str) -> Option<Stat> {
    // The name may hold anything, blanks and brackets too; it ends at the last bracket.
    let fields: Vec<&str> = line.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some(Stat {
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        group: fields.get(2)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
        started: number(19)?,
        pages: number(21)?,
    })
}

/// Tells this boot from any other.
pub(super) fn boot() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Whether the process was started by us as the instance with this token.
pub(super) fn has_token(pid: i32, token: &str) -> bool {
    let wanted = format!("{TOKEN}={token}");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
}

/// All living processes of an instance: of its group, or with its token wherever they went.
pub(super) fn members(group: i32, token: &str) -> Vec<(i32, Stat)> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let alive = pids.filter_map(|pid| Some((pid, stat(pid)?))).filter(|(_, stat)| !stat.is_zombie);
    alive.filter(|(pid, stat)| stat.group == group || has_token(*pid, token)).collect()
}

/// The number of the descriptor under which the process holds the socket with this inode.
pub(super) fn socket(pid: i32, inode: u64) -> Option<i32> {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    let mut entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let found = entries.find(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == wanted))?;
    found.file_name().to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_hides_nothing() {
        let line = "42 (a) R (b) Z 1 40 42 0 -1 4194560 0 0 0 0 7 5 0 0 20 0 1 0 12345 1000 33 18446744073709551615";
        let expected = Stat { is_zombie: true, group: 40, ticks: 12, started: 12345, pages: 33 };
        assert_eq!(parse(line), Some(expected));
        assert_eq!(parse("42 (cut"), None);
    }

    #[test]
    fn we_are_who_we_are() {
        let own = i32::try_from(std::process::id()).unwrap();
        let seen = stat(own).unwrap();
        assert_eq!(stat(own).map(|stat| stat.started), Some(seen.started));
        assert!(!seen.is_zombie && seen.pages > 0);
        assert!(!has_token(own, "1-0123"));
        assert!(!boot().is_empty());
    }
}
