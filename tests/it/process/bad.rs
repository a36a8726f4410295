//! Bad versions.
