//! A client's connection, from accepted to closed.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tidegate_core::settings::proxy::ProxySettings;
use tidegate_core::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::spawn_local;
use tracing::{Instrument as _, debug, debug_span};

use crate::http::client::{Client, ClientIo, ClientLimits, Due, Pulse};
use crate::http::headers::ip_value;
use crate::http::serve;
use crate::net::Net;
use crate::proxy_protocol::{self, Peer, Unintroduced};
use crate::tls::replay::Replay;
use crate::upstream::LocalExec;
use crate::worker::{Open, Phase, Worker};

/// HTTP/2 flow control windows towards clients, in bytes, and streams that one connection may have open.
const STREAM_WINDOW: u32 = 1 << 18;
const CONNECTION_WINDOW: u32 = 1 << 20;
const STREAMS_MAX: u32 = 250;
/// From the drain's begin to the end of kept connections on which nothing is under way. A client that is about to send on
/// one gets its answer first, and reads in it that the connection closes; only who is silent this long finds it closed.
const KEPT_IN_DRAIN: Duration = Duration::from_secs(1);
/// hyper's floor for the size of its read buffer, and so of a request's head.
const HEAD_BYTES_FLOOR: usize = 8192;

/// How connections are served; new ones follow new settings.
#[derive(Debug)]
pub(crate) struct Acceptor {
    local_port: HeaderValue,
    https_port: RefCell<HeaderValue>,
    serving: RefCell<(Rc<auto::Builder<LocalExec>>, ClientLimits)>,
}

impl Acceptor {
    pub(crate) fn new(local: SocketAddr, settings: &ProxySettings) -> Self {
        Acceptor {
            local_port: HeaderValue::from(local.port()),
            https_port: RefCell::new(HeaderValue::from(settings.https_port)),
            serving: RefCell::new(build(settings)),
        }
    }

    pub(crate) fn apply(&self, settings: &ProxySettings) {
        *self.serving.borrow_mut() = build(settings);
        *self.https_port.borrow_mut() = HeaderValue::from(settings.https_port);
    }
}

fn build(settings: &ProxySettings) -> (Rc<auto::Builder<LocalExec>>, ClientLimits) {
    let mut builder = auto::Builder::new(LocalExec);
    builder
        .http1()
        .auto_date_header(false)
        .header_read_timeout(None) // `ClientLimits` does it, without a timer per request
        .max_headers(settings.headers_max as usize)
        .max_buf_size((settings.header_bytes_max as usize).max(HEAD_BYTES_FLOOR));
    builder
        .http2()
        .auto_date_header(false)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(settings.header_bytes_max);
    let limits = ClientLimits {
        body: Duration::from_millis(settings.body_timeout_ms.into()),
        header: Duration::from_millis(settings.header_timeout_ms.into()),
        idle: Duration::from_millis(settings.idle_timeout_ms.into()),
        keepalive: Duration::from_millis(settings.keepalive_timeout_ms.into()),
    };
    (Rc::new(builder), limits)
}

/// Serves one connection in a task of its own.
pub(crate) fn serve<N: Net>(worker: &Rc<Worker<N>>, stream: N::Stream, addr: SocketAddr) {
    let open = worker.shared.open_connection();
    if proxy_protocol::expects(&worker.shared.serving(), addr) {
        spawn_local(introduced(Rc::clone(worker), stream, addr, open).instrument(debug_span!("conn", %addr)));
        return;
    }
    let peer = Peer::of_socket(addr);
    let task = connection(worker, Replay::new(Vec::new(), stream), peer, false, open);
    spawn_local(task.instrument(debug_span!("conn", %addr)));
}

/// Serves a connection that may begin with a PROXY header.
async fn introduced<N: Net>(worker: Rc<Worker<N>>, mut stream: N::Stream, addr: SocketAddr, open: Open) {
    let shared = &worker.shared;
    let deadline = shared.clock.now() + Duration::from_millis(shared.serving().header_timeout_ms.into());
    let met = tokio::select! { biased;
        () = shared.leave_now() => return, // which closes it
        met = proxy_protocol::meet(shared, &mut stream, addr, deadline) => met,
    };
    match met {
        Ok((peer, read)) => connection(&worker, Replay::new(read, stream), peer, false, open).await,
        Err(Unintroduced) => shared.metrics.refused_heads.set(shared.metrics.refused_heads.get() + 1),
    }
}

/// Serves one connection on which TLS has begun. `open` counts it already.
pub(crate) fn serve_tls<N: Net, S>(worker: &Rc<Worker<N>>, stream: S, peer: Peer, open: Open)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let task = connection(worker, stream, peer, true, open);
    spawn_local(task.instrument(debug_span!("conn", addr = %peer.addr)));
}

fn connection<N: Net, S>(
    worker: &Rc<Worker<N>>,
    stream: S,
    peer: Peer,
    tls: bool,
    open: Open,
) -> impl Future<Output = ()> + use<N, S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shared = Rc::clone(&worker.shared);
    let (builder, limits) = worker.acceptor.serving.borrow().clone();
    let clock = shared.clock;
    let pulse = Arc::new(Pulse::new(clock.now()));
    let client = Rc::new(Client {
        peer,
        ip: ip_value(peer.addr.ip()),
        tls,
        local_port: match peer.port {
            Some(port) => HeaderValue::from(port),
            None if tls => worker.acceptor.https_port.borrow().clone(),
            None => worker.acceptor.local_port.clone(),
        },
        pulse: Arc::clone(&pulse),
    });
    let io = TokioIo::new(ClientIo::new(stream, Arc::clone(&pulse), clock));
    let worker = Rc::clone(worker);
    let service = service_fn(move |request| serve::serve(Rc::clone(&worker), Rc::clone(&client), request));
    async move {
        let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
        // What is due is looked at when it may be, not set anew with each request: no state lasts less than the shortest limit.
        let body = if limits.body > Duration::ZERO {
            limits.body
        } else {
            limits.idle
        };
        let shortest = limits.header.min(limits.keepalive).min(limits.idle).min(body);
        let mut timer = pin!(clock.sleep_until(Some(clock.now() + shortest)));
        let mut change = pin!(shared.phase_change());
        let is_draining = shared.phase() >= Phase::Draining;
        let last_call = |draining: bool| clock.sleep_until(draining.then(|| clock.now() + KEPT_IN_DRAIN));
        let mut drained = pin!(last_call(is_draining));
        let mut closing = false;
        let ended = loop {
            tokio::select! { biased;
                ended = connection.as_mut() => break ended,
                () = change.as_mut() => {
                    if shared.phase() >= Phase::Leaving {
                        break Ok(());
                    }
                    if pulse.is_http2() {
                        connection.as_mut().graceful_shutdown(); // GOAWAY loses nothing
                    } else {
                        drained.set(last_call(true)); // until then, answers say `Connection: close`
                    }
                    change.set(shared.phase_change());
                }
                () = drained.as_mut() => {
                    connection.as_mut().graceful_shutdown();
                    drained.set(last_call(false));
                }
                () = timer.as_mut() => match pulse.due(&limits, clock.now()) {
                    // A client that was told to close and stays is too slow as well.
                    due if due == Due::Abort || (due == Due::Close && closing) => {
                        shared.metrics.slow_clients.set(shared.metrics.slow_clients.get() + 1);
                        break Ok(());
                    }
                    Due::Abort | Due::Close => {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                        timer.set(clock.sleep_until(Some(clock.now() + limits.header)));
                    }
                    Due::Later(at) => timer.set(clock.sleep_until(Some(at.min(clock.now() + shortest)))),
                },
            }
        };
        if let Err(error) = ended {
            // Parse errors are hyper's to answer (400, 414, 431); they never were requests.
            let is_refused = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse);
            if is_refused {
                shared.metrics.refused_heads.set(shared.metrics.refused_heads.get() + 1);
            }
            debug!(%error, is_refused, "a client's connection ended");
        }
        drop(open);
    }
}
