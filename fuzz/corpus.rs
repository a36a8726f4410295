//! Every committed input goes through its target once.

use std::path::Path;
use std::process::Command;

const TARGETS: [(&str, &str); 6] = [
    ("config_toml", env!("CARGO_BIN_EXE_config_toml")),
    ("config_zato", env!("CARGO_BIN_EXE_config_zato")),
    ("control", env!("CARGO_BIN_EXE_control")),
    ("git", env!("CARGO_BIN_EXE_git")),
    ("module", env!("CARGO_BIN_EXE_module")),
    ("structure", env!("CARGO_BIN_EXE_structure")),
];

#[test]
fn no_committed_input_breaks_its_target() {
    for (target, program) in TARGETS {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let output = Command::new(program).arg("-runs=0").arg(corpus).output().expect("run the target");
        assert!(output.status.success(), "{target}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
