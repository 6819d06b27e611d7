//! Requests at a steady rate, half of them on connections of their own, and the account of each.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tidegate_core::prove::{Account, Cause};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::net::{Net as _, TokioNet};
use crate::upstream::trust::AnyCertificate;

/// Requests under way at once; more wait for one of them.
const UNDER_WAY_MAX: usize = 1024;
/// Bytes of an answer that are read.
const ANSWER_BYTES_MAX: usize = 16 << 20;

type Sender = SendRequest<Empty<Bytes>>;
type Idle = Rc<RefCell<Vec<(SocketAddr, Sender)>>>;

/// What is asked, and where.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub entrances: Vec<SocketAddr>,
    pub host: String,
    pub path: String,
    pub method: Method,
    /// How HTTPS is spoken, where it is.
    pub tls: Option<Tls>,
}

/// HTTPS with whatever certificate is shown: what is proved is the update, and other tools look at certificates.
#[derive(Clone)]
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

impl Tls {
    /// To a host, named to the proxy before anything else (RFC 6066 §3).
    ///
    /// # Errors
    /// If TLS cannot name such a host.
    pub(super) fn to(host: &str) -> Result<Tls, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous() // nothing secret is sent
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls {
            connector: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from(host.to_owned()).map_err(|error| format!("{host}: {error}"))?,
        })
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(f, "{} {scheme}://{}{} at", self.method, self.host, self.path)?;
        for entrance in &self.entrances {
            write!(f, " {entrance}")?;
        }
        Ok(())
    }
}

/// Requests that go on until they are stopped.
#[derive(Debug)]
pub(super) struct Load {
    stop: CancellationToken,
    account: Rc<RefCell<Account>>,
    requests: tokio::task::JoinHandle<()>,
}

impl Load {
    /// `rate` requests a second, each within `limit`.
    pub(super) fn start(clock: Clock, request: Request, rate: u32, limit: Duration) -> Load {
        let (stop, account) = (CancellationToken::new(), Rc::new(RefCell::new(Account::default())));
        let sender = Sending {
            clock,
            request: Rc::new(request),
            limit,
            idle: Idle::default(),
            account: account.clone(),
        };
        let requests = tokio::task::spawn_local(sender.run(rate, stop.clone()));
        Load {
            stop,
            account,
            requests,
        }
    }

    /// The account so far.
    pub(super) fn account(&self) -> Account {
        self.account.borrow().clone()
    }

    /// Lets requests under way end, and gives the whole account.
    pub(super) async fn finish(self) -> Account {
        self.stop.cancel();
        self.requests.await.expect("the load does not panic");
        self.account.take()
    }
}

#[derive(Clone)]
struct Sending {
    clock: Clock,
    request: Rc<Request>,
    limit: Duration,
    idle: Idle,
    account: Rc<RefCell<Account>>,
}

impl Sending {
    async fn run(self, rate: u32, stop: CancellationToken) {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut under_way = JoinSet::new();
        for number in 0_usize.. {
            tokio::select! { biased;
                () = stop.cancelled() => break,
                _ = pace.tick() => {}
            }
            while under_way.try_join_next().is_some() {}
            if under_way.len() >= UNDER_WAY_MAX {
                under_way.join_next().await;
            }
            under_way.spawn_local(self.clone().one(number));
        }
        while under_way.join_next().await.is_some() {}
    }

    async fn one(self, number: usize) {
        let entrances = &self.request.entrances;
        // In pairs, so that each entrance has both kinds.
        let (entrance, keep) = (entrances[number / 2 % entrances.len()], number.is_multiple_of(2));
        let start = self.clock.now();
        let failure = match tokio::time::timeout(self.limit, self.ask(entrance, keep)).await {
            Ok(answered) => answered.err(),
            Err(_) => Some(Cause::TimedOut),
        };
        let took = self.clock.now().since(start);
        self.account.borrow_mut().enter(took, failure);
    }

    async fn ask(&self, entrance: SocketAddr, keep: bool) -> Result<(), Cause> {
        if keep && let Some(sender) = self.take_idle(entrance) {
            match self.send(entrance, sender, keep).await {
                // It was closed as the request set out: nothing of that can have arrived, and every client connects anew.
                Err(error) if error.is_canceled() => {}
                Err(_) => return Err(Cause::Reset),
                Ok(failure) => return failure.map_or(Ok(()), Err),
            }
        }
        let stream = TokioNet.connect(entrance).await.map_err(|_| Cause::Refused)?;
        let sender = match &self.request.tls {
            None => begin(stream).await?,
            Some(Tls { connector, name }) => {
                let stream = connector.connect(name.clone(), stream).await;
                begin(stream.map_err(|_| Cause::Reset)?).await?
            }
        };
        match self.send(entrance, sender, keep).await {
            Ok(failure) => failure.map_or(Ok(()), Err),
            Err(_) => Err(Cause::Reset),
        }
    }

    fn take_idle(&self, entrance: SocketAddr) -> Option<Sender> {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|(_, sender)| !sender.is_closed());
        let index = idle.iter().position(|(at, _)| *at == entrance)?;
        Some(idle.swap_remove(index).1)
    }

    /// What the answer says; an error where there is none, or not all of it.
    async fn send(&self, entrance: SocketAddr, mut sender: Sender, keep: bool) -> Result<Option<Cause>, hyper::Error> {
        sender.ready().await?;
        let request = http::Request::builder()
            .method(self.request.method.clone())
            .uri(self.request.path.as_str())
            .header(http::header::HOST, self.request.host.as_str())
            .header(http::header::USER_AGENT, "tidegate-prove")
            .body(Empty::new());
        let Ok(request) = request else {
            return Ok(Some(Cause::Refused)); // checked at the start
        };
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let Ok(body) = body else {
            return Ok(Some(Cause::Reset));
        };
        if keep {
            self.idle.borrow_mut().push((entrance, sender));
        }
        Ok(Cause::of_answer(status, &String::from_utf8_lossy(&body.to_bytes())))
    }
}

/// HTTP on a connection.
async fn begin<S>(stream: S) -> Result<Sender, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| Cause::Reset)?;
    // Its end shows in the sender.
    tokio::task::spawn_local(async move { connection.await.ok() });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn local(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        tokio::task::LocalSet::new().block_on(&runtime.unwrap(), test);
    }

    async fn load_at(entrance: SocketAddr, tls: Option<Tls>, until: u64) -> Account {
        let request = Request {
            entrances: vec![entrance],
            host: "a.example".into(),
            path: "/".into(),
            method: Method::GET,
            tls,
        };
        let clock = Clock::system();
        let load = Load::start(clock, request, 1_000, Duration::from_secs(20));
        while load.account().requests() < until {
            tokio::task::yield_now().await;
        }
        load.finish().await
    }

    #[test]
    fn refused_connections_are_counted_as_such() {
        local(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let entrance = listener.local_addr().unwrap();
            drop(listener);
            let account = load_at(entrance, None, 5).await;
            assert_eq!(account.failures.keys().collect::<Vec<_>>(), [&Cause::Refused]);
            assert_eq!(account.failed(), account.requests());
        });
    }

    #[test]
    fn answers_are_counted_and_connections_used_again_where_they_may_be() {
        local(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let entrance = listener.local_addr().unwrap();
            let connections = Rc::new(RefCell::new(0_u64));
            let counted = connections.clone();
            let server = tokio::task::spawn_local(async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    *counted.borrow_mut() += 1;
                    tokio::task::spawn_local(answer(stream));
                }
            });
            let account = load_at(entrance, None, 40).await;
            assert_eq!(account.failed(), 0, "{account}");
            assert!(*connections.borrow() < account.requests(), "none was used again");
            server.abort();
        });
    }

    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut bytes = [0; 4096];
        while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            stream.write_all(answer).await.ok();
        }
    }

    #[test]
    fn https_names_the_host_and_takes_any_certificate() {
        local(async {
            let own = rcgen::generate_simple_self_signed(["other.example".to_owned()]).unwrap();
            let key = rustls_pki_types::PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![own.cert.der().clone()], key)
                .unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let entrance = listener.local_addr().unwrap();
            let names = Rc::new(RefCell::new(Vec::new()));
            let heard = names.clone();
            let server = tokio::task::spawn_local(async move {
                loop {
                    let stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
                    let name = stream.get_ref().1.server_name().map(str::to_owned);
                    heard.borrow_mut().push(name);
                    tokio::task::spawn_local(answer(stream));
                }
            });
            let account = load_at(entrance, Some(Tls::to("a.example").unwrap()), 20).await;
            assert_eq!(account.failed(), 0, "{account}");
            assert_eq!(names.borrow()[0].as_deref(), Some("a.example"));
            server.abort();
        });
    }
}
