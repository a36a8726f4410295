//! Examples that see only the public API of `pickup`: see `examples/*.rs`.
//!
//! What is here is what the host `modules` and the module `greeter` share: a table of functions.

use std::ffi::c_void;

use pickup_module::Interface;
use pickup_module::contract::InterfaceHeader;

/// How many were greeted, without a detour over operations and bytes.
#[repr(C)]
pub struct Counting {
    /// What every interface begins with.
    pub header: InterfaceHeader,
    /// How many were greeted.
    pub count: unsafe extern "C" fn(greeter: *mut c_void) -> u64,
}

// SAFETY: it is `repr(C)` and begins with the header, and its name means nothing else.
unsafe impl Interface for Counting {
    const NAME: &'static str = "counting";
    const VERSION: u32 = 1;
}

impl Counting {
    /// The header of a table of this version.
    pub const fn header() -> InterfaceHeader {
        InterfaceHeader { size: size_of::<Self>() as u32, version: Self::VERSION }
    }
}
