//! TLS to endpoints as rustls wants it: one set of configurations for each trust that labels ask for.
//!
//! A set is made once per worker and its address is its identity: a connection that was made by one is never used for another.
//! What cannot be made is `None`, and nothing is sent then; there is no weaker set to fall back to.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tidegate_core::route::spec::{BackendTls, Trust};
use tidegate_core::secrets::Finding;
use tracing::error;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::Clock;
use crate::identity::ClockTime;
use crate::secrets::Secrets;

/// Who reports about the secrets.
const WHO: &str = "ssl_backend_ca";
const REMEDY: &str =
    "put the PEM certificates of the authority that signed the app's in; what was good before is used on";

/// All trusts of a worker, made when they are first asked for.
pub(crate) struct Trusts {
    clock: Clock,
    secrets: Secrets,
    provider: Arc<CryptoProvider>,
    any: OnceCell<Option<Rc<Configs>>>,
    web: OnceCell<Option<Rc<Configs>>>,
    by_secret: RefCell<BTreeMap<String, Made>>,
}

/// What was made of a version of a secret; of one that is broken, what was made of the one before.
struct Made {
    version: u64,
    configs: Option<Rc<Configs>>,
}

/// One trust, by the protocols that are offered (ALPN).
#[derive(Debug)]
pub(crate) struct Configs {
    pub(crate) http1: Arc<ClientConfig>,
    pub(crate) http2: Arc<ClientConfig>,
    pub(crate) either: Arc<ClientConfig>,
}

/// How TLS is spoken to one endpoint.
#[derive(Clone, Debug)]
pub(crate) struct EndpointTls {
    /// `None`: its authorities cannot be read, so it is not spoken to.
    pub(crate) configs: Option<Rc<Configs>>,
    pub(crate) name: ServerName<'static>,
}

impl PartialEq for EndpointTls {
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.configs.as_ref(), other.configs.as_ref());
        self.name == other.name && ours.map(Rc::as_ptr) == theirs.map(Rc::as_ptr)
    }
}

impl Trusts {
    pub(crate) fn new(clock: Clock, secrets: Secrets) -> Self {
        Trusts {
            clock,
            secrets,
            provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
            any: OnceCell::new(),
            web: OnceCell::new(),
            by_secret: RefCell::default(),
        }
    }

    /// How an endpoint at `addr` is spoken to by a service with these labels.
    pub(crate) fn endpoint(&self, tls: &BackendTls, addr: SocketAddr) -> EndpointTls {
        // An address is never sent as SNI.
        let none = ServerName::IpAddress(addr.ip().into());
        let named = tls.server_name.as_ref().map(|name| ServerName::try_from(name.clone()));
        let (name, is_named) = match named {
            Some(Ok(name)) => (name, true),
            Some(Err(_)) | None => (none, false),
        };
        let is_known = is_named || tls.trust == Trust::Any;
        let configs = if is_known { self.configs(&tls.trust) } else { None };
        EndpointTls { configs, name }
    }

    fn configs(&self, trust: &Trust) -> Option<Rc<Configs>> {
        match trust {
            Trust::Any => self
                .any
                .get_or_init(|| self.make(Arc::new(AnyCertificate(Arc::clone(&self.provider))))),
            Trust::Web => self.web.get_or_init(|| self.make(self.web_verifier()?)),
            Trust::Secret(name) => return self.of_secret(name),
        }
        .clone()
    }

    fn of_secret(&self, name: &str) -> Option<Rc<Configs>> {
        let secret = self.secrets.get(name);
        let mut all = self.by_secret.borrow_mut();
        if let Some(made) = all.get(name).filter(|made| made.version == secret.version) {
            return made.configs.clone();
        }
        let version = secret.version;
        // Why there is no content is told where secrets come from.
        let verifier = secret
            .content
            .as_ref()
            .map(|text| self.secret_verifier(text.expose().as_bytes()));
        let problem = verifier.as_ref().and_then(|verifier| verifier.as_ref().err());
        let finding = problem.map(|problem| {
            let problem = format!("the secret {name} names no authorities that could verify an app: {problem}");
            Finding::new(name, problem, REMEDY)
        });
        self.secrets.report_of(WHO, name, finding);
        let made = verifier.and_then(Result::ok).and_then(|verifier| self.make(verifier));
        let configs = made.or_else(|| all.get(name).and_then(|made| made.configs.clone()));
        // Those that no route wants any more have no content.
        all.retain(|name, _| self.secrets.get(name).content.is_some());
        let entry = Made {
            version,
            configs: configs.clone(),
        };
        all.insert(name.to_owned(), entry);
        configs
    }

    fn web_verifier(&self) -> Option<Arc<dyn ServerCertVerifier>> {
        let roots = RootCertStore {
            roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
        };
        match self.verifier(roots) {
            Ok(verifier) => Some(verifier),
            Err(error) => {
                error!(%error, "the authorities of the web cannot be used");
                None
            }
        }
    }

    fn secret_verifier(&self, pem: &[u8]) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("it is not PEM: {error}"))?;
        let mut roots = RootCertStore::empty();
        let (taken, left_out) = roots.add_parsable_certificates(certificates.iter().cloned());
        if certificates.is_empty() {
            return Err("it has no PEM block CERTIFICATE".to_owned());
        }
        if taken == 0 {
            return Err(format!("of its {left_out} certificates none can be read"));
        }
        let inner = self.verifier(roots)?;
        Ok(Arc::new(Listed { inner, certificates }))
    }

    fn verifier(&self, roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, String> {
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| error.to_string())
    }

    fn make(&self, verifier: Arc<dyn ServerCertVerifier>) -> Option<Rc<Configs>> {
        let time = Arc::new(ClockTime(self.clock));
        let builder = ClientConfig::builder_with_details(Arc::clone(&self.provider), time)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
        let config = match builder {
            Ok(builder) => builder
                .dangerous() // the trust is chosen by labels; `Any` is one of them
                .with_custom_certificate_verifier(verifier)
                .with_no_client_auth(),
            Err(error) => {
                error!(%error, "TLS to endpoints cannot be set up");
                return None;
            }
        };
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            Arc::new(config)
        };
        Some(Rc::new(Configs {
            http1: offering(&[b"http/1.1"]),
            http2: offering(&[b"h2"]),
            either: offering(&[b"h2", b"http/1.1"]),
        }))
    }
}

impl fmt::Debug for Trusts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trusts")
            .field("secrets", &self.secrets)
            .finish_non_exhaustive()
    }
}

/// `ssl_backend_tls_verify=none`: whoever answers is the app.
#[derive(Debug)]
pub(crate) struct AnyCertificate(pub(crate) Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Signed by one of the authorities, or itself one of the certificates in the list: people list an app's own self-signed
/// certificate, which often calls itself an authority and then is refused as anybody's.
#[derive(Debug)]
struct Listed {
    inner: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for Listed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let signed = self
            .inner
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        if signed.is_ok() || !self.certificates.iter().any(|listed| listed == end_entity) {
            return signed;
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
        verify_time(end_entity, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn verify_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = parsed.validity();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < validity.not_before.timestamp() {
        Err(CertificateError::NotValidYet)
    } else if now > validity.not_after.timestamp() {
        Err(CertificateError::Expired)
    } else {
        Ok(())
    }
}
