//! What tells the server who we are, read anew for each request, and shown to nobody else.
#![expect(clippy::disallowed_methods, reason = "this is the door to the files with secrets")]

use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::config::HttpConfig;
use crate::config::url::hide;
use crate::error::{Error, IoContext, Result};
use crate::source::git::transport::credentials::base64;

/// No secret is longer; a file that is, is something else.
const SECRET_MAX: u64 = 64 << 10;

/// A password or a token. It has no `Debug`.
pub(super) struct Secret {
    /// The value of the header `Authorization`.
    header: String,
    /// What must not be seen anywhere.
    hidden: Vec<String>,
}

impl Secret {
    /// What the configuration names, if it names anything.
    pub(super) fn read(config: &HttpConfig) -> Result<Option<Self>> {
        if let (Some(user), Some(path)) = (&config.username, &config.password_file) {
            let password = first_line(path)?;
            let encoded = base64(format!("{user}:{password}").as_bytes());
            return Ok(Some(Self { header: format!("Basic {encoded}"), hidden: vec![password, encoded] }));
        }
        let Some(path) = &config.bearer_file else { return Ok(None) };
        let token = first_line(path)?;
        Ok(Some(Self { header: format!("Bearer {token}"), hidden: vec![token] }))
    }

    pub(super) fn header(&self) -> &str {
        &self.header
    }

    /// `text` without the secret: servers quote what they are told.
    pub(super) fn redact(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_owned(), |text, secret| hide(&text, secret))
    }
}

fn first_line(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(SECRET_MAX).read_to_string(&mut text)).doing("read", path)?;
    match text.lines().next().map(str::trim_end) {
        Some(line) if !line.is_empty() && line.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) => {
            Ok(line.to_owned())
        }
        // The file is at fault, not the artifact, and may be written just now.
        Some(_) | None => {
            Err(Error::deploy(format!("use {}: its first line is no secret in ASCII", path.display())).transient())
        }
    }
}
