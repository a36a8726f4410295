//! Our own restart.
