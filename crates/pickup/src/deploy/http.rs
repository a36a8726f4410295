//! `kind = "http"`: files are sent to a server, which makes them live.
//!
//! Nothing is sent before a unit is activated. What was sent is undone by sending what was there before again.
#![expect(clippy::disallowed_methods, reason = "this is a door: it remembers on disk what was sent")]

mod answer;
mod body;
mod client;
mod request;
mod secret;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use self::client::Clients;
use self::request::{Purpose, Request};
use self::secret::Secret;
use crate::capture::{CapturedFile, Digest};
use crate::change::Content;
use crate::config::HttpConfig;
use crate::deploy::expand::Values;
use crate::deploy::lane::{self, Lanes, Stop};
use crate::deploy::{Context, Deployer, Unit, Verdict};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::path;

/// Says that something was sent, so that a revert knows whether there is anything to undo.
const SENT: &str = "sent";

/// Sends each file to a server, and asks the server to remove it again.
#[derive(Debug)]
pub struct Http {
    config: Arc<HttpConfig>,
    clients: Clients,
    lanes: Lanes,
}

/// What will be sent, and where we remember that it was.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Staged {
    /// What is ours below the scratch directory.
    #[serde(with = "path::exact")]
    directory: PathBuf,
    sent: Live,
}

/// What was sent, and where to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Live {
    url: String,
    remove_url: String,
    generation: u64,
    digest: Digest,
    /// SHA-256 in base64, for those who do not know our digests.
    sha256: String,
    size: u64,
    /// The captured file.
    #[serde(with = "path::exact")]
    stored: PathBuf,
}

/// Why a file is not live, and whether the server may have done something with it all the same.
struct Unsent {
    error: Error,
    reached: bool,
}

impl Http {
    /// Makes the deployer that the section describes.
    ///
    /// # Errors
    /// If the address is none.
    pub fn new(config: HttpConfig) -> Result<Self> {
        let values = Values::nameless();
        for url in [Some(&config.url), config.remove_url.as_ref()].into_iter().flatten() {
            request::address(&values.url(url))?;
        }
        Ok(Self { config: Arc::new(config), clients: Clients::default(), lanes: Lanes::default() })
    }

    /// What will be sent of `file`, whose digest is read from its bytes.
    async fn prepare(&self, cx: &Context, unit: &Unit, file: &CapturedFile) -> Result<Live> {
        let values = Values::new(unit, None);
        let url = values.url(&self.config.url);
        request::address(&url)?;
        let remove_url = self.config.remove_url.as_ref().map_or_else(|| url.clone(), |url| values.url(url));
        request::address(&remove_url)?;
        let (captured, is_small) = (file.clone(), lane::is_small(unit.content.as_ref()));
        let hashed = move |stop: &Stop| {
            let stored = captured.path()?;
            Ok((body::sha256(&stored, stop)?, stored))
        };
        let (sha256, stored) = self.lanes.run(cx, unit, is_small, hashed).await?;
        let (generation, digest, size) = (unit.generation, file.digest, file.size);
        Ok(Live { url, remove_url, generation, digest, sha256, size, stored })
    }

    async fn put(&self, cx: &Context, unit: &Unit, live: &Live, purpose: Purpose) -> Result<(), Unsent> {
        let reached = AtomicBool::new(false);
        let request = Request {
            reached: &reached,
            method: &self.config.method,
            url: &live.url,
            content: Some(live),
            key: key(unit, live, purpose),
            expect: &self.config.expect,
            gone_is_fine: false,
        };
        let sent = request.send(cx, &self.config, &self.clients).await;
        sent.map_err(|error| Unsent { error, reached: reached.load(Ordering::Relaxed) })
    }

    async fn take_away(&self, cx: &Context, unit: &Unit, live: &Live, purpose: Purpose) -> Result<()> {
        let request = Request {
            reached: &AtomicBool::new(false),
            method: &self.config.remove_method,
            url: &live.remove_url,
            content: None,
            key: key(unit, live, purpose),
            expect: &self.config.remove_expect,
            gone_is_fine: true,
        };
        request.send(cx, &self.config, &self.clients).await
    }
}

impl Deployer for Http {
    type Staged = Staged;
    type Live = Live;

    fn accepts(&self, unit: &Unit) -> Verdict {
        match &unit.content {
            Some(Content::Tree(_)) => {
                Verdict::Refused("an http deployer sends single files, and this is a tree".into())
            }
            Some(Content::File(_)) | None => Verdict::Accepted,
        }
    }

    /// Whether there are an address and secrets; nothing is sent.
    async fn check(&self, _cx: &Context, unit: &Unit, old: Option<&Live>) -> Result<()> {
        let _ = old;
        request::address(&Values::new(unit, None).url(&self.config.url))?;
        Secret::read(&self.config)?;
        self.clients.client(&self.config).map(drop)
    }

    async fn stage(&self, cx: &Context, unit: &Unit, old: Option<&Live>) -> Result<Staged> {
        self.check(cx, unit, old).await?;
        let Some(file) = unit.file() else {
            return Err(Error::deploy(format!("send {}: it is no single file", unit.path)));
        };
        Ok(Staged { directory: cx.scratch().join(own_name(unit)), sent: self.prepare(cx, unit, file).await? })
    }

    async fn activate(&self, cx: &Context, unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<Live> {
        remember(&staged.directory)?;
        if let Err(error) = self.put(cx, unit, &staged.sent, Purpose::Deploy).await {
            if !error.reached {
                // Nobody was there, or nobody let us in: a revert would only fail in the same way.
                forget(&staged.directory)?;
            }
            return Err(error.error);
        }
        Ok(staged.sent.clone())
    }

    /// Sends what was live again, or has removed what was sent.
    async fn revert(&self, cx: &Context, unit: &Unit, staged: &Staged, old: Option<&Live>) -> Result<()> {
        if staged.directory.join(SENT).exists() {
            match old.filter(|old| old.url == staged.sent.url) {
                Some(old) => self.put(cx, unit, old, Purpose::Revert).await.map_err(|unsent| unsent.error)?,
                None => self.take_away(cx, unit, &staged.sent, Purpose::Revert).await?,
            }
        }
        forget(&staged.directory)
    }

    async fn retire(&self, _cx: &Context, _unit: &Unit, staged: &Staged, _old: Option<&Live>) -> Result<()> {
        forget(&staged.directory)
    }

    async fn remove(&self, cx: &Context, unit: &Unit, live: &Live) -> Result<()> {
        self.take_away(cx, unit, live, Purpose::Remove).await
    }
}

/// A directory name of the unit's own, because the units of a generation share a scratch directory.
fn own_name(unit: &Unit) -> String {
    format!("http-{}", Digest::of(unit.path.as_path().as_os_str().as_encoded_bytes()).short())
}

/// The same for each attempt at the same thing. The generation is that of the unit, not of what is sent: what is sent
/// again by a revert is another request than the one that sent it first.
fn key(unit: &Unit, live: &Live, purpose: Purpose) -> String {
    let mut hasher = blake3::Hasher::new();
    let generation = unit.generation.to_le_bytes();
    let path = unit.path.as_path().as_os_str().as_encoded_bytes();
    for part in [purpose.as_str().as_bytes(), unit.pickup.as_bytes(), path, &generation, &live.digest.0] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    Digest(*hasher.finalize().as_bytes()).to_string()
}

/// On disk before the request goes out: after a crash it must not look as if it never did.
fn remember(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).doing("create directory", directory)?;
    let marker = directory.join(SENT);
    std::fs::File::create(&marker).and_then(|file| file.sync_all()).doing("create", &marker)
}

fn forget(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", directory, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, "finish: the work was cancelled")
}

#[cfg(test)]
mod tests;
