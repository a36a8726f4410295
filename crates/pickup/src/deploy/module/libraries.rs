//! Whether the libraries that a module names have what it needs, told from their bytes.
//!
//! They are looked for where the loader does: in its cache and in the standard directories. What the environment adds
//! (`LD_LIBRARY_PATH`) does not count.
#![expect(clippy::disallowed_methods, reason = "this is a door: it reads the system's libraries")]

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf;
use object::read::elf::{ElfFile64, FileHeader, Sym};

type File<'a> = ElfFile64<'a, Endianness>;

const CACHE: &str = "/etc/ld.so.cache";

/// Where libraries are installed on any distribution.
const DIRECTORIES: [&str; 4] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib"];

/// How many libraries one module may bring along by way of others.
const CLOSURE_MAX: usize = 200;

/// What a module needs and does not find.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    Library(String),
    Version { library: String, version: String },
    Symbol(String),
    Unreadable(String),
}

/// Where libraries are found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Libraries {
    cache: HashMap<String, Vec<PathBuf>>,
    directories: Vec<PathBuf>,
}

/// What one library offers.
#[derive(Default)]
struct Library {
    exports: HashSet<Vec<u8>>,
    versions: HashSet<Vec<u8>>,
    needed: Vec<String>,
}

impl Libraries {
    /// Those of this system.
    pub(crate) fn of_system() -> Self {
        let multiarch = format!("{}-linux-gnu", std::env::consts::ARCH);
        let directories = DIRECTORIES.iter().flat_map(|directory| {
            let directory = Path::new(directory);
            [directory.join(&multiarch), directory.to_path_buf()]
        });
        let cache = std::fs::read(CACHE).map(|bytes| entries(&bytes)).unwrap_or_default();
        Self { cache, directories: directories.collect() }
    }

    /// Whether `needed` and what those need in turn have everything that `file` uses.
    pub(crate) fn satisfy(&self, file: &File<'_>, needed: &[String]) -> Result<(), Missing> {
        let mut found: HashMap<String, Library> = HashMap::new();
        let mut wanted: Vec<String> = needed.to_vec();
        while let Some(name) = wanted.pop() {
            if found.contains_key(&name) || found.len() >= CLOSURE_MAX {
                continue;
            }
            let library = self.read(&name).ok_or_else(|| Missing::Library(name.clone()))?;
            wanted.extend(library.needed.iter().cloned());
            found.insert(name, library);
        }
        for (library, version) in versions_needed(file).map_err(unreadable)? {
            // What is found under another name is somebody else's; the loader will say.
            let Some(offers) = found.get(&library) else { continue };
            if !offers.versions.contains(&version) {
                return Err(Missing::Version { library, version: String::from_utf8_lossy(&version).into_owned() });
            }
        }
        let (endian, symbols) = (file.endian(), file.elf_dynamic_symbol_table());
        for symbol in symbols.iter().skip(1).filter(|symbol| symbol.is_undefined(endian) && !symbol.is_weak()) {
            let name = symbols.symbol_name(endian, symbol).map_err(unreadable)?;
            if !name.is_empty() && !found.values().any(|library| library.exports.contains(name)) {
                return Err(Missing::Symbol(String::from_utf8_lossy(name).into_owned()));
            }
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Option<Library> {
        let cached = self.cache.get(name).into_iter().flatten().cloned();
        let mut paths = cached.chain(self.directories.iter().map(|directory| directory.join(name)));
        paths.find_map(|path| offered(&std::fs::read(path).ok()?))
    }
}

fn unreadable(error: object::Error) -> Missing {
    Missing::Unreadable(format!("its symbols make no sense: {error}"))
}

/// What a library for this processor offers; `None` if it is something else.
fn offered(bytes: &[u8]) -> Option<Library> {
    let file = File::parse(bytes).ok()?;
    let own = super::judge::host_machine();
    let (endian, header) = (file.endian(), file.elf_header());
    if Some(header.e_machine(endian)) != own {
        return None;
    }
    let mut library = Library::default();
    let symbols = file.elf_dynamic_symbol_table();
    for symbol in symbols.iter().filter(|symbol| !symbol.is_undefined(endian) && !symbol.is_local()) {
        library.exports.insert(symbols.symbol_name(endian, symbol).ok()?.to_vec());
    }
    let dynamic = file.elf_dynamic_table().ok()?;
    for entry in dynamic.iter().filter(|entry| entry.tag == elf::DT_NEEDED) {
        library.needed.push(String::from_utf8_lossy(dynamic.string(entry).ok()?).into_owned());
    }
    if let Some((mut definitions, link)) = file.elf_section_table().gnu_verdef(endian, bytes).ok()? {
        let strings = file.elf_section_table().strings(endian, bytes, link).ok()?;
        while let Some((_, mut names)) = definitions.next().ok()? {
            if let Some(name) = names.next().ok()? {
                library.versions.insert(name.name(endian, strings).ok()?.to_vec());
            }
        }
    }
    Some(library)
}

/// The libraries and the versions of them that `file` needs.
fn versions_needed(file: &File<'_>) -> object::Result<Vec<(String, Vec<u8>)>> {
    let (endian, sections) = (file.endian(), file.elf_section_table());
    let mut needed = Vec::new();
    let Some((mut libraries, link)) = sections.gnu_verneed(endian, file.data())? else { return Ok(needed) };
    let strings = sections.strings(endian, file.data(), link)?;
    while let Some((library, mut versions)) = libraries.next()? {
        let name = String::from_utf8_lossy(library.file(endian, strings)?).into_owned();
        while let Some(version) = versions.next()? {
            if !version.vna_flags.get(endian).contains(elf::VER_FLG_WEAK) {
                needed.push((name.clone(), version.name(endian, strings)?.to_vec()));
            }
        }
    }
    Ok(needed)
}

/// The names and paths in the loader's cache: see `dl-cache.h` of glibc. Whatever is not understood is left out.
fn entries(bytes: &[u8]) -> HashMap<String, Vec<PathBuf>> {
    const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
    const HEADER: usize = 48;
    const ENTRY: usize = 24;
    let mut found: HashMap<String, Vec<PathBuf>> = HashMap::new();
    // A cache for old loaders may come first.
    let Some(at) = bytes.windows(MAGIC.len()).position(|window| window == MAGIC) else { return found };
    let bytes = &bytes[at..];
    let number = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let text = |at: usize| {
        let rest = bytes.get(at..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    };
    let count = number(MAGIC.len()).unwrap_or_default();
    for at in (0..count).map(|entry| HEADER + entry * ENTRY).take_while(|at| at + ENTRY <= bytes.len()) {
        let (name, path) = (number(at + 4).and_then(text), number(at + 8).and_then(text));
        if let (Some(name), Some(path)) = (name, path) {
            found.entry(name.to_owned()).or_default().push(PathBuf::from(path));
        }
    }
    found
}

/// For fuzzers: everything here that reads bytes.
#[cfg(fuzzing)]
pub(super) fn read_all(bytes: &[u8]) {
    entries(bytes);
    offered(bytes);
    if let Ok(file) = File::parse(bytes) {
        // That the library is found is not needed to read what is wanted of it.
        let _ = Libraries::default().satisfy(&file, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_c_library_is_found_with_what_it_exports() {
        let libc = Libraries::of_system().read("libc.so.6").unwrap();
        assert!(libc.exports.contains(b"malloc".as_slice()));
        assert!(libc.versions.iter().any(|version| version.starts_with(b"GLIBC_2.")));
        assert!(Libraries::of_system().read("libnowhere.so.1").is_none());
    }

    #[test]
    fn a_broken_cache_is_no_cache() {
        let mut bytes = b"glibc-ld.so.cache1.1".to_vec();
        assert!(entries(&bytes).is_empty());
        bytes.extend([255; 200]);
        assert!(entries(&bytes).is_empty() && entries(b"").is_empty());
    }
}
