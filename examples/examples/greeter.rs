//! A module: a shared library that the example `modules` loads, and exchanges while it is called.
//!
//! A plain trait implementation and one line that exports it. A panic in it is caught on its side of the border.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};

use pickup_examples::Counting;
use pickup_module::contract::InterfaceHeader;
use pickup_module::{Failure, Interface, Level, Module, Reply, Start, caught, export_module, instance};

/// Operations of this module: numbers that host and module agreed on.
const NOTHING: u32 = 0;
const GREET: u32 = 1;
const COUNT: u32 = 2;

struct Greeter {
    greeting: String,
    /// How many were greeted, by this generation and those before it.
    count: AtomicU64,
}

impl Module for Greeter {
    const STATE_SCHEMA: u32 = 1;

    fn activate(start: Start<'_>) -> Result<Self, Failure> {
        let greeting = match start.config_text()? {
            "" => "hello",
            config => config,
        };
        assert!(greeting.len() < 100, "who would listen to {} bytes of greeting?", greeting.len());
        let count = match start.handoff() {
            // Another form of state would be another number here.
            Some(before) if before.state_schema == 1 => u64::from_le_bytes(before.state.try_into()?),
            Some(_) | None => 0,
        };
        start.host().log(Level::Info, &format!("in Rust, {count} greeted before"));
        Ok(Self { greeting: greeting.to_owned(), count: AtomicU64::new(count) })
    }

    fn handle(&self, operation: u32, request: &[u8], reply: &mut Reply<'_>) -> Result<(), Failure> {
        match operation {
            NOTHING => Ok(()),
            GREET => {
                let name = std::str::from_utf8(request)?;
                self.count.fetch_add(1, Ordering::Relaxed);
                reply.write(format!("{}, {name}", self.greeting).as_bytes());
                Ok(())
            }
            COUNT => {
                reply.write(self.count.load(Ordering::Relaxed).to_string().as_bytes());
                Ok(())
            }
            other => Err(Failure::unknown_operation(other)),
        }
    }

    fn export_state(&self) -> Result<Option<Vec<u8>>, Failure> {
        Ok(Some(self.count.load(Ordering::Relaxed).to_le_bytes().into()))
    }

    fn interface(name: &str) -> Option<&'static InterfaceHeader> {
        (name == Counting::NAME).then_some(&COUNTING.header)
    }
}

/// Functions that the host calls without a detour.
static COUNTING: Counting = Counting { header: Counting::header(), count };

unsafe extern "C" fn count(greeter: *mut c_void) -> u64 {
    // SAFETY: the host gives the instance that it uses, which is one of this library.
    let greeter: &Greeter = unsafe { instance(greeter) };
    caught(0, || greeter.count.load(Ordering::Relaxed))
}

export_module!(Greeter, name = "greeter", version = "1.0");
