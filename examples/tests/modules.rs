//! The example modules, in Rust and in C, exchanged under load; and everything that can be wrong with one.
#![cfg(target_os = "linux")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pickup::config::ModuleConfig;
use pickup::deploy::module::{CallError, ModuleHandle};
use pickup::deploy::{Module, Unit};
use pickup::{Config, Delivery, Engine, EventKind, Events, PickupConfig, SyncOptions};

const GREET: u32 = 1;
const COUNT: u32 = 2;
const CAP: Duration = Duration::from_secs(60);

/// What `cargo test` built beside the tests.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

fn in_rust() -> Vec<u8> {
    std::fs::read(built("libgreeter.so")).expect("build it first: cargo build -p pickup-examples --examples")
}

/// The C module, with these further arguments for the compiler.
fn in_c(arguments: &[&str]) -> Vec<u8> {
    compiled(&Path::new(env!("CARGO_MANIFEST_DIR")).join("modules/greeter.c"), arguments)
}

fn compiled(source: &Path, arguments: &[&str]) -> Vec<u8> {
    let (directory, examples) = (tempfile::tempdir().unwrap(), Path::new(env!("CARGO_MANIFEST_DIR")));
    let library = directory.path().join("greeter.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-std=gnu17", "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&library);
    compiler.arg("-I").arg(examples.join("../crates/pickup-module/include"));
    let output = compiler.arg(source).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(library).unwrap()
}

/// A program with plug-ins.
struct Host {
    directory: tempfile::TempDir,
    engine: Engine,
    events: Events,
    greeter: ModuleHandle,
}

impl Host {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("plugins")).unwrap();
        Self::start_in(directory, "").await
    }

    async fn start_in(directory: tempfile::TempDir, config: &str) -> Self {
        let below = |name: &str| directory.path().join(name);
        let probe = vec![built("modules").into(), "--module-probe".into()];
        let config = ModuleConfig { max_generations: 200, config: config.into(), ..ModuleConfig::default() };
        let modules = Module::new(config, below("modules"), Some(probe)).unwrap();
        let greeter = modules.handle("plugins", "greeter.so").unwrap();
        let pickup = PickupConfig::new("plugins", below("plugins")).deploy_to(["modules"]);
        let config = Config::default().state_dir(below("state")).pickup(pickup);
        let builder = Engine::builder(config).deployer("modules", modules);
        let events = builder.subscribe();
        let engine = builder.start().await.unwrap();
        Self { directory, engine, events, greeter }
    }

    /// Puts the module in place as a linker or a copy would not: whole, by a rename.
    fn put(&self, bytes: &[u8]) {
        let (beside, to) = (self.directory.path().join("beside"), self.directory.path().join("plugins/greeter.so"));
        std::fs::write(&beside, bytes).unwrap();
        std::fs::rename(beside, to).unwrap();
    }

    /// Waits until what was put in place is live, or refused; gives the cause if it is.
    async fn outcome(&mut self) -> Option<String> {
        let mut seen = Vec::new();
        loop {
            let delivery = tokio::time::timeout(CAP, self.events.next()).await;
            let Ok(Some(Delivery::Event(event))) = delivery else { panic!("no outcome among {seen:#?}") };
            match event.kind {
                EventKind::Deployed { .. } => return None,
                EventKind::RolledBack { cause, .. } => return Some(cause),
                other => seen.push(other),
            }
        }
    }

    fn call(&self, operation: u32) -> String {
        String::from_utf8(self.greeter.call(operation, b"world").unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rust_module_and_a_c_module_take_turns_under_load_and_no_call_fails() {
    let mut host = Host::start().await;
    let versions = [in_rust(), in_c(&[])];
    host.put(&versions[0]);
    assert_eq!(host.outcome().await, None);
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (greeter, is_over) = (host.greeter.clone(), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let mut calls = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    assert_eq!(greeter.call(GREET, b"world").as_deref(), Ok(b"hello, world".as_slice()));
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for at in 1..20 {
        host.put(&versions[at % 2]);
        assert_eq!(host.outcome().await, None, "exchange {at}");
    }
    is_over.store(true, Ordering::Relaxed);
    let calls: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
    assert!(calls > 20, "{calls}");
    let counted: u64 = host.call(COUNT).parse().unwrap();
    // Greetings between the hand-over of a state and the swap are counted by a generation that is not asked any more.
    assert!(counted > 0 && counted <= calls, "{counted} of {calls}");
    host.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_dropped_in_the_old_version_serves_on() {
    let mut host = Host::start().await;
    let good = in_rust();
    host.put(&good);
    assert_eq!(host.outcome().await, None);
    let mut wrong_machine = good.clone();
    wrong_machine[18] ^= 0xb7;
    let mut next_contract = good.clone();
    let descriptor = good.windows(8).position(|window| window == b"pickupm1").unwrap();
    next_contract[descriptor + 12] = 2;
    let hostile = |code: &str| {
        let extra = tempfile::Builder::new().suffix(".c").tempfile().unwrap();
        std::fs::write(extra.path(), format!("#include <stdlib.h>\n{code}\n")).unwrap();
        in_c(&[extra.path().to_str().unwrap()])
    };
    for (bytes, cause) in [
        (wrong_machine, "machine: it was built for another processor"),
        (in_c(&["-Wl,-z,execstack"]), "executable_stack"),
        (in_c(&["-Dpickup_module_entry_v1=another_entry"]), "missing_symbol"),
        (next_contract, "abi_version: it was built for version 2.0"),
        (hostile("__attribute__((constructor)) void die(void) { abort(); }"), "probe: the process that loaded it"),
        (
            hostile("extern int nowhere(void); int use(void) { return nowhere(); }"),
            "undefined_symbol: it uses `nowhere`",
        ),
        (b"#!/bin/sh\n".to_vec(), "format: it is no ELF file"),
    ] {
        host.put(&bytes);
        let found = host.outcome().await.unwrap_or_else(|| panic!("live in spite of {cause}"));
        assert!(found.contains(cause), "{found}, not {cause}");
        assert_eq!(host.call(GREET), "hello, world");
    }
    std::fs::remove_file(host.directory.path().join("plugins/greeter.so")).unwrap();
    host.engine.sync(None, SyncOptions { confirm_removals: true, ..SyncOptions::default() }).await.unwrap();
    assert_eq!(host.greeter.call(GREET, b""), Err(CallError::NotLoaded));
    host.engine.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_would_load_it_again() {
    let mut host = Host::start().await;
    host.put(&in_c(&[]));
    assert_eq!(host.outcome().await, None);
    let Host { directory, engine, greeter, events, .. } = host;
    engine.shutdown().await;
    drop((engine, events));
    // The engine is gone, and with it the deployer: a host that starts anew has loaded nothing.
    let mut host = Host::start_in(directory, "").await;
    assert_eq!(host.outcome().await, None);
    assert_eq!(host.call(GREET), "hello, world");
    assert_eq!(greeter.call(GREET, b""), Err(CallError::NotLoaded));
    host.engine.shutdown().await;
}

#[tokio::test]
async fn a_rust_module_cut_at_every_4_kib_is_truncated() {
    let directory = tempfile::tempdir().unwrap();
    let config = ModuleConfig { probe: false, ..ModuleConfig::default() };
    let modules = Module::new(config, directory.path().join("modules"), None).unwrap();
    let bytes = in_rust();
    let stored = directory.path().join("stored");
    for length in (0..bytes.len()).step_by(4 << 10).chain([bytes.len() - 1]) {
        std::fs::write(&stored, &bytes[..length]).unwrap();
        let error = checked(&modules, &directory, &stored, length).await.unwrap_err();
        assert!(error.to_string().contains("truncated"), "{length}: {error}");
    }
    std::fs::write(&stored, &bytes).unwrap();
    checked(&modules, &directory, &stored, bytes.len()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_module_that_panics_at_start_leaves_the_one_of_the_documentation_in_place() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("plugins")).unwrap();
    let mut host = Host::start_in(directory, &"good day ".repeat(20)).await;
    host.put(&of_the_documentation());
    assert_eq!(host.outcome().await, None);
    host.put(&in_rust());
    let cause = host.outcome().await.unwrap();
    assert!(cause.contains("activate: it cannot start: it panicked: who would listen to 180 bytes"), "{cause}");
    assert_eq!(host.call(GREET), "hello, world");
    host.engine.shutdown().await;
}

/// The C module in docs/deployers/module.md, as a reader would copy it.
fn of_the_documentation() -> Vec<u8> {
    let text = include_str!("../../docs/deployers/module.md");
    let source = text.split("```c\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("greeter.c");
    std::fs::write(&file, source).unwrap();
    compiled(&file, &[])
}

async fn checked(
    modules: &Module,
    directory: &tempfile::TempDir,
    stored: &Path,
    size: usize,
) -> Result<(), pickup::Error> {
    use pickup::capture::{CapturedFile, Digest};
    use pickup::change::{ChangeKind, Content};
    use pickup::deploy::{Context, Deployer};

    let file = CapturedFile::at(stored, Digest([0; 32]), size as u64, 0o644);
    let unit = Unit {
        pickup: "plugins".into(),
        path: pickup::UnitPath::new("greeter.so").unwrap(),
        change: ChangeKind::Added,
        content: Some(Content::File(file)),
        previous: None,
        generation: 1,
        changes: Arc::new([]),
        revision: None,
    };
    let cx = Context::new(directory.path(), std::time::Instant::now(), CAP);
    modules.check(&cx, &unit, None).await
}
