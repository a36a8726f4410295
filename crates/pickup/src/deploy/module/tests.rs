use std::ffi::c_void;
use std::sync::atomic::AtomicUsize;

use pickup_module::contract::InterfaceHeader;

use super::testing::compiled;
use super::*;
use crate::deploy::testing::{Sandbox, removed};

const VERSION: u32 = 1;
const COUNT: u32 = 2;
const ECHO: u32 = 3;
const FAIL: u32 = 4;
const WAIT: u32 = 5;

/// A deployer, and what it is given.
struct Host {
    sandbox: Sandbox,
    module: Module,
    generation: AtomicUsize,
}

impl Host {
    fn new(config: ModuleConfig) -> Self {
        let sandbox = Sandbox::new();
        let module = Module::new(config, sandbox.path("modules"), Some(probe_process())).unwrap();
        Self { sandbox, module, generation: AtomicUsize::new(1) }
    }

    /// Without a probe, which most tests have no need of.
    fn quick() -> Self {
        Self::new(ModuleConfig { probe: false, ..ModuleConfig::default() })
    }

    fn unit(&self, bytes: &[u8]) -> Unit {
        let generation = self.generation.fetch_add(1, Ordering::Relaxed) as u64;
        self.sandbox.file("counter.so", bytes, generation)
    }

    fn handle(&self) -> ModuleHandle {
        self.module.handle("web", "counter.so").unwrap()
    }

    fn copy(&self, staged: &Staged) -> PathBuf {
        self.sandbox.path("modules").join(&staged.path)
    }

    fn call(&self, operation: u32) -> String {
        String::from_utf8(self.handle().call(operation, b"ab").unwrap()).unwrap()
    }

    /// As the engine does it: all phases, and a revert where one fails.
    async fn deploy(&self, bytes: &[u8], old: Option<&Live>) -> Result<Live> {
        let (cx, unit) = (self.sandbox.cx(), self.unit(bytes));
        self.module.check(&cx, &unit, old).await?;
        let staged = self.module.stage(&cx, &unit, old).await?;
        let live = match self.module.activate(&cx, &unit, &staged, old).await {
            Ok(live) => self.module.verify(&cx, &unit, &live).await.map(|()| live),
            Err(error) => Err(error),
        };
        match live {
            Ok(live) => self.module.retire(&cx, &unit, &staged, old).await.map(|()| live),
            Err(error) => {
                self.module.revert(&cx, &unit, &staged, old).await.unwrap();
                Err(error)
            }
        }
    }

    /// The compiled module is refused for this reason, and what was live before still is.
    async fn refuses(&self, arguments: &[&str], reason: Reason, text: &str) {
        let before = self.handle().generation();
        let error = self.deploy(&compiled(arguments), None).await.unwrap_err();
        let refusal = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<Refusal>());
        let refusal = refusal.unwrap_or_else(|| panic!("{arguments:?}: {error}"));
        assert_eq!(refusal.reason(), reason, "{error}");
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(self.handle().generation(), before);
        assert!(before.is_none() || self.call(ECHO) == "ab");
    }
}

/// This test program, started once more to be the probe.
fn probe_process() -> Vec<OsString> {
    let test = std::env::current_exe().unwrap();
    let arguments = ["--exact", "--nocapture", "deploy::module::tests::the_probe_process_serves_who_asks"];
    let mut argv: Vec<OsString> = vec!["/usr/bin/env".into(), "PICKUP_TEST_IS_PROBE=1".into(), test.into()];
    argv.extend(arguments.map(OsString::from));
    argv
}

#[test]
fn the_probe_process_serves_who_asks() {
    if std::env::var_os("PICKUP_TEST_IS_PROBE").is_some() {
        serve_probe(std::io::stdin().lock(), std::io::stdout()).unwrap();
    }
}

#[tokio::test]
async fn a_new_version_takes_over_with_the_state_of_the_old_one() {
    let host = Host::new(ModuleConfig::default());
    assert_eq!(host.handle().call(VERSION, b""), Err(CallError::NotLoaded));
    let first = host.deploy(&compiled(&["-DVERSION=\"1\""]), None).await.unwrap();
    assert_eq!((host.call(VERSION), host.call(COUNT), host.call(COUNT)), ("1".into(), "1".into(), "2".into()));
    let second = host.deploy(&compiled(&["-DVERSION=\"2\""]), Some(&first)).await.unwrap();
    assert_eq!((host.call(VERSION), host.call(COUNT)), ("2".into(), "3".into()));
    let cx = host.sandbox.cx();
    assert_eq!(host.module.observe(&cx, &second).await.unwrap(), Observed::Alive);
    let drifted = Observed::Drifted("generation 2 is live in this process".into());
    assert_eq!(host.module.observe(&cx, &first).await.unwrap(), drifted);
    host.module.remove(&cx, &removed("counter.so"), &second).await.unwrap();
    host.module.remove(&cx, &removed("counter.so"), &second).await.unwrap();
    assert_eq!(host.module.observe(&cx, &second).await.unwrap(), Observed::Gone);
    assert_eq!(host.handle().call(VERSION, b""), Err(CallError::NotLoaded));
    assert_eq!(host.module.loaded(), 2);
}

#[tokio::test]
async fn what_a_call_comes_to_is_told() {
    let host = Host::quick();
    host.deploy(&compiled(&[]), None).await.unwrap();
    let handle = host.handle();
    assert_eq!(handle.call(FAIL, b""), Err(CallError::Failed("no such luck".into())));
    assert_eq!(handle.call(99, b""), Err(CallError::UnknownOperation));
    let mut reply = b"kept ".to_vec();
    handle.call_into(ECHO, b"this", &mut reply).unwrap();
    assert!(handle.call_into(FAIL, b"", &mut reply).is_err());
    assert_eq!(reply, b"kept this");
}

#[tokio::test]
async fn the_same_file_deployed_twice_is_two_generations() {
    let host = Host::quick();
    let bytes = compiled(&["-DEXTRA=int loads;", "-DACTIVATE=if (++loads > 1) { say(error, \"again\"); return 2; }"]);
    let first = host.deploy(&bytes, None).await.unwrap();
    let second = host.deploy(&bytes, Some(&first)).await.unwrap();
    assert!(first.path != second.path && first.digest == second.digest);
    assert_eq!((host.handle().generation(), host.module.loaded()), (Some(2), 2));
}

#[tokio::test]
async fn whatever_is_wrong_with_a_new_version_the_old_one_serves_on() {
    let host = Host::quick();
    host.deploy(&compiled(&[]), None).await.unwrap();
    host.refuses(&["-DWITHOUT_ENTRY"], Reason::MissingSymbol, "load it: missing_symbol: it does not export").await;
    let activate = "-DACTIVATE=say(error, \"open the database\"); return PICKUP_FAILED";
    host.refuses(&[activate], Reason::Activate, "it cannot start: open the database").await;
    host.refuses(&["-DACTIVATE=return 3"], Reason::Activate, "it panicked").await;
    let health = "-DHEALTH=say(error, \"reach the database\"); return PICKUP_FAILED";
    host.refuses(&[health], Reason::Health, "it cannot work: reach the database").await;
    let changed = "-DCONSTRUCTOR=extern const pickup_descriptor pickup_module_descriptor_v1; \
                   extern int mprotect(void *, size_t, int); \
                   char *at = (char *)&pickup_module_descriptor_v1; \
                   mprotect((void *)((unsigned long)at & ~4095ul), 8192, 3); at[64] = 'x'";
    host.refuses(&[changed], Reason::Identity, "describes itself otherwise").await;
    assert_eq!(host.call(COUNT), "1");
}

#[tokio::test]
async fn a_state_that_cannot_be_handed_over_keeps_the_old_version() {
    let host = Host::quick();
    let bytes = compiled(&["-DEXPORT=say(state, \"busy\"); return PICKUP_FAILED"]);
    host.deploy(&bytes, None).await.unwrap();
    host.refuses(&[], Reason::Handover, "hand over the state of the version before: busy").await;
}

#[tokio::test]
async fn what_kills_a_process_kills_the_probe_only() {
    let host = Host::new(ModuleConfig::default());
    host.deploy(&compiled(&[]), None).await.unwrap();
    let loaded = host.module.loaded();
    host.refuses(&["-DCONSTRUCTOR=abort()"], Reason::Probe, "killed by signal 6").await;
    host.refuses(&["-DCONSTRUCTOR=*(volatile int *)0 = 1"], Reason::Probe, "killed by signal 11").await;
    host.refuses(&["-DCONSTRUCTOR=_exit(0)"], Reason::Probe, "called `exit`").await;
    host.refuses(&["-DCONSTRUCTOR=exit(3)"], Reason::Probe, "exit status 3").await;
    let test = "-DSELF_TEST=say(error, \"add two and two\"); return PICKUP_FAILED";
    host.refuses(&[test], Reason::SelfTest, "pass its own test: add two and two").await;
    assert_eq!(host.module.loaded(), loaded, "none of them came into this process");
}

#[tokio::test]
async fn a_constructor_that_hangs_is_killed_at_the_deadline() {
    let host = Host::new(ModuleConfig::default());
    let unit = host.unit(&compiled(&["-DCONSTRUCTOR=printf(\"stuck\\n\"); fflush(stdout); for (;;) pause()"]));
    let cx = host.sandbox.cx_of(Duration::from_secs(2));
    let error = host.module.stage(&cx, &unit, None).await.unwrap_err();
    assert!(error.to_string().contains("probe: the process that loaded it for a test did not come"), "{error}");
    assert!(cx.take_output().contains("stuck"));
}

#[tokio::test]
async fn an_activate_that_hangs_is_given_up_and_ended_should_it_come_back() {
    let host = Host::quick();
    host.deploy(&compiled(&[]), None).await.unwrap();
    let unit = host.unit(&compiled(&["-DACTIVATE=usleep(300000)"]));
    let (cx, short) = (host.sandbox.cx(), host.sandbox.cx_of(Duration::from_millis(50)));
    let staged = host.module.stage(&cx, &unit, None).await.unwrap();
    let activated =
        tokio::time::timeout_at(short.deadline().into(), host.module.activate(&short, &unit, &staged, None));
    assert!(activated.await.is_err());
    host.module.revert(&cx, &unit, &staged, None).await.unwrap();
    assert_eq!((host.handle().generation(), host.call(COUNT)), (Some(1), "1".into()));
    let next = host.deploy(&compiled(&["-DVERSION=\"3\""]), None).await.unwrap();
    assert_eq!((host.call(VERSION), next.generation), ("3".into(), 3));
}

#[tokio::test]
async fn no_more_generations_are_loaded_than_may_be() {
    let host = Host::new(ModuleConfig { probe: false, max_generations: 2, ..ModuleConfig::default() });
    let bytes = compiled(&[]);
    for _ in 0..2 {
        host.deploy(&bytes, None).await.unwrap();
    }
    let error = host.deploy(&bytes, None).await.unwrap_err();
    assert!(error.is_transient() && error.to_string().contains("max_generations: 2 generations are loaded"), "{error}");
    assert_eq!((host.handle().generation(), host.call(ECHO)), (Some(2), "ab".into()));
    let config = ModuleConfig { probe: false, max_generations: 2, ..ModuleConfig::default() };
    let again = Module::new(config, host.sandbox.path("modules"), None).unwrap();
    assert_eq!(again.loaded(), 2, "another deployer in this process is no new allowance");
}

#[tokio::test]
async fn a_revert_makes_the_old_version_current_from_any_point() {
    let host = Host::quick();
    let first = host.deploy(&compiled(&[]), None).await.unwrap();
    assert_eq!(host.call(COUNT), "1");
    let (cx, unit) = (host.sandbox.cx(), host.unit(&compiled(&["-DVERSION=\"2\""])));
    let staged = host.module.stage(&cx, &unit, Some(&first)).await.unwrap();
    assert_eq!(host.module.stage(&cx, &unit, Some(&first)).await.unwrap().path, staged.path);
    assert!(host.copy(&staged).exists());
    host.module.revert(&cx, &unit, &staged, Some(&first)).await.unwrap();
    assert!(!host.copy(&staged).exists());
    let staged = host.module.stage(&cx, &unit, Some(&first)).await.unwrap();
    let live = host.module.activate(&cx, &unit, &staged, Some(&first)).await.unwrap();
    let again = host.module.activate(&cx, &unit, &staged, Some(&first)).await.unwrap();
    assert_eq!((live.path, again.generation, host.call(VERSION)), (again.path, 2, "2".into()));
    for count in ["2", "3"] {
        host.module.revert(&cx, &unit, &staged, Some(&first)).await.unwrap();
        assert_eq!((host.handle().generation(), host.call(COUNT)), (Some(1), count.into()));
    }
    assert_eq!(host.module.observe(&cx, &first).await.unwrap(), Observed::Alive);
}

#[tokio::test]
async fn a_call_in_flight_ends_on_the_generation_it_began_on() {
    let host = Host::quick();
    let first = host.deploy(&compiled(&[]), None).await.unwrap();
    let (cx, unit) = (host.sandbox.cx(), host.unit(&compiled(&["-DVERSION=\"2\""])));
    let go_on = Arc::new(*b"-");
    let (handle, request) = (host.handle(), Arc::clone(&go_on));
    let in_flight = std::thread::spawn(move || handle.call(WAIT, &*request));
    let staged = host.module.stage(&cx, &unit, Some(&first)).await.unwrap();
    host.module.activate(&cx, &unit, &staged, Some(&first)).await.unwrap();
    assert_eq!(host.call(VERSION), "2");
    // It waits for the call, which takes two seconds by itself.
    host.module.retire(&cx, &unit, &staged, Some(&first)).await.unwrap();
    assert!(in_flight.join().unwrap().is_ok());
}

#[repr(C)]
struct Adder {
    header: InterfaceHeader,
    add: unsafe extern "C" fn(*mut c_void, i64, i64) -> i64,
}

// SAFETY: it is `repr(C)` and begins with the header; the test module has the same.
unsafe impl Interface for Adder {
    const NAME: &'static str = "adder";
    const VERSION: u32 = 1;
}

#[repr(C)]
struct NewerAdder(Adder);

// SAFETY: as above, and nobody offers this version.
unsafe impl Interface for NewerAdder {
    const NAME: &'static str = "adder";
    const VERSION: u32 = 2;
}

#[tokio::test]
async fn an_interface_is_called_directly_and_asked_of_every_version() {
    let host = Host::quick();
    let adder = host.handle().interface::<Adder>().unwrap();
    assert!(adder.current().is_none());
    host.deploy(&compiled(&[]), None).await.unwrap();
    let add = |a, b| {
        let adder = adder.current().unwrap();
        assert_eq!(adder.header.version, 1);
        // SAFETY: the function is of the generation in use, and so is the instance.
        unsafe { (adder.add)(adder.instance(), a, b) }
    };
    assert_eq!(add(40, 2), 42);
    host.call(COUNT);
    host.refuses(&["-DWITHOUT_INTERFACE"], Reason::Interface, "version 1 of the interface `adder`").await;
    assert_eq!(add(40, 2), 43);
    assert!(host.handle().interface::<NewerAdder>().unwrap().current().is_none());
    host.refuses(&[], Reason::Interface, "version 2 of the interface `adder`").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_versions_are_exchanged() {
    let host = Host::new(ModuleConfig { probe: false, max_generations: 100, ..ModuleConfig::default() });
    let versions = [compiled(&["-DVERSION=\"1\""]), compiled(&["-DVERSION=\"2\""])];
    let mut live = host.deploy(&versions[0], None).await.unwrap();
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (handle, is_over) = (host.handle(), Arc::clone(&is_over));
            std::thread::spawn(move || {
                let mut calls = 0_u64;
                while !is_over.load(Ordering::Relaxed) {
                    let version = handle.call(VERSION, b"").unwrap();
                    assert!(version == b"1" || version == b"2");
                    handle.call(COUNT, b"").unwrap();
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for at in 1..40 {
        live = host.deploy(&versions[at % 2], Some(&live)).await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    let calls: Vec<u64> = callers.into_iter().map(|caller| caller.join().unwrap()).collect();
    assert!(calls.iter().all(|calls| *calls > 0), "{calls:?}");
    assert_eq!(live.generation, 40);
}

#[tokio::test]
async fn another_process_has_loaded_nothing_and_takes_nothing_back() {
    let host = Host::quick();
    let bytes = compiled(&[]);
    let unit = host.unit(&bytes);
    let cx = host.sandbox.cx();
    let staged = host.module.stage(&cx, &unit, None).await.unwrap();
    let live = host.module.activate(&cx, &unit, &staged, None).await.unwrap();
    let config = ModuleConfig { probe: false, ..ModuleConfig::default() };
    let later = Module::new(config, host.sandbox.path("modules"), None).unwrap();
    assert_eq!(later.observe(&cx, &live).await.unwrap(), Observed::Gone);
    later.revert(&cx, &unit, &staged, None).await.unwrap();
    later.retire(&cx, &unit, &staged, None).await.unwrap();
    later.remove(&cx, &removed("counter.so"), &live).await.unwrap();
    assert!(host.copy(&staged).exists() && host.call(ECHO) == "ab", "it belongs to somebody else");
}

#[test]
fn what_is_no_library_is_not_accepted() {
    let host = Host::quick();
    let accepts = |unit: &Unit| host.module.accepts(unit) == Verdict::Accepted;
    assert!(accepts(&host.sandbox.file("a/b.so", b"", 1)));
    assert!(!accepts(&host.sandbox.file("README.md", b"", 1)));
    assert!(!accepts(&host.sandbox.tree("a.so", &[("x", b"")], 1)));
}

#[test]
fn a_probe_that_is_asked_for_must_be_there() {
    let error = Module::new(ModuleConfig::default(), "/nowhere", None).unwrap_err();
    assert!(error.to_string().contains("names no probe process"), "{error}");
}
