//! Archives say themselves whether they are whole.

use super::why;
use crate::sandbox::Sandbox;

/// A ZIP archive that holds one empty file, `a.txt`.
fn zip() -> Vec<u8> {
    let name = b"a.txt";
    let mut bytes = b"PK\x03\x04\x14\0\0\0\0\0\0\0\0\0".to_vec();
    // Checksum and both sizes, then the lengths of the name and of what follows it.
    bytes.extend([0; 12]);
    bytes.extend([5, 0, 0, 0]);
    bytes.extend(name);
    let directory = bytes.len();
    bytes.extend(b"PK\x01\x02\x14\0\x14\0\0\0\0\0\0\0\0\0");
    bytes.extend([0; 12]);
    bytes.extend([5, 0, 0, 0]);
    bytes.extend([0; 14]);
    bytes.extend(name);
    let size = bytes.len() - directory;
    bytes.extend(b"PK\x05\x06\0\0\0\0\x01\0\x01\0");
    bytes.extend(u32::try_from(size).expect("small").to_le_bytes());
    bytes.extend(u32::try_from(directory).expect("small").to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn a_zip_that_is_cut_off_waits_and_is_deployed_once_when_it_is_whole() {
    let sandbox = Sandbox::new().keys("settle = \"300ms\"").file("in/b", "b");
    let daemon = sandbox.daemon();
    let whole = zip();
    sandbox.write("in/a.zip", &whole[..whole.len() / 2]);
    sandbox.write("in/c", "c");
    daemon.wait_deployed("c", 1);
    daemon.sync();
    daemon.assert_deployed_once(["b", "c"]);
    assert!(why(&sandbox, "in/a.zip").contains("incomplete"), "{}", why(&sandbox, "in/a.zip"));
    sandbox.write("in/a.zip", &whole);
    daemon.wait_deployed("a.zip", 1);
    daemon.sync();
    daemon.assert_deployed_once(["a.zip", "b", "c"]);
    assert_eq!(std::fs::read(sandbox.path("deployed/p/a.zip")).expect("read"), whole);
}

#[test]
fn a_whole_zip_is_deployed_at_once() {
    let sandbox = Sandbox::new().keys("settle = \"1h\"");
    let daemon = sandbox.daemon();
    sandbox.write("in/a.zip", zip());
    daemon.wait_deployed("a.zip", 1);
}
