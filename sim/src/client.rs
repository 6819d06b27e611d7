//! Users: hosts that send requests to the proxies and remember every answer.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tidegate::control::LocalExecutor;
use tidegate_core::rng::Rng;
use tidegate_core::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use turmoil::net::TcpStream;

use crate::shared::Shared;

/// A user's patience with one request.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// A user's patience with a connection to a proxy.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// What users ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// `Host`
    pub host: String,
    /// Path.
    pub path: String,
    /// Over what.
    pub channel: Channel,
}

/// What a user speaks to a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// HTTP.
    Clear,
    /// HTTPS, which the proxy ends.
    Tls,
    /// HTTPS, which the app ends: on a new connection each time, as nobody on the way can move a request to another task.
    Passthrough,
}

/// One request and what came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// When it was sent.
    pub sent: Instant,
    /// When its answer was whole.
    pub done: Instant,
    /// What was asked for.
    pub wish: Wish,
    /// `GET` or `POST`.
    pub method: Method,
    /// Whether nobody on the way could send it again: a POST, and what is inside of TLS that the app ends.
    pub once_only: bool,
    /// The proxy it was sent to.
    pub proxy: IpAddr,
    /// The answer.
    pub answer: Answer,
}

/// What a user got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// No whole answer.
    Broken(String),
    /// A whole answer.
    Status {
        /// Its status.
        code: u16,
        /// The service that gave it; none if it was the proxy itself.
        service: Option<String>,
        /// Its task.
        task: Option<String>,
    },
}

impl Wish {
    /// A wish for a path of a host.
    pub fn new(host: &str, path: &str) -> Self {
        Wish {
            host: host.to_owned(),
            path: path.to_owned(),
            channel: Channel::Clear,
        }
    }

    /// The same over another channel.
    #[must_use]
    pub fn over(self, channel: Channel) -> Self {
        Wish { channel, ..self }
    }
}

impl Outcome {
    /// Whether `service` gave the answer to a wish for `host`.
    pub fn is_from(&self, host: &str, service: &str) -> bool {
        let by = match &self.answer {
            Answer::Broken(_) => None,
            Answer::Status { service, .. } => service.as_deref(),
        };
        self.wish.host == host && by == Some(service)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome {
            sent,
            done,
            wish,
            method,
            proxy,
            ..
        } = self;
        let over = match wish.channel {
            Channel::Clear => "",
            Channel::Tls => " over TLS",
            Channel::Passthrough => " over TLS of the app",
        };
        let Wish { host, path, .. } = wish;
        write!(
            f,
            "{method} {host}{path}{over} sent {sent} done {done} through {proxy}: "
        )?;
        match &self.answer {
            Answer::Broken(why) => write!(f, "broken: {why}"),
            Answer::Status { code, service, .. } => {
                write!(f, "{code} by {}", service.as_deref().unwrap_or("the proxy"))
            }
        }
    }
}

/// One user: asks for something of the present load, waits for the answer, thinks, asks again.
pub async fn run(shared: Rc<Shared>, name: String) {
    let mut rng = shared.fork(&name);
    let mut kept: Option<(Line, Connection)> = None;
    // A quarter of the users speak HTTP/2.
    let version = if rng.chance(1, 4) {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
    for number in 0_u64.. {
        let pause = Duration::from_millis(rng.between(5, 40));
        shared.wait(pause).await;
        let Some((wish, proxy)) = shared.next_wish(&mut rng) else {
            continue;
        };
        // Half of the users' requests come on a connection that they have.
        let line = Line::of(&wish, proxy);
        let reused = kept.take().filter(|(to, _)| *to == line && rng.chance(1, 2));
        let sent = shared.now();
        shared.begin();
        let (method, body) = request_kind(&mut rng);
        let title = format!("{name}/{number}");
        let once_only = method == Method::POST || wish.channel == Channel::Passthrough;
        let asked = ask(
            &shared,
            proxy,
            reused.map_or(Err(version), |(_, connection)| Ok(connection)),
            &title,
            &wish,
            method.clone(),
            body,
        );
        let (answer, connection) = match within(&shared, PATIENCE, asked).await {
            Some(Ok((answer, connection))) => (answer, connection),
            Some(Err(why)) => (Answer::Broken(why), None),
            None => (Answer::Broken(format!("no answer within {PATIENCE:?}")), None),
        };
        kept = connection
            .filter(|_| wish.channel != Channel::Passthrough)
            .map(|connection| (line, connection));
        let done = shared.now();
        let outcome = Outcome {
            sent,
            done,
            wish,
            method,
            once_only,
            proxy: proxy.ip(),
            answer,
        };
        shared.trace(&name, &outcome.to_string());
        shared.end(outcome);
    }
}

/// The header by which a request is known again at the tasks that it reaches.
pub(crate) const WISH: &str = "x-wish";

/// What a connection can be used for again.
#[derive(PartialEq, Eq)]
struct Line {
    proxy: SocketAddr,
    /// The name that TLS was begun with.
    name: Option<String>,
}

impl Line {
    fn of(wish: &Wish, proxy: SocketAddr) -> Self {
        let name = (wish.channel != Channel::Clear).then(|| wish.host.clone());
        Line { proxy, name }
    }
}

/// A connection to a proxy.
enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Itself while it can take one more request.
    async fn ready(mut self) -> Option<Self> {
        let ready = match &mut self {
            Connection::Http1(connection) => connection.ready().await,
            Connection::Http2(connection) => connection.ready().await,
        };
        ready.is_ok().then_some(self)
    }

    async fn send(
        &mut self,
        name: &str,
        wish: &Wish,
        method: Method,
        body: Bytes,
    ) -> Result<Response<Incoming>, String> {
        let request = Request::builder().method(method).header(WISH, name);
        let request = match self {
            Connection::Http1(_) => request.uri(&wish.path).header(http::header::HOST, &wish.host),
            Connection::Http2(_) => {
                let scheme = if wish.channel == Channel::Clear {
                    "http"
                } else {
                    "https"
                };
                request.uri(format!("{scheme}://{}{}", wish.host, wish.path))
            }
        };
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let sent = match self {
            Connection::Http1(connection) => connection.send_request(request).await,
            Connection::Http2(connection) => connection.send_request(request).await,
        };
        sent.map_err(|error| format!("no head: {error}"))
    }
}

fn request_kind(rng: &mut Rng) -> (Method, Bytes) {
    if rng.chance(1, 5) {
        let bytes = usize::try_from(rng.between(1, 20_000)).unwrap_or(1);
        (Method::POST, Bytes::from(vec![b'x'; bytes]))
    } else {
        (Method::GET, Bytes::new())
    }
}

async fn ask(
    shared: &Rc<Shared>,
    proxy: SocketAddr,
    reused: Result<Connection, Version>,
    name: &str,
    wish: &Wish,
    method: Method,
    body: Bytes,
) -> Result<(Answer, Option<Connection>), String> {
    let (version, still_open) = match reused {
        Ok(connection) => {
            let version = match &connection {
                Connection::Http1(_) => Version::HTTP_11,
                Connection::Http2(_) => Version::HTTP_2,
            };
            (version, connection.ready().await)
        }
        Err(version) => (version, None),
    };
    let mut connection = match still_open {
        Some(connection) => connection,
        None => connect(shared, proxy, version, name, wish).await?,
    };
    let response = connection.send(name, wish, method, body).await?;
    let header = |name| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let (code, service, task) = (response.status().as_u16(), header("x-service"), header("x-task"));
    let whole = response.into_body().collect().await;
    whole.map_err(|error| format!("half a body: {error}"))?;
    let connection = connection.ready().await;
    Ok((Answer::Status { code, service, task }, connection))
}

pub(crate) async fn open(shared: &Rc<Shared>, proxy: SocketAddr) -> Result<TcpStream, String> {
    match within(shared, CONNECT_PATIENCE, TcpStream::connect(proxy)).await {
        Some(Ok(stream)) => Ok(stream),
        Some(Err(error)) => Err(format!("cannot connect to {proxy}: {}", error.kind())),
        None => Err(format!("cannot connect to {proxy} within {CONNECT_PATIENCE:?}")),
    }
}

async fn connect(
    shared: &Rc<Shared>,
    proxy: SocketAddr,
    version: Version,
    name: &str,
    wish: &Wish,
) -> Result<Connection, String> {
    let stream = open(shared, proxy).await?;
    if wish.channel == Channel::Clear {
        return handshake(stream, version).await;
    }
    let protocol: &[u8] = if version == Version::HTTP_2 { b"h2" } else { b"http/1.1" };
    let host = ServerName::try_from(wish.host.clone()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(shared.pki().user(protocol));
    let stream = connector
        .connect(host, stream)
        .await
        .map_err(|error| format!("no TLS: {error}"))?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let shown = shown.and_then(|certificate| shared.pki().name(certificate));
    let shown = shown.ok_or("a certificate that nobody issued")?;
    shared.trace(name, &format!("is shown the certificate {shown}"));
    handshake(stream, version).await
}

async fn handshake<S>(stream: S, version: Version) -> Result<Connection, String>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    if version == Version::HTTP_2 {
        let (connection, driver) = http2::handshake(LocalExecutor, TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::task::spawn_local(driver);
        return Ok(Connection::Http2(connection));
    }
    let (connection, driver) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::task::spawn_local(driver);
    Ok(Connection::Http1(connection))
}

pub(crate) async fn within<T>(shared: &Shared, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! { biased;
        value = future => Some(value),
        () = shared.wait(limit) => None,
    }
}
