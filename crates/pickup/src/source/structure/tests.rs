#![expect(clippy::disallowed_methods, reason = "some samples are files")]
use std::io::{Cursor, Write};
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;

use super::*;

fn judge(name: &str, bytes: &[u8]) -> Shape {
    shape_of(&mut Cursor::new(bytes), OsStr::new(name), bytes.len() as u64).unwrap()
}

#[track_caller]
fn assert_partial(name: &str, bytes: &[u8], what: &str) {
    assert!(matches!(judge(name, bytes), Shape::Partial(_)), "{name}: {what} passes for whole");
}

fn assert_every_truncation_is_partial(name: &str, whole: &[u8]) {
    assert_eq!(judge(name, whole), Shape::Whole, "{name}");
    for length in 0..whole.len() {
        assert_partial(name, &whole[..length], &format!("{length} of {} bytes", whole.len()));
    }
}

/// A file for [`zip`]: its name and its bytes, stored as they are.
type Entry<'a> = (&'a str, &'a [u8]);

fn zip(entries: &[Entry<'_>], comment: &[u8]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let mut sum = flate2::Crc::new();
        sum.update(data);
        let mut common = vec![10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend(sum.sum().to_le_bytes());
        common.extend((data.len() as u32).to_le_bytes());
        common.extend((data.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0, 0]);
        directory.extend(b"PK\x01\x02\x0a\0");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend((archive.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        archive.extend(b"PK\x03\x04");
        archive.extend(&common);
        archive.extend(name.as_bytes());
        archive.extend(*data);
    }
    let offset = archive.len() as u32;
    archive.extend(&directory);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    archive.extend((entries.len() as u16).to_le_bytes());
    archive.extend((entries.len() as u16).to_le_bytes());
    archive.extend((directory.len() as u32).to_le_bytes());
    archive.extend(offset.to_le_bytes());
    archive.extend((comment.len() as u16).to_le_bytes());
    archive.extend(comment);
    archive
}

/// The same archive with its end record's numbers moved to ZIP64 records.
fn zip64(entries: &[Entry<'_>]) -> Vec<u8> {
    let small = zip(entries, b"");
    let (body, end) = small.split_at(small.len() - 22);
    let mut archive = body.to_vec();
    archive.extend(b"PK\x06\x06");
    archive.extend(44_u64.to_le_bytes());
    archive.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for _ in 0..2 {
        archive.extend((entries.len() as u64).to_le_bytes());
    }
    archive.extend(little(&end[12..16]).to_le_bytes());
    archive.extend(little(&end[16..20]).to_le_bytes());
    archive.extend(b"PK\x06\x07\0\0\0\0");
    archive.extend((body.len() as u64).to_le_bytes());
    archive.extend([1, 0, 0, 0]);
    archive.extend(b"PK\x05\x06\0\0\0\0");
    archive.extend([0xFF; 12]);
    archive.extend([0, 0]);
    archive
}

fn tar_header(name: &str, kind: u8, size: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..124 + size.len()].copy_from_slice(size);
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn tar_entry(name: &str, kind: u8, data: &[u8]) -> Vec<u8> {
    let mut entry = tar_header(name, kind, format!("{:011o}\0", data.len()).as_bytes());
    entry.extend(data);
    entry.resize(entry.len().next_multiple_of(512), 0);
    entry
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn half_zip_is_not_whole() {
    let files: [Entry<'_>; 2] = [("a.txt", b"hello"), ("META-INF/MANIFEST.MF", b"Manifest-Version: 1.0")];
    for name in ["a.zip", "a.jar", "a.WAR", "a.whl", "a.apk", "a.nupkg"] {
        assert_every_truncation_is_partial(name, &zip(&files, b""));
    }
    assert_every_truncation_is_partial("commented.zip", &zip(&files, b"a comment with PK\x05\x06 in it"));
    assert_every_truncation_is_partial("empty.zip", &zip(&[], b""));
    assert_eq!(judge("a.txt", &zip(&files, b"")[..30]), Shape::Whole, "the name does not say zip");
}

#[test]
fn half_zip64_is_not_whole() {
    assert_every_truncation_is_partial("a.zip", &zip64(&[("a", b"1"), ("b", b"2")]));
}

#[test]
fn an_archive_within_a_half_archive_does_not_make_it_whole() {
    let inner = zip(&[("x", b"inner")], b"");
    assert_every_truncation_is_partial("outer.zip", &zip(&[("inner.jar", &inner), ("z", b"last")], b""));
}

#[test]
fn a_program_before_a_zip_is_allowed() {
    let mut archive = b"#!/usr/bin/env python3\n".to_vec();
    archive.extend(zip(&[("__main__.py", b"print()")], b""));
    assert_every_truncation_is_partial("app.pyz", &archive);
    let mut large = b"#!/bin/sh\n".to_vec();
    large.extend(zip64(&[("a", b"1")]));
    assert_every_truncation_is_partial("app.jar", &large);
}

#[test]
fn a_zip_whose_beginning_is_a_hole_is_not_whole() {
    let mut archive = zip(&[("a", b"12345")], b"");
    archive[..20].fill(0);
    assert_partial("a.zip", &archive, "a hole");
}

#[test]
fn half_gzip_is_not_whole() {
    let one = gzip(&b"some text, ".repeat(50));
    for name in ["a.gz", "a.tgz", "a.tar.gz", "A.TAR.GZ"] {
        assert_every_truncation_is_partial(name, &one);
    }
    let two = [one.clone(), gzip(b"second")].concat();
    assert_eq!(judge("a.gz", &two), Shape::Whole);
    for length in (0..two.len()).filter(|length| *length != one.len()) {
        assert_partial("a.gz", &two[..length], "half a second member");
    }
    assert_eq!(judge("a.gz", &[one.clone(), vec![0; 1024]].concat()), Shape::Whole, "padding of a tape");
    assert_partial("a.gz", &[one, vec![0; 9], vec![1]].concat(), "garbage after padding");
}

#[test]
fn a_damaged_gzip_checksum_is_not_whole() {
    let mut archive = gzip(b"some text");
    let sum = archive.len() - 8;
    archive[sum] ^= 1;
    assert_partial("a.gz", &archive, "a wrong checksum");
}

#[test]
fn half_tar_is_not_whole() {
    let mut archive = [tar_entry("d/", b'5', b""), tar_entry("d/a", b'0', &[b'x'; 700])].concat();
    archive.extend(tar_entry("empty", b'0', b""));
    archive.extend(tar_header("hard", b'1', b"00000001274\0"));
    archive.extend(tar_entry("last", b'0', b"end"));
    archive.extend([0; 512]);
    assert_every_truncation_is_partial("a.tar", &archive);
    archive.extend([0; 512 * 17]);
    assert_eq!(judge("a.tar", &archive), Shape::Whole);
}

#[test]
fn sizes_that_octal_digits_cannot_hold_are_understood() {
    let mut base_256 = [0; 12];
    (base_256[0], base_256[11]) = (0x80, 5);
    let mut archive = tar_header("a", b'0', &base_256);
    archive.extend([b"12345".as_slice(), &[0; 507], &[0; 512]].concat());
    assert_every_truncation_is_partial("base-256.tar", &archive);

    let mut archive = tar_entry("pax", b'x', b"18 path=long/name\n12 size=600\n");
    archive.extend(tar_header("a", b'0', b"00000000000\0"));
    archive.extend([0xEE; 600]);
    archive.extend([0; 424 + 512]);
    assert_every_truncation_is_partial("pax.tar", &archive);
}

#[test]
fn a_sparse_map_is_passed_over() {
    let mut header = tar_header("sparse", b'S', b"00000001000\0");
    header[SPARSE_FLAG] = 1;
    let sum: u32 =
        header.iter().enumerate().map(|(at, b)| u32::from(if (148..156).contains(&at) { b' ' } else { *b })).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let archive = [header, vec![0; 512], vec![7; 512], vec![0; 512]].concat();
    assert_every_truncation_is_partial("sparse.tar", &archive);
}

const SPARSE_FLAG: usize = 482;

#[test]
fn real_programs_make_archives_that_are_whole() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("a"), vec![b'a'; 3000]).unwrap();
    std::fs::write(directory.path().join("b"), b"b").unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory.path()).stdin(Stdio::null()).stderr(Stdio::null());
        // A machine without the program proves nothing either way.
        command.output().ok().filter(|output| output.status.success()).map(|output| output.stdout)
    };
    for format in ["v7", "ustar", "gnu", "pax"] {
        if let Some(archive) = run("tar", &["-c", &format!("--format={format}"), "a", "b"]) {
            assert_eq!(judge("x.tar", &archive), Shape::Whole, "{format}");
            for length in (0..4096).step_by(7) {
                assert_partial("x.tar", &archive[..length], format);
            }
        }
    }
    if let Some(archive) = run("xz", &["-c", "a"]) {
        assert_every_truncation_is_partial("a.xz", &archive);
    }
    if let Some(archive) = run("gzip", &["-c", "a"]) {
        assert_every_truncation_is_partial("a.gz", &archive);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn half_program_is_not_whole_whatever_its_name() {
    for path in [std::env::current_exe().unwrap(), "/bin/true".into()] {
        let program = std::fs::read(&path).unwrap();
        assert_eq!(judge("program", &program), Shape::Whole, "{}", path.display());
        let step = (program.len() / 500).max(1);
        for length in (1..200).chain((200..program.len()).step_by(step)).chain([program.len() - 1]) {
            assert_partial("program", &program[..length], &format!("{length} of {}", program.len()));
        }
    }
}

/// A header of 32 bits and the other byte order, one segment, and nothing else.
#[test]
fn a_big_endian_program_of_32_bits_is_understood() {
    let mut program = vec![0; 52];
    program[..7].copy_from_slice(b"\x7fELF\x01\x02\x01");
    program[28..32].copy_from_slice(&52_u32.to_be_bytes());
    program[42..44].copy_from_slice(&32_u16.to_be_bytes());
    program[44..46].copy_from_slice(&1_u16.to_be_bytes());
    let mut segment = [0; 32];
    segment[4..8].copy_from_slice(&84_u32.to_be_bytes());
    segment[16..20].copy_from_slice(&100_u32.to_be_bytes());
    program.extend(segment);
    program.extend([1; 100]);
    for length in 1..program.len() {
        assert_partial("library", &program[..length], "half");
    }
    assert_eq!(judge("library", &program), Shape::Whole);
}

#[test]
fn the_reason_is_a_sentence_that_names_the_format() {
    let reason = |name: &str, bytes: &[u8]| match judge(name, bytes) {
        Shape::Partial(why) => why,
        Shape::Whole => panic!("{name} is whole"),
    };
    assert_eq!(reason("a.zip", b"PK\x03\x04"), "zip: no end-of-central-directory record");
    assert_eq!(reason("a.jar", b""), "zip: the file is empty");
    assert_eq!(reason("a.gz", &gzip(b"x")[..12]), "gzip: the compressed data is cut off");
    assert_eq!(reason("a.tar", &tar_entry("a", b'0', b"x")), "tar: no end-of-archive block");
    assert_eq!(reason("a.xz", b"\xFD7zXZ\0\0\0\0\0\0\0"), "xz: no stream footer");
    assert_eq!(reason("a", b"\x7fELF"), "elf: the header is cut off");
}

#[test]
fn text_and_empty_files_without_a_format_are_whole() {
    for name in ["a.txt", "a", ".zip.txt", "Makefile"] {
        assert_eq!(judge(name, b""), Shape::Whole, "{name}");
        assert_eq!(judge(name, b"hello"), Shape::Whole, "{name}");
    }
}

const NAMES: [&str; 5] = ["a.zip", "a.tar", "a.gz", "a.xz", "a"];

proptest! {
    #[test]
    fn random_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        size in prop_oneof![Just(None), any::<u64>().prop_map(Some)],
    ) {
        let size = size.unwrap_or(bytes.len() as u64);
        for name in NAMES {
            let _ = shape_of(&mut Cursor::new(&bytes), OsStr::new(name), size);
        }
    }

    #[test]
    fn damaged_archives_never_panic(at in any::<prop::sample::Index>(), with in any::<[u8; 8]>(), archive in 0_usize..5) {
        let files: [Entry<'_>; 2] = [("a", b"1"), ("b", b"2")];
        let program = || {
            let mut program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
            program.truncate(4096);
            program
        };
        let (name, mut bytes) = match archive {
            0 => ("a.zip", zip(&files, b"")),
            1 => ("a.zip", zip64(&files)),
            2 => ("a.tar", [tar_entry("pax", b'x', b"12 size=600\n"), tar_entry("a", b'S', b"x"), vec![0; 512]].concat()),
            3 => ("a.gz", gzip(b"hello")),
            _ => ("a", program()),
        };
        let at = at.index(bytes.len());
        let length = with.len().min(bytes.len() - at);
        bytes[at..at + length].copy_from_slice(&with[..length]);
        let _ = judge(name, &bytes);
    }
}
