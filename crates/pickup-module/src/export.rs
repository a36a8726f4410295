//! The contract around a [`Module`]: one function for each entry of the table, none of which lets a panic out.

use core::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::contract::{FLAG_THREADS, HandoffTable, HostTable, InterfaceHeader, Sink, Slice, Status, Table};
use crate::module::{Failure, Health, Module, Reply, Start, bytes, instance};

/// Exports a type that implements [`Module`] as the module that this library is.
///
/// Name and version are those of the crate, unless said otherwise:
///
/// ```
/// # struct Greeter;
/// # impl pickup_module::Module for Greeter {
/// #     fn activate(_: pickup_module::Start<'_>) -> Result<Self, pickup_module::Failure> { Ok(Self) }
/// # }
/// pickup_module::export_module!(Greeter, name = "greeter", version = "2.1");
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export_module {
    ($module:ty) => {
        $crate::export_module!($module, name = env!("CARGO_PKG_NAME"), version = env!("CARGO_PKG_VERSION"));
    };
    ($module:ty, name = $name:expr, version = $version:expr) => {
        #[cfg(panic = "abort")]
        compile_error!("a module must be built with panic = \"unwind\": else its panic ends the host");

        /// What this module says about itself without being run.
        #[used]
        #[unsafe(no_mangle)]
        #[expect(non_upper_case_globals, reason = "the contract names the symbol")]
        pub static pickup_module_descriptor_v1: $crate::contract::Descriptor =
            $crate::export::descriptor::<$module>($name, $version);

        /// Gives the functions of this module.
        #[unsafe(no_mangle)]
        pub extern "C" fn pickup_module_entry_v1(host_abi_minor: u32) -> *const $crate::contract::Table {
            static TABLE: $crate::contract::Table = $crate::export::table::<$module>();
            $crate::export::for_host(&TABLE, host_abi_minor)
        }
    };
}

/// The descriptor of a module of this type.
pub const fn descriptor<M: Module>(name: &str, version: &str) -> crate::contract::Descriptor {
    let flags = if M::SPAWNS_THREADS { FLAG_THREADS } else { 0 };
    crate::contract::Descriptor::new(name, version, flags, M::STATE_SCHEMA)
}

/// The table of a module of this type.
pub const fn table<M: Module>() -> Table {
    Table {
        size: size_of::<Table>() as u32,
        reserved: 0,
        activate: Some(activate::<M>),
        deactivate: Some(deactivate::<M>),
        handle: Some(handle::<M>),
        health: Some(health::<M>),
        drain: Some(drain::<M>),
        export_state: Some(export_state::<M>),
        self_test: Some(self_test::<M>),
        interface: Some(interface::<M>),
    }
}

/// The table, for a host that knows everything the module uses.
pub fn for_host(table: &'static Table, host_abi_minor: u32) -> *const Table {
    let serves = (crate::contract::ABI_MINOR..).contains(&host_abi_minor);
    if serves { table } else { core::ptr::null() }
}

unsafe extern "C" fn activate<M: Module>(
    host: *const HostTable,
    config: Slice,
    handoff: *const HandoffTable,
    made: *mut *mut c_void,
    error: *const Sink,
) -> i32 {
    // SAFETY: the contract gives a valid sink.
    let error = unsafe { Reply::new(error) };
    guarded(error, |_| {
        // SAFETY: the contract: the host outlives the instance, config and handoff live during the call.
        let module = M::activate(unsafe { Start::new(host, config, handoff) })?;
        let module = Box::into_raw(Box::new(module));
        // SAFETY: the contract gives a place to write to.
        unsafe { *made = module.cast() };
        Ok(Status::Ok)
    })
}

unsafe extern "C" fn deactivate<M: Module>(made: *mut c_void) -> i32 {
    // SAFETY: a null sink takes nothing.
    let nowhere = unsafe { Reply::new(core::ptr::null()) };
    guarded(nowhere, |_| {
        // SAFETY: `made` is of `activate`, and the contract lets no call follow or go on.
        let module = unsafe { Box::from_raw(made.cast::<M>()) };
        module.deactivate();
        Ok(Status::Ok)
    })
}

unsafe extern "C" fn handle<M: Module>(made: *mut c_void, operation: u32, request: Slice, reply: *const Sink) -> i32 {
    // SAFETY: the contract gives a valid sink.
    let reply = unsafe { Reply::new(reply) };
    guarded(reply, |reply| {
        // SAFETY: the contract: the instance is active, the request lives during the call.
        let (module, request) = unsafe { (instance::<M>(made), bytes(request)) };
        module.handle(operation, request, reply).map(|()| Status::Ok)
    })
}

unsafe extern "C" fn health<M: Module>(made: *mut c_void, error: *const Sink) -> i32 {
    // SAFETY: the contract gives a valid sink.
    let error = unsafe { Reply::new(error) };
    guarded(error, |_| {
        // SAFETY: the contract: the instance is active.
        let module = unsafe { instance::<M>(made) };
        Ok(match module.health()? {
            Health::Healthy => Status::Ok,
            Health::NotYet => Status::NotYet,
        })
    })
}

unsafe extern "C" fn drain<M: Module>(made: *mut c_void, deadline_ms: u64, error: *const Sink) -> i32 {
    // SAFETY: the contract gives a valid sink.
    let error = unsafe { Reply::new(error) };
    guarded(error, |_| {
        // SAFETY: the contract: the instance is active.
        let module = unsafe { instance::<M>(made) };
        module.drain(Duration::from_millis(deadline_ms)).map(|()| Status::Ok)
    })
}

unsafe extern "C" fn export_state<M: Module>(made: *mut c_void, state: *const Sink) -> i32 {
    // SAFETY: the contract gives a valid sink.
    let state = unsafe { Reply::new(state) };
    guarded(state, |state| {
        // SAFETY: the contract: the instance is active.
        let module = unsafe { instance::<M>(made) };
        if let Some(exported) = module.export_state()? {
            state.write(&exported);
        }
        Ok(Status::Ok)
    })
}

unsafe extern "C" fn self_test<M: Module>(error: *const Sink) -> i32 {
    // SAFETY: the contract gives a valid sink.
    let error = unsafe { Reply::new(error) };
    guarded(error, |_| M::self_test().map(|()| Status::Ok))
}

unsafe extern "C" fn interface<M: Module>(name: Slice) -> *const InterfaceHeader {
    let found = catch_unwind(|| {
        // SAFETY: the contract: the name lives during the call.
        let name = core::str::from_utf8(unsafe { bytes(name) }).ok()?;
        M::interface(name)
    });
    found.ok().flatten().map_or(core::ptr::null(), core::ptr::from_ref)
}

/// Does `work`, or gives `otherwise` if it panics: for the functions of an [`Interface`](crate::Interface).
pub fn caught<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        // As in `guarded`.
        std::mem::forget(panic);
        otherwise
    })
}

/// Does `work`; what it fails with, or panics with, is written to `reply`.
fn guarded(mut reply: Reply<'_>, work: impl FnOnce(&mut Reply<'_>) -> Result<Status, Failure>) -> i32 {
    // Whatever the panic left half done is the module's own and is seen by its own code only.
    let done = catch_unwind(AssertUnwindSafe(|| work(&mut reply)));
    let status = match done {
        Ok(Ok(status)) => status,
        Ok(Err(failure)) => {
            reply.write(failure.text.as_bytes());
            if failure.is_unknown_operation { Status::UnknownOperation } else { Status::Failed }
        }
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
            reply.write(text.as_bytes());
            // Dropping what was panicked with may panic in turn, and here nobody would catch it.
            std::mem::forget(panic);
            Status::Panicked
        }
    };
    status as i32
}

#[cfg(test)]
mod tests;
