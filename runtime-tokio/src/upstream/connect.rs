//! One new connection to an endpoint.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::io::Errno;
use tidegate_core::id::NetworkId;
use tidegate_core::request::fault::UpstreamFault;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::debug;

use super::LocalExec;
use crate::http::body::RequestBody;
use crate::leg::NoLeg;
use crate::net::Net;

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

/// Opens a TCP connection, through a leg where there is one between. Everything that is spoken to endpoints begins here.
pub(crate) async fn tcp<N: Net>(net: &N, target: &Target, limit: Duration) -> Result<N::Stream, UpstreamFault> {
    let Target { addr, via } = target;
    let connected = match via {
        None => timeout(limit, net.connect(*addr)).await,
        // The leg keeps the limit, and says what it met; asking it may take a moment more.
        Some(network) => timeout(limit + LEG_EXTRA, net.connect_on(network, *addr, limit)).await,
    };
    match connected {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            debug!(%addr, %error, "connecting to an endpoint failed");
            Err(fault(&error))
        }
        Err(_) => {
            debug!(%addr, ?limit, "connecting to an endpoint timed out");
            Err(UpstreamFault::ConnectTimedOut)
        }
    }
}

/// Opens a connection that speaks HTTP/1.1.
pub(crate) async fn http1<N: Net>(net: &N, target: &Target, limit: Duration) -> Result<Http1, UpstreamFault> {
    let stream = tcp(net, target, limit).await?;
    let addr = target.addr;
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

/// Opens a connection that speaks HTTP/2 without TLS, with prior knowledge (RFC 9113 §3.3).
pub(crate) async fn http2<N: Net>(net: &N, target: &Target, limit: Duration) -> Result<Http2, UpstreamFault> {
    let stream = tcp(net, target, limit).await?;
    let addr = target.addr;
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
