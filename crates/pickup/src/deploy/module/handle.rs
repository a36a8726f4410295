//! The embedder's side of a module: handles that call whichever generation is current, from any thread.

use std::ffi::c_void;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use pickup_module::Interface;
use pickup_module::contract::Status;

use super::generations::{Current, Slot};

/// Calls the current generation of one module.
///
/// It is made before anything is loaded, is cheap to clone, and stays valid whatever is deployed: each call goes to the
/// generation that is current when it begins, and ends on that one. No lock is taken.
#[derive(Clone)]
pub struct ModuleHandle {
    slot: Arc<Slot>,
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallError {
    /// No generation is live.
    NotLoaded,
    /// The module knows no such operation.
    UnknownOperation,
    /// It failed, for this reason.
    Failed(String),
    /// It panicked, with this message; the panic was caught on its side.
    Panicked(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoaded => f.write_str("call a module of which nothing is live"),
            Self::UnknownOperation => f.write_str("carry out an operation that the module does not know"),
            Self::Failed(why) => write!(f, "carry out the operation: {why}"),
            Self::Panicked(why) => write!(f, "carry out the operation: the module panicked: {why}"),
        }
    }
}

impl std::error::Error for CallError {}

impl ModuleHandle {
    pub(super) fn new(slot: Arc<Slot>) -> Self {
        Self { slot }
    }

    /// Carries out one operation and gives its answer.
    ///
    /// # Errors
    /// Nothing is live, or the module failed.
    pub fn call(&self, operation: u32, request: &[u8]) -> Result<Vec<u8>, CallError> {
        let mut reply = Vec::new();
        self.call_into(operation, request, &mut reply).map(|()| reply)
    }

    /// [`call`](Self::call) with the answer appended to `reply`, which spares an allocation.
    ///
    /// # Errors
    /// As [`call`](Self::call); then `reply` is as it was.
    #[inline]
    pub fn call_into(&self, operation: u32, request: &[u8], reply: &mut Vec<u8>) -> Result<(), CallError> {
        let current = self.slot.current();
        let Some(generation) = current.as_ref() else { return Err(CallError::NotLoaded) };
        let before = reply.len();
        match generation.instance().handle(operation, request, reply) {
            Status::Ok => Ok(()),
            status => Err(failed(status, reply, before)),
        }
    }

    /// The generation that is current, if one is.
    pub fn generation(&self) -> Option<u64> {
        self.slot.current().as_ref().map(|generation| generation.number())
    }

    /// A handle to the functions of an interface. From now on, a module that does not offer it is refused here.
    ///
    /// # Errors
    /// Eight interfaces of this module are in use already.
    pub fn interface<I: Interface>(&self) -> crate::error::Result<InterfaceHandle<I>> {
        let at = self.slot.require::<I>()?;
        Ok(InterfaceHandle { slot: Arc::clone(&self.slot), at, table: PhantomData })
    }
}

#[cold]
fn failed(status: Status, reply: &mut Vec<u8>, before: usize) -> CallError {
    let why = String::from_utf8_lossy(&reply[before..]).into_owned();
    reply.truncate(before);
    match status {
        Status::UnknownOperation => CallError::UnknownOperation,
        Status::Panicked => CallError::Panicked(why),
        Status::Ok | Status::NotYet | Status::Failed => CallError::Failed(why),
    }
}

/// Calls the functions of an [`Interface`] of the current generation: one call through a function pointer, and a few
/// nanoseconds to find it.
pub struct InterfaceHandle<I> {
    slot: Arc<Slot>,
    at: usize,
    table: PhantomData<fn() -> I>,
}

impl<I> Clone for InterfaceHandle<I> {
    fn clone(&self) -> Self {
        Self { slot: Arc::clone(&self.slot), at: self.at, table: PhantomData }
    }
}

impl<I: Interface> InterfaceHandle<I> {
    /// The current generation, if one is live. It stays active until this is dropped: keep it for a call, not for ever.
    #[inline]
    pub fn current(&self) -> Option<InUse<I>> {
        let current = self.slot.current();
        let table = current.as_ref()?.table::<I>(self.at)?;
        Some(InUse { current, table })
    }
}

/// A generation in use: its table of functions, and the instance they are given.
pub struct InUse<I: 'static> {
    current: Current,
    table: &'static I,
}

impl<I> InUse<I> {
    /// What the functions of the table are given.
    #[inline]
    pub fn instance(&self) -> *mut c_void {
        self.current.as_ref().map_or(std::ptr::null_mut(), |generation| generation.instance().as_ptr())
    }
}

impl<I> Deref for InUse<I> {
    type Target = I;

    #[inline]
    fn deref(&self) -> &I {
        self.table
    }
}
