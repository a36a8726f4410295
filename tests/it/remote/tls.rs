//! What a server over TLS needs: a key, and a certificate for loopback.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;

/// A server of its own authority, the certificate of which is written to a file.
pub fn server(authority: &Path) -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    fs::write(authority, made.cert.pem()).expect("write a certificate");
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions of TLS").with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![made.cert.der().clone()], key.into()).expect("a key and its certificate"))
}
