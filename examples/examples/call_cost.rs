//! What a call into a module costs over a direct call through a function pointer.
//!
//! `cargo build --release -p pickup-examples --examples`, then `target/release/examples/call_cost`.

use std::ffi::c_void;
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pickup::config::ModuleConfig;
use pickup::deploy::Module;
use pickup::deploy::module::{InterfaceHandle, ModuleHandle};
use pickup::{Config, Engine, PickupConfig, SyncOptions};
use pickup_examples::Counting;

const CALLS: u32 = 2_000_000;
const ROUNDS: usize = 15;
const NOTHING: u32 = 0;
const COUNT: u32 = 2;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("pickup-call-cost-{}", std::process::id()));
    let below = |name: &str| directory.join(name);
    std::fs::create_dir_all(below("in"))?;
    let library = std::env::current_exe()?.with_file_name("libgreeter.so");
    std::fs::copy(&library, below("in/greeter.so"))?;
    let config = ModuleConfig { probe: false, ..ModuleConfig::default() };
    let modules = Module::new(config, below("modules"), None)?;
    let greeter = modules.handle("p", "greeter.so")?;
    let counting = greeter.interface::<Counting>()?;
    let config = Config::default().state_dir(below("state"));
    let config = config.pickup(PickupConfig::new("p", below("in")).deploy_to(["modules"]));
    let engine = Engine::builder(config).deployer("modules", modules).start().await?;
    let options = SyncOptions { until_final: true, ..SyncOptions::default() };
    engine.sync(None, options).await?;

    measure(&greeter, &counting)?;
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<(), String> {
        scope.spawn(|| {
            let mut reply = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                reply.clear();
                let _counted = black_box(greeter.call_into(COUNT, b"", &mut reply));
            }
        });
        println!("while another thread calls without a pause:");
        let measured = measure(&greeter, &counting);
        is_over.store(true, Ordering::Relaxed);
        measured
    })?;
    engine.shutdown().await;
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

fn measure(greeter: &ModuleHandle, counting: &InterfaceHandle<Counting>) -> Result<(), String> {
    let live = counting.current().ok_or("no greeter is live: see the log of a failed deployment")?;
    let (count, instance) = (black_box(live.count), live.instance());
    // SAFETY: the generation is held by `live` while this runs.
    let direct = time(|| unsafe { count(instance) });
    let through = time(|| match counting.current() {
        // SAFETY: the generation is in use, and the instance is its own.
        Some(live) => unsafe { (live.count)(live.instance()) },
        None => 0,
    });
    let mut reply = Vec::with_capacity(64);
    let operation = time(|| {
        reply.clear();
        u64::from(greeter.call_into(NOTHING, b"", &mut reply).is_ok())
    });
    let answered = time(|| {
        reply.clear();
        u64::from(greeter.call_into(COUNT, b"", &mut reply).is_ok())
    });
    let local = AtomicU64::new(0);
    let local_pointer: unsafe extern "C" fn(*mut c_void) -> u64 = black_box(load);
    // SAFETY: the counter lives while this runs.
    let at_home = time(|| unsafe { local_pointer((&raw const local).cast_mut().cast()) });
    println!("  through a function pointer, in this program    {at_home:6.1} ns");
    println!("  through a function pointer, into the module    {direct:6.1} ns");
    println!("  through an interface handle                    {through:6.1} ns");
    println!("  an operation that does nothing                 {operation:6.1} ns");
    println!("  an operation that formats a number             {answered:6.1} ns");
    Ok(())
}

unsafe extern "C" fn load(counter: *mut c_void) -> u64 {
    // SAFETY: the caller gives a counter.
    unsafe { &*counter.cast::<AtomicU64>() }.load(Ordering::Relaxed)
}

/// The median of some rounds, in nanoseconds a call.
fn time(mut call: impl FnMut() -> u64) -> f64 {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..CALLS {
                black_box(call());
            }
            began.elapsed()
        })
        .collect();
    rounds.sort();
    rounds[ROUNDS / 2].as_secs_f64() * 1e9 / f64::from(CALLS)
}
