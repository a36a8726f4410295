//! Where a test makes the store fail: before each of the steps that write to its disk.

use std::fmt;
use std::io;
use std::sync::Arc;

/// Called before each step, whose failure its error then is.
#[derive(Clone)]
pub(crate) struct Hook(Arc<dyn Fn(StoreWrite) -> io::Result<()> + Send + Sync>);

/// The steps that write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreWrite {
    /// A file is made: a small one under its own name, a large one as a temporary.
    Create,
    /// Bytes go into it. Half of what is in memory is written if this fails.
    Write,
    /// It is there from now on: a large one gets its name.
    Rename,
    /// Content that nobody refers to is removed.
    Remove,
}

impl StoreWrite {
    /// The word for the step.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Write => "write",
            Self::Rename => "rename",
            Self::Remove => "remove",
        }
    }
}

impl Hook {
    pub(crate) fn new(hook: impl Fn(StoreWrite) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Arc::new(hook))
    }

    pub(super) fn call(&self, step: StoreWrite) -> io::Result<()> {
        (self.0)(step)
    }
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
