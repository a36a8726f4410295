//! Archives that claim more than there is, or unpack to more than anybody has.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::sandbox::Sandbox;

/// `size` zeros, compressed `times` times.
fn bomb(size: usize, times: usize) -> Vec<u8> {
    (0..times).fold(vec![0; size], |content, _| {
        let mut gzip = Command::new("gzip");
        let mut child = gzip.arg("-9").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run gzip");
        let mut input = child.stdin.take().expect("its input");
        let writer = std::thread::spawn(move || input.write_all(&content).expect("write to gzip"));
        let output = child.wait_with_output().expect("wait for gzip");
        writer.join().expect("the writer");
        output.stdout
    })
}

/// A zip file of one end record that claims `entries` files in `length` bytes from `offset` on.
fn zip(entries: u16, length: u32, offset: u32) -> Vec<u8> {
    let mut file = b"PK\x05\x06\0\0\0\0".to_vec();
    file.extend([entries, entries].iter().flat_map(|number| number.to_le_bytes()));
    file.extend([length, offset].iter().flat_map(|number| number.to_le_bytes()));
    file.extend([0, 0]);
    file
}

/// A tar file of one header that claims a size in base 256.
fn tar(size: u64) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[0] = b'a';
    header[124] = 0x80;
    header[128..136].copy_from_slice(&size.to_be_bytes());
    header[156] = b'0';
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

/// An ELF header that claims `count` sections and segments of `length` bytes each.
fn elf(count: u16, length: u16) -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    header[32] = 64;
    header[40] = 64;
    for at in [54, 58] {
        header[at..at + 2].copy_from_slice(&length.to_le_bytes());
        header[at + 2..at + 4].copy_from_slice(&count.to_le_bytes());
    }
    header
}

#[test]
fn archives_that_claim_absurdities_are_held_back_and_hold_nobody_up() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let absurd = [
        ("many.zip", zip(0xFFFE, 0xFFFF_FFF0, 0)),
        ("far.zip", zip(1, 46, 0xFFFF_FFF0)),
        ("larger.zip", zip(0xFFFF, 0xFFFF_FFFF, 0xFFFF_FFFF)),
        ("huge.tar", tar(u64::MAX)),
        ("large.tar", tar(1 << 62)),
        ("many.so", elf(0xFFFF, 0xFFFF)),
        ("cut.tar.gz", bomb(1 << 20, 1)[..500].to_vec()),
    ];
    for (name, content) in &absurd {
        sandbox.write(format!("in/{name}"), content);
    }
    sandbox.write("in/f", "one");
    daemon.wait_deployed("f", 1);
    daemon.sync();
    assert_eq!(daemon.all_deployed().into_keys().collect::<Vec<_>>(), ["f"]);
    for (name, _) in &absurd {
        let why = String::from_utf8(sandbox.ask(["why", &format!("in/{name}")]).stdout).expect("text");
        let format = name.rsplit('.').next().expect("an extension");
        let format = if format == "so" {
            "elf"
        } else if format == "gz" {
            "gzip"
        } else {
            format
        };
        assert!(why.contains(&format!("{format}: ")), "{name}: {why}");
    }
}

#[test]
fn what_unpacks_to_more_than_it_is_costs_no_room() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let bombs = [("bomb.gz", bomb(32 << 20, 1)), ("nested.tar.gz", bomb(32 << 20, 3))];
    for (name, content) in &bombs {
        sandbox.write(format!("in/{name}"), content);
    }
    for (name, content) in &bombs {
        daemon.wait_deployed(name, 1);
        assert_eq!(std::fs::read(sandbox.path("deployed/p").join(name)).ok().as_ref(), Some(content));
    }
    let used = sandbox.run("du", ["-sk", "deployed"]).stdout;
    let used = String::from_utf8(used).expect("text");
    let used: usize = used.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number");
    assert!(used < 1024, "{used} KiB");
}
