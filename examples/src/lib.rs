//! Examples that see only the public API of `pickup`: see `examples/*.rs`.
