//! A TLS connection that goes to an endpoint as it is: pick, connect, say who the client is where that is wanted, replay the
//! ClientHello, pass bytes on both ways.
//!
//! An endpoint that does not take the connection is tried no more and the next one is asked, within the pool's retry budget,
//! as for HTTP: nothing was sent yet. The connection counts towards its endpoint, and a drain waits for it.

use std::io;
use std::rc::Rc;

use http::HeaderMap;
use tidegate_core::pool::Pick;
use tidegate_core::request::origin::Origin;
use tidegate_core::request::retry::Failure;
use tokio::io::AsyncWriteExt;
use tracing::debug;

use super::proxy_header;
use crate::copy::Moved;
use crate::http::exchange::Hold;
use crate::http::upgrade::silence;
use crate::net::Net;
use crate::proxy_protocol::Peer;
use crate::upstream::connect;
use crate::worker::pools::Place;
use crate::worker::pools::PoolHandle;
use crate::worker::{TlsRoute, Worker};

/// No endpoint took the connection; the client has heard nothing yet.
#[derive(Debug)]
pub(crate) struct Unserved;

/// A client's connection whose ClientHello was read.
pub(crate) struct Client<'a, N: Net> {
    pub(crate) name: Option<&'a str>,
    pub(crate) peer: Peer,
    pub(crate) origin: Origin,
    /// What was read.
    pub(crate) head: Vec<u8>,
    pub(crate) stream: &'a mut N::Stream,
}

/// Passes the connection on; returns when it ended.
pub(crate) async fn pass<N: Net>(
    worker: &Rc<Worker<N>>,
    client: Client<'_, N>,
    pool: Rc<PoolHandle>,
) -> Result<(), Unserved> {
    let Client {
        name,
        peer,
        origin,
        head,
        stream,
    } = client;
    let metrics = &worker.shared.metrics;
    let connected = connect(worker, name, origin, pool).await;
    let Some((hold, mut upstream)) = connected else {
        metrics.count_tls_failure("no_endpoint");
        return Err(Unserved);
    };
    metrics.passthrough.set(metrics.passthrough.get() + 1);
    let clock = worker.shared.clock;
    let idle_max = hold.pool.serving().idle_timeout;
    let proxy_protocol = hold.pool.proxy_protocol();
    let moved = Moved::new(clock);
    let copy = async {
        if let Some(version) = proxy_protocol {
            let mut near = worker.net.near_addr(stream)?;
            near.set_port(peer.port.unwrap_or(near.port()));
            upstream
                .write_all(&proxy_header::encode(version, peer.addr, near))
                .await?;
        }
        upstream.write_all(&head).await?;
        drop(head);
        worker.net.copy(stream, &mut upstream, &moved).await
    };
    let ended = tokio::select! { biased;
        ended = copy => ended,
        () = silence(clock, moved.last(), idle_max) => Err(io::ErrorKind::TimedOut.into()),
    };
    let (up, down) = moved.bytes();
    match ended {
        Ok(()) => debug!(name, up, down, "a passed connection ended"),
        Err(error) => debug!(name, up, down, %error, "a passed connection ended"),
    }
    drop(hold);
    Ok(())
}

/// The first endpoint that takes the connection.
async fn connect<N: Net>(
    worker: &Rc<Worker<N>>,
    name: Option<&str>,
    from: Origin,
    mut pool: Rc<PoolHandle>,
) -> Option<(Hold, N::Stream)> {
    let shared = &worker.shared;
    let mut tried = Vec::new();
    let mut tries = 0;
    let mut parked_since = None;
    pool.handle_request();
    let mut place: Option<Place> = None;
    loop {
        if pool.is_retired() {
            place = None;
            // The table changed under the connection: it goes where a new one would.
            let TlsRoute::Passthrough(next) = worker.route_tls(name, from) else {
                return None;
            };
            pool = next;
            pool.handle_request();
            tried.clear();
        }
        let serving = pool.serving();
        let key = serving.know(&HeaderMap::new(), from.ip, &shared.rng).key;
        let picked = match pool.pick(key, &tried, place.as_ref()) {
            Pick::Endpoint(picked) => {
                place = None;
                picked
            }
            Pick::Unavailable(_) => return None,
            Pick::Park(ticket) => {
                let since = *parked_since.get_or_insert_with(|| shared.clock.now());
                let until = since + pool.park_max();
                let place = place.get_or_insert_with(|| pool.park(ticket));
                let is_woken = tokio::select! { biased;
                    () = place.woken() => true,
                    () = shared.clock.sleep_until(Some(until)) => false,
                };
                if !is_woken {
                    return None;
                }
                tried.clear();
                continue;
            }
        };
        let hold = Hold {
            pool: Rc::clone(&pool),
            token: picked.token,
        };
        let endpoint = pool.endpoint(picked.token)?; // as the pool was asked just now
        match connect::tcp(&worker.net, &endpoint.target, serving.connect_timeout).await {
            Ok(upstream) => {
                pool.handle_connect(picked.token, Ok(()));
                return Some((hold, upstream));
            }
            Err(fault) => {
                pool.handle_connect(picked.token, Err(fault));
                shared.metrics.count_no_leg(fault);
                let failures = &shared.metrics.connect_failures;
                failures.set(failures.get() + 1);
                tries += 1;
                if tries > shared.serving().retries_max || !pool.withdraw_retry(Failure::Connect) {
                    debug!(%fault, "no endpoint took the connection");
                    return None;
                }
                tried.push(picked.token);
            }
        }
    }
}
