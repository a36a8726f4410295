//! A tree of which a little changes: how long until a whole new release is live, and what that costs.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::daemon::{Daemon, HEAD};
use crate::deploying::cost::{Cost, Ran, shell, wait_until};
use crate::deploying::random::Random;
use crate::figure::{Table, Unit};
use crate::setting::Setting;

/// How long a release may take.
const CAP: Duration = Duration::from_secs(300);

/// How many files are in one directory.
const TOGETHER: usize = 100;

/// How long a file is.
const LENGTH: usize = 8192;

/// The last step of every peer: the link goes to the new release at once.
const FLIP: &str = "ln -s \"releases/$1\" next; mv -T next current";

/// The peers: what they are called, whether what they wrote is on disk, and the script that makes release `$1` out of `source`
/// and release `$2`; what changed is listed in `changed`.
const PEERS: [(&str, bool, &str); 3] = [
    ("rsync --link-dest", false, "rsync -a --link-dest=\"../$2\" source/ \"releases/$1/\""),
    (
        "cp -al, then the changed files",
        false,
        "cp -al \"releases/$2\" \"releases/$1\"; cd source; xargs cp -p --parents --remove-destination -t \"../releases/$1\" <../changed; cd ..",
    ),
    ("rsync --link-dest --fsync", true, "rsync -a --fsync --link-dest=\"../$2\" source/ \"releases/$1/\""),
];

/// Measures.
pub fn run(setting: &Setting) -> Result<Table> {
    let count = setting.size(10_000, 1_000);
    let work = format!(
        "A tree of {count} files of {LENGTH} bytes is live as a release. One in a hundred is overwritten in the pickup. Time runs from \
         the last `close()` to the moment at which `current` leads to a release with all changes; for the peers it is the \
         time of a script that makes the new release from the tree and the release before, and flips the link. \
         Making the changes is not counted for anybody."
    );
    let mut table = Table::new("release", "A new release of a tree", work);
    table.remark(
        "Peers are told that everything is written; pickup has to find out. A writer that rests for longer than `quiet` (10 ms) between two \
         files makes two releases of one change, and time then runs until the last of them.",
    );
    table.remark("`cp -al` is told which files changed, and compares nothing; what pickup and rsync do includes finding that out.");
    let mut ours =
        [false, true].map(|durable| Ours::new(setting, count, durable)).into_iter().collect::<Result<Vec<_>>>()?;
    let is_here = |peer: &&(&str, bool, &str)| !peer.0.starts_with("rsync") || setting.peers.get("rsync").is_some();
    let peers: Vec<Peer> =
        PEERS.iter().filter(is_here).map(|peer| Peer::new(setting, count, peer)).collect::<Result<_>>()?;
    for round in 1..=setting.rounds {
        for ours in &mut ours {
            ours.round(round, &mut table)?;
        }
        for peer in &peers {
            peer.round(round, &mut table)?;
        }
    }
    for ours in ours {
        ours.daemon.stop()?;
    }
    Ok(table)
}

fn enter(table: &mut Table, subject: &str, durable: bool, ran: Ran) {
    let measure = if durable { "live, synced to disk" } else { "live" };
    table.add(subject, measure, Unit::Seconds, [ran.took.as_secs_f64()]);
    ran.cost.enter(table, subject);
}

/// The path of file `number` below the tree.
fn name(number: usize) -> PathBuf {
    PathBuf::from(format!("{:03}/{number:06}", number / TOGETHER))
}

fn make(tree: &Path, count: usize) -> Result<()> {
    let mut random = Random::new(1);
    for number in 0..count {
        let path = tree.join(name(number));
        if number % TOGETHER == 0 {
            fs::create_dir_all(path.parent().context("a directory")?)?;
        }
        fs::write(path, random.bytes(LENGTH)).context("make a tree")?;
    }
    Ok(())
}

/// Overwrites one file in a hundred, others each round, and gives their names.
fn change(tree: &Path, count: usize, round: usize) -> Result<Vec<PathBuf>> {
    let mut random = Random::new(round as u64 + 1000);
    let changed = (0..count).filter(|number| number % 100 == round % 100).map(name);
    let write = |name: PathBuf| -> Result<PathBuf> {
        fs::write(tree.join(&name), random.bytes(LENGTH)).context("change a file")?;
        Ok(name)
    };
    changed.map(write).collect()
}

/// Fails unless both trees are the same.
fn same(one: &Path, other: &Path) -> Result<()> {
    let trees = [one, other].map(|path| -> &OsStr { path.as_os_str() });
    shell("diff -r \"$1\" \"$2\"", trees).context("what is live is not what was written")?;
    Ok(())
}

/// The daemon, and the tree that it follows.
struct Ours {
    daemon: Daemon,
    ground: tempfile::TempDir,
    count: usize,
    durable: bool,
}

impl Ours {
    fn new(setting: &Setting, count: usize, durable: bool) -> Result<Self> {
        let ground = setting.directory("release")?;
        make(&ground.path().join("source"), count)?;
        let config = format!(
            "{HEAD}\n[hot-deploy.user.site]\npickup_from = \"source\"\ndeploy_to = [\"site\"]\n\n\
             [deployer.site]\nkind = \"release\"\ninto = \"site\"\ndurable = {durable}\ntimeout = \"5m\"\n"
        );
        let daemon = Daemon::start(setting, ground.path(), &config, 1)?;
        daemon.ask(&["sync"])?;
        Ok(Self { daemon, ground, count, durable })
    }

    fn releases(&self) -> Result<usize> {
        let answer = self.daemon.ask(&["history", "--json", "--limit", "1000"])?;
        let history: Vec<serde_json::Value> = serde_json::from_slice(&answer.stdout).context("read the history")?;
        Ok(history.len())
    }

    fn round(&mut self, round: usize, table: &mut Table) -> Result<()> {
        let (tree, live) = (self.ground.path().join("source"), self.ground.path().join("site/current"));
        let id = self.daemon.process().id();
        let (releases, before) = (self.releases()?, Cost::of(id)?);
        let changed = change(&tree, self.count, round)?;
        let start = Instant::now();
        let wanted: Vec<(PathBuf, Vec<u8>)> =
            changed.into_iter().map(|name| Ok((name.clone(), fs::read(tree.join(name))?))).collect::<Result<_>>()?;
        let is_live =
            || wanted.iter().rev().all(|(name, bytes)| fs::read(live.join(name)).is_ok_and(|found| found == *bytes));
        let end = wait_until(CAP, "the release to be live", is_live)?;
        // Committing, and removing what is older than is kept.
        std::thread::sleep(Duration::from_secs(1));
        let cost = Cost::of(id)? - before;
        self.daemon.ask(&["sync"])?;
        let subject = if self.durable { "pickup, durable" } else { "pickup" };
        enter(table, subject, self.durable, Ran { took: end - start, cost });
        table.add(subject, "releases made of one change", Unit::Count, [(self.releases()? - releases) as f64]);
        same(&tree, &live)
    }
}

/// A script, and the tree that it makes releases of.
struct Peer {
    subject: &'static str,
    durable: bool,
    script: String,
    ground: tempfile::TempDir,
    count: usize,
}

impl Peer {
    fn new(
        setting: &Setting,
        count: usize,
        (subject, durable, script): &(&'static str, bool, &'static str),
    ) -> Result<Self> {
        let ground = setting.directory("release")?;
        make(&ground.path().join("source"), count)?;
        shell(
            "cd \"$1\"; mkdir releases; cp -a source releases/0; ln -s releases/0 current",
            [ground.path().as_os_str()],
        )?;
        Ok(Self { subject, durable: *durable, script: format!("cd \"$3\"\n{script}\n{FLIP}"), ground, count })
    }

    fn round(&self, round: usize, table: &mut Table) -> Result<()> {
        let tree = self.ground.path().join("source");
        let changed = change(&tree, self.count, round)?;
        let list: String = changed.iter().map(|name| format!("{}\n", name.display())).collect();
        fs::write(self.ground.path().join("changed"), list)?;
        let (new, old) = (round.to_string(), (round - 1).to_string());
        let ran = shell(&self.script, [OsStr::new(&new), OsStr::new(&old), self.ground.path().as_os_str()])?;
        enter(table, self.subject, self.durable, ran);
        let live = self.ground.path().join("current");
        ensure!(fs::read_link(&live)?.ends_with(&new), "{} did not flip the link", self.subject);
        same(&tree, &live)
    }
}
