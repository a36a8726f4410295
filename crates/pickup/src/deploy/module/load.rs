//! The door to the loader and to a module's functions: all that is unsafe about modules is here.
//!
//! What is loaded runs in our address space and can do whatever we can. That it keeps to the contract is its author's
//! promise, which no check can replace; every `SAFETY` below rests on it, and says what we keep on our side.

use std::ffi::{CStr, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use pickup_module::Interface;
use pickup_module::contract::{
    ABI_MINOR, DESCRIPTOR_SYMBOL, ENTRY_SYMBOL, Entry, HandoffTable, HostTable, InterfaceHeader, Sink, Slice, Status,
    Table,
};

use super::reason::{Reason, Refusal};

/// How much one call may answer.
const ANSWER_MAX: usize = 64 << 20;

/// How much of a line a module may log.
const LINE_MAX: usize = 8 << 10;

/// A library that was loaded, for good: it is never unloaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct Image {
    /// The module's table, of which only what its size covers is read.
    table: Table,
}

impl Image {
    /// Loads the library at `path`, an absolute path that nothing was loaded from before, and proves that it is the one
    /// whose `descriptor` was judged.
    pub(super) fn load(path: &Path, descriptor: &[u8]) -> Result<Self, Refusal> {
        // SAFETY: running its constructors is what was asked for; they were judged and, unless switched off, probed.
        let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL | libc::RTLD_NODELETE) };
        let library = library.map_err(|error| refused(Reason::Load, chain(&error)))?;
        // Closing would not unload it, and would lie about that: a thread-local destructor keeps it, or a thread of its.
        let library: &'static Library = Box::leak(Box::new(library));
        let lacks = |name: &str| refused(Reason::MissingSymbol, format!("it does not export `{name}`"));
        // SAFETY: the symbol is data, and only its address is taken here.
        let found = unsafe { library.get::<*const u8>(DESCRIPTOR_SYMBOL) }.map_err(|_| lacks(DESCRIPTOR_SYMBOL))?;
        let found = found.as_raw_ptr().cast_const().cast::<u8>();
        // SAFETY: the contract says that this function has this type.
        let entry = unsafe { library.get::<Entry>(ENTRY_SYMBOL) }.map_err(|_| lacks(ENTRY_SYMBOL))?;
        let entry: Entry = *entry;
        if !is_of(entry as *const c_void, path) || !is_of(found.cast(), path) {
            return Err(refused(Reason::Identity, "the loader returned another library than the one that was judged"));
        }
        // SAFETY: the symbol lies in the library at `path`, whose descriptor has at least this length: it was judged.
        let loaded = unsafe { std::slice::from_raw_parts(found, descriptor.len()) };
        if loaded != descriptor {
            return Err(refused(Reason::Identity, "in memory it describes itself otherwise than in the file"));
        }
        // SAFETY: the contract.
        let table = unsafe { entry(ABI_MINOR) };
        if table.is_null() {
            return Err(refused(Reason::AbiVersion, "it says that it cannot serve this host"));
        }
        Ok(Self { table: known_part(table)? })
    }

    /// Runs the module's own test.
    pub(super) fn self_test(&self) -> Result<(), Refusal> {
        let Some(test) = self.table.self_test else { return Ok(()) };
        let mut answer = Vec::new();
        // SAFETY: the sink lives during the call.
        let status = with_sink(&mut answer, |sink| unsafe { test(sink) });
        failed(Reason::SelfTest, "pass its own test", status, &answer)
    }

    /// The table of the interface, which lives as long as the process.
    pub(super) fn interface<I: Interface>(&self) -> Option<&'static I> {
        let find = self.table.interface?;
        let name = slice(I::NAME.as_bytes());
        // SAFETY: the name lives during the call.
        let found = unsafe { find(name) };
        // SAFETY: the contract: null, or a header that lives as long as the process.
        let header: &InterfaceHeader = unsafe { found.as_ref() }?;
        if header.version != I::VERSION || (header.size as usize) < size_of::<I>() || !found.cast::<I>().is_aligned() {
            return None;
        }
        // SAFETY: `Interface` promises that this name, version and size mean exactly this type.
        unsafe { found.cast::<I>().as_ref() }
    }

    /// Makes an instance. `host` lives as long as the process, because so may the module's threads.
    pub(super) fn activate(
        &self,
        host: &'static Host,
        config: &[u8],
        handoff: Option<(u32, &[u8])>,
    ) -> Result<Instance, Refusal> {
        let Some(activate) = self.table.activate else { return Err(refused(Reason::Activate, "it cannot start")) };
        let handoff = handoff.map(|(state_schema, state)| HandoffTable {
            size: size_of::<HandoffTable>() as u32,
            state_schema,
            state: slice(state),
        });
        let handoff = handoff.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let (mut made, mut answer) = (std::ptr::null_mut(), Vec::new());
        // SAFETY: the host lives for ever, everything else during the call.
        let status = with_sink(&mut answer, |sink| unsafe {
            activate(&raw const host.table, slice(config), handoff, &raw mut made, sink)
        });
        failed(Reason::Activate, "start", status, &answer)?;
        Ok(Instance { table: self.table, made, host })
    }
}

/// An instance that is active.
#[derive(Debug)]
pub(super) struct Instance {
    table: Table,
    made: *mut c_void,
    host: &'static Host,
}

// SAFETY: the contract: an instance is used from any thread.
unsafe impl Send for Instance {}
// SAFETY: the contract: by many threads at once.
unsafe impl Sync for Instance {}

impl Instance {
    /// What the functions of an interface are given.
    pub(super) fn as_ptr(&self) -> *mut c_void {
        self.made
    }

    /// Carries out one operation; the answer, or the reason of a failure, is appended to `reply`.
    #[inline]
    pub(super) fn handle(&self, operation: u32, request: &[u8], reply: &mut Vec<u8>) -> Status {
        let Some(handle) = self.table.handle else { return Status::UnknownOperation };
        // SAFETY: the instance is active as long as this is not consumed; request and sink live during the call.
        with_sink(reply, |sink| unsafe { handle(self.made, operation, slice(request), sink) })
    }

    /// Whether it works; `false` if it does not yet.
    pub(super) fn health(&self) -> Result<bool, Refusal> {
        let Some(health) = self.table.health else { return Ok(true) };
        let mut answer = Vec::new();
        // SAFETY: as in `handle`.
        match with_sink(&mut answer, |sink| unsafe { health(self.made, sink) }) {
            Status::NotYet => Ok(false),
            status => failed(Reason::Health, "work", status, &answer).map(|()| true),
        }
    }

    /// The state for the next generation.
    pub(super) fn export_state(&self) -> Result<Vec<u8>, Refusal> {
        let mut state = Vec::new();
        if let Some(export) = self.table.export_state {
            // SAFETY: as in `handle`.
            let status = with_sink(&mut state, |sink| unsafe { export(self.made, sink) });
            failed(Reason::Handover, "hand over the state of the version before", status, &state)?;
        }
        Ok(state)
    }

    /// Ends it. Nobody calls it any more: the caller had it to himself.
    pub(super) fn end(self, deadline_ms: u64) -> Result<(), Refusal> {
        self.host.is_stopping.store(true, Ordering::Release);
        let mut answer = Vec::new();
        let drained = self.table.drain.map_or(Status::Ok, |drain| {
            // SAFETY: as in `handle`.
            with_sink(&mut answer, |sink| unsafe { drain(self.made, deadline_ms, sink) })
        });
        if let Some(deactivate) = self.table.deactivate {
            // SAFETY: this consumes the instance, so no call is in flight and none can follow.
            let status = Status::of(unsafe { deactivate(self.made) });
            failed(Reason::Load, "end", status, b"")?;
        }
        failed(Reason::Load, "end its own work", drained, &answer)
    }
}

/// What one generation sees of us.
#[derive(Debug)]
pub(super) struct Host {
    table: HostTable,
    pickup: String,
    unit: String,
    generation: u64,
    is_stopping: AtomicBool,
}

// SAFETY: the pointer in the table leads to this same value, of which only an atomic ever changes.
unsafe impl Sync for Host {}

impl Host {
    /// The host of one generation. It is leaked: a thread that the module left behind may still log.
    pub(super) fn leaked(pickup: &str, unit: &str, generation: u64) -> &'static Self {
        let size = size_of::<HostTable>() as u32;
        let table = HostTable { size, abi_minor: ABI_MINOR, context: std::ptr::null_mut(), log, is_stopping };
        let (pickup, unit) = (pickup.to_owned(), unit.to_owned());
        let host = Box::leak(Box::new(Self { table, pickup, unit, generation, is_stopping: AtomicBool::new(false) }));
        host.table.context = std::ptr::from_mut(host).cast();
        host
    }
}

unsafe extern "C" fn log(context: *mut c_void, level: u32, text: *const u8, length: usize) {
    if context.is_null() || text.is_null() {
        return;
    }
    // SAFETY: the context is the host of `leaked`, and the text lives during the call.
    let (host, text) = unsafe { (&*context.cast::<Host>(), std::slice::from_raw_parts(text, length.min(LINE_MAX))) };
    let Host { pickup, unit, generation, .. } = host;
    let text = String::from_utf8_lossy(text);
    // A subscriber that panics must not do so through the module's frames.
    let _panic = std::panic::catch_unwind(|| match level {
        1 => tracing::error!(pickup, unit, generation, "{text}"),
        2 => tracing::warn!(pickup, unit, generation, "{text}"),
        3 => tracing::info!(pickup, unit, generation, "{text}"),
        4 => tracing::debug!(pickup, unit, generation, "{text}"),
        _ => tracing::trace!(pickup, unit, generation, "{text}"),
    });
}

unsafe extern "C" fn is_stopping(context: *mut c_void) -> i32 {
    // SAFETY: the context is the host of `leaked`, or null.
    unsafe { context.cast::<Host>().as_ref() }.is_some_and(|host| host.is_stopping.load(Ordering::Acquire)).into()
}

/// What a sink writes to.
struct Answer<'a> {
    bytes: &'a mut Vec<u8>,
    is_cut: bool,
}

unsafe extern "C" fn append(context: *mut c_void, bytes: *const u8, length: usize) {
    // SAFETY: the context is the answer of `with_sink`, which nobody else uses during the call.
    let answer = unsafe { &mut *context.cast::<Answer<'_>>() };
    if length == 0 || bytes.is_null() {
        return;
    }
    let is_too_much = length > ANSWER_MAX.saturating_sub(answer.bytes.len());
    if is_too_much || answer.is_cut || answer.bytes.try_reserve(length).is_err() {
        answer.is_cut = true;
        return;
    }
    // SAFETY: the contract: the bytes live during the call.
    answer.bytes.extend_from_slice(unsafe { std::slice::from_raw_parts(bytes, length) });
}

/// Makes a call whose answer goes to `bytes`. An answer that does not fit is a failure.
#[inline]
fn with_sink(bytes: &mut Vec<u8>, call: impl FnOnce(*const Sink) -> i32) -> Status {
    let mut answer = Answer { bytes, is_cut: false };
    let sink = Sink { size: size_of::<Sink>() as u32, context: (&raw mut answer).cast(), write: append };
    let status = Status::of(call(&raw const sink));
    if answer.is_cut && status == Status::Ok { Status::Failed } else { status }
}

fn slice(bytes: &[u8]) -> Slice {
    Slice { bytes: bytes.as_ptr(), length: bytes.len() }
}

fn refused(reason: Reason, text: impl Into<String>) -> Refusal {
    Refusal::new(reason, text)
}

/// An error with its causes: the loader's own words come last.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn failed(reason: Reason, what: &str, status: Status, answer: &[u8]) -> Result<(), Refusal> {
    let why = String::from_utf8_lossy(&answer[..answer.len().min(LINE_MAX)]);
    let why = if why.is_empty() { "it gives no reason".into() } else { why };
    match status {
        Status::Ok => Ok(()),
        Status::Panicked => Err(refused(reason, format!("it cannot {what}: it panicked: {why}"))),
        Status::NotYet | Status::Failed | Status::UnknownOperation => {
            Err(refused(reason, format!("it cannot {what}: {why}")))
        }
    }
}

/// Whether `address` lies in the library that was loaded from `path`.
fn is_of(address: *const c_void, path: &Path) -> bool {
    let mut found = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    // SAFETY: it only looks the address up, and fills in what is ours.
    let is_known = unsafe { libc::dladdr(address, &raw mut found) } != 0;
    if !is_known || found.dli_fname.is_null() {
        return false;
    }
    // SAFETY: the loader gives a string that lives as long as the library, which is for ever.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    OsStr::from_bytes(name.to_bytes()) == path.as_os_str()
}

/// The module's table, as far as it is long and as far as we know it; what it lacks is empty.
fn known_part(table: *const Table) -> Result<Table, Refusal> {
    let incomplete = || refused(Reason::Descriptor, "its table of functions is incomplete");
    if !table.is_aligned() {
        return Err(incomplete());
    }
    // SAFETY: the contract: a table begins with its size, and that much of it may be read for ever.
    let size = unsafe { table.cast::<u32>().read() } as usize;
    // The functions that there have been from the first version on.
    if size < std::mem::offset_of!(Table, handle) {
        return Err(incomplete());
    }
    let mut known = Table {
        size: 0,
        reserved: 0,
        activate: None,
        deactivate: None,
        handle: None,
        health: None,
        drain: None,
        export_state: None,
        self_test: None,
        interface: None,
    };
    let length = size.min(size_of::<Table>());
    // SAFETY: `length` bytes are there on both sides, which do not overlap; a function that is cut in half would have to
    // be so in a table of the module's own making.
    unsafe { std::ptr::copy_nonoverlapping(table.cast::<u8>(), (&raw mut known).cast::<u8>(), length) };
    if known.activate.is_none() || known.deactivate.is_none() { Err(incomplete()) } else { Ok(known) }
}
