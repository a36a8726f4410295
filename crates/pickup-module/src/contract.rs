//! The contract in Rust: what crosses the border, in the layout of C.
//!
//! Only scalars, bytes with a length, and opaque pointers cross it. Each side frees what it allocated: whatever a module
//! returns it writes to a [`Sink`] of the host's, whatever it is given is the host's and valid during the call. Tables
//! begin with their size and only ever grow at the end, so either side may be the older one.

use core::ffi::c_void;

/// The first bytes of every [`Descriptor`]: `pickupm1`, read as a little-endian number.
pub const MAGIC: u64 = 0x316d_7075_6b63_6970;

/// Must be the same in host and module.
pub const ABI_MAJOR: u32 = 1;

/// A module's may be at most the host's.
pub const ABI_MINOR: u32 = 0;

/// The module runs threads of its own between activate and drain.
pub const FLAG_THREADS: u32 = 1;

/// The symbol of the [`Descriptor`], a data object.
pub const DESCRIPTOR_SYMBOL: &str = "pickup_module_descriptor_v1";

/// The symbol of the [`Entry`] function.
pub const ENTRY_SYMBOL: &str = "pickup_module_entry_v1";

/// What a call came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// Of `health`: not healthy yet, ask again.
    NotYet = 1,
    /// Failed; the reason is in the sink for errors.
    Failed = 2,
    /// The module's code panicked, and the panic was caught.
    Panicked = 3,
    /// Of `handle`: the module knows no such operation.
    UnknownOperation = 4,
}

impl Status {
    /// What the number means; any that is not known is a failure.
    pub fn of(code: i32) -> Self {
        match code {
            0 => Self::Ok,
            1 => Self::NotYet,
            3 => Self::Panicked,
            4 => Self::UnknownOperation,
            _ => Self::Failed,
        }
    }
}

/// Defines a struct of the contract, and for the header's sake its text in C, from one source.
macro_rules! contract {
    ($(
        $(#[doc = $doc:literal])*
        $name:ident = $c_name:literal {
            $( $(#[doc = $field_doc:literal])* $field:ident: $type:ty = $declarator:literal, )*
        }
    )*) => {
        $(
            $(#[doc = $doc])*
            #[derive(Clone, Copy, Debug)]
            #[repr(C)]
            pub struct $name {
                $( $(#[doc = $field_doc])* pub $field: $type, )*
            }
        )*

        /// The structs in the order of the header.
        #[cfg(test)]
        pub(crate) fn layouts() -> Vec<crate::header::Layout> {
            vec![$(
                crate::header::Layout {
                    c_name: $c_name,
                    docs: &[$($doc),*],
                    size: size_of::<$name>(),
                    fields: vec![$(
                        crate::header::Field {
                            name: stringify!($field),
                            docs: &[$($field_doc),*],
                            declarator: $declarator,
                            offset: core::mem::offset_of!($name, $field),
                        }
                    ),*],
                }
            ),*]
        }
    };
}

contract! {
    /// What a module says about itself without being run. It lies in the file as it is in memory: constant, and without
    /// pointers.
    Descriptor = "pickup_descriptor" {
        /// PICKUP_MODULE_MAGIC.
        magic: u64 = "uint64_t magic",
        /// sizeof(pickup_descriptor).
        size: u32 = "uint32_t size",
        /// PICKUP_MODULE_ABI_MAJOR.
        abi_major: u32 = "uint32_t abi_major",
        /// PICKUP_MODULE_ABI_MINOR.
        abi_minor: u32 = "uint32_t abi_minor",
        /// PICKUP_MODULE_FLAG_... or 0. A host refuses a module with a flag that it does not know.
        flags: u32 = "uint32_t flags",
        /// The form of the state that export_state writes; 0 if there is none.
        state_schema: u32 = "uint32_t state_schema",
        /// Zero.
        reserved: [u32; 9] = "uint32_t reserved[9]",
        /// The module's name, filled up with zeros.
        name: [u8; 64] = "char name[64]",
        /// The module's version, filled up with zeros.
        version: [u8; 32] = "char version[32]",
        /// PICKUP_MODULE_TARGET: architecture and system, such as x86_64-linux.
        target: [u8; 48] = "char target[48]",
    }

    /// Bytes that belong to the caller and are valid during the call.
    Slice = "pickup_slice" {
        /// The first byte; may be NULL if there is none.
        bytes: *const u8 = "const uint8_t *bytes",
        /// How many there are.
        length: usize = "size_t length",
    }

    /// Takes what a call returns: an answer, a state or the reason of a failure. Valid during the call, on its thread.
    Sink = "pickup_sink" {
        /// sizeof(pickup_sink).
        size: u32 = "uint32_t size",
        /// To be given to write.
        context: *mut c_void = "void *context",
        /// Appends bytes. Once too much was written, or memory ran out, the rest is dropped and the call fails.
        write: unsafe extern "C" fn(context: *mut c_void, bytes: *const u8, length: usize)
            = "void (*write)(void *context, const uint8_t *bytes, size_t length)",
    }

    /// What a module may ask of its host: from any thread, until deactivate returns.
    HostTable = "pickup_host" {
        /// sizeof(pickup_host) of the host.
        size: u32 = "uint32_t size",
        /// The highest abi_minor that the host knows.
        abi_minor: u32 = "uint32_t abi_minor",
        /// To be given to the functions.
        context: *mut c_void = "void *context",
        /// Logs a line of UTF-8. Level: 1 error, 2 warning, 3 info, 4 debug, 5 trace.
        log: unsafe extern "C" fn(context: *mut c_void, level: u32, text: *const u8, length: usize)
            = "void (*log)(void *context, uint32_t level, const uint8_t *text, size_t length)",
        /// Whether this generation is to end, so that its threads may stop: 1 if so, else 0.
        is_stopping: unsafe extern "C" fn(context: *mut c_void) -> i32 = "int32_t (*is_stopping)(void *context)",
    }

    /// The state of the generation before, for the one that replaces it. Valid during the call.
    HandoffTable = "pickup_handoff" {
        /// sizeof(pickup_handoff) of the host.
        size: u32 = "uint32_t size",
        /// The state_schema of the generation that wrote it.
        state_schema: u32 = "uint32_t state_schema",
        /// What its export_state wrote.
        state: Slice = "pickup_slice state",
    }

    /// A module's functions. Each returns a pickup_status. Those marked optional may be NULL.
    Table = "pickup_module_table" {
        /// sizeof(pickup_module_table) of the module.
        size: u32 = "uint32_t size",
        /// Zero.
        reserved: u32 = "uint32_t reserved",
        /// Makes an instance beside those that run; it serves once this returns. handoff is NULL where there is no state.
        activate: Option<
            unsafe extern "C" fn(
                host: *const HostTable,
                config: Slice,
                handoff: *const HandoffTable,
                instance: *mut *mut c_void,
                error: *const Sink,
            ) -> i32,
        > = "int32_t (*activate)(const pickup_host *host, pickup_slice config, const pickup_handoff *handoff, void **instance, const pickup_sink *error)",
        /// Ends an instance: no call is in flight, none will come, and its threads have ended when this returns.
        deactivate: Option<unsafe extern "C" fn(instance: *mut c_void) -> i32> = "int32_t (*deactivate)(void *instance)",
        /// Optional. Carries out one operation, from any thread, many at once. A failure's reason goes into reply.
        handle: Option<
            unsafe extern "C" fn(instance: *mut c_void, operation: u32, request: Slice, reply: *const Sink) -> i32,
        > = "int32_t (*handle)(void *instance, uint32_t operation, pickup_slice request, const pickup_sink *reply)",
        /// Optional. Says whether the instance works.
        health: Option<unsafe extern "C" fn(instance: *mut c_void, error: *const Sink) -> i32>
            = "int32_t (*health)(void *instance, const pickup_sink *error)",
        /// Optional. Takes no new work of its own and joins its threads, within deadline_ms.
        drain: Option<unsafe extern "C" fn(instance: *mut c_void, deadline_ms: u64, error: *const Sink) -> i32>
            = "int32_t (*drain)(void *instance, uint64_t deadline_ms, const pickup_sink *error)",
        /// Optional. Writes the state for the next generation: bytes that mean something to it, never pointers.
        export_state: Option<unsafe extern "C" fn(instance: *mut c_void, state: *const Sink) -> i32>
            = "int32_t (*export_state)(void *instance, const pickup_sink *state)",
        /// Optional. Called in the probe process, before the module is loaded into any host.
        self_test: Option<unsafe extern "C" fn(error: *const Sink) -> i32> = "int32_t (*self_test)(const pickup_sink *error)",
        /// Optional. A table of functions that the embedder and the module agreed on, by name; it begins with its size
        /// and its version, and lives as long as the process. NULL if there is none of that name.
        interface: Option<unsafe extern "C" fn(name: Slice) -> *const InterfaceHeader>
            = "const pickup_interface *(*interface)(pickup_slice name)",
    }

    /// What every table of an interface begins with.
    InterfaceHeader = "pickup_interface" {
        /// sizeof the whole table.
        size: u32 = "uint32_t size",
        /// Must be the one the host asks for.
        version: u32 = "uint32_t version",
    }
}

/// The one function that is looked up by name: gives the module's table, or NULL if it cannot serve this host.
pub type Entry = unsafe extern "C" fn(host_abi_minor: u32) -> *const Table;

// SAFETY: a table holds a number and function pointers; nothing in it is ever written to.
unsafe impl Sync for Table {}

impl Descriptor {
    /// The descriptor of a module for this target.
    ///
    /// # Panics
    /// At compile time, if `name` or `version` is empty or does not fit.
    pub const fn new(name: &str, version: &str, flags: u32, state_schema: u32) -> Self {
        Self {
            magic: MAGIC,
            size: size_of::<Self>() as u32,
            abi_major: ABI_MAJOR,
            abi_minor: ABI_MINOR,
            flags,
            state_schema,
            reserved: [0; 9],
            name: filled_up(name),
            version: filled_up(version),
            target: target(),
        }
    }

    /// The descriptor in these bytes, as they lie in the file; `None` if they are too few.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..size_of::<Self>())?;
        let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
        let (name, rest) = bytes[64..].split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (target, _) = rest.split_first_chunk()?;
        Some(Self {
            magic: u64::from_ne_bytes(*bytes.first_chunk()?),
            size: number(8)?,
            abi_major: number(12)?,
            abi_minor: number(16)?,
            flags: number(20)?,
            state_schema: number(24)?,
            reserved: [0; 9],
            name: *name,
            version: *version,
            target: *target,
        })
    }
}

/// The text in a field of a descriptor: up to the first zero, and what is no UTF-8 replaced.
pub fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

/// This architecture and system, as it stands in a descriptor.
pub const fn target() -> [u8; 48] {
    let mut field = [0; 48];
    let at = put(&mut field, 0, std::env::consts::ARCH.as_bytes());
    let at = put(&mut field, at, b"-");
    put(&mut field, at, std::env::consts::OS.as_bytes());
    field
}

const fn filled_up<const N: usize>(text: &str) -> [u8; N] {
    assert!(!text.is_empty(), "a module's name and version must not be empty");
    assert!(text.len() < N, "a module's name has at most 63 bytes, its version 31");
    let mut field = [0; N];
    put(&mut field, 0, text.as_bytes());
    field
}

const fn put(field: &mut [u8], mut at: usize, bytes: &[u8]) -> usize {
    let mut from = 0;
    while from < bytes.len() {
        field[at] = bytes[from];
        (at, from) = (at + 1, from + 1);
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_reads_back_from_its_bytes() {
        let written = Descriptor::new("greeter", "1.2.3", FLAG_THREADS, 7);
        // SAFETY: the descriptor has no padding, which the offsets in `header` prove, so all its bytes are initialised.
        let bytes: [u8; size_of::<Descriptor>()] = unsafe { std::mem::transmute(written) };
        let read = Descriptor::read(&bytes).unwrap();
        assert_eq!((read.magic, read.size, read.abi_major, read.abi_minor), (MAGIC, 208, ABI_MAJOR, ABI_MINOR));
        assert_eq!((read.flags, read.state_schema), (FLAG_THREADS, 7));
        assert_eq!((text(&read.name), text(&read.version)), ("greeter".into(), "1.2.3".into()));
        assert_eq!(read.target, target());
        assert!(Descriptor::read(&bytes[1..]).is_none());
        assert_eq!(&bytes[..8], b"pickupm1");
    }
}
