//! Listing directories: at start, after an overflow, and when polling.
