//! Clients over TLS that stay: WebSockets, long HTTP/2 streams, and requests without a pause, with an account of each. They
//! trust one authority, which the test makes, and can tell which certificate they were served.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use http_body_util::channel::Channel;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::clock::{Look, wait_for};

/// Between two words of one client.
const PACE: Duration = Duration::from_millis(500);
/// For one word to come back. Machines of CI are slow.
const LIMIT: Duration = Duration::from_secs(30);
/// For a new certificate to be served.
const SERVED_WITHIN: Duration = Duration::from_secs(120);

/// Signs certificates for one host.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    own: CertificateDer<'static>,
    pem: String,
    host: String,
}

/// A certificate for the authority's host.
#[derive(Debug)]
pub struct Issued {
    /// Certificate and key, as a secret holds them.
    pub pem: String,
    /// As it is served.
    pub certificate: CertificateDer<'static>,
}

impl Authority {
    /// A new one.
    ///
    /// # Errors
    /// If the library cannot make a key or certificate.
    pub fn new(host: &str) -> Result<Authority> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Test authority of {host}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signed = params.self_signed(&key)?;
        Ok(Authority {
            own: signed.der().clone(),
            pem: signed.pem(),
            issuer: Issuer::new(params, key),
            host: host.to_string(),
        })
    }

    /// Its own certificate, as clients are given it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate of its own each time.
    ///
    /// # Errors
    /// As above.
    pub fn issue(&self) -> Result<Issued> {
        let key = KeyPair::generate()?;
        let signed = CertificateParams::new([self.host.clone()])?.signed_by(&key, &self.issuer)?;
        let pem = signed.pem() + &key.serialize_pem();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())?;
        Ok(Issued { pem, certificate })
    }

    /// A client that trusts this authority alone.
    ///
    /// # Errors
    /// As above.
    pub fn client(&self) -> Result<Client> {
        let mut roots = RootCertStore::empty();
        roots.add(self.own.clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        // A resumed session shows no new certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Client {
            config,
            host: self.host.clone(),
        })
    }
}

/// Connects to a host at any address.
#[derive(Clone, Debug)]
pub struct Client {
    config: ClientConfig,
    host: String,
}

impl Client {
    /// A TLS connection that speaks `protocol` (ALPN).
    ///
    /// # Errors
    /// If there is none in time.
    pub async fn connect(&self, server: SocketAddr, protocol: &str) -> Result<TlsStream<TcpStream>> {
        let mut config = self.config.clone();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let name = ServerName::try_from(self.host.clone())?;
        let connecting = async {
            let stream = TcpStream::connect(server).await?;
            stream.set_nodelay(true)?;
            TlsConnector::from(Arc::new(config)).connect(name, stream).await
        };
        Ok(tokio::time::timeout(LIMIT, connecting)
            .await
            .context("no TLS connection in time")??)
    }

    /// The certificate that is served now.
    ///
    /// # Errors
    /// If no TLS connection can be made.
    pub async fn served(&self, server: SocketAddr) -> Result<CertificateDer<'static>> {
        let stream = self.connect(server, "http/1.1").await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let own = certificates.and_then(|chain| chain.first()).context("no certificate")?;
        Ok(own.clone().into_owned())
    }

    async fn get(&self, server: SocketAddr) -> Result<()> {
        let mut stream = self.connect(server, "http/1.1").await?;
        let request = format!("GET / HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.host);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(LIMIT, stream.read_to_end(&mut answer)).await;
        read.context("no answer in time")??;
        match answer.starts_with(b"HTTP/1.1 200 ") {
            true => Ok(()),
            false => bail!(
                "{}",
                String::from_utf8_lossy(&answer).lines().next().unwrap_or_default()
            ),
        }
    }

    /// An upgraded connection that says a word again and again and hears it back, for ever.
    async fn socket(&self, server: SocketAddr, account: &Account) -> Result<()> {
        let mut stream = self.connect(server, "http/1.1").await?;
        let headers = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n";
        let request = format!("GET /socket HTTP/1.1\r\nhost: {}\r\n{headers}\r\n", self.host);
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::time::timeout(LIMIT, stream.read_u8()).await??);
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            bail!("no upgrade: {}", String::from_utf8_lossy(&head));
        }
        let mut pace = tokio::time::interval(PACE);
        for number in 0_u64.. {
            let word = number.to_be_bytes();
            stream.write_all(&word).await?;
            let mut back = [0; 8];
            let read = tokio::time::timeout(LIMIT, stream.read_exact(&mut back)).await;
            read.context("nothing comes back")??;
            if back != word {
                bail!("something else comes back");
            }
            account.word(number);
            pace.tick().await;
        }
        Ok(())
    }

    /// An HTTP/2 stream as gRPC has it: both sides send as long as it lives.
    async fn stream(&self, server: SocketAddr, account: &Account) -> Result<()> {
        let stream = self.connect(server, "h2").await?;
        let (mut requests, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(4);
        let request = Request::post(format!("https://{}/echo", self.host))
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .body(body)?;
        let mut pace = tokio::time::interval(PACE);
        sender.send_data(Bytes::from_static(&[0; 8])).await?;
        let answer = tokio::time::timeout(LIMIT, requests.send_request(request)).await;
        let mut answer = answer.context("no answer in time")??.into_body();
        for number in 0_u64.. {
            let mut back = Vec::new();
            while back.len() < 8 {
                let frame = tokio::time::timeout(LIMIT, answer.frame()).await;
                let frame = frame.context("nothing comes back")?.context("the stream ended")??;
                back.extend(frame.into_data().unwrap_or_default());
            }
            if back != number.to_be_bytes() {
                bail!("something else comes back");
            }
            account.word(number);
            pace.tick().await;
            let next = Bytes::copy_from_slice(&(number + 1).to_be_bytes());
            sender.send_data(next).await?;
        }
        Ok(())
    }
}

/// What became of the clients of one kind.
#[derive(Debug, Default)]
pub struct Account {
    begun: AtomicU64,
    words: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Account {
    fn word(&self, number: u64) {
        if number == 0 {
            self.begun.fetch_add(1, Ordering::Relaxed);
        }
        self.words.fetch_add(1, Ordering::Relaxed);
    }

    fn failed(&self, error: &anyhow::Error) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        *failures.entry(format!("{error:#}")).or_default() += 1;
    }

    /// Clients whose first word came back.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Words, or requests, that were answered.
    pub fn words(&self) -> u64 {
        self.words.load(Ordering::Relaxed)
    }

    /// Clients that were closed, or requests that failed, by reason.
    pub fn failures(&self) -> BTreeMap<String, u64> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// All clients; they end when this is dropped.
#[derive(Debug)]
pub struct Crowd {
    runtime: Runtime,
    client: Client,
    /// Upgraded connections.
    pub sockets: Arc<Account>,
    /// HTTP/2 streams, a connection each.
    pub streams: Arc<Account>,
    /// Requests on connections of their own.
    pub requests: Arc<Account>,
}

impl Crowd {
    /// Starts so many of each kind, spread over the servers, and one client without a pause for each server.
    ///
    /// # Errors
    /// If the runtime cannot start.
    pub fn start(client: &Client, servers: &[SocketAddr], sockets: usize, streams: usize) -> Result<Crowd> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let crowd = Crowd {
            runtime,
            client: client.clone(),
            sockets: Arc::default(),
            streams: Arc::default(),
            requests: Arc::default(),
        };
        let server = |index: usize| servers[index % servers.len()];
        for index in 0..sockets {
            let (client, account, server) = (client.clone(), crowd.sockets.clone(), server(index));
            crowd.runtime.spawn(async move {
                if let Err(error) = client.socket(server, &account).await {
                    account.failed(&error);
                }
            });
        }
        for index in 0..streams {
            let (client, account, server) = (client.clone(), crowd.streams.clone(), server(index));
            crowd.runtime.spawn(async move {
                if let Err(error) = client.stream(server, &account).await {
                    account.failed(&error);
                }
            });
        }
        for server in servers.iter().copied() {
            let (client, account) = (client.clone(), crowd.requests.clone());
            crowd.runtime.spawn(async move {
                let mut pace = tokio::time::interval(Duration::from_millis(20));
                for number in 0.. {
                    match client.get(server).await {
                        Ok(()) => account.word(number),
                        Err(error) => account.failed(&error),
                    }
                    pace.tick().await;
                }
            });
        }
        Ok(crowd)
    }

    /// Waits until every server serves this certificate.
    ///
    /// # Errors
    /// After two minutes, with what it serves instead.
    pub fn until_served(&self, servers: &[SocketAddr], certificate: &CertificateDer<'_>) -> Result<()> {
        for server in servers {
            wait_for(
                &format!("the certificate is served at {server}"),
                SERVED_WITHIN,
                || match self.served(*server) {
                    Ok(served) if served == *certificate => Look::Holds(()),
                    Ok(_) => Look::NotYet("another certificate".to_string()),
                    Err(error) => Look::NotYet(format!("{error:#}")),
                },
            )?;
        }
        Ok(())
    }

    /// The certificate that a server serves now.
    ///
    /// # Errors
    /// If no TLS connection can be made.
    pub fn served(&self, server: SocketAddr) -> Result<CertificateDer<'static>> {
        self.runtime.block_on(self.client.served(server))
    }
}
