//! Connections to one engine: one per call, so that a restarted engine is never met on an old connection. Calls carry
//! the API version that was negotiated; bollard's own calls pass through here too and get it here, since bollard sends
//! none.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bollard::errors::Error;
use bollard::{BollardRequest, body_full};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// Newest API version that this client knows. An engine that knows less is spoken to in its own newest one.
const NEWEST: ApiVersion = ApiVersion(1, 53);

/// A version of the Engine API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ApiVersion(u16, u16);

impl ApiVersion {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once('.')?;
        Some(ApiVersion(major.parse().ok()?, minor.parse().ok()?))
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Tcp(String),
    Unix(PathBuf),
}

/// Reaches one engine.
#[derive(Debug)]
pub(crate) struct Transport {
    target: Target,
    /// None: to be negotiated before the next call.
    version: Mutex<Option<ApiVersion>>,
}

impl Transport {
    pub(crate) fn new(target: Target) -> Arc<Self> {
        Arc::new(Transport {
            target,
            version: Mutex::new(None),
        })
    }

    /// Negotiates anew before the next call: engines are upgraded under a running controller.
    pub(crate) fn forget_version(&self) {
        self.set_version(None);
    }

    pub(crate) fn version(&self) -> Option<ApiVersion> {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_version(&self, version: Option<ApiVersion>) {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = version;
    }

    /// One call; returns when the head of the answer has come.
    pub(crate) async fn send(&self, mut request: BollardRequest) -> Result<Response<Incoming>, Error> {
        let version = match self.version() {
            Some(version) => version,
            None => self.negotiate().await?,
        };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = format!("/v{version}{path}")
            .parse::<Uri>()
            .map_err(|error| Error::from(http::Error::from(error)))?;
        let answer = self.send_plain(request).await;
        if answer.is_err() {
            self.forget_version();
        }
        answer
    }

    /// Asks for the engine's newest version, in the one call that every engine answers unversioned.
    async fn negotiate(&self) -> Result<ApiVersion, Error> {
        let request = Request::get("/_ping").body(body_full(Bytes::new()))?;
        let answer = self.send_plain(request).await?;
        let header = answer
            .headers()
            .get("api-version")
            .and_then(|value| value.to_str().ok());
        let theirs = header
            .and_then(ApiVersion::parse)
            .ok_or(Error::APIVersionParseError {})?;
        let version = theirs.min(NEWEST);
        tracing::debug!(engine = %theirs, used = %version, "negotiated the Docker API version");
        self.set_version(Some(version));
        Ok(version)
    }

    async fn send_plain(&self, mut request: BollardRequest) -> Result<Response<Incoming>, Error> {
        request
            .headers_mut()
            .insert(header::HOST, HeaderValue::from_static("docker"));
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the answer's body, or when the caller drops the call.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a connection to Docker ended");
            }
        });
        Ok(sender.send_request(request).await?)
    }

    async fn connect(&self) -> Result<Stream, Error> {
        match &self.target {
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str()).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Target::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
        }
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
