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
use serde::de::DeserializeOwned;
use tidegate_core::id::{ClusterName, ProxyId};
use tidegate_core::secrets::message::{Delivery, Report};
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
/// Bytes of all that a courier holds.
const DELIVERY_BYTES_MAX: usize = 256 * 1024 * 1024;
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
            let role = match peer_role(stream.get_ref().1.peer_certificates()) {
                Some(role @ (Role::Courier | Role::Proxy(_))) => role,
                Some(Role::Controller) | None => {
                    tracing::warn!(%peer, "a certificate on the control port is not that of a proxy or courier");
                    return;
                }
            };
            let service = service_fn(|request| answer(request, role.clone(), facts.clone(), numbers.clone()));
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
    role: Role,
    facts: mpsc::Sender<LinkFact>,
    numbers: Rc<Cell<u64>>,
) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let desk = Desk { facts, numbers };
    Ok(match (&parts[..], role) {
        (["v1", "clusters", cluster, leaf], Role::Proxy(mine)) if *cluster == mine.as_str() => {
            desk.of_proxy(request, leaf, mine).await
        }
        (["v1", "secrets"], Role::Courier) if request.method() == Method::POST => desk.of_courier(request).await,
        (["v1", "clusters", _, _] | ["v1", "secrets"], _) => plain(
            StatusCode::FORBIDDEN,
            "this certificate is for another service cluster, or for something else\n",
        ),
        _ => plain(
            StatusCode::NOT_FOUND,
            "there are /v1/clusters/NAME/table, acks, secrets and reports, and /v1/secrets for couriers\n",
        ),
    })
}

/// Where requests become facts.
struct Desk {
    facts: mpsc::Sender<LinkFact>,
    numbers: Rc<Cell<u64>>,
}

impl Desk {
    async fn of_proxy(self, request: Request<Incoming>, leaf: &str, mine: ClusterName) -> Answer {
        let proxy = || ProxyId::from(query(&request, "proxy").unwrap_or("unnamed"));
        match (request.method(), leaf) {
            (&Method::GET, "table") => {
                let digest = query(&request, "digest").and_then(|text| text.parse().ok());
                let (connection, lines, receiver) = self.connection();
                let connected = LinkFact::Connected {
                    connection,
                    cluster: mine.clone(),
                    proxy: proxy(),
                    digest,
                    lines,
                };
                let end = LinkFact::Disconnected {
                    cluster: mine,
                    connection,
                };
                self.stream(connected, end, receiver).await
            }
            (&Method::GET, "secrets") => {
                let (connection, lines, receiver) = self.connection();
                let wanted = LinkFact::SecretsWanted {
                    connection,
                    cluster: mine,
                    proxy: proxy(),
                    lines,
                };
                self.stream(wanted, LinkFact::SecretsEnded(connection), receiver).await
            }
            (&Method::POST, "acks") => match read::<Ack>(request, ACK_BYTES_MAX).await {
                Ok(ack) => self.tell(LinkFact::Ack { cluster: mine, ack }).await,
                Err(answer) => answer,
            },
            (&Method::POST, "reports") => match read::<Report>(request, ACK_BYTES_MAX).await {
                Ok(report) => self.tell(LinkFact::Report { cluster: mine, report }).await,
                Err(answer) => answer,
            },
            _ => plain(
                StatusCode::METHOD_NOT_ALLOWED,
                "GET table, POST acks, GET secrets, POST reports\n",
            ),
        }
    }

    async fn of_courier(self, request: Request<Incoming>) -> Answer {
        let task = query(&request, "task").unwrap_or("unnamed").to_owned();
        let delivery = match read::<Delivery>(request, DELIVERY_BYTES_MAX).await {
            Ok(delivery) => delivery,
            Err(answer) => return answer,
        };
        let (connection, lines, receiver) = self.connection();
        let connected = LinkFact::CourierConnected {
            connection,
            task,
            parcels: delivery.secrets,
            lines,
        };
        self.stream(connected, LinkFact::SecretsEnded(connection), receiver)
            .await
    }

    fn connection(&self) -> (Connection, mpsc::Sender<Arc<str>>, mpsc::Receiver<Arc<str>>) {
        self.numbers.set(self.numbers.get() + 1);
        let (lines, receiver) = mpsc::channel(LINES_WAITING_MAX);
        (Connection(self.numbers.get()), lines, receiver)
    }

    async fn stream(self, begin: LinkFact, end: LinkFact, receiver: mpsc::Receiver<Arc<str>>) -> Answer {
        if self.facts.send(begin).await.is_err() {
            return stopping();
        }
        let end = End {
            fact: Some(end),
            facts: self.facts,
        };
        Response::new(Either::Left(Lines { receiver, _end: end }))
    }

    async fn tell(self, fact: LinkFact) -> Answer {
        match self.facts.send(fact).await {
            Ok(()) => plain(StatusCode::NO_CONTENT, ""),
            Err(_) => stopping(),
        }
    }
}

fn query<'a>(request: &'a Request<Incoming>, key: &str) -> Option<&'a str> {
    let query = request.uri().query().unwrap_or_default();
    query
        .split('&')
        .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

async fn read<T: DeserializeOwned>(request: Request<Incoming>, bytes_max: usize) -> Result<T, Answer> {
    let Ok(body) = Limited::new(request.into_body(), bytes_max).collect().await else {
        return Err(plain(StatusCode::BAD_REQUEST, "the body is cut short or too long\n"));
    };
    // The error itself could show a part of a secret.
    serde_json::from_slice(&body.to_bytes()).map_err(|error| {
        let text = format!("the body cannot be read ({:?})\n", error.classify());
        plain(StatusCode::BAD_REQUEST, &text)
    })
}

fn stopping() -> Answer {
    plain(StatusCode::SERVICE_UNAVAILABLE, "the controller is stopping\n")
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
