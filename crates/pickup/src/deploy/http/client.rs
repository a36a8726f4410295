//! The HTTP client, made anew only when the certificate authorities change.
#![expect(clippy::disallowed_methods, reason = "this is the door to the file of certificate authorities")]

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::{Client, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::HttpConfig;
use crate::error::{Error, IoContext, Result};
use crate::tls;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection is kept for the next unit: shorter than what servers allow, so that few end in our hands.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Several times what a system trusts.
const AUTHORITIES_MAX: u64 = 8 << 20;

/// The client in use, and the file of authorities it was made with.
#[derive(Default)]
pub(super) struct Clients(Mutex<Option<(Vec<u8>, Client)>>);

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").finish_non_exhaustive()
    }
}

impl Clients {
    pub(super) fn client(&self, config: &HttpConfig) -> Result<Client> {
        let authorities = config.ca_file.as_deref().map(read).transpose()?.unwrap_or_default();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((with, client)) = known.as_ref()
            && *with == authorities
        {
            return Ok(client.clone());
        }
        let client = make(config, &authorities)?;
        *known = Some((authorities, client.clone()));
        Ok(client)
    }
}

fn make(config: &HttpConfig, authorities: &[u8]) -> Result<Client> {
    let tls = match &config.ca_file {
        Some(path) => tls::client(certificates(path, authorities)?).map_err(|error| unusable(path, &error))?,
        None => tls::client(Vec::new()).map_err(|error| Error::deploy("set up TLS").caused_by(error))?,
    };
    // Retries and redirects are ours: a body is not sent to just anybody. Nor does a proxy of the environment count.
    Client::builder()
        .user_agent(concat!("pickup/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_MAX)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy()
        .tls_backend_preconfigured(tls)
        .build()
        .map_err(|error| Error::deploy("set up an HTTP client").caused_by(error))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(AUTHORITIES_MAX).read_to_end(&mut bytes)).doing("read", path)?;
    Ok(bytes)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err(unusable(path, &"there is no certificate in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(path, &error)),
    }
}

/// The file is at fault, not the artifact.
fn unusable(path: &Path, why: &dyn fmt::Display) -> Error {
    Error::deploy(format!("use certificate authorities {}: {why}", path.display())).transient()
}
