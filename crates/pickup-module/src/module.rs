//! What a Rust author writes and is given: a trait, and safe names for what crosses the border.

use core::ffi::c_void;
use core::fmt;
use core::marker::PhantomData;
use core::slice;
use std::time::Duration;

use crate::contract::{HandoffTable, HostTable, InterfaceHeader, Sink, Slice};

/// One version of a module: an instance of it is made beside the one it replaces.
pub trait Module: Sized + Send + Sync + 'static {
    /// The form of the state that [`export_state`](Self::export_state) gives. Default: 0, there is none.
    const STATE_SCHEMA: u32 = 0;

    /// Whether it runs threads of its own. Default: no.
    const SPAWNS_THREADS: bool = false;

    /// Makes an instance; it serves once this returns.
    ///
    /// # Errors
    /// It cannot serve: the generation before goes on.
    fn activate(start: Start<'_>) -> Result<Self, Failure>;

    /// Carries out one operation: from any thread, many at once. Default: it knows none.
    ///
    /// # Errors
    /// The caller is told the reason.
    fn handle(&self, operation: u32, request: &[u8], reply: &mut Reply<'_>) -> Result<(), Failure> {
        let _ = (request, reply);
        Err(Failure::unknown_operation(operation))
    }

    /// Says whether the instance works. Default: it does.
    ///
    /// # Errors
    /// It does not: the generation before takes over again.
    fn health(&self) -> Result<Health, Failure> {
        Ok(Health::Healthy)
    }

    /// Takes no new work of its own and joins its threads, within `deadline`. Default: there is nothing to end.
    ///
    /// # Errors
    /// It is ended all the same; the reason is logged.
    fn drain(&self, deadline: Duration) -> Result<(), Failure> {
        let _ = deadline;
        Ok(())
    }

    /// The state for the next generation, in the form of [`STATE_SCHEMA`](Self::STATE_SCHEMA): bytes that mean something
    /// to it, never pointers. Calls may be in flight. Default: none.
    ///
    /// # Errors
    /// The next generation does not go live.
    fn export_state(&self) -> Result<Option<Vec<u8>>, Failure> {
        Ok(None)
    }

    /// Ends the instance: no call is in flight, and none will come. Default: it is dropped.
    fn deactivate(self) {}

    /// Run in a process of its own before the module is loaded into any host. Default: nothing to test.
    ///
    /// # Errors
    /// The module is refused.
    fn self_test() -> Result<(), Failure> {
        Ok(())
    }

    /// The table of functions that host and module agreed on under `name`; it begins with an [`InterfaceHeader`].
    /// Default: none.
    fn interface(name: &str) -> Option<&'static InterfaceHeader> {
        let _ = name;
        None
    }
}

/// Whether an instance works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Healthy,
    /// Not yet: the host asks again until its deadline.
    NotYet,
}

/// Why something failed, in words that read after "cannot".
#[derive(Clone, Debug)]
pub struct Failure {
    pub(crate) text: String,
    pub(crate) is_unknown_operation: bool,
}

impl Failure {
    /// A failure for this reason.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { text: reason.into(), is_unknown_operation: false }
    }

    /// There is no such operation.
    pub fn unknown_operation(operation: u32) -> Self {
        Self { text: format!("carry out operation {operation}: unknown"), is_unknown_operation: true }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a new instance begins with.
#[derive(Debug)]
pub struct Start<'a> {
    host: Host,
    config: &'a [u8],
    handoff: Option<Handoff<'a>>,
}

impl<'a> Start<'a> {
    /// # Safety
    /// `host` lives until the instance is deactivated, the others for `'a`.
    pub(crate) unsafe fn new(host: *const HostTable, config: Slice, handoff: *const HandoffTable) -> Self {
        // SAFETY: the caller's promise, and a null pointer is none.
        let handoff = unsafe { handoff.as_ref() };
        // SAFETY: the caller's promise.
        let of = |slice: Slice| unsafe { bytes(slice) };
        let handoff = handoff.map(|table| Handoff { state_schema: table.state_schema, state: of(table.state) });
        Self { host: Host(host), config: of(config), handoff }
    }

    /// The host, for as long as the instance lives.
    pub fn host(&self) -> Host {
        self.host
    }

    /// What the configuration says under `config`.
    pub fn config(&self) -> &'a [u8] {
        self.config
    }

    /// [`config`](Self::config) as text.
    ///
    /// # Errors
    /// It is not UTF-8.
    pub fn config_text(&self) -> Result<&'a str, Failure> {
        Ok(core::str::from_utf8(self.config)?)
    }

    /// What the generation before left, if it left anything.
    pub fn handoff(&self) -> Option<&Handoff<'a>> {
        self.handoff.as_ref()
    }
}

/// The state of the generation before.
#[derive(Debug)]
pub struct Handoff<'a> {
    /// The [`Module::STATE_SCHEMA`] of the generation that wrote it.
    pub state_schema: u32,
    /// What it wrote.
    pub state: &'a [u8],
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Level {
    /// Somebody must act.
    Error = 1,
    /// It recovered.
    Warn = 2,
    /// Something worked.
    Info = 3,
    /// For whoever looks for a fault.
    Debug = 4,
    /// Everything.
    Trace = 5,
}

/// The host, as its modules see it.
#[derive(Clone, Copy, Debug)]
pub struct Host(*const HostTable);

// SAFETY: the contract says that the host's functions may be called from any thread.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

impl Host {
    /// Logs a line, with the module's name beside it.
    pub fn log(self, level: Level, text: &str) {
        // SAFETY: the table lives until the instance is deactivated, which is as long as safe code has this.
        unsafe {
            let host = &*self.0;
            (host.log)(host.context, level as u32, text.as_ptr(), text.len());
        }
    }

    /// Whether this generation is to end: for its own threads.
    pub fn is_stopping(self) -> bool {
        // SAFETY: as in `log`.
        unsafe {
            let host = &*self.0;
            (host.is_stopping)(host.context) != 0
        }
    }
}

/// Takes what a call answers.
#[derive(Debug)]
pub struct Reply<'a> {
    sink: *const Sink,
    lives: PhantomData<&'a Sink>,
}

impl Reply<'_> {
    /// # Safety
    /// `sink` is valid for the lifetime, or null.
    pub(crate) unsafe fn new(sink: *const Sink) -> Self {
        Self { sink, lives: PhantomData }
    }

    /// Appends to the answer.
    pub fn write(&mut self, bytes: &[u8]) {
        // SAFETY: the promise of `new`.
        if let Some(sink) = unsafe { self.sink.as_ref() } {
            // SAFETY: the bytes are valid during the call, and the context is the one that belongs to the function.
            unsafe { (sink.write)(sink.context, bytes.as_ptr(), bytes.len()) }
        }
    }
}

/// # Safety
/// The bytes are valid for `'a`.
pub(crate) unsafe fn bytes<'a>(slice: Slice) -> &'a [u8] {
    if slice.bytes.is_null() || slice.length == 0 {
        return &[];
    }
    // SAFETY: not null, and the caller's promise.
    unsafe { slice::from_raw_parts(slice.bytes, slice.length) }
}

/// The module behind `instance`: for the functions of an [`Interface`].
///
/// # Safety
/// `instance` was made by the module of type `M` in this library, and is not deactivated while the result lives.
pub unsafe fn instance<'a, M: Module>(instance: *mut c_void) -> &'a M {
    // SAFETY: the caller's promise; only shared references are ever made of it.
    unsafe { &*instance.cast::<M>() }
}

/// A table of functions that an embedder calls directly, for what [`Module::handle`] is too slow or too loose for.
///
/// Host and module share its definition, in a crate of their own or in a header:
///
/// ```
/// use std::ffi::c_void;
/// use pickup_module::Interface;
/// use pickup_module::contract::InterfaceHeader;
///
/// #[repr(C)]
/// pub struct Adder {
///     header: InterfaceHeader,
///     add: unsafe extern "C" fn(instance: *mut c_void, a: i64, b: i64) -> i64,
/// }
///
/// // SAFETY: it is `repr(C)` and begins with the header.
/// unsafe impl Interface for Adder {
///     const NAME: &'static str = "adder";
///     const VERSION: u32 = 1;
/// }
/// ```
///
/// # Safety
/// The type is `repr(C)`, its first field is an [`InterfaceHeader`], every module that offers `NAME` in `VERSION` offers
/// exactly this type, and its functions may be called from any thread.
pub unsafe trait Interface: Sync + 'static {
    /// The name under which a module offers it.
    const NAME: &'static str;
    /// Changes whenever the table does.
    const VERSION: u32;
}
