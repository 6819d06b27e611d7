//! TLS of users: passed through by name, or ended here with certificates from a folder. Certificates are made in each test.

mod backend;
mod pass;
mod terminate;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, SignatureAlgorithm,
};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tidegate::clock::Clock;
use tidegate::secrets::Secrets;
use tidegate::telemetry::log::AccessLog;
use tidegate::tls::TlsListen;
use tidegate::tls::certificates::{Certificates, Keeper};
use tidegate_core::route::RouteTable;
use tidegate_core::route::spec::{CertificateRef, ClientTls, RouteSpec};
use tidegate_core::snapshot::model::Snapshot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::harness::*;

/// Signs what the tests need.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

/// A certificate and its key, PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn combined(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM")
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        // Another name than those that it signs, or they look self-signed.
        params.distinguished_name.push(DnType::CommonName, "Test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("a certificate");
        Authority {
            pem: own.pem(),
            der: own.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    fn issue(&self, names: &[&str]) -> Pair {
        self.issue_with(names, &PKCS_ECDSA_P256_SHA256, |_| ())
    }

    fn issue_with(
        &self,
        names: &[&str],
        algorithm: &'static SignatureAlgorithm,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("DNS names");
        edit(&mut params);
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A client that trusts this authority alone.
    fn client(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        self.client_with(provider(), rustls::DEFAULT_VERSIONS, alpn)
    }

    fn client_with(
        &self,
        provider: Arc<rustls::crypto::CryptoProvider>,
        versions: &[&'static SupportedProtocolVersion],
        alpn: &[&[u8]],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Arc::new(config)
    }

    /// An app that ends TLS itself with a certificate for `host`: it says its name, then repeats what it hears.
    async fn app(&self, host: &str, name: &'static str) -> App {
        let pair = self.issue(&[host]);
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("PEM");
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![pair.der()], key)
            .expect("a key that fits");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        App::scripted(move |stream| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                if stream.write_all(name.as_bytes()).await.is_err() {
                    return;
                }
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
                let _ = stream.shutdown().await; // the client may be gone
            }
        })
        .await
    }
}

/// A secret in a folder, as Docker mounts it: a new file in its place, so that nobody ever sees half of it.
fn put(folder: &Path, name: &str, text: &str) {
    let draft = folder.join(format!(".{name}"));
    std::fs::write(&draft, text).expect("a file");
    std::fs::rename(&draft, folder.join(name)).expect("a name");
}

/// Certificates out of a folder of secrets.
#[derive(Clone)]
struct Keep {
    secrets: Secrets,
    certificates: Certificates,
}

impl Keep {
    fn over(secrets: Secrets) -> Keep {
        let keeper = Keeper::new(secrets.clone(), Clock::system()).expect("randomness");
        Keep {
            secrets,
            certificates: Certificates::new(keeper),
        }
    }

    /// Takes what a table wants, as a proxy does before its workers get it.
    fn install(&self, snapshot: &Snapshot) {
        let table = RouteTable::compile(snapshot);
        self.secrets.want(table.secrets());
        self.certificates.install(&table);
    }
}

fn keeper(folder: &Path) -> Keep {
    Keep::over(Secrets::folder(folder.to_owned()))
}

/// A proxy that also takes TLS.
async fn start(snapshot: Snapshot, keep: &Keep) -> Proxy {
    keep.install(&snapshot);
    let listen = TlsListen {
        addr: SocketAddr::from(([127, 0, 0, 1], 0)),
        certificates: keep.certificates.subscribe(),
    };
    Proxy::start_with(snapshot, AccessLog::off(), |config| {
        config.tls = Some(listen);
        config.secrets = keep.secrets.clone();
    })
    .await
}

/// The same without a certificate.
async fn start_bare(snapshot: Snapshot) -> Proxy {
    let folder = tempfile::tempdir().expect("a folder");
    start(snapshot, &keeper(folder.path())).await
}

fn with_certificate(mut spec: RouteSpec, secrets: &[&str]) -> RouteSpec {
    let certificate = |name: &&str| CertificateRef {
        certificate: (*name).to_owned(),
        key: None,
    };
    spec.tls.certificates = secrets.iter().map(certificate).collect();
    spec
}

fn passthrough(mut spec: RouteSpec) -> RouteSpec {
    spec.tls = ClientTls {
        passthrough: true,
        ..ClientTls::default()
    };
    spec
}

type Tls = TlsStream<TcpStream>;

/// A TLS connection for `name`.
async fn connect(proxy: &Proxy, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Tls> {
    let addr = proxy.tls_addr.expect("it takes TLS");
    let stream = TcpStream::connect(addr).await.expect("the proxy accepts");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    timeout(LIMIT, TlsConnector::from(Arc::clone(config)).connect(name, stream))
        .await
        .expect("a handshake in time")
}

/// `GET /` on a TLS connection that is closed then.
async fn get(stream: &mut Tls, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("the proxy reads");
    let mut answer = Vec::new();
    let read = timeout(LIMIT, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the proxy closes"); // with or without close_notify
    text(&answer)
}

/// Reads `len` bytes as text.
async fn read_text(stream: &mut Tls, len: usize) -> String {
    let mut bytes = vec![0; len];
    timeout(LIMIT, stream.read_exact(&mut bytes))
        .await
        .expect("bytes in time")
        .expect("bytes before the end");
    text(&bytes)
}
