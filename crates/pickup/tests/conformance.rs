//! Every deployer of ours keeps what the conformance suite asks of any.
#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "the tests look at what is live on disk")]

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pickup::config::{
    CopyConfig, ExecConfig, ExecPer, ExecStdin, HttpConfig, ModuleConfig, ProcessConfig, Ready, ReleaseConfig,
};
use pickup::deploy::conformance::{Ability, Case, PICKUP, Report, Subject, Version, run};
use pickup::deploy::{Copy, Deployer, Exec, Http, Module, Process, Release, Unit, from_fn};

/// Runs the suite; what is not applicable must be exactly `left_out`.
async fn conforms<D: Deployer>(subject: Subject<D>, left_out: &[Case]) -> Report {
    let report = run(&subject).await;
    assert!(report.is_conforming(), "{report}");
    let not_applicable: Vec<_> = report.not_applicable().map(|(case, _)| case).collect();
    assert_eq!(not_applicable, left_out, "{report}");
    report
}

/// The cases that need somebody who takes back what was activated.
const UNDO: [Case; 9] = [
    Case::RevertsActivated,
    Case::RevertsVerified,
    Case::RevertsTouched,
    Case::RevertsTheFirst,
    Case::CrashActivated,
    Case::CrashReverted,
    Case::CancelledReverts,
    Case::DroppedActivate,
    Case::DroppedRevert,
];

/// Those, and others, in the order of the suite.
fn with_undo(others: &[Case]) -> Vec<Case> {
    Case::ALL.iter().copied().filter(|case| UNDO.contains(case) || others.contains(case)).collect()
}

/// The names and contents of all files in a directory that are not hidden; `None` if there are none.
fn files(directory: &Path) -> Option<Vec<u8>> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .ok()?
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.file_name().unwrap().as_encoded_bytes().starts_with(b"."))
        .map(|path| format!("{:?} {:?}\n", path.file_name().unwrap(), std::fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    (!files.is_empty()).then(|| files.concat().into_bytes())
}

#[tokio::test]
async fn copy_conforms_with_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let make = |place: &Path| {
        let into = place.join("into").to_str().unwrap().to_owned();
        Copy::new(CopyConfig { into, mode: None, owner: None, strip: 1, durable: false })
    };
    let subject = Subject::new(directory.path(), make, async |_, place| files(&place.join("into/deep")))
        .versions(
            Version::file("top/deep/a", "one").serves("\"a\" \"one\"\n"),
            Version::file("top/deep/a", vec![b'x'; 200_000]).serves(format!("\"a\" {:?}\n", "x".repeat(200_000))),
        )
        .failing(Version::file("top", "nothing is left of this name"))
        .taken_away_by(async |_, place| std::fs::remove_file(place.join("into/deep/a")).unwrap());
    conforms(subject, &[]).await;
}

#[tokio::test]
async fn copy_conforms_with_a_tree() {
    let directory = tempfile::tempdir().unwrap();
    let make = |place: &Path| {
        let into = place.join("into").to_str().unwrap().to_owned();
        Copy::new(CopyConfig { into, mode: None, owner: None, strip: 0, durable: true })
    };
    let subject = Subject::new(directory.path(), make, async |_, place| files(&place.join("into/app")))
        .versions(
            Version::tree("app").with("a", "one").with("b", "only here").serves("\"a\" \"one\"\n\"b\" \"only here\"\n"),
            Version::tree("app").with("a", "two").with("c", "new").serves("\"a\" \"two\"\n\"c\" \"new\"\n"),
        )
        .taken_away_by(async |_, place| std::fs::write(place.join("into/app/a"), "drifts").unwrap());
    conforms(subject, &[Case::FailureLeavesTheOld]).await;
}

#[tokio::test]
async fn release_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let make = |place: &Path| {
        let into = place.to_str().unwrap().to_owned();
        Release::new(ReleaseConfig { into, keep: 2, link: "current".into(), shared: Vec::new(), durable: false })
            .unwrap()
    };
    let subject = Subject::new(directory.path(), make, async |_, place| files(&place.join("current")))
        .versions(
            Version::file("a", "one").serves("\"a\" \"one\"\n"),
            Version::tree("").with("a", "two").with("b", "new").serves("\"a\" \"two\"\n\"b\" \"new\"\n"),
        )
        .failing(Version::tree("").with("a", "a file").with("a/b", "and a directory"))
        .taken_away_by(async |_, place| std::fs::remove_file(place.join("current")).unwrap());
    conforms(subject, &[]).await;
}

/// Puts the file in place, after what is there was kept for the rollback.
const PUT: &str = r#"
set -e
kept=../kept-$PICKUP_GENERATION
if [ "$PICKUP_CHANGE" = removed ]; then rm -f live; exit; fi
case $(cat "$PICKUP_PATH") in bad) exit 3;; slow) exec sleep 1000;; esac
if [ ! -e "$kept" ] && [ ! -e "$kept.none" ]; then
    if [ -e live ]; then cp live ../kept.new; mv ../kept.new "$kept"; else : > "$kept.none"; fi
fi
cp "$PICKUP_PATH" ../next
mv ../next live
"#;

const PUT_BACK: &str = r#"
kept=../kept-$PICKUP_GENERATION
if [ -e "$kept" ]; then mv "$kept" live; elif [ -e "$kept.none" ]; then rm -f live "$kept.none"; fi
"#;

fn exec(place: &Path, rollback: Option<&str>) -> Exec {
    let shell = |script: &str| ["sh", "-c", script].map(str::to_owned).to_vec();
    let config = ExecConfig {
        command: shell(PUT),
        per: ExecPer::Unit,
        rollback_command: rollback.map(shell),
        cwd: Some(place.into()),
        env: BTreeMap::new(),
        stdin: ExecStdin::None,
    };
    Exec::new(config).unwrap()
}

fn with_live_file<D: Deployer>(directory: &Path, make: impl Fn(&Path) -> D + 'static) -> Subject<D> {
    Subject::new(directory, make, async |_, place| std::fs::read(place.join("live")).ok())
        .failing(Version::file("app.txt", "bad"))
        .slow(Version::file("app.txt", "slow"))
}

#[tokio::test]
async fn exec_conforms_with_a_rollback() {
    let directory = tempfile::tempdir().unwrap();
    let subject = with_live_file(directory.path(), |place| exec(place, Some(PUT_BACK)))
        .without(Ability::Observe, "a command is not asked what is live");
    conforms(subject, &[Case::RemovedIsNoticed, Case::TakenAwayIsNoticed]).await;
}

#[tokio::test]
async fn exec_conforms_without_a_rollback_as_far_as_that_goes() {
    let directory = tempfile::tempdir().unwrap();
    let subject = with_live_file(directory.path(), |place| exec(place, None))
        .without(Ability::Undo, "what a command did stays done")
        .without(Ability::Observe, "a command is not asked what is live");
    let report = conforms(subject, &with_undo(&[Case::RemovedIsNoticed, Case::TakenAwayIsNoticed])).await;
    assert!(
        report.to_string().contains("makes the old version live again (what a command did stays done)"),
        "{report}"
    );
}

/// What a closure does that is as good as a closure can be.
async fn put(live: PathBuf, unit: Unit) -> std::io::Result<()> {
    let Some(file) = unit.file() else {
        return match std::fs::remove_file(live) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    };
    match file.read_to_string()?.as_str() {
        "bad" => Err(std::io::Error::other("it is bad")),
        "slow" => std::future::pending().await,
        text => std::fs::write(live, text),
    }
}

#[tokio::test]
async fn a_closure_conforms_as_far_as_one_can() {
    let directory = tempfile::tempdir().unwrap();
    let make = |place: &Path| {
        let live = place.join("live");
        from_fn(move |unit| put(live.clone(), unit))
    };
    let subject = with_live_file(directory.path(), make)
        .without(Ability::Undo, "a closure never sees the old version again")
        .without(Ability::Observe, "a closure is not asked what is live");
    conforms(subject, &with_undo(&[Case::RemovedIsNoticed, Case::TakenAwayIsNoticed])).await;
}

/// What stands for the memory of a process: no file that it makes.
fn memory(place: &Path) -> PathBuf {
    place.parent().unwrap().join("memory")
}

#[tokio::test]
async fn a_closure_in_memory_conforms_as_far_as_one_can() {
    let directory = tempfile::tempdir().unwrap();
    let make = |place: &Path| {
        let live = memory(place);
        // As the memory of a process that has just begun.
        let _gone = std::fs::remove_file(&live);
        from_fn(move |unit| put(live.clone(), unit)).in_memory()
    };
    let subject = Subject::new(directory.path(), make, async |_, place| std::fs::read(memory(place)).ok())
        .failing(Version::file("app.txt", "bad"))
        .slow(Version::file("app.txt", "slow"))
        .without(Ability::Undo, "a closure never sees the old version again")
        .without(Ability::Outlive, "it lives in memory");
    conforms(subject, &with_undo(&[Case::TakenAwayIsNoticed])).await;
}

/// A server that keeps what it is sent, one request after the other, so that none overtakes another.
#[derive(Clone)]
struct Server {
    address: String,
    files: Arc<Mutex<HashMap<String, Vec<u8>>>>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server =
            Self { address: format!("http://{}", listener.local_addr().unwrap()), files: Arc::new(Mutex::default()) };
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                // Whoever hangs up in the middle has asked for nothing.
                let _ended = serving.answer(stream.unwrap());
            }
        });
        server
    }

    fn answer(&self, mut stream: TcpStream) -> Option<()> {
        let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
        let (head, body) = loop {
            let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
            request.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&request).to_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                break (head.to_owned(), body.to_owned());
            }
        };
        let mut words = head.split(' ');
        let (method, path) = (words.next()?, words.next()?.to_owned());
        let status = match (method, body.as_str()) {
            ("put", "bad") => "422 Unprocessable Content",
            // Never: until the client hangs up.
            ("put", "slow") => return stream.read(&mut buffer).ok().map(drop),
            ("put", _) => {
                self.files.lock().unwrap().insert(path, body.into_bytes());
                "201 Created"
            }
            (_, _) => match self.files.lock().unwrap().remove(&path) {
                Some(_) => "204 No Content",
                None => "404 Not Found",
            },
        };
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).ok()
    }
}

/// The name of the case and the round: a place of its own on a server.
fn name(place: &Path) -> String {
    place.parent().unwrap().file_name().unwrap().to_str().unwrap().to_lowercase()
}

#[tokio::test]
async fn http_conforms() {
    let (directory, server) = (tempfile::tempdir().unwrap(), Server::start());
    let (address, files) = (server.address.clone(), server.files.clone());
    let make = move |place: &Path| Http::new(HttpConfig::new(format!("{address}/{}/{{unit}}", name(place)))).unwrap();
    let serving =
        async move |_: &Http, place: &Path| files.lock().unwrap().get(&format!("/{}/app.txt", name(place))).cloned();
    let subject = Subject::new(directory.path(), make, serving)
        .failing(Version::file("app.txt", "bad"))
        .slow(Version::file("app.txt", "slow"))
        .without(Ability::Observe, "a server is not asked what it serves");
    conforms(subject, &[Case::RemovedIsNoticed, Case::TakenAwayIsNoticed]).await;
}

/// The file `version` beside the program of the newest generation that runs below a directory.
fn running(below: &Path) -> Option<Vec<u8>> {
    let below = below.canonicalize().unwrap();
    let mut found: Vec<(u64, Vec<u8>)> = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let process = entry.path();
        let Ok(cwd) = std::fs::read_link(process.join("cwd")) else { continue };
        // What ended just now has none of these any more.
        let (Ok(stat), Ok(environment)) = (read(&process.join("stat")), read(&process.join("environ"))) else {
            continue;
        };
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let is_leader = after_name.split(' ').nth(2).map(Path::new) == process.file_name().map(Path::new);
        let generation = environment.split('\0').find_map(|line| line.strip_prefix("PICKUP_GENERATION="));
        if let (true, true, Some(generation)) = (is_leader, cwd.starts_with(&below), generation)
            && let Ok(version) = std::fs::read(process.join("cwd/version"))
        {
            found.push((generation.parse().unwrap(), version));
        }
    }
    found.into_iter().max().map(|(_, version)| version)
}

fn read(path: &Path) -> std::io::Result<String> {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn program(run: &str, version: &str) -> Version {
    Version::tree("").with("run", run).with("version", version).serves(version)
}

async fn process_conforms(overlap: bool) {
    const RUNS: &str = "echo started; exec sleep 1000";
    let directory = tempfile::tempdir().unwrap();
    let make = move |_: &Path| {
        let mut config = ProcessConfig::new(["sh", "./run"].map(str::to_owned).to_vec());
        config.ready = Ready::Line("started".into());
        config.probation = Duration::from_millis(10);
        config.overlap = overlap;
        Process::new(config, "web").unwrap()
    };
    let subject = Subject::new(directory.path(), make, async |_, place| running(place.parent().unwrap()))
        .versions(program(RUNS, "one"), program(RUNS, "two"))
        .failing(program("exit 3", "bad"))
        .slow(program("exec sleep 1000", "slow"));
    conforms(subject, &[Case::TakenAwayIsNoticed]).await;
}

#[tokio::test]
async fn process_conforms_with_overlap() {
    process_conforms(true).await;
}

#[tokio::test]
async fn process_conforms_without_overlap() {
    process_conforms(false).await;
}

/// A module in C; operation 1 answers with its version.
fn module(version: &str, arguments: &[&str]) -> Version {
    let directory = tempfile::tempdir().unwrap();
    let (library, root) = (directory.path().join("counter.so"), Path::new(env!("CARGO_MANIFEST_DIR")));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(format!("-DVERSION=\"{version}\"")).args(arguments);
    compiler.arg("-I").arg(root.join("../pickup-module/include"));
    compiler.arg(root.join("src/deploy/module/tests/counter.c"));
    let output = compiler.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Version::file("counter.so", std::fs::read(library).unwrap()).serves(version)
}

#[tokio::test]
async fn module_conforms() {
    let directory = tempfile::tempdir().unwrap();
    let make = |place: &Path| {
        let config = ModuleConfig { probe: false, ..ModuleConfig::default() };
        Module::new(config, place.parent().unwrap().join("modules"), None).unwrap()
    };
    let serving = async |module: &Module, _: &Path| module.handle(PICKUP, "counter.so").unwrap().call(1, b"").ok();
    let subject = Subject::new(directory.path(), make, serving)
        .versions(module("one", &[]), module("two", &[]))
        .failing(module("bad", &["-DACTIVATE=return PICKUP_FAILED"]))
        .slow(module("slow", &["-DACTIVATE=for (;;) usleep(1000)"]))
        .without(Ability::Outlive, "a module is loaded into this process");
    conforms(subject, &[Case::TakenAwayIsNoticed]).await;
}
