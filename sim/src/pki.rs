//! Certificates of the simulated world: an authority that users trust, what it issued by name, and TLS for users and for
//! apps that end it themselves. Keys are random, so nothing of them may get into a trace; names do.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tidegate_core::time::Instant;
use time::OffsetDateTime;

use crate::shared::EPOCH;

/// See the module.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    users: Arc<ClientConfig>,
    /// PEM of certificate and key, by name.
    issued: RefCell<BTreeMap<String, String>>,
    /// Names, by certificate.
    names: RefCell<BTreeMap<Vec<u8>, String>>,
}

impl fmt::Debug for Pki {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.issued.borrow().keys()).finish()
    }
}

/// The true time of the simulation, whatever clocks of nodes say.
#[derive(Debug)]
struct TrueTime;

impl TimeProvider for TrueTime {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(EPOCH + turmoil::sim_elapsed()?))
    }
}

fn params(name: &str, from: Duration, until: Duration) -> CertificateParams {
    let moment = |wall: Duration| OffsetDateTime::UNIX_EPOCH + wall;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (moment(from), moment(until));
    params
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("the system gives randomness")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

impl Pki {
    /// An authority that was always valid.
    pub(crate) fn new() -> Self {
        let mut authority = params("authority", EPOCH - YEAR, EPOCH + YEAR);
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = key();
        let root = authority.self_signed(&key).expect("its own key fits");
        let mut roots = RootCertStore::empty();
        roots.add(root.der().clone()).expect("it was just made");
        let mut users = ClientConfig::builder_with_details(provider(), Arc::new(TrueTime))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        // Each handshake shows the certificate of its time.
        users.resumption = Resumption::disabled();
        Pki {
            issuer: Issuer::new(authority, key),
            users: Arc::new(users),
            issued: RefCell::default(),
            names: RefCell::default(),
        }
    }

    /// A certificate for `host` that is valid from a day ago to `until`; PEM of it and its key.
    pub fn issue(&self, name: &str, host: &str, until: Instant) -> String {
        let mut leaf = params(name, EPOCH - DAY, EPOCH + until.since_start());
        let san = host.try_into().expect("hosts of stories are ASCII");
        leaf.subject_alt_names = vec![rcgen::SanType::DnsName(san)];
        let key = key();
        let certificate = leaf.signed_by(&key, &self.issuer).expect("the authority has its key");
        let pem = format!("{}{}", certificate.pem(), key.serialize_pem());
        self.issued.borrow_mut().insert(name.to_owned(), pem.clone());
        self.names
            .borrow_mut()
            .insert(certificate.der().to_vec(), name.to_owned());
        pem
    }

    /// What was issued by this name.
    pub fn pem(&self, name: &str) -> Option<String> {
        self.issued.borrow().get(name).cloned()
    }

    /// What a certificate is called that somebody showed.
    pub(crate) fn name(&self, certificate: &CertificateDer<'_>) -> Option<String> {
        self.names.borrow().get(certificate.as_ref()).cloned()
    }

    /// How users speak TLS: they trust the authority, at the true time.
    pub(crate) fn user(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        let mut config = ClientConfig::clone(&self.users);
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }

    /// How an app speaks TLS that has a certificate itself.
    pub fn server(&self, name: &str, host: &str) -> Arc<ServerConfig> {
        use rustls::pki_types::pem::PemObject;
        let pem = self.issue(name, host, Instant::at(YEAR));
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("it was just made");
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("it was just made");
        let mut config = ServerConfig::builder_with_details(provider(), Arc::new(TrueTime))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("the key is its own");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

const DAY: Duration = Duration::from_secs(86_400);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
