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
        Some(path) => Ok(path.to_owned()),
        None => Err(format!("`{}` does not lead to a path in UTF-8", shorten(text))),
    };
    // What else follows `file://` is a host, for which there is a message of its own.
    let is_path = |rest: &&str| rest.starts_with(['/', '.', '~', '$']);
    if let Some(path) = without_prefix(text, "file://").filter(is_path) {
        return Ok(GitUrl::new(format!("file://{}", in_full(path)?)));
    }
    let url = GitUrl::new(text);
    url.check()?;
    if text.contains("://") && text.contains(char::is_whitespace) {
        return Err("holds a blank; write `%20`".into());
    }
    if url.ssh_place().is_some_and(|place| place.path.starts_with('-')) {
        return Err("has a path that starts with `-`, which a program would take for an option".into());
    }
    if text.contains("://") || reach(&url) != Reach::Local { Ok(url) } else { in_full(text).map(GitUrl::new) }
}

/// The text that [`read`] reads as `url`: nothing in it expands.
pub(crate) fn write(url: &GitUrl) -> String {
    let text = url.expose();
    if reach(url) == Reach::Local { text.replace('$', "$$") } else { text.to_owned() }
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
