//! Modules for the tests, made by the C compiler.
#![expect(clippy::disallowed_methods, reason = "a compiler works on files")]

use std::path::Path;
use std::process::Command;

/// The test module, compiled with these arguments.
pub(super) fn compiled(arguments: &[&str]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("counter.so");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-g", "-Wall", "-Wno-unused-function", "-Wno-unused-variable", "-o"]);
    compiler.arg(&library).arg("-I").arg(root.join("../pickup-module/include"));
    compiler.arg(root.join("src/deploy/module/tests/counter.c")).args(arguments);
    let output = compiler.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(library).unwrap()
}
