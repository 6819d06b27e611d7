//! The wait between a request and the first byte of its response.

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use tidegate_core::request::fault::ClientFault;
use tidegate_core::request::retry::{self, Failure};
use tidegate_core::time::Duration;

use super::body::RequestBody;
use super::exchange::Hold;
use super::forward::Outbound;
use crate::net::Net;
use crate::worker::Worker;
use crate::worker::pools::Endpoint;
use crate::worker::serving::Serving;

/// Why no response began.
pub(super) enum SendError {
    Body(ClientFault),
    Send(Box<TrySendError<Request<RequestBody>>>),
    TimedOut,
    /// Granted by the pool's budget already.
    Vanished,
}

/// Longest time between two doubts of one request.
const DOUBT_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Waits for a response's head. The limit counts from the last byte of the request.
///
/// A connection whose other end lost power or link is silent for ever, so a request that waits for long makes the pool ask
/// whether the endpoint is still there, again after as long as it waited. One that `may_leave` does where the pool gives
/// the endpoint up; the others wait on, for it may have them in its hands.
pub(super) async fn first_byte<N: Net>(
    worker: &Rc<Worker<N>>,
    serving: &Serving,
    response: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>>,
    outbound: &Outbound,
    hold: &Hold,
    endpoint: &Endpoint,
    may_leave: bool,
) -> Result<Response<Incoming>, SendError> {
    let clock = worker.shared.clock;
    let body = outbound.body.as_ref();
    let (limit, idle) = (serving.first_byte_timeout, serving.idle_timeout);
    let mut response = pin!(response);
    let begun = clock.now();
    let mut deadline = begun + limit;
    let mut doubt_at = (!serving.doubt.is_zero()).then_some(begun + serving.doubt);
    let mut abandonments = endpoint.abandonments();
    let mut doubts = false;
    loop {
        let wake = doubt_at.map_or(deadline, |at| at.min(deadline));
        tokio::select! { biased;
            response = &mut response => return response.map_err(|error| SendError::Send(Box::new(error))),
            () = clock.sleep_until(Some(wake)) => {}
            () = endpoint.abandoned(), if doubts => {}
        }
        let now = clock.now();
        if doubt_at.is_some_and(|at| at <= now) {
            doubts = true;
            doubt_at = Some(now + now.since(begun).min(DOUBT_PAUSE_MAX));
            hold.pool.handle_doubt(hold.token);
        }
        if doubts && endpoint.abandonments() != abandonments {
            abandonments = endpoint.abandonments();
            let is_harmless = retry::may_retry(outbound.method.as_str(), RequestBody::sent(body), Failure::Vanished);
            if may_leave && is_harmless && hold.pool.withdraw_retry(Failure::Vanished) {
                return Err(SendError::Vanished);
            }
        }
        if now < deadline {
            continue;
        }
        match body.map(|body| (body.ended_at(), body.last_frame())) {
            Some((Some(ended), _)) if ended + limit > now => deadline = ended + limit,
            Some((None, moved)) if moved + idle > now => deadline = (moved + idle).min(now + limit),
            Some((None, _)) => return Err(SendError::Body(ClientFault::BodyIncomplete)),
            Some((Some(_), _)) | None => return Err(SendError::TimedOut),
        }
    }
}
