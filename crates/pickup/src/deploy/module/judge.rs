//! A module's bytes in, what it says about itself or the reason to refuse it out. No code of it is run.

use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader, SectionHeader, Sym};
use pickup_module::contract::{
    self, ABI_MAJOR, ABI_MINOR, DESCRIPTOR_SYMBOL, Descriptor, ENTRY_SYMBOL, FLAG_THREADS, MAGIC,
};

use super::libraries::{Libraries, Missing};
use super::reason::{Reason, Refusal};

/// Larger ones are mistakes: they are held in memory while they are judged.
pub(crate) const SIZE_MAX: u64 = 512 << 20;

type Header = FileHeader64<Endianness>;
type File<'a> = ElfFile64<'a, Endianness>;

/// What a module is, as its bytes say.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) state_schema: u32,
    /// Whether it runs threads of its own.
    pub(crate) has_threads: bool,
    /// The descriptor byte for byte: what is loaded must have the same.
    pub(crate) descriptor: Vec<u8>,
}

/// Judges a module that may need `allowed` libraries, found in `libraries`.
pub(crate) fn judge(bytes: &[u8], allowed: &[String], libraries: &Libraries) -> Result<Judged, Refusal> {
    let header = header(bytes)?;
    let endian = header.endian().map_err(|_| for_another("byte order"))?;
    is_whole(header, endian, bytes)?;
    let file = File::parse(bytes).map_err(senseless)?;
    let needed = dynamic(&file)?;
    segments(&file)?;
    needs(&needed, allowed)?;
    let descriptor = described(&file)?;
    libraries.satisfy(&file, &needed).map_err(|missing| match missing {
        Missing::Library(name) => refusal(Reason::MissingLibrary, format!("it needs {name}, which is not installed")),
        Missing::Version { library, version } => {
            refusal(Reason::SymbolVersion, format!("it needs {version} of {library}, which is older here"))
        }
        Missing::Symbol(name) => {
            let text = format!("it uses `{name}`, which none of the libraries that it names defines");
            refusal(Reason::UndefinedSymbol, text)
        }
        Missing::Unreadable(why) => refusal(Reason::Format, why),
    })?;
    Ok(descriptor)
}

/// What a module says about itself, with nothing else judged.
pub(super) fn descriptor(bytes: &[u8]) -> Result<Judged, Refusal> {
    described(&File::parse(bytes).map_err(senseless)?)
}

fn senseless(error: object::Error) -> Refusal {
    refusal(Reason::Format, format!("it makes no sense: {error}"))
}

fn refusal(reason: Reason, text: impl Into<String>) -> Refusal {
    Refusal::new(reason, text)
}

fn truncated(what: &str) -> Refusal {
    refusal(Reason::Truncated, format!("its end is missing: {what} beyond the end of the file"))
}

fn for_another(what: &str) -> Refusal {
    refusal(Reason::Machine, format!("it was built for another {what}"))
}

/// The file's header, if it is a shared library for this processor.
fn header(bytes: &[u8]) -> Result<&Header, Refusal> {
    let magic = &bytes[..bytes.len().min(4)];
    if magic.is_empty() {
        return Err(refusal(Reason::Truncated, "the file is empty"));
    }
    if *magic != elf::ELFMAG[..magic.len()] {
        return Err(refusal(Reason::Format, "it is no ELF file"));
    }
    if bytes.len() < size_of::<Header>() {
        return Err(truncated("the header is"));
    }
    let host_class = if cfg!(target_pointer_width = "64") { elf::ELFCLASS64 } else { elf::ELFCLASS32 };
    let host_order = if cfg!(target_endian = "little") { elf::ELFDATA2LSB } else { elf::ELFDATA2MSB };
    if bytes[4] != host_class.0 || bytes[5] != host_order.0 {
        return Err(for_another("word size or byte order"));
    }
    let header = Header::parse(bytes).map_err(|error| refusal(Reason::Format, format!("its header: {error}")))?;
    let endian = header.endian().map_err(|_| for_another("byte order"))?;
    let machine = header.e_machine(endian);
    if Some(machine) != host_machine() {
        return Err(refusal(
            Reason::Machine,
            format!("it was built for another processor (ELF machine {})", machine.0),
        ));
    }
    if header.e_type(endian) != elf::ET_DYN {
        return Err(refusal(Reason::Format, "it is no shared library"));
    }
    Ok(header)
}

pub(super) fn host_machine() -> Option<elf::Machine> {
    match std::env::consts::ARCH {
        "x86_64" => Some(elf::EM_X86_64),
        "aarch64" => Some(elf::EM_AARCH64),
        "riscv64" => Some(elf::EM_RISCV),
        "powerpc64" => Some(elf::EM_PPC64),
        "s390x" => Some(elf::EM_S390),
        _ => None,
    }
}

/// Whether everything the headers promise lies in the file. A loader that maps what is missing dies of SIGBUS, and one
/// that does not miss it runs half a module.
fn is_whole(header: &Header, endian: Endianness, bytes: &[u8]) -> Result<(), Refusal> {
    let length = bytes.len() as u64;
    let is_inside = |offset: u64, size: u64| offset.checked_add(size).is_some_and(|end| end <= length);
    let (at, size) = (header.e_shoff(endian), u64::from(header.e_shentsize(endian)));
    if at == 0 {
        return Err(refusal(Reason::Format, "it has no section headers, so nobody can tell whether it is whole"));
    }
    if !is_inside(at, size.saturating_mul(u64::from(header.e_shnum(endian)).max(1))) {
        return Err(truncated("the section headers lie"));
    }
    let segments = header.program_headers(endian, bytes).map_err(|_| truncated("the program headers lie"))?;
    for segment in segments {
        let (offset, size) = segment.file_range(endian);
        if !is_inside(offset, size) {
            return Err(truncated("a segment lies"));
        }
    }
    let sections = header.section_headers(endian, bytes).map_err(|_| truncated("the section headers lie"))?;
    for section in sections {
        if section.file_range(endian).is_some_and(|(offset, size)| !is_inside(offset, size)) {
            return Err(truncated("a section lies"));
        }
    }
    Ok(())
}

/// The libraries it needs, if nothing else in its dynamic section speaks against it.
fn dynamic(file: &File<'_>) -> Result<Vec<String>, Refusal> {
    let endian = file.endian();
    let unreadable = |error| refusal(Reason::Format, format!("its dynamic section: {error}"));
    let dynamic = file.elf_dynamic_table().map_err(unreadable)?;
    let mut needed = Vec::new();
    for entry in dynamic.iter() {
        match entry.tag {
            elf::DT_NEEDED => {
                let name = dynamic.string(entry).map_err(unreadable)?;
                needed.push(String::from_utf8_lossy(name).into_owned());
            }
            elf::DT_RPATH | elf::DT_RUNPATH => {
                let path = dynamic.string(entry).map_err(unreadable)?;
                if path != b"$ORIGIN" && !path.is_empty() {
                    let path = String::from_utf8_lossy(path).into_owned();
                    let text = format!("it searches {path} for libraries: link it without -rpath");
                    return Err(refusal(Reason::SearchPath, text));
                }
            }
            elf::DT_FILTER | elf::DT_AUXILIARY | elf::DT_AUDIT | elf::DT_DEPAUDIT => {
                let text = "it brings in another library by the back door: link it without -f, -F and --audit";
                return Err(refusal(Reason::NeededLibrary, text));
            }
            elf::DT_TEXTREL => return Err(text_relocations()),
            elf::DT_FLAGS if has(entry.val, elf::DF_TEXTREL.0) => return Err(text_relocations()),
            elf::DT_FLAGS if has(entry.val, elf::DF_STATIC_TLS.0) => {
                let text = "it takes from the static thread-local storage, which a few generations would use up: compile \
                            it without -ftls-model=initial-exec";
                return Err(refusal(Reason::StaticTls, text));
            }
            elf::DT_FLAGS_1 if has(entry.val, elf::DF_1_PIE.0) => {
                return Err(refusal(Reason::Format, "it is a program, not a shared library"));
            }
            _ => {}
        }
    }
    // The loader goes by the segment, and what was read here is the section: they must be the same.
    let is_same =
        file.elf_program_headers().iter().filter(|segment| segment.p_type(endian) == elf::PT_DYNAMIC).all(|segment| {
            let found: Result<Option<&[elf::Dyn64<Endianness>]>, _> = segment.dynamic(endian, file.data());
            let tags = |entries: &[elf::Dyn64<Endianness>]| -> Vec<_> {
                let entries = entries.iter().map(|entry| (entry.d_tag(endian), entry.d_val(endian)));
                entries.take_while(|(tag, _)| *tag != elf::DT_NULL).collect()
            };
            found.ok().flatten().is_some_and(|found| tags(found) == tags(dynamic.dynamics()))
        });
    if !is_same || needed.len() > 1000 {
        return Err(refusal(Reason::Format, "its dynamic section and its dynamic segment differ"));
    }
    Ok(needed)
}

fn has(value: u64, flag: u64) -> bool {
    value & flag != 0
}

fn text_relocations() -> Refusal {
    refusal(Reason::TextRelocations, "its code would have to be changed while it is loaded: compile it with -fPIC")
}

fn segments(file: &File<'_>) -> Result<(), Refusal> {
    let endian = file.endian();
    let mut stacks = file.elf_program_headers().iter().filter(|segment| segment.p_type(endian) == elf::PT_GNU_STACK);
    // Without a word about it, the loader makes every stack of the process executable.
    if stacks.next().is_none_or(|stack| stack.p_flags(endian).contains(elf::PF_X)) {
        let text = "it asks for an executable stack, for the whole process: link it with -z noexecstack";
        return Err(refusal(Reason::ExecutableStack, text));
    }
    Ok(())
}

/// What every module may need: the C library in its parts, and what unwinds a panic.
const ALWAYS_ALLOWED: &[&str] = &[
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
    "ld-linux-riscv64-lp64d.so.1",
    "ld64.so.1",
    "ld64.so.2",
];

fn needs(needed: &[String], allowed: &[String]) -> Result<(), Refusal> {
    let is_allowed = |name: &&String| {
        !name.contains('/') && (ALWAYS_ALLOWED.contains(&name.as_str()) || allowed.iter().any(|known| known == *name))
    };
    match needed.iter().find(|name| !is_allowed(name)) {
        None => Ok(()),
        Some(name) if name.starts_with("libc.") => {
            Err(refusal(Reason::NeededLibrary, format!("it was built for another C library: it needs {name}")))
        }
        Some(name) => {
            let text = format!("it needs {name}, which `allow_needed` does not name");
            Err(refusal(Reason::NeededLibrary, text))
        }
    }
}

/// What it says about itself, if it has both symbols of the contract and they make sense.
fn described(file: &File<'_>) -> Result<Judged, Refusal> {
    symbol(file, ENTRY_SYMBOL, elf::STT_FUNC)?;
    let (address, size) = symbol(file, DESCRIPTOR_SYMBOL, elf::STT_OBJECT)?;
    let invalid = |text: &str| refusal(Reason::Descriptor, format!("{DESCRIPTOR_SYMBOL} {text}"));
    let length = size_of::<Descriptor>() as u64;
    if size < length {
        return Err(invalid("is too short"));
    }
    let endian = file.endian();
    let loaded = file.elf_program_headers().iter().filter(|segment| segment.p_type(endian) == elf::PT_LOAD);
    let mut holds = loaded.filter_map(|segment| {
        let found = segment.data_range(endian, file.data(), address, length).ok().flatten()?;
        Some((segment.p_flags(endian), found))
    });
    let (flags, bytes) = holds.next().ok_or_else(|| invalid("is not in the file"))?;
    if flags.contains(elf::PF_W) {
        return Err(invalid("is not constant"));
    }
    let found = Descriptor::read(bytes).ok_or_else(|| invalid("is too short"))?;
    if found.magic != MAGIC || u64::from(found.size) < length {
        return Err(invalid("is none: use the header or the macro of pickup-module"));
    }
    if found.abi_major != ABI_MAJOR || found.abi_minor > ABI_MINOR {
        let (major, minor) = (found.abi_major, found.abi_minor);
        let text = format!("it was built for version {major}.{minor} of the contract, this is {ABI_MAJOR}.{ABI_MINOR}");
        return Err(refusal(Reason::AbiVersion, text));
    }
    let unknown = found.flags & !FLAG_THREADS;
    if unknown != 0 {
        return Err(refusal(
            Reason::AbiVersion,
            format!("it asks for what this version does not know (flag {unknown:#x})"),
        ));
    }
    let (target, here) = (contract::text(&found.target), contract::text(&contract::target()));
    if target != here {
        return Err(refusal(Reason::Target, format!("it was built for {target}, this is {here}")));
    }
    let (name, version) = (contract::text(&found.name), contract::text(&found.version));
    if name.is_empty() || [&name, &version].iter().any(|text| text.contains(char::is_control)) {
        return Err(invalid("gives it no proper name and version"));
    }
    Ok(Judged {
        name,
        version,
        state_schema: found.state_schema,
        has_threads: found.flags & FLAG_THREADS != 0,
        descriptor: bytes.to_vec(),
    })
}

/// The address and size of a symbol that it exports.
fn symbol(file: &File<'_>, name: &str, kind: elf::SymbolType) -> Result<(u64, u64), Refusal> {
    let (endian, symbols) = (file.endian(), file.elf_dynamic_symbol_table());
    let is_it = |symbol: &&elf::Sym64<Endianness>| {
        symbols.symbol_name(endian, symbol).is_ok_and(|found| found == name.as_bytes()) && !symbol.is_undefined(endian)
    };
    let found = symbols.iter().find(is_it).ok_or_else(|| {
        refusal(
            Reason::MissingSymbol,
            format!("it does not export `{name}`: it is no module, or its symbols are hidden"),
        )
    })?;
    let is_exported = found.st_bind() == elf::STB_GLOBAL && found.st_visibility() == elf::STV_DEFAULT;
    if !is_exported || found.st_type() != kind {
        return Err(refusal(Reason::MissingSymbol, format!("`{name}` is not what the contract says it is")));
    }
    Ok((found.st_value(endian), found.st_size(endian)))
}

#[cfg(test)]
mod tests;
