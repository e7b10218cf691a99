//! TLS of the console.

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::gate::{MAX_FILE, read_secret};
use crate::config_file::regular;

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let file = regular(path, "this is not a regular file")?;
    let found = CertificateDer::pem_reader_iter(file.take(MAX_FILE));
    let found: Result<Vec<_>, _> = found.collect();
    match found.map_err(io::Error::other)? {
        found if found.is_empty() => Err(io::Error::other("it has no certificate")),
        found => Ok(found),
    }
}

/// Returns the private key of a file.
///
/// # Errors
/// Returns an error if the file cannot be read, other users can read it, or it has no key.
pub(super) fn private_key(path: &Path) -> io::Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(&read_secret(path)?).map_err(io::Error::other)
}

/// Returns the authorities of a file that sign certificates of clients.
///
/// # Errors
/// Returns an error if the file cannot be read, or has no certificate or an invalid one.
pub(super) fn authorities(path: &Path) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(io::Error::other)?;
    }
    Ok(roots)
}

/// Returns the TLS of a certificate and its key; with `clients`, clients need a certificate too.
///
/// # Errors
/// Returns an error if the certificate cannot be read, or its key is another one.
pub(super) fn acceptor(
    certificate: &Path,
    key: PrivateKeyDer<'static>,
    clients: Option<RootCertStore>,
) -> io::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(roots) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
        }
    };
    let mut config = builder
        .with_single_cert(certificates(certificate)?, key)
        .map_err(io::Error::other)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
