//! Why a module is refused: a code for programs, a sentence for people.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a module was refused for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// It is no shared library for this system.
    Format,
    /// It is one for another processor.
    Machine,
    /// Its end is missing.
    Truncated,
    /// It is larger than a module may be.
    TooLarge,
    /// Everybody may write to the file that was picked up.
    Writable,
    /// It asks for a stack that can be executed.
    ExecutableStack,
    /// Its code would have to be changed while it is loaded.
    TextRelocations,
    /// It searches directories of its own for libraries.
    SearchPath,
    /// It takes from the thread-local storage that no library gets back.
    StaticTls,
    /// It needs a library that is not allowed.
    NeededLibrary,
    /// It needs a library that is not here.
    MissingLibrary,
    /// It needs a newer version of a library than there is.
    SymbolVersion,
    /// It uses a symbol that nobody defines.
    UndefinedSymbol,
    /// It lacks a symbol of the contract.
    MissingSymbol,
    /// What it says about itself makes no sense.
    Descriptor,
    /// It was built for another version of the contract.
    AbiVersion,
    /// It was built for another architecture or system.
    Target,
    /// The probe process did not survive it, or could not load it.
    Probe,
    /// Its own test failed.
    SelfTest,
    /// It cannot be loaded.
    Load,
    /// What was loaded is not what was judged.
    Identity,
    /// It lacks an interface that the embedder uses.
    Interface,
    /// It did not start.
    Activate,
    /// Its predecessor could not hand over its state.
    Handover,
    /// It started and does not work.
    Health,
    /// As many generations are loaded as may be.
    MaxGenerations,
}

impl Reason {
    /// The code, as it stands in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::Machine => "machine",
            Self::Truncated => "truncated",
            Self::TooLarge => "too_large",
            Self::Writable => "writable",
            Self::ExecutableStack => "executable_stack",
            Self::TextRelocations => "text_relocations",
            Self::SearchPath => "search_path",
            Self::StaticTls => "static_tls",
            Self::NeededLibrary => "needed_library",
            Self::MissingLibrary => "missing_library",
            Self::SymbolVersion => "symbol_version",
            Self::UndefinedSymbol => "undefined_symbol",
            Self::MissingSymbol => "missing_symbol",
            Self::Descriptor => "descriptor",
            Self::AbiVersion => "abi_version",
            Self::Target => "target",
            Self::Probe => "probe",
            Self::SelfTest => "self_test",
            Self::Load => "load",
            Self::Identity => "identity",
            Self::Interface => "interface",
            Self::Activate => "activate",
            Self::Handover => "handover",
            Self::Health => "health",
            Self::MaxGenerations => "max_generations",
        }
    }
}

/// Why a module is refused. It is the [source](std::error::Error::source) of the deployment's error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    reason: Reason,
    text: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into() }
    }

    /// What it was refused for.
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The same in a sentence.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.text)
    }
}

impl std::error::Error for Refusal {}
