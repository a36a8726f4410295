//! Who we are at a remote, read anew for each fetch.
#![expect(clippy::disallowed_methods, reason = "this is the door to password files")]

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::failed;
use crate::config::url::hide;
use crate::source::git::worker::{Access, Failure, FailureKind};

/// No password is longer; a file that is, is something else.
const PASSWORD_MAX: u64 = 64 << 10;

/// A user and a password; either may be missing.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub username: Option<String>,
    pub password: Option<String>,
}

impl Login {
    /// What the configuration says, and where it is silent, the address.
    pub(super) fn read(access: &Access) -> Result<Self, Failure> {
        let from_url = access.url.userinfo();
        let password = match &access.password_file {
            Some(path) => Some(read_password(path).map_err(|why| {
                let why = format!("read the password file {}: {why}", path.display());
                failed(access, FailureKind::Authentication, why)
            })?),
            None => from_url.password,
        };
        Ok(Self { username: access.username.clone().or(from_url.user), password })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.username.is_none() && self.password.is_none()
    }

    /// The user and password of basic authentication, in base64. A token alone goes with any user name.
    pub(super) fn basic(&self) -> String {
        let user = self.username.as_deref().unwrap_or("git");
        base64(format!("{user}:{}", self.password.as_deref().unwrap_or_default()).as_bytes())
    }

    /// `text` without the password.
    pub(super) fn redact(&self, text: &str) -> String {
        match &self.password {
            Some(password) => hide(&hide(text, password), &self.basic()),
            None => text.to_owned(),
        }
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("username", &self.username).finish_non_exhaustive()
    }
}

/// The first line of a file.
fn read_password(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(PASSWORD_MAX).read_to_string(&mut text)).map_err(|e| e.to_string())?;
    match text.lines().next() {
        Some(line) if !line.is_empty() && !line.contains(char::is_control) => Ok(line.to_owned()),
        Some(_) | None => Err("its first line is empty or no text".to_owned()),
    }
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = (group >> (18 - 6 * digit)) & 63;
            out.push(if digit > chunk.len() { '=' } else { char::from(DIGITS[value as usize]) });
        }
    }
    out
}
