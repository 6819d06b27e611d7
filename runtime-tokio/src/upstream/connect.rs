//! One new connection to an endpoint.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use rustls::{AlertDescription, CertificateError};
use tidegate_core::id::NetworkId;
use tidegate_core::request::fault::{CertificateFault, UpstreamFault};
use tidegate_core::route::spec::UpstreamProtocol;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tracing::debug;

use super::LocalExec;
use crate::http::body::RequestBody;
use crate::leg::NoLeg;
use crate::net::Net;
use crate::worker::pools::Endpoint;

/// A connection that speaks HTTP/1.1.
pub(crate) type Http1 = http1::SendRequest<RequestBody>;
/// A connection that speaks HTTP/2; clones share it.
pub(crate) type Http2 = http2::SendRequest<RequestBody>;

/// HTTP/2 flow control windows towards endpoints, in bytes: what one stream, one connection may have in flight.
const STREAM_WINDOW: u32 = 1 << 18;
const CONNECTION_WINDOW: u32 = 1 << 20;
/// Bytes of a response head; beyond it the response is no valid one.
const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;
const RESPONSE_HEADERS_MAX: usize = 256;
/// Beyond the limit of a connection, where a leg opens it.
const LEG_EXTRA: Duration = Duration::from_millis(300);

/// Where an endpoint is.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its address.
    pub(crate) addr: SocketAddr,
    /// The network whose leg connects, unless this process is on it.
    pub(crate) via: Option<NetworkId>,
}

/// Whether this process or machine has too little of something, which says nothing about the endpoint.
pub(crate) fn is_ours(error: &io::Error) -> bool {
    const OURS: [Errno; 5] = [
        Errno::ADDRNOTAVAIL,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOBUFS,
        Errno::NOMEM,
    ];
    let code = error.raw_os_error();
    OURS.iter().any(|ours| Some(ours.raw_os_error()) == code)
}

/// Whose fault it is.
fn fault(error: &io::Error) -> UpstreamFault {
    if is_ours(error) {
        UpstreamFault::NoSocket
    } else if error.get_ref().is_some_and(|inner| inner.is::<NoLeg>()) {
        UpstreamFault::NoLeg
    } else if error.kind() == io::ErrorKind::TimedOut {
        UpstreamFault::ConnectTimedOut
    } else {
        UpstreamFault::ConnectFailed
    }
}

/// What a request wants to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wants {
    Http1,
    Http2,
    /// HTTP/2 where the endpoint agrees to it; without TLS nobody asks it.
    Either,
}

impl Wants {
    /// What requests of a route with this protocol want; `is_grpc` tells those that only HTTP/2 can carry whole.
    pub(crate) fn of(protocol: UpstreamProtocol, is_grpc: bool) -> Self {
        match protocol {
            UpstreamProtocol::H2c => Wants::Http2,
            UpstreamProtocol::Http1 => Wants::Http1,
            UpstreamProtocol::Auto if is_grpc => Wants::Either,
            UpstreamProtocol::Auto => Wants::Http1,
        }
    }
}

/// A new connection.
pub(crate) enum Opened {
    Http1(Http1),
    Http2(Http2),
}

/// A connection and whether HTTP/2 is spoken on it.
type Wire<S> = (Either<S, TlsStream<S>>, bool);

/// Opens a TCP connection, through a leg where there is one between. Everything that is spoken to endpoints begins here.
pub(crate) async fn tcp<N: Net>(net: &N, target: &Target, limit: Duration) -> Result<N::Stream, UpstreamFault> {
    let Target { addr, via } = target;
    let connecting = async {
        match via {
            None => net.connect(*addr).await,
            Some(network) => net.connect_on(network, *addr, limit).await,
        }
    };
    let connected = within(limit, target, async {
        connecting.await.map_err(|error| {
            debug!(%addr, %error, "connecting to an endpoint failed");
            fault(&error)
        })
    });
    connected.await
}

/// Opens a connection that speaks HTTP.
pub(crate) async fn open<N: Net>(
    net: &N,
    endpoint: &Endpoint,
    wants: Wants,
    limit: Duration,
) -> Result<Opened, UpstreamFault> {
    let (stream, is_http2) = within(limit, &endpoint.target, wire(net, endpoint, wants, limit)).await?;
    let addr = endpoint.target.addr;
    if is_http2 {
        http2(stream, addr).await.map(Opened::Http2)
    } else {
        http1(stream, addr).await.map(Opened::Http1)
    }
}

/// Whether connections can be opened, to the end of the TLS handshake where there is one.
pub(crate) async fn probe<N: Net>(
    net: &N,
    endpoint: &Endpoint,
    wants: Wants,
    limit: Duration,
) -> Result<(), UpstreamFault> {
    within(limit, &endpoint.target, wire(net, endpoint, wants, limit))
        .await
        .map(drop)
}

async fn within<T>(
    limit: Duration,
    target: &Target,
    connecting: impl Future<Output = Result<T, UpstreamFault>>,
) -> Result<T, UpstreamFault> {
    // A leg keeps the limit itself, and says what it met; asking it may take a moment more.
    let extra = target.via.as_ref().map_or(Duration::ZERO, |_| LEG_EXTRA);
    timeout(limit + extra, connecting).await.unwrap_or_else(|_| {
        debug!(addr = %target.addr, ?limit, "connecting to an endpoint timed out");
        Err(UpstreamFault::ConnectTimedOut)
    })
}

async fn wire<N: Net>(
    net: &N,
    endpoint: &Endpoint,
    wants: Wants,
    limit: Duration,
) -> Result<Wire<N::Stream>, UpstreamFault> {
    let Some(tls) = &endpoint.tls else {
        let stream = tcp(net, &endpoint.target, limit).await?;
        return Ok((Either::Left(stream), wants != Wants::Http1));
    };
    let configs = tls.configs.as_ref().ok_or(UpstreamFault::NoTrust)?;
    let config = match wants {
        Wants::Http1 => &configs.http1,
        Wants::Http2 => &configs.http2,
        Wants::Either => &configs.either,
    };
    let stream = tcp(net, &endpoint.target, limit).await?;
    let connector = TlsConnector::from(Arc::clone(config));
    let shaken = connector.connect(tls.name.clone(), stream).await.map_err(|error| {
        let fault = handshake_fault(&error);
        endpoint.handshake_failed(fault, &error);
        fault
    });
    let stream = shaken?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    // RFC 9113 §3.2: HTTP/2 over TLS is agreed on, never assumed. Without an answer it is HTTP/1.1.
    if wants == Wants::Http2 && !is_http2 {
        let fault = UpstreamFault::NoCommonProtocol;
        endpoint.handshake_failed(fault, &"it does not answer the offer of h2 (ALPN)");
        return Err(fault);
    }
    endpoint.handshake_succeeded();
    Ok((Either::Right(stream), is_http2))
}

/// What a failed handshake says.
fn handshake_fault(error: &io::Error) -> UpstreamFault {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(problem)) => UpstreamFault::Certificate(certificate_fault(problem)),
        Some(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => UpstreamFault::NoCommonProtocol,
        Some(_) | None => UpstreamFault::TlsFailed,
    }
}

fn certificate_fault(problem: &CertificateError) -> CertificateFault {
    if let CertificateError::Expired | CertificateError::ExpiredContext { .. } = problem {
        CertificateFault::Expired
    } else if let CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } = problem {
        CertificateFault::NotYetValid
    } else if let CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } = problem {
        CertificateFault::WrongName
    } else if let CertificateError::BadSignature | CertificateError::UnknownIssuer = problem {
        // The former where another authority has the name of one that is known.
        CertificateFault::UnknownAuthority
    } else {
        CertificateFault::Invalid
    }
}

async fn http1<S>(stream: S, addr: SocketAddr) -> Result<Http1, UpstreamFault>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_headers(RESPONSE_HEADERS_MAX)
        .max_buf_size(RESPONSE_HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| UpstreamFault::ConnectFailed)?;
    spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(%addr, %error, "a connection to an endpoint ended");
        }
    });
    Ok(sender)
}

/// Without TLS with prior knowledge (RFC 9113 §3.3).
async fn http2<S>(stream: S, addr: SocketAddr) -> Result<Http2, UpstreamFault>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = http2::Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(RESPONSE_HEAD_BYTES_MAX as u32)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| UpstreamFault::ConnectFailed)?;
    spawn_local(async move {
        if let Err(error) = connection.await {
            debug!(%addr, %error, "a connection to an endpoint ended");
        }
    });
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_not_blamed_for_what_the_proxy_has_too_little_of() {
        let of = |code: Errno| fault(&io::Error::from_raw_os_error(code.raw_os_error()));
        for ours in [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL] {
            assert_eq!(of(ours), UpstreamFault::NoSocket, "{ours}");
        }
        assert_eq!(of(Errno::CONNREFUSED), UpstreamFault::ConnectFailed);
        assert_eq!(of(Errno::HOSTUNREACH), UpstreamFault::ConnectFailed);
        assert_eq!(of(Errno::TIMEDOUT), UpstreamFault::ConnectTimedOut);
    }
}
