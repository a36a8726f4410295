//! What a wanted reference means, given what a remote announced: a plain function.

use git2::Oid;

use crate::source::git::transport::RemoteRef;

/// How many names a remote's answer is quoted with.
const NAMES_MAX: usize = 10;

/// Where a wanted reference is at the remote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A reference of the remote.
    Named {
        /// Its full name there.
        name: String,
        /// What it points to: a commit, or the tag that leads to one.
        object: Oid,
        commit: Oid,
        /// As people call it; `None` for a `HEAD` that is on no branch.
        branch: Option<String>,
        is_branch: bool,
    },
    /// A commit, by its id. `is_announced` if a reference of the remote points to it.
    Commit { commit: Oid, announced: Option<String> },
}

/// Finds `wanted` among `refs`: a branch goes before a tag.
///
/// # Errors
/// There is none; says what there is.
pub(super) fn resolve(wanted: Option<&str>, refs: &[RemoteRef]) -> Result<Target, String> {
    let Some(wanted) = wanted else { return default_branch(refs) };
    if let Some(commit) = full_id(wanted) {
        let announced = refs.iter().find(|r| r.id == commit && !r.name.ends_with("^{}") && r.name != "HEAD");
        return Ok(Target::Commit { commit, announced: announced.map(|r| r.name.clone()) });
    }
    if wanted == "HEAD" {
        return default_branch(refs);
    }
    let candidates = match wanted.starts_with("refs/") {
        true => vec![wanted.to_owned()],
        false => vec![format!("refs/heads/{wanted}"), format!("refs/tags/{wanted}")],
    };
    candidates.iter().find_map(|name| named(name, refs)).ok_or_else(|| missing(wanted, refs))
}

/// A whole SHA-1 in hexadecimal.
fn full_id(text: &str) -> Option<Oid> {
    (text.len() == 40).then(|| Oid::from_str(text).ok()).flatten()
}

fn default_branch(refs: &[RemoteRef]) -> Result<Target, String> {
    let Some(head) = refs.iter().find(|r| r.name == "HEAD") else {
        return Err(match refs.is_empty() {
            true => "the remote has no commits yet".to_owned(),
            false => format!("the remote's HEAD leads nowhere: set git_ref; {}", what_it_has("", refs)),
        });
    };
    if let Some(target) = head.symref.as_deref().and_then(|name| named(name, refs)) {
        return Ok(target);
    }
    Ok(Target::Named { name: "HEAD".into(), object: head.id, commit: head.id, branch: None, is_branch: false })
}

fn named(name: &str, refs: &[RemoteRef]) -> Option<Target> {
    let object = refs.iter().find(|r| r.name == name)?.id;
    let peeled = refs.iter().find(|r| r.name.strip_suffix("^{}") == Some(name)).map(|r| r.id);
    let branch = name.strip_prefix("refs/heads/");
    let short = branch.or_else(|| name.strip_prefix("refs/tags/")).unwrap_or(name);
    Some(Target::Named {
        name: name.to_owned(),
        object,
        commit: peeled.unwrap_or(object),
        branch: Some(short.to_owned()),
        is_branch: branch.is_some(),
    })
}

fn missing(wanted: &str, refs: &[RemoteRef]) -> String {
    let hint = match wanted {
        id if id.len() >= 7 && id.len() < 40 && id.bytes().all(|b| b.is_ascii_hexdigit()) => {
            " (a commit is named by its whole id, 40 digits)"
        }
        _ => "",
    };
    let kind = if wanted.starts_with("refs/") { "reference" } else { "branch or tag" };
    format!("the remote has no {kind} `{wanted}`{hint}; {}", what_it_has(wanted, refs))
}

/// The names that are most like `wanted`, branches before tags.
fn what_it_has(wanted: &str, refs: &[RemoteRef]) -> String {
    let mut names: Vec<&str> = ["refs/heads/", "refs/tags/"]
        .into_iter()
        .flat_map(|prefix| refs.iter().filter_map(move |r| r.name.strip_prefix(prefix)))
        .filter(|name| !name.ends_with("^{}") && !name.chars().any(char::is_control))
        .collect();
    if !wanted.is_empty() {
        // The sort is stable: equally distant names stay in the remote's order.
        names.sort_by(|one, other| {
            let distance = |name| 1.0 - strsim::jaro_winkler(wanted, name);
            distance(one).total_cmp(&distance(other))
        });
    }
    match names.len() {
        0 => "it has none".to_owned(),
        count if count > NAMES_MAX => {
            format!("it has {} and {} more", names[..NAMES_MAX].join(", "), count - NAMES_MAX)
        }
        _ => format!("it has {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: u8) -> Oid {
        Oid::from_bytes(&[digit; 20]).unwrap()
    }

    fn remote(refs: &[(&str, u8)]) -> Vec<RemoteRef> {
        let head = |name: &str| (name == "HEAD").then(|| "refs/heads/main".to_owned());
        refs.iter().map(|&(name, digit)| RemoteRef { name: name.into(), id: id(digit), symref: head(name) }).collect()
    }

    #[test]
    fn branches_go_before_tags_and_tags_are_peeled() {
        let refs = remote(&[
            ("HEAD", 1),
            ("refs/heads/main", 1),
            ("refs/heads/v1", 2),
            ("refs/tags/v1", 3),
            ("refs/tags/v2", 4),
            ("refs/tags/v2^{}", 5),
        ]);
        for (wanted, full, object, commit, short, branch) in [
            (None, "refs/heads/main", 1, 1, "main", true),
            (Some("HEAD"), "refs/heads/main", 1, 1, "main", true),
            (Some("v1"), "refs/heads/v1", 2, 2, "v1", true),
            (Some("refs/tags/v1"), "refs/tags/v1", 3, 3, "v1", false),
            (Some("v2"), "refs/tags/v2", 4, 5, "v2", false),
        ] {
            let target = Target::Named {
                name: full.into(),
                object: id(object),
                commit: id(commit),
                branch: Some(short.into()),
                is_branch: branch,
            };
            assert_eq!(resolve(wanted, &refs), Ok(target), "{wanted:?}");
        }
        let pinned = resolve(Some(&id(2).to_string()), &refs).unwrap();
        assert_eq!(pinned, Target::Commit { commit: id(2), announced: Some("refs/heads/v1".into()) });
    }

    #[test]
    fn what_is_missing_says_what_there_is() {
        let refs = remote(&[("refs/heads/dev", 1), ("refs/heads/main", 1), ("refs/tags/v1", 3)]);
        let reason = |wanted, refs: &[RemoteRef]| resolve(wanted, refs).unwrap_err();
        assert_eq!(reason(Some("mian"), &refs), "the remote has no branch or tag `mian`; it has main, dev, v1");
        assert_eq!(reason(None, &refs), "the remote's HEAD leads nowhere: set git_ref; it has dev, main, v1");
        assert_eq!(reason(None, &[]), "the remote has no commits yet");
        assert!(reason(Some("0123abc"), &refs).contains("whole id, 40 digits"));
        let many: Vec<String> = (0..30).map(|n| format!("refs/heads/b{n}")).collect();
        let many = remote(&many.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>());
        assert!(reason(Some("x"), &many).ends_with(" and 20 more"));
    }
}
