//! TLS by rustls with ring, and nothing of it a setting of the whole process: an embedder may have its own.

use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ConfigBuilder, Error, RootCertStore, WantsVerifier};
use rustls_platform_verifier::Verifier;

/// Trusts the certificate authorities of the system, and `extra`.
///
/// # Errors
/// One of `extra` is no authority's certificate.
pub(crate) fn client(extra: Vec<CertificateDer<'static>>) -> Result<ClientConfig, Error> {
    let is_plain = extra.is_empty();
    match Verifier::new_with_extra_roots(extra, Arc::new(ring::default_provider())) {
        Ok(verifier) => {
            Ok(builder()?.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
        }
        // A system without certificates can still speak http; every https server is a stranger to it.
        Err(_) if is_plain => stranger(),
        Err(error) => Err(error),
    }
}

/// Trusts nobody: for clients that speak plain http only.
///
/// # Errors
/// None that is known; rustls wants to be asked.
pub(crate) fn stranger() -> Result<ClientConfig, Error> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    let provider = Arc::new(ring::default_provider());
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}
