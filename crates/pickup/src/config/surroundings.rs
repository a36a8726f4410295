//! What parsing needs from outside, and how paths use it: `~`, `$VAR`, `${VAR}`, the base directory.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Everything parsing needs from outside: the library reads no environment itself.
///
/// `Surroundings::default()` knows no home, no variables and no deployers, and takes relative paths as relative
/// to the configuration file.
#[derive(Clone, Default)]
pub struct Surroundings {
    base_dir: Option<PathBuf>,
    home: Option<PathBuf>,
    variables: Option<Arc<Variables>>,
    deployers: Vec<String>,
    state_dir: Option<PathBuf>,
}

type Variables = dyn Fn(&str) -> Option<String> + Send + Sync;

impl Surroundings {
    /// Relative paths mean relative to `base_dir`, wherever the file is.
    pub fn new(base_dir: impl Into<PathBuf>) -> Self {
        Self { base_dir: Some(base_dir.into()), ..Self::default() }
    }

    /// What `~` stands for. Default: nothing, so that `~` is an error.
    #[must_use]
    pub fn home(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = Some(home.into());
        self
    }

    /// What `$VAR` stands for, and where `$STATE_DIRECTORY` is looked up. Default: no variable is set.
    #[must_use]
    pub fn variables(mut self, variables: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        self.variables = Some(Arc::new(variables));
        self
    }

    /// The deployers an embedder registered: valid names for `deploy_to`. Default: none.
    #[must_use]
    pub fn deployers(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.deployers = names.into_iter().map(Into::into).collect();
        self
    }

    /// Where the state directory is, whatever the file says. Default: the file decides.
    #[must_use]
    pub fn state_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.state_dir = Some(directory.into());
        self
    }

    pub(crate) fn registered(&self) -> &[String] {
        &self.deployers
    }

    /// These surroundings with an absolute base directory: as given, else that of `file`, else the current one.
    pub(crate) fn settled(&self, file: Option<&Path>) -> Self {
        let beside_file = || file.and_then(Path::parent).map(Path::to_path_buf);
        let base = self.base_dir.clone().or_else(beside_file).filter(|base| !base.as_os_str().is_empty());
        let base = base.unwrap_or_else(|| PathBuf::from("."));
        let base = std::path::absolute(&base).unwrap_or(base);
        Self { base_dir: Some(tidy(&base)), ..self.clone() }
    }

    /// The directory that relative paths start from.
    pub(crate) fn base(&self) -> &Path {
        self.base_dir.as_deref().unwrap_or(Path::new("."))
    }

    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.variables.as_ref().and_then(|variables| variables(name))
    }

    /// Where the state directory is whatever the file says.
    pub(crate) fn fixed_state_dir(&self) -> Option<PathBuf> {
        self.state_dir
            .as_ref()
            .map(|directory| tidy(&std::path::absolute(directory).unwrap_or_else(|_| directory.clone())))
    }

    /// Where the state directory is if nobody says: the first of `$STATE_DIRECTORY` (systemd may list several),
    /// else `.pickup` in the base directory.
    pub(crate) fn default_state_dir(&self) -> PathBuf {
        let listed = self.variable("STATE_DIRECTORY");
        let first = listed.as_deref().and_then(|list| list.split(':').next()).filter(|first| !first.is_empty());
        tidy(&self.base().join(first.unwrap_or(".pickup")))
    }

    /// The absolute path that `text` means.
    ///
    /// # Errors
    /// A sentence that says what cannot be expanded.
    pub(crate) fn path(&self, text: &str) -> Result<PathBuf, String> {
        if text.trim().is_empty() {
            return Err("expected a path, found an empty string".into());
        }
        let (start, rest) = match text.strip_prefix('~') {
            None => (PathBuf::new(), text),
            Some(rest) if rest.is_empty() || rest.starts_with('/') => {
                let home = self.home.clone().ok_or("`~` cannot be expanded: the home directory is not known")?;
                (home, rest.trim_start_matches('/'))
            }
            Some(_) => return Err("only `~` and `~/` expand; write another user's home directory in full".into()),
        };
        Ok(tidy(&self.base().join(start).join(self.expand(rest)?)))
    }

    /// `$NAME` and `${NAME}` replaced; `$$` is a `$`, and so is one that no name follows.
    fn expand(&self, text: &str) -> Result<String, String> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            let (name, after) = if let Some(after) = after.strip_prefix('{') {
                let (name, after) = after.split_once('}').ok_or("`${` has no closing `}`")?;
                if name_length(name) != name.len() || name.is_empty() {
                    return Err(format!("`${{{name}}}` is no variable's name"));
                }
                (name, after)
            } else {
                after.split_at(name_length(after))
            };
            rest = after;
            if name.is_empty() {
                expanded.push('$');
                rest = after.strip_prefix('$').unwrap_or(after);
                continue;
            }
            // An empty one is refused too: `$DIR/` must not quietly become the root.
            let value = self.variable(name).filter(|value| !value.is_empty());
            expanded.push_str(&value.ok_or_else(|| format!("the variable `{name}` is not set"))?);
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("base_dir", &self.base_dir)
            .field("home", &self.home)
            .field("deployers", &self.deployers)
            .finish_non_exhaustive()
    }
}

/// How many bytes of `text` make up a variable's name.
fn name_length(text: &str) -> usize {
    let is_name = |(at, c): (usize, char)| c == '_' || c.is_ascii_alphabetic() || (at > 0 && c.is_ascii_digit());
    text.char_indices().take_while(|&pair| is_name(pair)).count()
}

/// `path` without `.` components and trailing slashes. `..` stays: only the file system knows what it leads to.
pub(crate) fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|component| *component != Component::CurDir).collect()
}

/// `path` with `..` taken back, for comparing names without the file system.
pub(crate) fn normalised(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                // The root's parent is the root: `pop` leaves it alone.
                clean.pop();
            }
            Component::Normal(_) | Component::RootDir | Component::Prefix(_) => clean.push(component),
        }
    }
    clean
}
