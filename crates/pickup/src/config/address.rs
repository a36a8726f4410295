//! What `git_url` may be: its text in, an address in full out.

use super::GitUrl;
use super::problem::shorten;
use super::surroundings::Surroundings;

/// How a repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Http,
    Https,
    Ssh,
    /// The `git://` protocol, which knows no users.
    Git,
    /// A path of this machine, or `file://`.
    Local,
}

/// The address that `text` means: a path is made absolute as `pickup_from` is, everything else stays as it stands.
pub(crate) fn read(text: &str, surroundings: &Surroundings) -> Result<GitUrl, String> {
    if text.trim().is_empty() {
        return Err("expected the address of a repository, found an empty string".into());
    }
    if text.starts_with('-') {
        return Err("starts with `-`, which git would take for an option".into());
    }
    if text.contains(char::is_control) {
        return Err("holds a control character".into());
    }
    let in_full = |text: &str| match surroundings.path(text)?.to_str() {
        // A variable may hold anything.
        Some(path) if path.contains(char::is_control) => Err("leads to a path with a control character".to_owned()),
        Some(path) => Ok(path.to_owned()),
        None => Err(format!("`{}` does not lead to a path in UTF-8", shorten(text))),
    };
    if let Some(path) = after_file(text) {
        return Ok(GitUrl::new(format!("file://{}", in_full(path)?)));
    }
    let url = GitUrl::new(text);
    url.check()?;
    if is_path(&url) {
        return in_full(text).map(GitUrl::new);
    }
    if text.contains("://") && text.contains(char::is_whitespace) {
        return Err("holds a blank; write `%20`".into());
    }
    if url.ssh_place().is_some_and(|place| place.path.starts_with('-')) {
        return Err("has a path that starts with `-`, which a program would take for an option".into());
    }
    Ok(url)
}

/// The text that [`read`] reads as `url`: nothing in it expands.
pub(crate) fn write(url: &GitUrl) -> String {
    let text = url.expose();
    let expands = after_file(text).is_some() || is_path(url);
    if expands { text.replace('$', "$$") } else { text.to_owned() }
}

/// The path of a `file://` address in which it is one that may expand. What else follows is a host, for which there is a message
/// of its own, or none.
fn after_file(text: &str) -> Option<&str> {
    without_prefix(text, "file://").filter(|rest| rest.starts_with(['/', '.', '~', '$']))
}

/// Whether it is a path, and no address of any scheme. A path may have `://` in it.
fn is_path(url: &GitUrl) -> bool {
    url.is_local().is_some() && without_prefix(url.expose(), "file://").is_none()
}

/// How `url`, which [`read`] accepted, is reached.
pub(crate) fn reach(url: &GitUrl) -> Reach {
    let is = |scheme| without_prefix(url.expose(), scheme).is_some();
    match () {
        () if url.is_local().is_some() => Reach::Local,
        () if url.ssh_place().is_some() => Reach::Ssh,
        () if is("https://") => Reach::Https,
        () if is("http://") => Reach::Http,
        () => Reach::Git,
    }
}

/// What follows `prefix`, in whichever case it is written.
fn without_prefix<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}
