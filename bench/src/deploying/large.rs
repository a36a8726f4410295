//! One large file: how long until it is live, and how much is read and written for it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::daemon::{Daemon, HEAD};
use crate::deploying::cost::{Cost, Ran, shell, wait_until};
use crate::deploying::random::Random;
use crate::figure::{Table, Unit};
use crate::setting::Setting;

/// How long the file may take.
const CAP: Duration = Duration::from_secs(600);

/// How much is written at once.
const CHUNK: usize = 1 << 20;

/// The peers: what they are called, and the script that takes the file `$1` to the directory `$2`.
const PEERS: [(&str, bool, &str); 4] = [
    ("cp", false, "cp \"$1\" \"$2/file\""),
    ("rsync", false, "rsync -a \"$1\" \"$2/\""),
    ("cp, then sync", true, "cp \"$1\" \"$2/file\"; sync -d \"$2/file\""),
    ("rsync --fsync", true, "rsync -a --fsync \"$1\" \"$2/\""),
];

/// Measures.
pub fn run(setting: &Setting) -> Result<Table> {
    let megabytes = setting.size(2048, 200);
    let work = format!(
        "A file of {megabytes} MB that does not compress is written into the pickup. Time runs from its `close()` to the moment \
         at which it stands under its name in the target, whole. For the peers it is the time of the command that copies \
         the same file to the same file system. Bytes are those that the daemon or the command asked the kernel to read and to write."
    );
    let mut table = Table::new("large", "A large file", work);
    table.remark(
        "pickup writes the file twice: into its content store, so that what was judged is what goes live and a rollback has it, and into \
         the target; both times its digest is computed on the way. File systems that can share blocks (btrfs, XFS) save both writes; \
         the one here may not.",
    );
    let ground = setting.directory("large")?;
    let source = ground.path().join("file");
    make(&source, megabytes)?;
    for round in 0..setting.rounds {
        // Another file each time: one that is known would not be captured again.
        File::options().write(true).open(&source)?.write_all_at(&(round as u64 + 1).to_le_bytes(), 0)?;
        for durable in [false, true] {
            touch_memory(setting, megabytes)?;
            ours(setting, &source, durable, &mut table)?;
            for (subject, _, script) in PEERS.iter().filter(|peer| peer.1 == durable) {
                if subject.starts_with("rsync") && setting.peers.get("rsync").is_none() {
                    continue;
                }
                touch_memory(setting, megabytes)?;
                let target = setting.directory("large")?;
                let ran = shell(script, [source.as_os_str(), target.path().as_os_str()])?;
                enter(&mut table, subject, durable, ran);
            }
        }
    }
    Ok(table)
}

fn enter(table: &mut Table, subject: &str, durable: bool, ran: Ran) {
    let measure = if durable { "live, synced to disk" } else { "live" };
    table.add(subject, measure, Unit::Seconds, [ran.took.as_secs_f64()]);
    ran.cost.enter(table, subject);
}

fn make(path: &Path, megabytes: usize) -> Result<()> {
    let (mut file, mut random) = (File::create(path).context("make a file")?, Random::new(1));
    for _ in 0..megabytes {
        file.write_all(&random.bytes(CHUNK))?;
    }
    file.sync_all().context("write a file")
}

/// Has the page cache hold as much as one of them will need, and forget it: a guest gets its memory from its host when it first
/// uses it, which takes ten times as long as to fill it, and the first of all would pay for the others.
fn touch_memory(setting: &Setting, megabytes: usize) -> Result<()> {
    let ground = setting.directory("large")?;
    let mut file = File::create(ground.path().join("memory")).context("make a file")?;
    // In the pickup, in the content store, and in the target.
    for _ in 0..3 * megabytes {
        file.write_all(&[1; CHUNK]).context("write a file")?;
    }
    Ok(())
}

fn ours(setting: &Setting, source: &Path, durable: bool, table: &mut Table) -> Result<()> {
    let ground = setting.directory("large")?;
    let (pickup, live) = (ground.path().join("in"), ground.path().join("live"));
    std::fs::create_dir(&pickup)?;
    let config = format!(
        "{HEAD}\n[hot-deploy.user.p]\npickup_from = \"in\"\ndeploy_to = [\"copy\"]\n\n\
         [deployer.copy]\nkind = \"copy\"\ninto = \"live\"\ntimeout = \"10m\"\ndurable = {durable}\n"
    );
    let daemon = Daemon::start(setting, ground.path(), &config, 1)?;
    let id = daemon.process().id();
    let length = source.metadata()?.size();
    let before = Cost::of(id)?;
    write_through(source, &pickup.join("file"))?;
    let start = Instant::now();
    let is_live = || live.join("file").metadata().is_ok_and(|file| file.size() == length);
    let end = wait_until(CAP, "the large file to be live", is_live)?;
    daemon.ask(&["sync"])?;
    let subject = if durable { "pickup, durable" } else { "pickup" };
    enter(table, subject, durable, Ran { took: end - start, cost: Cost::of(id)? - before });
    same(source, &live.join("file"))?;
    daemon.stop()
}

/// Writes as a program does that makes a file: piece by piece.
fn write_through(source: &Path, target: &Path) -> Result<()> {
    let (mut source, mut target) = (File::open(source)?, File::create(target)?);
    std::io::copy(&mut source, &mut target).context("write the large file")?;
    Ok(())
}

fn same(one: &Path, other: &Path) -> Result<()> {
    shell("cmp \"$1\" \"$2\"", [one, other].map(|path| -> &OsStr { path.as_os_str() }))
        .context("what is live is not what was written")?;
    Ok(())
}
