//! rustls set up for the control network: TLS 1.3, both sides show a certificate, HTTP/2.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{IdentityError, IdentityPem, Role};
use crate::clock::Clock;

/// Certificates are checked at the time of our own clock, which a simulation sets.
#[derive(Debug)]
pub(crate) struct ClockTime(pub(crate) Clock);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.wall()))
    }
}

/// The controller's side: asks each client for a certificate.
///
/// # Errors
/// If the identity does not fit together.
pub fn server_config(identity: &IdentityPem, clock: Clock) -> Result<Arc<ServerConfig>, IdentityError> {
    let provider = provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(identity)?, provider.clone())
        .build()
        .map_err(|error| IdentityError::Tls(error.to_string()))?;
    let (chain, key) = chain_and_key(identity)?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(ClockTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(tls)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// The side of proxies and couriers: shows its certificate.
///
/// # Errors
/// If the identity does not fit together.
pub fn client_config(identity: &IdentityPem, clock: Clock) -> Result<Arc<ClientConfig>, IdentityError> {
    let provider = provider();
    let verifier = WebPkiServerVerifier::builder_with_provider(roots(identity)?, provider.clone())
        .build()
        .map_err(|error| IdentityError::Tls(error.to_string()))?;
    let (chain, key) = chain_and_key(identity)?;
    let mut config = ClientConfig::builder_with_details(provider, Arc::new(ClockTime(clock)))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_webpki_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(tls)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// The role that a verified peer's certificate names.
pub fn peer_role(certificates: Option<&[CertificateDer<'_>]>) -> Option<Role> {
    let (_, certificate) = X509Certificate::from_der(certificates?.first()?).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| {
        let GeneralName::DNSName(name) = name else { return None };
        Role::from_dns_name(name)
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn tls(error: rustls::Error) -> IdentityError {
    IdentityError::Tls(error.to_string())
}

fn roots(identity: &IdentityPem) -> Result<Arc<RootCertStore>, IdentityError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(identity.roots.as_bytes()) {
        let certificate = certificate.map_err(|error| IdentityError::Tls(error.to_string()))?;
        store.add(certificate).map_err(tls)?;
    }
    Ok(Arc::new(store))
}

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn chain_and_key(identity: &IdentityPem) -> Result<ChainAndKey, IdentityError> {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| IdentityError::Tls(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes())
        .map_err(|error| IdentityError::Tls(error.to_string()))?;
    Ok((chain, key))
}
