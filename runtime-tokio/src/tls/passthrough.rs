//! A TLS connection that goes to an endpoint as it is: pick, connect, replay the ClientHello, copy both ways.
//!
//! An endpoint that does not take the connection is tried no more and the next one is asked, within the pool's retry budget,
//! as for HTTP: nothing was sent yet. The connection counts towards its endpoint, and a drain waits for it.

use std::cell::Cell;
use std::io;
use std::rc::Rc;

use http::HeaderMap;
use tidegate_core::pool::{Outcome, Pick};
use tidegate_core::request::origin::Origin;
use tidegate_core::request::retry::Failure;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional_with_sizes};
use tracing::debug;

use crate::http::exchange::Hold;
use crate::http::forward::Place;
use crate::http::upgrade::{COPY_BYTES, Noted, silence};
use crate::net::Net;
use crate::upstream::connect;
use crate::worker::pools::PoolHandle;
use crate::worker::{TlsRoute, Worker};

/// No endpoint took the connection; the client has heard nothing yet.
#[derive(Debug)]
pub(crate) struct Unserved;

/// Passes the connection on; returns when it ended.
pub(crate) async fn pass<N: Net, S: AsyncRead + AsyncWrite + Unpin>(
    worker: &Rc<Worker<N>>,
    name: Option<&str>,
    from: Origin,
    head: Vec<u8>,
    client: &mut S,
    pool: Rc<PoolHandle>,
) -> Result<(), Unserved> {
    let metrics = &worker.shared.metrics;
    let connected = connect(worker, name, from, pool).await;
    let Some((hold, mut upstream)) = connected else {
        metrics.count_tls_failure("no_endpoint");
        return Err(Unserved);
    };
    metrics.passthrough.set(metrics.passthrough.get() + 1);
    let clock = worker.shared.clock;
    let idle_max = hold.pool.serving().idle_timeout;
    let noted = Cell::new(clock.now());
    let mut client = Noted::new(client, clock, &noted);
    let copy = async {
        upstream.write_all(&head).await?;
        drop(head);
        let mut upstream = Noted::new(upstream, clock, &noted);
        copy_bidirectional_with_sizes(&mut client, &mut upstream, COPY_BYTES, COPY_BYTES).await
    };
    let ended = tokio::select! { biased;
        ended = copy => ended,
        () = silence(clock, &noted, idle_max) => Err(io::ErrorKind::TimedOut.into()),
    };
    match ended {
        Ok((up, down)) => debug!(name, up, down, "a passed connection ended"),
        Err(error) => debug!(name, %error, "a passed connection ended"),
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
    loop {
        if pool.is_retired() {
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
        let picked = match pool.pick(key, &tried) {
            Pick::Endpoint(picked) => picked,
            Pick::Unavailable(_) => return None,
            Pick::Park => {
                let since = *parked_since.get_or_insert_with(|| shared.clock.now());
                let until = since + pool.park_max();
                let place = Place(Rc::clone(&pool));
                let is_woken = tokio::select! { biased;
                    () = pool.woken() => true,
                    () = shared.clock.sleep_until(Some(until)) => false,
                };
                drop(place);
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
                pool.handle_outcome(picked.token, Outcome::Connected);
                return Some((hold, upstream));
            }
            Err(fault) => {
                pool.handle_outcome(picked.token, Outcome::of_connect(fault));
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
