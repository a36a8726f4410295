use super::super::testing::compiled;
use super::*;

fn judged(bytes: &[u8]) -> Result<Judged, Refusal> {
    judge(bytes, &[], &Libraries::of_system())
}

/// Compiles with these arguments; the module is refused for this reason, in a sentence that says `text`.
#[track_caller]
fn refuses(arguments: &[&str], reason: Reason, text: &str) {
    let refusal = judged(&compiled(arguments)).unwrap_err();
    assert_eq!(refusal.reason(), reason, "{refusal}");
    assert!(refusal.text().contains(text), "{refusal}");
}

#[test]
fn a_good_module_says_what_it_is() {
    let judged = judged(&compiled(&["-DVERSION=\"4.2\""])).unwrap();
    assert_eq!((judged.name.as_str(), judged.version.as_str(), judged.state_schema), ("counter", "4.2", 7));
    assert_eq!(judged.descriptor.len(), size_of::<Descriptor>());
}

#[test]
fn a_module_cut_anywhere_is_truncated() {
    let bytes = compiled(&[]);
    assert!(bytes.len() > 16 << 10);
    let cuts = (0..bytes.len()).step_by(512).chain([1, 3, 63, 64, 65, bytes.len() - 1]);
    for length in cuts {
        let refusal = judged(&bytes[..length]).unwrap_err();
        assert_eq!(refusal.reason(), Reason::Truncated, "{length}: {refusal}");
    }
}

#[test]
fn what_is_no_library_for_this_processor_is_refused() {
    let bytes = compiled(&[]);
    let patched = |at: usize, byte: u8| {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        judged(&bytes).unwrap_err().reason()
    };
    assert_eq!(judged(b"#!/bin/sh\n").unwrap_err().reason(), Reason::Format);
    assert_eq!(patched(4, 1), Reason::Machine, "32 bits");
    assert_eq!(patched(5, 2), Reason::Machine, "big-endian");
    assert_eq!(patched(16, 2), Reason::Format, "a program");
    assert_eq!(patched(18, 21), Reason::Machine, "e_machine");
    refuses(&["-pie", "-fPIE", "-DEXTRA=int main(void){return 0;}", "-no-pie"], Reason::Format, "no shared library");
}

#[test]
fn what_it_asks_of_the_loader_can_be_too_much() {
    refuses(&["-Wl,-z,execstack"], Reason::ExecutableStack, "noexecstack");
    refuses(&["-Wl,-rpath,/tmp"], Reason::SearchPath, "/tmp");
    assert!(judged(&compiled(&["-Wl,-rpath,$ORIGIN"])).is_ok());
    let static_tls = ["-ftls-model=initial-exec", "-DEXTRA=__thread int x; int *px(void) { return &x; }"];
    refuses(&static_tls, Reason::StaticTls, "initial-exec");
}

#[test]
fn what_it_needs_must_be_allowed_and_there() {
    refuses(&["-Wl,--no-as-needed", "-lutil", "-lanl"], Reason::NeededLibrary, "allow_needed");
    refuses(&["-Wl,--auxiliary,libz.so.1"], Reason::NeededLibrary, "back door");
    let directory = tempfile::tempdir().unwrap();
    let library = directory.path().join("libelsewhere.so");
    let arguments = ["-shared", "-xc", "/dev/null", "-Wl,-soname,libelsewhere.so.3", "-o"];
    assert!(std::process::Command::new("cc").args(arguments).arg(&library).status().unwrap().success());
    let bytes = compiled(&["-Wl,--no-as-needed", library.to_str().unwrap()]);
    assert_eq!(judged(&bytes).unwrap_err().reason(), Reason::NeededLibrary);
    let refusal = judge(&bytes, &["libelsewhere.so.3".into()], &Libraries::of_system()).unwrap_err();
    assert_eq!(refusal.reason(), Reason::MissingLibrary, "{refusal}");
}

#[test]
fn every_symbol_it_uses_must_be_there() {
    let uses = "-DEXTRA=extern int nowhere(void); int use(void) { return nowhere(); }";
    refuses(&[uses], Reason::UndefinedSymbol, "`nowhere`");
    let weak =
        "-DEXTRA=extern int nowhere(void) __attribute__((weak)); int use(void) { return nowhere ? nowhere() : 0; }";
    assert!(judged(&compiled(&[weak])).is_ok());
}

#[test]
fn a_version_that_is_not_there_is_too_new() {
    let mut bytes = compiled(&["-DEXTRA=int use(void) { return puts(\"\"); }"]);
    let versions: Vec<usize> =
        bytes.windows(8).enumerate().filter(|(_, text)| text == b"GLIBC_2.").map(|(at, _)| at).collect();
    for at in versions {
        bytes[at + 8] = b'9';
    }
    let refusal = judged(&bytes).unwrap_err();
    assert_eq!(refusal.reason(), Reason::SymbolVersion, "{refusal}");
    assert!(refusal.text().contains("libc.so.6"), "{refusal}");
}

#[test]
fn both_symbols_of_the_contract_must_be_there_and_make_sense() {
    refuses(&["-DWITHOUT_ENTRY"], Reason::MissingSymbol, "pickup_module_entry_v1");
    refuses(&["-DWITHOUT_DESCRIPTOR"], Reason::MissingSymbol, "pickup_module_descriptor_v1");
    let descriptor = |text: &str| {
        format!("-DEXTRA={text} const pickup_descriptor pickup_module_descriptor_v1 = {{ PICKUP_MODULE_MAGIC, 208, ")
    };
    let rest = "0, 0, { 0 }, \"a\", \"1\", PICKUP_MODULE_TARGET };";
    for (extra, reason, text) in [
        (descriptor("") + "2, 0, " + rest, Reason::AbiVersion, "version 2.0"),
        (descriptor("") + "1, 9, " + rest, Reason::AbiVersion, "version 1.9"),
        (descriptor("") + "1, 0, 8, 0, { 0 }, \"a\", \"1\", PICKUP_MODULE_TARGET };", Reason::AbiVersion, "flag 0x8"),
        (descriptor("") + "1, 0, 0, 0, { 0 }, \"\", \"1\", PICKUP_MODULE_TARGET };", Reason::Descriptor, "proper name"),
        (descriptor("") + "1, 0, 0, 0, { 0 }, \"a\", \"1\", \"z80-cpm\" };", Reason::Target, "z80-cpm"),
        ("-DEXTRA=pickup_descriptor pickup_module_descriptor_v1 = { 1 };".into(), Reason::Descriptor, "constant"),
        ("-DEXTRA=const char pickup_module_descriptor_v1[8] = { 1 };".into(), Reason::Descriptor, "too short"),
        ("-DEXTRA=const char pickup_module_descriptor_v1[208] = { 1 };".into(), Reason::Descriptor, "none"),
        ("-DEXTRA=void pickup_module_descriptor_v1(void) {}".into(), Reason::MissingSymbol, "not what the contract"),
    ] {
        refuses(&["-DWITHOUT_DESCRIPTOR", &extra], reason, text);
    }
}

#[test]
fn no_change_of_one_byte_makes_the_judge_panic() {
    let bytes = compiled(&["-s"]);
    let libraries = Libraries::default();
    for at in (0..bytes.len()).step_by(7) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 0xff;
        let _verdict = judge(&bytes, &[], &libraries);
    }
}
