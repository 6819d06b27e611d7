//! The controller's listener on the control network.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tidegate_core::id::{ClusterName, ProxyId};
use tidegate_core::snapshot::{Ack, Connection};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{LINES_WAITING_MAX, LinkFact, LocalExecutor};
use crate::clock::Clock;
use crate::identity::{Role, peer_role};
use crate::net::Net;

/// Bytes of an acknowledgement.
const ACK_BYTES_MAX: usize = 1024 * 1024;
/// Time for a proxy to finish its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at a time; beyond it new ones wait in the kernel.
const CONNECTIONS_MAX: usize = 4096;

/// Accepts proxies until `stop`; what they say goes to `facts`. New connections are served by the present `tls`.
pub async fn publish<N: Net>(
    net: N,
    clock: Clock,
    listener: N::Listener,
    tls: watch::Receiver<Arc<ServerConfig>>,
    facts: mpsc::Sender<LinkFact>,
    stop: CancellationToken,
) {
    let numbers = Rc::new(Cell::new(0));
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! { biased;
            () = stop.cancelled() => return,
            accepted = net.accept(&listener) => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a proxy's connection could not be accepted");
                clock.pause(Duration::from_millis(50)).await; // out of file descriptors: let some close
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(tls.borrow().clone());
        let (facts, numbers, stop) = (facts.clone(), numbers.clone(), stop.clone());
        tokio::task::spawn_local(async move {
            let _place = place;
            let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => {
                    tracing::warn!(%peer, %error, "a connection to the control port was refused");
                    return;
                }
                Err(_) => {
                    tracing::warn!(%peer, "a connection to the control port did not finish its handshake");
                    return;
                }
            };
            let Some(Role::Proxy(cluster)) = peer_role(stream.get_ref().1.peer_certificates()) else {
                tracing::warn!(%peer, "a certificate on the control port is not that of a proxy");
                return;
            };
            let service = service_fn(|request| answer(request, cluster.clone(), facts.clone(), numbers.clone()));
            let connection = hyper::server::conn::http2::Builder::new(LocalExecutor)
                .timer(TokioTimer::new())
                .keep_alive_interval(Duration::from_secs(5))
                .keep_alive_timeout(Duration::from_secs(10))
                .auto_date_header(false)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! { biased;
                () = stop.cancelled() => {}
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%peer, %error, "a proxy's control connection ended");
                }
            }
        });
    }
}

type Answer = Response<Either<Lines, Full<Bytes>>>;

async fn answer(
    request: Request<Incoming>,
    mine: ClusterName,
    facts: mpsc::Sender<LinkFact>,
    numbers: Rc<Cell<u64>>,
) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let ["v1", "clusters", cluster, leaf] = parts[..] else {
        return Ok(plain(
            StatusCode::NOT_FOUND,
            "there are /v1/clusters/NAME/table and /v1/clusters/NAME/acks\n",
        ));
    };
    if cluster != mine.as_str() {
        return Ok(plain(
            StatusCode::FORBIDDEN,
            "this certificate is for another service cluster\n",
        ));
    }
    match (request.method(), leaf) {
        (&Method::GET, "table") => {
            let query = request.uri().query().unwrap_or_default();
            let value = |key: &str| {
                query
                    .split('&')
                    .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
            };
            let proxy = ProxyId::from(value("proxy").unwrap_or("unnamed"));
            let digest = value("digest").and_then(|text| text.parse().ok());
            numbers.set(numbers.get() + 1);
            let connection = Connection(numbers.get());
            let (lines, receiver) = mpsc::channel(LINES_WAITING_MAX);
            let connected = LinkFact::Connected {
                connection,
                cluster: mine.clone(),
                proxy,
                digest,
                lines,
            };
            if facts.send(connected).await.is_err() {
                return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "the controller is stopping\n"));
            }
            let end = End {
                fact: Some(LinkFact::Disconnected {
                    cluster: mine,
                    connection,
                }),
                facts,
            };
            Ok(Response::new(Either::Left(Lines { receiver, _end: end })))
        }
        (&Method::POST, "acks") => {
            let Ok(body) = Limited::new(request.into_body(), ACK_BYTES_MAX).collect().await else {
                return Ok(plain(StatusCode::BAD_REQUEST, "the body is cut short or too long\n"));
            };
            match serde_json::from_slice::<Ack>(&body.to_bytes()) {
                Ok(ack) => {
                    let known = facts.send(LinkFact::Ack { cluster: mine, ack }).await.is_ok();
                    let status = if known {
                        StatusCode::NO_CONTENT
                    } else {
                        StatusCode::SERVICE_UNAVAILABLE
                    };
                    Ok(plain(status, ""))
                }
                Err(error) => Ok(plain(
                    StatusCode::BAD_REQUEST,
                    &format!("not an acknowledgement: {error}\n"),
                )),
            }
        }
        _ => Ok(plain(StatusCode::METHOD_NOT_ALLOWED, "GET table, POST acks\n")),
    }
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let mut response = Response::new(Either::Right(Full::new(Bytes::copy_from_slice(text.as_bytes()))));
    *response.status_mut() = status;
    response
}

/// A body of lines that ends when the controller drops the sender.
struct Lines {
    receiver: mpsc::Receiver<Arc<str>>,
    _end: End,
}

/// Says that the connection ended when it is dropped, however that comes about.
struct End {
    fact: Option<LinkFact>,
    facts: mpsc::Sender<LinkFact>,
}

impl Drop for End {
    fn drop(&mut self) {
        let (Some(fact), facts) = (self.fact.take(), self.facts.clone()) else {
            return;
        };
        if let Err(mpsc::error::TrySendError::Full(fact)) = facts.try_send(fact) {
            tokio::task::spawn_local(async move {
                // The controller is stopping where this fails, and forgets all connections.
                facts.send(fact).await.ok();
            });
        }
    }
}

struct Line(Arc<str>);

impl AsRef<[u8]> for Line {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.receiver
            .poll_recv(context)
            .map(|line| line.map(|line| Ok(Frame::data(Bytes::from_owner(Line(line))))))
    }
}
