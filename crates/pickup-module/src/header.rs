//! The C header, made from the contract, and a C compiler's word that both mean the same.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::contract::{self, Status};

/// A struct of the contract.
pub(crate) struct Layout {
    pub c_name: &'static str,
    pub docs: &'static [&'static str],
    pub size: usize,
    pub fields: Vec<Field>,
}

/// One field of it.
pub(crate) struct Field {
    pub name: &'static str,
    pub docs: &'static [&'static str],
    pub declarator: &'static str,
    pub offset: usize,
}

const START: &str = "\
/* The contract between pickup and the modules it loads.
 * Made from crates/pickup-module/src/contract.rs: UPDATE_HEADER=1 cargo test -p pickup-module
 *
 * A module defines two symbols: `const pickup_descriptor pickup_module_descriptor_v1`, which is read from the file before
 * any code runs, and `pickup_module_entry_v1`, which gives its table of functions. PICKUP_MODULE_DESCRIPTOR writes the
 * first one. Each side frees what it allocated; whatever a module returns it writes to a sink. Nothing is ever unloaded.
 */
#ifndef PICKUP_MODULE_H
#define PICKUP_MODULE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern \"C\" {
#endif

#if defined(__x86_64__)
#define PICKUP_MODULE_ARCH \"x86_64\"
#elif defined(__aarch64__)
#define PICKUP_MODULE_ARCH \"aarch64\"
#elif defined(__riscv) && __riscv_xlen == 64
#define PICKUP_MODULE_ARCH \"riscv64\"
#else
#error \"pickup_module.h does not know this architecture\"
#endif
#if defined(__linux__)
#define PICKUP_MODULE_TARGET PICKUP_MODULE_ARCH \"-linux\"
#else
#error \"pickup_module.h does not know this system\"
#endif
#define PICKUP_MODULE_EXPORT __attribute__((visibility(\"default\")))
";

const END: &str = "
/* Gives the module's functions, or NULL if it cannot serve a host that knows only this abi_minor. */
PICKUP_MODULE_EXPORT const pickup_module_table *pickup_module_entry_v1(uint32_t host_abi_minor);

/* Defines what the module says about itself; flags are PICKUP_MODULE_FLAG_... or 0, schema is 0 if it exports no state. */
#define PICKUP_MODULE_DESCRIPTOR(module_name, module_version, module_flags, schema) \\
    extern PICKUP_MODULE_EXPORT const pickup_descriptor pickup_module_descriptor_v1; \\
    const pickup_descriptor pickup_module_descriptor_v1 = { \\
        PICKUP_MODULE_MAGIC, (uint32_t)sizeof(pickup_descriptor), PICKUP_MODULE_ABI_MAJOR, PICKUP_MODULE_ABI_MINOR, \\
        (module_flags), (schema), { 0 }, module_name, module_version, PICKUP_MODULE_TARGET \\
    }

#ifdef __cplusplus
}
#endif

#endif
";

fn header() -> String {
    let mut text = START.to_owned();
    let _ = writeln!(text, "\n#define PICKUP_MODULE_MAGIC UINT64_C({:#018x})", contract::MAGIC);
    let _ = writeln!(text, "#define PICKUP_MODULE_ABI_MAJOR UINT32_C({})", contract::ABI_MAJOR);
    let _ = writeln!(text, "#define PICKUP_MODULE_ABI_MINOR UINT32_C({})", contract::ABI_MINOR);
    text.push_str("/* The module runs threads of its own between activate and drain. */\n");
    let _ = writeln!(text, "#define PICKUP_MODULE_FLAG_THREADS UINT32_C({})", contract::FLAG_THREADS);
    text.push_str("\n/* What a call came to. */\ntypedef enum pickup_status {\n");
    for (name, status, doc) in [
        ("OK", Status::Ok, "Done."),
        ("NOT_YET", Status::NotYet, "Of health: not healthy yet, ask again."),
        ("FAILED", Status::Failed, "Failed; the reason is in the sink for errors."),
        ("PANICKED", Status::Panicked, "The module's code panicked, and the panic was caught."),
        ("UNKNOWN_OPERATION", Status::UnknownOperation, "Of handle: there is no such operation."),
    ] {
        let _ = writeln!(text, "    /* {doc} */\n    PICKUP_{name} = {},", status as i32);
    }
    text.push_str("} pickup_status;\n");
    // C wants a name before it is used; Rust does not mind.
    let mut layouts = contract::layouts();
    layouts.sort_by_key(|layout| layout.c_name == "pickup_module_table");
    for Layout { c_name, docs, fields, .. } in &layouts {
        let _ = write!(text, "\n{}typedef struct {c_name} {{\n", comment(docs, ""));
        for Field { docs, declarator, .. } in fields {
            let _ = writeln!(text, "{}    {declarator};", comment(docs, "    "));
        }
        let _ = writeln!(text, "}} {c_name};");
    }
    text.push_str(END);
    text
}

fn comment(docs: &[&str], indent: &str) -> String {
    let lines: Vec<_> = docs.iter().map(|line| line.trim()).collect();
    format!("{indent}/* {} */\n", lines.join(&format!("\n{indent} * ")))
}

fn include() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("include")
}

#[test]
fn the_header_is_current() {
    let path = include().join("pickup_module.h");
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    if current != header() && std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&path, header()).unwrap();
    } else {
        assert!(current == header(), "the header is not current: UPDATE_HEADER=1 cargo test -p pickup-module");
    }
}

#[test]
fn a_c_compiler_sees_the_same_sizes_and_offsets() {
    let mut source = String::from("#include \"pickup_module.h\"\n");
    for Layout { c_name, size, fields, .. } in contract::layouts() {
        let _ = writeln!(source, "_Static_assert(sizeof({c_name}) == {size}, \"{c_name}\");");
        for Field { name, offset, .. } in fields {
            let _ = writeln!(source, "_Static_assert(offsetof({c_name}, {name}) == {offset}, \"{c_name}.{name}\");");
        }
    }
    source.push_str("PICKUP_MODULE_DESCRIPTOR(\"a\", \"1\", PICKUP_MODULE_FLAG_THREADS, 3);\n");
    for standard in ["-std=c11", "-std=gnu17"] {
        let mut compiler = Command::new("cc");
        compiler.args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-xc", "-I"]);
        compiler.arg(include()).arg("-").stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut compiler = compiler.spawn().unwrap();
        compiler.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
        let output = compiler.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
