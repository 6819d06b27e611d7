//! TLS connections of users: read the ClientHello, ask the table, then either pass the connection on as it is or end TLS here
//! and serve HTTP.
//!
//! Waits and never decides: the message is read by `core::tls::client_hello`, the host by the route table, the certificate by
//! `core::tls::certificates`.

pub mod certificates;
pub(crate) mod passthrough;
mod proxy_header;
pub(crate) mod replay;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use rustls::ServerConfig;
use tidegate_core::time::{Duration, Instant};
use tidegate_core::tls::client_hello::{Hello, INPUT_BYTES_MAX, Parsed, parse};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;
use tracing::{Instrument as _, debug, debug_span};

use crate::listen;
use crate::net::Net;
use crate::proxy_protocol::{self, Peer, Unintroduced};
use crate::worker::{TlsRoute, Worker};
use certificates::Served;
use replay::Replay;

/// Where a worker takes TLS connections, and what it ends them with.
#[derive(Clone, Debug)]
pub struct TlsListen {
    /// Where to listen; port 0 lets the system choose.
    pub addr: SocketAddr,
    /// The present certificates.
    pub certificates: watch::Receiver<Arc<Served>>,
}

/// Alerts (RFC 8446 §6) that are sent before TLS began, so in the clear.
#[derive(Clone, Copy, Debug)]
enum Alert {
    AccessDenied = 49,
    DecodeError = 50,
    InternalError = 80,
    UnrecognizedName = 112,
}

/// What a client gets on this port that speaks HTTP without TLS.
const PLAIN_HTTP: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
Content-Length: 50\r\nConnection: close\r\n\r\nThis port speaks HTTPS: write https:// in the URL\n";

/// Serves one connection in a task of its own.
pub(crate) fn serve<N: Net>(worker: &Rc<Worker<N>>, stream: N::Stream, addr: SocketAddr) {
    let worker = Rc::clone(worker);
    let open = worker.shared.open_connection();
    let task = async move {
        let shared = Rc::clone(&worker.shared);
        tokio::select! { biased;
            () = shared.leave_now() => {} // which closes it
            () = take(&worker, stream, addr, open) => {}
        }
    };
    spawn_local(task.instrument(debug_span!("tls", %addr)));
}

async fn take<N: Net>(worker: &Rc<Worker<N>>, mut stream: N::Stream, addr: SocketAddr, open: crate::worker::Open) {
    let shared = &worker.shared;
    let clock = shared.clock;
    let deadline = clock.now() + Duration::from_millis(shared.serving().header_timeout_ms.into());
    let (mut peer, mut head) = (Peer::of_socket(addr), Vec::new());
    if proxy_protocol::expects(&shared.serving(), addr) {
        match proxy_protocol::meet(shared, &mut stream, addr, deadline).await {
            Ok(met) => (peer, head) = met,
            Err(Unintroduced) => {
                shared.metrics.count_tls_failure("proxy_header");
                return;
            }
        }
    }
    let origin = peer.origin(&shared.serving());
    let read = tokio::select! { biased;
        read = hello(&mut stream, &mut head) => read,
        () = clock.sleep_until(Some(deadline)) => Err("slow"),
    };
    let hello = match read {
        Ok(hello) => hello,
        Err(why) => {
            shared.metrics.count_tls_failure(why);
            debug!(why, bytes = head.len(), "no ClientHello");
            return;
        }
    };
    let name = hello.server_name.as_deref();
    match worker.route_tls(name, origin) {
        TlsRoute::NotAllowed => {
            shared.metrics.count_tls_failure("not_allowed");
            refuse(&mut stream, Alert::AccessDenied).await;
        }
        TlsRoute::Passthrough(pool) => {
            let client = passthrough::Client {
                name,
                peer,
                origin,
                head,
                stream: &mut stream,
            };
            if passthrough::pass(worker, client, pool).await.is_err() {
                refuse(&mut stream, Alert::InternalError).await;
            }
        }
        TlsRoute::Terminate(config) => terminate(worker, config, head, stream, peer, deadline, open).await,
        TlsRoute::Unknown => {
            shared.metrics.count_tls_failure("unrecognized_name");
            debug!(name, "no certificate for this name");
            refuse(&mut stream, Alert::UnrecognizedName).await;
        }
    }
}

async fn terminate<N: Net>(
    worker: &Rc<Worker<N>>,
    config: Arc<ServerConfig>,
    head: Vec<u8>,
    stream: N::Stream,
    peer: Peer,
    deadline: Instant,
    open: crate::worker::Open,
) {
    let shared = &worker.shared;
    let accept = TlsAcceptor::from(config).accept(Replay::new(head, stream));
    let accepted = tokio::select! { biased;
        accepted = accept => accepted,
        () = shared.clock.sleep_until(Some(deadline)) => Err(std::io::ErrorKind::TimedOut.into()),
    };
    match accepted {
        Ok(stream) => {
            let (_, session) = stream.get_ref();
            let is_resumed = session.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            shared.metrics.count_handshake(is_resumed);
            listen::serve_tls(worker, stream, peer, open);
        }
        Err(error) => {
            shared.metrics.count_tls_failure("handshake");
            debug!(%error, "a TLS handshake failed");
        }
    }
}

/// Reads until the message is complete; what was read is in `head`. The error says in one word what came instead.
async fn hello<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, head: &mut Vec<u8>) -> Result<Hello, &'static str> {
    let mut buffer = [0_u8; 2048];
    loop {
        match parse(head) {
            Parsed::NeedMore => {}
            Parsed::Hello(hello) => return Ok(hello),
            Parsed::NotTls => {
                if head.first().is_some_and(u8::is_ascii_uppercase) {
                    say(stream, PLAIN_HTTP).await;
                }
                return Err("not_tls");
            }
            Parsed::TooLong => {
                refuse(stream, Alert::DecodeError).await;
                return Err("too_long");
            }
            Parsed::Reject(reason) => {
                debug!(%reason, "refused");
                refuse(stream, Alert::DecodeError).await;
                return Err("malformed");
            }
        }
        let room = buffer.len().min(INPUT_BYTES_MAX - head.len().min(INPUT_BYTES_MAX));
        match stream.read(&mut buffer[..room]).await {
            Ok(0) | Err(_) => return Err("left"),
            Ok(count) => head.extend_from_slice(&buffer[..count]),
        }
    }
}

async fn refuse<S: AsyncWrite + Unpin>(stream: &mut S, alert: Alert) {
    say(stream, &[21, 3, 3, 0, 2, 2, alert as u8]).await;
}

/// The client may be gone, which is as well.
async fn say<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) {
    if stream.write_all(bytes).await.is_ok() {
        let _ = stream.shutdown().await;
    }
}
