//! Where the built programs are.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The built daemon.
pub fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| binary("pickupd", "pickupd"))
}

/// The binary `name` of `package`, next to this test's own program. It is built first, so that `cargo test -p it` alone
/// tests what is in the sources.
pub fn binary(package: &str, name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of the test's program");
    // target/<profile>/deps/it-…
    let directory = test.ancestors().nth(2).expect("the profile's directory");
    let profile = match directory.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = directory.parent().expect("the target directory");
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", package, "--bin", name, "--profile", profile, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("run cargo");
    assert!(status.success(), "{name} cannot be built");
    directory.join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}
