//! Which paths are left alone, and by which rule.
