//! Several writers on one pickup directory: what editors, copies, archivers and people do to files, a step at a time.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::payload::{Completed, payload, zip};
use crate::random::Random;

const DIRECTORIES: [&str; 5] = ["", "d0", "d0/d1", "d2", "d2/d3"];
const FILES: [&str; 5] = ["f0", "f1", "f2", "f3.txt", "f4"];
const ZIPS: [&str; 2] = ["z0.zip", "z1.zip"];
/// Directories that are replaced as a whole: all in them carries one version.
pub(crate) const GROUPS: [&str; 2] = ["g0", "g1"];

/// A file that a writer has open, and what is still to come.
#[derive(Debug)]
struct Open {
    file: File,
    whole: Vec<u8>,
    written: usize,
    /// Where it goes once it is closed.
    rename: Option<(PathBuf, PathBuf)>,
}

/// The pickup directory and those who write to it.
#[derive(Debug)]
pub(crate) struct World {
    root: PathBuf,
    /// On the same file system, and not watched.
    outside: PathBuf,
    writers: Vec<Option<Open>>,
    versions: u64,
    /// Whether a directory may become a file, and a file a directory.
    swaps_kinds: bool,
    completed: Arc<Completed>,
}

/// Whether the built-in list leaves a file of this name alone; of the names that are used here.
pub(crate) fn is_ignored(name: &str) -> bool {
    name.ends_with(".tmp") || name.ends_with('~') || name.ends_with(".swp") || name == "4913"
}

impl World {
    pub(crate) fn new(
        root: PathBuf,
        outside: PathBuf,
        writers: usize,
        swaps_kinds: bool,
        completed: Arc<Completed>,
    ) -> Self {
        for directory in [&root, &outside] {
            fs::create_dir_all(directory).expect("make a directory");
        }
        let writers = (0..writers).map(|_| None).collect();
        Self { root, outside, writers, versions: 0, swaps_kinds, completed }
    }

    /// One of the writers does something. What cannot be done, because another was there before, is left.
    pub(crate) fn step(&mut self, random: &mut Random) -> &'static str {
        let writer = random.below(self.writers.len());
        match self.writers[writer].take() {
            Some(open) => {
                self.writers[writer] = self.go_on(random, open);
                "write on"
            }
            None => self.begin(random, writer),
        }
    }

    fn begin(&mut self, random: &mut Random, writer: usize) -> &'static str {
        let path = self.any_file(random);
        let choice = random.below(23);
        if self.is_open(&path) && [0, 1, 2, 3, 4, 8, 9, 10].contains(&choice) {
            // Two who write into one file at once make a mess that nobody can judge.
            return "none";
        }
        match choice {
            0..=3 => self.writers[writer] = self.open(random, &path, None),
            4 => drop(self.write(random, &path)),
            5 | 6 => {
                // rsync, and every careful program.
                let temporary = beside(&path, ".", &format!("{}.tmp", self.next_version()));
                let rename = Some((temporary.clone(), path));
                self.writers[writer] = self.open(random, &temporary, rename);
            }
            7 => self.save_like_vim(random, &path),
            8 => drop(self.overwrite(random, &path)),
            9 => drop(self.append(&path)),
            10 => drop(self.truncate(random, &path)),
            11 => drop(fs::rename(&path, self.any_file(random))),
            12 => drop(fs::rename(&path, self.outside.join(self.versions.to_string()))),
            13 => self.move_in(random, &path),
            14 => drop(fs::remove_file(&path)),
            15 => drop(fs::create_dir_all(self.any_directory(random))),
            16 => self.remove_directory(random),
            17 => drop(fs::rename(self.any_directory(random), self.any_directory(random))),
            18 => self.touch_or_mode(random, &path),
            19 => self.link(random, &path),
            20 if self.swaps_kinds => self.swap_kind(random),
            20 | 21 => self.zip(random),
            _ => self.replace_group(random),
        }
        "begin"
    }

    fn any_directory(&self, random: &mut Random) -> PathBuf {
        self.root.join(random.of(&DIRECTORIES[1..]))
    }

    fn any_file(&self, random: &mut Random) -> PathBuf {
        self.root.join(random.of(&DIRECTORIES)).join(random.of(&FILES))
    }

    /// Whether a writer has the file open, by whatever name it has now.
    fn is_open(&self, path: &Path) -> bool {
        let Ok(found) = fs::metadata(path) else { return false };
        let mut open = self.writers.iter().flatten().flat_map(|open| open.file.metadata());
        open.any(|open| (open.dev(), open.ino()) == (found.dev(), found.ino()))
    }

    fn next_version(&mut self) -> u64 {
        self.versions += 1;
        self.versions
    }

    fn next_payload(&mut self, random: &mut Random) -> Vec<u8> {
        // Larger than what the store keeps in memory now and then.
        let size = *random.of(&[20, 100, 1000, 5000, 5000, 40_000, 300_000]);
        payload(self.next_version(), size)
    }

    fn open(&mut self, random: &mut Random, path: &Path, rename: Option<(PathBuf, PathBuf)>) -> Option<Open> {
        if random.percent(50) {
            path.parent().map(fs::create_dir_all);
        }
        let file = File::create(path).ok()?;
        Some(Open { file, whole: self.next_payload(random), written: 0, rename })
    }

    /// Writes the next piece; `None` once the file is closed.
    fn go_on(&self, random: &mut Random, mut open: Open) -> Option<Open> {
        let left = open.whole.len() - open.written;
        let piece = if random.percent(40) { left } else { random.below(left) + 1 };
        if open.written + piece == open.whole.len() {
            self.completed.note(&open.whole);
        }
        open.file.write_all(&open.whole[open.written..open.written + piece]).expect("write a piece");
        open.written += piece;
        if open.written < open.whole.len() {
            return Some(open);
        }
        drop(open.file);
        if let Some((from, to)) = open.rename {
            let _ = fs::rename(from, to);
        }
        None
    }

    fn write(&mut self, random: &mut Random, path: &Path) -> std::io::Result<()> {
        let content = self.next_payload(random);
        self.completed.note(&content);
        fs::write(path, content)
    }

    /// Writes into the file that is there, without emptying it first.
    fn overwrite(&mut self, random: &mut Random, path: &Path) -> std::io::Result<()> {
        let old = fs::read(path)?;
        let mut file = OpenOptions::new().write(true).open(path)?;
        let content = payload(self.next_version(), old.len());
        let longer = [&content[..], old.get(content.len()..).unwrap_or_default()].concat();
        if !self.completed.has(&old) {
            return Ok(());
        }
        self.completed.note(&longer);
        let half = random.below(content.len());
        file.write_all(&content[..half])?;
        std::thread::yield_now();
        file.write_all(&content[half..])
    }

    fn append(&mut self, path: &Path) -> std::io::Result<()> {
        let old = fs::read(path)?;
        // Somebody else is at it.
        if !self.completed.has(&old) {
            return Ok(());
        }
        let more = format!("and {}\n", self.next_version());
        self.completed.note(&[&old[..], more.as_bytes()].concat());
        OpenOptions::new().append(true).open(path)?.write_all(more.as_bytes())
    }

    fn truncate(&mut self, random: &mut Random, path: &Path) -> std::io::Result<()> {
        let old = fs::read(path)?;
        if !self.completed.has(&old) {
            return Ok(());
        }
        let length = if random.percent(20) { 0 } else { random.below(old.len()) };
        self.completed.note(&old[..length]);
        OpenOptions::new().write(true).open(path)?.set_len(length as u64)
    }

    fn save_like_vim(&mut self, random: &mut Random, path: &Path) {
        let probe = path.with_file_name("4913");
        let _ = File::create(&probe).and_then(|_| fs::remove_file(&probe));
        let (swap, backup) = (beside(path, ".", ".swp"), beside(path, "", "~"));
        let _ = fs::write(&swap, "swap");
        let _ = fs::rename(path, &backup);
        let _ = self.write(random, path);
        let _ = fs::remove_file(backup);
        let _ = fs::remove_file(swap);
    }

    /// A file, or a directory of files, that was made elsewhere.
    fn move_in(&mut self, random: &mut Random, path: &Path) {
        let version = self.next_version();
        let made = self.outside.join(format!("made{version}"));
        if random.percent(50) {
            let _ = self.write(random, &made);
            let _ = fs::rename(&made, path);
            return;
        }
        fs::create_dir_all(made.join("d1")).expect("make a directory");
        for name in ["f0", "d1/f1"] {
            self.write(random, &made.join(name)).expect("write outside");
        }
        let _ = fs::rename(&made, self.any_directory(random));
    }

    fn remove_directory(&mut self, random: &mut Random) {
        let directory = self.any_directory(random);
        if random.percent(30) {
            let _ = fs::remove_dir_all(directory);
        } else if random.percent(50) {
            let _ = fs::remove_dir(directory);
        } else {
            let version = self.next_version();
            let _ = fs::rename(directory, self.outside.join(format!("gone{version}")));
        }
    }

    fn touch_or_mode(&mut self, random: &mut Random, path: &Path) {
        if random.percent(50) {
            let mode = *random.of(&[0o600, 0o644, 0o755, 0o640]);
            let _ = fs::set_permissions(path, Permissions::from_mode(mode));
        } else {
            let now = SystemTime::now();
            let _ = OpenOptions::new().append(true).open(path).and_then(|file| file.set_modified(now));
        }
    }

    fn link(&mut self, random: &mut Random, path: &Path) {
        let target = self.any_file(random);
        if random.percent(50) {
            let temporary = beside(path, ".", ".tmp");
            let _ = symlink(&target, &temporary).and_then(|()| fs::rename(&temporary, path));
        } else {
            let _ = symlink(&target, path);
        }
    }

    /// A directory becomes a file, or a file a directory.
    fn swap_kind(&mut self, random: &mut Random) {
        let path = self.any_directory(random);
        if path.is_dir() {
            let _ = fs::remove_dir_all(&path);
            let _ = self.write(random, &path);
        } else if fs::remove_file(&path).is_ok() {
            let _ = fs::create_dir(&path);
            let _ = self.write(random, &path.join(FILES[0]));
        }
    }

    /// An archive, whole or the half that a transfer broke off after, or the rest of one.
    fn zip(&mut self, random: &mut Random) {
        let path = self.root.join(random.of(&DIRECTORIES)).join(random.of(&ZIPS));
        let whole = zip(self.next_version(), 2000);
        match fs::read(&path) {
            Ok(half) if !self.completed.has(&half) => drop(self.finish_zip(&path)),
            _ if random.percent(50) => {
                let _ = fs::write(&path, &whole[..random.below(whole.len() - 1) + 1]);
            }
            _ => {
                self.completed.note(&whole);
                let _ = fs::write(&path, &whole);
            }
        }
    }

    fn finish_zip(&mut self, path: &Path) -> std::io::Result<()> {
        let whole = zip(self.next_version(), 2000);
        self.completed.note(&whole);
        fs::write(path, whole)
    }

    /// A directory whose files belong together is exchanged for its next version in one step.
    fn replace_group(&mut self, random: &mut Random) {
        let group = self.root.join(random.of(&GROUPS));
        let version = self.next_version();
        let made = self.outside.join(format!("group{version}"));
        fs::create_dir(&made).expect("make a directory");
        for name in 0..3 + random.below(3) {
            // The names differ so that versions differ in what is there, too.
            let content = payload(version, 100 + name * 1000);
            self.completed.note(&content);
            fs::write(made.join(format!("m{name}")), content).expect("write outside");
        }
        let flags = if group.exists() { rustix::fs::RenameFlags::EXCHANGE } else { rustix::fs::RenameFlags::NOREPLACE };
        let _ = rustix::fs::renameat_with(rustix::fs::CWD, &made, rustix::fs::CWD, &group, flags);
    }

    /// Everybody ends what they began, and nothing is left that only half of it is there of.
    pub(crate) fn finish(&mut self, random: &mut Random) {
        for writer in 0..self.writers.len() {
            while let Some(open) = self.writers[writer].take() {
                self.writers[writer] = self.go_on(random, open);
            }
        }
        for path in files(&self.root) {
            let leads_to_directory = path.is_symlink() && path.is_dir();
            if leads_to_directory {
                fs::remove_file(&path).expect("remove a link");
            } else if !path.is_symlink() && fs::read(&path).is_ok_and(|content| !self.completed.has(&content)) {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if ZIPS.contains(&name.as_str()) {
                    self.finish_zip(&path).expect("finish an archive");
                } else if !is_ignored(&name) {
                    panic!("the model is wrong: nobody completed {}", path.display());
                }
            }
        }
    }
}

fn beside(path: &Path, before: &str, after: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    path.with_file_name(format!("{before}{name}{after}"))
}

/// All that lies below `directory` and is no directory; links are not followed.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(&next) else { continue };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}
