//! Repositories that are followed: what it costs to ask a hundred of them, how long a push takes, and a large one.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tempfile::TempDir;

use self::remote::Remote;
use crate::daemon::{Daemon, HEAD};
use crate::deploying::cost::{Cost, run as run_program, shell, wait_for_answer, wait_until};
use crate::figure::{Table, Unit};
use crate::setting::Setting;

mod remote;

/// How long anything here may take.
const CAP: Duration = Duration::from_secs(300);

/// Where everything goes.
const COPY: &str = "[deployer.copy]\nkind = \"copy\"\ninto = \"live/{pickup}\"\ndurable = false\n";

/// What a round of asking is called.
const ROUND: &str = "a round with nothing new";
const BY_SYNC: &str = "push → live, asked for";
const BY_TIMER: &str = "push → live, every second";
const LARGE: &str = "a large repository, cloned and live";

/// A subject, and the key that makes it.
const SHAPES: [(&str, bool); 2] = [("pickup, mirrors", false), ("pickup, clones", true)];

/// Measures.
pub fn run(setting: &Setting) -> Result<Table> {
    setting.peers.need("git")?;
    let (count, megabytes) = (setting.size(100, 10), setting.size(100, 10));
    let work = format!(
        "{count} small repositories, served by `git daemon` on this machine; its own work counts for nobody. A round with nothing new asks \
         each of them once: the processor time of the daemon and its children, or of the loop in a shell and its children. \
         The daemon asks by its timer, each second, and the server counts how often it was asked. A push counts from the end of `git \
         push` until the new content stands in the target (for `git pull`: in the working tree). The large repository holds {megabytes} MB in \
         one commit: from the start of the daemon, or of the commands, until all files are live."
    );
    let mut table = Table::new("git", "Git repositories", work);
    table.remark(
        "A large repository: without `git_depth` pickup fetches the whole history. Whatever is fetched is then written twice more, into \
         the content store and into the release; `git archive | tar x` writes it once.",
    );
    let ground = setting.directory("git")?;
    let remote = Remote::new(&ground.path().join("served"), count)?;
    remote.make_large(megabytes)?;
    for round in 0..setting.rounds {
        for (subject, has_clones) in SHAPES {
            ours(setting, &remote, subject, has_clones, &mut table)?;
        }
        theirs(setting, &remote, &mut table)?;
        for (subject, keys) in [
            ("pickup", ""),
            ("pickup, git_depth = 1", "git_depth = 1\ngit_fast_forward_only = false\n"),
            ("pickup, git_transport = cli", "git_transport = \"cli\"\n"),
        ] {
            large(setting, &remote, subject, keys, &mut table)?;
        }
        large_by_hand(setting, &remote, &mut table)?;
        println!("git: round {} of {}", round + 1, setting.rounds);
    }
    Ok(table)
}

/// The repositories, followed each `interval`; as clones of ours in `clones` or as mirrors.
fn config(remote: &Remote, has_clones: bool, interval: &str) -> String {
    let mut config = format!("{HEAD}log = \"warn\"\n\n");
    for number in 0..remote.count() {
        let url = remote.url(number);
        let from = if has_clones { format!("pickup_from = \"clones/{number}\"\n") } else { String::new() };
        // Writing to a string does not fail.
        let _ = write!(
            config,
            "[hot-deploy.user.p{number}]\n{from}git_url = \"{url}\"\nauto_checkout = true\n\
             auto_checkout_interval = \"{interval}\"\ndeploy_to = [\"copy\"]\n\n"
        );
    }
    config + COPY
}

fn start(setting: &Setting, ground: &TempDir, remote: &Remote, config: &str) -> Result<Daemon> {
    let daemon = Daemon::spawn(setting, ground.path(), config)?;
    let is_live = |number| ground.path().join(format!("live/p{number}/content")).exists();
    wait_until(CAP, "all repositories to be live", || (0..remote.count()).all(is_live))?;
    wait_for_answer(&daemon)?;
    Ok(daemon)
}

fn ours(setting: &Setting, remote: &Remote, subject: &str, has_clones: bool, table: &mut Table) -> Result<()> {
    let ground = setting.directory("git")?;
    let daemon = start(setting, &ground, remote, &config(remote, has_clones, "1s"))?;
    let id = daemon.process().id();
    let (asked, before) = (remote.asked()?, Cost::of_tree(id)?);
    std::thread::sleep(Duration::from_secs(setting.size(10, 3) as u64));
    let (asked, cost) = (remote.asked()? - asked, Cost::of_tree(id)? - before);
    table.add(subject, ROUND, Unit::CpuSeconds, [cost.cpu * remote.count() as f64 / asked.max(1) as f64]);
    table.add(subject, BY_TIMER, Unit::Seconds, pushes(setting, remote, &ground, |_| Ok(()))?);
    daemon.stop()?;
    let daemon = start(setting, &ground, remote, &config(remote, has_clones, "1h"))?;
    let asks = |number: usize| daemon.ask(&["sync", &format!("p{number}")]).map(drop);
    table.add(subject, BY_SYNC, Unit::Seconds, pushes(setting, remote, &ground, asks)?);
    daemon.stop()
}

/// Pushes to some repositories, one after the other, calls `after`, and waits until each is live: how long that took.
fn pushes(
    setting: &Setting,
    remote: &Remote,
    ground: &TempDir,
    after: impl Fn(usize) -> Result<()>,
) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    for number in 0..setting.size(10, 3) {
        let content = remote.push(number)?;
        let start = Instant::now();
        after(number)?;
        let path = ground.path().join(format!("live/p{number}/content"));
        let end =
            wait_until(CAP, "a push to be live", || fs::read_to_string(&path).is_ok_and(|found| found == content))?;
        took.push((end - start).as_secs_f64());
    }
    Ok(took)
}

fn theirs(setting: &Setting, remote: &Remote, table: &mut Table) -> Result<()> {
    let ground = setting.directory("git")?;
    let live = ground.path().join("live");
    let urls: Vec<String> = (0..remote.count()).map(|number| remote.url(number)).collect();
    let arguments = || urls.iter().map(std::convert::AsRef::as_ref);
    let ran = shell("for url do git ls-remote -q \"$url\" >/dev/null; done", arguments())?;
    table.add("git ls-remote in a loop", ROUND, Unit::CpuSeconds, [ran.cost.cpu]);
    fs::create_dir(&live)?;
    for (number, url) in urls.iter().enumerate() {
        run_program(std::process::Command::new("git").args(["clone", "-q", url]).arg(live.join(format!("p{number}"))))?;
    }
    let ran = shell("for clone in \"$1\"/*; do git -C \"$clone\" pull -q --ff-only; done", [live.as_os_str()])?;
    table.add("git pull in a loop", ROUND, Unit::CpuSeconds, [ran.cost.cpu]);
    let pull = |number: usize| -> Result<()> {
        shell("git -C \"$1\" pull -q --ff-only", [live.join(format!("p{number}")).as_os_str()]).map(drop)
    };
    table.add("git pull", BY_SYNC, Unit::Seconds, pushes(setting, remote, &ground, pull)?);
    let mut loops = Looping::start(&live, setting.size(10, 3))?;
    let took = pushes(setting, remote, &ground, |_| Ok(()));
    loops.end()?;
    table.add("git pull; sleep 1", BY_TIMER, Unit::Seconds, took?);
    Ok(())
}

/// Clones that are pulled in loops of their own, each second.
struct Looping(Vec<std::process::Child>);

impl Looping {
    fn start(live: &Path, count: usize) -> Result<Self> {
        let script = "while git -C \"$1\" pull -q --ff-only; do sleep 1; done";
        let start = |number| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", script, "sh"]).arg(live.join(format!("p{number}"))).spawn().context("run sh")
        };
        Ok(Self((0..count).map(start).collect::<Result<_>>()?))
    }

    fn end(&mut self) -> Result<()> {
        for mut child in self.0.drain(..) {
            child.kill().context("end a loop")?;
            child.wait().context("end a loop")?;
        }
        Ok(())
    }
}

fn large(setting: &Setting, remote: &Remote, subject: &str, keys: &str, table: &mut Table) -> Result<()> {
    let ground = setting.directory("git")?;
    let config = format!(
        "{HEAD}\n[hot-deploy.user.large]\ngit_url = \"{}\"\n{keys}deploy_to = [\"site\"]\n\n\
         [deployer.site]\nkind = \"release\"\ninto = \"site\"\ndurable = false\ntimeout = \"5m\"\n",
        remote.large()
    );
    let start = Instant::now();
    let daemon = Daemon::spawn(setting, ground.path(), &config)?;
    let live = ground.path().join("site/current");
    let end = wait_until(CAP, "the large repository to be live", || live.exists())?;
    table.add(subject, LARGE, Unit::Seconds, [(end - start).as_secs_f64()]);
    daemon.ask(&["sync"])?;
    let cost = Cost::of_tree(daemon.process().id())?;
    table.add(subject, "a large repository, processor time", Unit::CpuSeconds, [cost.cpu]);
    table.add(subject, "a large repository, bytes written", Unit::Bytes, [cost.written]);
    remote.is_large(&live)?;
    daemon.stop()
}

fn large_by_hand(setting: &Setting, remote: &Remote, table: &mut Table) -> Result<()> {
    let ground = setting.directory("git")?;
    let script = "git clone -q --bare --depth 1 \"$1\" \"$2/m.git\"; mkdir \"$2/live\"; git -C \"$2/m.git\" archive HEAD | tar x -C \"$2/live\"";
    let ran = shell(script, [remote.large().as_ref(), ground.path().as_os_str()])?;
    let subject = "git clone --depth 1; git archive | tar x";
    table.add(subject, LARGE, Unit::Seconds, [ran.took.as_secs_f64()]);
    table.add(subject, "a large repository, processor time", Unit::CpuSeconds, [ran.cost.cpu]);
    table.add(subject, "a large repository, bytes written", Unit::Bytes, [ran.cost.written]);
    remote.is_large(&ground.path().join("live"))
}

/// A port that is free.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0").context("find a free port")?.local_addr()?.port())
}
