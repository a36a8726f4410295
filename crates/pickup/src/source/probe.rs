//! One look at one path: `lstat`, symlink policy, read lease.
