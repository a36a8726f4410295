//! The names in a directory: all of a listing lie in one piece of memory, since there may be hundreds of thousands, made on one
//! thread and dropped on another.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::ops::Deref;

/// The names of a listing, while it is made.
#[derive(Debug, Default)]
pub(super) struct Names(imp::Names);

impl Names {
    pub(super) fn push(&mut self, name: &OsStr) {
        self.0.push(name);
    }

    /// All of them, in the order in which they came.
    pub(super) fn into_all(self) -> impl Iterator<Item = Name> {
        self.0.into_all().map(Name)
    }
}

/// The name of an entry, as an `&OsStr`.
#[derive(Clone)]
pub(crate) struct Name(imp::Name);

impl Deref for Name {
    type Target = OsStr;

    fn deref(&self) -> &OsStr {
        self.0.as_os_str()
    }
}

impl AsRef<OsStr> for Name {
    fn as_ref(&self) -> &OsStr {
        self
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
impl From<&str> for Name {
    fn from(name: &str) -> Self {
        let mut names = Names::default();
        names.push(OsStr::new(name));
        names.into_all().next().expect("the one")
    }
}

#[cfg(unix)]
mod imp {
    use std::ffi::OsStr;
    use std::ops::Range;
    use std::os::unix::ffi::OsStrExt;
    use std::sync::Arc;

    #[derive(Debug, Default)]
    pub(super) struct Names {
        text: Vec<u8>,
        places: Vec<Range<usize>>,
    }

    impl Names {
        pub(super) fn push(&mut self, name: &OsStr) {
            let start = self.text.len();
            self.text.extend_from_slice(name.as_bytes());
            self.places.push(start..self.text.len());
        }

        pub(super) fn into_all(self) -> impl Iterator<Item = Name> {
            let text: Arc<[u8]> = self.text.into();
            self.places.into_iter().map(move |place| Name { text: text.clone(), place })
        }
    }

    #[derive(Clone)]
    pub(super) struct Name {
        text: Arc<[u8]>,
        place: Range<usize>,
    }

    impl Name {
        pub(super) fn as_os_str(&self) -> &OsStr {
            OsStr::from_bytes(&self.text[self.place.clone()])
        }
    }
}

/// One by one: what a name consists of is the standard library's business there.
#[cfg(not(unix))]
mod imp {
    use std::ffi::{OsStr, OsString};

    #[derive(Debug, Default)]
    pub(super) struct Names(Vec<Name>);

    impl Names {
        pub(super) fn push(&mut self, name: &OsStr) {
            self.0.push(Name(name.to_owned()));
        }

        pub(super) fn into_all(self) -> impl Iterator<Item = Name> {
            self.0.into_iter()
        }
    }

    #[derive(Clone, Debug)]
    pub(super) struct Name(OsString);

    impl Name {
        pub(super) fn as_os_str(&self) -> &OsStr {
            &self.0
        }
    }
}
