use super::*;
use crate::{Level, contract};

struct Counter(u32);

impl Module for Counter {
    const STATE_SCHEMA: u32 = 3;

    fn activate(start: Start<'_>) -> Result<Self, Failure> {
        start.host().log(Level::Info, "hello");
        if start.config() == b"panic" {
            panic!("no such luck");
        }
        let from = start
            .handoff()
            .map_or(Ok(0), |handoff| std::str::from_utf8(handoff.state)?.parse::<u32>().map_err(Failure::from))?;
        Ok(Self(from))
    }

    fn handle(&self, operation: u32, request: &[u8], reply: &mut Reply<'_>) -> Result<(), Failure> {
        match operation {
            1 => reply.write(request),
            2 => std::panic::panic_any(NastyPanic),
            other => return Err(Failure::unknown_operation(other)),
        }
        Ok(())
    }

    fn export_state(&self) -> Result<Option<Vec<u8>>, Failure> {
        Ok(Some((self.0 + 1).to_string().into_bytes()))
    }
}

/// What panics again when it is dropped.
struct NastyPanic;

impl Drop for NastyPanic {
    fn drop(&mut self) {
        panic!("again");
    }
}

unsafe extern "C" fn collect(context: *mut c_void, bytes: *const u8, length: usize) {
    // SAFETY: each sink of these tests has a vector for its context.
    let (all, bytes) = unsafe { (&mut *context.cast::<Vec<u8>>(), std::slice::from_raw_parts(bytes, length)) };
    all.extend_from_slice(bytes);
}

unsafe extern "C" fn log(context: *mut c_void, level: u32, text: *const u8, length: usize) {
    assert_eq!(level, 3);
    // SAFETY: the host of these tests has a vector for its context.
    unsafe { collect(context, text, length) }
}

unsafe extern "C" fn is_stopping(_context: *mut c_void) -> i32 {
    0
}

fn with_sink(call: impl FnOnce(*const Sink) -> i32) -> (Status, String) {
    let mut written = Vec::new();
    let sink = Sink { size: size_of::<Sink>() as u32, context: (&raw mut written).cast(), write: collect };
    let status = call(&raw const sink);
    (Status::of(status), String::from_utf8(written).unwrap())
}

fn slice(bytes: &[u8]) -> Slice {
    Slice { bytes: bytes.as_ptr(), length: bytes.len() }
}

#[test]
fn a_module_is_called_by_way_of_its_table_and_no_panic_gets_out() {
    let table = table::<Counter>();
    let mut logged = Vec::<u8>::new();
    let size = size_of::<HostTable>() as u32;
    let host = HostTable { size, abi_minor: 0, context: (&raw mut logged).cast(), log, is_stopping };
    let mut made = std::ptr::null_mut();
    let handoff = HandoffTable { size: 0, state_schema: 3, state: slice(b"41") };
    // SAFETY: the pointers live during each call, and the instance until it is deactivated.
    unsafe {
        let activate = |config: &[u8], handoff, made: &mut *mut c_void| {
            with_sink(|sink| table.activate.unwrap()(&raw const host, slice(config), handoff, made, sink))
        };
        assert_eq!(activate(b"panic", std::ptr::null(), &mut made), (Status::Panicked, "no such luck".into()));
        assert!(made.is_null());
        assert_eq!(activate(b"", &raw const handoff, &mut made), (Status::Ok, String::new()));
        let handle = |operation| with_sink(|sink| table.handle.unwrap()(made, operation, slice(b"ab"), sink));
        assert_eq!(handle(1), (Status::Ok, "ab".into()));
        assert_eq!(handle(2), (Status::Panicked, "no message".into()));
        assert_eq!(handle(3), (Status::UnknownOperation, "carry out operation 3: unknown".into()));
        assert_eq!(with_sink(|sink| table.export_state.unwrap()(made, sink)), (Status::Ok, "42".into()));
        assert_eq!(with_sink(|sink| table.health.unwrap()(made, sink)), (Status::Ok, String::new()));
        assert_eq!(table.deactivate.unwrap()(made), 0);
    }
    assert_eq!(logged, b"hellohello");
    assert_eq!(contract::text(&descriptor::<Counter>("counter", "1").name), "counter");
}
